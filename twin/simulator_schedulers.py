"""Which queue of a link serves next: strict priority, fair queueing, deficit round robin, compiled.

Two of the three leave details open. The choices here are those that reproduce the RouteNet 2022 data set,
made with OMNeT++: the mean delays of its flows agree within the noise of simulation for every policy.

SP: the first queue that is not empty; a packet in service is finished (non-preemptive).

WFQ: the virtual clock (Zhang, "Virtual clock: a new traffic control algorithm for packet switching networks",
SIGCOMM 1990). A packet that comes at t gets the stamp F = max(t, F') + bits / (share · C), where F' is the
stamp of the packet before it in its queue: when it would leave a line of its own. The smallest stamp is
served first. Busy queues share the link by their weights, as in any weighted fair queueing; a queue that used
what others left idle is ahead of its clock and gives way to them for a while.

DRR: Shreedhar and Varghese, "Efficient fair queueing using deficit round robin", SIGCOMM 1995, by the clock
instead of bits. When its turn comes, a queue gets its share of a *round*, so many seconds, on top of what it
saved, and sends as long as that lasts. Its turn ends when the next packet would take longer, or when it is
found empty at the end of a packet; then it forgets what it saved. A packet that comes to an idle link begins
a turn of its queue.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np

from twin.compiled import event_loop
from twin.scheduling import POLICIES
from twin.simulator_records import State

SP, WFQ, DRR = (POLICIES.index(name) for name in ("SP", "WFQ", "DRR"))


@event_loop
def stamp(link: Any, queue: Any, bits: int, now: float) -> float:
    """WFQ: when the packet that comes now would leave if its queue had a line of its own."""
    queue.finish = max(now, queue.finish) + bits * link.seconds_per_bit / queue.share
    return float(queue.finish)


@event_loop
def enter_idle(state: State, link: Any, queue_id: int, bits: int, now: float) -> None:
    """A packet comes to an idle link and is served at once: bring the scheduler to where that leaves it."""
    queue = state.queues[queue_id]
    if link.policy == WFQ:
        stamp(link, queue, bits, now)
    elif link.policy == DRR:
        state.queues[link.turn].deficit = 0.0
        needed = bits * link.seconds_per_bit
        queue.deficit = ceil(needed / queue.quantum) * queue.quantum - needed
        link.turn = queue_id
        link.granted = 1


@event_loop
def choose(state: State, link: Any) -> int:
    """The queue that serves next; one of them has a packet."""
    if link.policy == SP:
        return _first_waiting(state, link)
    if link.policy == WFQ:
        return _smallest_stamp(state, link)
    return _next_in_turn(state, link)


@event_loop
def _first_waiting(state: State, link: Any) -> int:
    q = link.first_queue
    while state.queues[q].head == state.queues[q].tail:
        q += 1
    return int(q)


@event_loop
def _smallest_stamp(state: State, link: Any) -> int:
    best = -1
    smallest = np.inf
    for q in range(link.first_queue, link.first_queue + link.queues):
        queue = state.queues[q]
        if queue.head < queue.tail:
            stamped = state.packets[queue.offset + (queue.head & queue.mask)].arrives
            if stamped < smallest:
                smallest = stamped
                best = q
    return best


@event_loop
def _next_in_turn(state: State, link: Any) -> int:
    while True:
        queue = state.queues[link.turn]
        if queue.head == queue.tail:
            queue.deficit = 0.0
        else:
            if not link.granted:
                queue.deficit += queue.quantum
                link.granted = 1
            bits = state.packets[queue.offset + (queue.head & queue.mask)].bits
            if bits * link.seconds_per_bit <= queue.deficit:
                queue.deficit -= bits * link.seconds_per_bit
                return int(link.turn)
        link.turn += 1
        if link.turn == link.first_queue + link.queues:
            link.turn = link.first_queue
        link.granted = 0
