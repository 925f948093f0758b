"""Shortest-path routing, as a link-state protocol computes it.

One Dijkstra per destination over the reversed graph (RFC 2328 section 16.1 is the same tree seen from the
root). Where several next hops are equally good the link with the lowest index wins, at every node alike: the
routing is a pure function of its arguments, and forwarding can not loop because the distance falls at every
hop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twin.compiled import compiled
from twin.errors import TopologyError
from twin.network import Floats, Link

OSPF_REFERENCE_BPS = (
    1e8  # the cost of RFC 2328 implementations: reference bandwidth over capacity, at least 1
)
MAX_LINKS = 2**15 - 1  # next_link is int16


def ospf_weights(links: Sequence[Link], reference_bps: float = OSPF_REFERENCE_BPS) -> Floats:
    """The interface costs routers derive from their speeds, [L]: max(1, reference / capacity), whole."""
    capacity_bps = np.array([link.capacity_bps for link in links], dtype=np.float64)
    return np.maximum(1.0, np.floor(reference_bps / capacity_bps))


def shortest_paths(
    nodes: Sequence[str], links: Sequence[Link], weights: ArrayLike | None = None
) -> NDArray[np.int16]:
    """``next_link[i, j]``: the link leaving node i towards node j; −1 on the diagonal and where no way leads.

    ``weights``: positive cost of every link, [L]; 1 each (fewest hops) when None. Links that are down carry
    nothing.
    """
    if len(links) > MAX_LINKS:
        raise TopologyError(f"{len(links)} links: next hops are stored as int16, at most {MAX_LINKS} fit")
    cost = np.ones(len(links)) if weights is None else np.asarray(weights, dtype=np.float64)
    if cost.shape != (len(links),):
        raise TopologyError(f"{cost.size} weights for {len(links)} links: give one for each")
    if not (np.isfinite(cost).all() and (cost > 0).all()):
        raise TopologyError("a link weight is NaN, infinite, zero or negative: give a positive one")
    index = {name: i for i, name in enumerate(nodes)}
    try:
        source = np.array([index[link.source] for link in links], dtype=np.int64)
        target = np.array([index[link.target] for link in links], dtype=np.int64)
    except KeyError as error:
        raise TopologyError(f"a link ends at unknown node {error}: check the list of nodes") from None
    up = np.array([link.up for link in links], dtype=np.bool_)
    return np.asarray(_all_trees(len(nodes), source, target, np.where(up, cost, np.inf)), dtype=np.int16)


@compiled
def _all_trees(n: int, source: Any, target: Any, cost: Any) -> Any:
    """Next links of all nodes towards all destinations; links are sorted by the node they run into."""
    start = np.zeros(n + 1, dtype=np.int64)
    for node in target:
        start[node + 1] += 1
    start = np.cumsum(start)
    incoming = np.argsort(target, kind="mergesort")
    next_link = np.full((n, n), -1, dtype=np.int16)
    for destination in range(n):
        _tree(destination, source, cost, (start, incoming), next_link)
    return next_link


@compiled
def _tree(destination: int, source: Any, cost: Any, into: Any, next_link: Any) -> None:
    """Dijkstra towards one destination; O(N²), which beats a heap up to a thousand nodes."""
    start, incoming = into  # links into node i: incoming[start[i]:start[i + 1]]
    n = next_link.shape[0]
    distance = np.full(n, np.inf)
    done = np.zeros(n, dtype=np.bool_)
    distance[destination] = 0.0
    for _ in range(n):
        near, node = np.inf, -1
        for i in range(n):
            if not done[i] and distance[i] < near:
                near, node = distance[i], i
        if node < 0:
            return
        done[node] = True
        for k in range(start[node], start[node + 1]):
            link = incoming[k]
            i = source[link]
            better = near + cost[link]
            known = next_link[i, destination]
            if better < distance[i] or (
                better == distance[i] and better < np.inf and link < known and not done[i]
            ):
                distance[i] = better
                next_link[i, destination] = link
