"""Calibration on measurements made by hand: gaps, faults, order, topology, stored bytes, intervals."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from twin.calibration import Calibrated, Calibration, CalibrationRules, Corrected, Reading
from twin.calibration_core import along, explain
from twin.calibration_worth import Worth
from twin.errors import DecodeError, TopologyError
from twin.graph_view import MeasuredDelays
from twin.models import PathPrediction
from twin.network import Floats, Network, Traffic
from twin.queueing import MM1B
from twin.routing import shortest_paths
from twin.topologies import nsfnet
from twin.traffic import lab_scenario

MODEL = MM1B()
NETWORK, TRAFFIC = lab_scenario(nsfnet(), seed=3)
PATHS = NETWORK.path_count
LINK = 7


def slower(network: Network, link: int, extra_s: float) -> Network:
    """The network with a longer way on one link."""
    links = list(network.links)
    links[link] = replace(links[link], propagation_delay_s=links[link].propagation_delay_s + extra_s)
    return replace(network, links=tuple(links))


TRUTH = slower(NETWORK, LINK, 0.1)


def corrected(calibration: Calibration, network: Network = NETWORK, traffic: Traffic = TRAFFIC) -> Corrected:
    """One window's prediction."""
    return calibration.correct(network, traffic, MODEL.predict(network, traffic))


def measured(truth: Network, seed: int, noise: float = 0.003) -> Floats:
    """The delays of one window, [P], with a lognormal error."""
    strays = np.random.default_rng(seed).normal(0.0, noise, truth.path_count)
    return MODEL.predict(truth, TRAFFIC).mean_s * np.exp(strays)


def one_way(mean_s: Floats, count: Floats | None = None) -> Reading:
    """All of it measured, on 1,000 packets each unless told."""
    return Reading(MeasuredDelays("one-way", mean_s, np.full(len(mean_s), 1e3) if count is None else count))


def learnt(windows: int, truth: Network = TRUTH, rules: CalibrationRules | None = None) -> Calibration:
    """What so many windows teach of the lab."""
    calibration = Calibration(NETWORK, rules)
    for seed in range(windows):
        calibration.learn(corrected(calibration), [one_way(measured(truth, seed))])
    return calibration


def error(prediction: PathPrediction, truth: Network = TRUTH) -> float:
    """The largest relative error against the noiseless truth."""
    return float(np.abs(prediction.mean_s / MODEL.predict(truth, TRAFFIC).mean_s - 1).max())


# ------------------------------------------------------------------------------------- what is learnt


def test_a_calibration_that_learnt_nothing_says_what_the_model_says() -> None:
    """Delay, jitter, loss and interval are the model's own to rounding."""
    said, window = MODEL.predict(NETWORK, TRAFFIC), corrected(Calibration(NETWORK))
    for name in ("mean_s", "jitter_s", "loss", "log_width", "link_utilisation"):
        np.testing.assert_allclose(getattr(window.prediction, name), getattr(said, name), rtol=1e-12)


@pytest.mark.parametrize("extra_s", [0.002, 0.02, 0.3])
def test_whatever_is_off_from_the_start_is_taken_for_the_network(extra_s: float) -> None:
    """A link nobody measured before is learnt at once, from 400 km of fibre to a satellite."""
    truth = slower(NETWORK, LINK, extra_s)
    calibration = learnt(3, truth)
    assert error(corrected(calibration).prediction, truth) < 0.02
    assert calibration.links.offset_s[LINK] == pytest.approx(extra_s, rel=0.1)


def test_what_lasts_longer_than_the_patience_is_how_the_network_is_now() -> None:
    """A change is left alone for as many windows as the rules say, and then learnt within two."""
    calibration = Calibration(NETWORK, CalibrationRules(patience_windows=6))
    offsets = []
    for seed in range(20):
        truth = TRUTH if seed >= 10 else NETWORK
        calibration.learn(corrected(calibration), [one_way(measured(truth, seed))])
        offsets.append(calibration.links.offset_s[LINK])
    assert np.abs(offsets[:16]).max() < 1e-3
    assert offsets[17] == pytest.approx(0.1, rel=0.02)


def test_a_probe_that_lies_teaches_nothing() -> None:
    """One path measured ten times too slow moves no prediction by more than 0.2 %."""
    honest, fooled = learnt(10, NETWORK), learnt(10, NETWORK)
    wrong = measured(NETWORK, 10)
    wrong[40] *= 10
    honest.learn(corrected(honest), [one_way(measured(NETWORK, 10))])
    fooled.learn(corrected(fooled), [one_way(wrong)])
    a, b = corrected(honest).prediction.mean_s, corrected(fooled).prediction.mean_s
    assert np.abs(a / b - 1).max() < 2e-3


def test_round_trips_of_probes_teach_too() -> None:
    """From round trips of small probes alone, what probes should read comes out right."""
    both = slower(TRUTH, NETWORK.link_names.index(turned(LINK)), 0.1)
    calibration, silent = Calibration(NETWORK), np.zeros(PATHS)
    source, destination = NETWORK.ends
    back = np.array(
        [
            NETWORK.path_index(NETWORK.nodes[d], NETWORK.nodes[s])
            for s, d in zip(source, destination, strict=True)
        ]
    )
    for seed in range(3):
        way = measured(both, seed)
        probes = MeasuredDelays("round-trip", way + way[back], silent + 100, packet_bits=8_000.0)
        calibration.learn(corrected(calibration), [Reading(probes)])
    said, true = corrected(calibration).prediction.mean_s, MODEL.predict(both, TRAFFIC).mean_s
    assert np.abs((said + said[back]) / (true + true[back]) - 1).max() < 0.02


def turned(link: int) -> str:
    """The name of the link in the other direction."""
    one = NETWORK.links[link]
    return f"{one.target}->{one.source}"


def test_probes_of_flows_are_refused() -> None:
    """Where several flows share a path, a probe cannot be set beside one of them: the error says so."""
    flows = replace(TRAFFIC, path=np.arange(PATHS))
    calibration = Calibration(NETWORK)
    probes = MeasuredDelays("one-way", measured(TRUTH, 0), np.full(PATHS, 9.0), packet_bits=800.0)
    with pytest.raises(TopologyError, match="canonical path"):
        calibration.learn(corrected(calibration, traffic=flows), [Reading(probes)])


def test_flows_teach_as_the_paths_they_take() -> None:
    """Two flows on every path, told by path, teach what one flow a path does."""
    twice = np.tile(np.arange(PATHS), 2)
    half = Traffic(bps=TRAFFIC.bps[twice] / 2, pps=TRAFFIC.pps[twice] / 2, path=twice)
    calibration = Calibration(NETWORK)
    for seed in range(3):
        window = corrected(calibration, traffic=half)
        calibration.learn(window, [one_way(measured(TRUTH, seed)[twice])])
    assert error(corrected(calibration).prediction) < 0.02


def test_no_link_gets_faster_than_light_allows() -> None:
    """Where too much propagation was told, offsets take back no more than that; delays stay positive."""
    links = [replace(link, propagation_delay_s=0.0, capacity_bps=1e9) for link in NETWORK.links]
    calibration = learnt(20, replace(NETWORK, links=tuple(links)))
    assert (calibration.links.offset_s >= -NETWORK.propagation_delay_s * (1 + 1e-6)).all()
    assert (corrected(calibration).prediction.mean_s > 0).all()


@pytest.mark.parametrize("factor", [0.7, 0.1])
def test_a_wait_that_is_shorter_is_learnt_where_no_offset_can_be_taken_back(factor: float) -> None:
    """No propagation, so no offset below zero, and waits below what the model says: the factor learns it.

    What cannot be taken from the offset goes to the factor, and what cannot be taken from that to the offset.
    Otherwise the one that may still move runs away from the truth, farther with every window: it balances a
    move that the other did not make.
    """
    network = replace(NETWORK, links=tuple(replace(one, propagation_delay_s=0.0) for one in NETWORK.links))
    near = network.paths.lengths <= 2
    calibration, dice = Calibration(network), np.random.default_rng(5)
    for _ in range(60):
        window = corrected(calibration, network, TRAFFIC.scaled(dice.uniform(0.7, 1.0)))
        truth = window.parts.fixed_s + factor * window.parts.wait_s
        reading = one_way(truth * np.exp(dice.normal(0.0, 0.2, PATHS)), np.where(near, 80.0, 0.0))
        calibration.learn(window, [reading])
    by_model, left = (
        np.median(np.abs(one.mean_s[near] / truth[near] - 1)) for one in (window.said, window.corrected)
    )
    assert left < by_model / 3
    assert calibration.worth.used


def test_a_path_learns_what_its_links_do_not_explain() -> None:
    """A path 3 % slower than its links say ends within 1 % of what is measured, and its links stay."""
    calibration = Calibration(NETWORK)
    path = int(np.argmax(NETWORK.paths.lengths))
    for seed in range(60):
        mean_s = measured(NETWORK, seed)
        mean_s[path] *= 1.03
        calibration.learn(corrected(calibration), [one_way(mean_s)])
    true = MODEL.predict(NETWORK, TRAFFIC).mean_s
    true[path] *= 1.03
    assert corrected(calibration).corrected.mean_s == pytest.approx(true, rel=0.01)


def test_the_ridge_is_solved() -> None:
    """Conjugate gradients find what a dense solver finds, to the tolerance they promise."""
    rng, paths = np.random.default_rng(5), NETWORK.paths
    late, variance = rng.normal(0, 1e-3, PATHS), rng.uniform(0.5, 2, len(NETWORK.links)) * 1e-6
    precision = rng.uniform(0.5, 2, PATHS) * 1e8
    a = np.zeros((PATHS, len(NETWORK.links)))
    a[paths.hop_path, paths.links] = share = rng.uniform(0.1, 1.0, len(paths.links))
    dense = np.linalg.solve(a.T @ (precision[:, None] * a) + np.diag(1 / variance), a.T @ (precision * late))
    found = explain(paths.links, share, paths.offsets, late, precision, variance)
    np.testing.assert_allclose(found, dense, atol=1e-3 * np.abs(dense).max())
    np.testing.assert_allclose(along(paths.links, share, paths.offsets, found), a @ found, atol=1e-12)


# ------------------------------------------------------------------------------------ what is missing


def test_missing_and_impossible_measurements_never_make_a_nan() -> None:
    """Gaps, NaN, infinity, zero, negative delays and silence leave all state and predictions finite."""
    rng, calibration = np.random.default_rng(0), Calibration(NETWORK)
    wrong = np.array([np.nan, np.inf, -np.inf, 0.0, -1.0, 1e9, 1e-12])
    silence = Traffic(bps=np.zeros(PATHS), pps=np.zeros(PATHS))
    for seed in range(30):
        traffic = silence if seed % 5 == 4 else TRAFFIC
        mean_s = measured(TRUTH, seed)
        bad = rng.random(PATHS) < rng.random()
        mean_s[bad] = rng.choice(wrong, int(bad.sum()))
        count = rng.choice([0.0, 1.0, 50.0, np.nan], PATHS)
        window = corrected(calibration, traffic=traffic)
        calibration.learn(window, [one_way(mean_s, count)])
        for values in (window.prediction.mean_s, window.prediction.jitter_s, window.prediction.log_width):
            assert np.isfinite(values).all()
            assert (values >= 0).all()
        for array in (*calibration.links.arrays.values(), *calibration.paths.arrays.values()):
            assert np.isfinite(array.astype(np.float64)).all()


def test_nothing_measured_teaches_nothing() -> None:
    """No reading, an empty one, or one that nobody trusts: false, and the state keeps its bytes."""
    calibration = learnt(2)
    before, window = calibration.dump(), corrected(calibration)
    mean_s = measured(TRUTH, 5)
    distrusted = Reading(one_way(mean_s).measured, trusted=np.zeros(PATHS, dtype=np.bool_))
    for readings in ([], [one_way(mean_s, np.zeros(PATHS))], [distrusted]):
        assert not calibration.learn(window, readings)
    assert calibration.dump() == before


# --------------------------------------------------------------------------- the same again, and apart


def test_equal_windows_make_equal_bytes_whatever_the_order_of_the_readings() -> None:
    """Two runs agree to the bit, also where each names the methods in another order."""
    probes = Reading(MeasuredDelays("one-way", measured(TRUTH, 99), np.full(PATHS, 20.0), packet_bits=800.0))
    one, other = Calibration(NETWORK), Calibration(NETWORK)
    for seed in range(4):
        flows = one_way(measured(TRUTH, seed))
        one.learn(corrected(one), [flows, probes])
        other.learn(corrected(other), [probes, flows])
    assert one.dump() == other.dump()


def test_a_window_teaches_once() -> None:
    """A window that comes twice, or was corrected before another taught, is refused and changes nothing."""
    calibration = learnt(2)
    first, second = corrected(calibration), corrected(calibration)
    assert calibration.learn(first, [one_way(measured(TRUTH, 7))])
    before = calibration.dump()
    assert not calibration.learn(first, [one_way(measured(TRUTH, 7))])
    assert not calibration.learn(second, [one_way(measured(TRUTH, 8))])
    assert calibration.dump() == before


def test_asking_teaches_nothing() -> None:
    """A calibrated model answers what-ifs, of other topologies too, and the state keeps its bytes."""
    calibration = learnt(3)
    before, calibrated = calibration.dump(), Calibrated(MODEL, calibration)
    assert error(calibrated.predict(NETWORK, TRAFFIC)) < 0.02
    assert error(calibrated.predict(renumbered(NETWORK), TRAFFIC)) < 0.02
    assert calibration.dump() == before
    assert calibrated.name == MODEL.name


# ----------------------------------------------------------------------------------- topology, bytes


def renumbered(network: Network) -> Network:
    """The same network with its links in the other order."""
    last = len(network.links) - 1
    next_link = np.where(network.next_link >= 0, last - network.next_link, -1).astype(np.int16)
    return Network(nodes=network.nodes, links=network.links[::-1], next_link=next_link)


def test_links_and_paths_are_followed_by_name() -> None:
    """In a network whose links come in another order every prediction stays what it was."""
    calibration = learnt(5)
    before = corrected(calibration).prediction.mean_s
    after = corrected(calibration, renumbered(NETWORK)).prediction.mean_s
    np.testing.assert_allclose(after, before, rtol=1e-9)
    assert calibration.links.offset_s[::-1][LINK] == pytest.approx(0.1, rel=0.02)


def test_a_lost_link_is_known_again_when_it_returns() -> None:
    """Links keep what was learnt, paths where they take the same links; what returns is as it went."""
    calibration = learnt(5)
    offsets = dict(zip(NETWORK.link_names, calibration.links.offset_s, strict=True))
    factors = calibration.paths.factor
    links = tuple(link for link in NETWORK.links if link.name not in (NETWORK.link_names[0], turned(0)))
    network = Network(nodes=NETWORK.nodes, links=links, next_link=shortest_paths(NETWORK.nodes, links))
    calibration.move_to(network)
    assert set(NETWORK.link_names) - set(network.link_names) == {NETWORK.link_names[0], turned(0)}
    assert calibration.links.offset_s.tolist() == [offsets[name] for name in network.link_names]
    same = np.array([ways(network, path) == ways(NETWORK, path) for path in range(PATHS)])
    assert 0 < np.count_nonzero(~same) < PATHS / 2
    assert calibration.paths.factor[same].tolist() == factors[same].tolist()
    assert (calibration.paths.factor[~same] == 1).all()
    stored = Calibration.load(calibration.dump(), network)
    for one in (calibration, stored):
        one.move_to(NETWORK)
        assert one.links.offset_s.tolist() == list(offsets.values())
        assert one.lost == {}
    assert stored.dump() == calibration.dump()


def test_what_was_learnt_goes_when_something_else_is_told() -> None:
    """The inventory is corrected to the truth: the link starts afresh, is right at once, and stays so."""
    calibration = learnt(5)
    others = np.arange(len(NETWORK.links)) != LINK
    offsets = calibration.links.offset_s
    window = corrected(calibration, TRUTH)
    assert calibration.links.offset_s[LINK] == 0.0
    assert calibration.links.offset_s[others].tolist() == offsets[others].tolist()
    assert error(window.prediction) < 0.02
    for seed in range(3):
        calibration.learn(corrected(calibration, TRUTH), [one_way(measured(TRUTH, seed))])
    assert error(corrected(calibration, TRUTH).prediction) < 0.02


def test_no_more_lost_links_are_kept_than_there_are_links() -> None:
    """Links that come and go under new names for ever do not make the state grow."""
    calibration = learnt(1)
    for turn in range(4):
        calibration.move_to(renamed(NETWORK, f"-{turn}"))
    assert len(calibration.lost) == len(NETWORK.links)
    assert set(calibration.lost).isdisjoint(NETWORK.link_names)


def renamed(network: Network, end: str) -> Network:
    """All nodes under other names."""
    links = [replace(link, source=link.source + end, target=link.target + end) for link in network.links]
    return replace(network, nodes=tuple(node + end for node in network.nodes), links=tuple(links))


def ways(network: Network, path: int) -> list[str]:
    """The names of a path's links."""
    return [network.link_names[link] for link in network.paths.of(path)]


def test_a_window_of_a_topology_since_left_teaches_nothing() -> None:
    """Its links have other numbers by now: it is refused."""
    calibration = learnt(2)
    window = corrected(calibration)
    calibration.move_to(renumbered(NETWORK))
    before = calibration.dump()
    assert not calibration.learn(window, [one_way(measured(TRUTH, 9))])
    assert calibration.dump() == before


def test_bytes_are_read_on_another_topology_by_name() -> None:
    """Loaded where the links come in another order, every link has its own."""
    calibration = learnt(5)
    loaded = Calibration.load(calibration.dump(), renumbered(NETWORK))
    assert loaded.links.offset_s[::-1].tolist() == calibration.links.offset_s.tolist()


def test_damaged_bytes_say_so() -> None:
    """Cut short, changed or empty: DecodeError, and what to do."""
    blob = learnt(1).dump()
    for damaged in (b"", blob[:-5], blob[:40] + b"\x00\x01" + blob[42:]):
        with pytest.raises(DecodeError, match="start without it"):
            Calibration.load(damaged, NETWORK)


# ------------------------------------------------------------------------------------------ intervals


@pytest.mark.parametrize("strays", [0.5, 2.5])
def test_intervals_adapt_until_they_cover_what_they_promise(strays: float) -> None:
    """Where measurements stray half or two and a half times as far as the model believes, 90 % end inside."""
    calibration, inside = Calibration(NETWORK), []
    noise = strays * float(np.median(MODEL.predict(NETWORK, TRAFFIC).log_width)) / 1.645
    for seed in range(400):
        mean_s, window = measured(NETWORK, seed, noise), corrected(calibration)
        off = np.abs(np.log(mean_s / window.prediction.mean_s))
        inside.append(float((off <= window.prediction.log_width).mean()))
        calibration.learn(window, [one_way(mean_s)])
    assert abs(np.mean(inside[:5]) - 0.9) > 0.07
    assert np.mean(inside[-50:]) == pytest.approx(0.9, abs=0.03)


# ------------------------------------------------------------------------------ worse than none for long


def test_corrections_are_used_once_a_window_they_did_not_know_has_shown_them_better() -> None:
    """The first window is learnt, the second one judges; the third has the benefit."""
    used = []
    calibration = Calibration(NETWORK)
    for seed in range(4):
        window = corrected(calibration)
        used.append(window.used)
        assert window.prediction is (window.corrected if window.used else window.said)
        calibration.learn(window, [one_way(measured(TRUTH, seed))])
    assert used == [False, False, True, True]


def test_where_nothing_persists_the_model_stays_in_charge() -> None:
    """Another link is slow in every window: what was learnt of the last one is wrong of the next."""
    calibration, links = Calibration(NETWORK, CalibrationRules(gate=1e6)), len(NETWORK.links)
    used = []
    for seed in range(12):
        truth = slower(NETWORK, 5 * seed % links, 0.1)
        window = corrected(calibration)
        used.append(window.used)
        calibration.learn(window, [one_way(measured(truth, seed))])
    assert not any(used)


def test_what_was_worth_having_may_lose_its_worth() -> None:
    """A tenth worse than the model over some windows: back to the model until it is better again."""
    worth = Worth()
    told = [(0.5, 0.01)] * 3 + [(0.01, 0.4)] * 6 + [(0.5, 0.01)] * 30
    used = []
    for model, own in told:
        worth = worth.after(model, own)
        used.append(worth.used)
    assert used[:3] == [True] * 3
    assert not used[8]
    assert used[-1]
    assert sum(a != b for a, b in pairwise(used)) == 2
