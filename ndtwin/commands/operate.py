"""`ndtwin up`, `ndtwin drill`, `ndtwin doctor`."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live

from ndtwin.commands.common import (
    ConfigOption,
    JsonOption,
    MagnitudeOption,
    RunDirOption,
    TargetOption,
    print_json,
    say,
    settings_from,
    stop_on_signals,
)
from twin.errors import UsageError

if TYPE_CHECKING:
    from ndtwin.config import Settings

Tables = dict[str, dict[str, object]]
WindowOption = Annotated[
    float | None, typer.Option("--window", help="Length of a window in seconds.", show_default="10")
]
TopologyOption = Annotated[
    str | None,
    typer.Option(
        "--topology", help="nsfnet, geant2, gbn, power-law:N or a GraphML file.", show_default="nsfnet"
    ),
]


LabOption = Annotated[
    str | None,
    typer.Option("--lab", help="sim, or netns: real routers in namespaces (root).", show_default="sim"),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(up)
    app.command()(drill)
    app.command()(doctor)


def up(
    config: ConfigOption = None,
    run_dir: RunDirOption = None,
    topology: TopologyOption = None,
    lab: LabOption = None,
    window: WindowOption = None,
    port: Annotated[int | None, typer.Option(help="Of the page.", show_default="8080")] = None,
    headless: Annotated[bool, typer.Option("--headless", help="No screen; lines on stderr.")] = False,
    for_s: Annotated[
        float | None, typer.Option("--for", help="Stop after so many seconds.", metavar="SECONDS")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write the loop's figures here at the end (JSON).")
    ] = None,
) -> None:
    """Run everything here: broker, lab, collectors, stream, twin, detection, archive, API and page.

    With `--for` and `--report`, exit code 1 says that the loop was not whole; the reasons are on stderr.
    """
    from ndtwin.loop import running_loop
    from ndtwin.terminal import screen

    if for_s is not None and for_s <= 0:
        raise UsageError(f"--for {for_s:g}: give seconds greater than 0")
    tables: Tables = {"lab": {"topology": topology}, "pipeline": {"window_s": window}}
    tables["serve"] = {"port": port}
    settings = settings_from(config, run_dir, {**tables_for(config, lab, tables), "lab_kind": lab})
    stop = stop_on_signals()
    say(f"starting; page at {page_of(settings)}, logs in {settings.run_path / 'logs'}")
    with running_loop(settings, say if headless else lambda _line: None, stop) as loop:
        end_s = time.monotonic() + for_s if for_s else float("inf")
        with nullcontext() if headless else Live(refresh_per_second=2) as live:
            while not stop.is_set() and time.monotonic() < end_s:
                loop.tick()
                if live is not None:
                    live.update(screen(loop))
                stop.wait(0.5)
        figures, faults = loop.report(), loop.faults()
    if report is not None:
        report.write_text(json.dumps(figures) + "\n")
    if for_s is not None:
        for line in faults:
            say(f"not whole: {line}")
        raise typer.Exit(1 if faults else 0)


def drill(
    fault: Annotated[
        str, typer.Argument(help="One of `ndtwin lab fault list`, such as link-delay or link-capacity.")
    ],
    config: ConfigOption = None,
    run_dir: RunDirOption = None,
    target: TargetOption = None,
    magnitude: MagnitudeOption = None,
    topology: TopologyOption = None,
    lab: LabOption = None,
    window: WindowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the loop, inject a fault, wait for the alert, clear it, wait for the resolution, report.

    Uses ports and addresses of its own, so a running `ndtwin up` is not disturbed.
    """
    from ndtwin.drill import Drill, Patience, check_wish
    from ndtwin.lab.faults import FAULTS as SIM_FAULTS
    from ndtwin.lab.netns.world import FAULTS as NETNS_FAULTS
    from ndtwin.loop import running_loop
    from ndtwin.ports import private_ports

    netns = lab_of(config, lab) == "netns"
    known = NETNS_FAULTS if netns else SIM_FAULTS
    if fault not in known:
        raise UsageError(f"unknown fault {fault!r}: there is {', '.join(known)}")
    overrides: Tables = {"lab": {"topology": topology}, "pipeline": {"window_s": window}}
    overrides = tables_for(config, lab, overrides)
    patience = Patience(quiet=16, startup_s=300.0) if netns else Patience()  # it is calibrated first
    with private_ports(run_dir) as (own_dir, own):
        settings = settings_from(config, own_dir, {**merge(overrides, own), "lab_kind": lab})
        check_wish(known[fault].kind, settings.lab, target, magnitude)
        stop = stop_on_signals()
        say(f"starting a loop of its own; page at {page_of(settings)}")
        with running_loop(settings, say, stop) as loop:
            result = Drill(loop, say, patience).run(fault, target, magnitude)
    if as_json:
        print_json(result.as_dict())
    else:
        print("\n".join(result.lines()))
    raise typer.Exit(0 if result.passed else 1)


def page_of(settings: Settings) -> str:
    """Where the page of a loop is."""
    return f"http://{settings.serve.host}:{settings.serve.port}"


def lab_of(config: Path | None, lab: str | None) -> str:
    """Which lab: as the command line says, else as the configuration does."""
    return settings_from(config, None, {"lab_kind": lab}).lab_kind


def tables_for(config: Path | None, lab: str | None, overrides: Tables) -> Tables:
    """With what a loop on that lab needs besides."""
    from ndtwin.lab.netns.settings import LOOP_TABLES

    return merge(LOOP_TABLES, overrides) if lab_of(config, lab) == "netns" else overrides


def merge(first: Tables, second: Tables) -> Tables:
    """Two sets of overrides, table by table; the second wins."""
    return {name: {**first.get(name, {}), **second.get(name, {})} for name in {*first, *second}}


def doctor(config: ConfigOption = None, run_dir: RunDirOption = None, as_json: JsonOption = False) -> None:
    """Say what is reachable, what is missing and what to do. Exit code 1 when something needed is missing."""
    from ndtwin.doctor import examine

    findings = examine(settings_from(config, run_dir))
    if as_json:
        print_json({"findings": [finding.as_dict() for finding in findings]})
    else:
        for finding in findings:
            print(finding.line())
    raise typer.Exit(1 if any(finding.level == "missing" for finding in findings) else 0)
