"""Calibration by paths of several equal routes: on a grid, where most paths have two and more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from twin.calibration import Calibration, Reading
from twin.calibration_window import Flags
from twin.equal_routes import EqualRoutes, branch_variance, equal_routes, predict_paths
from twin.graph_view import MeasuredDelays
from twin.network import Floats, Ints, Link, Network, Traffic
from twin.queueing import MM1B

MODEL = MM1B()
SIDE = 4
WINDOWS = 8
LINK = 17
EXTRA_S = 0.005


def grid() -> Network:
    """SIDE × SIDE routers, every shortest way to every destination a next hop; no two links of one length."""
    where = [(row, column) for row in range(SIDE) for column in range(SIDE)]
    names = tuple(f"r{row}{column}" for row, column in where)
    near = [(a, b) for a in range(SIDE**2) for b in range(SIDE**2) if apart(where, a, b) == 1]
    links = tuple(Link(names[a], names[b], 1e7, 0.001 * (1 + k % 7), 64) for k, (a, b) in enumerate(near))
    next_link = np.full((len(names), len(names)), -1, dtype=np.int16)
    more = []
    for k, (a, b) in enumerate(near):
        for target in range(len(names)):
            if apart(where, b, target) < apart(where, a, target):
                if next_link[a, target] < 0:
                    next_link[a, target] = k
                else:
                    more.append((a, target, k))
    return Network(names, links, next_link, equal_links=np.array(more, dtype=np.int16))


def apart(where: list[tuple[int, int]], a: int, b: int) -> int:
    """Hops between two routers."""
    return abs(where[a][0] - where[b][0]) + abs(where[a][1] - where[b][1])


NETWORK = grid()
TRAFFIC = Traffic(
    bps=np.full(NETWORK.path_count, 3e5), pps=np.full(NETWORK.path_count, 37.5), observed_s=10.0
)


def routes_of() -> EqualRoutes:
    """All routes of the grid."""
    routes = equal_routes(NETWORK)
    assert routes is not None
    return routes


ROUTES = routes_of()
SEVERAL = np.bincount(ROUTES.path) > 1


def slower(network: Network, link: int, extra_s: float) -> Network:
    """The network with a longer way on one link."""
    links = list(network.links)
    links[link] = replace(links[link], propagation_delay_s=links[link].propagation_delay_s + extra_s)
    return replace(network, links=tuple(links))


def learnt(
    truth_s: Floats, *, measured: Flags, packet_bits: float | None = None, noise: float = 0.003
) -> Calibration:
    """What windows teach in which the measured paths took ``truth_s``, give or take ``noise``."""
    calibration = Calibration(NETWORK)
    for seed in range(WINDOWS):
        noisy = truth_s * np.random.default_rng(seed).lognormal(0.0, noise, len(truth_s))
        window = calibration.correct(NETWORK, TRAFFIC, predict_paths(MODEL, NETWORK, TRAFFIC))
        told = MeasuredDelays("one-way", noisy, np.where(measured, 1e3, 0.0), packet_bits)
        calibration.learn(window, [Reading(told)])
    return calibration


def errors(calibration: Calibration, truth: Network) -> Floats:
    """Relative error of every path against the noiseless truth."""
    window = calibration.correct(NETWORK, TRAFFIC, predict_paths(MODEL, NETWORK, TRAFFIC))
    return np.abs(window.corrected.mean_s / predict_paths(MODEL, truth, TRAFFIC).mean_s - 1)


def by_one_route(truth: Network, chosen: Ints) -> Floats:
    """The delay of every path where all packets take one route, the ``chosen`` modulo their number."""
    apart_network, flows = ROUTES.apart(truth, TRAFFIC)
    of_route = MODEL.predict(apart_network, flows).mean_s
    first = np.searchsorted(ROUTES.path, np.arange(NETWORK.path_count))
    return of_route[first + chosen % np.bincount(ROUTES.path)]


def test_a_link_is_learnt_from_paths_of_several_routes_alone() -> None:
    """No path of one route is measured: the link that is off is found, and they come out right."""
    truth = slower(NETWORK, LINK, EXTRA_S)
    calibration = learnt(predict_paths(MODEL, truth, TRAFFIC).mean_s, measured=SEVERAL)
    offsets = calibration.links.offset_s
    assert offsets[LINK] == pytest.approx(EXTRA_S, rel=0.1)
    assert np.abs(np.delete(offsets, LINK)).max() < 0.1 * EXTRA_S
    over = np.zeros(NETWORK.path_count, dtype=np.bool_)
    over[NETWORK.paths.hop_path[NETWORK.paths.links == LINK]] = True
    single = errors(calibration, truth)[over & ~SEVERAL]
    assert len(single) > 0
    assert single.max() < 0.05
    assert errors(calibration, truth)[SEVERAL].max() < 0.02


def test_a_factor_on_the_wait_is_learnt_by_shares_too() -> None:
    """A link of 0.8 the capacity told: paths over it come out right, by however much of them crosses it."""
    links = list(NETWORK.links)
    links[LINK] = replace(links[LINK], capacity_bps=0.8 * links[LINK].capacity_bps)
    truth = replace(NETWORK, links=tuple(links))
    calibration = learnt(predict_paths(MODEL, truth, TRAFFIC).mean_s, measured=SEVERAL)
    assert errors(Calibration(NETWORK), truth)[SEVERAL].max() > 0.03
    assert errors(calibration, truth)[SEVERAL].max() < 0.01


def test_wrong_routes_do_not_spoil_what_the_others_teach() -> None:
    """Of the paths of several routes every 15th takes one alone, off by up to 4 ms: neither the link that is
    off nor the other paths suffer."""
    truth = slower(NETWORK, LINK, EXTRA_S)
    wrong = np.zeros(NETWORK.path_count, dtype=np.bool_)
    wrong[np.flatnonzero(SEVERAL)[::15]] = True
    means = predict_paths(MODEL, truth, TRAFFIC).mean_s
    alone = by_one_route(truth, np.arange(NETWORK.path_count))
    assert np.abs(alone - means)[wrong].max() > 0.0035
    calibration = learnt(np.where(wrong, alone, means), measured=SEVERAL)
    assert calibration.links.offset_s[LINK] == pytest.approx(EXTRA_S, rel=0.1)
    assert errors(calibration, truth)[SEVERAL & ~wrong].max() < 0.02


def test_probes_that_take_one_of_the_routes_do_not_bend_links() -> None:
    """A probe is one flow: what it differs from the mean over routes is no link's fault."""
    alone = by_one_route(NETWORK, np.random.default_rng(1).integers(0, 1000, NETWORK.path_count))
    one_route = np.ones(NETWORK.path_count, dtype=np.bool_)
    as_probes = learnt(alone, measured=one_route, packet_bits=8000.0)
    as_traffic = learnt(alone, measured=one_route)
    moved, believed = (np.abs(one.links.offset_s).max() for one in (as_probes, as_traffic))
    assert moved < 0.0005
    assert believed > 2 * moved


def test_probes_over_equal_routes_teach_links_only() -> None:
    """Beside them paths of one route are believed as they are without them, no interval grows, and the mean
    over a path's routes is not bent towards the one that its probe takes."""
    means = predict_paths(MODEL, NETWORK, TRAFFIC).mean_s
    alone = by_one_route(NETWORK, np.random.default_rng(2).integers(0, 1000, NETWORK.path_count))
    every = np.ones(NETWORK.path_count, dtype=np.bool_)
    far_apart = np.abs(alone / means - 1.0) > 0.05
    without = learnt(means, measured=~SEVERAL, packet_bits=8000.0, noise=0.02)
    on_the_mean, off_the_mean = (
        learnt(found, measured=every, packet_bits=8000.0, noise=0.02) for found in (means, alone)
    )
    for one in (on_the_mean, off_the_mean):
        assert one.reading_scale == pytest.approx(without.reading_scale, rel=0.15)
        assert one.widths.ln_factor.max() <= without.widths.ln_factor.max() + 0.05
        assert np.abs(one.paths.factor[far_apart] - 1.0).max() < 0.005


def test_the_variance_between_routes_is_that_of_one_flow() -> None:
    """Zero where a path has one route; else that over its routes, each by its share."""
    link_s = NETWORK.propagation_delay_s
    found = branch_variance(NETWORK, link_s)
    assert found[~SEVERAL].tolist() == [0.0] * int((~SEVERAL).sum())
    path = int(np.flatnonzero(SEVERAL)[40])
    mine = np.flatnonzero(ROUTES.path == path)
    delays = [link_s[ROUTES.routes.of(int(r))].sum() for r in mine]
    mean = np.average(delays, weights=ROUTES.share[mine])
    assert found[path] == pytest.approx(np.average((delays - mean) ** 2, weights=ROUTES.share[mine]))


def test_other_equal_routes_are_other_paths() -> None:
    """A path that loses one of its routes forgets its own factor, though its first route is the same."""
    assert NETWORK.equal_links is not None
    calibration = learnt(1.03 * predict_paths(MODEL, NETWORK, TRAFFIC).mean_s, measured=SEVERAL)
    calibration.paths.arrays["offset"][:] = 9
    fewer = replace(NETWORK, equal_links=NETWORK.equal_links[1:])
    before = Calibration.load(calibration.dump(), NETWORK)
    assert before.paths.arrays["offset"].tolist() == [9] * NETWORK.path_count
    calibration.move_to(fewer)
    changed = np.flatnonzero(calibration.paths.arrays["offset"] == 0)
    assert 0 < len(changed) < 20
    assert SEVERAL[changed].all()
