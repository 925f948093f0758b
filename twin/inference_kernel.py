"""RouteNet's forward pass on a CPU, fused: one sweep over the hops of a flow in place of many over all hops.

The same arithmetic as :class:`twin.routenet.RouteNetModule` (a test holds both together), arranged for a
processor: what depends on the queue only is multiplied once a queue, states stay in registers and first-level
cache along a flow, and the scales of hops' features are folded into the weights. Kernels are compiled for one
size of the state and of the hidden layers, so that all inner loops have fixed lengths, and kept on disk.
(Kernels made by a function for any size were not: numba compiles anew what captures compiled functions.)

Arguments of the kernels
------------------------
flows: those to run; queues [H], offsets [F + 1]: the hops of every flow.
hop_x [H, 5]: features of the hops, clipped to low … high [5]; flow_x [F, 8]: features of the flows, likewise,
their mean and 1 ÷ deviation.
gates [Q, 3·STATE]: what a queue contributes to the gates of the GRU (reset, update, new); w_hop [5, 3·STATE]
what a hop's features do; w_state [STATE, 3·STATE] what the state does, b_state [3·STATE] with its bias. The
reset and update thirds of all are halved, since σ(a) = ½ tanh(½a) + ½.
h_in, h_out [F, STATE]: the states of flows at the start and at the end; may be one. told [Q, STATE]:
Σ share · (state before the hop). kept [H, STATE]: what every hop told last, which is taken back; or empty.
read [Q, HIDDEN], w_read_hop [5, HIDDEN], w_read_state [STATE, HIDDEN], w_out [HIDDEN, OUTPUTS], b_out: the
read-out; limit: corrections stay within exp(±limit).
prior [Q, 3]: a queue's wait (s), its deviation (s), and ln blocking.
sums [F, heads + 2]: waits by every head (s), their variance (s²), ln of the share that survives.
w_1, b_1, w_2, b_2: a perceptron of two layers.
"""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np
from numba import float32, njit
from numpy.typing import NDArray

from twin.checkpoint import LEAST_LN_SCALE
from twin.compiled import kernel
from twin.inference_product import product, relu_product

STATE, HIDDEN = 16, 24
HOP_COLUMNS = 5  # of twin.features.HOP_FEATURES
FLOW_COLUMNS = 8  # of twin.features.FLOW_FEATURES
GATES = 3 * STATE
HEADS = 3  # at most
OUTPUTS = 8  # of a hop: heads, then ln deviation, slope and offset of ln blocking; the rest fills a vector
LINE = 64  # octets
MOST_LN_BLOCKING = -1e-6
NO_BLOCKING = -40.0  # ln; 1 − e^−40 is 1 in double precision
Array = NDArray[np.float32]
_inline = njit(inline="always", fastmath=True, error_model="numpy")


@kernel
def embed(flows, flow_x, low, high, mean, per_deviation, w_1, b_1, w_2, b_2, h_out):  # type: ignore[no-untyped-def]
    """The states that flows start with, from their features."""
    x, y = np.empty(FLOW_COLUMNS, np.float32), np.empty(HIDDEN, np.float32)
    scale, layers = (low, high, mean, per_deviation), (w_1, b_1, w_2, b_2)
    for flow in flows:
        perceive(flow_x[flow], x, y, scale, layers, FLOW_COLUMNS, h_out[flow])


@kernel
def sweep(  # type: ignore[no-untyped-def]
    flows, queues, offsets, hop_x, low, high, gates, w_hop, b_state, w_state, h_in, h_out, told, kept
):
    """Message passing along flows."""
    own, into, x, h = _room()
    state = h.reshape(1, STATE)
    back = np.full(1, -1.0, np.float32)
    nothing = np.zeros(STATE, np.float32)
    for flow in flows:
        copy(h_in[flow], h)
        for hop in range(offsets[flow], offsets[flow + 1]):
            queue, share = queues[hop], hop_x[hop]
            product(told[queue], told[queue], share, state, 1, STATE)
            if kept.shape[0] > 0:
                product(told[queue], told[queue], back, kept[hop : hop + 1], 1, STATE)
                product(kept[hop], nothing, share, state, 1, STATE)
            clip(hop_x[hop], low, high, x)
            _step(gates[queue], x, h, own, into, w_hop, b_state, w_state)
        copy(h, h_out[flow])


@kernel
def last(  # type: ignore[no-untyped-def]
    flows, queues, offsets, hop_x, low, high, gates, w_hop, b_state, w_state, h_in,
    read, w_read_hop, w_read_state, w_out, b_out, w_1, b_1, w_2, b_2, heads, limit, most_ln_scale,
    prior, sums, ln_scale, at_work,
):  # fmt: skip
    """The last sweep, which reads out. ln_scale [F]: ln of the error to expect, up to ``most_ln_scale``;
    at_work [H]: bit j of a hop is hidden unit j of its read-out, or empty."""
    own, into, x, h = _room()
    y, error = np.empty(HIDDEN, np.float32), np.empty(STATE, np.float32)
    longest = 0
    for flow in flows:
        longest = max(longest, offsets[flow + 1] - offsets[flow])
    r, e = np.empty((longest, OUTPUTS), np.float32), np.empty((longest, OUTPUTS), np.float32)
    bits = np.empty(longest, np.int32)
    for flow in flows:
        first, end = offsets[flow], offsets[flow + 1]
        copy(h_in[flow], h)
        for hop in range(first, end):
            queue = queues[hop]
            clip(hop_x[hop], low, high, x)
            _step(gates[queue], x, h, own, into, w_hop, b_state, w_state)
            product(y, read[queue], x, w_read_hop, HOP_COLUMNS, HIDDEN)
            bits[hop - first] = relu_product(y, y, h, w_read_state, STATE, HIDDEN)
            product(r[hop - first], b_out, y, w_out, HIDDEN, OUTPUTS)
        if at_work.shape[0] > 0:  # hop by hop these stores would hold up all others
            at_work[first:end] = bits[: end - first]
        _bound(r.reshape(longest * OUTPUTS), e.reshape(longest * OUTPUTS), (end - first) * OUTPUTS, limit)
        _add_up(r, e, queues, first, end, prior, heads, sums[flow])
        relu_product(error, b_1, h, w_1, STATE, STATE)
        total = b_2[0]
        for j in range(STATE):
            total += error[j] * w_2[j, 0]
        ln_scale[flow] = min(max(total, LEAST_LN_SCALE), most_ln_scale)


@_inline
def perceive(values, x, y, scale, layers, columns, state):  # type: ignore[no-untyped-def]
    """The ``state`` of so many columns of features, scaled, through two layers; x and y are room."""
    low, high, mean, per_deviation = scale
    w_1, b_1, w_2, b_2 = layers
    clip(values, low, high, x)
    for c in range(columns):
        x[c] = (x[c] - mean[c]) * per_deviation[c]
    relu_product(y, b_1, x, w_1, columns, HIDDEN)
    product(state, b_2, y, w_2, HIDDEN, STATE)


@_inline
def _room():  # type: ignore[no-untyped-def]
    """Gates from the state, from queue and hop, the hop's features, and the state."""
    return (
        np.empty(GATES, np.float32),
        np.empty(GATES, np.float32),
        np.empty(HOP_COLUMNS, np.float32),
        np.empty(STATE, np.float32),
    )


@_inline
def _step(gate, x, h, own, into, w_hop, b_state, w_state):  # type: ignore[no-untyped-def]
    """One hop of the GRU: h changes in place."""
    product(own, b_state, h, w_state, STATE, GATES)
    product(into, gate, x, w_hop, HOP_COLUMNS, GATES)
    turn(h, own, into)


@_inline
def turn(h, own, into):  # type: ignore[no-untyped-def]
    """What a GRU's gates make of a state: h changes in place, and ``own``, the gates from the state."""
    for j in range(2 * STATE):
        own[j] = float32(0.5) * _tanh(own[j] + into[j]) + float32(0.5)
    for j in range(STATE):
        new = _tanh(into[2 * STATE + j] + own[j] * own[2 * STATE + j])
        h[j] = new + own[STATE + j] * (h[j] - new)


@_inline
def _bound(r, e, count, limit):  # type: ignore[no-untyped-def]
    """Corrections within ±limit, and their exponentials."""
    per_limit = float32(1.0) / limit
    for k in range(count):
        r[k] = limit * _tanh(r[k] * per_limit)
        e[k] = _exp(r[k])


@_inline
def _add_up(r, e, queues, first, end, prior, heads, sums):  # type: ignore[no-untyped-def]
    """Waits and their variances add up over the hops of a flow, survivals multiply."""
    sums[:] = 0.0
    survival = 1.0
    for hop in range(first, end):
        at, queue = hop - first, queues[hop]
        for k in range(heads):
            sums[k] += prior[queue, 0] * e[at, k]
        deviation = prior[queue, 1] * e[at, HEADS]
        sums[heads] += deviation * deviation
        ln_blocking = prior[queue, 2] * e[at, HEADS + 1] + r[at, HEADS + 2]
        if ln_blocking > NO_BLOCKING:
            survival *= 1.0 - _exp_down(min(ln_blocking, MOST_LN_BLOCKING))
    sums[heads + 1] = log(survival) if survival < 1.0 else 0.0


@_inline
def copy(source, target):  # type: ignore[no-untyped-def]
    for j in range(STATE):
        target[j] = source[j]


@_inline
def clip(values, low, high, x):  # type: ignore[no-untyped-def]
    for c in range(len(x)):
        x[c] = min(max(values[c], low[c]), high[c])


def empty_aligned(*shape: int) -> Array:
    """Room that begins with a line of the processor's cache: vectors across lines cost a tenth of a sweep."""
    size = int(np.prod(shape)) * np.dtype(np.float32).itemsize
    room = np.empty(size + LINE, np.uint8)
    start = -room.ctypes.data % LINE
    return room[start : start + size].view(np.float32).reshape(shape)


def aligned(values: Any) -> Array:
    """A copy, row after row, in room of :func:`empty_aligned`."""
    copy = empty_aligned(*values.shape)
    copy[...] = values
    return copy


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


def halved(weights: Any, state: int) -> Any:
    """GRU weights [3·state, ·] or [3·state] of torch with the reset and update thirds halved, in float32."""
    scaled = np.array(weights, dtype=np.float32)
    scaled[: 2 * state] *= np.float32(0.5)
    return scaled
