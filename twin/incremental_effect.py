"""What it does to a flow's prediction when a queue on its way changes: an estimate, to tell what may be left.

Theory
------
The read-out of a hop is r = W_o · relu(y), with y = W_q h_q + W_s h_f + …, and h_f in its turn takes in h_q
through the new gate of the GRU, by about half. A step Δh_q thus moves y by A Δh_q, A = W_q + ½ W_s W_n, and a
hidden unit passes that on where it is at work. For nine tenths of the units that is the same for all hops
over a queue, so the effect is summed once a queue over the units that are at work for most, and corrected for
the odd ones of a hop (:mod:`twin.incremental_account`).

On networks of the lab, as many flows move by more than 1e-4 as this says, within a tenth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from twin.checkpoint import Checkpoint
from twin.inference_cpu import Array
from twin.inference_kernel import affine, aligned
from twin.network import Floats

THROUGH_STATE = 0.5


@dataclass(frozen=True)
class Step:
    """What a step of every queue does to the hidden units of the read-out, [Q, hidden], straight and by way
    of flows' states; what that is worth where a unit is at work; and what it is worth on ln of losses, [Q].
    """

    direct: Array
    through: Array
    weights: Array  # [2, hidden] on ln of the wait, on ln of its deviation
    on_loss: Array
    lost: Array  # [Q] at most so much is lost there, a hundredfold

    @property
    def moves(self) -> Array:
        """Both ways together, [Q, hidden]."""
        return self.direct + self.through

    def most(self) -> Array:
        """The worth of the unit that moves most, or of what is lost, [Q]."""
        by_unit = np.abs(self.moves) * np.abs(self.weights).max(axis=0)
        return np.asarray(np.maximum(by_unit.max(axis=1, initial=0.0), self.on_loss * self.lost))


@dataclass(frozen=True)
class Effects:
    """Of the states of queues on what is read out of a hop."""

    direct: Array  # [state, hidden] W_q, turned
    through: Array  # [state, hidden] ½ W_s W_n, turned
    weights: Array  # [2, hidden] of ln wait, the mean of the heads, and of its ln deviation
    on_loss: Array  # [hidden, 2] slope and offset of ln blocking

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Effects:
        """From the weights of a model."""
        w, state, heads = checkpoint.weights, checkpoint.config.state, checkpoint.config.heads
        read, new = w["readout.weight"], w["flow_update.weight_ih"][2 * state :, :state]
        out = w["correct.weight"]
        return cls(
            direct=aligned(read[:, state : 2 * state].T),
            through=aligned((np.float32(THROUGH_STATE) * read[:, :state] @ new).T),
            weights=np.stack([out[:heads].mean(axis=0), out[heads]]),
            on_loss=aligned(out[heads + 1 :].T),
        )

    def of_step(self, step: Array, ln_blocking: Floats) -> Step:
        """Of steps [Q, state] of the states of queues whose prior's ln blocking is [Q]."""
        none = np.zeros(self.direct.shape[1], np.float32)
        direct, through = affine(step, self.direct, none), affine(step, self.through, none)
        slope, offset = (np.abs(direct + through) @ np.abs(self.on_loss)).T
        on_loss = np.abs(ln_blocking).astype(np.float32) * slope + offset
        lost = np.float32(100.0) * np.exp(ln_blocking.astype(np.float32) / 2)  # the correction may double ln
        return Step(direct, through, self.weights, on_loss, lost)
