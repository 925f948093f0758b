"""One finite queue, M/G/1/K by two moments: blocking, wait and its spread, in units of the service time.

K counts packets, the one in service included, and may be fractional: a buffer of bits holds K = bits ÷ mean
packet on average. c is the squared coefficient of variation of the service time, or what stands for it when
arrivals are burstier or smoother than Poisson.
"""

from __future__ import annotations

import math

import numpy as np

from twin.compiled import compiled
from twin.network import Floats, Ints


def smith_blocking(load: Floats, scv: Floats, buffers: Floats | Ints) -> Floats:
    """Smith's blocking probability of M/G/1/K, elementwise."""
    return _blocking_each(load, scv, buffers.astype(np.float64))


@compiled
def _blocking_each(load: Floats, scv: Floats, buffers: Floats) -> Floats:
    blocked = np.empty(load.shape[0])
    for i in range(load.shape[0]):
        blocked[i] = blocking(load[i], scv[i], buffers[i])
    return blocked


@compiled
def blocking(load: float, scv: float, buffer: float) -> float:
    """Smith's blocking probability of M/G/1/K.

    It is M/M/1/k, p = ρ^k (1 − ρ)/(1 − ρ^(k+1)), with the buffer stretched to k = (2K + r)/(2 + r),
    r = √ρ(c − 1).
    With x = ln ρ: p = (1 − e^x)/(e^(−kx) − e^x), and 1/(k + 1) at ρ = 1.
    """
    r = math.sqrt(load) * (scv - 1.0)
    k = max((2.0 * buffer + r) / max(2.0 + r, 0.1), 1.0)
    x = math.log(max(load, 1e-300))
    if abs(x) < 1e-12:
        x = 1e-12
    if load > 1.0:  # the denominator is −e^x(1 − e^(−(k+1)x)); otherwise the first power is the large one
        return math.expm1(x) * math.exp(-x) / -math.expm1(-(k + 1.0) * x)
    falling = -math.expm1(x) * math.exp(max(k * x, -700.0)) / -math.expm1((k + 1.0) * x)
    return min(max(falling, 0.0), 1.0)


@compiled
def finite_queue(rho: float, scv: float, buffer: float, blocked: float) -> tuple[float, float]:
    """Mean wait of who gets in, and its standard deviation, in service times.

    p_n = a·θ^(n−1) for 1 ≤ n < K. Where K is not whole the highest state counts by the fraction of it.
    """
    spread = rho * (1.0 + scv)
    theta = spread / max(2.0 * (1.0 - rho) + spread, 1e-6 * spread)
    total, first, second = _geometric_sums(theta, buffer - 1.0)
    busy = max(rho * (1.0 - blocked) - blocked, 0.0)  # Σ p_n, 1 ≤ n < K
    mean = busy * first / total if total > 0.0 else 0.0
    square = busy * second / total if total > 0.0 else 0.0
    number = mean + buffer * blocked
    admitted = max(1.0 - blocked, 1e-12)
    wait = max(number / (rho * admitted) - 1.0, 0.0)
    # Seen by an admitted packet: n with probability p_n/(1 − p_K). Its wait is n − 1 services and a residual.
    found = busy / admitted
    seen = mean / admitted
    residual = (wait - (seen - found)) / found if found > 0.0 else 0.0
    spare = (1.0 + scv) * (1.0 + 2.0 * scv) / 3.0 - ((1.0 + scv) / 2.0) ** 2
    moment = (square - 2.0 * mean + busy) / admitted + 2.0 * residual * (seen - found) + found * residual**2
    variance = moment - wait**2 + scv * (seen - found) + found * spare
    return wait, math.sqrt(max(variance, 0.0))


@compiled
def _geometric_sums(theta: float, states: float) -> tuple[float, float, float]:
    """Σ θ^(n−1), Σ n·θ^(n−1), Σ n²·θ^(n−1) over 1 ≤ n ≤ states, up to a common factor.

    Summed from whichever end is the heavy one, so that nothing overflows.
    """
    top = math.ceil(states)
    partial = states - (top - 1.0)
    total = 0.0
    first = 0.0
    second = 0.0
    weight = 1.0
    for i in range(top):
        n = i + 1 if theta <= 1.0 else top - i
        counted = weight * partial if n == top else weight
        total += counted
        first += counted * n
        second += counted * n * n
        weight *= theta if theta <= 1.0 else 1.0 / theta
        if weight < 1e-18:
            break
    return total, first, second
