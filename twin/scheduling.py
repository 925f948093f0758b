"""How the queues of a link share it: FIFO, strict priority, weighted fair queueing, deficit round robin.

A packet carries a class of service, 0 … CLASSES − 1 (RFC 2474 calls it a behaviour aggregate); a link sends
every class to one of its queues. Queue 0 has the highest priority. Every queue has a buffer as large as the
link's.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from twin.errors import TopologyError

CLASSES = 3
POLICIES = ("FIFO", "SP", "WFQ", "DRR")  # their codes are their places here


@dataclass(frozen=True)
class Scheduling:
    """The policy of a link, the queue of every class, and the queues' weights (WFQ, DRR)."""

    policy: str = "FIFO"
    queue_of_class: tuple[int, ...] = (0,) * CLASSES
    weights: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise TopologyError(f"unknown scheduler {self.policy!r}: choose one of {', '.join(POLICIES)}")
        if len(self.queue_of_class) != CLASSES or any(
            not 0 <= queue < len(self.weights) for queue in self.queue_of_class
        ):
            raise TopologyError(
                f"queues of the classes are {self.queue_of_class}: name one of {len(self.weights)} queues "
                f"for each of {CLASSES} classes"
            )
        if not all(isfinite(weight) and weight > 0 for weight in self.weights):
            raise TopologyError(f"weights of queues are {self.weights}: give positive numbers")
        if self.policy == "FIFO" and len(self.weights) != 1:
            raise TopologyError(f"FIFO has one queue, not {len(self.weights)}: use SP, WFQ or DRR")

    @property
    def code(self) -> int:
        """Place of the policy in POLICIES."""
        return POLICIES.index(self.policy)

    @property
    def shares(self) -> tuple[float, ...]:
        """Weights that sum to one."""
        return tuple(weight / sum(self.weights) for weight in self.weights)


FIFO = Scheduling()


def by_class(policy: str, weights: tuple[float, ...] = (1.0,) * CLASSES) -> Scheduling:
    """One queue for every class, class 0 first."""
    return Scheduling(policy, tuple(range(CLASSES)), weights)
