"""Who goes ahead of whom at a link, and what each queue may have of it.

Theory
------
Of the work of queue j that a packet of queue q meets or sees arrive, the share θ_jq goes ahead of it;
θ_jq + θ_qj = 1. ½ everywhere is FIFO, 0 and 1 are priorities. The policies are:

*Strict priority.* θ is 0 or 1 (A. Cobham, "Priority assignment in waiting line problems", Operations Research
2, 1954).

*WFQ* as virtual clock (L. Zhang, "VirtualClock", SIGCOMM 1990), which is what the simulator behind the
RouteNet data sets does: the smallest tag F = max(now, F of the packet before) + bits/(share·C) goes first.
Tags lead the time by d_q on average, the mean sojourn in a queue of rate share·C of the queue's own. Waits
then differ by the difference of the d, or by as much as priority can make them differ: θ_jq = 1 − exp(−(d_q −
d_j)/(W_q + W_j))/2 for d_q > d_j.

*DRR* with quanta that last: queue q may send share·C·ROUND_S in its turn, as in the same simulator. Backlogs
below that are served exhaustively; there W_q ∝ 1 − ρ_q (D. Everitt, "Simple approximations for token rings",
IEEE Trans. Communications 34, 1986), which θ_jq = ½ + (ρ_j − ρ_q)(1 − (ρ − ρ_j − ρ_q)/2)/(2ρ) meets exactly
for two queues and within 5 % for three. Backlogs V = ρW beyond the quantum are served in proportion to the
weights: θ_jq/θ_qj = (share_j/(s + V_j))/(share_q/(s + V_q)). How far both quanta outlast their backlogs
blends the two.
"""

from __future__ import annotations

import math

import numpy as np

from twin.compiled import compiled
from twin.network import Floats, Ints
from twin.scheduling import POLICIES

# Columns of what is told of a queue. SIZE_SCV is that of sizes alone, SMOOTHING what regular arrivals leave
# of the wait, SCV all together.
LOAD, SERVICE, SIZE_SCV, SMOOTHING, SCV, BUFFER, BURST_WAIT, BURST_BLOCKING = range(8)
TOLD = 8
BLOCKING, WAIT, WAIT_STD = range(3)  # of what follows
FOLLOWS = 3
STARVED = 1e-3  # share of a link that a queue is given when others fill it
ROUND_S = 1.0  # how long all quanta of a link take together
HORIZON = 10_000.0  # packets: how far the tags of a queue beyond its share run ahead
_SP, _DRR = POLICIES.index("SP"), POLICIES.index("DRR")


@compiled
def is_priority(policy: int) -> bool:
    """Whether the code of a policy is that of SP."""
    return bool(policy == _SP)


@compiled
def is_round_robin(policy: int) -> bool:
    """Whether the code of a policy is that of DRR."""
    return bool(policy == _DRR)


@compiled
def carried(told: Floats, follows: Floats, q: int) -> float:
    """Load that gets in."""
    return float(told[q, LOAD] * (1.0 - follows[q, BLOCKING]))


@compiled
def residual_of(told: Floats, q: int, load: float) -> float:
    """What is left on average, in seconds, of the packet of queue q that is met in service, if any."""
    return float(load * told[q, SERVICE] * (1.0 + told[q, SIZE_SCV]) / 2.0)


@compiled
def totals(told: Floats, start: int, stop: int) -> tuple[float, float, float]:
    """Load offered, W₀, and mean service; a link cannot be busier than always, and W₀ is met accordingly."""
    load, residual, packets = 0.0, 0.0, 0.0
    for q in range(start, stop):
        load += told[q, LOAD]
        residual += residual_of(told, q, told[q, LOAD])
        packets += told[q, LOAD] / told[q, SERVICE]
    return load, residual / max(load, 1.0), load / packets if packets > 0.0 else told[start, SERVICE]


@compiled
def seen_load(told: Floats, follows: Floats, queue_offsets: Ints, policy: Ints, share: Floats) -> Floats:
    """What a queue has to do with, [Q]: the load that is not behind it; all where precedence is even."""
    seen = np.zeros(told.shape[0])
    for link in range(policy.shape[0]):
        start, stop = queue_offsets[link], queue_offsets[link + 1]
        _, _, service = totals(told, start, stop)
        for q in range(start, stop):
            for j in range(start, stop):
                part = 1.0
                if j != q and policy[link] != _DRR:
                    ahead = goes_ahead(told, follows, start, stop, share, policy[link], j, q, service)
                    part = min(2.0 * ahead, 1.0)
                seen[q] += part * told[j, LOAD]
    return seen


@compiled
def goes_ahead(
    told: Floats,
    follows: Floats,
    start: int,
    stop: int,
    share: Floats,
    policy: int,
    j: int,
    q: int,
    service: float,
) -> float:
    """θ_jq; ``service`` is the mean one of the link."""
    if policy == _SP:
        return 1.0 if j < q else 0.0
    if policy == _DRR:
        return _ahead_in_turn(told, follows, start, stop, share, j, q)
    return _ahead_by_tag(told, follows, share, j, q, HORIZON * service)


@compiled
def _ahead_by_tag(told: Floats, follows: Floats, share: Floats, j: int, q: int, horizon_s: float) -> float:
    """θ_jq of virtual clock."""
    lead = _tag_lead(told, follows, share, q, horizon_s) - _tag_lead(told, follows, share, j, horizon_s)
    behind = math.exp(-abs(lead) / max(follows[j, WAIT] + follows[q, WAIT], 1e-300)) / 2.0
    return 1.0 - behind if lead > 0.0 else behind


@compiled
def _tag_lead(told: Floats, follows: Floats, share: Floats, q: int, horizon_s: float) -> float:
    """d of virtual clock: how far tags lead the time.

    The tags are a queue of load x = ρ/share, here reflected Brownian motion with drift x − 1 seen over the
    horizon: x s(1 + c)/(2(1 − x)) for x < 1 and (x − 1)·horizon above, smoothly joined.
    """
    slow = told[q, SERVICE] / share[q]
    x = carried(told, follows, q) / share[q]
    drift = (x - 1.0) * horizon_s
    spread = 2.0 * slow * x * (1.0 + told[q, SIZE_SCV]) * horizon_s
    return float(slow + (drift + math.sqrt(drift**2 + spread)) / 2.0)


@compiled
def _ahead_in_turn(
    told: Floats, follows: Floats, start: int, stop: int, share: Floats, j: int, q: int
) -> float:
    """θ_jq of deficit round robin."""
    busy = 0.0
    for other in range(start, stop):
        busy += carried(told, follows, other)
    rho_j, rho_q = carried(told, follows, j), carried(told, follows, q)
    backlog_j, backlog_q = rho_j * follows[j, WAIT], rho_q * follows[q, WAIT]
    weight_j = share[j] / (told[j, SERVICE] + backlog_j)
    weight_q = share[q] / (told[q, SERVICE] + backlog_q)
    visit_j = _visit(share[j] * ROUND_S, told[j, SERVICE])
    visit_q = _visit(share[q] * ROUND_S, told[q, SERVICE])
    lasts = visit_j / (visit_j + backlog_j) * visit_q / (visit_q + backlog_q)
    turn = 0.5
    if busy > 0.0:
        turn += (rho_j - rho_q) * (1.0 - (busy - rho_j - rho_q) / 2.0) / (2.0 * busy)
    return float(lasts * turn + (1.0 - lasts) * weight_j / (weight_j + weight_q))


@compiled
def _visit(quantum_s: float, service_s: float) -> float:
    """Mean time that a visit lasts when one comes in the middle; less than a packet is none."""
    return quantum_s**2 / (2.0 * (quantum_s + service_s))


@compiled
def greedy_share(told: Floats, follows: Floats, start: int, stop: int, share: Floats, q: int) -> float:
    """What queue q would get if it wanted all, by weighted max-min against what the others carry."""
    level = 1.0
    for _ in range(stop - start):
        left = 1.0
        weights = share[q]
        for other in range(start, stop):
            if other != q:
                if carried(told, follows, other) < level * share[other]:
                    left -= carried(told, follows, other)
                else:
                    weights += share[other]
        level = left / weights
    return float(level * share[q])


@compiled
def fair_loads(told: Floats, follows: Floats, queue_offsets: Ints, policy: Ints, share: Floats) -> Floats:
    """Offered load of every queue as a part of what it would be given if it wanted all, [Q]."""
    parts = np.zeros(told.shape[0])
    for link in range(policy.shape[0]):
        start, stop = queue_offsets[link], queue_offsets[link + 1]
        higher = 0.0
        for q in range(start, stop):
            given = 1.0 - higher
            if policy[link] != _SP:
                given = greedy_share(told, follows, start, stop, share, q)
            parts[q] = told[q, LOAD] / max(given, STARVED)
            higher += carried(told, follows, q)
    return parts
