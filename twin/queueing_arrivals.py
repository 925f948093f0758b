"""How regular, how smoothed and how bursty the arrivals at a queue are, beyond Poisson.

Theory
------
*Inlets.* QNA (W. Whitt, "The queueing network analyzer", Bell System Technical Journal 62, 1983): what a link
of load ρ sends has c_d² = 1 + (1 − ρ²)(c_a² − 1) + ρ²(c_s² − 1), the part p of it that goes on to one next
link 1 + p(c_d² − 1), and a link gets the mean of its inlets, weighted by packets. Packets of one previous
link come one after the other, so that few inlets mean little queueing.

*Gaps.* A flow with squared variation g of its gaps is regular only over times longer than a gap: the index of
dispersion of arrivals and services is (1 + c_s²)(1 − a·min(λt, 1)), with a = Σ y(1 − g)/(1 + c_s²) over the
flows' shares y, and λ the rate of one. Spitzer's identity E W = ∫ E[X(t)⁺]/t dt for Gaussian input X says
which times matter. With κ = λ s ρ(1 + c_s²)/(1 − ρ)² the wait falls by a·h, where h = E[min(κZ², 1)], Z
standard normal, for small a, and h = 1 − √π y exp(y²) erfc(y), y = 1/√(2κ), for a = 1, a Brownian bridge; in
between a part a of the second counts. Besides, packets of regular flows do not meet their own kind but only
the load of others, which takes a share L = Σ y²(1 − g)/(1 − ρ) of the wait; where 1 − ah of it is left, L(1 −
ah)².

*Rates.* Flows whose rate wavers (variance Σ λ_f² scv_f, correlation time τ) are taken as M on-off sources
that share mean, variance and τ (B. Maglaris et al., "Performance models of statistical multiplexing in packet
video communications", IEEE Trans. Communications 36, 1988), and the queue as M/M/1/k in that random
environment, k being Smith's stretched buffer. It is solved exactly, level by level; the ratio of its wait
to that of plain M/M/1/k and what it blocks beyond that correct the queue. Slow bursts act as a mix of steady
loads, fast ones as more variation, and no burst is worse than the buffer lets it be. What wavers is the load
against what others leave of the link: x = ρ/R with relative variance Var(ρ)/ρ² + Σ Var(ρ_other)/R².
"""

from __future__ import annotations

import math

import numpy as np

from twin.compiled import compiled
from twin.network import Floats, Ints
from twin.queueing_precedence import (
    BUFFER,
    BURST_BLOCKING,
    BURST_WAIT,
    LOAD,
    SCV,
    SERVICE,
    STARVED,
    carried,
    goes_ahead,
    greedy_share,
    is_priority,
    is_round_robin,
    totals,
)

SOURCES = 2  # M: three states meet mean, variance, and no negative rate
DROWNED = 4.0  # load from which on a queue is full whatever its arrivals do
STEADY = 1e-4  # relative variance of the load below which nothing wavers
CLOSEST = 1e-3  # to saturation: from there on all times matter
SMOOTHINGS = 20  # repetitions at most
SETTLED = 1e-4
LEVELS = 400  # of k; larger buffers are filled in larger steps


@compiled
def gap_excess(
    load: Floats, seen: Floats, pps: Floats, spread: Floats, regular: Floats, unlike: Floats, pairs: Floats
) -> Floats:
    """c_a² − 1 from the gaps of the flows of a link, for a queue that has to do with ``seen`` of its
    ``load``.

    [Q], all of the queue's link but ``seen``: ``spread`` = 1 + c_s², ``regular`` = Σ λ(1 − g), ``unlike`` =
    Σ λ|1 − g|, ``pairs`` = Σ λ²|1 − g|.
    """
    excess = np.zeros(pps.shape[0])
    for q in range(pps.shape[0]):
        if unlike[q] > 0.0:
            spare = max(1.0 - seen[q], CLOSEST)
            rate = pairs[q] / unlike[q]
            kappa = rate * load[q] / pps[q] * seen[q] * spread[q] / spare**2
            part = regular[q] / pps[q] / spread[q]
            bridge = _bridge(kappa)
            felt = part * ((1.0 - part) * _first_order(kappa) + part * (1.0 - bridge))
            apart = min(rate / pps[q] * seen[q] / load[q] / spare, 1.0) * part * spread[q]
            excess[q] = -spread[q] * (felt + apart * (1.0 - felt) ** 2)
    return excess


@compiled
def _first_order(kappa: float) -> float:
    """E[min(κZ², 1)]."""
    b = 1.0 / math.sqrt(max(kappa, 1e-12))
    density = math.exp(-b * b / 2.0) / math.sqrt(2.0 * math.pi)
    return kappa * (math.erf(b / math.sqrt(2.0)) - 2.0 * b * density) + math.erfc(b / math.sqrt(2.0))


@compiled
def _bridge(kappa: float) -> float:
    """√π y exp(y²) erfc(y) for y = 1/√(2κ); beyond y = 5 its expansion."""
    y = 1.0 / math.sqrt(2.0 * max(kappa, 1e-12))
    if y > 5.0:
        return 1.0 - 1.0 / (2.0 * y * y) + 3.0 / (4.0 * y**4)
    return math.sqrt(math.pi) * y * math.exp(y * y) * math.erfc(y)


@compiled
def inlet_excess(
    inlet_offsets: Ints,
    inlet_link: Ints,
    came: Floats,
    pps: Floats,
    carried: Floats,
    busy: Floats,
    spread: Floats,
    own: Floats,
) -> Floats:
    """c_a² − 1 of every link, [L], from what its inlets send.

    ``came`` [I] packets/s from every inlet; of every link [L]: ``pps`` offered, packets/s ``carried``,
    ``busy`` ρ, ``spread`` 1 + c_s², and ``own`` what its flows alone make of c_a² − 1. What links send
    depends on what they get, so this is repeated.
    """
    links = pps.shape[0]
    excess = np.zeros(links)  # c_a² − 1
    for _ in range(SMOOTHINGS):
        change = 0.0
        for link in range(links):
            new = 0.0
            if pps[link] > 0.0:
                for slot in range(inlet_offsets[link], inlet_offsets[link + 1]):
                    last = inlet_link[slot]
                    if came[slot] > 0.0 and carried[last] > 0.0:
                        sent = (1.0 - busy[last] ** 2) * (excess[last] + own[last])
                        sent += busy[last] ** 2 * (spread[last] - 2.0)
                        new += came[slot] ** 2 / (pps[link] * carried[last]) * sent
            change = max(change, abs(new - excess[link]))
            excess[link] = new
        if change < SETTLED:
            break
    return excess


@compiled
def set_bursts(
    told: Floats,
    follows: Floats,
    queue_offsets: Ints,
    policy: Ints,
    share: Floats,
    variance: Floats,
    memory: Floats,
) -> None:
    """Fill in BURST_WAIT and BURST_BLOCKING of ``told``.

    ``variance`` [Q] is that of a queue's load, ``memory`` [Q] the same times its correlation time.
    """
    work = np.empty((LEVELS + 2, SOURCES + 1, SOURCES + 1))
    for link in range(policy.shape[0]):
        start, stop = queue_offsets[link], queue_offsets[link + 1]
        if variance[start:stop].sum() > 0.0:
            for q in range(start, stop):
                if is_round_robin(policy[link]):
                    load = told[start:stop, LOAD].sum()
                    wavers = variance[start:stop].sum()
                    lasts = memory[start:stop].sum() / wavers
                    _set_burst(told, q, load, 1.0, wavers / load**2, lasts, work)
                elif told[q, LOAD] > 0.0:
                    _burst_of(told, follows, start, stop, policy[link], share, variance, memory, q, work)


@compiled
def _burst_of(
    told: Floats,
    follows: Floats,
    start: int,
    stop: int,
    policy: int,
    share: Floats,
    variance: Floats,
    memory: Floats,
    q: int,
    work: Floats,
) -> None:
    rate = 1.0
    wavers = variance[q] / told[q, LOAD] ** 2
    lasts = memory[q] / told[q, LOAD] ** 2
    _, _, service = totals(told, start, stop)
    ahead = np.zeros(stop - start)
    for other in range(start, stop):
        if other != q:
            ahead[other - start] = goes_ahead(told, follows, start, stop, share, policy, other, q, service)
            rate -= ahead[other - start] * carried(told, follows, other)
    if not is_priority(policy):
        fair = greedy_share(told, follows, start, stop, share, q)
        rate = min(rate, fair) if told[q, LOAD] > fair else rate
    rate = max(rate, STARVED)
    for other in range(start, stop):
        wavers += variance[other] * (ahead[other - start] / rate) ** 2
        lasts += memory[other] * (ahead[other - start] / rate) ** 2
    if wavers > 0.0:
        _set_burst(told, q, told[q, LOAD] / rate, rate, wavers, lasts / wavers, work)


@compiled
def _set_burst(
    told: Floats, q: int, load: float, rate: float, wavers: float, lasts_s: float, work: Floats
) -> None:
    if wavers < STEADY or load > DROWNED:
        return
    spread = max(1.0 + told[q, SCV], 0.1)
    r = math.sqrt(load) * (spread - 2.0)
    k = max((2.0 * told[q, BUFFER] + r) / max(2.0 + r, 0.1), 1.0)
    step = max(k / LEVELS, 1.0)
    time = lasts_s * rate / (told[q, SERVICE] * spread / 2.0 * step)
    wait, lost = in_environment(load, wavers, time, k / step, work)
    steady_wait, steady_lost = _steady(load, k / step)
    told[q, BURST_WAIT] = wait / steady_wait if steady_wait > 0.0 else 1.0
    told[q, BURST_BLOCKING] = max(lost - steady_lost, 0.0)


@compiled
def _steady(load: float, k: float) -> tuple[float, float]:
    """M/M/1/k, its last level partial: mean wait in service times, share blocked."""
    top = math.ceil(k)
    partial = k - (top - 1.0)
    weight, total, number, lost = 1.0, 0.0, 0.0, 0.0
    if load > 1.0:  # against overflow: the last level weighs about one
        weight = max(load ** -float(top), 1e-250)
    for level in range(top + 1):
        total += weight
        number += level * weight
        if level == top - 1:
            lost += weight * (1.0 - partial)
            weight *= load * partial
        elif level == top:
            lost += weight
        else:
            weight *= load
    lost /= total
    return number / total / (load * (1.0 - lost)) - 1.0, lost


@compiled
def _environment(load: float, wavers: float, time: float) -> tuple[Floats, Floats]:
    """Arrivals in every state, [M + 1], and the rates from state to state, [M + 1, M + 1]."""
    states = SOURCES + 1
    on = min(0.5, 1.0 / (1.0 + SOURCES * wavers))
    swing = load * math.sqrt(wavers / (SOURCES * on * (1.0 - on)))
    arrive = np.empty(states)
    turn = np.zeros((states, states))
    for m in range(states):
        arrive[m] = load + swing * (m - SOURCES * on)
        if m < SOURCES:
            turn[m, m + 1] = (SOURCES - m) * on / time
        if m > 0:
            turn[m, m - 1] = m * (1.0 - on) / time
        turn[m, m] = -turn[m].sum()
    return arrive, turn


@compiled
def in_environment(load: float, wavers: float, time: float, k: float, work: Floats) -> tuple[float, float]:
    """M/M/1/k, its load modulated by SOURCES on-off sources: mean wait in service times, share blocked.

    R_n = Λ_n(μ + Λ − Q − R_{n+1}μ)⁻¹ takes the probabilities of level n − 1 to those of level n.
    """
    arrive, turn = _environment(load, wavers, time)
    states = arrive.shape[0]
    top = math.ceil(k)
    partial = k - (top - 1.0)
    block = np.empty((states, states))
    for level in range(top, 0, -1):
        for i in range(states):
            for j in range(states):
                block[i, j] = -turn[i, j] - (work[level + 1, i, j] if level < top else 0.0)
            block[i, i] += 1.0
            if level < top:
                block[i, i] += arrive[i] * (partial if level == top - 1 else 1.0)
        _invert(block)
        for i in range(states):
            for j in range(states):
                work[level, i, j] = arrive[i] * (partial if level == top else 1.0) * block[i, j]
    for i in range(states):  # level 0: π₀(Q − Λ + R₁μ) = 0, one equation replaced by Σ π₀ = 1
        for j in range(states):
            block[j, i] = turn[i, j] + work[1, i, j]
        block[i, i] -= arrive[i] * (partial if top == 1 else 1.0)
    block[states - 1, :] = 1.0
    _invert(block)
    return _summed(load, arrive, block[:, states - 1].copy(), work, top, partial)


@compiled
def _summed(
    load: float, arrive: Floats, level_of: Floats, work: Floats, top: int, partial: float
) -> tuple[float, float]:
    states = arrive.shape[0]
    total, number, lost = 0.0, 0.0, 0.0
    following = np.empty(states)
    for level in range(top + 1):
        if level > 0:
            for j in range(states):
                following[j] = 0.0
                for i in range(states):
                    following[j] += level_of[i] * work[level, i, j]
            level_of[:] = following
        for i in range(states):
            total += level_of[i]
            number += level * level_of[i]
            if level == top:
                lost += level_of[i] * arrive[i]
            elif level == top - 1:
                lost += level_of[i] * arrive[i] * (1.0 - partial)
    lost /= total * load
    return number / total / (load * (1.0 - lost)) - 1.0, lost


@compiled
def _invert(matrix: Floats) -> None:
    """Gauss-Jordan in place; its matrices are diagonally dominant and need no pivots."""
    n = matrix.shape[0]
    for i in range(n):
        pivot = 1.0 / matrix[i, i]
        matrix[i, i] = 1.0
        for j in range(n):
            matrix[i, j] *= pivot
        for r in range(n):
            if r != i:
                factor = matrix[r, i]
                matrix[r, i] = 0.0
                for j in range(n):
                    matrix[r, j] -= factor * matrix[i, j]
