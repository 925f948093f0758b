"""How a link's queues share it: every queue becomes a finite queue of its own, with a slower server.

Theory
------
Queue q with load ρ, mean service s (at full link speed) and variation c becomes M/G/1/K with load x = ρ/R,
service s/R and a stretched variation c', plus a head start A for the packet of another queue that is found in
service. W₀ = Σ ρ s (1 + c)/2 is the mean residual service, W₀ₒ the part of it that other queues cause.

*Strict priority.* R = 1 − σ, σ what higher queues carry. With A = W₀ₒ/(1 − σ)² and
1 + c' = 1 + c + 2W₀ₒ/(s(1 − σ)) the wait is Cobham's W₀/((1 − σ)(1 − σ − ρ)) where nothing is lost
(A. Cobham, "Priority assignment in waiting line problems", Operations Research 2, 1954), and where higher
queues fill the link R goes to what they leave, which is next to nothing: the lower ones starve.

*WFQ and DRR.* R is what the queue would get if it wanted all: weighted max-min shares, the others wanting
their ρ. A = W₀ₒ, and 1 + c' = κ(1 + c) with the one κ for all queues of the link that makes their waits obey
Kleinrock's conservation law Σ ρ W = ρ W₀/(1 − ρ) (L. Kleinrock, "Queueing Systems" II, 1976, section 3.4).
κ is taken at the offered loads, scaled down to MOST together where they are above it, and so stays finite.
"""

from __future__ import annotations

import numpy as np

from twin.compiled import compiled
from twin.network import Floats, Ints
from twin.queueing_finite import blocking, finite_queue

LOAD, SERVICE, SIZE_SCV, SCV, BUFFER = range(
    5
)  # of what is told of a queue; SCV: sizes and arrivals together
BLOCKING, WAIT, WAIT_STD = range(3)  # columns of what follows
STARVED = 1e-3  # share of a link that a queue is given when higher ones fill it
MOST = 0.95
_FIFO, _SP = 0, 1


@compiled
def serve(told: Floats, queue_offsets: Ints, policy: Ints, share: Floats) -> Floats:
    """Blocking, mean wait and its standard deviation (seconds) of every queue, [Q, 3]."""
    follows = np.zeros((told.shape[0], 3))
    for link in range(policy.shape[0]):
        start, stop = queue_offsets[link], queue_offsets[link + 1]
        if stop - start == 1:
            _alone(told, follows, start)
        elif policy[link] == _SP:
            _priority(told, follows, start, stop)
        else:
            _fair(told, follows, start, stop, share)
    return follows


@compiled
def _alone(told: Floats, follows: Floats, q: int) -> None:
    _slowed(told, follows, q, 1.0, 1.0 + told[q, SCV], 0.0)


@compiled
def _slowed(told: Floats, follows: Floats, q: int, rate: float, spread: float, start_s: float) -> None:
    """A queue behind a server of ``rate`` of the link's speed, with 1 + c' = ``spread``."""
    load = told[q, LOAD] / rate
    if load <= 0.0:
        follows[q, WAIT] = follows[q, WAIT_STD] = start_s
        return
    service = told[q, SERVICE] / rate
    blocked = blocking(load, spread - 1.0, told[q, BUFFER])
    wait, deviation = finite_queue(load, spread - 1.0, told[q, BUFFER], blocked)
    follows[q, BLOCKING] = blocked
    follows[q, WAIT] = start_s + wait * service
    follows[q, WAIT_STD] = np.hypot(start_s, deviation * service)


@compiled
def _residual(told: Floats, q: int) -> float:
    return float(told[q, LOAD] * told[q, SERVICE] * (1.0 + told[q, SIZE_SCV]) / 2.0)


@compiled
def _priority(told: Floats, follows: Floats, start: int, stop: int) -> None:
    everything = 0.0
    for q in range(start, stop):
        everything += _residual(told, q)
    # A link cannot be busier than always: residuals of what is offered beyond are not met.
    offered = 0.0
    for q in range(start, stop):
        offered += told[q, LOAD]
    everything /= max(offered, 1.0)
    carried = 0.0
    for q in range(start, stop):
        left = max(1.0 - carried, STARVED)
        others = max(everything - _residual(told, q) / max(offered, 1.0), 0.0)
        spread = 1.0 + told[q, SCV] + 2.0 * others / (told[q, SERVICE] * left)
        _slowed(told, follows, q, left, spread, others / left**2)
        carried += told[q, LOAD] * (1.0 - follows[q, BLOCKING])


@compiled
def _fair(told: Floats, follows: Floats, start: int, stop: int, share: Floats) -> None:
    offered = 0.0
    everything = 0.0
    for q in range(start, stop):
        offered += told[q, LOAD]
        everything += _residual(told, q)
    scale = min(1.0, MOST / max(offered, 1e-300))
    due = scale * offered * scale * everything / (1.0 - scale * offered)
    free = 0.0
    for q in range(start, stop):
        others = scale * (everything - _residual(told, q))
        load = scale * told[q, LOAD]
        rate = greedy_share(told, share, start, stop, q, scale)
        due -= load * others
        free += load * load * told[q, SERVICE] * (1.0 + told[q, SIZE_SCV]) / 2.0 / (rate * (rate - load))
    kappa = due / free if free > 0.0 else 1.0
    for q in range(start, stop):
        others = (everything - _residual(told, q)) / max(offered, 1.0)
        rate = greedy_share(told, share, start, stop, q, 1.0)
        _slowed(told, follows, q, rate, kappa * (1.0 + told[q, SCV]), others)


@compiled
def greedy_share(told: Floats, share: Floats, start: int, stop: int, q: int, scale: float) -> float:
    """What queue q would get if it wanted all, by weighted max-min, the others wanting ``scale``·load."""
    level = 1.0
    for _ in range(stop - start):
        left = 1.0
        weights = share[q]
        for other in range(start, stop):
            if other != q:
                if scale * told[other, LOAD] < level * share[other]:
                    left -= scale * told[other, LOAD]
                else:
                    weights += share[other]
        level = left / weights
    return float(level * share[q])
