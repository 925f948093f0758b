"""What flows owe: by how much a prediction may be wrong because changes of queues were left, as estimated.

A flow's debt grows with every step of a queue on its way, with its sign where that is known, so that
changes that take each other back cost nothing. It pays by being run again. Debts are kept level by level:
those in features (level 0) are paid by a run from the start, those in the queues' states of a sweep by a run
from there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from twin.chunks import each_chunk
from twin.features_ways import Ways
from twin.incremental_core import (
    DEBTS,
    DELAY,
    JITTER,
    ON_LOSS,
    ON_VARIANCE,
    ON_WAIT,
    OWED,
    UNSURE_DEVIATION,
    UNSURE_OF_BOTH,
    UNSURE_WAIT,
    Bits,
    Crossings,
    Flags,
    over_queues,
    owe,
    owe_shares,
    settle,
)
from twin.incremental_effect import Worth
from twin.incremental_seen import ARRIVAL, SEEN_DEVIATION, SEEN_LOAD, SEEN_LOSS, SEEN_WAIT, SERVICE
from twin.inference_cpu import Array
from twin.inference_kernel import HIDDEN
from twin.network import Floats, Ints
from twin.queueing import LinkQueues

OF_FEATURES = 3.0  # a step in load is worth so much on ln of the wait: much, where queues are filling
NOTHING = np.float32(0.0)
LASTING = np.float32(1.0)  # of a step of a flow's state in one sweep the next sweep feels so much
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
        worth = replace(Worth.of_nothing(queues), moved=moved)
        unsure = OF_FEATURES * np.abs(steps[moved][:, [SERVICE, SEEN_LOAD]]).max(axis=1, initial=0.0)
        worth.table[moved, ON_WAIT] = queues.wait_s[moved] * steps[moved, SEEN_WAIT]
        worth.table[moved, ON_VARIANCE] = queues.wait_std_s[moved] ** 2 * steps[moved, SEEN_DEVIATION]
        worth.table[moved, ON_LOSS] = np.abs(steps[moved, SEEN_LOSS])
        for column in (UNSURE_OF_BOTH, UNSURE_WAIT, UNSURE_DEVIATION):
            worth.table[moved, column] = unsure
        self.charge(0, worth, run)

    def charge(self, level: int, worth: Worth, run: Flags) -> None:
        """For steps in the states of queues; those that owe more than the limit are to run."""
        flows, offsets = self._over(worth.moved), self.ways.hops.offsets
        lasting = LASTING if 0 < level < self.levels else NOTHING

        def charge(_: int, low: int, high: int) -> None:
            owe(
                flows[low:high], offsets, self.queue_of_hop, worth.table, self.at_work, self.usual,
                worth.matter, worth.terms, lasting, self.table, level, self.limit, run,
            )  # fmt: skip

        each_chunk(len(flows), self.threads, charge)

    def pay(self, level: int, flows: Ints) -> None:
        """``flows``, which run from this level on, owe nothing there; nor for the prior's waits, which the
        last reads anew."""
        settle(self.table, flows, OWED + DEBTS * level, OWED + DEBTS * (level + 1))
        if level == self.levels:
            settle(self.table, flows, OWED + DELAY, OWED + JITTER + 1)

    def _over(self, moved: Flags) -> Ints:
        """The flows over ``moved`` queues; all where these are many."""
        crossings = self.crossings
        few = int(FEW * len(self.queue_of_hop))
        return over_queues(
            moved, self.queue_link, crossings.offsets, crossings.flows, crossings.queues, len(self.table), few
        )
