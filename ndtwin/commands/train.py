"""`ndtwin train`: a checkpoint from its recipe, with its losses drawn while it runs."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import plotext
import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from ndtwin.commands.common import JsonOption, print_json, say

if TYPE_CHECKING:
    from twin.fitting import Progress as Fitted

DataOption = Annotated[Path, typer.Option(help="Simulated samples are kept here and used again.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(train)


def progress_bars() -> Progress:
    """Bars on stderr, so that stdout stays for the result."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def train(
    recipe: Annotated[str, typer.Option(help="Name of a recipe; a wrong one lists them.")] = "universal-3",
    out: Annotated[Path, typer.Option(help="The checkpoint to write.")] = Path("run/routenet.npz"),
    data: DataOption = Path("run/training"),
    dataset: Annotated[
        Path | None, typer.Option(help="Folder of the measured files that a recipe trains on.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the weights and the order of samples.")] = 0,
    processes: Annotated[int, typer.Option(help="That simulate at the same time.", min=1)] = 2,
    as_json: JsonOption = False,
) -> None:
    """Simulate, train, calibrate and write a checkpoint. Every step resumes where it was stopped."""
    from twin.training import Run
    from twin.training import train as run_training

    out.parent.mkdir(parents=True, exist_ok=True)
    bars = progress_bars()
    unfinished = out.with_suffix(".unfinished")
    with Live(bars, console=Console(stderr=True), refresh_per_second=2) as live:
        run = Run(
            data=data,
            dataset=dataset,
            state=unfinished,
            processes=processes,
            bar=bars,
            on_epoch=lambda fitted: live.update(Group(bars, loss_plot(fitted))),
        )
        figures = run_training(recipe, out, run, date=date.today().isoformat(), seed=seed)
    unfinished.unlink(missing_ok=True)
    say(f"wrote {out}")
    if as_json:
        print_json(figures)
    else:
        for name, value in figures.items():
            print(f"{name:12} {value:.4f}")


def loss_plot(fitted: Fitted) -> Group:
    """The validation error of every epoch beside that of the queueing model, and the newest figures."""
    epochs = list(range(1, fitted.epoch + 1))
    plotext.clear_figure()
    plotext.plot_size(78, 16)
    plotext.theme("clear")
    plotext.title("validation error of the delay, %, by epoch")
    plotext.plot(epochs, [100 * mape for mape in fitted.mape], label="routenet")
    plotext.plot(epochs, [100 * fitted.prior_mape] * len(epochs), label="untrained")
    newest = f"epoch {fitted.epoch}: loss {fitted.loss[-1]:.4f}, error {fitted.mape[-1]:.2%}"
    return Group(Text.from_ansi(plotext.build()), Text(f"{newest}, best {fitted.best_mape:.2%}"))
