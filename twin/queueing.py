"""Queueing models: every queue is finite, and tied to the others by what each lets through.

Theory
------
Packets arrive at a queue as a Poisson stream of rate λ, with mean service time S = E[bits]/C, offered load
ρ = λS and squared coefficient of variation c of the service time. The buffer holds K packets, the one in
service included.

1. *Mixture.* Flows of different mean size share a queue, so E[bits] and E[bits²] are packet-weighted sums
   over the flows that cross it; c follows from both. A flow whose packets vary by ``size_scv`` around its
   mean contributes mean²·(1 + size_scv) to the second moment.
2. *Blocking* p_K: Smith's two-moment formula for M/G/1/K (J. M. Smith, "Optimal design and performance
   modelling of M/G/1/K queueing systems", 2004); exact for c = 1, where it is M/M/1/K.
3. *Occupancy.* p_n = a·θ^(n−1) for 1 ≤ n < K, with Σ p_n = ρ(1 − p_K) so that the server is busy exactly as
   long as what is carried needs. θ = ρ(1+c)/(2(1−ρ) + ρ(1+c)) makes the untruncated mean the
   Pollaczek-Khinchine mean for every c; the often-used θ = ρ^(2/(1+c)) does so for c = 1 only and loses 5 to
   50 % of the wait below it. Against exact M/G/1/K chains the mean wait is right within 1 % (tests).
4. *Wait* by Little's law: W = L/(λ(1 − p_K)) − S. Its variance: who finds n packets waits n − 1 services
   and one residual.
5. *Thinning.* What a queue drops never reaches the next: λ of a queue sums over flows the rate that survives
   upstream. Blocking and rates are iterated, damped, to a fixed point.
6. *Several queues on a link* (:mod:`twin.queueing_sharing`): each is a finite queue behind a slower server.

Bursty arrivals enter by Allen and Cunneen's rule: c is replaced by c + c_a − 1.

A flow's delay is, hop by hop, the queue's wait, the transmission of the *flow's own* mean packet and the
propagation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from twin.models import PathPrediction, check_traffic
from twin.network import Floats, Network, Paths, Traffic
from twin.queueing_finite import smith_blocking
from twin.queueing_flows import BPS, PPS, SQUARES, Flows, along, offer
from twin.queueing_sharing import BLOCKING, WAIT, WAIT_STD, serve

__all__ = ["MG1K", "MM1B", "LinkQueues", "interval_width", "smith_blocking", "sum_hops", "transmission_s"]

SIZE_SCV = 0.46  # 80 and 1,500-octet packets that average 1,000 octets: what a flow is taken to carry
PASSES = 24  # at most; light networks need two
DAMPING = 0.5
TOLERANCE = 1e-5  # in blocking probability


@dataclass(frozen=True)
class LinkQueues:
    """The fixed point: every queue, [Q] each, and every link, [L] each. With FIFO alone, Q = L."""

    arrival_pps: Floats  # offered to the queue, after losses upstream
    arrival_bps: Floats
    service_s: Floats  # mean transmission time, at the link's full speed, of the packets it sees
    service_scv: Floats  # squared coefficient of variation of that time
    load: Floats  # ρ offered: arrival_bps ÷ the link's capacity
    blocking: Floats  # share of packets dropped
    wait_s: Floats  # mean, of packets that get in
    wait_std_s: Floats
    occupancy: Floats  # mean packets in the system
    buffer_packets: Floats  # the buffer; one of bits ÷ mean packet
    link_load: Floats  # [L] ρ offered by all queues of a link
    utilisation: Floats  # [L] carried load, at most one


class MG1K:
    """Two-moment M/G/1/K queues with loss thinning: the strong baseline, and the prior of the GNN."""

    name: ClassVar[str] = "mg1k"
    version: ClassVar[str] = "2"
    # Half-width of the interval on ln(queueing + transmission): 0.9 quantile of the error on the test slice
    # "random" of twin.training.evaluate, half of it Poisson and half bursty.
    log_width: ClassVar[float] = 0.24

    def __init__(self, *, size_scv: float = SIZE_SCV, arrival_scv: float = 1.0) -> None:
        self.size_scv = size_scv
        self.arrival_scv = arrival_scv

    def predict(self, network: Network, traffic: Traffic) -> PathPrediction:
        """Predict all flows from the fixed point of the queues."""
        check_traffic(network, traffic)
        flows = Flows.of(network, traffic, self.size_scv)
        return self._assemble(network, flows, self._solve(network, flows))

    def solve(self, network: Network, traffic: Traffic) -> LinkQueues:
        """The queues at their fixed point."""
        check_traffic(network, traffic)
        return self._solve(network, Flows.of(network, traffic, self.size_scv))

    def _solve(self, network: Network, flows: Flows) -> LinkQueues:
        blocking = np.zeros(len(network.queue_link))
        follows = np.zeros((len(blocking), 3))
        for step in range(PASSES):
            queues, follows = self._serve(network, flows, offer(network, flows, blocking, blocking), follows)
            change = queues.blocking - blocking
            blocking += change if step == 0 else DAMPING * change
            if np.abs(change).max(initial=0.0) < TOLERANCE:
                break
        return queues

    def _serve(
        self, network: Network, flows: Flows, offered: Floats, before: Floats
    ) -> tuple[LinkQueues, Floats]:
        """What the queues make of what they are offered, [Q, OFFERED]."""
        pps, bps = offered[:, PPS], offered[:, BPS]
        some = pps > 0
        bits = np.divide(
            bps, pps, out=np.full(len(pps), flows.bits.mean() if len(flows.bits) else 1.0), where=some
        )
        raw = np.divide(
            offered[:, SQUARES], pps * bits**2, out=np.full(len(pps), 1 + self.size_scv), where=some
        )
        size_scv = np.maximum(raw - 1.0, 0.0)
        capacity = network.capacity_bps[network.queue_link]
        in_bits = network.buffer_bits[network.queue_link]
        counted = network.buffer_packets[network.queue_link].astype(np.float64)
        buffers = np.where(in_bits > 0, np.maximum(in_bits / bits, 1.0), counted)
        service, load = bits / capacity, bps / capacity
        scv = np.maximum(size_scv + self._arrival_scv(offered) - 1.0, 0.0)
        follows = self._share(network, np.column_stack([load, service, size_scv, scv, buffers]), before)
        blocking, wait = follows[:, BLOCKING], follows[:, WAIT]
        queues = LinkQueues(
            arrival_pps=pps,
            arrival_bps=bps,
            service_s=service,
            service_scv=size_scv,
            load=load,
            blocking=blocking,
            wait_s=wait,
            wait_std_s=follows[:, WAIT_STD],
            occupancy=np.minimum(pps * (1 - blocking) * (wait + service), buffers),
            buffer_packets=buffers,
            link_load=_per_link(network, load),
            utilisation=np.minimum(_per_link(network, load * (1 - blocking)), 1.0),
        )
        return queues, follows

    def _share(self, network: Network, told: Floats, before: Floats) -> Floats:
        """Blocking, wait and its deviation, [Q, 3]."""
        return serve(told, network.queue_offsets, network.policy, network.queue_share, before)

    def _arrival_scv(self, offered: Floats) -> Floats:
        """Squared variation of the gaps between arrivals, [Q]."""
        return np.full(len(offered), self.arrival_scv)

    def _assemble(self, network: Network, flows: Flows, queues: LinkQueues) -> PathPrediction:
        """Sum the queues along every path."""
        queueing, fixed, jitter, loss = along(
            network.paths.links,
            network.paths.offsets,
            network.queue_of_class,
            flows.path,
            flows.service_class,
            flows.bits,
            flows.size_scv,
            network.capacity_bps,
            network.propagation_delay_s,
            queues.wait_s,
            queues.wait_std_s,
            queues.blocking,
        )
        return PathPrediction(
            mean_s=queueing + fixed,
            jitter_s=jitter,
            loss=loss,
            log_width=interval_width(queueing, fixed, np.full(len(queueing), self.log_width)),
            link_utilisation=queues.utilisation,
        )


class MM1B(MG1K):
    """M/M/1/b queues, the weak baseline of the papers.

    Sizes and gaps are taken as exponential and every link as one FIFO queue with the buffer of one of its
    queues, whatever they are; this is how the papers' authors compare.
    """

    name: ClassVar[str] = "mm1b"
    log_width: ClassVar[float] = 0.29

    def _share(self, network: Network, told: Floats, before: Floats) -> Floats:
        link = network.queue_link
        links = len(network.links)
        load = np.bincount(link, weights=told[:, 0], minlength=links)
        rate = np.bincount(link, weights=told[:, 0] / told[:, 1], minlength=links)
        first = network.queue_offsets[:-1]
        service = np.divide(load, rate, out=told[first, 1].copy(), where=rate > 0)
        in_bits = network.buffer_bits
        buffers = np.where(
            in_bits > 0,
            np.maximum(in_bits / (service * network.capacity_bps), 1.0),
            network.buffer_packets.astype(np.float64),
        )
        ones = np.ones(links)
        told = np.column_stack([load, service, ones, ones, buffers])
        each = np.arange(links + 1)
        return serve(told, each, np.zeros(links, np.int64), ones, np.zeros((links, 3)))[link]


def _per_link(network: Network, values: Floats) -> Floats:
    """Sum float[Q] over the queues of every link, [L]."""
    sums: Floats = np.bincount(network.queue_link, weights=values, minlength=len(network.links)).astype(
        np.float64
    )
    return sums


def sum_hops(paths: Paths, values: Floats) -> Floats:
    """Sum float[H] over the hops of every path, [P]."""
    sums: Floats = np.bincount(paths.hop_path, weights=values, minlength=len(paths.lengths)).astype(
        np.float64
    )
    return sums


def transmission_s(network: Network, bits: Floats) -> Floats:
    """Time on the wires of a packet of ``bits`` [P] along every path, [P]."""
    return bits * sum_hops(network.paths, 1.0 / network.capacity_bps[network.paths.links])


def interval_width(queueing_s: Floats, fixed_s: Floats, width: Floats) -> Floats:
    """Log half-width of the whole delay when only its queueing part is uncertain by exp(±width)."""
    total = queueing_s + fixed_s
    high = fixed_s + queueing_s * np.exp(width)
    return np.log(np.divide(high, total, out=np.ones_like(total), where=total > 0))
