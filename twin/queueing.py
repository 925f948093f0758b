"""Queueing models: every link is a finite FIFO queue, tied to the others by what each lets through.

Theory
------
Packets arrive at a link as a Poisson stream of rate λ, with mean service time S = E[bits]/C, offered load
ρ = λS and squared coefficient of variation c of the service time. The buffer holds K packets, the one in
service included.

1. *Mixture.* Paths of different mean size share a link, so E[bits] and E[bits²] are packet-weighted sums over
   the paths that cross it; c follows from both. A path whose packets vary by ``size_scv`` around its mean
   contributes mean²·(1 + size_scv) to the second moment.
2. *Blocking* p_K: Smith's two-moment formula for M/G/1/K (J. M. Smith, "Optimal design and performance
   modelling of M/G/1/K queueing systems", 2004); exact for c = 1, where it is M/M/1/K.
3. *Occupancy.* p_n = a·θ^(n−1) for 1 ≤ n < K, with Σ p_n = ρ(1 − p_K) so that the server is busy exactly as
   long as what is carried needs. θ = ρ(1+c)/(2(1−ρ) + ρ(1+c)) makes the untruncated mean the
   Pollaczek-Khinchine mean for every c; the often-used θ = ρ^(2/(1+c)) does so for c = 1 only and loses 5 to
   50 % of the wait below it. Against exact M/G/1/K chains the mean wait is right within 1 % (tests).
4. *Wait* by Little's law: W = L/(λ(1 − p_K)) − S. Its variance: who finds n packets waits n − 1 services
   and one residual.
5. *Thinning.* What a link drops never reaches the next: λ of a link sums over paths the rate that survives
   upstream. Blocking and rates are iterated, damped, to a fixed point.

Bursty arrivals enter by Allen and Cunneen's rule: c is replaced by c + ``arrival_scv`` − 1.

A path's delay is, hop by hop, the link's wait, the transmission of the *path's own* mean packet and the
propagation. FIFO only: another discipline is another way to turn the link's solution into a wait per path,
which is :meth:`LinkQueues.hop_wait_s`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from twin.compiled import compiled
from twin.models import PathPrediction, check_traffic, path_packet_bits
from twin.network import Floats, Ints, Network, Paths, Traffic

SIZE_SCV = 0.46  # 80 and 1,500-octet packets that average 1,000 octets: what a path is taken to carry
PASSES = 24  # at most; light networks need two
DAMPING = 0.5
TOLERANCE = 1e-5  # in blocking probability


@dataclass(frozen=True)
class LinkQueues:
    """The fixed point: every link's queue, [L] each."""

    arrival_pps: Floats  # offered to the queue, after losses upstream
    service_s: Floats  # mean transmission time of the packets it sees
    service_scv: Floats  # squared coefficient of variation of that time
    load: Floats  # ρ offered
    blocking: Floats  # share of packets dropped
    wait_s: Floats  # mean, of packets that get in
    wait_std_s: Floats
    occupancy: Floats  # mean packets in the system

    @property
    def utilisation(self) -> Floats:
        """Carried load, [L], below one."""
        carried: Floats = self.load * (1 - self.blocking)
        return np.minimum(carried, 1.0)

    def hop_wait_s(self, paths: Paths) -> Floats:
        """Mean wait of every hop, [H]: under FIFO all paths of a link wait alike."""
        wait: Floats = self.wait_s[paths.links]
        return wait


@dataclass(frozen=True)
class _Arrivals:
    pps: Floats
    service_s: Floats
    size_scv: Floats
    load: Floats
    scv: Floats  # what the queue formulae use: sizes and burstiness together


class MG1K:
    """Two-moment M/G/1/K queues with loss thinning: the strong baseline, and the prior of the GNN."""

    name: ClassVar[str] = "mg1k"
    version: ClassVar[str] = "1"
    # Half-width of the interval on ln(queueing + transmission): 0.9 quantile of the error on the test slice
    # "random" of twin.training.evaluate, half of it Poisson and half bursty.
    log_width: ClassVar[float] = 0.24

    def __init__(self, *, size_scv: float = SIZE_SCV, arrival_scv: float = 1.0) -> None:
        self.size_scv = size_scv
        self.arrival_scv = arrival_scv

    def predict(self, network: Network, traffic: Traffic) -> PathPrediction:
        """Predict all paths from the fixed point of the link queues."""
        return self._assemble(network, traffic, self.solve(network, traffic))

    def solve(self, network: Network, traffic: Traffic) -> LinkQueues:
        """The link queues at their fixed point."""
        check_traffic(network, traffic)
        bits = path_packet_bits(traffic)
        blocking = np.zeros(len(network.links))
        for step in range(PASSES):
            arrivals = self._arrivals(network, traffic.pps, bits, blocking)
            change = smith_blocking(arrivals.load, arrivals.scv, network.buffer_packets) - blocking
            blocking += change if step == 0 else DAMPING * change
            if np.abs(change).max(initial=0.0) < TOLERANCE:
                break
        return self._occupy(arrivals, network.buffer_packets)

    def _arrivals(self, network: Network, pps: Floats, bits: Floats, blocking: Floats) -> _Arrivals:
        """What reaches every link when every link drops ``blocking`` of what reaches it."""
        packets, first, second = _offer(
            network.paths.links, network.paths.offsets, pps, bits, bits**2 * (1 + self.size_scv), blocking
        )
        idle = packets <= 0
        mean = np.where(idle, bits.mean() if len(bits) else 0.0, first / np.where(idle, 1.0, packets))
        raw = np.where(idle, self.size_scv, second / np.where(idle, 1.0, packets * mean**2) - 1)
        service = mean / network.capacity_bps
        scv = np.maximum(raw, 0.0)
        return _Arrivals(packets, service, scv, packets * service, self._effective_scv(scv))

    def _occupy(self, arrivals: _Arrivals, buffers: Ints) -> LinkQueues:
        blocking = smith_blocking(arrivals.load, arrivals.scv, buffers)
        wait, deviation, occupancy = _occupancy(arrivals.load, arrivals.scv, buffers, blocking)
        return LinkQueues(
            arrival_pps=arrivals.pps,
            service_s=arrivals.service_s,
            service_scv=arrivals.size_scv,
            load=arrivals.load,
            blocking=blocking,
            wait_s=wait * arrivals.service_s,
            wait_std_s=deviation * arrivals.service_s,
            occupancy=occupancy,
        )

    def _assemble(self, network: Network, traffic: Traffic, queues: LinkQueues) -> PathPrediction:
        """Sum the link queues along every path."""
        paths = network.paths
        bits = path_packet_bits(traffic)
        transmission = transmission_s(network, bits)
        queueing = sum_hops(paths, queues.hop_wait_s(paths)) + transmission
        fixed = sum_hops(paths, network.propagation_delay_s[paths.links])
        # A packet keeps its size along the path, so its transmission times add up before they vary.
        variance = sum_hops(paths, queues.wait_std_s[paths.links] ** 2) + self.size_scv * transmission**2
        survival = sum_hops(paths, np.log1p(-np.minimum(queues.blocking[paths.links], 1 - 1e-12)))
        return PathPrediction(
            mean_s=queueing + fixed,
            jitter_s=np.sqrt(variance),
            loss=-np.expm1(survival),
            log_width=interval_width(queueing, fixed, np.full(len(queueing), self.log_width)),
            link_utilisation=queues.utilisation,
        )

    def _effective_scv(self, service_scv: Floats) -> Floats:
        effective: Floats = np.maximum(service_scv + self.arrival_scv - 1.0, 0.0)
        return effective


class MM1B(MG1K):
    """M/M/1/b queues, the weak baseline of the papers: sizes are taken as exponential whatever they are."""

    name: ClassVar[str] = "mm1b"
    log_width: ClassVar[float] = 0.29

    def _effective_scv(self, service_scv: Floats) -> Floats:
        return np.ones_like(service_scv)


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


def smith_blocking(load: Floats, scv: Floats, buffers: Ints) -> Floats:
    """Smith's blocking probability of M/G/1/K, [L].

    It is M/M/1/k, p = ρ^k (1 − ρ)/(1 − ρ^(k+1)), with the buffer stretched to k = (2K + r)/(2 + r),
    r = √ρ(c − 1).
    With x = ln ρ: p = (1 − e^x)/(e^(−kx) − e^x), and 1/(k + 1) at ρ = 1.
    """
    r = np.sqrt(load) * (scv - 1)
    k = (2 * buffers + r) / np.maximum(2 + r, 0.1)
    x = np.log(np.maximum(load, 1e-300))
    x = np.where(np.abs(x) < 1e-8, 1e-8, x)
    # For x > 0 the denominator is −e^x(1 − e^(−(k+1)x)); for x < 0 the first power is the large one.
    rising = np.expm1(np.maximum(x, 1e-8)) * np.exp(-np.maximum(x, 1e-8))
    rising = rising / -np.expm1(-(k + 1) * np.maximum(x, 1e-8))
    x = np.minimum(x, -1e-8)
    falling = -np.expm1(x) * np.exp(np.maximum(k * x, -700.0)) / -np.expm1((k + 1) * x)
    return np.clip(np.where(load > 1, rising, falling), 0.0, 1.0)


@compiled
def _offer(
    links: Ints, offsets: Ints, pps: Floats, bits: Floats, squares: Floats, blocking: Floats
) -> tuple[Floats, Floats, Floats]:
    """Per link: packets/s, bits/s and bits²/s that arrive when every link drops ``blocking``."""
    packets = np.zeros(blocking.shape[0])
    first = np.zeros(blocking.shape[0])
    second = np.zeros(blocking.shape[0])
    for path in range(pps.shape[0]):
        rate = pps[path]
        if rate <= 0.0:
            continue
        for hop in range(offsets[path], offsets[path + 1]):
            link = links[hop]
            packets[link] += rate
            first[link] += rate * bits[path]
            second[link] += rate * squares[path]
            rate *= 1.0 - blocking[link]
    return packets, first, second


@compiled
def _occupancy(load: Floats, scv: Floats, buffers: Ints, blocking: Floats) -> tuple[Floats, Floats, Floats]:
    """Per link: mean wait and its standard deviation in service times, mean packets in the system."""
    wait = np.zeros(load.shape[0])
    deviation = np.zeros(load.shape[0])
    occupancy = np.zeros(load.shape[0])
    for link in range(load.shape[0]):
        if load[link] > 0.0:
            wait[link], deviation[link], occupancy[link] = _queue(
                load[link], scv[link], buffers[link], blocking[link]
            )
    return wait, deviation, occupancy


@compiled
def _queue(rho: float, scv: float, buffer: int, blocked: float) -> tuple[float, float, float]:
    """One queue: mean wait and its standard deviation in service times, mean packets in the system."""
    spread = rho * (1.0 + scv)
    theta = spread / max(2.0 * (1.0 - rho) + spread, 1e-6 * spread)
    # Weights of p_1 … p_{K−1}, from whichever end is the heavy one, so that nothing overflows.
    total = 0.0
    first = 0.0
    second = 0.0
    weight = 1.0
    for i in range(buffer - 1):
        n = i + 1 if theta <= 1.0 else buffer - 1 - i
        total += weight
        first += weight * n
        second += weight * n * n
        weight *= theta if theta <= 1.0 else 1.0 / theta
        if weight < 1e-18:
            break
    busy = max(rho * (1.0 - blocked) - blocked, 0.0)  # Σ p_n, 1 ≤ n < K
    mean = busy * first / total if total > 0.0 else 0.0
    square = busy * second / total if total > 0.0 else 0.0
    number = mean + buffer * blocked
    admitted = max(1.0 - blocked, 1e-12)
    wait = max(number / (rho * admitted) - 1.0, 0.0)
    # Seen by an admitted packet: n with probability p_n/(1 − p_K). Its wait is n − 1 services and a residual.
    found = busy / admitted
    seen = mean / admitted
    residual = (wait - (seen - found)) / found if found > 0.0 else 0.0
    spare = (1.0 + scv) * (1.0 + 2.0 * scv) / 3.0 - ((1.0 + scv) / 2.0) ** 2
    moment = (square - 2.0 * mean + busy) / admitted + 2.0 * residual * (seen - found) + found * residual**2
    variance = moment - wait**2 + scv * (seen - found) + found * spare
    return wait, max(variance, 0.0) ** 0.5, number
