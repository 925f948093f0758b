"""`ndtwin train`, `ndtwin evaluate`, `ndtwin bench`: the models and their figures."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ndtwin.commands.common import JsonOption, print_json, say

DataOption = Annotated[Path, typer.Option(help="Simulated samples are kept here and used again.")]
bench_app = typer.Typer(help="Measure; one JSON object on the last line of stdout.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(train)
    app.command()(evaluate)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def train(
    recipe: Annotated[str, typer.Option(help="Name of a recipe; a wrong one lists them.")] = "fifo-1",
    out: Annotated[Path, typer.Option(help="The checkpoint to write.")] = Path("run/routenet.pt"),
    data: DataOption = Path("run/training"),
    seed: Annotated[int, typer.Option(help="Of the weights and the order of samples.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Simulate, train, calibrate and write a checkpoint. Simulation resumes where it was stopped."""
    from twin.training import train as run

    out.parent.mkdir(parents=True, exist_ok=True)
    with _progress() as progress:
        figures = run(recipe, out, data=data, date=date.today().isoformat(), seed=seed, progress=progress)
    say(f"wrote {out}")
    if as_json:
        print_json(figures)
    else:
        for name, value in figures.items():
            print(f"{name:12} {value:.4f}")


def evaluate(
    checkpoint: Annotated[Path | None, typer.Option(help="Default: the shipped weights.")] = None,
    data: DataOption = Path("run/training"),
    scenarios: Annotated[int, typer.Option(help="Test scenarios of each kind.", min=1)] = 12,
    as_json: JsonOption = False,
) -> None:
    """Compare routenet, mg1k and mm1b on networks that no recipe trains on, simulated on the spot."""
    from twin.training import evaluate as run

    with _progress() as progress:
        report = run(checkpoint, data=data, scenarios=scenarios, progress=progress)
    if as_json:
        print_json(report)
        return
    table = Table("networks and traffic", "model", "MAPE %", "median %", "p90 %", "coverage of 90 % interval")
    for name, models in report.items():
        for model, figures in models.items():
            shown = (f"{100 * figures[key]:.1f}" for key in ("mape", "ape_median", "ape_p90", "coverage"))
            table.add_row(name, model, *shown)
    Console().print(table)


@bench_app.command()
def simulator(as_json: JsonOption = False) -> None:
    """Packet-hops a second of the simulator on one core."""
    from ndtwin.bench_simulator import bench_simulator

    figures = bench_simulator()
    if not as_json:
        for name, value in figures.items():
            print(f"{name:24} {value}")
    print_json(figures)
