"""`ndtwin evaluate`: what the models are worth, on measured data and in the figures of the paper."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ndtwin.commands.common import JsonOption, print_json, say
from ndtwin.commands.figures import FigureRun, make_figure
from ndtwin.commands.loading import (
    ALL_MODELS,
    CheckpointOption,
    ModelOption,
    load_models,
    predictors,
)
from ndtwin.commands.train import DataOption, progress_bars
from twin.errors import UsageError

FIGURES = (
    "mape",
    "mape_sample_mean",
    "median_ape",
    "p90_ape",
    "coverage90",
    "coverage90_worst_group",
    "width90_rel",
)
NAMED = 20  # records that were left out, told one by one


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(evaluate)


def evaluate(
    dataset: Annotated[
        Path | None, typer.Option(help="Folder or file of measured samples; without it, simulate some.")
    ] = None,
    kind: Annotated[
        str, typer.Option("--format", help="Of the data set: omnet, testbed or ndtwin.")
    ] = "omnet",
    model: ModelOption = None,
    checkpoint: CheckpointOption = None,
    limit: Annotated[int | None, typer.Option(help="Stop after so many samples.", min=1)] = None,
    data: DataOption = Path("run/training"),
    scenarios: Annotated[int, typer.Option(help="Simulated test scenarios of each kind.", min=1)] = 12,
    figure: Annotated[
        str | None, typer.Option(help="3: error against size of the network. cost: seconds against size.")
    ] = None,
    sizes: Annotated[
        str | None, typer.Option(help="Of a figure's networks, in nodes.", show_default="25,50,…,300")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Draw figure 3 into this PNG or SVG file.")] = None,
    processes: Annotated[int, typer.Option(help="That simulate figure 3 at the same time.", min=1)] = 2,
    as_json: JsonOption = False,
) -> None:
    """Hold the delay models against measured delays: of a data set, or simulated on the spot."""
    if figure is not None:
        if dataset is not None:
            raise UsageError("a figure is of simulated networks: leave --dataset out")
        run = FigureRun(data, out, sizes, scenarios, processes)
        make_figure(figure, model or [], checkpoint, run, as_json=as_json)
        return
    if dataset is not None:
        report = _judge(dataset, kind, model or [], checkpoint, limit)
        print_json(report) if as_json else _show_report(report)
        return
    slices = _judge_slices(model or [], checkpoint, data, scenarios)
    if as_json:
        print_json(slices)
        return
    for name, report in slices.items():
        _show_report(report, name)


def _judge(
    dataset: Path, kind: str, names: list[str], checkpoint: Path | None, limit: int | None
) -> dict[str, Any]:
    """The report of :func:`twin.evaluation.evaluate`, with the models that could not be loaded."""
    from twin.evaluation import READERS
    from twin.evaluation import evaluate as run
    from twin.inference import shipped
    from twin.samples import Dropped

    if kind not in READERS:
        raise UsageError(f"no format {kind!r}: choose one of {', '.join(READERS)}")
    if not dataset.exists():
        raise UsageError(f"{dataset}: no such file or folder")
    if kind == "testbed" and checkpoint is None and "routenet" in (names or ALL_MODELS):
        checkpoint = shipped("testbed")  # the weights that were tuned on that hardware
    models, skipped = load_models(names, checkpoint)
    dropped = Dropped()
    with progress_bars() as progress:
        task = progress.add_task("evaluate", total=limit)
        samples = islice(READERS[kind](dataset, dropped), limit)
        report = run(predictors(models), samples, dropped, watch=lambda _: progress.advance(task))
    for line in dropped.named[:NAMED]:
        say(f"left out {line}")
    return {**report, "skipped": skipped}


def _judge_slices(
    names: list[str], checkpoint: Path | None, data: Path, scenarios: int
) -> dict[str, dict[str, Any]]:
    """A report for every slice of simulated networks that no recipe trains on."""
    from twin.evaluation import evaluate as run
    from twin.recipes import TEST_SEED, TEST_SLICES
    from twin.training import Run, gather

    models, skipped = load_models(names, checkpoint)
    seeds = range(TEST_SEED, TEST_SEED + scenarios)
    with progress_bars() as bars:
        reports = {
            name: run(predictors(models), gather(Run(data, bar=bars), {name: seeds})) for name in TEST_SLICES
        }
    return {name: {**report, "skipped": skipped} for name, report in reports.items()}


def _show_report(report: dict[str, Any], slice_name: str = "") -> None:
    """The table for people: one row a model, then its MAPE by size and by policy."""
    console = Console()
    counted = f"{report['flows']} flows of {report['samples']} samples; {report['dropped']} left out"
    console.print(f"{slice_name}: {counted}" if slice_name else counted)
    table = Table("%", *report["models"], title="errors, and what 90 % intervals cover")
    for key in FIGURES:
        table.add_row(f"delay {key}", *_shown(figures[key] for figures in report["models"].values()))
    for kind, key in (("jitter", "mape"), ("loss", "mae")):
        if all(kind in figures for figures in report["models"].values()):
            table.add_row(
                f"{kind} {key}", *_shown(figures[kind][key] for figures in report["models"].values())
            )
    console.print(table)
    for title, parts in (("nodes", report["by_size"]), ("policy", report["by_policy"])):
        table = Table(title, "flows", *report["models"], title=f"mape by {title}")
        for name, part in parts.items():
            table.add_row(name, str(part["flows"]), *_shown(own["mape"] for own in part["models"].values()))
        console.print(table)


def _shown(values: Iterable[float]) -> list[str]:
    return [f"{value:.2f}" for value in values]
