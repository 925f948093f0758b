"""A stream worker as a process of its own: what the tests start, kill and start again.

Usage: stream_worker.py NAME BOOTSTRAP DATA_DIR SETTINGS_JSON
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from stream.app import run_app
from stream.pipeline import NetworkPipeline, PipelineSettings
from stream.topics import INPUT_TOPICS


def tell(metrics: dict[str, float]) -> None:
    """The status, for whoever reads the test's log."""
    print(metrics, file=sys.stderr, flush=True)


if __name__ == "__main__":
    name, bootstrap, data_dir, encoded = sys.argv[1:]
    settings = msgspec.json.decode(encoded, type=PipelineSettings)
    run_app(
        name,
        bootstrap,
        INPUT_TOPICS,
        lambda: NetworkPipeline(settings),
        on_status=tell,
        data_dir=Path(data_dir),
    )
