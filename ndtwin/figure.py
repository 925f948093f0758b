"""Figures of Almasan et al. ("Network digital twin: context, enabling technologies and opportunities", IEEE
Communications Magazine 60(11), 2022), made of our own simulator's networks and models.

*Figure 3*: error of the mean delay against size of the network, for four models. *Cost*: seconds of one
prediction against size.

The networks are those of the slice ``mixed`` of :mod:`twin.recipes` in other sizes (:data:`SLICES`): power
laws of degrees, every node its scheduler (a quarter FIFO, the others SP, WFQ, DRR) and buffer, every flow its
class, sizes and arrivals, a flow for every pair of nodes, steady state. Seeds are those of tests: no recipe
trains on them, and none on networks of more than 110 nodes.

*Bars*: the 15th and 85th percentile of the error over all flows of a size. *Label noise*: what was measured
differs from the truth by its standard error, so a model that says the truth would not err by 0:
``label_noise_mape`` is what it would (the mean absolute value of a normal error), ``label_noise`` the median
standard error. All in percent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import pi, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from twin import recipes
from twin.dataset import generate, load_samples
from twin.errors import UsageError
from twin.evaluation import Predict, evaluate
from twin.network import Floats, Network, Traffic
from twin.recipes import TEST_SEED
from twin.samples import Sample
from twin.scenarios import Conditions, draw, traffic_of

MODELS = ("mm1b", "mg1k", "rnn", "routenet")  # in the order in which they are drawn


@dataclass(frozen=True)
class Slice:
    """Networks of one size."""

    conditions: Conditions
    networks: int


def _slice(nodes: int, networks: int, packets: float) -> tuple[str, Slice]:
    """So many networks; so many packets a flow on average."""
    conditions = replace(recipes.SLICES["mixed"], nodes=(nodes, nodes), packets=packets)
    return f"figure3-{nodes}", Slice(conditions, networks)


# Small networks differ more from each other, and a flow of theirs is cheaper. Together 3·10⁹ packet-hops. The
# median standard error is about 0.5/√packets, and more in small networks, whose links carry fewer flows.
SLICES = dict(
    (
        _slice(25, networks=12, packets=4000),
        _slice(50, networks=8, packets=3000),
        _slice(75, networks=6, packets=2000),
        _slice(100, networks=4, packets=1500),
        _slice(150, networks=3, packets=1000),
        _slice(200, networks=2, packets=800),
        _slice(250, networks=2, packets=700),
        _slice(300, networks=2, packets=900),
    )
)


def choose(sizes: str | None, most_networks: int | None = None) -> dict[str, Slice]:
    """The slices of sizes such as ``25,50``, or all; fewer networks of each where so asked."""
    names = list(SLICES) if sizes is None else [f"figure3-{size.strip()}" for size in sizes.split(",")]
    for name in names:
        if name not in SLICES:
            known = ", ".join(str(own.conditions.nodes[0]) for own in SLICES.values())
            raise UsageError(f"no networks of {name.removeprefix('figure3-')!r} nodes: choose from {known}")
    chosen = {name: SLICES[name] for name in names}
    if most_networks is None:
        return chosen
    return {name: replace(own, networks=min(own.networks, most_networks)) for name, own in chosen.items()}


# ----------------------------------------------------------------------------------------- figure 3


def figure3(
    models: Mapping[str, Predict],
    slices: Mapping[str, Slice],
    data: Path,
    *,
    processes: int = 1,
    bar: Progress | None = None,
) -> dict[str, Any]:
    """Errors by size, and whether the models come in the order that they should; ``data`` keeps samples."""
    noise: dict[str, list[Floats]] = {}

    def watch(sample: Sample) -> None:
        noise.setdefault(str(len(sample.network.nodes)), []).append(sample.noise[sample.labelled])

    samples = samples_of(slices, data, processes, bar)
    by_size = evaluate(models, samples, watch=watch)["by_size"]
    sizes = {size: _figures(part, models, noise[size]) for size, part in by_size.items()}
    return {
        "slice": "figure3-N: slice mixed in other sizes, seeds of tests",
        "p15, p85": "15th and 85th percentile over flows",
        "sizes": sizes,
        "holds": holds(sizes),
    }


def samples_of(
    slices: Mapping[str, Slice], data: Path, processes: int = 1, bar: Progress | None = None
) -> Iterator[Sample]:
    """The samples, simulated where they are missing."""
    for name, own in slices.items():
        seeds = range(TEST_SEED, TEST_SEED + own.networks)
        generate(data / name, own.conditions, seeds, bar, processes=processes)
        for seed in seeds:
            yield from load_samples(data / name, [seed])


def _figures(part: Mapping[str, Any], models: Iterable[str], noise: Sequence[Floats]) -> dict[str, Any]:
    errors = np.concatenate(noise)
    return {
        **{name: _renamed(part["models"][name]) for name in models},
        "label_noise": round(100 * float(np.median(errors)), 4),
        "label_noise_mape": round(100 * sqrt(2 / pi) * float(errors.mean()), 4),
        "flows": part["flows"],
        "networks": len(noise),
    }


def _renamed(figures: Mapping[str, float]) -> dict[str, float]:
    return {
        "mape": figures["mape"],
        "median": figures["median_ape"],
        "p15": figures["p15_ape"],
        "p85": figures["p85_ape"],
        "coverage90": figures["coverage90"],
    }


def holds(sizes: Mapping[str, Mapping[str, Any]]) -> dict[str, bool]:
    """What should hold, as far as the models and sizes are there."""
    said = {}
    order = ("routenet", "mg1k", "mm1b")
    if all(name in own for name in order for own in sizes.values()):
        mape = [[own[name]["mape"] for name in order] for own in sizes.values()]
        said["routenet<mg1k<mm1b at every size"] = all(a < b < c for a, b, c in mape)
    if "routenet" in sizes.get("300", {}):
        said["routenet<=4 at 300 nodes"] = sizes["300"]["routenet"]["mape"] <= 4
    return said


# --------------------------------------------------------------------------------------------- cost


def cost_cases(slices: Mapping[str, Slice]) -> Iterator[tuple[Network, Traffic]]:
    """The first network of every slice, offered what its flows send on average; nothing is simulated."""
    for own in slices.values():
        scenario = draw(own.conditions, TEST_SEED)
        pps = np.array([flow.pps for flow in scenario.flows])
        bits = np.array([flow.sizes.mean_bits for flow in scenario.flows])
        yield scenario.network, traffic_of(scenario.network, scenario.flows, pps * bits, pps)
