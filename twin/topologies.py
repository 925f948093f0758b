"""Where networks come from: maps of the literature, generated graphs, and files of the user's.

Lengths are kilometres of fibre; light in fibre covers 200,000 km/s (ITU-T G.652: group index about 1.468, rounded up as
usual in planning). Every edge is two directed links, 2k from ``a`` to ``b`` and 2k + 1 back; interfaces are called
eth1, eth2, … at each node in the order of its edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from twin.errors import TopologyError
from twin.network import Link, Network
from twin.routing import shortest_paths
from twin.topology_maps import NSFNET_EDGES, NSFNET_PLACES, EdgeTable, Places

LIGHT_KM_PER_S = 200_000.0
LAB_CAPACITY_BPS = 10e6
LAB_BUFFER_PACKETS = 64
LAB_PROPAGATION_SCALE = (
    0.2  # makes propagation (0.15 to 2.4 ms on NSFNET) of the order of queueing at 10 Mbit/s
)


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
    """Nodes (sorted), cables, and where the nodes are."""

    name: str
    nodes: tuple[str, ...]
    edges: tuple[Edge, ...]
    places: Places  # node → (latitude, longitude) in degrees; empty where nobody knows

    def links(
        self,
        capacities: ArrayLike | None = None,
        buffer_packets: int = LAB_BUFFER_PACKETS,
        propagation_scale: float = LAB_PROPAGATION_SCALE,
    ) -> tuple[Link, ...]:
        """The directed links; ``capacities`` in bit/s: one for all, one for each link, or None for the edges' own."""
        own = np.repeat([edge.capacity_bps for edge in self.edges], 2)
        chosen = own if capacities is None else np.asarray(capacities, dtype=np.float64)
        if chosen.ndim and chosen.shape != own.shape:
            raise TopologyError(
                f"{chosen.size} capacities for {own.size} directed links: give one, or one for each"
            )
        capacity_bps = np.broadcast_to(chosen, own.shape)
        interfaces = {node: 0 for node in self.nodes}
        links: list[Link] = []
        for k, edge in enumerate(self.edges):
            interfaces[edge.a] += 1
            interfaces[edge.b] += 1
            ends = [(edge.a, f"eth{interfaces[edge.a]}"), (edge.b, f"eth{interfaces[edge.b]}")]
            for direction, ((source, out), (target, into)) in enumerate([ends, ends[::-1]]):
                links.append(
                    Link(
                        source=source,
                        target=target,
                        capacity_bps=float(capacity_bps[2 * k + direction]),
                        propagation_delay_s=edge.propagation_delay_s * propagation_scale,
                        buffer_packets=buffer_packets,
                        source_interface=out,
                        target_interface=into,
                    )
                )
        return tuple(links)

    def network(
        self,
        *,
        capacities: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        buffer_packets: int = LAB_BUFFER_PACKETS,
        propagation_scale: float = LAB_PROPAGATION_SCALE,
    ) -> Network:
        """The network with shortest-path routing; ``weights`` per directed link, [2 · edges], 1 each when None."""
        links = self.links(capacities, buffer_packets, propagation_scale)
        return Network(self.nodes, links, shortest_paths(self.nodes, links, weights))


def nsfnet() -> Topology:
    """NSFNET T1 backbone of 1991: 14 nodes, 21 edges."""
    return _from_tables("nsfnet", NSFNET_EDGES, NSFNET_PLACES)


def _from_tables(name: str, edges: EdgeTable, places: Places) -> Topology:
    nodes = tuple(sorted({end for a, b, _ in edges for end in (a, b)}))
    return Topology(name, nodes, tuple(Edge(a, b, km) for a, b, km in edges), places)
