"""Tomography of one window: how much too late every link is, from how much too late the paths are.

Row f of a window says: the links it crosses are together ``residual[f]`` seconds slower than predicted, known
with ``precision[f]`` (1/s²; 0 = do not look). ``share`` [H] says at every hop which part of the row's packets
crosses it: 1 but where a path has several equal routes (:mod:`twin.equal_routes`). Link l is expected to
deviate by nothing, with ``variance[l]`` (s²). The most likely deviations e solve the ridge

    min Σ_f precision_f · (residual_f − Σ_{l∈f} share_fl · e_l)² + Σ_l e_l² / variance_l.

Every pass is O(hops). Sums run in the order of the rows, on one thread, so that equal input gives equal bits.
"""

from __future__ import annotations

import numpy as np

from twin.compiled import compiled
from twin.network import Floats, Ints

STEPS = 30
TOLERANCE = 1e-4  # of the gradient, relative to where it began


@compiled
def _normal(links: Ints, share: Floats, offsets: Ints, precision: Floats, e: Floats, out: Floats) -> None:
    """out += Hᵀ·precision·H·e."""
    for f in range(len(precision)):
        weight = precision[f]
        if weight == 0.0:
            continue
        total = 0.0
        for hop in range(offsets[f], offsets[f + 1]):
            total += share[hop] * e[links[hop]]
        for hop in range(offsets[f], offsets[f + 1]):
            out[links[hop]] += share[hop] * weight * total


@compiled
def explain(
    links: Ints, share: Floats, offsets: Ints, residual: Floats, precision: Floats, variance: Floats
) -> Floats:
    """The most likely deviation of every link, [L] s: conjugate gradients, preconditioned by the diagonal."""
    size = len(variance)
    gradient, diagonal = np.zeros(size), 1.0 / variance
    for f in range(len(residual)):
        for hop in range(offsets[f], offsets[f + 1]):
            gradient[links[hop]] += share[hop] * precision[f] * residual[f]
            diagonal[links[hop]] += share[hop] * share[hop] * precision[f]
    e = np.zeros(size)
    scaled = gradient / diagonal
    direction = scaled.copy()
    slope = (gradient * scaled).sum()
    enough = TOLERANCE**2 * slope
    for _ in range(STEPS):
        if slope <= enough:
            break
        bent = direction / variance
        _normal(links, share, offsets, precision, direction, bent)
        step = slope / (direction * bent).sum()
        e += step * direction
        gradient -= step * bent
        scaled = gradient / diagonal
        after = (gradient * scaled).sum()
        direction = scaled + (after / slope) * direction
        slope = after
    return e


@compiled
def remaining(
    links: Ints, share: Floats, offsets: Ints, precision: Floats, variance: Floats, rounds: int
) -> Floats:
    """What stays uncertain of every link after the rows were seen, [L] s²: an estimate in O(hops).

    A row tells of one of its links what its own error and the uncertainty of its other links leave over. That
    uncertainty is taken anew for every row, so links that many rows cross together are believed too early.
    """
    left = variance.copy()
    for _ in range(rounds):
        told = 1.0 / variance
        for f in range(len(precision)):
            if precision[f] == 0.0:
                continue
            total = 1.0 / precision[f]
            for hop in range(offsets[f], offsets[f + 1]):
                total += share[hop] * share[hop] * left[links[hop]]
            for hop in range(offsets[f], offsets[f + 1]):
                square = share[hop] * share[hop]
                told[links[hop]] += square / (total - square * left[links[hop]])
        left = 1.0 / told
    return left


@compiled
def along(links: Ints, share: Floats, offsets: Ints, values: Floats) -> Floats:
    """Sum of ``values`` [L] over the hops of every row, each by its share."""
    sums = np.zeros(len(offsets) - 1)
    for f in range(len(sums)):
        for hop in range(offsets[f], offsets[f + 1]):
            sums[f] += share[hop] * values[links[hop]]
    return sums


@compiled
def worst_link(links: Ints, offsets: Ints, load: Floats) -> Ints:
    """The link with the highest load of every row; link 0 for a row without hops."""
    worst = np.zeros(len(offsets) - 1, dtype=np.int64)
    for f in range(len(worst)):
        highest = -1.0
        for hop in range(offsets[f], offsets[f + 1]):
            if load[links[hop]] > highest:
                highest = load[links[hop]]
                worst[f] = links[hop]
    return worst


@compiled
def crossed(links: Ints, share: Floats, offsets: Ints, flow: Ints, back: Ints) -> tuple[Ints, Floats, Ints]:
    """The links of every row's flow, and of the flow back where there is one: links, shares, offsets."""
    bounds = np.zeros(len(flow) + 1, dtype=np.int64)
    for row in range(len(flow)):
        length = offsets[flow[row] + 1] - offsets[flow[row]]
        if back[row] >= 0:
            length += offsets[back[row] + 1] - offsets[back[row]]
        bounds[row + 1] = bounds[row] + length
    found, part = np.empty(bounds[-1], dtype=np.int64), np.empty(bounds[-1])
    for row in range(len(flow)):
        place = bounds[row]
        for one in (flow[row], back[row]):
            if one >= 0:
                for hop in range(offsets[one], offsets[one + 1]):
                    found[place], part[place] = links[hop], share[hop]
                    place += 1
    return found, part, bounds


@compiled
def share_out(
    links: Ints,
    share: Floats,
    offsets: Ints,
    weight: Floats,
    propagation_s: Floats,
    per_bit_s: Floats,
    bits: Floats,
    mean_s: Floats,
) -> tuple[Floats, Floats, Floats, Floats]:
    """Fixed part and wait of every flow, the wait's part at every hop, the mean wait at a link."""
    wait, hop_wait = np.zeros(len(mean_s)), np.zeros(len(links))
    sums, flows = np.zeros(len(weight)), np.zeros(len(weight))
    for f in range(len(mean_s)):
        fixed, whole = 0.0, 0.0
        for hop in range(offsets[f], offsets[f + 1]):
            link = links[hop]
            fixed += share[hop] * (propagation_s[link] + bits[f] * per_bit_s[link])
            whole += share[hop] * weight[link]
        wait[f] = max(mean_s[f] - fixed, 0.0)
        for hop in range(offsets[f], offsets[f + 1]):
            link = links[hop]
            hop_wait[hop] = wait[f] * share[hop] * weight[link] / whole
            sums[link] += hop_wait[hop]
            flows[link] += share[hop]
    return mean_s - wait, wait, hop_wait, sums / np.where(flows > 0.0, flows, 1.0)


@compiled
def corrections(
    links: Ints, share: Floats, offsets: Ints, offset_s: Floats, excess: Floats, hop_wait_s: Floats
) -> tuple[Floats, Floats]:
    """What every flow's fixed part and wait gain, s."""
    fixed, wait = np.zeros(len(offsets) - 1), np.zeros(len(offsets) - 1)
    for f in range(len(fixed)):
        for hop in range(offsets[f], offsets[f + 1]):
            fixed[f] += share[hop] * offset_s[links[hop]]
            wait[f] += excess[links[hop]] * hop_wait_s[hop]
    return fixed, wait
