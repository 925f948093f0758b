"""Contracts of every detector, then what each one is for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from anomaly.detectors import SETTLING, Baseline, Cusum, Detector, SettledBaseline, Spread
from twin.errors import DecodeError

MAKE: dict[str, Callable[[int], Detector]] = {
    "baseline": lambda n: Baseline(n, first_width=0.3, floor=0.004, memory=40),
    "settled": lambda n: SettledBaseline(n, first_width=0.08, floor=0.012, memory=40),
    "spread": lambda n: Spread(n, memory=40),
    "cusum": lambda n: Cusum(n, slack=1.0, limit=8.0),
}


@pytest.fixture(params=sorted(MAKE))
def make(request: pytest.FixtureRequest) -> Callable[[int], Detector]:
    """Every implementation in turn."""
    return MAKE[request.param]


def _taught(make: Callable[[int], Detector], size: int = 5, rounds: int = 30) -> Detector:
    detector, random = make(size), np.random.default_rng(7)
    for _ in range(rounds):
        detector.learn_one(random.normal(0.1, 0.5, size))
    return detector


def test_scoring_changes_nothing(make: Callable[[int], Detector]) -> None:
    """Scoring, however often, leaves the state as it was."""
    detector = _taught(make)
    before = detector.dump()
    first, second = detector.score_one(np.full(5, 3.0)), detector.score_one(np.full(5, 3.0))
    assert (first == second).all()
    assert detector.dump() == before


def test_nan_scores_zero_and_is_not_learnt(make: Callable[[int], Detector]) -> None:
    """NaN freezes a series: score 0, state untouched, while the others move on."""
    detector, twin = _taught(make), _taught(make)
    x = np.array([3.0, np.nan, 3.0, np.nan, 3.0])
    assert (detector.score_one(x)[[1, 3]] == 0).all()
    detector.learn_one(np.full(5, np.nan))
    assert detector.dump() == twin.dump()
    detector.learn_one(x)
    probe = np.full(5, 2.0)
    assert (detector.score_one(probe)[[1, 3]] == twin.score_one(probe)[[1, 3]]).all()
    assert detector.dump() != twin.dump()


def test_dump_and_load_go_on_to_the_same_bits(make: Callable[[int], Detector]) -> None:
    """A detector that was dumped and loaded continues exactly as the one that was not."""
    original, copy, random = _taught(make), make(5), np.random.default_rng(3)
    copy.load(original.dump())
    for _ in range(20):
        x = random.normal(0.0, 1.0, 5)
        original.learn_one(x)
        copy.learn_one(x)
    assert original.dump() == copy.dump()


def test_load_refuses_state_of_another_size(make: Callable[[int], Detector]) -> None:
    """State of another network is refused in one line, not misread."""
    with pytest.raises(DecodeError, match="another network"):
        make(4).load(_taught(make).dump())


def test_scores_stay_finite_under_wild_input(make: Callable[[int], Detector]) -> None:
    """Whatever finite values come, scores are finite, and one wild value does not poison the next."""
    detector = make(3)
    for x in ([0.0, 1e6, -1e6], [1e12, -1e12, 0.0], [1e-300, 5.0, 0.1]):
        values = np.array(x)
        assert np.isfinite(detector.score_one(values)).all()
        detector.learn_one(values)
    assert np.isfinite(detector.score_one(np.array([np.inf, -np.inf, np.nan]))).all()


def test_follow_carries_series_by_origin(make: Callable[[int], Detector]) -> None:
    """After renumbering, a series scores as under its old number, and a new one as when fresh."""
    detector, probe = _taught(make), np.array([2.0, 2.0])
    old, fresh = detector.score_one(np.full(5, 2.0)), make(1).score_one(np.array([2.0]))
    detector.follow(np.array([3, -1]))
    assert detector.score_one(probe)[0] == old[3]
    assert detector.score_one(probe)[1] == fresh[0]


def test_higher_input_never_scores_lower(make: Callable[[int], Detector]) -> None:
    """All scores rise with x above the usual."""
    detector = _taught(make, size=1)
    scores = [float(detector.score_one(np.array([x]))[0]) for x in np.linspace(0.5, 10, 40)]
    assert scores == sorted(scores)


# --------------------------------------------------------------------------- what each one is for


def test_baseline_finds_level_and_width_within_a_few_windows() -> None:
    """Five windows of a 20 % bias with 1 % noise: known to 1 %; after twenty a 10 % step stands out."""
    baseline, random = Baseline(200, first_width=0.35, floor=0.004, memory=40), np.random.default_rng(1)
    for _ in range(5):
        baseline.learn_one(random.normal(0.2, 0.01, 200))
    assert np.abs(baseline.level - 0.2).mean() < 0.01
    for _ in range(15):
        baseline.learn_one(random.normal(0.2, 0.01, 200))
    assert np.median(baseline.score_one(np.full(200, 0.3))) > 4


def test_baseline_is_wide_before_it_has_seen_anything() -> None:
    """A fresh path with a 30 % bias is nothing special."""
    baseline = Baseline(1, first_width=0.35, floor=0.004, memory=40)
    assert abs(baseline.score_one(np.array([0.3]))[0]) < 1


def test_baseline_takes_one_wild_value_with_a_grain_of_salt() -> None:
    """One value a hundred widths off moves an old level by less than a tenth of a width."""
    baseline, random = Baseline(1, first_width=0.35, floor=0.004, memory=40), np.random.default_rng(2)
    for _ in range(60):
        baseline.learn_one(random.normal(0.0, 0.01, 1))
    before, width = baseline.level[0], baseline.width[0]
    baseline.learn_one(np.array([1.0]))
    assert abs(baseline.level[0] - before) < 0.1 * width


def test_spread_learns_bursts_and_never_goes_below_theory() -> None:
    """Noise three times theory gives a factor of three or somewhat more; noise below theory gives one."""
    spread, random = Spread(2, memory=40), np.random.default_rng(4)
    for _ in range(200):
        spread.learn_one(random.normal(0.0, 1.0, 2) * np.array([3.0, 0.2]))
    assert 3.0 < spread.factor[0] < 5.5
    assert spread.factor[1] == 1.0


def test_cusum_adds_up_small_rises_and_comes_down_again() -> None:
    """A rise of two deviations alarms in the 8th window, not the 3rd, and is forgotten 20 after it ended."""
    cusum = Cusum(1, slack=1.0, limit=8.0)
    scores = []
    for _ in range(30):
        scores.append(float(cusum.score_one(np.array([2.0]))[0]))
        cusum.learn_one(np.array([2.0]))
    assert scores[2] < 1 <= scores[7]
    for _ in range(20):
        cusum.learn_one(np.array([0.0]))
    assert cusum.score_one(np.array([0.0]))[0] == 0


@pytest.mark.parametrize("wild", range(SETTLING))
def test_one_wild_observation_at_the_start_is_not_held_against_the_others(wild: int) -> None:
    """The first level is the median of the first three, and nothing is said before; then a step is."""
    detector = SettledBaseline(1, first_width=0.08, floor=0.012, memory=40)
    for k in range(12):
        x = np.array([0.41 if k == wild else 0.0])
        assert abs(detector.score_one(x)[0]) < 1
        detector.learn_one(x)
    assert detector.score_one(np.array([0.2]))[0] > 5
