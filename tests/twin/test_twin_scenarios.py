"""Scenarios and the data made of them: what is asked for is drawn, played, told truly, and kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from twin.dataset import MIN_PACKETS, generate, load_samples, simulate
from twin.network import Link, Network
from twin.queueing import MG1K
from twin.recipes import (
    CALIBRATION_SEED,
    RECIPES,
    SLICES,
    TEST_SEED,
    TEST_SLICES,
    TRAINING_SEED,
    VALIDATION_SEED,
)
from twin.samples import Sample, check_sample
from twin.scenarios import CLASS_SHARES, Conditions, draw, variability_of
from twin.scheduling import POLICIES
from twin.simulator import Simulator
from twin.topologies import MAPS
from twin.traffic import link_load_bps
from twin.workload import (
    Arrivals,
    Autocorrelated,
    Cbr,
    Flow,
    Mmpp,
    Modulated,
    OnOff,
    PacketSizes,
    Poisson,
)

WINDOWS = Conditions(windows=2, window_s=2.0, warm_up_s=1.0)
STEADY = replace(SLICES["smoke-mixed"], packets=60.0)
both = pytest.mark.parametrize("conditions", [WINDOWS, STEADY], ids=["windows", "steady"])


def same(one: Sample, other: Sample) -> bool:
    """The same labels and traffic over the same network, bit for bit."""
    pairs = [
        (getattr(sample, name) for sample in (one, other)) for name in ("mean_s", "std_s", "loss", "noise")
    ]
    pairs += [
        (getattr(sample.traffic, name) for sample in (one, other)) for name in ("bps", "pps", "size_scv")
    ]
    return one.network.links == other.network.links and all(np.array_equal(*pair) for pair in pairs)


@both
def test_the_same_seed_gives_the_same_samples(conditions: Conditions) -> None:
    """A scenario is a function of its conditions and seed; another seed gives another."""
    first, again, other = (simulate(conditions, seed) for seed in (7, 7, 8))
    assert len(first) == max(conditions.windows, 1)
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    assert not same(first[0], other[0])


@both
def test_samples_are_stored_and_generation_resumes(conditions: Conditions, tmp_path: Path) -> None:
    """What was written is read back; a second run writes only what is missing."""
    generate(tmp_path, conditions, [1, 2])
    kept = (tmp_path / "000001.npz").stat().st_mtime_ns
    (tmp_path / "000002.npz").unlink()
    generate(tmp_path, conditions, [1, 2])
    assert (tmp_path / "000001.npz").stat().st_mtime_ns == kept
    stored, fresh = load_samples(tmp_path, [2]), simulate(conditions, 2)
    for a, b in zip(stored, fresh, strict=True):
        assert a.network.links == b.network.links
        np.testing.assert_array_equal(a.network.paths.links, b.network.paths.links)
        np.testing.assert_allclose(a.mean_s, b.mean_s, rtol=1e-6)
        np.testing.assert_allclose(a.traffic.pps, b.traffic.pps, rtol=1e-6)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["000001.npz", "000002.npz"]


def test_two_processes_make_the_files_of_one(tmp_path: Path) -> None:
    """How many processes simulate does not show in the data."""
    generate(tmp_path / "one", STEADY, [1, 2])
    generate(tmp_path / "two", STEADY, [1, 2], processes=2)
    for name in ("000001.npz", "000002.npz"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


# ------------------------------------------------------------------------------------- what is drawn


def shortened(conditions: Conditions) -> Conditions:
    """The same on a dozen nodes, for seconds or a few packets."""
    return replace(
        conditions,
        nodes=(10, 12),
        windows=min(conditions.windows, 1),
        window_s=3.0,
        warm_up_s=1.0,
        packets=100.0,
    )


@pytest.mark.parametrize("name", sorted(SLICES))
def test_every_slice_draws_labelled_samples(name: str) -> None:
    """Each slice, shortened, yields a sample that passes all checks and has labels for much of its flows."""
    (sample,) = simulate(shortened(SLICES[name]), 5)
    check_sample(sample)
    assert sample.labelled.mean() > 0.3
    assert (sample.count[sample.labelled] >= MIN_PACKETS).all()
    assert (sample.std_s[sample.labelled] > 0).all()
    assert 0 < np.median(sample.noise[sample.labelled]) < 0.5
    assert not sample.network.propagation_delay_s.any()


@pytest.mark.parametrize("name", ["random", "lab", "nsfnet-bursty", "geant2", "gbn", "smoke"])
def test_the_busiest_link_has_the_load_asked_for(name: str) -> None:
    """Over seeds, the highest offered load lies in the range of the conditions, and fills it."""
    conditions = replace(SLICES[name], nodes=(10, 12))
    low, high = conditions.worst_load
    worst = []
    for seed in range(20):
        scenario = draw(conditions, seed)
        bps = np.array([flow.pps * flow.sizes.mean_bits for flow in scenario.flows])
        worst.append((link_load_bps(scenario.network, bps) / scenario.network.capacity_bps).max())
    assert low * (1 - 1e-2) <= min(worst) < low + 0.3 * (high - low)
    assert high - 0.3 * (high - low) < max(worst) <= high * (1 + 1e-2)


def test_mixed_links_have_the_loads_asked_for() -> None:
    """Averaged over links, loads follow the target of the scenario; speeds are usual ones, 10, 25, 40 …"""
    conditions = replace(SLICES["mixed"], nodes=(10, 14))
    for wanted in (0.2, 0.5, 0.9):
        loads = []
        for seed in range(10):
            network, flows = (
                (s := draw(replace(conditions, worst_load=(wanted, wanted)), seed)).network,
                s.flows,
            )
            bps = np.array([flow.pps * flow.sizes.mean_bits for flow in flows])
            offered = link_load_bps(network, bps)
            loads.append((offered / network.capacity_bps)[offered > 0.05 * offered.mean()])
            mantissa = network.capacity_bps / 10 ** np.floor(np.log10(network.capacity_bps))
            assert set(mantissa.round(6).tolist()) <= {1.0, 2.5, 4.0}
        assert np.concatenate(loads).mean() == pytest.approx(wanted, rel=0.25)
        assert np.concatenate(loads).max() <= 2.0 * 1.6


def test_mixed_scenarios_hold_everything() -> None:
    """Over seeds: all policies, buffers of packets and of bits, classes in their shares, all arrivals."""
    policies, classes, laws, in_bits = Counter[str](), Counter[int](), Counter[str](), Counter[bool]()
    for seed in range(30):
        scenario = draw(replace(SLICES["mixed"], nodes=(10, 12)), seed)
        policies.update(link.scheduling.policy for link in scenario.network.links)
        classes.update(flow.service_class for flow in scenario.flows)
        laws.update(type(flow.arrivals).__name__ for flow in scenario.flows)
        in_bits[bool(scenario.network.buffer_bits.all())] += 1
    assert set(policies) == set(POLICIES)
    shares = [classes[one] / classes.total() for one in range(len(CLASS_SHARES))]
    assert shares == pytest.approx(CLASS_SHARES, abs=0.03)
    assert set(laws) == {"Poisson", "Cbr", "OnOff", "Autocorrelated"}
    assert min(in_bits.values()) >= 2


def test_the_seeds_of_training_and_judgement_do_not_meet() -> None:
    """No recipe asks for so many scenarios that one range of seeds would run into the next."""
    ranges = (TRAINING_SEED, VALIDATION_SEED, CALIBRATION_SEED, TEST_SEED)
    apart = min(b - a for a, b in pairwise(ranges))
    for recipe in RECIPES.values():
        assert max([0, *recipe.parts.values(), *recipe.calibration.values(), recipe.validation]) <= apart
        assert {*recipe.parts, *recipe.calibration} <= set(SLICES)
    assert set(TEST_SLICES) <= set(SLICES)


def test_no_recipe_trains_on_known_maps_or_large_networks() -> None:
    """What is claimed of networks never seen, maps of the literature and 300 nodes, holds of every recipe."""
    trained = {name for recipe in RECIPES.values() for name in recipe.parts}
    assert not any(set(MAPS) & set(SLICES[name].topologies) for name in trained)
    assert max(SLICES[name].nodes[1] for name in trained) <= 110


# --------------------------------------------------------------------------------- what is told of flows


@pytest.mark.parametrize(
    "arrivals",
    [
        Poisson(),
        Cbr(),
        Modulated(sigma=0.6, mean_s=0.3),
        OnOff(mean_on_s=0.4, mean_off_s=0.2),
        OnOff(mean_on_s=0.4, mean_off_s=0.2, regular=True),
        Mmpp(ratio=5.0, mean_high_s=0.2, mean_low_s=0.3),
        Autocorrelated(0.5),
    ],
    ids=["poisson", "cbr", "modulated", "on-off", "regular on-off", "mmpp", "autocorrelated"],
)
def test_variability_is_what_the_simulator_does(arrivals: Arrivals) -> None:
    """Packet counts of a second vary as the squared variations and the correlation time that are told say.

    Var N = g·m + m²·c·f(T/τ), f(x) = 2(x − 1 + e^(−x))/x² for an exponential autocovariance (c, τ).
    """
    links = (Link("a", "b", 1e12), Link("b", "a", 1e12))
    network = Network(("a", "b"), links, np.array([[-1, 0], [1, -1]], dtype=np.int16))
    mean = 200.0
    flow = Flow(0, 1, mean, PacketSizes.fixed(8_000), arrivals)
    simulator = Simulator(network, [flow] * 3_000, seed=1)
    simulator.advance(1.0)
    gaps, rate_scv, time_s = variability_of(flow)
    x = 1.0 / max(time_s, 1e-9)
    expected = gaps * mean + mean**2 * rate_scv * 2 * (x - 1 + np.exp(-x)) / x**2
    assert simulator.sent_packets.mean() == pytest.approx(mean, rel=0.03)
    assert simulator.sent_packets.var() == pytest.approx(expected, rel=0.15, abs=0.5)


def test_traffic_tells_what_flows_are() -> None:
    """A sample's traffic holds every flow's path, class, sizes and variability, and its rate as seen."""
    conditions = replace(STEADY, packets=400.0)
    scenario, (sample,) = draw(conditions, 3), simulate(conditions, 3)
    traffic, network = sample.traffic, sample.network
    assert traffic.path is not None
    assert traffic.service_class is not None
    assert traffic.variability is not None
    for k, flow in enumerate(scenario.flows):
        assert network.path_ends(int(traffic.path[k])) == (flow.source, flow.destination)
        assert traffic.service_class[k] == flow.service_class
        assert traffic.variability.rate_scv[k] == variability_of(flow)[1]
    asked = np.array([flow.pps for flow in scenario.flows])
    assert traffic.pps.sum() == pytest.approx(asked.sum(), rel=0.05)
    load = MG1K().solve(network, traffic).link_load
    assert 0 < load.max() < 5
