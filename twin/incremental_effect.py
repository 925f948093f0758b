"""What it does to a flow's prediction when a queue on its way changes: an estimate, to tell what may be left.

Theory
------
The read-out of a hop is r = W_o · relu(y), with y = W_q h_q + W_s h_f + …, and h_f in its turn takes in h_q
through the gates of the GRU. A step Δh_q thus moves y by A Δh_q, A = W_q + W_s J, J the mean of ∂h_f/∂h_q
over hops of that network. A hidden unit passes that on where it is at work. For nine tenths of the units this
is the same for all hops over a queue, so the effect is summed once a queue over the units that are at work
for most, and corrected for the odd ones of a hop (:mod:`twin.incremental_account`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from twin.checkpoint import Checkpoint
from twin.compiled import compiled
from twin.incremental_core import (
    ON_LOSS,
    ON_VARIANCE,
    ON_WAIT,
    STATE_ON_DEVIATION,
    STATE_ON_WAIT,
    UNSURE_DEVIATION,
    UNSURE_WAIT,
    VARIANCE,
    WAIT,
    WORTH,
    Bits,
    Flags,
)
from twin.inference_cpu import Array
from twin.inference_kernel import HIDDEN, aligned
from twin.network import Floats
from twin.queueing import LinkQueues

SAMPLE = 2_000  # hops whose mean J is
MISJUDGED = 0.8  # of what a step does by way of a flow's state, as hops differ: of all units together
LEAST = 0.6  # of what a flow may owe: a step of one queue that is worth less is left until it has grown
LEAST_UNIT = 0.3  # of it: an odd unit that is worth less does not matter


@dataclass(frozen=True)
class Worth:
    """What steps of queues are worth to the flows over them."""

    moved: Flags  # [Q] the step is worth following
    table: Array  # [Q, WORTH]
    matter: Bits  # [Q] bit j: whether hidden unit j is at work matters
    terms: Array  # [Q, 2, HIDDEN] on wait (s) and variance (s²) where it differs from most

    @classmethod
    def of_nothing(cls, queues: LinkQueues, terms: int = 0) -> Worth:
        """No queue has moved; room for the terms of so many."""
        count = len(queues.wait_s)
        table = np.zeros((count, WORTH), np.float32)
        table[:, WAIT], table[:, VARIANCE] = queues.wait_s, queues.wait_std_s**2
        return cls(
            moved=np.zeros(count, np.bool_),
            table=table,
            matter=np.zeros(count, np.int32),
            terms=np.empty((terms, 2, HIDDEN), np.float32),
        )


@dataclass(frozen=True)
class Effects:
    """Of the states of queues on what is read out of a hop."""

    direct: Array  # [state, hidden] W_q, turned
    through: Array  # [state, hidden] W_s J, turned
    weights: Array  # [2, hidden] of ln wait, the mean of the heads, and of its ln deviation
    on_loss: Array  # [hidden, 2] slope and offset of ln blocking

    @classmethod
    def of(cls, checkpoint: Checkpoint, h_f: Array, h_q: Array, hop_x: Array) -> Effects:
        """From the weights of a model, and of some hops the states [n, state] of their flows before them and
        of their queues, and their features [n, ·]."""
        w, state, heads = checkpoint.weights, checkpoint.config.state, checkpoint.config.heads
        read, out = w["readout.weight"], w["correct.weight"]
        into_flow = jacobian(checkpoint, h_f, h_q, hop_x)
        return cls(
            direct=aligned(read[:, state : 2 * state].T),
            through=aligned((read[:, :state] @ into_flow).T),
            weights=aligned(np.stack([out[:heads].mean(axis=0), out[heads]])),
            on_loss=aligned(np.abs(out[heads + 1 :].T)),
        )

    def of_steps(
        self, step: Array, queues: LinkQueues, ln_blocking: Floats, usual: Bits, limit: float
    ) -> Worth:
        """Of steps [Q, state] of the states of queues, where flows may owe the ``limit``. ``usual`` [Q] tells
        bit by bit which units are at work for most hops over a queue."""
        worth = Worth.of_nothing(queues, len(step))
        _value(
            step, self.direct, self.through, self.weights, self.on_loss, ln_blocking, usual,
            np.float32(LEAST * limit), np.float32(LEAST_UNIT * limit), np.float32(MISJUDGED), worth.moved,
            worth.table, worth.matter, worth.terms,
        )  # fmt: skip
        return worth


@compiled
def _value(
    step: Array, direct: Array, through: Array, weights: Array, on_loss: Array, ln_blocking: Floats,
    usual: Bits, least: np.float32, least_unit: np.float32, misjudged: np.float32, moved: Flags, table: Array,
    matter: Bits, terms: Array,
) -> None:  # fmt: skip
    """Fill in :class:`Worth`."""
    straight, by_state = np.empty(HIDDEN, np.float32), np.empty(HIDDEN, np.float32)
    for queue in range(step.shape[0]):
        straight[:], by_state[:] = 0.0, 0.0
        for i in range(step.shape[1]):
            for j in range(HIDDEN):
                straight[j] += step[queue, i] * direct[i, j]
                by_state[j] += step[queue, i] * through[i, j]
        ln = np.float32(ln_blocking[queue])
        most, slope, offset = np.float32(0.0), np.float32(0.0), np.float32(0.0)
        for j in range(HIDDEN):
            size = abs(straight[j] + by_state[j])
            most = max(most, size * max(abs(weights[0, j]), abs(weights[1, j])))
            slope += size * on_loss[j, 0]
            offset += size * on_loss[j, 1]
        lost = abs(ln) * slope + offset
        # at most so much is lost there, a hundredfold: the correction may double ln
        moved[queue] = max(most, lost * np.float32(100.0) * np.exp(ln / 2)) > least
        if moved[queue]:
            table[queue, ON_LOSS] = lost
            _value_units(
                straight, by_state, weights, usual[queue], least_unit, misjudged, table[queue],
                matter[queue : queue + 1], terms[queue],
            )  # fmt: skip


@compiled
def _value_units(
    straight: Array, by_state: Array, weights: Array, usual: int, least_unit: np.float32,
    misjudged: np.float32, table: Array, matter: Bits, terms: Array,
) -> None:  # fmt: skip
    """One queue's row of :class:`Worth`, by what its step does to every hidden unit."""
    for kind, (scale, on, state_on, unsure) in enumerate((
        (table[WAIT], ON_WAIT, STATE_ON_WAIT, UNSURE_WAIT),
        (table[VARIANCE], ON_VARIANCE, STATE_ON_DEVIATION, UNSURE_DEVIATION),
    )):  # fmt: skip
        for j in range(HIDDEN):
            weight, at_work = weights[kind, j], usual >> j & 1
            term = (straight[j] + by_state[j]) * weight
            table[unsure] += misjudged * abs(by_state[j] * weight)
            terms[kind, j] = -scale * term if at_work else scale * term
            if at_work:
                table[on] += scale * term
                table[state_on] += by_state[j] * weight
            if abs(term) > least_unit:
                matter[0] |= 1 << j


def jacobian(checkpoint: Checkpoint, h_f: Array, h_q: Array, hop_x: Array) -> Array:
    """J [state, state], the mean of ∂h_f/∂h_q over hops: h_f = (1 − z) n + z h, n = tanh(… + r U h)."""
    w, state = checkpoint.weights, checkpoint.config.state
    if not len(h_f):
        return np.zeros((state, state), np.float32)
    low, high, mean, deviation = (w[f"scale_hop.{name}"] for name in ("low", "high", "mean", "deviation"))
    x = (np.clip(hop_x, low, high) - mean) / deviation
    w_in = w["flow_update.weight_ih"]
    into = np.concatenate([h_q, x], axis=1) @ w_in.T + w["flow_update.bias_ih"]
    own = h_f @ w["flow_update.weight_hh"].T + w["flow_update.bias_hh"]
    (r_in, z_in, n_in), (r_own, z_own, n_own) = np.split(into, 3, axis=1), np.split(own, 3, axis=1)
    reset, update = _sigmoid(r_in + r_own), _sigmoid(z_in + z_own)
    new = np.tanh(n_in + reset * n_own)
    by_new = (1 - update) * (1 - new**2)
    gates = (by_new * n_own * reset * (1 - reset), (h_f - new) * update * (1 - update), by_new)
    rows = zip(gates, np.split(w_in[:, :state], 3), strict=True)
    return np.asarray(sum(gate.mean(axis=0)[:, None] * row for gate, row in rows), dtype=np.float32)


def _sigmoid(x: Array) -> Array:
    """1 ÷ (1 + e^−x), which overflows nowhere."""
    return np.asarray(0.5 * np.tanh(0.5 * x) + 0.5)
