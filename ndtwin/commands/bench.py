"""`ndtwin bench`: how fast the twin is. Progress on stderr; a table, or with --json one object, on stdout."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ndtwin.commands.common import JsonOption, print_json, say
from ndtwin.commands.loading import CheckpointOption, ModelOption, load_models

app = typer.Typer(help="Measure; with --json, one object on the last line of stdout.", no_args_is_help=True)


@app.command()
def inference(
    nodes: Annotated[int, typer.Option(help="Of the network; all pairs exchange traffic.", min=2)] = 300,
    model: ModelOption = None,
    checkpoint: CheckpointOption = None,
    as_json: JsonOption = False,
) -> None:
    """Seconds of a prediction of all paths, by every model, and from the start of a process to its first."""
    from ndtwin.bench_inference import bench_inference

    models, skipped = load_models(model or [], checkpoint)
    figures = bench_inference(models, nodes, checkpoint=checkpoint, watch=say)
    _tell({**figures, "skipped": skipped}, as_json)


@app.command()
def simulator(
    seconds: Annotated[float, typer.Option(help="Of each measurement of ours.", min=0.1)] = 3.0,
    as_json: JsonOption = False,
) -> None:
    """Packet-hops a second of the simulator on one core, and where ns3 is installed the same of ns-3."""
    from ndtwin.bench_ns3 import bench_ns3, ns3_installed
    from ndtwin.bench_simulator import bench_simulator

    figures: dict[str, Any] = {**bench_simulator(seconds)}
    if ns3_installed():
        figures |= bench_ns3(watch=say)
    else:
        say("ns-3 is not compared with: install it by `pip install 'ndtwin[ns3]'`")
    _tell(figures, as_json)


@app.command()
def calibration(
    nodes: Annotated[int, typer.Option(help="Of the network whose cost is measured.", min=2)] = 300,
    model: ModelOption = None,
    checkpoint: CheckpointOption = None,
    as_json: JsonOption = False,
) -> None:
    """Errors in the simulated lab before and after its measurements have taught the models, and the cost."""
    from ndtwin.bench_calibration import bench_calibration

    models, skipped = load_models(model or [], checkpoint)
    _tell({**bench_calibration(models, nodes), "skipped": skipped}, as_json)


@app.command()
def snmp(
    devices: Annotated[int, typer.Option(help="Simulated; a tenth of them silent.", min=10)] = 1000,
    interfaces: Annotated[int, typer.Option(help="Of each simulated device.", min=1)] = 48,
    period: Annotated[float, typer.Option(help="Seconds between their polls.", min=0.5)] = 10.0,
    seconds: Annotated[float, typer.Option(help="Of the reading of snmpd.", min=0.1)] = 5.0,
    as_json: JsonOption = False,
) -> None:
    """Varbinds a second against snmpd, beside pysnmp, and how soon a thousand devices are polled."""
    from ndtwin import logs
    from ndtwin.bench_snmp import bench_snmp

    logs.configure(logging.ERROR)  # a tenth of the devices are meant to be told off as silent
    figures = bench_snmp(seconds=seconds, devices=devices, interfaces=interfaces, period_s=period, watch=say)
    _tell(figures, as_json)


@app.command()
def ipfix(
    records: Annotated[int, typer.Option(help="Flow records, some 22 a datagram.", min=1000)] = 1_000_000,
    as_json: JsonOption = False,
) -> None:
    """Flow records a second, decoded and summed on one core, beside nfcapd and PyPI's netflow."""
    from ndtwin.bench_ipfix import bench_ipfix

    _tell(bench_ipfix(records, watch=say), as_json)


@app.command()
def fuzz(
    datagrams: Annotated[int, typer.Option(help="Mutated messages, shared by all targets.", min=1)] = 100_000,
    target: Annotated[list[str] | None, typer.Option(help="Only these; may be repeated.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same messages.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Hostile bytes into everything that listens: crashes (none), and memory (flat)."""
    from ndtwin import logs
    from ndtwin.bench_fuzz import bench_fuzz

    logs.configure(logging.ERROR)  # one exporter is meant to be told off all the time
    _tell(bench_fuzz(datagrams, seed=seed, only=target or (), watch=say), as_json)


def _tell(figures: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(figures)
        return
    table = Table(show_header=False, box=None)
    for name, value in _flat(figures):
        table.add_row(name, f"{value:,.4g}" if isinstance(value, float) else str(value))
    Console().print(table)


def _flat(figures: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Nested figures, one a row."""
    rows: list[tuple[str, Any]] = []
    for name, value in figures.items():
        rows += _flat(value, f"{before}{name}: ") if isinstance(value, Mapping) else [(before + name, value)]
    return rows
