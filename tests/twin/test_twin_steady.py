"""Steady-state runs: theory, what counts after the warm-up, how sure a mean is, and OMNeT++ beside ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from math import log, nan

import numpy as np
import pytest

from tests.measured_data import public_data
from twin.errors import TopologyError
from twin.network import Floats, Ints, Link, Network, Traffic, Variability
from twin.omnet import read_omnet
from twin.routing import shortest_paths
from twin.samples import Sample
from twin.scheduling import CLASSES, POLICIES, Scheduling, by_class
from twin.steady import SteadyState, duration_for, run_steady
from twin.topologies import nsfnet
from twin.traffic import lab_scenario, path_flows
from twin.workload import Arrivals, Cbr, Flow, OnOff, PacketSizes, Poisson

CAPACITY_BPS = 1e6
PACKET_BITS = 10_000
SERVICE_S = PACKET_BITS / CAPACITY_BPS
EXPONENTIAL = PacketSizes.of_mean(PACKET_BITS)
FIXED = PacketSizes.fixed(PACKET_BITS)


def wire(**link: float) -> Network:
    """Two nodes, a link each way."""
    links = tuple(
        Link(
            a,
            b,
            CAPACITY_BPS,
            link.get("propagation_delay_s", 0.0),
            int(link.get("buffer_packets", 10**6)),
        )
        for a, b in (("A", "B"), ("B", "A"))
    )
    return Network(("A", "B"), links, shortest_paths(("A", "B"), links))


def queue(
    load: float, sizes: PacketSizes = EXPONENTIAL, *, packets: float = 1e6, seed: int = 1, room: int = 10**6
) -> SteadyState:
    """A queue with Poisson arrivals over about so many packets."""
    flows = [Flow(0, 1, load / SERVICE_S, sizes)]
    duration_s = duration_for(wire(), flows, packets)
    return run_steady(
        wire(buffer_packets=room), flows, seed=seed, warm_up_s=0.05 * duration_s, duration_s=duration_s,
        percentiles=True,
    )  # fmt: skip


def test_mm1k_delay_loss_and_occupancy_are_those_of_theory() -> None:
    """M/M/1/K with ρ = 0.9, K = 8: loss, mean delay, packets in the queue and utilisation within 2 %."""
    room, load = 8, 0.9
    seen = queue(load, room=room)
    shares = load ** np.arange(room + 1)
    shares /= shares.sum()
    held = float(np.arange(room + 1) @ shares)
    assert seen.loss[0] == pytest.approx(shares[-1], rel=0.02)
    assert seen.queue_loss[0] == pytest.approx(shares[-1], rel=0.02)
    assert seen.queue_packets[0] == pytest.approx(held, rel=0.02)
    assert seen.mean_s[0] == pytest.approx(held / (load * (1 - shares[-1])) * SERVICE_S, rel=0.02)
    assert seen.queue_utilisation[0] == pytest.approx(load * (1 - shares[-1]), rel=0.01)
    assert seen.queue_arrivals[0] == seen.sent[0]


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_md1_delay_and_bits_are_those_of_theory(load: float) -> None:
    """M/D/1: mean delay, and mean bits in the queue by Little's law, within 1 %."""
    seen = queue(load, FIXED)
    mean_s = SERVICE_S * (1 + load / (2 * (1 - load)))
    assert seen.mean_s[0] == pytest.approx(mean_s, rel=0.01)
    assert seen.queue_bits[0] == pytest.approx(load / SERVICE_S * mean_s * PACKET_BITS, rel=0.01)


def test_jitter_and_percentiles_of_mm1_are_those_of_the_exponential() -> None:
    """The sojourn time of M/M/1 is exponential: deviation = mean, p = −ln(1 − p) · mean, within 3 %."""
    seen = queue(0.6)
    mean_s = SERVICE_S / 0.4
    assert seen.std_s[0] == pytest.approx(mean_s, rel=0.03)
    assert seen.percentiles_s[0] == pytest.approx([-log(1 - p) * mean_s for p in (0.1, 0.5, 0.9)], rel=0.03)


def test_percentiles_of_a_lone_flow_are_its_one_delay() -> None:
    """All delays alike: every percentile is that delay within the width of a bin, 1 %."""
    flows = [Flow(0, 1, 10.0, FIXED, Cbr())]
    seen = run_steady(wire(), flows, seed=1, warm_up_s=1.0, duration_s=100.0, percentiles=True)
    assert seen.percentiles_s[0] == pytest.approx([SERVICE_S] * 3, rel=0.01)
    assert seen.std_s[0] == pytest.approx(0.0, abs=1e-12)


def test_noise_of_a_mean_is_how_much_it_differs_between_runs() -> None:
    """Of 60 short runs, the scatter of the mean delay is the mean noise that each run told, within 25 %."""
    runs = [queue(0.7, packets=20_000, seed=seed) for seed in range(60)]
    means = np.array([seen.mean_s[0] for seen in runs])
    told = np.mean([seen.mean_noise[0] for seen in runs])
    assert means.std() / means.mean() == pytest.approx(told, rel=0.25)


def test_noise_falls_with_the_root_of_time() -> None:
    """Sixteen times the packets: a quarter of the noise, within a third."""
    short, long = (queue(0.5, packets=packets).mean_noise[0] for packets in (50_000, 800_000))
    assert short / long == pytest.approx(4.0, rel=0.33)


def test_packets_of_the_warm_up_do_not_count() -> None:
    """A wire of 5 s, a packet a second: of those that enter from 10 s to 30 s, 15 arrive, 5 do not yet."""
    seen = run_steady(
        wire(propagation_delay_s=5.0),
        [Flow(0, 1, 1.0, FIXED, Cbr())],
        seed=1,
        warm_up_s=10.0,
        duration_s=20.0,
    )
    assert (seen.sent[0], seen.delivered[0], seen.lost[0]) == (20, 15, 0)
    assert seen.mean_s[0] == pytest.approx(5.0 + SERVICE_S)


@pytest.mark.parametrize("policy", POLICIES)
def test_packets_are_delivered_lost_or_on_their_way(policy: str) -> None:
    """NSFNET at high load: what was sent and neither arrived nor was lost is at most what queues hold."""
    network, traffic = lab_scenario(nsfnet(), seed=2, utilisation=1.2)
    scheduling = Scheduling() if policy == "FIFO" else by_class(policy, (60, 30, 10))
    links = tuple(replace(link, scheduling=scheduling, buffer_packets=20) for link in network.links)
    flows = [
        replace(flow, service_class=k % CLASSES) for k, flow in enumerate(path_flows(network, traffic, FIXED))
    ]
    seen = run_steady(
        replace(network, links=links), flows, seed=1, warm_up_s=1.0, duration_s=5.0, drr_round_s=0.01
    )
    under_way = seen.sent - seen.delivered - seen.lost
    assert seen.lost.sum() > 0
    assert under_way.min() >= 0
    assert under_way.sum() < 0.01 * seen.sent.sum()
    assert seen.queue_arrivals @ seen.queue_loss == pytest.approx(seen.lost.sum(), rel=0.01)


def test_the_same_arguments_give_the_same_figures() -> None:
    """Two runs with one seed agree bit for bit; another seed gives other figures."""
    first, second, other = (queue(0.8, packets=10_000, seed=seed) for seed in (4, 4, 5))
    for part in fields(SteadyState):
        assert np.array_equal(getattr(first, part.name), getattr(second, part.name))
    assert first.mean_s[0] != other.mean_s[0]


def test_flows_of_which_nothing_arrives_hold_zeros() -> None:
    """A silent flow has zeros and infinite noise, never NaN."""
    flows = [Flow(0, 1, 0.0, FIXED), Flow(0, 1, 50.0, FIXED)]
    seen = run_steady(wire(), flows, seed=1, warm_up_s=1.0, duration_s=10.0, percentiles=True)
    assert (seen.sent[0], seen.mean_s[0], seen.std_s[0], seen.loss[0]) == (0, 0.0, 0.0, 0.0)
    assert list(seen.percentiles_s[0]) == [0.0] * 3
    assert seen.mean_noise[0] == np.inf
    assert np.isfinite(seen.mean_noise[1])


def test_duration_gives_the_packets_asked_for() -> None:
    """Two flows of 10 and 30 packets/s and a silent one: 1,000 packets each on average take 50 s."""
    flows = [Flow(0, 1, pps, FIXED) for pps in (10.0, 30.0, 0.0)]
    assert duration_for(wire(), flows, 1000) == pytest.approx(50.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: run_steady(wire(), [], seed=1, warm_up_s=-1.0, duration_s=1.0),
        lambda: run_steady(wire(), [], seed=1, warm_up_s=0.0, duration_s=nan),
        lambda: run_steady(wire(), [], seed=1, warm_up_s=0.0, duration_s=1.0, batches=1),
        lambda: duration_for(wire(), [Flow(0, 1, 0.0, FIXED)], 100),
        lambda: duration_for(wire(), [Flow(0, 1, 1.0, FIXED)], 0),
    ],
)
def test_impossible_runs_are_refused(make: Callable[[], object]) -> None:
    """No time, no batches, nothing that sends: TopologyError."""
    with pytest.raises(TopologyError):
        make()


# ------------------------------------------------------------------------------------------ beside OMNeT++


def laws(vary: Variability, flow: int) -> Arrivals:
    """The arrival process of a flow of the RouteNet 2022 data, from how it varies."""
    if vary.rate_scv[flow] == 0:
        return Poisson() if vary.gap_scv[flow] else Cbr()
    on_s = float(vary.rate_time_s[flow] * (1 + vary.rate_scv[flow]) / vary.rate_scv[flow])
    return OnOff(on_s, on_s * float(vary.rate_scv[flow]), regular=True, opening=True)


def flows_of(sample: Sample) -> list[Flow]:
    """Its flows, with two packet sizes that have the mean and the variation of the real ones."""
    traffic = sample.traffic
    assert traffic.path is not None
    assert traffic.service_class is not None
    assert traffic.size_scv is not None
    assert traffic.variability is not None
    spread = np.sqrt(traffic.size_scv)
    return [
        Flow(
            *sample.network.path_ends(int(path)),
            float(traffic.pps[flow]),
            PacketSizes.bimodal(bits * (1 - spread[flow]), bits * (1 + spread[flow])),
            laws(traffic.variability, flow),
            int(traffic.service_class[flow]),
        )
        for flow, (path, bits) in enumerate(zip(traffic.path, traffic.mean_packet_bits, strict=True))
    ]


def policies_met(network: Network, traffic: Traffic) -> tuple[Ints, Floats]:
    """(flow, policy code) of every hop, [H]."""
    hops = traffic.hops(network)
    return hops.hop_path, network.policy[hops.links].astype(np.float64)


@pytest.mark.data
def test_omnet_and_we_see_the_same_delays() -> None:
    """A public sample of 50 nodes, all policies mixed, played here: flows meeting each policy agree.

    The median error is that of the noise of this short run, below 4 %; its bias below 1.5 %.
    """
    sample = next(iter(read_omnet(public_data("routenet-omnet-2022", "50.tar.gz"))))
    seen = run_steady(sample.network, flows_of(sample), seed=1, warm_up_s=50.0, duration_s=500.0)
    error = np.log(seen.mean_s / sample.mean_s)
    flow, policy = policies_met(sample.network, sample.traffic)
    for code in range(len(POLICIES)):
        met = error[np.unique(flow[policy == code])]
        assert np.median(np.abs(met)) < 0.04
        assert abs(np.median(met)) < 0.015
    assert seen.lost.sum() / seen.sent.sum() == pytest.approx(
        float(sample.loss @ sample.traffic.pps / sample.traffic.pps.sum()), rel=0.1
    )
