"""Which queue of a link serves next: strict priority, fair queueing, deficit round robin, compiled.

WFQ stamps every packet that comes with F = max(V, F') + bits / share, where F' is the stamp of the packet
before it in its queue and V the virtual time, and serves the smallest stamp first; see VARIANT.

DRR (Shreedhar and Varghese, "Efficient fair queueing using deficit round robin", SIGCOMM 1995): when its turn
comes, a queue with packets gets its quantum on top of what it saved, and sends as long as that lasts. A queue
that runs empty forgets what it saved.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from twin.compiled import event_loop
from twin.scheduling import POLICIES
from twin.simulator_records import State

SP, WFQ, DRR = (POLICIES.index(name) for name in ("SP", "WFQ", "DRR"))
GPS = 4


@event_loop
def stamp(state: State, link: Any, queue: Any, bits: int, now: float) -> float:
    """WFQ: the tag of a packet that comes now."""
    if link.policy == GPS:
        _advance_virtual_time(state, link, now)
    queue.finish = max(link.virtual, queue.finish) + bits / queue.share
    return float(queue.finish)


@event_loop
def _advance_virtual_time(state: State, link: Any, now: float) -> None:
    left = (now - link.virtual_at) / link.seconds_per_bit
    link.virtual_at = now
    while True:
        share = 0.0
        soonest = np.inf
        for q in range(link.first_queue, link.first_queue + link.queues):
            if state.queues[q].finish > link.virtual:
                share += state.queues[q].share
                soonest = min(soonest, state.queues[q].finish)
        if share == 0.0:
            return
        needed = (soonest - link.virtual) * share
        if needed > left:
            link.virtual += left / share
            return
        left -= needed
        link.virtual = soonest


@event_loop
def enter_idle(state: State, link: Any, queue_id: int, bits: int, now: float) -> None:
    """A packet comes to an idle link and is served at once: bring the scheduler to where that leaves it."""
    if link.policy == WFQ:
        for q in range(link.first_queue, link.first_queue + link.queues):
            state.queues[q].finish = 0.0
        link.virtual = bits / state.queues[queue_id].share
        state.queues[queue_id].finish = link.virtual
    elif link.policy == GPS:
        stamp(state, link, state.queues[queue_id], bits, now)
    elif link.policy == DRR:
        state.queues[queue_id].deficit = 0.0
        link.turn = _next_turn(link, queue_id)
        link.granted = 0


@event_loop
def choose(state: State, link: Any) -> int:
    """The queue that serves next; one of them has a packet."""
    if link.policy == SP:
        return _first_waiting(state, link)
    if link.policy == DRR:
        return _next_in_turn(state, link)
    return _smallest_tag(state, link)


@event_loop
def _first_waiting(state: State, link: Any) -> int:
    q = link.first_queue
    while state.queues[q].head == state.queues[q].tail:
        q += 1
    return int(q)


@event_loop
def _smallest_tag(state: State, link: Any) -> int:
    best = -1
    smallest = np.inf
    for q in range(link.first_queue, link.first_queue + link.queues):
        queue = state.queues[q]
        if queue.head < queue.tail:
            tag = state.packets[queue.offset + (queue.head & queue.mask)].arrives
            if best < 0 or tag < smallest:
                smallest = tag
                best = q
    if link.policy == WFQ:
        link.virtual = smallest
    return best


@event_loop
def _next_turn(link: Any, queue_id: int) -> int:
    following = queue_id + 1
    return int(link.first_queue if following == link.first_queue + link.queues else following)


@event_loop
def _next_in_turn(state: State, link: Any) -> int:
    while True:
        q = link.turn
        queue = state.queues[q]
        if queue.head < queue.tail:
            if not link.granted:
                queue.deficit += queue.quantum
                link.granted = 1
            bits = state.packets[queue.offset + (queue.head & queue.mask)].bits
            if bits <= queue.deficit:
                queue.deficit -= bits
                if queue.head + 1 == queue.tail:
                    queue.deficit = 0.0
                    link.turn = _next_turn(link, q)
                    link.granted = 0
                return int(q)
        link.turn = _next_turn(link, q)
        link.granted = 0
