"""Where nodes stand on a map, between 0 and 1.

Known networks stand where their cities are (:mod:`twin.topologies`). Any other is laid out by stress
majorisation (SMACOF, de Leeuw 1977): positions whose distances match the number of hops between nodes,
started from classical scaling (Torgerson 1952), so the picture is the same at every start and only changes
when the topology does.
"""

from __future__ import annotations

import math
from functools import lru_cache

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from twin.network import Network
from twin.topology_maps import GBN_PLACES, NSFNET_PLACES

Places = dict[str, tuple[float, float]]
STRESS_LIMIT = 600  # nodes; beyond it hop distances of all pairs cost too much, and no map can be read anyway
SMACOF_STEPS = 80
SPREAD_STEPS = 120
ASPECT = 0.45  # height over width of the map on the page
LEAST_DISTANCE = 0.085  # of the map's width: a label and a link fit between
CROWDED_DISTANCE = 0.45  # over the root of the number of nodes: what there is room for
KNOWN_PLACES = (NSFNET_PLACES, GBN_PLACES)
MARGIN = 0.04


def positions(network: Network) -> Places:
    """Node → (x, y), y downwards."""
    return dict(_positions(network.nodes, tuple(sorted({(k.source, k.target) for k in network.links}))))


@lru_cache(maxsize=32)
def _positions(nodes: tuple[str, ...], links: tuple[tuple[str, str], ...]) -> Places:
    places = known(nodes)
    if places is None:
        places = stress_layout(nodes, links) if len(nodes) <= STRESS_LIMIT else circle(nodes)
    return fit(spread(places))


def known(nodes: tuple[str, ...]) -> Places | None:
    """The places of a network of the literature (plate carrée at its mean latitude); None for others."""
    for places in KNOWN_PLACES:
        if nodes and set(nodes) <= places.keys():
            squeeze = math.cos(math.radians(sum(places[n][0] for n in nodes) / len(nodes)))
            return {n: (places[n][1] * squeeze, -places[n][0]) for n in nodes}
    return None


def spread(places: Places) -> Places:
    """Push apart what stands too close to be told apart; the rest stays."""
    xy = np.array(list(fit(places).values())) * (1, ASPECT)
    least = min(LEAST_DISTANCE, CROWDED_DISTANCE / math.sqrt(len(xy)))
    for _ in range(SPREAD_STEPS):
        between = xy[:, None] - xy[None]
        distance = np.sqrt((between**2).sum(axis=2)) + np.eye(len(xy))
        push = np.maximum(0.0, least - distance) / distance / 3
        np.fill_diagonal(push, 0)
        xy = xy + (between * push[:, :, None]).sum(axis=1)
    return {node: (float(x), float(y)) for node, (x, y) in zip(places, xy, strict=True)}


def stress_layout(nodes: tuple[str, ...], links: tuple[tuple[str, str], ...]) -> Places:
    """Distances on the page follow distances in hops."""
    if len(nodes) < 3:
        return circle(nodes)
    hops = _hops(nodes, links)
    xy = _classical_scaling(hops)
    weights = 1.0 / np.maximum(hops, 1) ** 2
    np.fill_diagonal(weights, 0)
    laplacian_inverse = np.linalg.pinv(np.diag(weights.sum(axis=1)) - weights)
    for _ in range(SMACOF_STEPS):
        xy = laplacian_inverse @ _guttman(xy, hops, weights) @ xy
    return {node: (float(xy[i, 0]), float(xy[i, 1])) for i, node in enumerate(nodes)}


def circle(nodes: tuple[str, ...]) -> Places:
    """Evenly on a circle."""
    step = 2 * math.pi / max(1, len(nodes))
    return {node: (math.cos(i * step), math.sin(i * step)) for i, node in enumerate(nodes)}


def fit(places: Places) -> Places:
    """Stretch into the unit square, with a margin."""
    if not places:
        return {}
    xy = np.array(list(places.values()))
    low, span = xy.min(axis=0), np.ptp(xy, axis=0)
    scaled = np.where(span > 0, (xy - low) / np.where(span > 0, span, 1), 0.5) * (1 - 2 * MARGIN) + MARGIN
    return {node: (float(x), float(y)) for node, (x, y) in zip(places, scaled, strict=True)}


def _hops(nodes: tuple[str, ...], links: tuple[tuple[str, str], ...]) -> NDArray[np.float64]:
    graph: nx.Graph[str] = nx.Graph()
    graph.add_nodes_from(nodes)
    graph.add_edges_from(links)
    index = {node: i for i, node in enumerate(nodes)}
    apart = math.sqrt(len(nodes)) + 1  # nodes of different islands
    hops = np.full((len(nodes), len(nodes)), apart)
    for source, reach in nx.all_pairs_shortest_path_length(graph):
        for target, distance in reach.items():
            hops[index[source], index[target]] = distance
    return hops


def _classical_scaling(hops: NDArray[np.float64]) -> NDArray[np.float64]:
    centring = np.eye(len(hops)) - 1 / len(hops)
    values, vectors = np.linalg.eigh(-0.5 * centring @ hops**2 @ centring)
    xy = np.asarray(vectors[:, [-1, -2]] * np.sqrt(np.maximum(values[[-1, -2]], 1e-9)))
    signs = np.sign(xy[np.argmax(np.abs(xy), axis=0), [0, 1]])  # an eigenvector's sign is arbitrary: fix it
    nudge = 1e-3 * np.column_stack([np.cos(np.arange(len(hops))), np.sin(np.arange(len(hops)))])
    scaled: NDArray[np.float64] = xy * signs + nudge  # twins (same neighbours) would stand on one spot
    return scaled


def _guttman(
    xy: NDArray[np.float64], hops: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    distances = np.sqrt(((xy[:, None] - xy[None]) ** 2).sum(axis=2))
    b: NDArray[np.float64] = -weights * hops / np.maximum(distances, 1e-9)
    np.fill_diagonal(b, 0)
    np.fill_diagonal(b, -b.sum(axis=1))
    return b
