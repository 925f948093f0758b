"""A packet-level simulator of a network of FIFO queues, resumable, steered while it runs.

``advance(until_s)`` plays the network up to that time and may be called again and again: how the way is cut
into steps changes nothing, bit for bit. It releases the GIL; change rates, links and routes between two
calls, from the same thread.

What is modelled: output queues with tail drop, transmission, propagation (plus extra delay), and forwarding
along the next hop that is in force when the packet reaches a node. What is not: processing time other than
``set_node_delay``, input queues, fragmentation, feedback (TCP). A packet counts on a link when it reaches the
far end, so a counter never runs faster than the line. Theory and invariants of the event loop:
:mod:`twin.simulator_core`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from twin import simulator_core as core
from twin.errors import TopologyError
from twin.network import Floats, Ints, Network
from twin.workload import (
    Arrivals,
    Cbr,
    Flow,
    Mmpp,
    Modulated,
    OnOff,
    PacketSizes,
    Poisson,
    check_not_negative,
    check_positive,
)

__all__ = [
    "Arrivals",
    "Cbr",
    "Flow",
    "FlowDelays",
    "Mmpp",
    "Modulated",
    "OnOff",
    "PacketSizes",
    "Poisson",
    "Simulator",
]

FIRST_RING = 32  # slots a link starts with; doubled whenever it is full


@dataclass(frozen=True)
class FlowDelays:
    """One-way delays of the packets delivered since the last call, per flow; 0 where ``count`` is 0."""

    count: Ints  # [F]
    mean_s: Floats
    min_s: Floats
    max_s: Floats
    std_s: Floats


class Simulator:
    """See the module's docstring. Indices: flows as given, links and nodes as in the network."""

    def __init__(self, network: Network, flows: Sequence[Flow], *, seed: int) -> None:
        self.network = network
        self.now_s = 0.0
        self._capacity_bps = network.capacity_bps.copy()
        self._extra_delay_s = np.zeros(len(network.links))
        self._node_delay_s = np.zeros(len(network.nodes))
        self._pool_used = FIRST_RING * len(network.links)
        self._state = _build_state(network, flows, seed)
        core.start(self._state)
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
        self.node_drops: Ints = _locked(self._state.node_drops)  # [N] no route, or hop limit reached

    # ------------------------------------------------------------------ time

    def advance(self, until_s: float) -> None:
        """Play all events up to and including ``until_s``."""
        if not (isfinite(until_s) and until_s >= self.now_s):
            raise TopologyError(f"cannot advance from {self.now_s} s to {until_s} s: time only goes forward")
        while (full := core.run(self._state, float(until_s))) != core.DONE:
            self._widen_ring(full)
        self.now_s = float(until_s)

    def _widen_ring(self, link: int) -> None:
        """Move a link's ring to a place twice as large at the end of the pool; double the pool at need."""
        record, packets = self._state.links[link], self._state.packets
        size = int(record["mask"]) + 1
        if self._pool_used + 2 * size > len(packets):
            packets = np.concatenate([packets, np.zeros(len(packets) + 2 * size, dtype=core.PACKET)])
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
        core.set_rates(self._state, first, pps, self.now_s)

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
                core.empty_link(self._state, link)

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
        core.reshape_link(self._state, link, 1.0 / self._capacity_bps[link], latency_s, self.now_s)

    def set_next_link(self, node: int, destination: int, link: int) -> None:
        """Change the route of one node towards one destination; −1 removes it."""
        self._check("node", node, len(self._node_delay_s))
        self._check("node", destination, len(self._node_delay_s))
        if link != -1:
            self._check("link", link, len(self._state.links))
            if self.network.source_index[link] != node:
                raise TopologyError(f"link {self.network.links[link].name} does not leave node {node}")
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


def _view(records: NDArray[np.void], field: str) -> Ints:
    return _locked(records[field])


def _locked(array: Ints) -> Ints:
    view = array.view()
    view.flags.writeable = False
    return view


def _build_state(network: Network, flows: Sequence[Flow], seed: int) -> core.State:
    sizes = list(dict.fromkeys(flow.sizes for flow in flows))
    link_times, link_ids = _tree(len(network.links))
    flow_times, flow_ids = _tree(len(flows))
    return core.State(
        packets=np.zeros(2 * FIRST_RING * max(1, len(network.links)), dtype=core.PACKET),
        links=_link_records(network),
        flows=_flow_records(network, flows, sizes, seed),
        next_link=_checked_routes(network),
        node_drops=np.zeros(len(network.nodes), dtype=np.int64),
        link_times=link_times,
        link_ids=link_ids,
        flow_times=flow_times,
        flow_ids=flow_ids,
        size_bits=np.array([bits for table in sizes for bits in table.bits], dtype=np.int32),
        size_cumulative=np.concatenate([[], *(np.cumsum(table.probabilities) for table in sizes)]),
    )


def _tree(leaves: int) -> tuple[Floats, NDArray[np.int32]]:
    """An empty tournament: infinity everywhere, leaf i at width + i."""
    width = 1 << max(1, (leaves - 1).bit_length())
    ids = np.zeros(2 * width, dtype=np.int32)
    ids[width:] = np.arange(width)
    return np.full(2 * width, np.inf), ids


def _link_records(network: Network) -> NDArray[np.void]:
    links = np.zeros(len(network.links), dtype=core.LINK)
    for index, link in enumerate(network.links):
        check_not_negative(f"propagation delay of link {link.name}", link.propagation_delay_s, "s")
        check_positive(f"buffer of link {link.name}", link.buffer_packets, "packets")
        links[index]["up"] = link.up
    links["seconds_per_bit"] = 1.0 / network.capacity_bps
    links["latency"] = network.propagation_delay_s
    links["offset"] = FIRST_RING * np.arange(len(links))
    links["mask"] = FIRST_RING - 1
    links["buffer"] = network.buffer_packets
    links["target"] = network.target_index
    return links


def _checked_routes(network: Network) -> NDArray[np.int16]:
    """A copy of the next links, each of which must leave its node."""
    routes = network.next_link.astype(np.int16)
    if routes.size and (routes.min() < -1 or routes.max() >= len(network.links)):
        raise TopologyError(
            "next_link names a link that does not exist: use link indices, or -1 for no route"
        )
    node, destination = np.nonzero(routes >= 0)
    wrong = np.flatnonzero(network.source_index[routes[node, destination]] != node)
    if wrong.size:
        raise TopologyError(f"next_link of {network.nodes[node[wrong[0]]]} is a link that does not leave it")
    return routes


def _flow_records(
    network: Network, flows: Sequence[Flow], sizes: list[PacketSizes], seed: int
) -> NDArray[np.void]:
    records = np.zeros(len(flows), dtype=core.FLOW)
    starts = np.concatenate([[0], np.cumsum([len(table.bits) for table in sizes])]).astype(int)
    rows = {table: (starts[i], starts[i + 1]) for i, table in enumerate(sizes)}
    for record, flow in zip(records, flows, strict=True):
        if not (0 <= flow.source < len(network.nodes) and 0 <= flow.destination < len(network.nodes)):
            raise TopologyError(f"flow {flow.source}->{flow.destination} has an end outside the network")
        modulation = flow.arrivals.modulation
        record["pps"] = flow.pps
        record["source"], record["destination"] = flow.source, flow.destination
        record["constant_gaps"] = flow.arrivals.constant_gaps
        record["modulation"] = modulation.kind
        record["levels"], record["stays"], record["sigma"] = (
            modulation.levels,
            modulation.stays_s,
            modulation.sigma,
        )
        record["exponential_sizes"] = flow.sizes.exponential
        record["size_from"], record["size_to"] = rows[flow.sizes]
    if seed < 0:
        raise TopologyError(f"seed is {seed}: give zero or a positive number")
    records["random"] = np.random.SeedSequence(seed).generate_state(max(1, len(flows)), np.uint64)[
        : len(flows)
    ]
    return records
