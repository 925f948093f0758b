"""What flows owe: by how much a prediction may be wrong because changes of queues were left, as estimated.

A flow's debt grows with every step of a queue on its way, with its sign where that is known, so that
changes that take each other back cost nothing. It pays by being run again. Debts are kept level by level:
those in features (level 0) are paid by a run from the start, those in the queues' states of a sweep by a run
from there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from twin.chunks import each_chunk
from twin.features_ways import Ways
from twin.incremental_core import DEBTS, OWED, Bits, Crossings, Flags, owe, owe_shares
from twin.incremental_effect import Step
from twin.incremental_seen import ARRIVAL, SEEN_DEVIATION, SEEN_LOAD, SEEN_LOSS, SEEN_WAIT, SERVICE
from twin.inference_cpu import Array
from twin.inference_kernel import HIDDEN
from twin.network import Floats, Ints
from twin.queueing import LinkQueues

OF_FEATURES = 3.0  # a step in load is worth so much on ln of the wait: much, where queues are filling
# A step in a sweep before the last lasts in the flow's state and reaches every hop read out: worth more, on …
EARLIER = np.array([[1.0], [8.0]], np.float32)  # … ln wait, ln deviation
MISJUDGED = 1.2  # what a step does by way of a flow's state, of all units together
LEAST_UNIT = 0.3  # of the limit: an odd unit that is worth less does not matter
FEW = 0.3  # of all hops: beyond, to look at all flows is faster than to find some


@dataclass
class Accounts:
    """The debts of all flows, and what they are reckoned by."""

    ways: Ways
    crossings: Crossings
    queue_link: Ints  # [Q]
    queue_of_hop: Bits  # [H]
    table: Floats  # [F, OWED + DEBTS · levels]
    at_work: Bits  # [H] bit j: hidden unit j of the read-out of a hop was
    usual: Bits  # [Q] the same for most hops over a queue
    limit: float
    threads: int

    @property
    def levels(self) -> int:
        """The last level: the sweep that reads out."""
        return int(self.table.shape[1] - OWED) // DEBTS - 1

    @classmethod
    def of(
        cls, ways: Ways, crossings: Crossings, queue_link: Ints, levels: int, limit: float, threads: int
    ) -> Accounts:
        """No debts."""
        flows, hops = len(ways.hops.offsets) - 1, len(ways.queues)
        return cls(
            ways=ways,
            crossings=crossings,
            queue_link=queue_link,
            queue_of_hop=np.asarray(ways.queues, dtype=np.int32),
            table=np.zeros((flows, OWED + DEBTS * levels)),
            at_work=np.zeros(hops, np.int32),
            usual=np.zeros(len(queue_link), np.int32),
            limit=limit,
            threads=threads,
        )

    def count(self) -> None:
        """Find out what is usual, once all flows were run."""
        hops = np.bincount(self.ways.queues, minlength=len(self.usual))
        self.usual[:] = 0
        for unit in range(HIDDEN):
            at_work = np.bincount(self.ways.queues, self.at_work >> unit & 1, len(self.usual))
            self.usual |= np.asarray(2 * at_work > hops, dtype=np.int32) << unit

    def charge_features(
        self, queues: LinkQueues, moved: Flags, steps: Floats, inlet_steps: Floats, hop_x: Array, run: Flags
    ) -> None:
        """For ``steps`` [Q, SEEN] and ``inlet_steps`` [I] in what flows see of queues that have ``moved``."""
        crossings = self.crossings
        owe_shares(
            moved, np.abs(steps[:, ARRIVAL]), np.abs(inlet_steps), self.queue_link, crossings.offsets,
            crossings.hops, crossings.flows, crossings.queues, self.ways.inlets, hop_x, queues.wait_s,
            queues.wait_std_s, self.table,
        )  # fmt: skip
        unsure = OF_FEATURES * np.abs(steps[:, [SERVICE, SEEN_LOAD]]).max(axis=1)
        loss = np.abs(steps[:, SEEN_LOSS])
        none = np.zeros(len(moved))
        seen = (steps[:, SEEN_WAIT], steps[:, SEEN_DEVIATION], loss)
        ln = np.column_stack([*seen, unsure, none, none, unsure, unsure])
        self._charge(0, queues, moved, ln, np.zeros((len(moved), 2, HIDDEN), np.float32), run)

    def charge_states(self, level: int, queues: LinkQueues, moved: Flags, step: Step, run: Flags) -> None:
        """For steps in the states of queues that have ``moved``."""
        usual = (self.usual[:, None] >> np.arange(HIDDEN) & 1).astype(np.float32)
        moves, none = step.moves, np.zeros(len(moved))
        weights = step.weights if level == self.levels else step.weights * EARLIER
        by_units, by_states = (moves * usual) @ weights.T, (step.through * usual) @ weights.T
        unsure = MISJUDGED * (np.abs(step.through) @ np.abs(weights.T))
        odd = (moves * (1 - 2 * usual))[:, None, :] * weights
        self._charge(
            level, queues, moved, np.column_stack([by_units, step.on_loss, none, by_states, unsure]), odd, run
        )

    def _charge(
        self, level: int, queues: LinkQueues, moved: Flags, ln: Floats, odd_terms: Array, run: Flags
    ) -> None:
        """Those that owe more than the limit are to run. ``ln`` [Q, 8]: on wait, deviation and loss, unsure
        of both, and by way of flows' states on wait and deviation, and what is unsure of these."""
        wait, variance = queues.wait_s, queues.wait_std_s**2
        one = np.ones(len(wait))
        scale = np.column_stack([wait, variance, *[one] * 6])
        changes = np.where(moved[:, None], scale * ln, 0.0)
        worth = np.column_stack([changes, wait, variance]).astype(np.float32)
        matter = moved[:, None] & (np.abs(odd_terms).max(axis=1) > LEAST_UNIT * self.limit)
        each = scale[:, :2, None].astype(np.float32) * odd_terms
        bits = np.asarray(matter @ (1 << np.arange(HIDDEN)), dtype=np.int32)
        flows, offsets = self._over(moved), self.ways.hops.offsets

        def charge(_: int, low: int, high: int) -> None:
            owe(
                flows[low:high], offsets, self.queue_of_hop, worth, self.at_work, self.usual, bits, each,
                self.table, level, self.limit, run,
            )  # fmt: skip

        each_chunk(len(flows), self.threads, charge)

    def pay(self, level: int, flows: Ints) -> None:
        """``flows``, which run from this level on, owe nothing there."""
        self.table[flows, OWED + DEBTS * level : OWED + DEBTS * (level + 1)] = 0.0

    def _over(self, moved: Flags) -> Ints:
        """The flows over links of ``moved`` queues; all where these are many."""
        links = np.unique(self.queue_link[moved])
        if np.diff(self.crossings.offsets)[links].sum() > FEW * len(self.queue_of_hop):
            return np.arange(len(self.table))
        over = np.zeros(len(self.table), np.bool_)
        for link in links:
            over[self.crossings.over(link)] = True
        return np.flatnonzero(over)
