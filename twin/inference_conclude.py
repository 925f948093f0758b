"""From sums over hops to what is predicted of a flow, compiled: a dozen logarithms and roots of every flow.

The interval as :mod:`twin.intervals` has it: a quantile by the flow's group times the error to expect, and
the noise of a mean over the packets that are observed.
"""

from __future__ import annotations

from math import exp, expm1, log, sqrt

from twin.compiled import compiled
from twin.features_core import Table
from twin.intervals import LABEL_Z, WIDEST
from twin.network import Floats, Ints

LEAST_S = 1e-300
MEAN_S, JITTER_S, LOSS, LOG_WIDTH = range(4)
PREDICTED = 4


@compiled
def expectation(waits_s: Floats, transmission_s: float, ln_scale: float) -> tuple[float, float]:
    """Queueing + transmission (s), and the error to expect of its logarithm: what the network expects of
    itself, and how far the heads of its ensemble, ``waits_s`` [heads], are apart."""
    heads = waits_s.shape[0]
    first = max(waits_s[0] + transmission_s, LEAST_S)
    total, apart, squares = first, 0.0, 0.0
    for head in range(1, heads):
        other = waits_s[head] + transmission_s
        ln_ratio = log(max(other, LEAST_S) / first)
        total += other
        apart += ln_ratio / heads
        squares += ln_ratio**2 / heads
    return total / heads, sqrt(exp(2.0 * ln_scale) + max(squares - apart**2, 0.0))


@compiled
def expect(
    flows: Ints, waits_s: Floats, transmission_s: Floats, ln_scale: Floats, queueing_s: Floats, scale: Floats
) -> None:
    """Fill in :func:`expectation` of ``flows``, [F] each."""
    for flow in flows:
        queueing_s[flow], scale[flow] = expectation(waits_s[flow], transmission_s[flow], ln_scale[flow])


@compiled
def conclude(
    flows: Ints, offsets: Ints, waits_s: Floats, variance_s2: Floats, ln_survival: Floats, ln_scale: Floats,
    transmission_s: Floats, propagation_s: Floats, size_scv: Floats, policy: Ints, load: Table,
    load_edges: Floats, quantile: Floats, packets: Floats, predicted: Floats,
) -> None:  # fmt: skip
    """Fill in ``predicted`` [PREDICTED, F] of ``flows``; zeros where there is no route.

    ``quantile`` [policies, loads] for networks of this size, by the policy and load of the bottleneck;
    ``packets`` [F] are those observed, [0] where that is not known.
    """
    for flow in flows:
        if offsets[flow + 1] == offsets[flow]:
            predicted[:, flow] = 0.0
            continue
        transmission, fixed = transmission_s[flow], propagation_s[flow]
        queueing, scale = expectation(waits_s[flow], transmission, ln_scale[flow])
        bucket = 0
        for edge in load_edges:
            bucket += load[flow] > edge
        jitter = sqrt(variance_s2[flow] + size_scv[flow] * transmission**2)
        noise = 0.0
        if packets.shape[0] > 0 and packets[flow] > 0.0 and queueing > 0.0:
            noise = LABEL_Z * jitter / (queueing * sqrt(max(packets[flow], 1.0)))
        half = min(sqrt((quantile[policy[flow], bucket] * scale) ** 2 + noise**2), WIDEST)
        total = queueing + fixed
        predicted[MEAN_S, flow] = total
        predicted[JITTER_S, flow] = jitter
        predicted[LOSS, flow] = -expm1(ln_survival[flow]) if ln_survival[flow] < 0.0 else 0.0
        predicted[LOG_WIDTH, flow] = log((fixed + queueing * exp(half)) / total) if total > 0.0 else 0.0
