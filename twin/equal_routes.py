"""Paths that take several equal routes: taken apart for the models, put together again for everybody else.

Theory
------
A router with several equal next hops towards a destination spreads *flows* over them, by a hash of addresses
and ports: a packet's route is settled by its flow, and over many flows every next hop gets an equal share.
So a path is a set of routes r with shares w_r, the product of 1/k over the routers with k choices on the way.
Between them

    mean = Σ w_r · mean_r        jitter² = Σ w_r · (jitter_r² + mean_r²) − mean²        loss = Σ w_r · loss_r

and a link carries of a path what the routes over it carry together. Models are given one flow per route
(:meth:`EqualRoutes.apart`); what they say of routes is put together (:meth:`EqualRoutes.together`).

In large fabrics routes are many: beyond MOST_ROUTES a path is taken to use the first so many (in the order of
its next hops) in equal proportion to their shares. Capacities are not weighed: unequal-cost spreading is not
known to telemetry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from twin.models import DelayModel, PathPrediction
from twin.network import Floats, Ints, Network, Paths, Traffic, Variability

MOST_ROUTES = 16
Number = TypeVar("Number", np.float64, np.int64)
_Route = tuple[tuple[int, ...], float]  # links, share


@dataclass(frozen=True)
class EqualRoutes:
    """Every route of every path, path after path: R."""

    routes: Paths  # [R]
    path: Ints  # [R] the path a route belongs to
    share: Floats  # [R] of the path's packets; a path's shares add up to 1

    def apart(self, network: Network, traffic: Traffic) -> tuple[Network, Traffic]:
        """One flow per route."""
        vary = traffic.variability
        return replace(network, routes=self.routes, equal_links=None), replace(
            traffic,
            bps=traffic.bps[self.path] * self.share,
            pps=traffic.pps[self.path] * self.share,
            service_class=_at(traffic.service_class, self.path),
            size_scv=_at(traffic.size_scv, self.path),
            variability=None
            if vary is None
            else Variability(vary.gap_scv[self.path], vary.rate_scv[self.path], vary.rate_time_s[self.path]),
        )

    def together(self, said: PathPrediction, paths: int) -> PathPrediction:
        """What a model said of routes, path by path. The widest interval of a path's routes is kept."""
        mean = self._mean(said.mean_s, paths)
        square = self._mean(said.jitter_s**2 + said.mean_s**2, paths)
        width = np.zeros(paths)
        np.maximum.at(width, self.path, said.log_width)
        return replace(
            said,
            mean_s=mean,
            jitter_s=np.sqrt(np.maximum(square - mean**2, 0.0)),
            loss=self._mean(said.loss, paths),
            log_width=width,
        )

    def between(self, link_s: Floats, paths: int) -> Floats:
        """Variance between a path's routes of the delay that one flow meets, links taking ``link_s``: [P]."""
        hops = self.routes
        whole = np.bincount(hops.hop_path, link_s[hops.links], len(self.path)).astype(np.float64)
        return self._mean((whole - self._mean(whole, paths)[self.path]) ** 2, paths)

    def _mean(self, values: Floats, paths: int) -> Floats:
        summed: Floats = np.bincount(self.path, values * self.share, paths).astype(np.float64)
        return summed

    def crossings(self, paths: int) -> tuple[Paths, Floats]:
        """The links that each path's packets may cross, and which share of them crosses: [H] each."""
        size = int(self.routes.links.max(initial=0)) + 1
        cell = self.path[self.routes.hop_path] * size + self.routes.links
        cells, where = np.unique(cell, return_inverse=True)
        share = np.bincount(where, self.share[self.routes.hop_path], len(cells))
        offsets = np.searchsorted(cells, np.arange(paths + 1) * size)
        return Paths(links=cells % size, offsets=offsets), share.astype(np.float64)


def _at(values: NDArray[Number] | None, where: Ints) -> NDArray[Number] | None:
    return None if values is None else values[where]


def equal_routes(network: Network) -> EqualRoutes | None:
    """The routes of all paths; None where every path has one. Remembered with the network."""
    if network.equal_links is None or not len(network.equal_links) or network.routes is not None:
        return None
    known: EqualRoutes | None = network.__dict__.get("_equal_routes")
    if known is None:
        known = network.__dict__["_equal_routes"] = _find(network)
    return known


def _find(network: Network) -> EqualRoutes:
    several = _paths_with_choices(network)
    onward = _onward(network)
    extra: list[_Route] = []
    owner: list[int] = []
    for path in several:
        found = _walk(onward, network.target_index, *network.path_ends(int(path)), len(network.nodes))
        extra += found
        owner += [int(path)] * len(found)
    single = np.setdiff1d(np.arange(network.path_count), np.unique(owner))
    path = np.concatenate([single, np.array(owner, dtype=np.int64)])
    order = np.argsort(path, kind="stable")
    first = network.paths.select(single)
    lengths = np.concatenate([first.lengths, [len(links) for links, _ in extra]]).astype(np.int64)
    links = np.concatenate([first.links, *(np.array(links, dtype=np.int64) for links, _ in extra)])
    every = Paths(links=links, offsets=np.concatenate([[0], np.cumsum(lengths)]))
    share = np.concatenate([np.ones(len(single)), [share for _, share in extra]])
    return EqualRoutes(routes=every.select(order), path=path[order], share=share[order])


def _paths_with_choices(network: Network) -> Ints:
    """Paths on whose first route some router has several next hops."""
    assert network.equal_links is not None
    n = len(network.nodes)
    choice = np.zeros((n, n), dtype=np.bool_)
    choice[network.equal_links[:, 0], network.equal_links[:, 1]] = True
    hops = network.paths
    destination = network.ends[1][hops.hop_path]
    at_choice = choice[network.source_index[hops.links], destination]
    found: Ints = np.unique(hops.hop_path[at_choice])
    return found


def _onward(network: Network) -> Callable[[int, int], Sequence[int]]:
    """(node, destination) → the links that are up, first the one that is always taken first."""
    more: dict[tuple[int, int], list[int]] = {}
    for node, destination, link in network.equal_links if network.equal_links is not None else ():
        more.setdefault((int(node), int(destination)), []).append(int(link))
    up = [link.up for link in network.links]

    def onward(node: int, destination: int) -> Sequence[int]:
        first = int(network.next_link[node, destination])
        return [link for link in (first, *more.get((node, destination), ())) if link >= 0 and up[link]]

    return onward


def _walk(
    onward: Callable[[int, int], Sequence[int]], target: Ints, source: int, destination: int, nodes: int
) -> list[_Route]:
    """The routes from one node to another. What runs into a loop or nowhere forwards nothing."""
    found: list[_Route] = []
    ahead: list[tuple[int, tuple[int, ...], float]] = [(source, (), 1.0)]
    while ahead and len(found) < MOST_ROUTES:
        node, links, share = ahead.pop()
        if node == destination:
            found.append((links, share))
        elif len(links) < nodes:
            choices = onward(node, destination)
            ahead += [(int(target[link]), (*links, link), share / len(choices)) for link in reversed(choices)]
    total = sum(share for _, share in found)
    return [(links, share / total) for links, share in found]


def predict_paths(model: DelayModel, network: Network, traffic: Traffic) -> PathPrediction:
    """What a model expects of every path, over all its equal routes."""
    routes = equal_routes(network) if traffic.path is None else None
    if routes is None:
        return model.predict(network, traffic)
    return routes.together(model.predict(*routes.apart(network, traffic)), network.path_count)


def crossings(network: Network) -> tuple[Paths, Floats]:
    """The links that each path's packets may cross, and which share of them crosses. Remembered."""
    routes = equal_routes(network)
    if routes is None:
        return network.paths, np.ones(len(network.paths.links))
    known: tuple[Paths, Floats] | None = network.__dict__.get("_crossings")
    if known is None:
        known = network.__dict__["_crossings"] = routes.crossings(network.path_count)
    return known


def spread(network: Network, traffic: Traffic) -> tuple[Network, Traffic]:
    """The same network and traffic, one flow per route where paths have several."""
    routes = equal_routes(network) if traffic.path is None else None
    return (network, traffic) if routes is None else routes.apart(network, traffic)


def branch_variance(network: Network, link_s: Floats) -> Floats:
    """Variance of a path's delay between its equal routes when links take ``link_s`` [L]: [P] s²."""
    routes = equal_routes(network)
    if routes is None:
        return np.zeros(network.path_count)
    return routes.between(link_s, network.path_count)
