"""Deficit round robin where a link is asked for more than it can carry: the server polls the queues.

Theory
------
A visit to queue j lasts until the queue is empty or its quantum Q_j is used up, and then the next one is
visited; the visits V_j make a cycle of T = Σ V, of which the A_j = T − V_j are spent elsewhere. All in
seconds, work as the seconds that its transmission takes; the buffer of queue j holds B_j of it.

1. *Visits.* A queue gathers min(B_j, ρ_j A_j) while others are visited. Work then falls by 1 − ρ_j a second,
   so where nothing is lost V_j = ρ_j A_j/(1 − ρ_j), at most Q_j. From a full buffer it takes the mean time in
   which Brownian motion with that drift and variance σ² = ρ_j s_j (1 + c_j), reflected at B_j, comes to
   nothing: h = B/(1 − ρ) − σ²/(2(1 − ρ)²)·(1 − exp(−2(1 − ρ)B/σ²)), finite for ρ ≥ 1 too (D. R. Cox and
   H. D. Miller, "The theory of stochastic processes", 1965, section 5.7). With Σ ρ > 1 the visits come to
   rest at lengths above zero.
2. *A queue that loses nothing* waits (1 − ρ_j)·T/2 for the cycle and, of the randomness, its part of what
   exhaustive polling makes wait: (1 − ρ_j)·ρ W₀/((1 − ρ) Σ ρ_i(1 − ρ_i)), sums over such queues (pseudo-
   conservation: O. J. Boxma and W. P. Groenendijk, J. Applied Probability 24, 1987; its parts: D. Everitt,
   IEEE Trans. Communications 34, 1986). What gathers may outlast the quantum and wait for the next visit.
   Over many cycles that is a queue of load x = ρ_j/R served at R_j = Q_j/(Q_j + A_j), and its wait is added
   as far as that happens, exp(−(1 − x)² Q_j/(2x s_j(1 + c_j))). :mod:`twin.queueing_sharing` makes of that
   what a finite buffer leaves.
3. *A queue that loses*: what it keeps is V_j/(ρ_j T), and its wait follows by Little's law from its work over
   a cycle: rising to B_j, staying there, and falling while it is visited.
"""

from __future__ import annotations

import math

import numpy as np

from twin.compiled import compiled
from twin.network import Floats

# Columns of what is told of a queue.
POLLED_LOAD, POLLED_SERVICE, POLLED_SPREAD, POLLED_BUFFER, POLLED_QUANTUM = range(5)
POLLED = 5
# Columns of what follows: share lost (of a queue that loses nothing −1), wait, its deviation, and the rate
# that it would be served at if it wanted all.
LOST, POLLED_WAIT, POLLED_STD, POLLED_RATE = range(4)
LOSES = 1.001  # offered ÷ kept, from here on
CYCLES = 100
SETTLED = 1e-6
NO_DRIFT = 1e-3
OUTLAST = 0.5  # fitted to simulated links


@compiled
def poll(told: Floats, idle: float) -> Floats:
    """What follows for the queues of one link from what is told of them [Q, POLLED], [Q, 4], when it is
    ``idle`` for that share of the time all the same."""
    queues = told.shape[0]
    visits = _visits(told)
    cycle = visits.sum()
    follows = np.zeros((queues, 4))
    for q in range(queues):
        load, quantum, away = told[q, POLLED_LOAD], told[q, POLLED_QUANTUM], cycle - visits[q]
        follows[q, LOST] = -1.0
        follows[q, POLLED_WAIT] = (1.0 - load) * cycle / 2.0
        follows[q, POLLED_STD] = away / math.sqrt(12.0)
        follows[q, POLLED_RATE] = quantum / (quantum + away)
        if load * cycle > LOSES * visits[q] and visits[q] > 0.0:
            follows[q, LOST] = max(1.0 - (1.0 - idle) * visits[q] / (load * cycle), 0.0)
            follows[q, POLLED_WAIT] = _losing_wait(told, q, visits[q], away)
    _add_randomness(told, follows)
    for q in range(queues):
        if follows[q, LOST] < 0.0:
            follows[q, POLLED_WAIT] += _limited_wait(told, q, follows[q, POLLED_RATE])
    return follows


@compiled
def _visits(told: Floats) -> Floats:
    """How long the visits last, [Q]; from full buffers downwards."""
    queues = told.shape[0]
    full = np.zeros(queues)
    for q in range(queues):
        full[q] = min(told[q, POLLED_QUANTUM], _emptying(told, q))
    visits = full.copy()
    for _ in range(CYCLES):
        cycle, change = visits.sum(), 0.0
        for q in range(queues):
            load, away = told[q, POLLED_LOAD], cycle - visits[q]
            new = full[q]
            if load < 1.0 and load * away < told[q, POLLED_BUFFER]:
                new = min(new, load * away / (1.0 - load))
            change = max(change, abs(new - visits[q]))
            visits[q] = new
        if change <= SETTLED * cycle:
            break
    return visits


@compiled
def _bend(told: Floats, q: int) -> tuple[float, float]:
    """Drift 1 − ρ, away from zero, and a = 2(1 − ρ)/σ²."""
    load = told[q, POLLED_LOAD]
    variance = max(load * told[q, POLLED_SERVICE] * told[q, POLLED_SPREAD], 1e-300)
    drift = 1.0 - load
    least = NO_DRIFT * variance / (2.0 * told[q, POLLED_BUFFER])
    if abs(drift) < least:
        drift = least
    return drift, 2.0 * drift / variance


@compiled
def _emptying(told: Floats, q: int) -> float:
    """h of the theory."""
    drift, bend = _bend(told, q)
    buffer = told[q, POLLED_BUFFER]
    return float((buffer - (1.0 - math.exp(min(-bend * buffer, 100.0))) / bend) / drift)


@compiled
def _level(told: Floats, q: int) -> float:
    """Mean work on the way from a full buffer to none: its density is (1 − exp(−ax)) on 0 … B."""
    _, bend = _bend(told, q)
    buffer = told[q, POLLED_BUFFER]
    turn = bend * buffer
    if abs(turn) < 0.01:
        return float(2.0 * buffer / 3.0)
    left = math.exp(min(-turn, 100.0))
    time = buffer - (1.0 - left) / bend
    return float((buffer**2 / 2.0 - (1.0 - left * (1.0 + turn)) / bend**2) / time)


@compiled
def _losing_wait(told: Floats, q: int, visit: float, away: float) -> float:
    load, buffer = told[q, POLLED_LOAD], told[q, POLLED_BUFFER]
    emptied = min(visit / _emptying(told, q), 1.0)
    rest = buffer * (1.0 - emptied)
    rises = min((buffer - rest) / load, away)
    level = _level(told, q)
    level += (buffer - level) * (1.0 - emptied)
    held = (rest + buffer) / 2.0 * rises + buffer * (away - rises) + level * visit
    return float(max(held / visit - told[q, POLLED_SERVICE] / 2.0, 0.0))


@compiled
def _add_randomness(told: Floats, follows: Floats) -> None:
    busy, residual, parts = 0.0, 0.0, 0.0
    for q in range(told.shape[0]):
        if follows[q, LOST] < 0.0:
            load = told[q, POLLED_LOAD]
            busy += load
            parts += load * (1.0 - load)
            residual += load * told[q, POLLED_SERVICE] * told[q, POLLED_SPREAD] / 2.0
    if parts <= 0.0 or busy >= 1.0:
        return
    for q in range(told.shape[0]):
        if follows[q, LOST] < 0.0:
            more = (1.0 - told[q, POLLED_LOAD]) * busy / (1.0 - busy) * residual / parts
            follows[q, POLLED_WAIT] += more
            follows[q, POLLED_STD] = math.hypot(follows[q, POLLED_STD], more)


@compiled
def _limited_wait(told: Floats, q: int, rate: float) -> float:
    spread = told[q, POLLED_SERVICE] * told[q, POLLED_SPREAD]
    x = min(told[q, POLLED_LOAD] / rate, 0.999)
    if x <= 0.0:
        return 0.0
    happens = math.exp(-OUTLAST * (1.0 - x) ** 2 * told[q, POLLED_QUANTUM] / (x * spread))
    return float(happens * x * spread / (2.0 * (1.0 - x) * rate))
