"""The loops over flows: what every queue is offered, and what a flow meets on its way.

Nothing as long as all hops is ever made: a flow's hops are read where the network keeps its paths.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from twin.compiled import compiled
from twin.models import path_packet_bits
from twin.network import Floats, Ints, Network, Traffic

PPS, BPS, SQUARES, RATE_VARIANCE, RATE_MEMORY, PAIRS, GAPS = range(7)  # columns of what a queue is offered
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
            path=np.arange(n) if traffic.path is None else traffic.path.astype(np.int64),
            service_class=np.zeros(n, np.int64)
            if traffic.service_class is None
            else traffic.service_class.astype(np.int64),
            pps=traffic.pps,
            bits=path_packet_bits(traffic),
            size_scv=np.full(n, size_scv) if traffic.size_scv is None else traffic.size_scv,
            gap_scv=none if vary is None else vary.gap_scv,
            rate_scv=none if vary is None else vary.rate_scv,
            rate_time_s=none if vary is None else vary.rate_time_s,
            poisson=vary is None,
        )


def offer(network: Network, flows: Flows, blocking: Floats, departure_scv: Floats) -> Floats:
    """What every queue is offered when every queue drops ``blocking`` [Q] of it, [Q, OFFERED]."""
    paths = network.paths
    where = (paths.links, paths.offsets, network.queue_of_class, flows.path, flows.service_class)
    if flows.poisson:
        return _offer_poisson(*where, flows.pps, flows.bits, flows.size_scv, blocking)
    vary = (flows.gap_scv, flows.rate_scv, flows.rate_time_s)
    return _offer(*where, flows.pps, flows.bits, flows.size_scv, *vary, blocking, departure_scv)


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
) -> Floats:
    offered = np.zeros((blocking.shape[0], OFFERED))
    for flow in range(pps.shape[0]):
        rate = pps[flow]
        if rate <= 0.0:
            continue
        path = flow_path[flow]
        mean = bits[flow]
        square = mean * mean * (1.0 + size_scv[flow])
        for hop in range(offsets[path], offsets[path + 1]):
            queue = queue_of_class[links[hop], flow_class[flow]]
            offered[queue, PPS] += rate
            offered[queue, BPS] += rate * mean
            offered[queue, SQUARES] += rate * square
            rate *= 1.0 - blocking[queue]
    return offered


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
    departure_scv: Floats,
) -> Floats:
    offered = np.zeros((blocking.shape[0], OFFERED))
    for flow in range(pps.shape[0]):
        rate = pps[flow]
        if rate <= 0.0:
            continue
        path = flow_path[flow]
        mean = bits[flow]
        square = mean * mean * (1.0 + size_scv[flow])
        for hop in range(offsets[path], offsets[path + 1]):
            queue = queue_of_class[links[hop], flow_class[flow]]
            offered[queue, PPS] += rate
            offered[queue, BPS] += rate * mean
            offered[queue, SQUARES] += rate * square
            offered[queue, RATE_VARIANCE] += rate * rate * rate_scv[flow]
            offered[queue, RATE_MEMORY] += rate * rate * rate_scv[flow] * rate_time_s[flow]
            offered[queue, PAIRS] += rate * rate
            offered[queue, GAPS] += rate * gap_scv[flow]
            rate *= 1.0 - blocking[queue]
    return offered


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
    wait_s: Floats,
    wait_std_s: Floats,
    blocking: Floats,
) -> Floats:
    """Of every flow: queueing + transmission, propagation, jitter and loss, [4, F].

    A packet keeps its size along the path, so its transmission times add up before they vary.
    """
    flows = flow_path.shape[0]
    met = np.zeros((4, flows))
    for flow in range(flows):
        path = flow_path[flow]
        waits = 0.0
        per_bit = 0.0
        fixed = 0.0
        variance = 0.0
        survival = 1.0
        for hop in range(offsets[path], offsets[path + 1]):
            link = links[hop]
            queue = queue_of_class[link, flow_class[flow]]
            waits += wait_s[queue]
            per_bit += 1.0 / capacity_bps[link]
            fixed += propagation_s[link]
            variance += wait_std_s[queue] ** 2
            survival *= 1.0 - blocking[queue]
        transmission = bits[flow] * per_bit
        met[0, flow] = waits + transmission
        met[1, flow] = fixed
        met[2, flow] = np.sqrt(variance + size_scv[flow] * transmission**2)
        met[3, flow] = 1.0 - survival
    return met
