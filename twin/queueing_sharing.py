"""How a link's queues share it: every queue becomes a finite queue of its own, with a slower server.

Theory
------
W₀ = Σ ρ s (1 + c)/2 is the mean residual of the packet in service. Whoever arrives at queue q waits for it,
for his own queue, and for that share θ_jq of every other queue's work, met or arriving while he waits, that
goes ahead of him:

    W_q = W₀ + ρ_q W_q + Σ_j θ_jq ρ_j (W_j + W_q),      θ_jq + θ_qj = 1.

Summed with weights ρ this is Kleinrock's conservation law Σ ρ W = ρ W₀/(1 − ρ) (L. Kleinrock, "Queueing
Systems" II, 1976, section 3.4) for any θ. :mod:`twin.queueing_precedence` has θ for every policy.

Finite buffers: ρ counts what gets in. R_q is what queue q would get if it wanted all (weighted max-min
against what the others carry), x = ρ_q/R_q. The queue is M/G/1/K with load x, service s/R and 1 + c' = 1 + c
+ 2AR/s behind a head start A, chosen so that its wait is W_q where nothing is lost; if the queue alone would
wait longer than W_q, 1 + c' is scaled down instead. Both fade as the queue fills its own buffer. Priority has
R = 1 − σ and A = W₀ₒ/(1 − σ)² in closed form, σ what higher queues carry and W₀ₒ the residual of what is
carried without the queue's own part; where higher queues fill the link the lower ones starve.

Who wants more than his part, *WFQ*: the tags of a greedy queue run ahead without end, so a queue within its
part is served as if the greedy ones were behind it, at R plus what those are given. A queue offered more than
R, too little to be full of, is now within its part and now beyond: of what it must lose, 1 − R/ρ, as much in
either state as makes the sum right. *DRR* becomes polling, :mod:`twin.queueing_polling`.
"""

from __future__ import annotations

import math

import numpy as np

from twin.compiled import compiled
from twin.network import Floats, Ints
from twin.queueing_finite import blocking, finite_queue
from twin.queueing_polling import (
    LOST,
    POLLED,
    POLLED_BUFFER,
    POLLED_LOAD,
    POLLED_QUANTUM,
    POLLED_RATE,
    POLLED_SERVICE,
    POLLED_SPREAD,
    POLLED_STD,
    POLLED_WAIT,
    poll,
)
from twin.queueing_precedence import (
    BLOCKING,
    BUFFER,
    BURST_BLOCKING,
    BURST_WAIT,
    LOAD,
    ROUND_S,
    SCV,
    SERVICE,
    SIZE_SCV,
    SMOOTHING,
    STARVED,
    WAIT,
    WAIT_STD,
    carried,
    goes_ahead,
    greedy_share,
    is_priority,
    is_round_robin,
    residual_of,
    totals,
)
from twin.scheduling import POLICIES

GREEDY_FROM = 0.1  # so much more than its part makes a queue a greedy one
ROUNDS = 60  # at most, of the waits of one link
TOLERANCE = 1e-4
POLLING_FROM = 0.1  # load beyond all a link can carry from which on DRR is polling, and nothing else
_WFQ, _DRR = POLICIES.index("WFQ"), POLICIES.index("DRR")


@compiled
def serve(told: Floats, queue_offsets: Ints, policy: Ints, share: Floats, before: Floats) -> Floats:
    """Blocking, mean wait and its standard deviation (seconds) of every queue, [Q, 3].

    ``before`` [Q, 3] is where to start from: what followed from nearly the same, or zeros.
    """
    follows = before.copy()
    for link in range(policy.shape[0]):
        start, stop = queue_offsets[link], queue_offsets[link + 1]
        if stop - start == 1:
            _slowed(told, follows, start, 1.0, 1.0 + told[start, SCV], 0.0)
            _burst(told, follows, start)
        elif is_priority(policy[link]):
            _priority(told, follows, start, stop)
        else:
            _fair(told, follows, start, stop, share, is_round_robin(policy[link]))
    return follows


@compiled
def _slowed(told: Floats, follows: Floats, q: int, rate: float, spread: float, start_s: float) -> None:
    """A queue behind a server of ``rate`` of the link's speed, with 1 + c' = ``spread``."""
    load = told[q, LOAD] / rate
    service = told[q, SERVICE] / rate
    blocked, wait, deviation = 0.0, 0.0, 0.0
    if load > 0.0:
        blocked = blocking(load, spread - 1.0, told[q, BUFFER])
        wait, deviation = finite_queue(load, spread - 1.0, told[q, BUFFER], blocked)
    follows[q, BLOCKING] = blocked
    follows[q, WAIT] = start_s + wait * service
    follows[q, WAIT_STD] = math.hypot(start_s, deviation * service)


@compiled
def _burst(told: Floats, follows: Floats, q: int) -> None:
    """What wavering rates make of a queue."""
    follows[q, BLOCKING] += (1.0 - follows[q, BLOCKING]) * told[q, BURST_BLOCKING]
    follows[q, WAIT] *= told[q, BURST_WAIT]
    follows[q, WAIT_STD] *= told[q, BURST_WAIT]


@compiled
def _priority(told: Floats, follows: Floats, start: int, stop: int) -> None:
    residual, left = 0.0, 1.0  # of what is carried: the lowest queues lose what is too much
    for q in range(start, stop):
        part = min(told[q, LOAD], left)
        left -= part
        residual += residual_of(told, q, part)
    higher = 0.0
    for q in range(start, stop):
        left = max(1.0 - higher, STARVED)
        own = residual_of(told, q, min(told[q, LOAD], left))
        others = max(residual - own, 0.0) * told[q, SMOOTHING]
        spread = 1.0 + told[q, SCV] + 2.0 * others / (told[q, SERVICE] * left)
        empties = 1.0 - min(told[q, LOAD] / left, 1.0) ** told[q, BUFFER]
        _slowed(told, follows, q, left, spread, empties * others / left**2)
        _burst(told, follows, q)
        higher += told[q, LOAD] * (1.0 - follows[q, BLOCKING])


@compiled
def _fair(told: Floats, follows: Floats, start: int, stop: int, share: Floats, drr: bool) -> None:
    """Waits of WFQ and DRR queues, iterated: each queue in turn, given the others, halfway."""
    _, residual, service = totals(told, start, stop)
    if residual <= 0.0:
        follows[start:stop, :] = 0.0
        return
    for q in range(start, stop):
        if follows[q, WAIT] <= 0.0:
            follows[q, WAIT] = residual
    for _ in range(ROUNDS):
        change = 0.0
        for q in range(start, stop):
            blocked, wait = follows[q, BLOCKING], follows[q, WAIT]
            _fair_queue(told, follows, start, stop, q, share, drr, service)
            change = max(change, abs(follows[q, WAIT] - wait) / (wait + told[q, SERVICE]))
            follows[q, BLOCKING] = (follows[q, BLOCKING] + blocked) / 2.0
            follows[q, WAIT] = (follows[q, WAIT] + wait) / 2.0
        if change < TOLERANCE:
            break
    for q in range(start, stop):
        _burst(told, follows, q)
    if drr:
        _overloaded_turns(told, follows, start, stop, share)


@compiled
def _overloaded_turns(told: Floats, follows: Floats, start: int, stop: int, share: Floats) -> None:
    """DRR beyond what the link can carry: the more, the more it is polling."""
    offered, _, service = totals(told, start, stop)
    part = min((offered - 1.0) / POLLING_FROM, 1.0) * _holds(told, start, stop)
    if part <= 0.0:
        return
    polled = np.zeros((stop - start, POLLED))
    for q in range(start, stop):
        if told[q, LOAD] == offered:  # nobody else to visit
            return
        k = q - start
        polled[k, POLLED_LOAD], polled[k, POLLED_SERVICE] = told[q, LOAD], told[q, SERVICE]
        polled[k, POLLED_SPREAD] = max((1.0 + told[q, SIZE_SCV]) * told[q, SMOOTHING], STARVED)
        polled[k, POLLED_BUFFER] = told[q, BUFFER] * told[q, SERVICE]
        polled[k, POLLED_QUANTUM] = share[q] * ROUND_S
    room = polled[:, POLLED_BUFFER].sum() / service
    turns = poll(polled, max(1.0 - offered * (1.0 - blocking(offered, 0.0, room)), 0.0))
    for q in range(start, stop):
        blocked, wait, deviation = follows[q, BLOCKING], follows[q, WAIT], follows[q, WAIT_STD]
        turn = turns[q - start]
        follows[q, BLOCKING], follows[q, WAIT] = turn[LOST], turn[POLLED_WAIT]
        follows[q, WAIT_STD] = turn[POLLED_STD]
        if turn[LOST] < 0.0:
            follows[q, BLOCKING] = 0.0
            _served_at(told, follows, q, max(turn[POLLED_RATE], STARVED), turn[POLLED_WAIT], math.inf)
        follows[q, BLOCKING] = blocked + part * (follows[q, BLOCKING] - blocked)
        follows[q, WAIT] = wait + part * (follows[q, WAIT] - wait)
        follows[q, WAIT_STD] = deviation + part * (follows[q, WAIT_STD] - deviation)


@compiled
def _fair_queue(
    told: Floats,
    follows: Floats,
    start: int,
    stop: int,
    q: int,
    share: Floats,
    drr: bool,
    service: float,
) -> None:
    policy = _DRR if drr else _WFQ
    fair = max(greedy_share(told, follows, start, stop, share, q), STARVED)
    wait, room = _lossless_wait(told, follows, start, stop, share, policy, q, service, False)
    _served_at(told, follows, q, fair, wait, room)
    if drr:
        return
    level, load = fair / share[q], told[q, LOAD]
    excess = max(1.0 - fair / load, 0.0) if load > 0.0 else 0.0
    spare = _spare(told, follows, start, stop, share, q, level) * _holds(told, start, stop)
    if spare <= 0.0 or excess >= follows[q, BLOCKING]:
        return
    slow = follows[q].copy()
    wait, room = _lossless_wait(told, follows, start, stop, share, policy, q, service, True)
    _served_at(told, follows, q, fair + spare, wait, room)
    more = slow[BLOCKING] - follows[q, BLOCKING]
    if more > 0.0 and excess > follows[q, BLOCKING]:
        part = (excess - follows[q, BLOCKING]) / more
        follows[q] += part * (slow - follows[q])


@compiled
def _lossless_wait(
    told: Floats,
    follows: Floats,
    start: int,
    stop: int,
    share: Floats,
    policy: int,
    q: int,
    service: float,
    spared: bool,
) -> tuple[float, float]:
    """W_q, and the seconds that the others' buffers hold; ``spared``: nobody who gets less than he wants
    goes ahead."""
    left, room = 1.0 - carried(told, follows, q), 0.0
    met = residual_of(told, q, carried(told, follows, q))
    for other in range(start, stop):
        theirs = carried(told, follows, other)
        if other != q:
            met += residual_of(told, other, theirs)
            room += told[other, BUFFER] * told[other, SERVICE]
        spare_q = spared and told[other, LOAD] > greedy_share(told, follows, start, stop, share, other)
        if other != q and not spare_q:
            ahead = goes_ahead(told, follows, start, stop, share, policy, other, q, service)
            met += ahead * theirs * follows[other, WAIT] / told[other, SMOOTHING]
            left -= ahead * theirs
    return met * told[q, SMOOTHING] / max(left, STARVED), room


@compiled
def _served_at(told: Floats, follows: Floats, q: int, rate: float, wait: float, room: float) -> None:
    """A queue that waits ``wait`` where nothing is lost, when its backlog is served at ``rate``."""
    busy = min(carried(told, follows, q) / rate, 1.0 - STARVED)
    spread = 1.0 + told[q, SCV]
    alone = told[q, SERVICE] / rate * busy * spread / 2.0 / (1.0 - busy)
    full = min(told[q, LOAD] / rate, 1.0)
    head_start = min((1.0 - full) * max(wait - alone, 0.0), room / rate)
    if wait < alone:
        part = wait / alone
        spread *= part + (1.0 - part) * full ** (2.0 * told[q, BUFFER])
    _slowed(told, follows, q, rate, spread + 2.0 * head_start * rate / told[q, SERVICE], head_start)
    # Behind a full queue of its own a packet waits for the others' turns once more, as the first in it.
    follows[q, WAIT] += full ** told[q, BUFFER] * told[q, SERVICE] * (1.0 / rate - 1.0)


@compiled
def _holds(told: Floats, start: int, stop: int) -> float:
    """0 where a queue has room for the packet in service alone and so no turn to wait for; else 1."""
    return float(min(max((told[start:stop, BUFFER].min() - 1.0) / 3.0, 0.0), 1.0))


@compiled
def _spare(
    told: Floats, follows: Floats, start: int, stop: int, share: Floats, q: int, level: float
) -> float:
    """What those others are given of the link that want more than ``level`` of their share."""
    spare = 0.0
    for other in range(start, stop):
        part = level * share[other]
        if other != q and told[other, LOAD] > part:
            greedy = min((told[other, LOAD] / part - 1.0) / GREEDY_FROM, 1.0)
            spare += greedy * min(carried(told, follows, other), part)
    return spare
