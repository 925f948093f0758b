"""A network and its traffic as the GNN sees them: tables without units, and the queueing prior to correct.

Every feature is a ratio or its logarithm, so that nothing goes out of range when links get faster or networks
larger: load, waits in service times, shares of a queue, buffers against 64 packets. :class:`Specification`
names the columns in order; a checkpoint carries it, and a model refuses to run on another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from twin.chunks import chunk_count, each_chunk
from twin.features_core import (
    AHEAD_S_PER_BIT,
    FIXED_S,
    LN_BITS,
    LN_CAPACITY,
    LOAD,
    OF_LINK,
    OF_QUEUE,
    PER_ARRIVAL,
    POLICY,
    PROPAGATION_S,
    S_PER_BIT,
    SUMS,
    SURVIVAL,
    TINY,
    TRANSMISSION_S,
    WAIT_S,
    Table,
    add_up,
    tabulate,
)
from twin.features_queues import QUEUE_FEATURES, queue_table
from twin.features_ways import Ways
from twin.network import Floats, Ints, Network, Paths, Traffic
from twin.queueing import LinkQueues
from twin.queueing_flows import Offers, offer
from twin.scheduling import POLICIES

VERSION = 3
FLOW_FEATURES = (
    "hops",  # ÷ 8
    "worst_load",
    "ln_queueing",  # ln(1 + sum of waits ÷ transmission)
    "ln_size",  # mean packet ÷ mean packet of the network
    "size_scv",
    "gap_scv",
    "rate_scv",
    "ln_burst",  # ln(1 + packets in a burst)
)
HOP_FEATURES = (
    "share",  # of the queue's packets that are this flow's
    "ln_size",  # mean packet of the flow ÷ mean packet in the queue
    "ln_speed_up",  # capacity ÷ capacity of the previous hop
    "first",  # 1 on the first hop
    "inlet_share",  # share of the queue's packets that come from the same place as this flow's
)
LN_BLOCKING_FLOOR = -60.0  # as the prior: as good as none, and finite


class Prior(Protocol):
    """A queueing model whose waits and losses the GNN corrects."""

    @property
    def size_scv(self) -> float:
        """Squared variation of packet sizes where traffic does not tell."""
        ...

    def solve(self, network: Network, traffic: Traffic, *, offers: Offers = offer) -> LinkQueues:
        """Every queue as the model sees it; ``offers`` tells what the flows offer to the queues."""
        ...


@dataclass(frozen=True)
class Specification:
    """What a model expects to be fed."""

    version: int = VERSION
    queue: tuple[str, ...] = QUEUE_FEATURES
    flow: tuple[str, ...] = FLOW_FEATURES
    hop: tuple[str, ...] = HOP_FEATURES


@dataclass(frozen=True)
class Features:
    """Tables for the GNN: F flows, their H hops, Q queues. A flow without a route has no hops."""

    queue: Table  # [Q, len(QUEUE_FEATURES)]
    flow: Table  # [F, len(FLOW_FEATURES)]
    hop: Table  # [H, len(HOP_FEATURES)]
    hops: Paths  # the links of every flow
    hop_queue: Ints  # [H]
    queue_link: Ints  # [Q]
    queue_part: Table  # [Q] share of the link's load that is the queue's
    wait_s: Floats  # [Q] the prior's mean wait
    wait_std_s: Floats  # [Q]
    ln_blocking: Floats  # [Q] ln of the prior's blocking, at least LN_BLOCKING_FLOOR
    size_scv: Floats  # [F] of a flow's own packets
    transmission_s: Floats  # [F] of the flow's mean packet, over all its hops
    propagation_s: Floats  # [F] and, taken off, by how much shaped links send earlier than at their capacity
    bottleneck: Ints  # [F] policy of the link with the highest load on the way
    queues: LinkQueues

    @cached_property
    def routed(self) -> NDArray[np.bool_]:
        """Which flows have a route, [F]."""
        return self.hops.lengths > 0

    @property
    def worst_load(self) -> Table:
        """The highest load of a link on every flow's way, [F]."""
        return self.flow[:, FLOW_FEATURES.index("worst_load")]


@dataclass(frozen=True)
class Loops:
    """What the loops of :mod:`twin.features_core` read: the flows, and what a hop asks of queue and link."""

    ways: Ways
    pps: Floats  # [F]
    bits: Floats  # [F] mean packet
    overall_bits: float  # mean packet of all
    size_scv: Floats  # [F]
    vary: Floats  # [F, 3] or, where all are Poisson, [0, 3]
    of_queue: Floats  # [Q, OF_QUEUE]
    of_link: Floats  # [L, OF_LINK]

    @classmethod
    def of(cls, network: Network, traffic: Traffic, size_scv: float, queues: LinkQueues) -> Loops:
        """Fill in what the traffic leaves open."""
        bits, vary = traffic.packet_bits, traffic.variability
        return cls(
            ways=Ways.of(network, traffic),
            pps=traffic.pps,
            bits=bits,
            overall_bits=traffic.overall_packet_bits,
            size_scv=traffic.packet_scv(size_scv),
            vary=np.zeros((0, 3))
            if vary is None
            else np.column_stack([vary.gap_scv, vary.rate_scv, vary.rate_time_s]),
            of_queue=_of_queues(network, queues),
            of_link=_of_links(network, queues),
        )

    def add_up(self, threads: int) -> tuple[Floats, Floats]:
        """The sums over the flows of every queue, [Q, SUMS], and the packets/s of every inlet, [I]."""
        flows, ways = np.arange(len(self.pps)), self.ways
        parts = chunk_count(len(flows))
        sums = np.zeros((parts, len(self.of_queue), SUMS))
        inlet_rate = np.zeros((parts, len(ways.inlet_link)))

        def run(part: int, low: int, high: int) -> None:
            add_up(
                flows[low:high], ways.hops.offsets, ways.queues, ways.inlets, self.pps, self.vary,
                self.of_queue, sums[part], inlet_rate[part],
            )  # fmt: skip

        each_chunk(len(flows), threads, run)
        return sums.sum(axis=0), inlet_rate.sum(axis=0)

    def tabulate(self, flows: Ints, threads: int, inlet_rate: Floats, tables: FlowTables) -> None:
        """Fill in the rows of ``flows`` and of their hops."""
        ways = self.ways

        def run(_: int, low: int, high: int) -> None:
            tabulate(
                flows[low:high], ways.hops.offsets, ways.hops.links, ways.queues, ways.inlets, self.pps,
                self.bits, self.size_scv, self.vary, self.overall_bits, self.of_queue, self.of_link,
                inlet_rate, tables.hop, tables.flow, tables.seconds, tables.bottleneck,
            )  # fmt: skip

        each_chunk(len(flows), threads, run)


@dataclass(frozen=True)
class FlowTables:
    """What is written of flows and hops."""

    hop: Table  # [H, len(HOP_FEATURES)]
    flow: Table  # [F, len(FLOW_FEATURES)]
    seconds: Floats  # [F, 2] transmission, propagation
    bottleneck: Ints  # [F]

    @classmethod
    def empty(cls, hops: Paths) -> FlowTables:
        """Room for all."""
        flows = len(hops.offsets) - 1
        return cls(
            hop=np.empty((len(hops.links), len(HOP_FEATURES)), np.float32),
            flow=np.empty((flows, len(FLOW_FEATURES)), np.float32),
            seconds=np.empty((flows, 2)),
            bottleneck=np.empty(flows, np.int64),
        )


def build_features(network: Network, traffic: Traffic, prior: Prior, *, threads: int = 1) -> Features:
    """Solve the prior and tabulate what the GNN needs to correct it."""
    queues = prior.solve(network, traffic)
    loops = Loops.of(network, traffic, prior.size_scv, queues)
    sums, inlet_rate = loops.add_up(threads)
    tables = FlowTables.empty(loops.ways.hops)
    loops.tabulate(np.arange(len(loops.pps)), threads, inlet_rate, tables)
    return assemble(network, queues, loops, sums, inlet_rate, tables)


def assemble(
    network: Network,
    queues: LinkQueues,
    loops: Loops,
    sums: Floats,
    inlet_rate: Floats,
    tables: FlowTables,
) -> Features:
    """All tables together, once those of flows are written."""
    return Features(
        queue=queue_table(network, queues, sums, inlet_rate, loops.ways),
        flow=tables.flow,
        hop=tables.hop,
        hops=loops.ways.hops,
        hop_queue=loops.ways.queues,
        queue_link=network.queue_link,
        queue_part=_parts(network, queues),
        wait_s=queues.wait_s,
        wait_std_s=queues.wait_std_s,
        ln_blocking=np.log(np.maximum(queues.blocking, np.exp(LN_BLOCKING_FLOOR))),
        size_scv=loops.size_scv,
        transmission_s=tables.seconds[:, TRANSMISSION_S],
        propagation_s=tables.seconds[:, FIXED_S],
        bottleneck=tables.bottleneck,
        queues=queues,
    )


def operating_point(network: Network, queues: LinkQueues) -> dict[str, tuple[float, float]]:
    """Smallest and largest value of what decides whether a model has seen the like of this."""
    used = queues.arrival_pps > 0
    buffers = queues.buffer_packets[used]
    point = {
        "nodes": (float(len(network.nodes)), float(len(network.nodes))),
        "load": (0.0, float(queues.link_load.max(initial=0.0))),
        "buffer packets": (float(buffers.min()), float(buffers.max())) if used.any() else (64.0, 64.0),
    }
    seen = np.bincount(network.policy[network.queue_link[used]], minlength=len(POLICIES))
    return point | {f"{name} scheduling": (0.0, float(seen[code] > 0)) for code, name in enumerate(POLICIES)}


def _of_queues(network: Network, queues: LinkQueues) -> Floats:
    """What a hop needs to know of its queue, [Q, OF_QUEUE]."""
    ln_capacity = np.log(network.capacity_bps)[network.queue_link]
    table = np.empty((len(ln_capacity), OF_QUEUE))
    table[:, PER_ARRIVAL] = 1.0 / np.maximum(queues.arrival_pps, TINY)
    table[:, SURVIVAL] = 1.0 - np.minimum(queues.blocking, 1 - 1e-12)
    table[:, LN_BITS] = np.log(np.maximum(queues.service_s, TINY)) + ln_capacity
    table[:, WAIT_S] = queues.wait_s
    return table


def _of_links(network: Network, queues: LinkQueues) -> Floats:
    """What a hop needs to know of its link, [L, OF_LINK]."""
    table = np.zeros((len(network.links), OF_LINK))
    table[:, LN_CAPACITY] = np.log(network.capacity_bps)
    table[:, S_PER_BIT] = 1.0 / network.capacity_bps
    table[:, AHEAD_S_PER_BIT] = network.ahead_s_per_bit
    table[:, PROPAGATION_S] = network.propagation_delay_s
    table[:, LOAD] = queues.link_load
    table[:, POLICY] = network.policy
    return table


def _parts(network: Network, queues: LinkQueues) -> Table:
    """Share of the link's load that is the queue's; equal parts of an idle link."""
    load = queues.link_load[network.queue_link]
    equal = 1.0 / np.diff(network.queue_offsets)[network.queue_link]
    part = np.divide(queues.load, load, out=equal, where=load > 0)
    return np.asarray(part, dtype=np.float32)
