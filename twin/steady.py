"""A network in its steady state: what every flow and every queue sees in the long run, and how sure that is.

The packet simulator plays a warm-up, which is left out, then the time that counts. A packet belongs to the
figures of delay and loss if it entered after the warm-up. How much a mean would differ in another run is
estimated by batch means (Law, "Simulation Modeling and Analysis", section 9.5.3): the time is cut into
batches, and the spread of a flow's delay over batches, which holds all correlation shorter than a batch,
gives the standard error of its mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from twin.errors import TopologyError
from twin.network import Floats, Ints, Network
from twin.simulator import Simulator
from twin.simulator_build import DRR_ROUND_S
from twin.workload import Flow, check_not_negative, check_positive

PERCENTS = (10, 50, 90)


@dataclass(frozen=True)
class SteadyState:
    """Figures per flow [F] and per queue [Q]; 0 where nothing was counted."""

    sent: Ints  # [F] packets that entered in the time that counts
    delivered: Ints  # [F] of these
    lost: Ints  # [F]; sent − delivered − lost were on their way at the end
    mean_s: Floats  # [F] one-way delay
    std_s: Floats  # [F] its standard deviation
    loss: Floats  # [F] lost ÷ (lost + delivered)
    mean_noise: Floats  # [F] relative standard error of mean_s; infinite where fewer than two batches count
    percentiles_s: Floats  # [F, 3] p10, p50, p90; [F, 0] where not asked for
    queue_arrivals: Ints  # [Q] packets, dropped ones included
    queue_loss: Floats  # [Q] share of them
    queue_utilisation: Floats  # [Q] share of the link's time in which the queue's packets are sent
    queue_packets: Floats  # [Q] mean over time, the packet in service included
    queue_bits: Floats  # [Q]
    packet_hops: int  # the work that the simulator did, warm-up included


def run_steady(
    network: Network,
    flows: Sequence[Flow],
    *,
    seed: int,
    warm_up_s: float,
    duration_s: float,
    batches: int = 20,
    percentiles: bool = False,
    drr_round_s: float = DRR_ROUND_S,
) -> SteadyState:
    """Simulate ``flows`` over ``network``; the same arguments give the same figures, bit for bit."""
    check_not_negative("warm_up_s", warm_up_s, "s")
    check_positive("duration_s", duration_s, "s")
    if batches < 2:
        raise TopologyError(f"{batches} batches tell nothing about noise: take two or more")
    simulator = Simulator(network, flows, seed=seed, percentiles=percentiles, drr_round_s=drr_round_s)
    simulator.advance(warm_up_s)
    simulator.forget()
    sent, queues = simulator.sent_packets.copy(), simulator.queue_totals()
    delays = np.empty((batches, 3, len(flows)))  # count, mean, standard deviation
    for batch in range(batches):
        simulator.advance(warm_up_s + duration_s * (batch + 1) / batches)
        taken = simulator.take_delays()
        delays[batch] = taken.count, taken.mean_s, taken.std_s
    count, mean_s, std_s, noise = merge_batches(*np.moveaxis(delays, 1, 0))
    lost = simulator.lost_measured
    seen = simulator.queue_totals().since(queues)
    return SteadyState(
        sent=simulator.sent_packets - sent,
        delivered=count.astype(np.int64),
        lost=lost.copy(),
        mean_s=mean_s,
        std_s=std_s,
        loss=lost / np.maximum(lost + count, 1),
        mean_noise=noise,
        percentiles_s=simulator.percentiles_s(PERCENTS) if percentiles else np.zeros((len(flows), 0)),
        queue_arrivals=seen.arrivals,
        queue_loss=seen.drops / np.maximum(seen.arrivals, 1),
        queue_utilisation=seen.bits / (network.capacity_bps[network.queue_link] * duration_s),
        queue_packets=seen.packet_seconds / duration_s,
        queue_bits=seen.bit_seconds / duration_s,
        packet_hops=simulator.packet_hops,
    )


def merge_batches(count: Floats, mean: Floats, std: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Packets, mean, deviation and the mean's relative standard error [F], from those of batches [B, F].

    Batches hold different numbers of packets, so the mean is a ratio of sums; its variance is the classical
    one of a ratio estimator (Cochran, "Sampling Techniques", eq. 6.13).
    """
    total = count.sum(axis=0)
    some = np.maximum(total, 1)
    overall = (count * mean).sum(axis=0) / some
    apart = count * (mean - overall)
    variance = (count * std**2 + apart * (mean - overall)).sum(axis=0) / some
    batches = len(count)
    error = np.sqrt((apart**2).sum(axis=0) * batches / (batches - 1)) / some
    known = (np.count_nonzero(count, axis=0) > 1) & (overall > 0)
    noise = np.divide(error, overall, out=np.full_like(overall, np.inf), where=known)
    return total, overall, np.sqrt(variance), noise


def duration_for(network: Network, flows: Sequence[Flow], packets_per_flow: float) -> float:
    """Seconds in which the flows that have a route and a rate send so many packets each, on average."""
    check_positive("packets_per_flow", packets_per_flow, "packets")
    hops = network.paths.lengths
    away = [flow for flow in flows if flow.pps > 0 and flow.source != flow.destination]
    rates = [flow.pps for flow in away if hops[network.path_between(flow.source, flow.destination)] > 0]
    if not rates:
        raise TopologyError("no flow with a route sends anything: no duration is long enough")
    return packets_per_flow * len(rates) / sum(rates)
