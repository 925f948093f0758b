"""RouteNet's forward pass on a CPU, fused: one sweep over the hops of a flow in place of many over all hops.

The same arithmetic as :class:`twin.routenet.RouteNetModule` (a test holds both together), arranged for a
processor: what depends on the queue only is multiplied once a queue, states stay in registers and first-level
cache along a flow, and the feature scales are folded into the weights. Kernels are compiled for one size of
the state and of the hidden layers, so that all inner loops have fixed lengths, and kept on disk. (Kernels
made by a function for any size were not: numba compiles anew what captures compiled functions.)

Flows are cut into CHUNKS equal parts whatever the number of threads, and sums over parts run in order: the
result does not depend on the machine's cores.

Arguments of the kernels
------------------------
queues [H], offsets [F + 1]: the hops of every flow; low_flow, high_flow: the flows to run.
hop_x [H, 5]: features of the hops, clipped to low … high [5].
gates [Q, 3·STATE]: what a queue contributes to the gates of the GRU (reset, update, new); w_hop [5, 3·STATE]
what a hop's features do; w_state [state, 3·state] what the state does, b_new [state] with its bias. The reset
and update thirds of all are halved, since σ(a) = ½ tanh(½a) + ½.
h_f [F, state]: the states of flows, changed in place. told [Q, state]: Σ share · (state before the hop).
read [Q, hidden], w_read_hop [5, hidden], w_read_state [state, hidden], w_out [hidden, OUTPUTS], b_out: the
read-out; limit: corrections stay within exp(±limit).
prior [Q, 3]: a queue's wait (s), its deviation (s), and ln blocking.
sums [F, heads + 2]: waits by every head (s), their variance (s²), ln of the share that survives.
"""

from __future__ import annotations

from itertools import pairwise
from math import log
from typing import Any

import numpy as np
from numba import float32, njit
from numpy.typing import NDArray

CHUNKS = 8
STATE, HIDDEN = 16, 24
HOP_COLUMNS = 5  # of twin.features.HOP_FEATURES
HEADS = 3  # at most
OUTPUTS = HEADS + 3  # of a hop: heads, then ln deviation, slope and offset of ln blocking
MOST_LN_BLOCKING = -1e-6
NO_BLOCKING = -40.0  # ln; 1 − e^−40 is 1 in double precision
Array = NDArray[np.float32]
_inline = njit(inline="always", fastmath=True, error_model="numpy")
_kernel = njit(cache=True, nogil=True, fastmath=True, error_model="numpy")


@_kernel
def sweep(  # type: ignore[no-untyped-def]
    queues, offsets, low_flow, high_flow, hop_x, low, high, gates, w_hop, b_new, w_state, h_f, told
):
    """Message passing along flows."""
    acc, h, x = (
        np.empty(3 * STATE, np.float32),
        np.empty(STATE, np.float32),
        np.empty(HOP_COLUMNS, np.float32),
    )
    for flow in range(low_flow, high_flow):
        for j in range(STATE):
            h[j] = h_f[flow, j]
        for hop in range(offsets[flow], offsets[flow + 1]):
            queue = queues[hop]
            for j in range(STATE):
                told[queue, j] += hop_x[hop, 0] * h[j]
            _clip(hop_x[hop], low, high, x)
            _step(gates[queue], x, h, acc, w_hop, b_new, w_state)
        for j in range(STATE):
            h_f[flow, j] = h[j]


@_kernel
def last(  # type: ignore[no-untyped-def]
    queues, offsets, low_flow, high_flow, hop_x, low, high, gates, w_hop, b_new, w_state, h_f,
    read, w_read_hop, w_read_state, w_out, b_out, heads, limit, prior, sums,
):  # fmt: skip
    """The last sweep, which reads out."""
    acc, h, x = (
        np.empty(3 * STATE, np.float32),
        np.empty(STATE, np.float32),
        np.empty(HOP_COLUMNS, np.float32),
    )
    longest = 0
    for flow in range(low_flow, high_flow):
        longest = max(longest, offsets[flow + 1] - offsets[flow])
    y = np.empty(HIDDEN, np.float32)
    r, e = np.empty(longest * OUTPUTS, np.float32), np.empty(longest * OUTPUTS, np.float32)
    for flow in range(low_flow, high_flow):
        first, end = offsets[flow], offsets[flow + 1]
        for j in range(STATE):
            h[j] = h_f[flow, j]
        for hop in range(first, end):
            queue = queues[hop]
            _clip(hop_x[hop], low, high, x)
            _step(gates[queue], x, h, acc, w_hop, b_new, w_state)
            _read_hop(
                read[queue], x, h, y, w_read_hop, w_read_state, w_out, b_out, r, (hop - first) * OUTPUTS
            )
        _add_up(r, e, queues, first, end, limit, prior, heads, sums[flow])
        for j in range(STATE):
            h_f[flow, j] = h[j]


@_inline
def _step(gate, x, h, acc, w_hop, b_new, w_state):  # type: ignore[no-untyped-def]
    """One hop of the GRU: h changes in place."""
    x0, x1, x2, x3, x4 = x[0], x[1], x[2], x[3], x[4]
    for j in range(2 * STATE):
        hop = x0 * w_hop[0, j] + x1 * w_hop[1, j] + x2 * w_hop[2, j] + x3 * w_hop[3, j] + x4 * w_hop[4, j]
        acc[j] = gate[j] + hop
    for j in range(STATE):
        acc[2 * STATE + j] = b_new[j]
    for i in range(0, STATE, 8):
        h0, h1, h2, h3 = h[i], h[i + 1], h[i + 2], h[i + 3]
        h4, h5, h6, h7 = h[i + 4], h[i + 5], h[i + 6], h[i + 7]
        for j in range(3 * STATE):
            acc[j] += (
                h0 * w_state[i, j]
                + h1 * w_state[i + 1, j]
                + h2 * w_state[i + 2, j]
                + h3 * w_state[i + 3, j]
                + h4 * w_state[i + 4, j]
                + h5 * w_state[i + 5, j]
                + h6 * w_state[i + 6, j]
                + h7 * w_state[i + 7, j]
            )
    for j in range(2 * STATE):
        acc[j] = float32(0.5) * _tanh(acc[j]) + float32(0.5)
    for j in range(STATE):
        k = 2 * STATE + j
        hop = x0 * w_hop[0, k] + x1 * w_hop[1, k] + x2 * w_hop[2, k] + x3 * w_hop[3, k] + x4 * w_hop[4, k]
        new = _tanh(gate[k] + hop + acc[j] * acc[k])
        h[j] = new + acc[STATE + j] * (h[j] - new)


@_inline
def _read_hop(read, x, h, y, w_read_hop, w_read_state, w_out, b_out, r, at):  # type: ignore[no-untyped-def]
    """The read-out of one hop into r[at : at + OUTPUTS]; tanh and exp wait for the whole flow."""
    for j in range(HIDDEN):
        hop = x[0] * w_read_hop[0, j] + x[1] * w_read_hop[1, j] + x[2] * w_read_hop[2, j]
        y[j] = read[j] + hop + x[3] * w_read_hop[3, j] + x[4] * w_read_hop[4, j]
    for i in range(0, STATE, 4):
        h0, h1, h2, h3 = h[i], h[i + 1], h[i + 2], h[i + 3]
        for j in range(HIDDEN):
            y[j] += (
                h0 * w_read_state[i, j]
                + h1 * w_read_state[i + 1, j]
                + h2 * w_read_state[i + 2, j]
                + h3 * w_read_state[i + 3, j]
            )
    # Six sums in six registers: too short for vectors.
    r0, r1, r2, r3, r4, r5 = b_out[0], b_out[1], b_out[2], b_out[3], b_out[4], b_out[5]
    for i in range(HIDDEN):
        value = max(y[i], float32(0.0))
        r0 += value * w_out[i, 0]
        r1 += value * w_out[i, 1]
        r2 += value * w_out[i, 2]
        r3 += value * w_out[i, 3]
        r4 += value * w_out[i, 4]
        r5 += value * w_out[i, 5]
    r[at], r[at + 1], r[at + 2], r[at + 3], r[at + 4], r[at + 5] = r0, r1, r2, r3, r4, r5


@_kernel
def _affine(x, w, bias, out, relu):  # type: ignore[no-untyped-def]
    for row in range(x.shape[0]):
        for j in range(out.shape[1]):
            out[row, j] = bias[j]
        for i in range(x.shape[1]):
            value = x[row, i]
            for j in range(out.shape[1]):
                out[row, j] += value * w[i, j]
        if relu:
            for j in range(out.shape[1]):
                out[row, j] = max(out[row, j], float32(0.0))


def affine(x: Array, w: Array, bias: Array, *, relu: bool = False) -> Array:
    """x [n, i] · w [i, j] + bias [j]. On tables so thin a BLAS's threads only get in the way."""
    out = np.empty((len(x), w.shape[1]), np.float32)
    _affine(x, w, bias, out, relu)
    return out


@_inline
def _add_up(r, e, queues, first, end, limit, prior, heads, sums):  # type: ignore[no-untyped-def]
    """Waits and their variances add up over the hops of a flow, survivals multiply."""
    per_limit = float32(1.0) / limit
    for k in range((end - first) * OUTPUTS):
        r[k] = limit * _tanh(r[k] * per_limit)
        e[k] = _exp(r[k])
    survival = 1.0
    for hop in range(first, end):
        at, queue = (hop - first) * OUTPUTS, queues[hop]
        for k in range(heads):
            sums[k] += prior[queue, 0] * e[at + k]
        deviation = prior[queue, 1] * e[at + HEADS]
        sums[heads] += deviation * deviation
        ln_blocking = prior[queue, 2] * e[at + HEADS + 1] + r[at + HEADS + 2]
        if ln_blocking > NO_BLOCKING:
            survival *= 1.0 - _exp_down(min(ln_blocking, MOST_LN_BLOCKING))
    sums[heads + 1] = log(survival)


@_inline
def _clip(values, low, high, x):  # type: ignore[no-untyped-def]
    for c in range(HOP_COLUMNS):
        x[c] = min(max(values[c], low[c]), high[c])


@_inline
def _tanh(x):  # type: ignore[no-untyped-def]
    """tanh to 4 units in the last place of float32: Eigen's ratio of polynomials, which vectorises."""
    x = min(max(x, float32(-7.90531110763549805)), float32(7.90531110763549805))
    s = x * x
    a = s * float32(-2.76076847742355e-16) + float32(2.00018790482477e-13)
    a = s * a + float32(-8.60467152213735e-11)
    a = s * a + float32(5.12229709037114e-08)
    a = s * a + float32(1.48572235717979e-05)
    a = s * a + float32(6.37261928875436e-04)
    a = s * a + float32(4.89352455891786e-03)
    b = s * float32(1.19825839466702e-06) + float32(1.18534705686654e-04)
    b = s * b + float32(2.26843463243900e-03)
    b = s * b + float32(4.89352518554385e-03)
    return x * a / b


@_inline
def _exp(x):  # type: ignore[no-untyped-def]
    """e^x for |x| <= 7 to 2e-5: the series of e^(x/16), squared four times, which vectorises."""
    t = x * float32(1 / 16)
    p = t * float32(1 / 720) + float32(1 / 120)
    p = t * p + float32(1 / 24)
    p = t * p + float32(1 / 6)
    p = t * p + float32(0.5)
    p = t * p + float32(1.0)
    p = t * p + float32(1.0)
    p = p * p
    p = p * p
    p = p * p
    return p * p


@_inline
def _exp_down(x):  # type: ignore[no-untyped-def]
    """e^x for NO_BLOCKING <= x <= 0 to 2e-7, in double precision: Taylor's series of e^(x/256), squared."""
    t = x * (1 / 256)
    p = 1.0 + t * (1.0 + t * (0.5 + t * (1 / 6 + t * (1 / 24))))
    for _ in range(8):
        p = p * p
    return p


def chunks(flows: int) -> list[tuple[int, int]]:
    """CHUNKS equal ranges of flows."""
    return list(pairwise(flows * k // CHUNKS for k in range(CHUNKS + 1)))


def halved(weights: Any, state: int) -> Any:
    """GRU weights [3·state, ·] or [3·state] of torch with the reset and update thirds halved, in float32."""
    scaled = np.array(weights, dtype=np.float32)
    scaled[: 2 * state] *= np.float32(0.5)
    return scaled
