"""What all commands share: options, printing, signals."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ndtwin.config import Settings

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Configuration file.", show_default="ndtwin.toml, if there"),
]
RunDirOption = Annotated[
    str | None,
    typer.Option("--run-dir", help="Where inventory, secrets, archive and logs lie.", show_default="run"),
]
TargetOption = Annotated[
    str | None, typer.Option(help="Link A->B, node A or path A->B.", show_default="the fault's own choice")
]
MagnitudeOption = Annotated[
    float | None, typer.Option(help="In the fault's own unit.", show_default="the fault's own")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


def settings_from(
    config: Path | None, run_dir: str | None = None, tables: Mapping[str, object] | None = None
) -> Settings:
    """The configuration with what the command line overrides; None overrides nothing."""
    from ndtwin.config import load_settings

    return load_settings(config, {"run_dir": run_dir, **(tables or {})})


def print_json(value: object) -> None:
    """The machine's answer: one JSON object, one line, on stdout."""
    print(json.dumps(value), flush=True)


def say(line: str) -> None:
    """A line for the person who watches, on stderr."""
    print(line, file=sys.stderr, flush=True)


def stop_on_signals() -> threading.Event:
    """An event that Ctrl-C and SIGTERM set; a second signal ends the process at once."""
    stop = threading.Event()

    def on_signal(number: int, _frame: object) -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        stop.set()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    return stop


def stop_event_on_signals() -> asyncio.Event:
    """The same for a program that is one event loop; call it inside the loop."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
