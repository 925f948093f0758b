"""What predictions cost: whole networks, by every model and size, what changed alone, and a process from its
start.

A figure is the median of several runs, after one that compiles what is not compiled yet; every run has fresh
traffic on the same network, as every window has, and uses all cores. What a network caches of itself (its
paths) is then known, as it is to a twin whose network did not change since the last window.

``incremental_s`` is what :class:`twin.incremental.Incremental` takes where one link's load has grown by a
tenth since the prediction before, by traffic between its ends, which crosses no other link.
``incremental_through_s`` is the same where all flows over one link change, and so the loads of hundreds.
Errors are those against the prediction of all flows, the largest of any path's delay or jitter.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from twin.incremental import Incremental
from twin.inference import RouteNet
from twin.models import DelayModel, PathPrediction
from twin.network import Ints, Network, Traffic
from twin.topologies import power_law
from twin.traffic import lab_scenario

NODES = 300
COLD_NODES = 50
RUNS = 9  # or fewer:
LONGEST_S = 3.0  # of one model on one network, but at least LEAST_RUNS
LEAST_RUNS = 3
COLD_RUNS = 3
CHANGES = 9  # one after the other, each on top of those before
LOAD_STEP = 0.1  # of a link's load
RATE_STEP = 1.2
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
    routenet = models.get("routenet")
    if isinstance(routenet, RouteNet):
        watch(f"routenet, one link's load changed, {nodes} nodes")
        figures |= time_changes(routenet, network, traffic)
    if routenet is not None:
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


# ------------------------------------------------------------------------------------- what has changed


def time_changes(model: RouteNet, network: Network, traffic: Traffic) -> dict[str, float]:
    """Seconds, flows that were run again (median), and largest relative error of following changes."""
    incremental, rng = Incremental(model), np.random.default_rng(1)
    links = rng.permutation(len(network.links))
    direct = [link for link in links if len(network.paths.of(_between_ends(network, link))) == 1]
    figures: dict[str, float] = {}
    for name, change, chosen in (("", with_load, direct), ("through_", with_rates, links)):
        incremental.predict(network, traffic)
        incremental.update(network, change(network, traffic, chosen[-1]))  # compiles
        incremental.predict(network, traffic)
        now, walls, flows, errors = traffic, [], [], []
        for link in chosen[:CHANGES]:
            now = change(network, now, link)
            began = time.perf_counter()
            said = incremental.update(network, now)
            walls.append(time.perf_counter() - began)
            flows.append(incremental.rerun.flows)
            errors.append(_largest_error(said, model.predict(network, now)))
        figures |= {
            f"incremental_{name}s": median(walls),
            f"incremental_{name}flows": median(flows),
            f"incremental_{name}max_rel_error": max(errors),
        }
    return figures


def with_load(network: Network, traffic: Traffic, link: int) -> Traffic:
    """The traffic between the ends of a link grown by LOAD_STEP of all traffic over it."""
    path = _between_ends(network, link)
    more_bps = LOAD_STEP * traffic.bps[_over(network, link)].sum()
    return _times(traffic, np.array([path]), 1 + more_bps / traffic.bps[path])


def with_rates(network: Network, traffic: Traffic, link: int) -> Traffic:
    """All flows over a link at RATE_STEP times their rate."""
    return _times(traffic, _over(network, link), RATE_STEP)


def _over(network: Network, link: int) -> Ints:
    """The paths over a link."""
    return np.asarray(network.paths.hop_path[network.paths.links == link])


def _between_ends(network: Network, link: int) -> int:
    return network.path_index(network.links[link].source, network.links[link].target)


def _times(traffic: Traffic, flows: Ints, factor: float) -> Traffic:
    factors = np.ones(len(traffic.bps))
    factors[flows] = factor
    return replace(traffic, bps=traffic.bps * factors, pps=traffic.pps * factors)


def _largest_error(said: PathPrediction, whole: PathPrediction) -> float:
    routed = whole.mean_s > 0
    pairs = ((said.mean_s, whole.mean_s), (said.jitter_s, whole.jitter_s))
    return float(max(np.abs(ours[routed] / theirs[routed] - 1).max() for ours, theirs in pairs))


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
