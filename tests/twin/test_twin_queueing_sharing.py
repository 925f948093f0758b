"""Several queues on a link: theory where there is some, and what any scheduler must obey."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from twin.network import Link, Network, Traffic, Variability
from twin.queueing import MG1K, MM1B
from twin.scheduling import CLASSES, Scheduling, by_class

Floats = NDArray[np.float64]
CAPACITY_BPS = 1e6
PACKET_BITS = 1_000.0
POLICIES = ("SP", "WFQ", "DRR")
UNEVEN = np.array([0.15, 0.3, 0.55])  # of the load, by class


def one_link(scheduling: Scheduling, *, buffer: int = 32, buffer_bits: float = 0.0) -> Network:
    """Two nodes and a link from one to the other."""
    link = Link("a", "b", CAPACITY_BPS, 0.0, buffer, scheduling=scheduling, buffer_bits=buffer_bits)
    return Network(("a", "b"), (link,), np.array([[-1, 0], [-1, -1]], dtype=np.int16))


def by_loads(loads: Floats, size_scv: float = 0.5) -> Traffic:
    """One flow for every class on the first path."""
    bps = loads * CAPACITY_BPS
    return Traffic(
        bps=bps,
        pps=bps / PACKET_BITS,
        path=np.zeros(CLASSES, dtype=np.int64),
        service_class=np.arange(CLASSES),
        size_scv=np.full(CLASSES, size_scv),
    )


@pytest.mark.parametrize("total", [0.3, 0.6, 0.9])
def test_strict_priority_is_cobhams(total: float) -> None:
    """Where nothing is lost the waits are those of the non-preemptive priority queue M/G/1."""
    loads = total * UNEVEN
    queues = MG1K().solve(one_link(by_class("SP"), buffer=2_000), by_loads(loads))
    residual = total * 1.5 / 2
    above = np.concatenate([[0.0], np.cumsum(loads)])
    expected = residual / ((1 - above[:-1]) * (1 - above[1:]))
    np.testing.assert_allclose(queues.wait_s / queues.service_s, expected, rtol=1e-6)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("total", [0.3, 0.6, 0.8])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (6.0, 3.0, 1.0), (1.0, 2.0, 7.0)])
def test_kleinrocks_conservation_law(policy: str, total: float, weights: tuple[float, ...]) -> None:
    """Where nothing is lost, what one class gains another loses: Σ ρ W does not depend on the policy."""
    loads = total * UNEVEN
    queues = MG1K().solve(one_link(by_class(policy, weights), buffer=2_000), by_loads(loads))
    waits = (loads * queues.wait_s / queues.service_s).sum()
    assert waits == pytest.approx(total * (total * 1.5 / 2) / (1 - total), rel=0.01)


@pytest.mark.parametrize("policy", ["WFQ", "DRR"])
@pytest.mark.parametrize("total", [0.5, 1.0, 2.0])
def test_one_busy_queue_has_the_link_to_itself(policy: str, total: float) -> None:
    """When only one class sends, its queue is the FIFO queue of the link, whatever its weight."""
    loads = np.array([0.0, total, 0.0])
    shared = MG1K().solve(one_link(by_class(policy, (5.0, 1.0, 4.0))), by_loads(loads))
    alone = MG1K().solve(one_link(Scheduling()), by_loads(loads))
    assert shared.wait_s[1] == pytest.approx(alone.wait_s[0], rel=3e-3)
    assert shared.blocking[1] == pytest.approx(alone.blocking[0], rel=3e-3, abs=1e-9)


def test_a_saturated_link_starves_its_lowest_priority() -> None:
    """Under SP what is above fills the link, and next to nothing of the lowest class is carried."""
    queues = MG1K().solve(one_link(by_class("SP")), by_loads(np.array([0.2, 1.5, 0.5])))
    carried = queues.load * (1 - queues.blocking)
    assert carried[0] == pytest.approx(0.2)
    assert carried[1] == pytest.approx(0.8, rel=0.01)
    assert carried[2] < 0.002
    assert queues.utilisation[0] == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("policy", ["WFQ", "DRR"])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (5.0, 3.0, 2.0), (1.0, 3.0, 1.0)])
def test_overload_is_shared_by_weight(policy: str, weights: tuple[float, ...]) -> None:
    """When all want more than the whole link, each gets its share, and waits for a full buffer."""
    network = one_link(by_class(policy, weights))
    queues = MG1K().solve(network, by_loads(np.full(CLASSES, 2.0)))
    share = np.array(weights) / sum(weights)
    np.testing.assert_allclose(queues.load * (1 - queues.blocking), share, rtol=0.01)
    np.testing.assert_allclose(queues.wait_s / queues.service_s, 31 / share, rtol=0.05)


def test_wfq_protects_who_stays_within_his_share() -> None:
    """A class that floods the link loses its own packets, not those of one within its weight."""
    queues = MG1K().solve(one_link(by_class("WFQ")), by_loads(np.array([0.2, 0.0, 3.0])))
    assert queues.blocking[0] < 0.02
    assert queues.load[2] * (1 - queues.blocking[2]) == pytest.approx(0.8, rel=0.02)


@pytest.mark.parametrize("policy", ["WFQ", "DRR"])
@pytest.mark.parametrize("total", [0.6, 1.3])
def test_weighted_queues_have_no_order(policy: str, total: float) -> None:
    """Naming the queues of WFQ and DRR in another order changes nothing."""
    order = np.array([2, 0, 1])
    weights = np.array([6.0, 3.0, 1.0])
    one = MG1K().solve(one_link(by_class(policy, tuple(weights))), by_loads(total * UNEVEN))
    other = MG1K().solve(one_link(by_class(policy, tuple(weights[order]))), by_loads(total * UNEVEN[order]))
    np.testing.assert_allclose(other.wait_s, one.wait_s[order], rtol=2e-3)


def test_precedence_shows_in_the_waits() -> None:
    """SP favours the first queue, WFQ whoever stays within his share; DRR with long turns the busiest."""
    waits = {p: MG1K().solve(one_link(by_class(p)), by_loads(0.8 * UNEVEN)).wait_s for p in POLICIES}
    assert (np.diff(waits["SP"]) > 0).all()
    assert (np.diff(waits["WFQ"]) > 0).all()
    assert waits["WFQ"][1] / waits["WFQ"][0] < waits["SP"][1] / waits["SP"][0]
    assert (np.diff(waits["DRR"]) < 0).all()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("model", [MG1K(), MM1B()], ids=["mg1k", "mm1b"])
@pytest.mark.parametrize("buffer", [1, 8, 64])
def test_waits_and_losses_grow_smoothly_with_the_load(policy: str, model: MG1K, buffer: int) -> None:
    """From idle to three times capacity: finite, never less for more traffic, and without a jump."""
    network = one_link(by_class(policy, (3.0, 2.0, 1.0)), buffer=buffer)
    totals = np.linspace(0, 3, 121)
    solved = [model.solve(network, by_loads(total * UNEVEN)) for total in totals]
    losses = np.array([queues.blocking for queues in solved])
    lost = (losses * UNEVEN).sum(axis=1)
    work = np.array([(queues.occupancy * queues.service_s).sum() for queues in solved])
    for queues in solved:
        for values in vars(queues).values():
            assert np.isfinite(values).all()
            assert (values >= 0).all()
        assert (queues.utilisation <= 1).all()
        assert (queues.occupancy <= queues.buffer_packets).all()
    assert (np.diff(lost) >= -1e-6).all()
    assert (np.diff(work) >= -2e-3 * work.max()).all()
    assert (
        np.abs(np.diff(losses, axis=0)).max() < 0.12
    )  # the steepest: the lowest queue of SP, near saturation


@pytest.mark.parametrize("policy", POLICIES)
def test_units_do_not_matter(policy: str) -> None:
    """A link ten times as fast with ten times the packets has a tenth of the wait."""
    scheduling = by_class(policy, (3.0, 2.0, 1.0))
    vary = Variability(np.array([1.0, 0.0, 1.0]), np.array([0.0, 0.3, 1.0]), np.array([0.0, 0.1, 0.02]))
    slow, loads = one_link(scheduling), by_loads(0.8 * UNEVEN)
    fast = replace(slow, links=(replace(slow.links[0], capacity_bps=10 * CAPACITY_BPS),))
    quick = replace(vary, rate_time_s=vary.rate_time_s / 10)
    one = MG1K().solve(slow, replace(loads, variability=vary))
    ten = MG1K().solve(fast, replace(loads.scaled(10), variability=quick))
    np.testing.assert_allclose(10 * ten.wait_s, one.wait_s, rtol=1e-6 if policy != "DRR" else 0.03)
    np.testing.assert_allclose(ten.blocking, one.blocking, rtol=1e-6 if policy != "DRR" else 0.1, atol=1e-9)


def test_a_buffer_of_bits_holds_as_many_packets_as_fit() -> None:
    """K = bits ÷ mean packet of the queue, fractional; at least one packet gets in."""
    network = one_link(by_class("SP"), buffer_bits=16_500.0)
    traffic = replace(by_loads(0.5 * UNEVEN), pps=np.array([75.0, 150.0, 275.0]) / np.array([1, 2, 40]))
    queues = MG1K().solve(network, traffic)
    np.testing.assert_allclose(queues.buffer_packets, [16.5, 8.25, 1.0])


def test_mm1b_knows_one_queue_a_link() -> None:
    """The weak baseline gives every class of a link the wait of M/M/1/b, whatever the scheduler."""
    loads = by_loads(0.8 * UNEVEN)
    vary = Variability(np.zeros(3), np.ones(3), np.ones(3))
    waits = [MM1B().solve(one_link(by_class(p)), replace(loads, variability=vary)).wait_s for p in POLICIES]
    fifo = MM1B().solve(one_link(Scheduling()), loads).wait_s[0]
    np.testing.assert_allclose(waits, np.full((3, 3), fifo))


def test_a_class_meets_the_queues_of_its_class() -> None:
    """Flows of one path differ by their class: losses, waits and jitter are those of their own queues."""
    network = one_link(by_class("SP"), buffer=8)
    traffic = by_loads(1.4 * UNEVEN)
    queues, said = MG1K().solve(network, traffic), MG1K().predict(network, traffic)
    np.testing.assert_allclose(said.mean_s, queues.wait_s + PACKET_BITS / CAPACITY_BPS)
    np.testing.assert_allclose(said.loss, queues.blocking, atol=1e-12)


@pytest.mark.parametrize("policy", ["FIFO", *POLICIES])
def test_what_is_missing_or_odd_stays_finite(policy: str) -> None:
    """No traffic, no sizes, no flows, a buffer of one packet or of less: finite numbers."""
    scheduling = Scheduling() if policy == "FIFO" else by_class(policy)
    vary = Variability(np.array([0.0, 1.0, 4.0]), np.array([0.0, 5.0, 1.0]), np.array([0.0, 1e3, 1e-6]))
    for network in (one_link(scheduling, buffer=1), one_link(scheduling, buffer_bits=10.0)):
        for loads in (np.zeros(3), np.array([0.0, 0.0, 3.0]), np.array([1e-9, 3.0, 0.0]), np.ones(3)):
            traffic = replace(by_loads(loads), size_scv=None, variability=vary)
            said = MG1K().predict(network, traffic)
            for values in (said.mean_s, said.jitter_s, said.loss, said.log_width, said.link_utilisation):
                assert np.isfinite(values).all()
        empty = Traffic(np.zeros(0), np.zeros(0), path=np.zeros(0, dtype=np.int64))
        assert MG1K().predict(network, empty).mean_s.shape == (0,)
