"""What predictions cost: whole networks, by every model and size, and a process from its start.

A figure is the median of several runs, after one that compiles what is not compiled yet; every run has fresh
traffic on the same network, as every window has, and uses all cores. What a network caches of itself (its
paths) is then known, as it is to a twin whose network did not change since the last window.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from twin.models import DelayModel
from twin.network import Network, Traffic
from twin.topologies import power_law
from twin.traffic import lab_scenario

NODES = 300
COLD_NODES = 50
RUNS = 9  # or fewer:
LONGEST_S = 3.0  # of one model on one network, but at least LEAST_RUNS
LEAST_RUNS = 3
COLD_RUNS = 3
_FIRST_PREDICTION = (
    "import sys, ndtwin.cli, ndtwin.bench_inference as bench; bench.first_prediction(*sys.argv[1:])"
)


def bench_inference(
    models: Mapping[str, DelayModel],
    nodes: int = NODES,
    *,
    checkpoint: Path | None = None,
    watch: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """``NAME_s`` of every model on one lab of FIFO links; ``cold_start_s`` where RouteNet is among them."""
    network, traffic = lab(nodes)
    figures = time_models(models, network, traffic, watch)
    if "routenet" in models:
        watch(f"first prediction of a process, {COLD_NODES} nodes")
        figures["cold_start_s"] = median(cold_start_s(checkpoint) for _ in range(COLD_RUNS))
    return {**figures, **size_of(network), **conditions(models)}


def lab(nodes: int) -> tuple[Network, Traffic]:
    """The network of the bench: a power law of degrees, gravity traffic between all pairs of nodes."""
    return lab_scenario(power_law(nodes, seed=1), seed=1)


def cost_by_size(
    models: Mapping[str, DelayModel],
    cases: Iterable[tuple[Network, Traffic]],
    watch: Callable[[str], None] = lambda _: None,
) -> dict[str, dict[str, float]]:
    """``NAME_s`` of every model, by number of nodes."""
    return {
        str(len(network.nodes)): {**time_models(models, network, traffic, watch), **size_of(network)}
        for network, traffic in cases
    }


def size_of(network: Network) -> dict[str, float]:
    """How much there is to predict."""
    return {
        "nodes": len(network.nodes),
        "paths": network.path_count,
        "hops": len(network.paths.links),
    }


def conditions(models: Mapping[str, DelayModel]) -> dict[str, Any]:
    """What else the figures depend on."""
    return {
        "threads": os.cpu_count() or 1,
        "versions": {name: model.version for name, model in models.items()},
    }


def time_models(
    models: Mapping[str, DelayModel],
    network: Network,
    traffic: Traffic,
    watch: Callable[[str], None] = lambda _: None,
) -> dict[str, float]:
    """``NAME_s`` of every model on one network."""
    figures = {}
    for name, model in models.items():
        watch(f"{name}, {len(network.nodes)} nodes")
        figures[f"{name}_s"] = median_s(model, network, traffic)
    return figures


def median_s(model: DelayModel, network: Network, traffic: Traffic) -> float:
    """Median time of a prediction, in seconds."""
    model.predict(network, traffic.scaled(1.0))
    walls: list[float] = []
    while len(walls) < RUNS and (len(walls) < LEAST_RUNS or sum(walls) < LONGEST_S):
        fresh = traffic.scaled(1.0)  # what traffic caches of itself is computed anew
        began = time.perf_counter()
        model.predict(network, fresh)
        walls.append(time.perf_counter() - began)
    return median(walls)


# ----------------------------------------------------------------------------------- a whole process


def cold_start_s(checkpoint: Path | None) -> float:
    """From the start of a process to its end after one prediction, seen from outside.

    Compiled functions come from numba's cache; on a machine that never predicted, they are compiled first.
    """
    argv = [sys.executable, "-c", _FIRST_PREDICTION, *([] if checkpoint is None else [str(checkpoint)])]
    began = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def first_prediction(checkpoint: str | None = None) -> None:
    """What that process does: load RouteNet and predict one network, which it makes itself."""
    from twin.inference import load

    load(None if checkpoint is None else Path(checkpoint)).predict(*lab(COLD_NODES))
