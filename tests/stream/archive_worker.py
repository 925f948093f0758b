"""A process that archives until it is killed: `python archive_worker.py BOOTSTRAP DIRECTORY`."""

import sys
import threading
from pathlib import Path

from stream.archive import run_archive

if __name__ == "__main__":
    run_archive(sys.argv[1], Path(sys.argv[2]), partitions=1, stop=threading.Event(), flush_s=0.2)
