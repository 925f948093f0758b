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

from twin.features_core import (
    BURST,
    BURST_TIME,
    FRESH,
    INLET,
    REGULAR,
    REGULAR_OWN,
    SQUARES,
    add_up,
    hop_table,
)
from twin.models import DEFAULT_PACKET_BITS, path_packet_bits
from twin.network import Floats, Ints, Network, Paths, Traffic, Variability
from twin.queueing import LinkQueues
from twin.scheduling import POLICIES

Table = NDArray[np.float32]

VERSION = 2
QUEUE_FEATURES = (
    "load",  # ρ offered, as a share of the whole link
    "link_load",  # of all queues of the link
    "higher_load",  # of the queues of the link with a higher priority
    "ln_wait",  # ln(1 + wait ÷ service time)
    "utilisation",  # carried
    "fill",  # mean occupancy ÷ buffer
    "ln_buffer",  # ln(buffer ÷ 64 packets)
    "size_scv",  # of the packets in the queue
    "ln_blocking",  # from −1 (a millionth or less) to 0
    "flow_concentration",  # Σ share² over the flows of the queue: 1 = one flow has it all
    "inlet_concentration",  # Σ share² over where packets come from: the previous link, or here
    "fresh",  # share of packets that enter the network here
    "regular",  # share of packets of regular flows (1 − squared variation of their gaps)
    "regular_concentration",  # the same, share² instead of share
    "burst_scv",  # squared variation of the arrival rate
    "ln_burst_service",  # ln(1 + how long a burst lasts ÷ service time)
    "ln_burst_fill",  # ln(1 + how long a burst lasts ÷ time to fill the buffer)
    "weight",  # of the queue at its link, 0 … 1
    "rank",  # 0 = highest priority, in halves
    "sp",
    "wfq",
    "drr",
)
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
LOAD_CAP = 3.0  # far beyond saturation nothing changes any more
RATE_SCV_CAP = 9.0
BLOCKING_FLOOR = 1e-6  # as a feature
LN_BLOCKING_FLOOR = -60.0  # as the prior: as good as none, and finite
TINY = 1e-150  # its square is a number yet


class Prior(Protocol):
    """A queueing model whose waits and losses the GNN corrects."""

    @property
    def size_scv(self) -> float:
        """Squared variation of packet sizes where traffic does not tell."""
        ...

    def solve(self, network: Network, traffic: Traffic) -> LinkQueues:
        """Every queue as the model sees it."""
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
    propagation_s: Floats  # [F]
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


def build_features(network: Network, traffic: Traffic, prior: Prior) -> Features:
    """Solve the prior and tabulate what the GNN needs to correct it."""
    queues = prior.solve(network, traffic)
    hops, hop_queue = traffic.hops(network), traffic.hop_queues(network)
    bits = path_packet_bits(traffic)
    vary = traffic.variability or Variability.poisson(len(bits))
    size_scv = np.full(len(bits), prior.size_scv) if traffic.size_scv is None else traffic.size_scv
    link_load = queues.link_load
    inlets = _Inlets.of(network)
    survival = 1.0 - np.minimum(queues.blocking, 1 - 1e-12)
    flow_table = np.column_stack([bits, traffic.pps, vary.gap_scv, vary.rate_scv, vary.rate_time_s])
    sums, hop_rate, hop_inlet, inlet_rate, along = add_up(
        hops.links, hops.offsets, hop_queue, flow_table, survival, queues.wait_s, link_load,
        network.policy, network.capacity_bps, network.propagation_delay_s, inlets.base,
        inlets.rank, inlets.node_in, inlets.node_out,
        inlets.count,
    )  # fmt: skip
    waits, transmission, propagation, worst, bottleneck = along.T
    ln_capacity = np.log(network.capacity_bps)
    ln_queue_bits = np.log(np.maximum(queues.service_s, TINY)) + ln_capacity[network.queue_link]
    arrival = np.maximum(queues.arrival_pps, TINY)
    table = hop_table(
        hops.links, hops.offsets, hop_queue, hop_rate, hop_inlet, inlet_rate, 1.0 / arrival,
        np.log(bits), ln_queue_bits, ln_capacity,
    )  # fmt: skip
    return Features(
        queue=_queue_table(network, queues, sums, link_load),
        flow=_flow_table(traffic, vary, bits, size_scv, hops.lengths, waits, transmission, worst),
        hop=table,
        hops=hops,
        hop_queue=hop_queue,
        queue_link=network.queue_link,
        queue_part=_parts(network, queues, link_load),
        wait_s=queues.wait_s,
        wait_std_s=queues.wait_std_s,
        ln_blocking=np.log(np.maximum(queues.blocking, np.exp(LN_BLOCKING_FLOOR))),
        size_scv=size_scv,
        transmission_s=transmission,
        propagation_s=propagation,
        bottleneck=bottleneck.astype(np.int64),
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
    seen = np.unique(network.policy[network.queue_link[used]])
    return point | {f"{name} scheduling": (0.0, float(code in seen)) for code, name in enumerate(POLICIES)}


@dataclass(frozen=True)
class _Inlets:
    """Where the packets of a queue can come from: the node itself (slot 0) or a link into it.

    Packets of one previous link come one after the other and so never collide on a link as fast: how the
    packets of a queue spread over its inlets decides how much of a queue they can form.
    """

    base: Ints  # [Q] index of the queue's slot 0
    rank: Ints  # [L] place of a link among those into its target
    node_in: Ints  # [L] target of every link
    node_out: Ints  # [L] source of every link
    count: int  # slots in all

    @classmethod
    def of(cls, network: Network) -> _Inlets:
        target, source = network.target_index, network.source_index
        into = np.bincount(target, minlength=len(network.nodes))
        order = np.argsort(target, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order)) - (np.cumsum(into) - into)[target[order]]
        slots = 1 + into[source[network.queue_link]]
        base = np.cumsum(slots) - slots
        return cls(base, rank, target, source, int(slots.sum()))


def _parts(network: Network, queues: LinkQueues, link_load: Floats) -> Table:
    """Share of the link's load that is the queue's; equal parts of an idle link."""
    load = link_load[network.queue_link]
    equal = 1.0 / np.diff(network.queue_offsets)[network.queue_link]
    part = np.divide(queues.load, load, out=equal, where=load > 0)
    return np.asarray(part, dtype=np.float32)


def _queue_table(network: Network, queues: LinkQueues, sums: Floats, link_load: Floats) -> Table:
    link, offsets = network.queue_link, network.queue_offsets
    arrival = np.maximum(queues.arrival_pps, TINY)
    service = np.maximum(queues.service_s, TINY)
    below = np.concatenate([[0.0], np.cumsum(queues.load)])
    policy = network.policy[link]
    burst = sums[:, BURST] / arrival**2
    burst_s = np.divide(
        sums[:, BURST_TIME], sums[:, BURST], out=np.zeros_like(burst), where=sums[:, BURST] > 0
    )
    columns = {
        "load": np.minimum(queues.load, LOAD_CAP),
        "link_load": np.minimum(link_load[link], LOAD_CAP),
        "higher_load": np.minimum(np.maximum(below[:-1] - below[offsets[:-1]][link], 0.0), LOAD_CAP),
        "ln_wait": np.log1p(queues.wait_s / service),
        "utilisation": np.minimum(queues.load * (1 - queues.blocking), 1.0),
        "fill": queues.occupancy / queues.buffer_packets,
        "ln_buffer": np.log(queues.buffer_packets / 64),
        "size_scv": queues.service_scv,
        "ln_blocking": np.log(np.maximum(queues.blocking, BLOCKING_FLOOR)) / -np.log(BLOCKING_FLOOR),
        "flow_concentration": sums[:, SQUARES] / arrival**2,
        "inlet_concentration": sums[:, INLET] / arrival**2,
        "fresh": sums[:, FRESH] / arrival,
        "regular": sums[:, REGULAR] / arrival,
        "regular_concentration": sums[:, REGULAR_OWN] / arrival**2,
        "burst_scv": np.minimum(burst, RATE_SCV_CAP),
        "ln_burst_service": np.log1p(burst_s / service),
        "ln_burst_fill": np.log1p(burst_s / (service * queues.buffer_packets)),
        "weight": network.queue_share,
        "rank": network.queue_rank / 2,
        "sp": policy == POLICIES.index("SP"),
        "wfq": policy == POLICIES.index("WFQ"),
        "drr": policy == POLICIES.index("DRR"),
    }
    return np.column_stack([columns[name] for name in QUEUE_FEATURES]).astype(np.float32)


def _flow_table(
    traffic: Traffic,
    vary: Variability,
    bits: Floats,
    size_scv: Floats,
    lengths: Ints,
    waits: Floats,
    transmission: Floats,
    worst: Floats,
) -> Table:
    packets = traffic.pps.sum()
    overall = traffic.bps.sum() / packets if packets > 0 else DEFAULT_PACKET_BITS
    columns = {
        "hops": lengths / 8,
        "worst_load": np.minimum(worst, LOAD_CAP),
        "ln_queueing": np.log1p(waits / np.maximum(transmission, TINY)),
        "ln_size": np.log(bits / overall),
        "size_scv": size_scv,
        "gap_scv": vary.gap_scv,
        "rate_scv": np.minimum(vary.rate_scv, RATE_SCV_CAP),
        "ln_burst": np.log1p(vary.rate_time_s * traffic.pps),
    }
    return np.column_stack([columns[name] for name in FLOW_FEATURES]).astype(np.float32)
