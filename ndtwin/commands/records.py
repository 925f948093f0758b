"""`ndtwin replay` and `ndtwin schemas`: what concerns stored records."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ndtwin.commands.common import (
    ConfigOption,
    JsonOption,
    RunDirOption,
    print_json,
    say,
    settings_from,
    stop_on_signals,
)
from twin.errors import UsageError

if TYPE_CHECKING:
    from stream.replay import ReplayReport


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(replay)
    app.command()(schemas)


def replay(
    start: Annotated[
        str, typer.Option("--from", help="Time such as 2026-01-31T12:00:00 (UTC), or seconds since 1970.")
    ],
    end: Annotated[str, typer.Option("--to", help="The same; the end is not included.")],
    config: ConfigOption = None,
    run_dir: RunDirOption = None,
    archive: Annotated[
        Path | None, typer.Option(help="Archive directory.", show_default="the run directory's")
    ] = None,
    out: Annotated[Path, typer.Option(help="States, predictions and alerts go here (JSON lines).")] = Path(
        "replay"
    ),
    speed: Annotated[
        float | None, typer.Option(help="1 = real time.", show_default="as fast as possible")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit code 1 unless all is byte-identical to the live run.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run archived telemetry through the same processors on the log's clock; compare with the live run."""
    from stream.predictor import load_model
    from stream.replay import replay as run

    settings = settings_from(config, run_dir)
    model, problem = load_model(settings.twin.model, settings.checkpoint_path)
    if problem:
        say(problem)
    report = run(
        archive or settings.archive_path,
        parse_time_ns(start, "--from"),
        parse_time_ns(end, "--to"),
        out,
        model=model,
        pipeline=settings.pipeline,
        detector=settings.detector,
        rules=settings.calibration_rules,
        speed=speed,
        stop=stop_on_signals(),
    )
    if as_json:
        print_json(report.as_dict())
    else:
        _tell(report, out)
    raise typer.Exit(1 if check and not report.same_as_live else 0)


def _tell(report: ReplayReport, out: Path) -> None:
    print(f"{report.records} records in {report.duration_s:.1f} s, written to {out}")
    for name, comparison in report.compared.items():
        print(f"{name:12} {comparison}")
    for damage in report.damaged_files:
        print(f"skipped      {damage}")
    print(verdict(report))


def verdict(report: ReplayReport) -> str:
    """Whether the replay came to what the live run came to, in a line."""
    if report.same_as_live:
        return "the same as live"
    if all(comparison.same for comparison in report.compared.values()):
        return "nothing to compare with: the archive holds no live states of these windows"
    if report.live_models and report.live_models != [report.model]:
        live = ", ".join(report.live_models)
        return f"not the same as live, which was predicted by {live}; here {report.model}"
    return "not the same as live"


def schemas(out: Annotated[Path, typer.Option(help="Directory to write to.")] = Path("docs/schemas")) -> None:
    """Write the JSON Schemas and the AsyncAPI document of all topics."""
    from ndtwin.schemas import write_documents

    for path in write_documents(out):
        say(f"wrote {path}")


def parse_time_ns(text: str, option: str) -> int:
    """ISO 8601 (no zone = UTC) or seconds since the epoch → nanoseconds; UsageError shows both forms."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return round(float(text) * 1e9)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{option} {text!r}: give a time such as 2026-01-31T12:00:00 or 1769860800"
        ) from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1e9)
