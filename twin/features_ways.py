"""The ways of all flows, and where the packets of every queue come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from twin.features_core import inlets_of_hops
from twin.network import Ints, Network, Paths, Traffic
from twin.queueing_flows import Inlets


@dataclass(frozen=True)
class Ways:
    """The hops of all flows: what follows from the network, and from the paths and classes of the flows."""

    KEPT: ClassVar[str] = "ways of flows"  # among what a network caches of itself

    hops: Paths
    queues: Ints  # [H]
    inlets: Ints  # [H] where a hop's packets come to its queue from
    inlet_base: Ints  # [Q] the inlets of queue q begin here; the first is the node itself
    inlet_link: Ints  # [I] −1: the node itself

    @classmethod
    def of(cls, network: Network, traffic: Traffic) -> Ways:
        """Where flow k is path k, all of one class, the network keeps the answer."""
        if traffic.path is not None or traffic.service_class is not None:
            return cls._walk(network, traffic)
        if cls.KEPT not in network.__dict__:
            network.__dict__[cls.KEPT] = cls._walk(network, traffic)
        kept: Ways = network.__dict__[cls.KEPT]
        return kept

    @classmethod
    def _walk(cls, network: Network, traffic: Traffic) -> Ways:
        """Packets of one previous link come one after the other and so never collide on a link as fast: how
        the packets of a queue spread over its inlets decides how much of a queue they can form."""
        hops, queues, inlets = traffic.hops(network), traffic.hop_queues(network), Inlets.of(network)
        slots = 1 + np.diff(inlets.offsets)[network.queue_link]
        base = np.cumsum(slots) - slots
        ends = network.source_index, network.target_index
        of_hops = inlets_of_hops(hops.offsets, hops.links, queues, base, inlets.rank, *ends)
        return cls(hops, queues, of_hops, base, _inlet_links(network, inlets, slots, base))


def _inlet_links(network: Network, inlets: Inlets, slots: Ints, base: Ints) -> Ints:
    """The link of every inlet of every queue, [I]; −1 for the node itself, which comes first."""
    queue = np.repeat(np.arange(len(slots)), slots)
    place = np.arange(len(queue)) - base[queue]
    found = np.full(len(queue), -1)
    from_link = place > 0
    at = inlets.offsets[network.queue_link[queue[from_link]]] + place[from_link] - 1
    found[from_link] = inlets.links[at]
    return found
