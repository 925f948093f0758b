"""A packet-level simulator of a network of queues, resumable, steered while it runs.

``advance(until_s)`` plays the network up to that time and may be called again and again: how the way is cut
into steps changes nothing, bit for bit. It releases the GIL; change rates, links and routes between two
calls, from the same thread.

What is modelled: output queues with tail drop that share a link as :mod:`twin.scheduling` says (FIFO, SP,
WFQ, DRR: :mod:`twin.simulator_schedulers`), transmission (of a shaped link at its line rate), propagation
(plus extra delay), and forwarding along the next hop that is in force when the packet reaches a node, or
along the routes that a network brings. What is not: processing time other than ``set_node_delay``, input
queues, fragmentation, feedback (TCP). A packet counts on a link when it reaches the far end, so a counter
never runs faster than the line. Theory and invariants of the event loop: :mod:`twin.simulator_core`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from twin import simulator_arrivals as sources
from twin import simulator_core as core
from twin.errors import TopologyError
from twin.network import Floats, Ints, Network
from twin.simulator_build import DRR_ROUND_S, build_state
from twin.simulator_records import PACKET
from twin.workload import (
    Arrivals,
    Autocorrelated,
    Cbr,
    Flow,
    Mmpp,
    Modulated,
    OnOff,
    PacketSizes,
    Poisson,
    Trace,
    check_not_negative,
    check_positive,
)

__all__ = [
    "Arrivals",
    "Autocorrelated",
    "Cbr",
    "Flow",
    "FlowDelays",
    "Mmpp",
    "Modulated",
    "OnOff",
    "PacketSizes",
    "Poisson",
    "Simulator",
    "Trace",
]


@dataclass(frozen=True)
class FlowDelays:
    """One-way delays of the packets delivered since the last call, per flow; 0 where ``count`` is 0."""

    count: Ints  # [F]
    mean_s: Floats
    min_s: Floats
    max_s: Floats
    std_s: Floats


@dataclass(frozen=True)
class QueueTotals:
    """What every queue has seen since time 0, [Q] each."""

    arrivals: Ints  # packets taken in or dropped
    drops: Ints
    bits: Ints  # of packets whose service has begun
    packet_seconds: Floats  # integral over time of the packets it holds, the one in service included
    bit_seconds: Floats

    def since(self, earlier: QueueTotals) -> QueueTotals:
        """What was added after ``earlier``."""
        return QueueTotals(*(getattr(self, part.name) - getattr(earlier, part.name) for part in fields(self)))


class Simulator:
    """See the module's docstring. Indices: flows as given, links and nodes as in the network.

    ``percentiles`` keeps histograms of delay. ``drr_round_s`` is the link's time that the queues of a DRR
    link share out, by weight, in one round: take a few packet times for a fine-grained scheduler.
    """

    def __init__(
        self,
        network: Network,
        flows: Sequence[Flow],
        *,
        seed: int,
        percentiles: bool = False,
        drr_round_s: float = DRR_ROUND_S,
    ) -> None:
        self.network = network
        self.now_s = 0.0
        self._capacity_bps = network.capacity_bps.copy()
        self._extra_delay_s = np.zeros(len(network.links))
        self._node_delay_s = np.zeros(len(network.nodes))
        self._state = build_state(network, flows, seed, percentiles=percentiles, drr_round_s=drr_round_s)
        self._pool_used = len(self._state.packets) // 2
        sources.start(self._state)
        links, records = self._state.links, self._state.flows
        self.link_octets: Ints = _view(
            links, "octets"
        )  # [L] cumulative, whole octets of packets that got across
        self.link_packets: Ints = _view(links, "packets")
        self.link_drops: Ints = _view(links, "drops")  # [L] buffer full, or link down
        self.link_drop_octets: Ints = _view(links, "drop_octets")
        self.sent_packets: Ints = _view(records, "sent_packets")  # [F] cumulative
        self.sent_octets: Ints = _view(records, "sent_octets")
        self.delivered_packets: Ints = _view(records, "delivered_packets")
        self.delivered_octets: Ints = _view(records, "delivered_octets")
        self.lost_packets: Ints = _view(records, "lost_packets")
        self.lost_measured: Ints = _view(records, "lost_measured")  # [F] of packets entered since ``forget``
        self.node_drops: Ints = _locked(self._state.node_drops)  # [N] no route, or hop limit reached

    # ------------------------------------------------------------------ time

    def advance(self, until_s: float) -> None:
        """Play all events up to and including ``until_s``."""
        if not (isfinite(until_s) and until_s >= self.now_s):
            raise TopologyError(f"cannot advance from {self.now_s} s to {until_s} s: time only goes forward")
        while (full := core.run(self._state, float(until_s))) != core.DONE:
            self._widen_ring(full)
        self.now_s = float(until_s)

    def _widen_ring(self, ring: int) -> None:
        """Move a ring to a place twice as large at the end of the pool; double the pool at need."""
        links, packets = self._state.links, self._state.packets
        record = links[ring] if ring < len(links) else self._state.queues[ring - len(links)]
        size = int(record["mask"]) + 1
        if self._pool_used + 2 * size > len(packets):
            packets = np.concatenate([packets, np.zeros(len(packets) + 2 * size, dtype=PACKET)])
            self._state = self._state._replace(packets=packets)
        held = np.arange(record["head"], record["tail"])
        packets[self._pool_used + held % (2 * size)] = packets[record["offset"] + held % size]
        record["offset"], record["mask"] = self._pool_used, 2 * size - 1
        self._pool_used += 2 * size

    # ------------------------------------------------------------------ steering

    def set_rate(self, flow: int, pps: float) -> None:
        """Change a flow's mean rate; 0 silences it."""
        self._check("flow", flow, len(self._state.flows))
        self._set_rates(flow, np.array([pps], dtype=np.float64))

    def set_rates(self, pps: Floats) -> None:
        """Change the mean rates of all flows at once, [F]."""
        rates = np.ascontiguousarray(pps, dtype=np.float64)
        if rates.shape != self._state.flows.shape:
            raise TopologyError(f"{rates.size} rates for {len(self._state.flows)} flows: give one for each")
        self._set_rates(0, rates)

    def _set_rates(self, first: int, pps: Floats) -> None:
        if not (np.isfinite(pps).all() and (pps >= 0).all()):
            raise TopologyError("a flow's rate is NaN, infinite or negative: give zero or more packets/s")
        sources.set_rates(self._state, first, pps, self.now_s)

    def set_link(
        self,
        link: int,
        *,
        capacity_bps: float | None = None,
        extra_delay_s: float | None = None,
        up: bool | None = None,
    ) -> None:
        """Change a link. What is on the wire keeps its delay; going down loses all on it or sent to it."""
        self._check("link", link, len(self._state.links))
        speed_bps = self._capacity_bps[link] if capacity_bps is None else capacity_bps
        delay_s = self._extra_delay_s[link] if extra_delay_s is None else extra_delay_s
        check_positive(f"capacity of link {link}", speed_bps, "bit/s")
        check_not_negative(f"extra delay of link {link}", delay_s, "s")
        self._capacity_bps[link], self._extra_delay_s[link] = speed_bps, delay_s
        self._reshape(link)
        if up is not None:
            self._state.links[link]["up"] = up
            if not up:
                core.empty_link(self._state, link, self.now_s)

    def set_node_delay(self, node: int, delay_s: float) -> None:
        """Make a node slow: all packets it sends on, its own included, take so much longer to the next."""
        self._check("node", node, len(self._node_delay_s))
        check_not_negative(f"delay of node {node}", delay_s, "s")
        self._node_delay_s[node] = delay_s
        for link in np.flatnonzero(self.network.source_index == node):
            self._reshape(int(link))

    def _reshape(self, link: int) -> None:
        latency_s = (
            self.network.propagation_delay_s[link]
            + self._extra_delay_s[link]
            + self._node_delay_s[self.network.source_index[link]]
        )
        per_bit_s = 1.0 / self._capacity_bps[link]
        shaped = self.network.ahead_s_per_bit[link] > 0.0  # else it is the line that changes
        ahead_s = max(per_bit_s - 1.0 / self.network.line_rate_bps[link], 0.0) if shaped else 0.0
        core.reshape_link(self._state, link, per_bit_s, ahead_s, latency_s, self.now_s)

    def set_next_link(self, node: int, destination: int, link: int) -> None:
        """Change the route of one node towards one destination; −1 removes it. None leads from home."""
        self._check("node", node, len(self._node_delay_s))
        self._check("node", destination, len(self._node_delay_s))
        if self.network.routes is not None:
            raise TopologyError("this network brings a route for each pair of nodes: they do not change")
        if link != -1:
            self._check("link", link, len(self._state.links))
            if self.network.source_index[link] != node:
                raise TopologyError(f"link {self.network.links[link].name} does not leave node {node}")
        if node != destination:
            self._state.next_link[node, destination] = link

    @staticmethod
    def _check(what: str, index: int, count: int) -> None:
        if not 0 <= index < count:
            raise TopologyError(f"{what} {index} does not exist: this network has {count}")

    # ------------------------------------------------------------------ reading

    @property
    def in_flight_packets(self) -> Ints:
        """[F] packets now queued or on a wire: sent − delivered − lost."""
        return self.sent_packets - self.delivered_packets - self.lost_packets

    @property
    def packet_hops(self) -> int:
        """Packets carried over links so far, the unit of work of this simulator."""
        return int(self.link_packets.sum())

    def take_delays(self) -> FlowDelays:
        """Delays since the last call; the next call starts afresh."""
        flows = self._state.flows
        count = flows["count"].copy()
        some = np.maximum(count, 1)
        mean_apart, measured = flows["sum"] / some, count > 0
        variance = np.maximum(0.0, flows["sum_squares"] / some - mean_apart**2)
        delays = FlowDelays(
            count=count,
            mean_s=np.where(measured, flows["shift"] + mean_apart, 0.0),
            min_s=np.where(measured, flows["min"], 0.0),
            max_s=np.where(measured, flows["max"], 0.0),
            std_s=np.where(measured, np.sqrt(variance), 0.0),
        )
        flows["count"] = 0
        return delays

    def forget(self) -> None:
        """Begin anew with figures of delay and ``lost_measured``, for packets that enter from now on.

        Counters go on.
        """
        self._state.measured_from[0] = self.now_s
        self._state.flows["count"] = 0
        self._state.flows["lost_measured"] = 0
        self._state.histogram[:] = 0

    def queue_totals(self) -> QueueTotals:
        """What the queues have seen; take the difference of two for a window."""
        queues = self._state.queues
        packet_seconds, bit_seconds = np.empty(len(queues)), np.empty(len(queues))
        core.occupancy(self._state, self.now_s, packet_seconds, bit_seconds)
        arrivals, drops, bits = (queues[name].copy() for name in ("arrivals", "drops", "bits"))
        return QueueTotals(arrivals, drops, bits, packet_seconds, bit_seconds)

    def percentiles_s(self, percents: Sequence[float]) -> Floats:
        """Percentiles of delay since time 0 or ``forget``, [F, percents]; 0 where nothing was delivered.

        From histograms with bins 1 % wide, within which delays are taken to be even.
        """
        counts = self._state.histogram
        if not counts.shape[0]:
            raise TopologyError("percentiles were not asked for: make the simulator with percentiles=True")
        ends = np.cumsum(counts, axis=1)
        wanted = ends[:, -1:] * np.asarray(percents, dtype=np.float64) / 100
        place = np.stack([(ends < column[:, None]).sum(axis=1) for column in wanted.T], axis=1)
        place = np.minimum(place, counts.shape[1] - 1)
        inside = np.take_along_axis(counts, place, axis=1)
        before = np.take_along_axis(ends, place, axis=1) - inside
        share = (wanted - before) / np.maximum(inside, 1)
        delay = self._state.shortest_delay * np.exp(core.BIN_WIDTH * (place + share))
        return np.where(ends[:, -1:] > 0, delay, 0.0)


def _view(records: NDArray[np.void], field: str) -> Ints:
    return _locked(records[field])


def _locked(array: Ints) -> Ints:
    view = array.view()
    view.flags.writeable = False
    return view
