"""The queues' side of the forward pass, compiled: few rows, on which a BLAS's threads only get in the way.

Arguments as in :mod:`twin.inference_kernel`; queue_x [Q, 26]: features of the queues.
"""

from __future__ import annotations

import numpy as np

from twin.compiled import kernel
from twin.inference_kernel import GATES, HIDDEN, STATE, Array, copy, empty_aligned, perceive, turn
from twin.inference_product import product

QUEUE_COLUMNS = 26  # of twin.features_queues.QUEUE_FEATURES


@kernel
def embed_queues(queue_x, low, high, mean, per_deviation, w_1, b_1, w_2, b_2, h_q):  # type: ignore[no-untyped-def]
    """The states that queues start with, from their features."""
    x, y = np.empty(QUEUE_COLUMNS, np.float32), np.empty(HIDDEN, np.float32)
    scale, layers = (low, high, mean, per_deviation), (w_1, b_1, w_2, b_2)
    for queue in range(queue_x.shape[0]):
        perceive(queue_x[queue], x, y, scale, layers, QUEUE_COLUMNS, h_q[queue])


@kernel
def update_queues(  # type: ignore[no-untyped-def]
    h_q, message, links, parts, h_l, w_message, w_link, bias, w_state, b_state, after
):
    """The GRU cell of every queue, of what its flows have told, ``message`` [Q, STATE], and of its link:
    h_l [L, STATE], zeros, becomes the sum of the states of the link's queues (``links`` [Q]) by their
    ``parts`` [Q] of its load. ``after`` [Q, STATE] are the states that follow."""
    own, into, h = np.empty(GATES, np.float32), np.empty(GATES, np.float32), np.empty(STATE, np.float32)
    for queue in range(h_q.shape[0]):
        for j in range(STATE):
            h_l[links[queue], j] += parts[queue] * h_q[queue, j]
    for queue in range(h_q.shape[0]):
        copy(h_q[queue], h)
        product(own, b_state, h, w_state, STATE, GATES)
        product(into, bias, message[queue], w_message, STATE, GATES)
        product(into, into, h_l[links[queue]], w_link, STATE, GATES)
        turn(h, own, into)
        copy(h, after[queue])


def to_gates(h_q: Array, w: Array, bias: Array) -> Array:
    """h_q · w [STATE, GATES] + bias."""
    gates = empty_aligned(len(h_q), GATES)
    _to_gates(h_q, w, bias, gates)
    return gates


def to_hidden(h_q: Array, w: Array, bias: Array) -> Array:
    """h_q · w [STATE, HIDDEN] + bias."""
    hidden = empty_aligned(len(h_q), HIDDEN)
    _to_hidden(h_q, w, bias, hidden)
    return hidden


@kernel
def _to_gates(h_q, w, bias, out):  # type: ignore[no-untyped-def]
    for queue in range(h_q.shape[0]):
        product(out[queue], bias, h_q[queue], w, STATE, GATES)


@kernel
def _to_hidden(h_q, w, bias, out):  # type: ignore[no-untyped-def]
    for queue in range(h_q.shape[0]):
        product(out[queue], bias, h_q[queue], w, STATE, HIDDEN)
