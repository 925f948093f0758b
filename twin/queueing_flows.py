"""The loops over flows: what every queue is offered, and what a flow meets on its way.

Nothing as long as all hops is ever made: a flow's hops are read where the network keeps its paths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from twin.compiled import compiled
from twin.network import Floats, Ints, Network, Traffic

# Columns of what a queue is offered: packets/s λ, bit/s, bit²/s, variance of the bit rate, the same times its
# correlation time; and of the flows' gaps Σ λ(1 − g), Σ λ|1 − g|, Σ λ λ_on |1 − g|, λ_on the rate while on.
PPS, BPS, SQUARES, RATE_VARIANCE, RATE_MEMORY, REGULAR, UNLIKE, UNLIKE_PAIRS = range(8)
OFFERED = 8  # columns, a line of the processor's cache


@dataclass(frozen=True)
class Flows:
    """The flows as the loops want them: every array given, [F] each."""

    path: Ints
    service_class: Ints
    pps: Floats
    bits: Floats  # mean packet
    size_scv: Floats
    gap_scv: Floats
    rate_scv: Floats
    rate_time_s: Floats
    poisson: bool  # the last three say nothing

    @classmethod
    def of(cls, network: Network, traffic: Traffic, size_scv: float) -> Flows:
        """Fill in what the traffic leaves open."""
        n = len(traffic.pps)
        vary = traffic.variability
        none = np.zeros(0)
        return cls(
            path=_each(n) if traffic.path is None else traffic.path.astype(np.int64),
            service_class=_none(n)
            if traffic.service_class is None
            else traffic.service_class.astype(np.int64),
            pps=traffic.pps,
            bits=traffic.packet_bits,
            size_scv=traffic.packet_scv(size_scv),
            gap_scv=none if vary is None else vary.gap_scv,
            rate_scv=none if vary is None else vary.rate_scv,
            rate_time_s=none if vary is None else vary.rate_time_s,
            poisson=vary is None,
        )


@lru_cache(maxsize=4)
def _each(count: int) -> Ints:
    """0 … count − 1, shared."""
    return np.arange(count)


@lru_cache(maxsize=4)
def _none(count: int) -> Ints:
    """Zeros, shared."""
    return np.zeros(count, np.int64)


@dataclass(frozen=True)
class Inlets:
    """The links that lead to each link: those of link l are ``links[offsets[l]:offsets[l + 1]]``."""

    KEPT: ClassVar[str] = "inlets of links"  # among what a network caches of itself

    offsets: Ints  # [L + 1]
    links: Ints  # [I]
    rank: Ints  # [L] place of a link among those into its target

    @classmethod
    def of(cls, network: Network) -> Inlets:
        """From the ends of the links; the network keeps the answer."""
        if cls.KEPT not in network.__dict__:
            network.__dict__[cls.KEPT] = cls._sort(network)
        kept: Inlets = network.__dict__[cls.KEPT]
        return kept

    @classmethod
    def _sort(cls, network: Network) -> Inlets:
        target, source = network.target_index, network.source_index
        into = np.bincount(target, minlength=len(network.nodes))
        first = np.cumsum(into) - into
        order = np.argsort(target, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order)) - first[target[order]]
        offsets = np.concatenate([[0], np.cumsum(into[source])])
        step = np.arange(offsets[-1]) - np.repeat(offsets[:-1], into[source])
        return cls(offsets, order[np.repeat(first[source], into[source]) + step], rank)


Offers = Callable[[Network, Flows, Inlets, Floats], tuple[Floats, Floats]]  # :func:`offer`, or as good


def offer(network: Network, flows: Flows, inlets: Inlets, blocking: Floats) -> tuple[Floats, Floats]:
    """What every queue is offered when every queue drops ``blocking`` [Q] of it, [Q, OFFERED].

    And the packets/s that come from every inlet, [I].
    """
    paths, classes = network.paths, network.queue_of_class
    offered = np.zeros((len(blocking), OFFERED))
    came = np.zeros(len(inlets.links))
    path, klass, pps, bits, scv = flows.path, flows.service_class, flows.pps, flows.bits, flows.size_scv
    begin, rank = inlets.offsets, inlets.rank
    if flows.poisson:
        _offer_poisson(
            paths.links,
            paths.offsets,
            classes,
            path,
            klass,
            pps,
            bits,
            scv,
            blocking,
            begin,
            rank,
            offered,
            came,
        )
    else:
        gap, rate, time = flows.gap_scv, flows.rate_scv, flows.rate_time_s
        _offer(
            paths.links,
            paths.offsets,
            classes,
            path,
            klass,
            pps,
            bits,
            scv,
            gap,
            rate,
            time,
            blocking,
            begin,
            rank,
            offered,
            came,
        )
    return offered, came


@compiled
def _offer_poisson(
    links: Ints,
    offsets: Ints,
    queue_of_class: Ints,
    flow_path: Ints,
    flow_class: Ints,
    pps: Floats,
    bits: Floats,
    size_scv: Floats,
    blocking: Floats,
    inlet_offsets: Ints,
    inlet_rank: Ints,
    offered: Floats,
    came: Floats,
) -> None:
    for flow in range(pps.shape[0]):
        rate = pps[flow]
        if rate <= 0.0:
            continue
        path = flow_path[flow]
        mean = bits[flow]
        square = mean * mean * (1.0 + size_scv[flow])
        inlet = -1
        for hop in range(offsets[path], offsets[path + 1]):
            link = links[hop]
            if inlet >= 0:
                came[inlet_offsets[link] + inlet] += rate
            inlet = inlet_rank[link]
            queue = queue_of_class[link, flow_class[flow]]
            offered[queue, PPS] += rate
            offered[queue, BPS] += rate * mean
            offered[queue, SQUARES] += rate * square
            rate *= 1.0 - blocking[queue]


@compiled
def _offer(
    links: Ints,
    offsets: Ints,
    queue_of_class: Ints,
    flow_path: Ints,
    flow_class: Ints,
    pps: Floats,
    bits: Floats,
    size_scv: Floats,
    gap_scv: Floats,
    rate_scv: Floats,
    rate_time_s: Floats,
    blocking: Floats,
    inlet_offsets: Ints,
    inlet_rank: Ints,
    offered: Floats,
    came: Floats,
) -> None:
    for flow in range(pps.shape[0]):
        rate = pps[flow]
        if rate <= 0.0:
            continue
        path = flow_path[flow]
        mean = bits[flow]
        square = mean * mean * (1.0 + size_scv[flow])
        regular = 1.0 - gap_scv[flow]
        inlet = -1
        for hop in range(offsets[path], offsets[path + 1]):
            link = links[hop]
            if inlet >= 0:
                came[inlet_offsets[link] + inlet] += rate
            inlet = inlet_rank[link]
            queue = queue_of_class[link, flow_class[flow]]
            variance = rate * rate * mean * mean * rate_scv[flow]
            offered[queue, PPS] += rate
            offered[queue, BPS] += rate * mean
            offered[queue, SQUARES] += rate * square
            offered[queue, RATE_VARIANCE] += variance
            offered[queue, RATE_MEMORY] += variance * rate_time_s[flow]
            offered[queue, REGULAR] += rate * regular
            offered[queue, UNLIKE] += rate * abs(regular)
            offered[queue, UNLIKE_PAIRS] += rate * rate * (1.0 + rate_scv[flow]) * abs(regular)
            rate *= 1.0 - blocking[queue]


@compiled
def along(
    links: Ints,
    offsets: Ints,
    queue_of_class: Ints,
    flow_path: Ints,
    flow_class: Ints,
    bits: Floats,
    size_scv: Floats,
    capacity_bps: Floats,
    propagation_s: Floats,
    ahead_s_per_bit: Floats,
    wait_s: Floats,
    wait_std_s: Floats,
    blocking: Floats,
    link_load: Floats,
    policy: Ints,
) -> Floats:
    """Of every flow: queueing + transmission, what is fixed, jitter, loss, and of the most loaded link on its
    way load and policy, [6, F].

    A packet keeps its size along the path, so its transmission times add up before they vary. Fixed are the
    propagation and, to be taken off, by how much shaped links send earlier than at their capacity.
    """
    flows = flow_path.shape[0]
    met = np.zeros((6, flows))
    for flow in range(flows):
        path = flow_path[flow]
        waits = 0.0
        per_bit = 0.0
        ahead = 0.0
        fixed = 0.0
        variance = 0.0
        survival = 1.0
        worst = -1
        for hop in range(offsets[path], offsets[path + 1]):
            link = links[hop]
            queue = queue_of_class[link, flow_class[flow]]
            if worst < 0 or link_load[link] > link_load[worst]:
                worst = link
            waits += wait_s[queue]
            per_bit += 1.0 / capacity_bps[link]
            ahead += ahead_s_per_bit[link]
            fixed += propagation_s[link]
            variance += wait_std_s[queue] ** 2
            survival *= 1.0 - blocking[queue]
        transmission = bits[flow] * per_bit
        met[0, flow] = waits + transmission
        met[1, flow] = fixed - bits[flow] * ahead
        met[2, flow] = np.sqrt(variance + size_scv[flow] * transmission**2)
        met[3, flow] = 1.0 - survival
        if worst >= 0:
            met[4, flow], met[5, flow] = link_load[worst], policy[worst]
    return met
