"""The network as every model sees it: nodes, directed links, next hops, and the paths that follow from them.

Order is meaning here. Nodes are sorted by name; links keep the order given; path k runs over
(source, destination) row-major without the diagonal, so k = s·(N − 1) + d − (d > s). Paths are stored as CSR:
the links of path k are ``links[offsets[k]:offsets[k + 1]]`` from source to destination; an empty range means
that there is no route (or a loop, which forwards nothing).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numba import njit
from numpy.typing import NDArray

from twin.errors import TopologyError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Link:
    """A directed link and the FIFO queue that feeds it; ``buffer_packets`` includes the one in service."""

    source: str
    target: str
    capacity_bps: float
    propagation_delay_s: float = 0.0
    buffer_packets: int = 100
    source_interface: str = ""
    target_interface: str = ""
    up: bool = True

    @property
    def name(self) -> str:
        """``SOURCE->TARGET``; parallel links are told apart by :meth:`Network.link_names`."""
        return f"{self.source}->{self.target}"


@dataclass(frozen=True)
class Paths:
    """All N·(N − 1) paths as CSR over link indices."""

    links: Ints  # [H] link index of every hop, path after path
    offsets: Ints  # [P + 1]

    def of(self, path: int) -> Ints:
        """The links of one path, in order."""
        return self.links[self.offsets[path] : self.offsets[path + 1]]

    @cached_property
    def lengths(self) -> Ints:
        """Hops of every path, [P]; 0 = no route."""
        return np.diff(self.offsets)

    @cached_property
    def hop_path(self) -> Ints:
        """The path every hop belongs to, [H]."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)


@dataclass(frozen=True)
class Network:
    """Topology and routing. Immutable: a change makes a new one with :func:`dataclasses.replace`."""

    nodes: tuple[str, ...]
    links: tuple[Link, ...]
    next_link: NDArray[np.int16] = field(repr=False)  # [N, N] link leaving i towards j, −1 none

    def __post_init__(self) -> None:
        if list(self.nodes) != sorted(set(self.nodes)):
            raise TopologyError("nodes must be sorted and unique: pass tuple(sorted(names))")
        index = set(self.nodes)
        for link in self.links:
            if link.source not in index or link.target not in index or link.source == link.target:
                raise TopologyError(f"link {link.name} does not join two known nodes: check its end points")
            if not (np.isfinite(link.capacity_bps) and link.capacity_bps > 0):
                raise TopologyError(
                    f"link {link.name} has capacity {link.capacity_bps} bit/s: give a positive one"
                )
        n = len(self.nodes)
        if self.next_link.shape != (n, n):
            raise TopologyError(f"next_link has shape {self.next_link.shape}, {n} nodes need ({n}, {n})")

    @property
    def path_count(self) -> int:
        """N·(N − 1)."""
        return len(self.nodes) * (len(self.nodes) - 1)

    @cached_property
    def node_index(self) -> dict[str, int]:
        """Node name → index."""
        return {name: i for i, name in enumerate(self.nodes)}

    @cached_property
    def link_names(self) -> tuple[str, ...]:
        """``A->B``; parallel links get their interface appended: ``A->B@eth3``."""
        seen: dict[str, int] = {}
        for link in self.links:
            seen[link.name] = seen.get(link.name, 0) + 1
        return tuple(
            link.name if seen[link.name] == 1 else f"{link.name}@{link.source_interface}"
            for link in self.links
        )

    @cached_property
    def source_index(self) -> Ints:
        """Index of every link's source node, [L]."""
        return np.array([self.node_index[link.source] for link in self.links], dtype=np.int64)

    @cached_property
    def target_index(self) -> Ints:
        """Index of every link's target node, [L]."""
        return np.array([self.node_index[link.target] for link in self.links], dtype=np.int64)

    @cached_property
    def capacity_bps(self) -> Floats:
        """[L]."""
        return np.array([link.capacity_bps for link in self.links], dtype=np.float64)

    @cached_property
    def propagation_delay_s(self) -> Floats:
        """[L]."""
        return np.array([link.propagation_delay_s for link in self.links], dtype=np.float64)

    @cached_property
    def buffer_packets(self) -> Ints:
        """[L]."""
        return np.array([link.buffer_packets for link in self.links], dtype=np.int64)

    def path_index(self, source: str, destination: str) -> int:
        """Canonical index of a path; TopologyError when a node is unknown or both are one."""
        try:
            s, d = self.node_index[source], self.node_index[destination]
        except KeyError as error:
            raise TopologyError(f"unknown node {error}: this network has {', '.join(self.nodes)}") from None
        if s == d:
            raise TopologyError(f"no path from {source} to itself")
        return s * (len(self.nodes) - 1) + d - (d > s)

    def path_name(self, path: int) -> str:
        """``SOURCE->DESTINATION`` of a canonical path index."""
        s, d = self.path_ends(path)
        return f"{self.nodes[s]}->{self.nodes[d]}"

    def path_ends(self, path: int) -> tuple[int, int]:
        """(source, destination) node indices of a canonical path index."""
        s, rest = divmod(path, len(self.nodes) - 1)
        return s, rest + (rest >= s)

    @cached_property
    def ends(self) -> tuple[Ints, Ints]:
        """(source, destination) node of every path, [P] each."""
        return canonical_ends(len(self.nodes))

    @cached_property
    def paths(self) -> Paths:
        """Every path, by following the next hops; links that are down forward nothing."""
        up = np.array([link.up for link in self.links], dtype=np.bool_)
        links, offsets = _walk(self.next_link.astype(np.int64), self.target_index, up)
        return Paths(links=links, offsets=offsets)


def canonical_ends(nodes: int) -> tuple[Ints, Ints]:
    """(source, destination) node of every canonical path of a network of so many nodes, [P] each."""
    source, rest = np.divmod(np.arange(nodes * (nodes - 1)), max(nodes - 1, 1))
    return source, rest + (rest >= source)


@dataclass(frozen=True)
class Traffic:
    """The traffic matrix of one window over canonical paths."""

    bps: Floats  # [P]
    pps: Floats  # [P]

    @cached_property
    def mean_packet_bits(self) -> Floats:
        """[P]; 0 where nothing flows."""
        return np.divide(self.bps, self.pps, out=np.zeros_like(self.bps), where=self.pps > 0)


@njit(cache=True)
def _walk(next_link, target, up):  # type: ignore[no-untyped-def]
    n = next_link.shape[0]
    offsets = np.zeros(n * (n - 1) + 1, dtype=np.int64)
    hops = np.empty(max(16, 4 * n * n), dtype=np.int64)
    used = 0
    k = 0
    for s in range(n):
        for d in range(n):
            if s == d:
                continue
            start = used
            node = s
            steps = 0
            while node != d:
                link = next_link[node, d]
                if link < 0 or not up[link] or steps >= n:
                    used = start  # no route, or a loop
                    break
                if used == hops.shape[0]:
                    wider = np.empty(2 * used, dtype=np.int64)
                    wider[:used] = hops
                    hops = wider
                hops[used] = link
                used += 1
                steps += 1
                node = target[link]
            k += 1
            offsets[k] = used
    return hops[:used].copy(), offsets
