"""Traffic matrices, their cycle, and the capacities chosen for them."""

from __future__ import annotations

from math import nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin.errors import TopologyError
from twin.simulator import PacketSizes, Poisson, Simulator
from twin.topologies import gbn, geant2, nsfnet, power_law
from twin.topology import Topology
from twin.traffic import (
    LAB_HOPS_PER_LINK_S,
    TrafficCycle,
    capacities_for,
    gravity,
    lab_scenario,
    link_load_bps,
    path_flows,
    usual_rate,
)

MAPS = [nsfnet(), gbn(), geant2(), power_law(60, seed=1)]


def test_gravity_traffic_sums_up_and_follows_the_masses() -> None:
    """The matrix sums to the total, and T(a,b)·T(c,d) = T(a,d)·T(c,b): the law of a product of masses."""
    traffic = gravity(6, 5e8, seed=3)
    assert traffic.bps.sum() == pytest.approx(5e8)
    assert traffic.bps / traffic.pps == pytest.approx(8000.0)
    matrix = np.zeros((6, 6))
    matrix[~np.eye(6, dtype=bool)] = traffic.bps
    assert matrix[0, 1] * matrix[2, 3] == pytest.approx(matrix[0, 3] * matrix[2, 1])
    assert (gravity(6, 5e8, seed=3).bps == traffic.bps).all()
    assert (gravity(6, 5e8, seed=4).bps != traffic.bps).any()


def test_link_loads_are_the_sums_over_the_paths_that_cross() -> None:
    """Every bit loads each link of its path once: loads sum to rates times hops."""
    network = nsfnet().network()
    traffic = gravity(14, 1e9, seed=1)
    loads = link_load_bps(network, traffic.bps)
    assert loads.sum() == pytest.approx((traffic.bps * network.paths.lengths).sum())
    path = network.path_index("WA", "DC")
    alone = np.zeros(network.path_count)
    alone[path] = 7.0
    assert set(np.flatnonzero(link_load_bps(network, alone))) == set(network.paths.of(path))


@pytest.mark.parametrize("topology", MAPS, ids=lambda topology: topology.name)
@pytest.mark.parametrize("target", [0.3, 0.6])
def test_capacities_keep_links_below_the_target_with_one_rate_a_cable(
    topology: Topology, target: float
) -> None:
    """Loads stay below the target, above two thirds of it over the floor; directions are equal."""
    network = topology.network()
    traffic = gravity(len(topology.nodes), 1e9, seed=1)
    capacity_bps = capacities_for(network, traffic, target)
    load = link_load_bps(network, traffic.bps) / capacity_bps
    assert load.max() <= target * (1 + 1e-9)
    assert (capacity_bps[::2] == capacity_bps[1::2]).all()
    busier = np.maximum(load[::2], load[1::2])
    assert (busier[capacity_bps[::2] > 10e6] > target / 1.5 - 1e-9).all()


@given(least_bps=st.floats(1.0, 1e12))
def test_usual_rates_are_the_next_step_up(least_bps: float) -> None:
    """A usual rate is at least what is needed, at most half as much again, and stays what it is."""
    rate = usual_rate(least_bps)
    assert least_bps * (1 - 1e-8) <= rate <= 1.5 * least_bps * (1 + 1e-8)
    assert usual_rate(rate) == rate


@pytest.mark.parametrize("topology", MAPS, ids=lambda topology: topology.name)
def test_the_busiest_link_of_the_lab_stays_between_a_quarter_and_three_quarters(topology: Topology) -> None:
    """Over a whole cycle with all surges the busiest link is never under 0.25 nor over 0.78."""
    network, traffic = lab_scenario(topology, seed=7)
    cycle = TrafficCycle(network.path_count, seed=7)
    busiest = [
        (link_load_bps(network, traffic.bps * cycle.multipliers(time_s)) / network.capacity_bps).max()
        for time_s in np.arange(0.0, cycle.period_s, 10.0)
    ]
    assert min(busiest) >= 0.25
    assert max(busiest) <= 0.78
    assert max(busiest) / min(busiest) > 1.5


def test_the_lab_makes_the_packets_it_promises() -> None:
    """The simulator carries the lab's packet-hops within 2 %, losing less than one in 10,000."""
    network, traffic = lab_scenario(nsfnet(), seed=1)
    simulator = Simulator(network, path_flows(network, traffic, PacketSizes.fixed(8000)), seed=1)
    simulator.advance(20.0)
    wanted = LAB_HOPS_PER_LINK_S * len(network.links)
    assert simulator.packet_hops / 20.0 == pytest.approx(wanted, rel=0.02)
    assert simulator.lost_packets.sum() < 1e-4 * simulator.sent_packets.sum()


def test_queues_matter_beside_propagation_in_the_lab() -> None:
    """Propagation is a part of the delay, not all of it: between a quarter and two thirds of the mean."""
    network, traffic = lab_scenario(nsfnet(), seed=1)
    simulator = Simulator(network, path_flows(network, traffic, PacketSizes.fixed(8000)), seed=1)
    simulator.advance(10.0)
    propagation_s = [
        network.propagation_delay_s[network.paths.of(k)].sum() for k in range(network.path_count)
    ]
    share = np.mean(propagation_s) / simulator.take_delays().mean_s.mean()
    assert 0.25 < share < 0.67


def test_flows_follow_the_paths_in_order() -> None:
    """Flow k is path k: its ends and its rate."""
    network, traffic = lab_scenario(gbn(), seed=1)
    flows = path_flows(network, traffic, PacketSizes.fixed(8000), Poisson())
    assert [(flow.source, flow.destination) for flow in flows] == [
        network.path_ends(k) for k in range(network.path_count)
    ]
    assert [flow.pps for flow in flows] == list(traffic.pps)


# ------------------------------------------------------------------------------------------------ the cycle


@given(time_s=st.floats(0, 1e8), seed=st.integers(0, 100))
def test_the_cycle_is_a_pure_function_of_time(time_s: float, seed: int) -> None:
    """A new cycle with the same arguments gives the same positive factors, whatever was asked before."""
    first, second = TrafficCycle(30, seed=seed), TrafficCycle(30, seed=seed)
    second.multipliers(time_s / 3)
    assert (first.multipliers(time_s) == second.multipliers(time_s)).all()
    assert (first.multipliers(time_s) > 0).all()
    assert first.multiplier(time_s, 7) == first.multipliers(time_s)[7]


def test_the_cycle_moves_like_a_day() -> None:
    """Without surges the mean over paths swings around 1 by the amplitude, once in every period."""
    cycle = TrafficCycle(500, seed=1, period_s=600.0, surge_share=0.0, wander=0.0)
    means = np.array([cycle.multipliers(time_s).mean() for time_s in np.arange(0.0, 600.0, 5.0)])
    assert means.mean() == pytest.approx(1.0, abs=0.01)
    assert means.max() - means.min() == pytest.approx(0.7, abs=0.12)
    assert cycle.multipliers(100.0) == pytest.approx(cycle.multipliers(700.0))


def test_the_cycle_has_no_jumps() -> None:
    """From second to second no path's factor moves by more than 0.25 (the steepest surge: 1.2 within 5 s)."""
    cycle = TrafficCycle(182, seed=1)
    factors = np.array([cycle.multipliers(float(time_s)) for time_s in range(1800)])
    assert np.abs(np.diff(factors, axis=0)).max() < 0.27


def test_surges_last_as_long_as_promised() -> None:
    """With surges alone, paths rise above 1 for 20 to 90 s at a time, and stay at 1 otherwise."""
    cycle = TrafficCycle(300, seed=2, amplitude=0.0, wander=0.0, surge_share=0.02)
    up = np.array([cycle.multipliers(float(time_s)) > 1.0 for time_s in range(1800)]).T
    lengths = [len(run) for row in up for run in "".join("#" if x else " " for x in row).strip("#").split()]
    assert len(lengths) > 50
    assert min(lengths) >= 19
    assert np.percentile(lengths, 90) <= 91  # the rest are surges that overlap
    assert 0.002 < up.mean() < 0.03


@pytest.mark.parametrize(
    "make",
    [
        lambda: gravity(1, 1e9, seed=1),
        lambda: gravity(5, 0.0, seed=1),
        lambda: gravity(5, nan, seed=1),
        lambda: gravity(5, 1e9, seed=1, packet_bits=-1.0),
        lambda: usual_rate(0.0),
        lambda: capacities_for(nsfnet().network(), gravity(14, 1e9, seed=1), 0.0),
        lambda: TrafficCycle(10, seed=1, period_s=0.0),
        lambda: TrafficCycle(10, seed=1, amplitude=1.2),
        lambda: TrafficCycle(10, seed=1, surge_share=2.0),
    ],
)
def test_traffic_that_cannot_be_is_refused(make: object) -> None:
    """Zero, negative or NaN totals, rates, targets and periods raise TopologyError."""
    assert callable(make)
    with pytest.raises(TopologyError):
        make()
