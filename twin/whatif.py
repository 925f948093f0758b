"""What if: links down, other weights, other capacities, more or less traffic, on a copy of the state.

Nothing that is given is changed. Routes are recomputed only when links or weights change; then a node keeps
its present next hop wherever that is still one of the shortest, so that equal-cost ties cause no phantom
reroutes. A network that spreads flows over equal next hops goes on to do so. Names of links are ``A->B``
(one direction), ``A<->B`` (both) or, for parallel links, ``A->B@eth3``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from twin.equal_routes import predict_paths
from twin.errors import TopologyError
from twin.models import DelayModel, PathPrediction
from twin.network import Floats, Network, Traffic
from twin.queueing import sum_hops
from twin.routing import shortest_paths


@dataclass(frozen=True)
class WorstLink:
    """The link that is used most."""

    name: str
    utilisation: float


@dataclass(frozen=True)
class WhatIfResult:
    """Now and then."""

    before: PathPrediction
    after: PathPrediction
    network: Network  # as it would be
    traffic: Traffic  # as it would be
    delta_s: Floats  # [P] change of the mean delay; 0 where there is a route in at most one of the two
    unreachable: tuple[str, ...]  # paths that lose their route
    rerouted: tuple[str, ...]  # paths that take other links
    worst_link_before: WorstLink
    worst_link_after: WorstLink
    notes: tuple[str, ...] = ()


def what_if(
    network: Network,
    traffic: Traffic,
    model: DelayModel,
    *,
    links_down: Sequence[str] = (),
    weights: Mapping[str, float] | None = None,
    capacities: Mapping[str, float] | None = None,
    traffic_scale: float = 1.0,
    base_weights: Sequence[float] | None = None,
) -> WhatIfResult:
    """Predict before and after. ``weights`` change ``base_weights`` [L], which are 1 each (hops) if None."""
    _check("traffic_scale", traffic_scale, allow_zero=True)
    then = _changed_links(network, links_down, capacities or {})
    notes: tuple[str, ...] = ()
    if links_down or weights:
        cost = (
            np.ones(len(network.links)) if base_weights is None else np.array(base_weights, dtype=np.float64)
        )
        notes = _routing_notes(network, cost)
        for name, weight in (weights or {}).items():
            _check(f"weight of {name}", weight)
            cost[links_named(network, name)] = weight
        then = replace(then, next_link=reroute(then, cost), equal_links=None)
        if network.equal_links is not None:
            then = replace(then, equal_links=equal_next_hops(then, cost))
    demand = traffic.scaled(traffic_scale)
    before, after = predict_paths(model, network, traffic), predict_paths(model, then, demand)
    had, has = network.paths.lengths > 0, then.paths.lengths > 0
    return WhatIfResult(
        before=before,
        after=after,
        network=then,
        traffic=demand,
        delta_s=np.where(had & has, after.mean_s - before.mean_s, 0.0),
        unreachable=_names(network, had & ~has),
        rerouted=_names(network, had & has & _moved(network, then)),
        worst_link_before=_worst(network, before),
        worst_link_after=_worst(then, after),
        notes=notes,
    )


def links_named(network: Network, name: str) -> list[int]:
    """Indices of the links that ``A->B``, ``A->B@eth3`` or ``A<->B`` names; TopologyError if none."""
    left, both, right = name.partition("<->")
    wanted = {f"{left}->{right}", f"{right}->{left}"} if both else {name}
    found = [
        index
        for index, (unique, link) in enumerate(zip(network.link_names, network.links, strict=True))
        if unique in wanted or link.name in wanted
    ]
    if not found:
        some = ", ".join(network.link_names[:6])
        raise TopologyError(f"no link {name!r} in this network: links are named like {some}")
    return found


def reroute(network: Network, cost: Floats) -> NDArray[np.int16]:
    """Shortest paths under ``cost`` [L]; the present next hop stays wherever it is among the shortest."""
    shortest = shortest_paths(network.nodes, network.links, cost)
    distance = _distances(replace(network, next_link=shortest), cost)
    present = network.next_link.astype(np.int64)
    up = np.array([link.up for link in network.links], dtype=np.bool_)
    rows, columns = np.nonzero(present >= 0)
    link = present[rows, columns]
    through = cost[link] + distance[network.target_index[link], columns]
    keep = up[link] & np.isfinite(through) & np.isclose(through, distance[rows, columns], rtol=1e-12)
    chosen = shortest.copy()
    chosen[rows[keep], columns[keep]] = network.next_link[rows[keep], columns[keep]]
    return chosen


def equal_next_hops(network: Network, cost: Floats) -> NDArray[np.int16]:
    """What is as short as ``next_link`` under ``cost`` [L]: (node, destination, link), [E, 3]."""
    distance = _distances(network, cost)
    up = np.array([link.up for link in network.links], dtype=np.bool_)
    through = cost[:, None] + distance[network.target_index]  # [L, N]
    present = distance[network.source_index]
    equal = np.isfinite(through) & np.isclose(through, present, rtol=1e-12) & up[:, None]
    link, destination = np.nonzero(equal)
    node = network.source_index[link]
    further = (node != destination) & (network.next_link[node, destination] != link)
    rows = np.stack([node, destination, link], axis=1)[further]
    ordered: NDArray[np.int16] = rows[np.lexsort(rows.T[::-1])].astype(np.int16)
    return ordered


def _distances(network: Network, cost: Floats) -> Floats:
    """Cost of the route between any two nodes, [N, N]; infinite where there is none."""
    paths, n = network.paths, len(network.nodes)
    costs = np.where(paths.lengths > 0, sum_hops(paths, cost[paths.links]), np.inf)
    distance = np.zeros((n, n))
    distance[~np.eye(n, dtype=np.bool_)] = costs
    return distance


def _changed_links(network: Network, links_down: Sequence[str], capacities: Mapping[str, float]) -> Network:
    links = list(network.links)
    for name in links_down:
        for index in links_named(network, name):
            links[index] = replace(links[index], up=False)
    for name, capacity_bps in capacities.items():
        _check(f"capacity of {name}", capacity_bps)
        for index in links_named(network, name):
            links[index] = replace(links[index], capacity_bps=float(capacity_bps))
    return replace(network, links=tuple(links))


def _routing_notes(network: Network, cost: Floats) -> tuple[str, ...]:
    """Say so when the present routing does not follow from the weights: the answer then mixes two changes."""
    differ = int((reroute(network, cost) != network.next_link).sum())
    if not differ:
        return ()
    return (
        f"{differ} next hops in force are not the shortest by the weights assumed: some reroutes are theirs",
    )


def _moved(before: Network, after: Network) -> NDArray[np.bool_]:
    """Paths that run over other links, [P]: equal length and equal links hop by hop, or moved."""
    moved: NDArray[np.bool_] = before.paths.lengths != after.paths.lengths
    for path in np.flatnonzero(~moved):
        moved[path] = bool((before.paths.of(int(path)) != after.paths.of(int(path))).any())
    return moved


def _names(network: Network, chosen: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(network.path_name(int(path)) for path in np.flatnonzero(chosen))


def _worst(network: Network, prediction: PathPrediction) -> WorstLink:
    if not network.links:
        return WorstLink("", 0.0)
    index = int(prediction.link_utilisation.argmax())
    return WorstLink(network.link_names[index], float(prediction.link_utilisation[index]))


def _check(what: str, value: float, *, allow_zero: bool = False) -> None:
    if not isfinite(value) or value < 0 or (value == 0 and not allow_zero):
        raise TopologyError(f"{what} is {value}: give a positive number")
