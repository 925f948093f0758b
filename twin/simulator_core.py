"""The event loop of the packet simulator, compiled.

Theory
------
One event per packet-hop where a link has one queue. A FIFO queue needs no event for the end of a service: a
packet that arrives at t leaves at d = max(t, d') + bits / C, where d' is the departure of the packet before
it (Lindley, 1952), and reaches the next node at a = max(a', d + latency). The queue holds the packets whose
departure lies in the future, so a ring of them with a lazily moved pointer ``served`` gives the occupancy
that the tail drop needs. On a shaped link, a token bucket on a port of rate R > C, a packet is on its way as
soon as it has its tokens: it arrives bits / C − bits / R earlier, and may have landed before it "departs".

Where a link has several queues, the end of a service must choose, so it is an event while packets wait. But
a packet's departure and arrival are known as soon as its service begins: then it moves from its queue to the
link's ring, which holds what is in service or on the wire, as before.

Packets leave a link in the order in which they are served. So the future event list holds not packets but
*links* (each with its next arrival or end of service) and *flows* (each with its next packet or change of
level): two tournament trees, updated in log2(links) and log2(flows) steps, instead of one heap over all
packets on the way.

Invariants
----------
- Ring of a link: ``head <= served <= tail`` are running numbers; number k lives at ``offset + (k & mask)``.
  [head, served) are on the wire, [served, tail) queue, the first of them in service; departures and arrivals
  are sorted along the ring. Where a link has several queues, served = head: the last packet of its ring may
  be in service, and what waits is in rings of the queues' own.
- Leaf l of the link tree is the arrival of the head of ring l or, if that comes first and packets wait, the
  end of the service in progress; infinity where there is neither. Packets wait only behind a service.
- Leaf f of the flow tree is min(next_arrival, level_until).
- On entry every ring has a free slot: the loop returns the number of a ring as soon as it is full (link l: l,
  queue q: links + q), and goes on when called again, so that the caller can give that ring more room.
- Ties go to links before flows, then to the lower number. Every flow draws from its own generator. So the
  course of events depends on neither the clock's steps nor, in one flow, on the rates of others.
"""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np

from twin.compiled import event_loop
from twin.simulator_arrivals import draw_bits, enter_level, next_gap, plan, set_leaf, spend
from twin.simulator_records import State
from twin.simulator_schedulers import WFQ, choose, enter_idle, stamp

Carried = tuple[int, int, int, int, int, float]  # flow, route, bits, hops, class, entered
HOP_LIMIT = 64  # the initial TTL most hosts send (RFC 1700)
DONE = -1
HERE = -2  # in place of a next link: the route ends at this node
BIN_WIDTH = 0.01  # of a histogram of delays, on the logarithmic scale


@event_loop
def _deliver(state: State, flow_id: int, delay: float, bits: int, entered: float) -> None:
    flow = state.flows[flow_id]
    flow.delivered_packets += 1
    flow.delivered_octets += (bits + 7) >> 3
    if entered <= state.measured_from[0]:
        return
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
    if state.histogram.shape[0] > 0:
        k = int(log(delay / state.shortest_delay[0]) / BIN_WIDTH)
        state.histogram[flow_id, max(0, min(k, state.histogram.shape[1] - 1))] += 1


@event_loop
def _lose(state: State, flow_id: int, entered: float) -> None:
    flow = state.flows[flow_id]
    flow.lost_packets += 1
    if entered > state.measured_from[0]:
        flow.lost_measured += 1


@event_loop
def _drop(state: State, link: Any, flow_id: int, bits: int, entered: float) -> None:
    """The queue is full, or the link is down."""
    _lose(state, flow_id, entered)
    link.drops += 1
    link.drop_octets += (bits + 7) >> 3


@event_loop
def _slot(state: State, ring: Any, number: int) -> Any:
    """Packet ``number`` of a ring: a link's, or that of one of its queues."""
    return state.packets[ring.offset + (number & ring.mask)]


@event_loop
def _put(slot: Any, packet: Carried) -> None:
    slot.flow, slot.route, slot.bits, slot.hops, slot.service_class, slot.entered = packet


@event_loop
def _carried(packet: Any) -> Carried:
    return (
        packet.flow,
        packet.route,
        packet.bits,
        packet.hops,
        packet.service_class,
        packet.entered,
    )


@event_loop
def _forward(state: State, node: int, now: float, packet: Carried) -> int:
    """A packet is at a node: deliver, drop or queue it; return the ring that is full now, or DONE."""
    flow_id, route, bits, hops, _, entered = packet
    link_id = state.next_link[node, route]
    if link_id == HERE:
        _deliver(state, flow_id, now - entered, bits, entered)
        return DONE
    if link_id < 0 or hops >= HOP_LIMIT:
        _lose(state, flow_id, entered)
        state.node_drops[node] += 1
        return DONE
    if state.links[link_id].queues == 1:
        return _enter_single(state, link_id, now, packet)
    return _enter_one_of_several(state, link_id, now, packet)


@event_loop
def _enter_single(state: State, link_id: int, now: float, packet: Carried) -> int:
    """A packet meets the only queue of a link: FIFO."""
    link = state.links[link_id]
    served = link.served
    while served < link.tail and _slot(state, link, served).departs <= now:
        link.held_bits -= _slot(state, link, served).bits
        served += 1
    link.served = served
    queue = state.queues[link.first_queue]
    queue.arrivals += 1
    flow_id, _, bits, _, _, entered = packet
    full = link.tail - served >= link.buffer or link.held_bits + bits > link.buffer_bits
    if full or not link.up:
        queue.drops += 1
        _drop(state, link, flow_id, bits, entered)
        return DONE
    _begin_service(state, link, queue, max(now, link.last_departs), now, packet)
    if link.tail - link.head == 1:
        set_leaf(state.link_times, state.link_ids, link_id, link.last_arrives)
    return link_id if link.tail - link.head > link.mask else DONE


@event_loop
def _begin_service(state: State, link: Any, queue: Any, begins: float, came: float, packet: Carried) -> None:
    """Append a packet to the link's ring: when it leaves and when it arrives is known now."""
    slot = _slot(state, link, link.tail)
    _put(slot, packet)
    slot.hops += 1
    slot.departs = begins + slot.bits * link.seconds_per_bit
    slot.arrives = max(link.last_arrives, slot.departs + link.latency - slot.bits * link.ahead_per_bit)
    link.last_departs = slot.departs
    link.last_arrives = slot.arrives
    link.tail += 1
    link.held_bits += slot.bits
    queue.bits += slot.bits
    queue.packet_seconds += slot.departs - came
    queue.bit_seconds += slot.bits * (slot.departs - came)


@event_loop
def _enter_one_of_several(state: State, link_id: int, now: float, packet: Carried) -> int:
    """A packet meets a link with several queues: it is served at once, waits in its queue, or is dropped."""
    link = state.links[link_id]
    flow_id, _, bits, _, service_class, entered = packet
    queue_id = state.queue_of_class[link_id, service_class]
    queue = state.queues[queue_id]
    queue.arrivals += 1
    held, held_bits = queue.tail - queue.head, queue.held_bits
    if link.serving == queue_id and link.last_departs > now:
        held += 1
        held_bits += link.serving_bits
    if held >= link.buffer or held_bits + bits > link.buffer_bits or not link.up:
        queue.drops += 1
        _drop(state, link, flow_id, bits, entered)
        return DONE
    if link.waiting == 0 and link.last_departs <= now:
        enter_idle(state, link, queue_id, bits, now)
        link.serving = queue_id
        link.serving_bits = bits
        _begin_service(state, link, queue, now, now, packet)
        if link.tail - link.head == 1:
            set_leaf(state.link_times, state.link_ids, link_id, link.last_arrives)
        return link_id if link.tail - link.head > link.mask else DONE
    _wait(state, link, queue, now, packet)
    if link.waiting == 1:
        set_leaf(state.link_times, state.link_ids, link_id, _next_event(state, link))
    return state.links.shape[0] + queue_id if queue.tail - queue.head > queue.mask else DONE


@event_loop
def _wait(state: State, link: Any, queue: Any, now: float, packet: Carried) -> None:
    """A packet queues up behind others."""
    slot = _slot(state, queue, queue.tail)
    _put(slot, packet)
    slot.departs = now
    if link.policy == WFQ:
        slot.arrives = stamp(link, queue, slot.bits, now)
    queue.tail += 1
    queue.held_bits += slot.bits
    link.waiting += 1


@event_loop
def _next_event(state: State, link: Any) -> float:
    """The link's leaf: its next arrival, or the end of a service that another waits for."""
    following = _slot(state, link, link.head).arrives if link.head < link.tail else np.inf
    return float(min(following, link.last_departs) if link.waiting > 0 else following)


@event_loop
def _serve_next(state: State, link_id: int) -> int:
    """A service ends while packets wait: begin the next one; return the ring that is full now, or DONE."""
    link = state.links[link_id]
    queue_id = choose(state, link)
    queue = state.queues[queue_id]
    packet = _slot(state, queue, queue.head)
    queue.head += 1
    queue.held_bits -= packet.bits
    link.waiting -= 1
    link.serving = queue_id
    link.serving_bits = packet.bits
    _begin_service(state, link, queue, link.last_departs, packet.departs, _carried(packet))
    set_leaf(state.link_times, state.link_ids, link_id, _next_event(state, link))
    return link_id if link.tail - link.head > link.mask else DONE


@event_loop
def _land(state: State, link_id: int) -> int:
    """The first packet on a link reaches the far end."""
    link = state.links[link_id]
    packet = _slot(state, link, link.head)
    if link.served == link.head:
        link.served += 1
        link.held_bits -= packet.bits
    link.head += 1
    link.packets += 1
    link.octets += (packet.bits + 7) >> 3
    set_leaf(state.link_times, state.link_ids, link_id, _next_event(state, link))
    return _forward(state, link.target, packet.arrives, _carried(packet))


@event_loop
def _turn(state: State, link_id: int) -> int:
    """A link's next event: the end of a service, or an arrival at its far end."""
    link = state.links[link_id]
    if link.waiting > 0 and link.last_departs <= state.link_times[1]:
        return _serve_next(state, link_id)
    return _land(state, link_id)


@event_loop
def _emit(state: State, flow_id: int) -> int:
    """A flow's next event: a change of level, or a packet."""
    flow = state.flows[flow_id]
    now = flow.next_arrival
    if flow.level_until <= now:
        now = flow.level_until
        spend(flow, now)
        flow.state = 1 - flow.state
        enter_level(flow, now)
        set_leaf(state.flow_times, state.flow_ids, flow_id, plan(flow, now))
        return DONE
    if flow.opens:
        flow.opens = 0
    else:
        flow.credit = next_gap(state, flow)
    bits = draw_bits(state, flow)
    flow.sent_packets += 1
    flow.sent_octets += (bits + 7) >> 3
    set_leaf(state.flow_times, state.flow_ids, flow_id, plan(flow, now))
    return _forward(state, flow.source, now, (flow_id, flow.route, bits, 0, flow.service_class, now))


@event_loop
def run(state: State, until: float) -> int:
    """Play all events up to and including ``until``; return DONE, or early with the ring that is full."""
    full = DONE
    while full == DONE:
        if state.link_times[1] <= state.flow_times[1]:
            if state.link_times[1] > until:
                break
            full = _turn(state, state.link_ids[1])
        else:
            if state.flow_times[1] > until:
                break
            full = _emit(state, state.flow_ids[1])
    return full


@event_loop
def reshape_link(
    state: State, link_id: int, seconds_per_bit: float, ahead_per_bit: float, latency: float, now: float
) -> None:
    """Change speed and latency of a link: what is on the wire flies on; what queues leaves at the new speed.

    A backlogged queue works without a break, so all departures in the future scale about now by the same
    factor.
    """
    link = state.links[link_id]
    queue = state.queues[link.serving]
    factor = seconds_per_bit / link.seconds_per_bit
    arrived = now
    departs = 0.0
    for k in range(link.head, link.tail):
        packet = _slot(state, link, k)
        if packet.departs > now:
            later = (packet.departs - now) * (factor - 1.0)
            queue.packet_seconds += later
            queue.bit_seconds += packet.bits * later
            packet.departs = now + (packet.departs - now) * factor
            packet.arrives = max(arrived, packet.departs + latency - packet.bits * ahead_per_bit)
        arrived = packet.arrives
        departs = packet.departs
    link.seconds_per_bit = seconds_per_bit
    link.ahead_per_bit = ahead_per_bit
    link.latency = latency
    link.last_departs = departs
    link.last_arrives = arrived
    set_leaf(state.link_times, state.link_ids, link_id, _next_event(state, link))


@event_loop
def empty_link(state: State, link_id: int, now: float) -> None:
    """A cut cable: everything queued or on the wire is lost."""
    link = state.links[link_id]
    serving = state.queues[link.serving]
    for k in range(link.head, link.tail):
        packet = _slot(state, link, k)
        spared = max(0.0, packet.departs - now)
        serving.packet_seconds -= spared
        serving.bit_seconds -= packet.bits * spared
        _drop(state, link, packet.flow, packet.bits, packet.entered)
    for q in range(link.first_queue, link.first_queue + link.queues):
        queue = state.queues[q]
        for k in range(queue.head, queue.tail):
            packet = _slot(state, queue, k)
            queue.packet_seconds += now - packet.departs
            queue.bit_seconds += packet.bits * (now - packet.departs)
            _drop(state, link, packet.flow, packet.bits, packet.entered)
        queue.head = queue.tail
        queue.held_bits = 0
        queue.finish = 0.0
        queue.deficit = 0.0
    link.granted = 0
    link.waiting = 0
    link.held_bits = 0
    link.head = link.tail
    link.served = link.tail
    link.last_departs = 0.0
    link.last_arrives = 0.0
    set_leaf(state.link_times, state.link_ids, link_id, np.inf)


@event_loop
def occupancy(state: State, now: float, packet_seconds: Any, bit_seconds: Any) -> None:
    """Integrals over time, from 0 to ``now``, of what every queue holds, [Q] each.

    A queue's record adds a packet's whole stay once its departure is known: take off what lies in the future,
    put on what those that wait have spent so far.
    """
    for q in range(state.queues.shape[0]):
        packet_seconds[q] = state.queues[q].packet_seconds
        bit_seconds[q] = state.queues[q].bit_seconds
    for link_id in range(state.links.shape[0]):
        link = state.links[link_id]
        for k in range(link.served, link.tail):
            packet = _slot(state, link, k)
            spared = max(0.0, packet.departs - now)
            packet_seconds[link.serving] -= spared
            bit_seconds[link.serving] -= packet.bits * spared
        for q in range(link.first_queue, link.first_queue + link.queues):
            queue = state.queues[q]
            for k in range(queue.head, queue.tail):
                packet = _slot(state, queue, k)
                packet_seconds[q] += now - packet.departs
                bit_seconds[q] += packet.bits * (now - packet.departs)
