"""Networks under traffic of every kind, and checkpoints with random weights: what models are tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from twin.checkpoint import Checkpoint, Provenance, RouteNetConfig, SafeRange
from twin.features import Features, build_features
from twin.intervals import constant_intervals
from twin.models import PathPrediction
from twin.network import Ints, Network, Paths, Traffic
from twin.queueing import MG1K
from twin.recipes import SLICES
from twin.routenet import RouteNetModule, to_graph
from twin.scenarios import draw, traffic_of
from twin.topologies import nsfnet
from twin.traffic import lab_scenario

SIZE_SCV = 0.45
State = tuple[Network, Traffic]
SMALL_LIMIT = RouteNetConfig(limit=1.0)  # random corrections stay within a factor of e


@cache
def lab() -> State:
    """The lab's NSFNET at its mean load: FIFO, one flow a path."""
    return lab_scenario(nsfnet(), seed=3)


@cache
def mixed(seed: int = 3) -> State:
    """A network that has all schedulers, its flows all classes, sizes and arrivals."""
    scenario = draw(replace(SLICES["mixed"], nodes=(12, 12)), seed)
    pps = np.array([flow.pps for flow in scenario.flows])
    bits = np.array([flow.sizes.mean_bits for flow in scenario.flows])
    return scenario.network, traffic_of(scenario.network, scenario.flows, pps * bits, pps)


@cache
def routed() -> State:
    """The same with explicit routes over a third node, in any order; some carry many flows, some none."""
    network, traffic = mixed()
    rng = np.random.default_rng(11)
    routes = [_detour(network, path, rng) for path in rng.permutation(network.path_count)]
    offsets = np.cumsum([0, *map(len, routes)])
    explicit = replace(network, routes=Paths(np.concatenate(routes).astype(np.int64), offsets))
    path = rng.integers(network.path_count, size=len(traffic.pps))
    return explicit, replace(traffic.scaled(0.5), path=path)  # detours are longer


def _detour(network: Network, path: int, rng: np.random.Generator) -> Ints:
    """From the source to some other node and on to the destination, unless a link would be crossed twice."""
    source, destination = network.path_ends(path)
    via = int(rng.integers(len(network.nodes)))
    if via in (source, destination):
        return network.paths.of(path)
    name = network.nodes
    legs = (network.path_index(name[source], name[via]), network.path_index(name[via], name[destination]))
    links = np.concatenate([network.paths.of(leg) for leg in legs])
    return links if len(set(links.tolist())) == len(links) else network.paths.of(path)


STATES = {"lab": lab, "mixed": mixed, "explicit routes": routed}


def hastened(state: State, factor: float) -> State:
    """All links and flows so many times as fast, without what has a time of its own: propagation, and the
    rounds of DRR, which become WFQ."""
    network, traffic = state
    links = tuple(
        replace(
            link,
            capacity_bps=factor * link.capacity_bps,
            propagation_delay_s=0.0,
            scheduling=replace(link.scheduling, policy="WFQ")
            if link.scheduling.policy == "DRR"
            else link.scheduling,
        )
        for link in network.links
    )
    vary = traffic.variability
    if vary is not None:
        vary = replace(vary, rate_time_s=vary.rate_time_s / factor)
    return replace(network, links=links), replace(traffic.scaled(factor), variability=vary)


def features_of(state: State) -> Features:
    """The tables of a state, corrected from M/G/1/K."""
    return build_features(*state, MG1K(size_scv=SIZE_SCV))


def checkpoint_of(
    config: RouteNetConfig = SMALL_LIMIT, *, seed: int = 1, spread: float = 0.3, seen: Sequence[Features] = ()
) -> Checkpoint:
    """Random weights everywhere, in the last layers too unless ``spread`` is 0; scales from what was seen."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = RouteNetModule(config)
        if spread:
            last = module.get_parameter("expect_error.2.weight")
            for weight in (module.correct.weight, module.correct.bias, last):
                torch.nn.init.normal_(weight, std=spread)
    if seen:
        module.fit_scales([to_graph(features) for features in seen])
    return Checkpoint(
        weights={name: tensor.numpy().copy() for name, tensor in module.state_dict().items()},
        config=config,
        size_scv=SIZE_SCV,
        intervals=constant_intervals(2.0),
        safe_range=SafeRange({"nodes": (10, 20), "load": (0.0, 1.2), "buffer packets": (8, 128)}),
        provenance=Provenance(recipe="test", seed=0, samples=0, date="2026-01-01", versions={}),
    )


def arrays(prediction: PathPrediction) -> dict[str, NDArray[np.float64]]:
    """What is predicted of flows."""
    return {name: getattr(prediction, name) for name in ("mean_s", "jitter_s", "loss", "log_width")}
