"""The event loop of the packet simulator, compiled.

Theory ------ One event per packet-hop. A FIFO queue needs no event for the end of a service: a packet that
arrives at t leaves at d = max(t, d') + bits / C, where d' is the departure of the packet before it (Lindley,
1952), and reaches the next node at a = max(a', d + latency). The queue holds the packets whose departure lies
in the future, so a ring of them with a lazily moved pointer ``served`` gives the occupancy that the tail drop
needs.

Packets leave a link in the order they entered it. So the future event list holds not packets but *links*
(each with its next arrival) and *flows* (each with its next packet or change of level): two tournament trees,
updated in log2(links) and log2(flows) steps, instead of one heap over all packets on the way.

Invariants
----------
- Ring of a link: ``head <= served <= tail`` are running numbers; number k lives at ``offset + (k & mask)``.
  [head, served) are on the wire, [served, tail) queue, the first of them in service; departures and arrivals
  are sorted along the ring.
- Leaf l of the link tree is the arrival of the head of ring l, or infinity where the ring is empty.
- Leaf f of the flow tree is min(next_arrival, level_until). ``credit`` is what is left of the current gap at
  ``since``, in packets: the next arrival is since + credit / (pps · level).
- On entry every ring has a free slot: the loop returns a link's number as soon as its ring is full, and goes
  on when called again, so that the caller can give that ring more room.
- Ties go to links before flows, then to the lower number. Every flow draws from its own generator. So the
  course of events depends on neither the clock's steps nor, in one flow, on the rates of others.
"""

from __future__ import annotations

from math import cos, exp, log, pi, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from twin.compiled import event_loop

PACKET = np.dtype(
    [
        ("departs", "f8"),  # last bit leaves the queue
        ("arrives", "f8"),  # last bit reaches the next node
        ("entered", "f8"),  # at the source
        ("flow", "i4"),
        ("bits", "i4"),
        ("destination", "i2"),
        ("hops", "i2"),
    ],
    align=True,
)
LINK = np.dtype(
    [
        ("seconds_per_bit", "f8"),
        ("latency", "f8"),  # propagation + extra delay + delay of the slow node it leaves
        ("last_departs", "f8"),
        ("last_arrives", "f8"),
        ("offset", "i8"),
        ("mask", "i8"),
        ("head", "i8"),
        ("served", "i8"),
        ("tail", "i8"),
        ("buffer", "i8"),
        ("target", "i4"),
        ("up", "i4"),
        ("octets", "i8"),
        ("packets", "i8"),
        ("drops", "i8"),
        ("drop_octets", "i8"),
    ],
    align=True,
)
FLOW = np.dtype(
    [
        ("next_arrival", "f8"),
        ("level_until", "f8"),
        ("since", "f8"),
        ("credit", "f8"),
        ("pps", "f8"),
        ("level", "f8"),
        ("random", "u8"),
        ("source", "i4"),
        ("destination", "i4"),
        ("constant_gaps", "i4"),
        ("modulation", "i4"),  # 0 none, 1 two states, 2 lognormal
        ("state", "i4"),  # which of the two states
        ("exponential_sizes", "i4"),
        ("size_from", "i4"),  # its rows of the size table
        ("size_to", "i4"),
        ("levels", "f8", (2,)),
        ("stays", "f8", (2,)),
        ("sigma", "f8"),
        ("sent_packets", "i8"),
        ("sent_octets", "i8"),
        ("delivered_packets", "i8"),
        ("delivered_octets", "i8"),
        ("lost_packets", "i8"),
        ("count", "i8"),  # delays since they were last taken: around ``shift``, the first of them
        ("shift", "f8"),
        ("sum", "f8"),
        ("sum_squares", "f8"),
        ("min", "f8"),
        ("max", "f8"),
    ],
    align=True,
)
HOP_LIMIT = 64  # the initial TTL most hosts send (RFC 1700)
DONE = -1


class State(NamedTuple):
    """Everything the loop reads and writes."""

    packets: NDArray[np.void]  # pool of rings
    links: NDArray[np.void]  # [L]
    flows: NDArray[np.void]  # [F]
    next_link: NDArray[np.int16]  # [N, N]
    node_drops: NDArray[np.int64]  # [N] no route, or hop limit reached
    link_times: NDArray[np.float64]  # tournament trees: leaf i at width + i, the winner at 1
    link_ids: NDArray[np.int32]
    flow_times: NDArray[np.float64]
    flow_ids: NDArray[np.int32]
    size_bits: NDArray[np.int32]  # the flows' size tables, one after the other
    size_cumulative: NDArray[np.float64]


@event_loop
def _uniform(flow: Any) -> float:
    """(0, 1] from SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    flow.random = flow.random + np.uint64(0x9E3779B97F4A7C15)
    z = flow.random
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (float(z >> np.uint64(11)) + 1.0) * 2.0**-53


@event_loop
def _set_leaf(times: Any, ids: Any, leaf: int, time: float) -> None:
    """Give a leaf its time and replay its matches, up to the first whose outcome stays the same."""
    i = (times.shape[0] >> 1) + leaf
    times[i] = time
    winner = np.int32(leaf)
    while i > 1:
        rival = times[i ^ 1]
        if rival < time or (rival == time and ids[i ^ 1] < winner):
            time = rival
            winner = ids[i ^ 1]
        i >>= 1
        if times[i] == time and ids[i] == winner:
            return
        times[i] = time
        ids[i] = winner


@event_loop
def _plan(flow: Any, now: float) -> float:
    """Set the next arrival from the credit left at ``now``; return the flow's next event."""
    flow.since = now
    rate = flow.pps * flow.level
    flow.next_arrival = now + flow.credit / rate if rate > 0.0 else np.inf
    return float(min(flow.next_arrival, flow.level_until))


@event_loop
def _spend(flow: Any, now: float) -> None:
    """Bring the credit up to ``now``, before a change of rate or level."""
    flow.credit = max(0.0, flow.credit - (now - flow.since) * flow.pps * flow.level)


@event_loop
def _enter_level(flow: Any, now: float) -> None:
    """Draw how long the current state lasts and, for a lognormal, its level."""
    if flow.modulation == 2:
        normal = sqrt(-2.0 * log(_uniform(flow))) * cos(2.0 * pi * _uniform(flow))
        flow.level = exp(flow.sigma * normal - 0.5 * flow.sigma * flow.sigma)
    else:
        flow.level = flow.levels[flow.state]
    flow.level_until = now - flow.stays[flow.state] * log(_uniform(flow))


@event_loop
def start(state: State) -> None:
    """Put every flow into a random phase of its stationary law and build both trees."""
    for flow_id in range(state.flows.shape[0]):
        flow = state.flows[flow_id]
        flow.level = 1.0
        flow.level_until = np.inf
        if flow.modulation != 0:
            flow.state = _uniform(flow) * (flow.stays[0] + flow.stays[1]) > flow.stays[0]
            _enter_level(flow, 0.0)
        flow.credit = _uniform(flow) if flow.constant_gaps else -log(_uniform(flow))
        _set_leaf(state.flow_times, state.flow_ids, flow_id, _plan(flow, 0.0))


@event_loop
def _draw_bits(state: State, flow: Any) -> int:
    first = flow.size_from
    if flow.exponential_sizes:
        return int(1.0 - state.size_bits[first] * log(_uniform(flow)))
    if flow.size_to - first == 1:
        return int(state.size_bits[first])
    u = _uniform(flow)
    low, high = first, flow.size_to - 1
    while low < high:
        middle = (low + high) >> 1
        if u <= state.size_cumulative[middle]:
            high = middle
        else:
            low = middle + 1
    return int(state.size_bits[low])


@event_loop
def _deliver(flow: Any, delay: float, bits: int) -> None:
    flow.delivered_packets += 1
    flow.delivered_octets += (bits + 7) >> 3
    if flow.count == 0:
        flow.shift = delay
        flow.sum = 0.0
        flow.sum_squares = 0.0
        flow.min = delay
        flow.max = delay
    flow.count += 1
    apart = delay - flow.shift
    flow.sum += apart
    flow.sum_squares += apart * apart
    flow.min = min(flow.min, delay)
    flow.max = max(flow.max, delay)


@event_loop
def _slot(state: State, link: Any, number: int) -> Any:
    """Packet ``number`` of a link's ring."""
    return state.packets[link.offset + (number & link.mask)]


@event_loop
def _forward(state: State, node: int, now: float, packet: tuple[int, int, int, int, float]) -> int:
    """A packet is at a node: deliver, drop or queue it; return the link whose ring is full now, or DONE."""
    flow_id, destination, bits, hops, entered = packet
    if node == destination:
        _deliver(state.flows[flow_id], now - entered, bits)
        return DONE
    link_id = state.next_link[node, destination]
    if link_id < 0 or hops >= HOP_LIMIT:
        state.flows[flow_id].lost_packets += 1
        state.node_drops[node] += 1
        return DONE
    link = state.links[link_id]
    served = link.served
    while served < link.tail and _slot(state, link, served).departs <= now:
        served += 1
    link.served = served
    if link.tail - served >= link.buffer or not link.up:
        state.flows[flow_id].lost_packets += 1
        link.drops += 1
        link.drop_octets += (bits + 7) >> 3
        return DONE
    slot = _slot(state, link, link.tail)
    slot.departs = max(now, link.last_departs) + bits * link.seconds_per_bit
    slot.arrives = max(link.last_arrives, slot.departs + link.latency)
    slot.entered = entered
    slot.flow = flow_id
    slot.bits = bits
    slot.destination = destination
    slot.hops = hops + 1
    link.last_departs = slot.departs
    link.last_arrives = slot.arrives
    link.tail += 1
    if link.tail - link.head == 1:
        _set_leaf(state.link_times, state.link_ids, link_id, slot.arrives)
    return link_id if link.tail - link.head > link.mask else DONE


@event_loop
def _land(state: State, link_id: int) -> int:
    """The first packet on a link reaches the far end."""
    link = state.links[link_id]
    packet = _slot(state, link, link.head)
    link.head += 1
    link.served = max(link.served, link.head)
    link.packets += 1
    link.octets += (packet.bits + 7) >> 3
    following = _slot(state, link, link.head).arrives if link.head < link.tail else np.inf
    _set_leaf(state.link_times, state.link_ids, link_id, following)
    carried = (packet.flow, packet.destination, packet.bits, packet.hops, packet.entered)
    return _forward(state, link.target, packet.arrives, carried)


@event_loop
def _emit(state: State, flow_id: int) -> int:
    """A flow's next event: a change of level, or a packet."""
    flow = state.flows[flow_id]
    now = flow.next_arrival
    if flow.level_until <= now:
        now = flow.level_until
        _spend(flow, now)
        flow.state = 1 - flow.state
        _enter_level(flow, now)
        _set_leaf(state.flow_times, state.flow_ids, flow_id, _plan(flow, now))
        return DONE
    flow.credit = 1.0 if flow.constant_gaps else -log(_uniform(flow))
    bits = _draw_bits(state, flow)
    flow.sent_packets += 1
    flow.sent_octets += (bits + 7) >> 3
    _set_leaf(state.flow_times, state.flow_ids, flow_id, _plan(flow, now))
    return _forward(state, flow.source, now, (flow_id, flow.destination, bits, 0, now))


@event_loop
def run(state: State, until: float) -> int:
    """Play all events up to and including ``until``; return DONE, or early with a link whose ring is full."""
    full = DONE
    while full == DONE:
        if state.link_times[1] <= state.flow_times[1]:
            if state.link_times[1] > until:
                break
            full = _land(state, state.link_ids[1])
        else:
            if state.flow_times[1] > until:
                break
            full = _emit(state, state.flow_ids[1])
    return full


@event_loop
def set_rates(state: State, first: int, pps: Any, now: float) -> None:
    """Give flows ``first``, ``first`` + 1, … new rates; what is left of current gaps passes at them."""
    for k in range(pps.shape[0]):
        flow = state.flows[first + k]
        if flow.pps != pps[k]:
            _spend(flow, now)
            flow.pps = pps[k]
            _set_leaf(state.flow_times, state.flow_ids, first + k, _plan(flow, now))


@event_loop
def reshape_link(state: State, link_id: int, seconds_per_bit: float, latency: float, now: float) -> None:
    """Change speed and latency of a link: what is on the wire flies on; what queues leaves at the new speed.

    A backlogged queue works without a break, so all departures in the future scale about now by the same
    factor.
    """
    link = state.links[link_id]
    factor = seconds_per_bit / link.seconds_per_bit
    arrived = now
    departs = 0.0
    for k in range(link.head, link.tail):
        packet = _slot(state, link, k)
        if packet.departs > now:
            packet.departs = now + (packet.departs - now) * factor
            packet.arrives = max(arrived, packet.departs + latency)
        arrived = packet.arrives
        departs = packet.departs
    link.seconds_per_bit = seconds_per_bit
    link.latency = latency
    link.last_departs = departs
    link.last_arrives = arrived
    if link.head < link.tail:
        _set_leaf(state.link_times, state.link_ids, link_id, _slot(state, link, link.head).arrives)


@event_loop
def empty_link(state: State, link_id: int) -> None:
    """A cut cable: everything queued or on the wire is lost."""
    link = state.links[link_id]
    for k in range(link.head, link.tail):
        packet = _slot(state, link, k)
        state.flows[packet.flow].lost_packets += 1
        link.drops += 1
        link.drop_octets += (packet.bits + 7) >> 3
    link.head = link.tail
    link.served = link.tail
    link.last_departs = 0.0
    link.last_arrives = 0.0
    _set_leaf(state.link_times, state.link_ids, link_id, np.inf)
