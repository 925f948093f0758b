"""`ndtwin replay` and `ndtwin schemas`: what concerns stored records."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ndtwin.commands.common import ConfigOption, JsonOption, RunDirOption, print_json, say, settings_from
from twin.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the commands."""
    # replay joins when stream.replay is there
    app.command()(schemas)


def schemas(out: Annotated[Path, typer.Option(help="Directory to write to.")] = Path("docs/schemas")) -> None:
    """Write the JSON Schemas and the AsyncAPI document of all topics."""
    from ndtwin.schemas import write_documents

    for path in write_documents(out):
        say(f"wrote {path}")


def parse_time_ns(text: str, option: str) -> int:
    """ISO 8601 (no zone = UTC) or seconds since the epoch → nanoseconds; UsageError shows both forms."""
    try:
        return round(float(text) * 1e9)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{option} {text!r}: give a time such as 2026-01-31T12:00:00 or 1769860800"
        ) from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1e9)
