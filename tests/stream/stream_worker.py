"""A stream worker as a process of its own: what the tests start, kill and start again.

Usage: stream_worker.py NAME BOOTSTRAP DATA_DIR
"""

from __future__ import annotations

import sys
from pathlib import Path

from stream.app import run_app
from stream.pipeline import NetworkPipeline
from stream.topics import INPUT_TOPICS


def tell(metrics: dict[str, float]) -> None:
    """The status, for whoever reads the test's log."""
    print(metrics, file=sys.stderr, flush=True)


if __name__ == "__main__":
    name, bootstrap, data_dir = sys.argv[1:]
    run_app(name, bootstrap, INPUT_TOPICS, NetworkPipeline, on_status=tell, data_dir=Path(data_dir))
