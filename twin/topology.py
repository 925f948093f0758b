"""A map: nodes, cables between them, where they are; and the network that comes of it.

Light in fibre covers 200,000 km/s (ITU-T G.652 fibre has a group index of about 1.468; planners round to 5 µs
a kilometre). Every edge is two directed links, 2k from ``a`` to ``b`` and 2k + 1 back; interfaces are called
eth1, eth2, … at each node in the order of its edges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import asin, cos, radians, sin, sqrt

import networkx as nx
import numpy as np
from numpy.typing import ArrayLike

from twin.errors import TopologyError
from twin.network import Floats, Link, Network
from twin.routing import shortest_paths

LIGHT_KM_PER_S = 200_000.0
EARTH_RADIUS_KM = 6371.0
ROUTE_FACTOR = (
    1.3  # fibre follows roads and railways: a planner's rule of thumb for cable over great-circle length
)
LAB_CAPACITY_BPS = 10e6
LAB_BUFFER_PACKETS = 64
LAB_PROPAGATION_SCALE = 0.1  # NSFNET links then take 0.1 to 1.2 ms: of the order of their queues in the lab
SPRING_LAYOUT_LIMIT = 500  # from there on networkx wants scipy, which is not a dependency

Place = tuple[float, float]


@dataclass(frozen=True)
class Edge:
    """A cable between two nodes: two directed links."""

    a: str
    b: str
    length_km: float = 0.0
    capacity_bps: float = LAB_CAPACITY_BPS

    @property
    def propagation_delay_s(self) -> float:
        """One way, at the speed of light in fibre."""
        return self.length_km / LIGHT_KM_PER_S


@dataclass(frozen=True)
class Topology:
    """Nodes (sorted), cables, and what is known of their place on earth or on a page."""

    name: str
    nodes: tuple[str, ...]
    edges: tuple[Edge, ...]
    places: Mapping[str, Place] = field(default_factory=dict, repr=False)  # (latitude, longitude) where known
    layout: Mapping[str, Place] = field(default_factory=dict, repr=False)  # (x, y) given by the maker
    notes: tuple[str, ...] = ()  # what was left out or assumed when this was made

    @cached_property
    def positions(self) -> dict[str, Place]:
        """(x, y) of every node in the unit square, y to the north: from layout, places, or springs."""
        if self.layout:
            return dict(self.layout)
        if self.places:
            return _fitted(_projected(fill_places(self.places, self.graph())))
        graph = self.graph()
        small = len(self.nodes) < SPRING_LAYOUT_LIMIT
        return _fitted(nx.spring_layout(graph, seed=1) if small else nx.circular_layout(graph))

    def graph(self) -> nx.Graph[str]:
        """The undirected graph, parallel cables merged."""
        graph: nx.Graph[str] = nx.Graph()
        graph.add_nodes_from(self.nodes)
        graph.add_edges_from((edge.a, edge.b) for edge in self.edges)
        return graph

    def links(
        self,
        capacities: ArrayLike | None = None,
        buffer_packets: int = LAB_BUFFER_PACKETS,
        propagation_scale: float = LAB_PROPAGATION_SCALE,
    ) -> tuple[Link, ...]:
        """The directed links; ``capacities`` (bit/s): one for all, one a link, or None for the edges' own."""
        own = np.repeat([edge.capacity_bps for edge in self.edges], 2)
        chosen = own if capacities is None else np.asarray(capacities, dtype=np.float64)
        if chosen.ndim and chosen.shape != own.shape:
            raise TopologyError(
                f"{chosen.size} capacities for {own.size} directed links: give one, or one for each"
            )
        capacity_bps = np.broadcast_to(chosen, own.shape)
        return tuple(
            Link(
                source=source,
                target=target,
                capacity_bps=float(capacity_bps[index]),
                propagation_delay_s=edge.propagation_delay_s * propagation_scale,
                buffer_packets=buffer_packets,
                source_interface=out,
                target_interface=into,
            )
            for index, (edge, source, out, target, into) in enumerate(self._directions())
        )

    def _directions(self) -> Iterator[tuple[Edge, str, str, str, str]]:
        """Both directions of every edge: edge, source, its interface, target, its interface."""
        last = dict.fromkeys(self.nodes, 0)
        for edge in self.edges:
            last[edge.a] += 1
            last[edge.b] += 1
            a, b = f"eth{last[edge.a]}", f"eth{last[edge.b]}"
            yield edge, edge.a, a, edge.b, b
            yield edge, edge.b, b, edge.a, a

    def network(
        self,
        *,
        capacities: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        buffer_packets: int = LAB_BUFFER_PACKETS,
        propagation_scale: float = LAB_PROPAGATION_SCALE,
    ) -> Network:
        """The network with shortest-path routing; ``weights``: [2 · edges], 1 each if None."""
        links = self.links(capacities, buffer_packets, propagation_scale)
        return Network(self.nodes, links, shortest_paths(self.nodes, links, weights))


def cable_km(a: Place, b: Place) -> float:
    """Length of a cable between two places: great circle (haversine) times the route factor."""
    (north_a, east_a), (north_b, east_b) = ([radians(angle) for angle in place] for place in (a, b))
    half = sin((north_b - north_a) / 2) ** 2 + cos(north_a) * cos(north_b) * sin((east_b - east_a) / 2) ** 2
    return ROUTE_FACTOR * 2 * EARTH_RADIUS_KM * asin(sqrt(half))


def fill_places(places: Mapping[str, Place], graph: nx.Graph[str]) -> dict[str, Place]:
    """Places for all nodes of a connected graph: the unknown go amid their neighbours."""
    known = dict(places)
    while missing := [node for node in graph if node not in known]:
        found = {node: [known[n] for n in graph.neighbors(node) if n in known] for node in missing}
        amid = {node: tuple(np.mean(near, axis=0)) for node, near in found.items() if near}
        if not amid:
            raise TopologyError(
                f"node {missing[0]} has no place and no way to one: the graph is not connected"
            )
        known |= {node: (float(north), float(east)) for node, (north, east) in amid.items()}
    return known


def _projected(places: Mapping[str, Place]) -> dict[str, Place]:
    """Latitude and longitude on a plane: equirectangular around the middle latitude."""
    middle = cos(radians(float(np.mean([north for north, _ in places.values()]))))
    return {node: (east * middle, north) for node, (north, east) in places.items()}


def _fitted(points: Mapping[str, Place | Floats]) -> dict[str, Place]:
    """Scaled alike in x and y into the unit square, in its middle."""
    nodes = list(points)
    at = np.array([points[node] for node in nodes], dtype=np.float64).reshape(-1, 2)
    low, high = at.min(axis=0), at.max(axis=0)
    size = float((high - low).max()) or 1.0
    at = np.clip(0.5 + (at - (low + high) / 2) / size, 0.0, 1.0)  # rounding may leave the square by one bit
    return {node: (float(x), float(y)) for node, (x, y) in zip(nodes, at, strict=True)}
