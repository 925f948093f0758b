"""The network as every model sees it: nodes, directed links, next hops, and the paths that follow from them.

Order is meaning here. Nodes are sorted by name; links keep the order given; path k runs over
(source, destination) row-major without the diagonal, so k = s·(N − 1) + d − (d > s). Paths are stored as CSR:
the links of path k are ``links[offsets[k]:offsets[k + 1]]`` from source to destination; an empty range means
that there is no route (or a loop, which forwards nothing). A network whose forwarding does not follow
destinations (label-switched paths, a data set that tells paths only) brings its ``routes``, in any order.

Every link feeds from one queue or several (:mod:`twin.scheduling`); queues are numbered link after link. A
*flow* is what one path carries of one class of service; where only paths are known, flow k is path k.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from twin.compiled import compiled
from twin.errors import TopologyError
from twin.scheduling import CLASSES, FIFO, Scheduling

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
DEFAULT_PACKET_BITS = 8_000.0  # 1,000 octets: what a packet is taken to be in a network where nothing flows


@dataclass(frozen=True)
class Link:
    """A directed link and the queues that feed it; a queue's buffer includes the packet in service.

    The buffer is counted in packets unless ``buffer_bits`` is given. A link that is shaped (a token bucket on
    a faster port) serves its queue at ``capacity_bps``; a packet that may leave does so at ``line_rate_bps``.
    """

    source: str
    target: str
    capacity_bps: float
    propagation_delay_s: float = 0.0
    buffer_packets: int = 100
    source_interface: str = ""
    target_interface: str = ""
    up: bool = True
    scheduling: Scheduling = FIFO
    buffer_bits: float = 0.0
    line_rate_bps: float | None = None  # None, or less than the capacity: the capacity

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

    def select(self, chosen: Ints) -> Paths:
        """The paths ``chosen`` [F], in that order; one may be chosen more than once."""
        lengths = self.lengths[chosen]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        step = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return Paths(links=self.links[np.repeat(self.offsets[chosen], lengths) + step], offsets=offsets)


@dataclass(frozen=True)
class Network:
    """Topology and routing. Immutable: a change makes a new one with :func:`dataclasses.replace`."""

    nodes: tuple[str, ...]
    links: tuple[Link, ...]
    next_link: NDArray[np.int16] = field(repr=False)  # [N, N] link leaving i towards j, −1 none
    routes: Paths | None = field(default=None, repr=False)  # instead of what follows from next_link
    # [E, 3] (node, destination, link): further next hops as good as next_link's (:mod:`twin.equal_routes`)
    equal_links: NDArray[np.int16] | None = field(default=None, repr=False)

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
            if not (np.isfinite(link.buffer_bits) and link.buffer_bits >= 0 and link.buffer_packets > 0):
                raise TopologyError(
                    f"link {link.name} has a buffer of {link.buffer_packets} packets, {link.buffer_bits} bit:"
                    " give a positive one"
                )
        n = len(self.nodes)
        if self.next_link.shape != (n, n):
            raise TopologyError(f"next_link has shape {self.next_link.shape}, {n} nodes need ({n}, {n})")

    @property
    def path_count(self) -> int:
        """N·(N − 1), or the number of ``routes``."""
        n = len(self.nodes)
        return n * (n - 1) if self.routes is None else len(self.routes.offsets) - 1

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
    def line_rate_bps(self) -> Floats:
        """At which bits leave, [L]; the capacity unless a link is shaped."""
        return np.array([max(link.line_rate_bps or 0.0, link.capacity_bps) for link in self.links])

    @cached_property
    def ahead_s_per_bit(self) -> Floats:
        """By how much a packet passes a shaped link earlier than at its capacity, [L]; 0 elsewhere.

        Models are of links that transmit at their capacity; this is taken off what they say, together with
        propagation, so that neither queues nor features know of it.
        """
        return np.asarray(1.0 / self.capacity_bps - 1.0 / self.line_rate_bps)

    @cached_property
    def propagation_delay_s(self) -> Floats:
        """[L]."""
        return np.array([link.propagation_delay_s for link in self.links], dtype=np.float64)

    @cached_property
    def buffer_packets(self) -> Ints:
        """[L]."""
        return np.array([link.buffer_packets for link in self.links], dtype=np.int64)

    @cached_property
    def buffer_bits(self) -> Floats:
        """[L]; 0 where the buffer is counted in packets."""
        return np.array([link.buffer_bits for link in self.links], dtype=np.float64)

    @cached_property
    def policy(self) -> Ints:
        """Code of every link's policy, [L]: its place in twin.scheduling.POLICIES."""
        return np.array([link.scheduling.code for link in self.links], dtype=np.int64)

    @cached_property
    def queue_offsets(self) -> Ints:
        """The queues of link l are ``range(queue_offsets[l], queue_offsets[l + 1])``, [L + 1]."""
        return np.cumsum([0, *(len(link.scheduling.weights) for link in self.links)], dtype=np.int64)

    @cached_property
    def queue_link(self) -> Ints:
        """The link that every queue feeds, [Q]."""
        return np.repeat(np.arange(len(self.links)), np.diff(self.queue_offsets))

    @cached_property
    def queue_rank(self) -> Ints:
        """Place of every queue at its link, 0 = highest priority, [Q]."""
        return np.arange(len(self.queue_link)) - self.queue_offsets[:-1][self.queue_link]

    @cached_property
    def queue_share(self) -> Floats:
        """Weight of every queue ÷ sum of its link's weights, [Q]."""
        return np.array([share for link in self.links for share in link.scheduling.shares], dtype=np.float64)

    @cached_property
    def queue_of_class(self) -> Ints:
        """The queue that takes a class at a link, [L, CLASSES]."""
        own = np.array([link.scheduling.queue_of_class for link in self.links], dtype=np.int64)
        return own.reshape(-1, CLASSES) + self.queue_offsets[:-1, None]

    def path_index(self, source: str, destination: str) -> int:
        """Canonical index of a path; TopologyError when a node is unknown or both are one."""
        try:
            s, d = self.node_index[source], self.node_index[destination]
        except KeyError as error:
            raise TopologyError(f"unknown node {error}: this network has {', '.join(self.nodes)}") from None
        if s == d:
            raise TopologyError(f"no path from {source} to itself")
        return self.path_between(s, d)

    def path_between(self, source: int, destination: int) -> int:
        """Canonical index of the path from one node index to another."""
        return source * (len(self.nodes) - 1) + destination - (destination > source)

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
        """Every path, by following the next hops (links that are down forward nothing), or the ``routes``."""
        if self.routes is not None:
            return self.routes
        up = np.array([link.up for link in self.links], dtype=np.bool_)
        links, offsets = _walk(self.next_link.astype(np.int64), self.target_index, up)
        return Paths(links=links, offsets=offsets)


def canonical_ends(nodes: int) -> tuple[Ints, Ints]:
    """(source, destination) node of every canonical path of a network of so many nodes, [P] each."""
    source, rest = np.divmod(np.arange(nodes * (nodes - 1)), max(nodes - 1, 1))
    return source, rest + (rest >= source)


@dataclass(frozen=True)
class Variability:
    """How the arrivals of every flow vary within a window, beyond what its mean rate tells, [F] each.

    Telemetry tells none of it; calibration, an operator or a data set may know.
    """

    gap_scv: Floats  # squared variation of the gaps while the rate stands still: 1 Poisson, 0 CBR
    rate_scv: Floats  # squared variation of the rate: 0 Poisson and CBR, off/on for on-off
    rate_time_s: Floats  # how long the rate remembers (its correlation time)

    @classmethod
    def poisson(cls, flows: int) -> Variability:
        """What is assumed where nothing is known."""
        return cls(np.ones(flows), np.zeros(flows), np.zeros(flows))


@dataclass(frozen=True)
class Traffic:
    """The traffic of one window, flow by flow. What is None is not known or the default."""

    bps: Floats  # [F]
    pps: Floats  # [F]
    path: Ints | None = None  # [F] index of the flow's path; None: flow k is path k
    service_class: Ints | None = None  # [F] 0 … CLASSES − 1; None: all of class 0
    size_scv: Floats | None = None  # [F] squared variation of packet sizes; None: a model's own default
    variability: Variability | None = None  # None: Poisson
    observed_s: float | None = None  # how long rates and delays are averaged; None: in the limit

    @cached_property
    def mean_packet_bits(self) -> Floats:
        """[F]; 0 where nothing flows."""
        return np.divide(self.bps, self.pps, out=np.zeros_like(self.bps), where=self.pps > 0)

    @cached_property
    def overall_packet_bits(self) -> float:
        """Mean packet size of all traffic."""
        packets = self.pps.sum()
        return float(self.bps.sum() / packets) if packets > 0 else DEFAULT_PACKET_BITS

    @cached_property
    def packet_bits(self) -> Floats:
        """Mean packet size of every flow, [F]; where nothing flows, the mean of all traffic stands in."""
        return _packet_bits(self.bps, self.pps, self.overall_packet_bits)

    def packet_scv(self, default: float) -> Floats:
        """Squared variation of every flow's packet sizes, [F]; not to be written to."""
        return uniform(len(self.pps), default) if self.size_scv is None else self.size_scv

    def hops(self, network: Network) -> Paths:
        """The links of every flow, [F]."""
        return network.paths if self.path is None else network.paths.select(self.path)

    def hop_queues(self, network: Network) -> Ints:
        """The queue of every hop of every flow, [H]."""
        hops = self.hops(network)
        if self.service_class is None:
            return np.asarray(network.queue_of_class[hops.links, 0])
        return np.asarray(network.queue_of_class[hops.links, self.service_class[hops.hop_path]])

    def scaled(self, factor: float) -> Traffic:
        """The same flows at so many times the rate."""
        return replace(self, bps=self.bps * factor, pps=self.pps * factor)


@lru_cache(maxsize=8)
def uniform(count: int, value: float) -> Floats:
    """An array of one value, which all who ask share: not to be written to."""
    return np.full(count, value)


@compiled
def _packet_bits(bps: Floats, pps: Floats, overall: float) -> Floats:
    bits = np.empty(pps.shape[0])
    for flow in range(pps.shape[0]):
        some = bps[flow] > 0.0 and pps[flow] > 0.0
        bits[flow] = bps[flow] / pps[flow] if some else overall
    return bits


@compiled
def _walk(next_link: Ints, target: Ints, up: NDArray[np.bool_]) -> tuple[Ints, Ints]:
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
