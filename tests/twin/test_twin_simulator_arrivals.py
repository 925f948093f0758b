"""Arrival processes and sizes beyond Poisson and CBR: correlation, bursts as measured, traces."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan

import numpy as np
import pytest

from twin.errors import TopologyError
from twin.network import Floats, Link, Network
from twin.routing import shortest_paths
from twin.simulator import Arrivals, Autocorrelated, Flow, OnOff, PacketSizes, Simulator, Trace

FIXED = PacketSizes.fixed(1000)


def source(arrivals: Arrivals, pps: float, sizes: PacketSizes = FIXED) -> Simulator:
    """One flow over a fast link."""
    nodes = ("A", "B")
    links = (Link("A", "B", 1e9), Link("B", "A", 1e9))
    network = Network(nodes, links, shortest_paths(nodes, links))
    return Simulator(network, [Flow(0, 1, pps, sizes, arrivals)], seed=8)


def send_times_s(simulator: Simulator, packets: int) -> Floats:
    """When the first packets of the only flow enter, found by stepping from event to event of the flow."""
    times: list[float] = []
    flow = simulator._state.flows
    while len(times) < packets:
        simulator.advance(float(min(flow["next_arrival"][0], flow["level_until"][0])))
        times += [simulator.now_s] * (int(simulator.sent_packets[0]) - len(times))
    return np.array(times[:packets])


@pytest.mark.parametrize("correlation", [-0.5, 0.0, 0.4, 0.8])
def test_correlated_gaps_have_the_mean_law_and_correlation_asked_for(correlation: float) -> None:
    """Gaps are exponential (mean and deviation within 5 %) with that lag-1 correlation within 0.04."""
    gaps = np.diff(send_times_s(source(Autocorrelated(correlation), 50.0), 40_000))
    assert gaps.mean() == pytest.approx(1 / 50.0, rel=0.05)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)
    assert np.corrcoef(gaps[:-1], gaps[1:])[0, 1] == pytest.approx(correlation, abs=0.04)
    assert np.quantile(gaps, [0.1, 0.5, 0.9]) * 50.0 == pytest.approx(-np.log([0.9, 0.5, 0.1]), rel=0.06)


def test_correlation_dies_away_geometrically() -> None:
    """Of gaps with lag-1 correlation 0.8, lag 5 lies where a normal AR(1) puts it, at 0.3; lag 40 at 0."""
    gaps = np.diff(send_times_s(source(Autocorrelated(0.8), 50.0), 40_000))
    lags = [np.corrcoef(gaps[:-k], gaps[k:])[0, 1] for k in (1, 2, 5, 40)]
    assert lags[0] > lags[1] > lags[2]
    assert lags[2] == pytest.approx(0.3, abs=0.1)
    assert abs(lags[3]) < 0.05


def test_a_regular_burst_sends_at_equal_gaps() -> None:
    """On-off, regular: gaps are the gap while on, save those that hold a time off, which are longer."""
    gaps = np.diff(send_times_s(source(OnOff(1.0, 1.0, regular=True), 50.0), 5000))
    while_on = np.isclose(gaps, 1 / 100.0)
    assert while_on.mean() > 0.98
    assert gaps[~while_on].min() > 1 / 100.0


@pytest.mark.parametrize("regular", [False, True])
def test_opening_packets_leave_the_mean_rate_alone(regular: bool) -> None:
    """With a packet at the start of each burst, 1 of 3 packets here, the mean rate is pps within 1.5 %."""
    simulator = source(OnOff(5.0, 5.0, regular=regular, opening=True), 0.3)
    simulator.advance(400_000.0)
    assert simulator.sent_packets[0] == pytest.approx(0.3 * 400_000, rel=0.015)


def test_every_burst_opens_with_a_packet() -> None:
    """On-off with opening: a packet is sent in the very instant in which the flow turns on."""
    simulator = source(OnOff(1.0, 1.0, regular=True, opening=True), 3.0)
    flow = simulator._state.flows
    bursts = 0
    while bursts < 50:
        change_s, was_off = float(flow["level_until"][0]), flow["state"][0] == 1
        sent = int(simulator.sent_packets[0])
        while float(flow["next_arrival"][0]) < change_s:
            simulator.advance(float(flow["next_arrival"][0]))
            sent = int(simulator.sent_packets[0])
        simulator.advance(change_s)
        assert simulator.sent_packets[0] == sent + was_off
        bursts += was_off


def test_bursts_too_rare_for_their_opening_packets_go_without() -> None:
    """A rate below one packet a burst is kept without opening packets."""
    simulator = source(OnOff(5.0, 5.0, opening=True), 0.05)
    simulator.advance(400_000.0)
    assert simulator.sent_packets[0] == pytest.approx(0.05 * 400_000, rel=0.03)


def test_a_trace_is_played_as_it_was_recorded() -> None:
    """Over and over: packets enter at the sums of the gaps; twice the rate halves every gap."""
    trace = Trace((0.5, 0.1, 0.0, 0.4))
    assert trace.pps == 4.0
    expected = np.cumsum(np.tile(trace.gaps_s, 3))
    assert send_times_s(source(trace, trace.pps), 12) == pytest.approx(expected)
    assert send_times_s(source(trace, 2 * trace.pps), 12) == pytest.approx(expected / 2)


def test_a_trace_played_once_ends() -> None:
    """Three gaps, three packets, then silence, even at a new rate."""
    trace = Trace((0.5, 0.1, 0.2), repeat=False)
    simulator = source(trace, trace.pps)
    simulator.advance(10.0)
    simulator.set_rate(0, 100.0)
    simulator.advance(20.0)
    assert simulator.sent_packets[0] == 3


def test_sizes_come_in_the_recorded_order() -> None:
    """A sequence of sizes, one packet each, over and over; its mean and variation are those of the trace."""
    sizes = PacketSizes.sequence([800, 1600, 12_000])
    trace = Trace((1.0,))
    simulator = source(trace, trace.pps, sizes)
    octets = [0]
    for second in range(1, 7):
        simulator.advance(second + 0.5)
        octets.append(int(simulator.sent_octets[0]))
    assert list(np.diff(octets)) == [100, 200, 1500] * 2
    assert sizes.mean_bits == pytest.approx(4800)
    assert sizes.squared_variation == pytest.approx(np.var([800, 1600, 12_000]) / 4800**2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Autocorrelated(1.0),
        lambda: Autocorrelated(-0.7),
        lambda: Autocorrelated(nan),
        lambda: Trace(()),
        lambda: Trace((0.0, 0.0)),
        lambda: Trace((1.0, -0.1)),
        lambda: Trace((1.0, inf)),
        lambda: PacketSizes.sequence([]),
        lambda: PacketSizes.sequence([100, 0]),
        lambda: OnOff(1.0, -1.0, opening=True),
    ],
)
def test_impossible_arrivals_are_refused(make: Callable[[], object]) -> None:
    """Correlations that exponentials cannot have, empty or backward traces: TopologyError."""
    with pytest.raises(TopologyError):
        make()
