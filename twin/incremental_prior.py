"""What has changed between two states of a network, and the queueing model's part of following it.

The fixed point of the queueing model is a series of passes. A pass asks what the flows offer to every queue
when every queue drops what it did in the pass before; :class:`OfferMemory` remembers the answers, and sums
anew over those links alone whose packets have changed. The series itself runs as always, from the start, so
it ends where it would have ended.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from twin.features_ways import Ways
from twin.incremental_core import Crossings, offer_links, touched_links
from twin.network import Floats, Ints, Link, Network, Traffic
from twin.queueing_flows import Flows, Inlets, offer

SAME = 1e-13  # of what a queue lets through: less is rounding
DEAREST = 0.25  # share of all hops beyond which a pass over all flows is cheaper than one over some links
# What a network computes of itself from its topology and routing alone:
GROUND = (
    "node_index", "link_names", "source_index", "target_index", "policy", "queue_offsets", "queue_link",
    "queue_rank", "queue_share", "queue_of_class", "ends", "paths", Inlets.KEPT, Ways.KEPT,
)  # fmt: skip


def same_ground(before: Network, after: Network) -> bool:
    """Whether both have the same nodes, links, routes and schedulers; then ``after`` takes over what was
    computed of them. Capacities, propagation and buffers may differ."""
    if before is after:
        return True
    routed = before.routes is after.routes and np.array_equal(before.next_link, after.next_link)
    same = (
        routed
        and before.nodes == after.nodes
        and len(before.links) == len(after.links)
        and all(map(_same_place, before.links, after.links))
    )
    if same:
        for name in GROUND:
            if name in before.__dict__:
                after.__dict__.setdefault(name, before.__dict__[name])
    return same


def _same_place(before: Link, after: Link) -> bool:
    return before is after or (
        (before.source, before.target, before.up, before.scheduling)
        == (after.source, after.target, after.up, after.scheduling)
        and before.source_interface == after.source_interface
    )


def same_flows(before: Traffic, after: Traffic) -> bool:
    """Whether flow k takes the same path in the same class in both, and both tell the same of their flows."""
    return (
        len(before.pps) == len(after.pps)
        and _same(before.path, after.path)
        and _same(before.service_class, after.service_class)
        and (before.size_scv is None) == (after.size_scv is None)
        and (before.variability is None) == (after.variability is None)
        and before.observed_s == after.observed_s
    )


def _same(before: Ints | None, after: Ints | None) -> bool:
    if before is None or after is None:
        return before is after
    return before is after or np.array_equal(before, after)


def changed_flows(before: Traffic, after: Traffic) -> Ints:
    """The flows that differ in rate, size or variability; both are :func:`same_flows`."""
    changed = (before.bps != after.bps) | (before.pps != after.pps)
    if before.size_scv is not None and after.size_scv is not None:
        changed |= before.size_scv != after.size_scv
    if before.variability is not None and after.variability is not None:
        for name in ("gap_scv", "rate_scv", "rate_time_s"):
            changed |= getattr(before.variability, name) != getattr(after.variability, name)
    return np.flatnonzero(changed)


def changed_wires(before: Network, after: Network) -> Ints:
    """The links that differ in speed or length; both are :func:`same_ground`."""
    if before is after:
        return np.zeros(0, np.int64)
    differ = (before.capacity_bps != after.capacity_bps) | (before.line_rate_bps != after.line_rate_bps)
    return np.flatnonzero(differ | (before.propagation_delay_s != after.propagation_delay_s))


@dataclass
class _Pass:
    """One question and its answer."""

    survival: Floats  # [Q] what every queue lets through
    offered: Floats  # [Q, OFFERED]
    came: Floats  # [I]


class OfferMemory:
    """:func:`twin.queueing_flows.offer` for states of a network that follow one another."""

    def __init__(self, ways: Ways, crossings: Crossings) -> None:
        self.ways, self.crossings = ways, crossings
        self.passes: list[_Pass] = []
        self.asked = 0
        self.changed: Ints = np.zeros(0, np.int64)

    def begin(self, changed: Ints) -> None:
        """A new fixed point, of the state in which these flows differ from the state before."""
        del self.passes[self.asked :]
        self.asked, self.changed = 0, changed

    def __call__(
        self, network: Network, flows: Flows, inlets: Inlets, blocking: Floats
    ) -> tuple[Floats, Floats]:
        """What the flows offer to every queue, and what comes from every inlet."""
        if self.asked == len(self.passes):
            self.passes.append(_Pass(1 - blocking, *offer(network, flows, inlets, blocking)))
        else:
            self._follow(self.passes[self.asked], network, flows, inlets, blocking)
        answer = self.passes[self.asked]
        self.asked += 1
        return answer.offered.copy(), answer.came.copy()

    def _follow(self, known: _Pass, network: Network, flows: Flows, inlets: Inlets, blocking: Floats) -> None:
        ways, crossings, survival = self.ways, self.crossings, 1 - blocking
        moved = np.abs(survival - known.survival) > SAME
        touched = touched_links(
            self.changed, moved, network.queue_link, crossings.offsets, crossings.hops, crossings.flows,
            crossings.queues, ways.hops.offsets, ways.hops.links, len(network.links),
        )  # fmt: skip
        known.survival = np.where(moved, survival, known.survival)
        if np.diff(crossings.offsets)[touched].sum() > DEAREST * len(ways.queues):
            known.survival = survival
            known.offered, known.came = offer(network, flows, inlets, blocking)
            return
        offer_links(
            touched, crossings.offsets, crossings.hops, crossings.flows, crossings.queues,
            ways.hops.offsets, ways.hops.links, ways.queues, network.queue_offsets, flows.pps, flows.bits,
            flows.size_scv, flows.gap_scv, flows.rate_scv, flows.rate_time_s, survival, inlets.offsets,
            inlets.rank, known.offered, known.came,
        )  # fmt: skip
