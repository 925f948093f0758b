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

7. *Arrivals that are not Poisson* (:mod:`twin.queueing_arrivals`): by Allen and Cunneen's rule c becomes
   c + c_a² − 1, for regular flows and for links with few inlets; rates that waver correct what follows.

A flow's delay is, hop by hop, the queue's wait, the transmission of the *flow's own* mean packet (at the line
rate where a link is shaped) and the propagation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from twin.intervals import Intervals, group_of, sampling_noise
from twin.models import PathPrediction, check_traffic
from twin.network import Floats, Ints, Network, Paths, Traffic
from twin.queueing_arrivals import gap_excess, inlet_excess, set_bursts
from twin.queueing_finite import smith_blocking
from twin.queueing_flows import (
    BPS,
    PPS,
    RATE_MEMORY,
    RATE_VARIANCE,
    REGULAR,
    SQUARES,
    UNLIKE,
    UNLIKE_PAIRS,
    Flows,
    Inlets,
    Offers,
    along,
    offer,
)
from twin.queueing_precedence import (
    BLOCKING,
    BUFFER,
    BURST_WAIT,
    LOAD,
    SCV,
    SERVICE,
    SMOOTHING,
    TOLD,
    WAIT,
    WAIT_STD,
    seen_load,
)
from twin.queueing_precedence import SIZE_SCV as OF_SIZES
from twin.queueing_sharing import serve
from twin.queueing_widths import MG1K_INTERVALS, MM1B_INTERVALS

__all__ = ["MG1K", "MM1B", "LinkQueues", "interval_width", "smith_blocking", "sum_hops", "transmission_s"]

SIZE_SCV = 0.46  # 80 and 1,500-octet packets that average 1,000 octets: what a flow is taken to carry
PASSES = 24  # at most; light networks need two
DAMPING = 0.5
TOLERANCE = 1e-5  # in blocking probability
LEAST_SMOOTHING = 0.05
LEAST_SCV = -0.9  # of sizes and arrivals together: regular arrivals wait less than 1 + c = 0 says
BURST_PASSES = 4  # passes from one look at bursts to the next


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


@dataclass(frozen=True)
class _Demand:
    """What the queues are asked to do, [Q] each."""

    pps: Floats
    bps: Floats
    service_s: Floats
    size_scv: Floats
    load: Floats
    buffers: Floats

    def queues(self, network: Network, follows: Floats) -> LinkQueues:
        """Together with what follows from it, [Q, 3]."""
        blocking, wait = follows[:, BLOCKING], follows[:, WAIT]
        carried = self.load * (1 - blocking)
        return LinkQueues(
            arrival_pps=self.pps,
            arrival_bps=self.bps,
            service_s=self.service_s,
            service_scv=self.size_scv,
            load=self.load,
            blocking=blocking,
            wait_s=wait,
            wait_std_s=follows[:, WAIT_STD],
            occupancy=np.minimum(self.pps * (1 - blocking) * (wait + self.service_s), self.buffers),
            buffer_packets=self.buffers,
            link_load=_per_link(network, self.load),
            utilisation=np.minimum(_per_link(network, carried), 1.0),
        )


class MG1K:
    """Two-moment M/G/1/K queues with loss thinning: the strong baseline, and the prior of the GNN."""

    name: ClassVar[str] = "mg1k"
    version: ClassVar[str] = "3"
    intervals: ClassVar[Intervals] = MG1K_INTERVALS

    def __init__(self, *, size_scv: float = SIZE_SCV, arrival_scv: float = 1.0) -> None:
        self.size_scv = size_scv
        self.arrival_scv = arrival_scv

    def predict(self, network: Network, traffic: Traffic) -> PathPrediction:
        """Predict all flows from the fixed point of the queues."""
        return self.parts(network, traffic)[0]

    def parts(self, network: Network, traffic: Traffic) -> tuple[PathPrediction, Floats, Ints, Floats]:
        """The prediction, and of every flow propagation (s), policy and load of its most loaded link."""
        check_traffic(network, traffic)
        flows = Flows.of(network, traffic, self.size_scv)
        packets = traffic.pps * (traffic.observed_s or 0.0)
        return self._assemble(network, flows, self._solve(network, flows), packets)

    def solve(self, network: Network, traffic: Traffic, *, offers: Offers = offer) -> LinkQueues:
        """The queues at their fixed point."""
        check_traffic(network, traffic)
        return self._solve(network, Flows.of(network, traffic, self.size_scv), offers)

    def _solve(self, network: Network, flows: Flows, offers: Offers = offer) -> LinkQueues:
        inlets = Inlets.of(network)
        blocking = np.zeros(len(network.queue_link))
        follows = np.zeros((len(blocking), 3))
        passes = np.full(len(blocking), -1.0)
        for step in range(PASSES):
            if step == 0 or (1 - blocking != passes).any():  # else flows offer what they did
                passes = 1 - blocking
                offered, came = offers(network, flows, inlets, blocking)
            demand = self._demand(network, flows, offered)
            told = self._told(network, demand, offered, inlets, came, follows)
            if step < 2 or step % BURST_PASSES == 0:
                bursts = self._bursts(network, flows, told, follows, offered)
            told[:, BURST_WAIT:] = bursts
            follows = self._share(network, told, follows)
            change = follows[:, BLOCKING] - blocking
            blocking += change if step == 0 else DAMPING * change
            settled = step > 0 or flows.poisson  # bursts are seen against waits, of which there are none yet
            if settled and np.abs(change).max(initial=0.0) < TOLERANCE:
                break
        return demand.queues(network, follows)

    def _demand(self, network: Network, flows: Flows, offered: Floats) -> _Demand:
        """Loads, services and buffers from what the queues are offered, [Q, OFFERED]."""
        pps, bps = offered[:, PPS], offered[:, BPS]
        idle = pps <= 0
        usual = flows.bits.mean() if len(flows.bits) else 1.0
        bits = np.where(idle, usual, bps / np.where(idle, 1.0, pps))
        raw = np.where(idle, self.size_scv, offered[:, SQUARES] / np.where(idle, 1.0, pps * bits**2) - 1.0)
        capacity = network.capacity_bps[network.queue_link]
        return _Demand(
            pps=pps,
            bps=bps,
            service_s=bits / capacity,
            size_scv=np.maximum(raw, 0.0),
            load=bps / capacity,
            buffers=_buffers(network.buffer_bits, network.buffer_packets, bits, network.queue_link),
        )

    def _told(
        self,
        network: Network,
        demand: _Demand,
        offered: Floats,
        inlets: Inlets,
        came: Floats,
        follows: Floats,
    ) -> Floats:
        """What the schedulers are told of their queues, [Q, TOLD]."""
        told = np.zeros((len(demand.load), TOLD))
        told[:, LOAD], told[:, SERVICE], told[:, BUFFER] = demand.load, demand.service_s, demand.buffers
        told[:, OF_SIZES], told[:, BURST_WAIT] = demand.size_scv, 1.0
        seen = seen_load(told, follows, network.queue_offsets, network.policy, network.queue_share)
        told[:, SMOOTHING] = _smoothing(network, demand, offered, inlets, came, follows[:, BLOCKING], seen)
        told[:, SCV] = (1 + demand.size_scv) * told[:, SMOOTHING] - 1
        told[:, SCV] = np.maximum(told[:, SCV] + self.arrival_scv - 1, LEAST_SCV)
        return told

    def _bursts(
        self, network: Network, flows: Flows, told: Floats, follows: Floats, offered: Floats
    ) -> Floats:
        """By what wavering rates multiply the wait, and what they add to blocking, [Q, 2]."""
        if not flows.poisson:
            capacity = network.capacity_bps[network.queue_link]
            set_bursts(
                told,
                follows,
                network.queue_offsets,
                network.policy,
                network.queue_share,
                offered[:, RATE_VARIANCE] / capacity**2,
                offered[:, RATE_MEMORY] / capacity**2,
            )
        return told[:, BURST_WAIT:].copy()

    def _share(self, network: Network, told: Floats, before: Floats) -> Floats:
        """Blocking, wait and its deviation, [Q, 3]."""
        return serve(told, network.queue_offsets, network.policy, network.queue_share, before)

    def _assemble(
        self, network: Network, flows: Flows, queues: LinkQueues, packets: Floats
    ) -> tuple[PathPrediction, Floats, Ints, Floats]:
        """Sum the queues along every path."""
        queueing, fixed, jitter, loss, load, code = along(
            network.paths.links,
            network.paths.offsets,
            network.queue_of_class,
            flows.path,
            flows.service_class,
            flows.bits,
            flows.size_scv,
            network.capacity_bps,
            network.propagation_delay_s,
            network.ahead_s_per_bit,
            queues.wait_s,
            queues.wait_std_s,
            queues.blocking,
            queues.link_load,
            network.policy,
        )
        policy = code.astype(np.int64)
        own = self.intervals.half_width(group_of(len(network.nodes), policy, load), np.ones(len(load)))
        width = np.hypot(own, sampling_noise(jitter, queueing, packets))
        said = PathPrediction(
            mean_s=queueing + fixed,
            jitter_s=jitter,
            loss=loss,
            log_width=interval_width(queueing, fixed, width),
            link_utilisation=queues.utilisation,
        )
        return said, fixed, policy, load


class MM1B(MG1K):
    """M/M/1/b queues, the weak baseline of the papers.

    Sizes and gaps are taken as exponential and every link as one FIFO queue with the buffer of one of its
    queues, whatever they are; this is how the papers' authors compare.
    """

    name: ClassVar[str] = "mm1b"
    intervals: ClassVar[Intervals] = MM1B_INTERVALS

    def _told(
        self,
        network: Network,
        demand: _Demand,
        offered: Floats,
        inlets: Inlets,
        came: Floats,
        follows: Floats,
    ) -> Floats:
        """What is told of the links, as one queue each, [L, TOLD]."""
        load, pps = _per_link(network, demand.load), _per_link(network, demand.pps)
        usual = demand.service_s[network.queue_offsets[:-1]]
        told = np.zeros((len(load), TOLD))
        told[:, OF_SIZES] = told[:, SMOOTHING] = told[:, SCV] = told[:, BURST_WAIT] = 1.0
        told[:, LOAD] = load
        told[:, SERVICE] = np.divide(load, pps, out=usual, where=pps > 0)
        bits = told[:, SERVICE] * network.capacity_bps
        told[:, BUFFER] = _buffers(network.buffer_bits, network.buffer_packets, bits, np.arange(len(load)))
        return told

    def _bursts(
        self, network: Network, flows: Flows, told: Floats, follows: Floats, offered: Floats
    ) -> Floats:
        return told[:, BURST_WAIT:].copy()

    def _share(self, network: Network, told: Floats, before: Floats) -> Floats:
        links = len(told)
        each = serve(
            told, np.arange(links + 1), np.zeros(links, np.int64), np.ones(links), np.zeros((links, 3))
        )
        return each[network.queue_link]


def _buffers(in_bits: Floats, in_packets: Ints, bits: Floats, link: Ints) -> Floats:
    """Buffers of queues at ``link`` [Q] in packets of ``bits`` [Q] on average; at least one gets in."""
    bit_buffers = np.maximum(in_bits[link] / bits, 1.0)
    return np.where(in_bits[link] > 0, bit_buffers, in_packets[link].astype(np.float64))


def _smoothing(
    network: Network,
    demand: _Demand,
    offered: Floats,
    inlets: Inlets,
    came: Floats,
    blocking: Floats,
    seen: Floats,
) -> Floats:
    """(c_a² + c_s²)/(1 + c_s²), [Q], from gaps and inlets, for queues that have to do with ``seen``."""
    pps, load = _per_link(network, demand.pps), _per_link(network, demand.load)
    carried = _per_link(network, demand.pps * (1 - blocking))
    busy = np.minimum(_per_link(network, demand.load * (1 - blocking)), 1.0)
    second = _per_link(network, demand.load * demand.service_s * (1 + demand.size_scv))
    spread = np.divide(second * pps, load**2, out=np.ones_like(load), where=load > 0)  # 1 + c_s²
    gaps = [_per_link(network, offered[:, column]) for column in (REGULAR, UNLIKE, UNLIKE_PAIRS)]
    own = gap_excess(load, load, pps, spread, *gaps)
    sent = inlet_excess(inlets.offsets, inlets.links, came, pps, carried, busy, spread, own)
    link = network.queue_link
    part = np.divide(seen, load[link], out=np.ones_like(seen), where=load[link] > 0)
    excess = sent[link] * part**2
    excess += gap_excess(load[link], seen, pps[link], spread[link], *(values[link] for values in gaps))
    smoothing: Floats = np.maximum(1 + excess / spread[link], LEAST_SMOOTHING)
    return smoothing


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
    return bits * sum_hops(network.paths, 1.0 / network.line_rate_bps[network.paths.links])


def interval_width(queueing_s: Floats, fixed_s: Floats, width: Floats) -> Floats:
    """Log half-width of the whole delay when only its queueing part is uncertain by exp(±width)."""
    total = queueing_s + fixed_s
    high = fixed_s + queueing_s * np.exp(width)
    return np.log(np.divide(high, total, out=np.ones_like(total), where=total > 0))
