"""`ndtwin evaluate --figure`: the figures of :mod:`ndtwin.figure`, as JSON, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from ndtwin.commands.common import print_json, say
from ndtwin.commands.loading import load_models, predictors
from ndtwin.commands.train import progress_bars
from twin.errors import UsageError

if TYPE_CHECKING:
    from twin.models import DelayModel

FIGURES = ("3", "cost")


@dataclass(frozen=True)
class FigureRun:
    """How a figure is made."""

    data: Path  # simulated samples, kept
    out: Path | None  # the picture
    sizes: str | None  # such as 25,50
    networks: int  # of one size, at most
    processes: int


def make_figure(
    name: str, names: list[str], checkpoint: Path | None, run: FigureRun, *, as_json: bool
) -> None:
    """Check what was asked for, then make it, tell it and draw it."""
    from ndtwin.figure import MODELS, choose
    from ndtwin.figure_drawing import check_drawable, draw_costs, draw_errors

    if name not in FIGURES:
        raise UsageError(f"no figure {name!r}: choose from {', '.join(FIGURES)}")
    choose(run.sizes)
    if run.out is not None:
        check_drawable(run.out)
    loaded, skipped = load_models(names, checkpoint)
    models = {one: loaded[one] for one in MODELS if one in loaded}
    report = _errors(models, run) if name == "3" else _costs(models, run)
    if run.out is not None:
        (draw_errors if name == "3" else draw_costs)(report["sizes"], run.out)
        say(f"drew {run.out}")
    report["skipped"] = skipped
    if as_json:
        print_json(report)
    else:
        _show(report, models, "{}" if name == "3" else "{}_s")


def _errors(models: Mapping[str, DelayModel], run: FigureRun) -> dict[str, Any]:
    from ndtwin.figure import choose, figure3

    slices = choose(run.sizes, run.networks)
    with progress_bars() as bars:
        report = figure3(predictors(models), slices, run.data, processes=run.processes, bar=bars)
    return {**report, "versions": {name: model.version for name, model in models.items()}}


def _costs(models: Mapping[str, DelayModel], run: FigureRun) -> dict[str, Any]:
    from ndtwin.bench_inference import conditions, cost_by_size
    from ndtwin.figure import choose, cost_cases

    return {"sizes": cost_by_size(models, cost_cases(choose(run.sizes)), say), **conditions(models)}


def _show(report: Mapping[str, Any], models: Mapping[str, DelayModel], key: str) -> None:
    """One row a size."""
    errors = "holds" in report
    table = Table("nodes", *models, title="mean error, % (15th–85th percentile)" if errors else "seconds")
    if errors:
        table.add_column("label noise")
    for size, own in report["sizes"].items():
        cells = [_cell(own[key.format(name)]) for name in models]
        table.add_row(size, *cells, *([f"{own['label_noise_mape']:.2f}"] if errors else []))
    console = Console()
    console.print(table)
    for what, held in report.get("holds", {}).items():
        console.print(f"{what}: {'yes' if held else 'NO'}")


def _cell(figures: Any) -> str:
    if isinstance(figures, float):
        return f"{figures:.4f}"
    return f"{figures['mape']:.2f} ({figures['p15']:.1f}–{figures['p85']:.1f})"
