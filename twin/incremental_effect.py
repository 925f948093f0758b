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
from twin.network import Floats

THROUGH_STATE = 0.5


@dataclass(frozen=True)
class Step:
    """What a step of every queue is worth, by hidden unit where that is at work: on ln of the wait and on ln
    of its deviation, [Q, 2, hidden], straight and by way of flows' states; and on ln of what is lost, [Q]."""

    direct: Floats
    through: Floats
    on_loss: Floats

    def most(self) -> Floats:
        """The largest of any unit, [Q]."""
        by_unit = np.abs(self.direct + self.through).max(axis=(1, 2), initial=0.0)
        return np.asarray(np.maximum(by_unit, self.on_loss))


@dataclass(frozen=True)
class Effects:
    """Of the states of queues on what is read out of a hop."""

    direct: Floats  # [state, hidden] W_q, turned
    through: Floats  # [state, hidden] ½ W_s W_n, turned
    on_wait: Floats  # [hidden] mean of the heads, of ln wait
    on_deviation: Floats  # [hidden] of its ln deviation
    on_loss: Floats  # [hidden, 2] slope and offset of ln blocking

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Effects:
        """From the weights of a model."""
        w, state, heads = checkpoint.weights, checkpoint.config.state, checkpoint.config.heads
        read, new = w["readout.weight"], w["flow_update.weight_ih"][2 * state :, :state]
        through = THROUGH_STATE * read[:, :state] @ new
        out = w["correct.weight"].astype(np.float64)
        return cls(
            direct=read[:, state : 2 * state].T.astype(np.float64),
            through=through.T.astype(np.float64),
            on_wait=out[:heads].mean(axis=0),
            on_deviation=out[heads],
            on_loss=out[heads + 1 :].T,
        )

    def of_step(self, step: Array, ln_blocking: Floats) -> Step:
        """Of steps [Q, state] of the states of queues whose prior's ln blocking is [Q]."""
        direct, through = step @ self.direct, step @ self.through
        slope, offset = (np.abs(direct + through) @ np.abs(self.on_loss)).T
        weights = np.stack([self.on_wait, self.on_deviation])
        return Step(
            direct=direct[:, None, :] * weights,
            through=through[:, None, :] * weights,
            on_loss=np.abs(ln_blocking) * slope + offset,
        )
