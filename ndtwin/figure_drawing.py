"""The figures of :mod:`ndtwin.figure` as pictures; needs the optional extra ``figures`` (matplotlib)."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twin.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Name, colour (Okabe and Ito, "Color universal design", 2008: told apart by all eyes) and mark of a model.
STYLES = {
    "mm1b": ("M/M/1/b", "#D55E00", "s"),
    "mg1k": ("M/G/1/K", "#E69F00", "^"),
    "rnn": ("RNN over the path", "#56B4E9", "D"),
    "routenet": ("RouteNet", "#0072B2", "o"),
}
NOISE = "#777777"
ENDINGS = (".png", ".svg", ".pdf")
WIDTH_IN, HEIGHT_IN, DPI = 7.0, 4.2, 200
BESIDE_NODES = 3.0  # bars of models stand beside each other
PERCENTS = (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200)
SECONDS = (0.001, 0.01, 0.1, 1, 10)

Sizes = Mapping[str, Mapping[str, Any]]


def check_drawable(out: Path) -> None:
    """UsageError when no picture can be made, before the work that it would show is done."""
    if out.suffix not in ENDINGS:
        raise UsageError(f"{out}: a picture's name ends in {', '.join(ENDINGS)}")
    if find_spec("matplotlib") is None:
        raise UsageError("pictures need matplotlib: pip install 'ndtwin[figures]', or leave --out out")


def draw_errors(sizes: Sizes, out: Path) -> None:
    """Mean error against size, with a bar that holds most flows, and what noise of the labels makes."""
    figure, axes = _page("relative error of the mean delay (%)", PERCENTS)
    styles = _there(sizes)
    for place, (name, (label, colour, mark)) in enumerate(styles.items()):
        aside = BESIDE_NODES * (place - (len(styles) - 1) / 2)
        at = [nodes + aside for nodes in _nodes(sizes)]
        low, mean, high = ([own[name][key] for own in sizes.values()] for key in ("p15", "mape", "p85"))
        axes.vlines(at, low, high, color=colour, linewidth=1.6, alpha=0.5)
        axes.plot(at, mean, color=colour, marker=mark, markersize=5, label=label)
    noise = [own["label_noise_mape"] for own in sizes.values()]
    axes.plot(_nodes(sizes), noise, color=NOISE, linestyle=":", label="noise of the labels")
    axes.set_title("Mean over all flows; bars from the 15th to the 85th percentile", fontsize=9, loc="left")
    _finish(figure, axes, sizes, out)


def draw_costs(sizes: Sizes, out: Path) -> None:
    """Seconds of a prediction against size."""
    figure, axes = _page("time of one prediction of all paths (s)", SECONDS)
    for name, (label, colour, mark) in _there(sizes, "_s").items():
        seconds = [own[f"{name}_s"] for own in sizes.values()]
        axes.plot(_nodes(sizes), seconds, color=colour, marker=mark, label=label)
    _finish(figure, axes, sizes, out)


def _nodes(sizes: Sizes) -> list[int]:
    return [int(size) for size in sizes]


def _there(sizes: Sizes, ending: str = "") -> dict[str, tuple[str, str, str]]:
    """The styles of the models that have figures."""
    first = next(iter(sizes.values()))
    return {name: style for name, style in STYLES.items() if name + ending in first}


def _page(what: str, ticks: tuple[float, ...]) -> tuple[Figure, Axes]:
    """An empty page with a logarithmic axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
    axes = figure.add_subplot()
    axes.set_yscale("log")
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylabel(what)
    return figure, axes


def _finish(figure: Figure, axes: Axes, sizes: Sizes, out: Path) -> None:
    axes.set_xticks(_nodes(sizes))
    axes.set_xlabel("size of the network (nodes)")
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5))
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=DPI)
