"""`ndtwin lab sim`, `ndtwin lab netns` and `ndtwin lab fault …`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
import typer

from ndtwin import logs
from ndtwin.commands.common import (
    ConfigOption,
    JsonOption,
    MagnitudeOption,
    RunDirOption,
    TargetOption,
    print_json,
    say,
    settings_from,
    stop_event_on_signals,
)
from ndtwin.lab.client import LabClient
from ndtwin.lab.fault_records import FaultRecord
from twin.errors import UsageError

app = typer.Typer(help="A live network to run against, and its faults.", no_args_is_help=True)
fault_app = typer.Typer(
    help="Inject faults into a running lab; its journal says what and when.", no_args_is_help=True
)
app.add_typer(fault_app, name="fault")


@app.command()
def sim(
    config: ConfigOption = None,
    run_dir: RunDirOption = None,
    topology: Annotated[
        str | None,
        typer.Option(help="nsfnet, geant2, gbn, power-law:N or a GraphML file.", show_default="nsfnet"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of topology, traffic and packets.", show_default="1")
    ] = None,
    base_address: Annotated[
        str | None, typer.Option(help="Devices answer from here on.", show_default="127.20.0.0")
    ] = None,
) -> None:
    """Simulated devices on loopback: SNMP, NETCONF and IPFIX over packets that really queue. No root."""
    from ndtwin.lab.run import run_lab

    logs.configure()
    tables = {"lab": {"topology": topology, "seed": seed, "base_address": base_address}}
    settings = settings_from(config, run_dir, tables)

    async def run() -> None:
        stop = stop_event_on_signals()
        await run_lab(
            settings.lab, settings.run_path, stop, lambda path: say(f"the lab runs; inventory: {path}")
        )

    asyncio.run(run())


@app.command()
def netns(
    config: ConfigOption = None,
    run_dir: RunDirOption = None,
    topology: Annotated[
        str | None,
        typer.Option(help="nsfnet, gbn, power-law:N or a GraphML file.", show_default="nsfnet"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of topology and traffic.", show_default="1")] = None,
) -> None:
    """Real routers in network namespaces: FRR, net-snmp, netconfd, softflowd, kernel queues. Root only."""
    from ndtwin.lab.netns.tools import check_ready

    check_ready()  # before much is loaded, and before anything is read
    from ndtwin.lab.netns.run import run_netns_lab

    logs.configure()
    settings = settings_from(config, run_dir, {"lab": {"topology": topology, "seed": seed}})

    async def run() -> None:
        stop = stop_event_on_signals()
        await run_netns_lab(
            settings.lab,
            settings.netns,
            settings.run_path,
            stop,
            lambda path: say(f"the lab runs; inventory: {path}"),
        )

    asyncio.run(run())


@fault_app.command("list")
def list_faults(
    config: ConfigOption = None, run_dir: RunDirOption = None, as_json: JsonOption = False
) -> None:
    """The faults there are, and those that are on."""
    faults = _client(config, run_dir).faults()
    if as_json:
        print_json(msgspec.to_builtins(faults))
        return
    for kind in faults.kinds:
        size = f" (default {kind.magnitude:g} {kind.unit})" if kind.magnitude is not None else ""
        print(f"{kind.fault:16} {kind.about}{size}")
    for fault in faults.active:
        print(f"on: {_line(fault)}")


@fault_app.command()
def start(
    fault: Annotated[str, typer.Argument(help="A name from `ndtwin lab fault list`.")],
    target: TargetOption = None,
    magnitude: MagnitudeOption = None,
    config: ConfigOption = None,
    run_dir: RunDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Inject a fault."""
    record = _client(config, run_dir).start(fault, target, magnitude)
    if as_json:
        print_json(msgspec.to_builtins(record))
    else:
        print(_line(record))


@fault_app.command()
def stop(
    fault_id: Annotated[
        str | None, typer.Argument(help="The id that `start` printed.", show_default=False)
    ] = None,
    all_faults: Annotated[bool, typer.Option("--all", help="Stop every fault that is on.")] = False,
    config: ConfigOption = None,
    run_dir: RunDirOption = None,
) -> None:
    """Undo a fault."""
    client = _client(config, run_dir)
    if (fault_id is None) == (not all_faults):
        raise UsageError("name one fault id, or give --all")
    for name in [fault.id for fault in client.faults().active] if fault_id is None else [fault_id]:
        record = client.stop(name)
        print(f"{_line(record)} stopped")


def _line(record: FaultRecord) -> str:
    size = f", {record.magnitude:g} {record.unit}" if record.magnitude is not None else ""
    return f"{record.id}  {record.fault} on {record.target}{size}"


def _client(config: ConfigOption, run_dir: RunDirOption) -> LabClient:
    return LabClient(settings_from(config, run_dir).run_path)
