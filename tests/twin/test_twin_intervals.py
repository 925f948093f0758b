"""Intervals: groups, quantiles that keep their promise, and widths that follow a network that changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin import evaluation
from twin.intervals import (
    COVERAGE,
    FEW,
    FEW_NETWORKS,
    GROUPS,
    LOAD_EDGES,
    SIZE_EDGES,
    WIDEST,
    Adaptation,
    conformal,
    constant_intervals,
    group_of,
)
from twin.network import Floats, Ints
from twin.scheduling import POLICIES

EVERY = int(np.prod(GROUPS))


def number(size: int, policy: int, load: int) -> int:
    """The number of a group."""
    return int(np.ravel_multi_index((size, policy, load), GROUPS))


def test_groups_are_told_apart_by_size_policy_and_load() -> None:
    """Every combination has its number, and a value on an edge belongs below it."""
    sizes, loads = (10, 30, 80, 150, 300), np.array([0.1, 0.4, 0.6, 0.8, 0.9, 1.5])
    groups = [
        group_of(nodes, np.full(len(loads), policy), loads)
        for nodes in sizes
        for policy in range(len(POLICIES))
    ]
    assert np.concatenate(groups).tolist() == list(range(EVERY))
    fifo = np.zeros(len(LOAD_EDGES), dtype=np.int64)
    for rank, nodes in enumerate(SIZE_EDGES):
        assert group_of(nodes, fifo, np.array(LOAD_EDGES)).tolist() == [number(rank, 0, k) for k in range(5)]


def test_models_are_judged_by_the_groups_they_are_calibrated_by() -> None:
    """twin.evaluation reports the worst of the same groups, at the same coverage."""
    ours = (SIZE_EDGES, LOAD_EDGES, COVERAGE)
    assert ours == (evaluation.SIZE_EDGES, evaluation.LOAD_EDGES, evaluation.COVERAGE)


# ------------------------------------------------------------------------------------------- conformal


def test_every_group_covers_what_it_promises() -> None:
    """On fresh scores of the same law, other in each group, every interval covers 90 % within sampling."""
    rng = np.random.default_rng(0)
    groups = np.repeat(rng.choice(EVERY, 20, replace=False), 2_000)
    spread = 0.02 + rng.random(EVERY)
    first, fresh = (np.abs(rng.normal(0, spread[groups])) for _ in range(2))
    intervals = conformal(groups, first)
    covered = fresh <= intervals.half_width(groups, np.ones(len(groups)))
    for group in np.unique(groups):
        assert covered[groups == group].mean() == pytest.approx(0.9, abs=0.035), group


def test_few_scores_are_enough_for_the_promise_on_average() -> None:
    """Over many calibrations on 200 scores, the next flow is covered in 90 of 100, not less."""
    rng = np.random.default_rng(1)
    group, covered = np.zeros(FEW, dtype=np.int64), []
    for _ in range(300):
        scores = rng.exponential(size=FEW + 1)
        width = conformal(group, scores[:FEW]).half_width(group[:1], np.ones(1))
        covered.append(scores[FEW] <= width[0])
    assert np.mean(covered) == pytest.approx(0.905, abs=0.05)


def test_the_scores_of_one_network_are_no_group_of_their_own() -> None:
    """However many they are: the group of a smaller size, with many networks, answers for it."""
    groups = np.repeat([number(1, 0, 0), number(3, 0, 0)], 50 * FEW)
    networks = np.concatenate([np.arange(50 * FEW) % FEW_NETWORKS, np.arange(50 * FEW) % (FEW_NETWORKS - 1)])
    scores = np.where(groups == number(1, 0, 0), 2.0, 1.0)
    table = np.array(conformal(groups, scores, networks).quantile)
    assert table[1, 0, 0] == table[3, 0, 0] == 2.0


def test_labels_that_noise_rules_are_asked_last() -> None:
    """Sure labels of a group decide, those of a smaller size stand in for it, and noisy ones only where
    nobody else tells anything."""
    spans = ((0, 0, 0), (1, 0, 0), (1, 0, 0), (2, 0, 0), (0, 1, 1))
    groups = np.repeat([number(*span) for span in spans], FEW)
    scores = np.repeat([1.0, 2.0, 9.0, 9.0, 5.0], FEW)
    telling = np.repeat([True, True, False, False, False], FEW)
    table = np.array(conformal(groups, scores, telling=telling).quantile)
    assert table[:3, 0, 0].tolist() == [1.0, 2.0, 2.0]
    assert table[0, 1, 1] == 5.0
    floored = np.array(conformal(groups, scores, telling=telling, least=6.0).quantile)
    assert (floored[0, 0, 0], floored[0, 1, 1]) == (1.0, 6.0)
    assert np.array(conformal(groups, scores).quantile)[1, 0, 0] == 9.0


def scores_in(where: dict[tuple[int, int, int], tuple[int, float]]) -> tuple[Ints, Floats]:
    """So many scores of one value in each group."""
    groups = [np.full(count, number(*group)) for group, (count, _) in where.items()]
    return np.concatenate(groups), np.concatenate([np.full(count, score) for count, score in where.values()])


def test_a_group_with_few_scores_borrows_from_the_most_alike() -> None:
    """In this order: its own; the next smaller size; all sizes; all policies; all."""
    intervals = conformal(
        *scores_in(
            {
                (0, 0, 1): (FEW, 0.1),
                (3, 0, 1): (FEW, 0.2),
                (4, 0, 1): (FEW - 1, 0.3),
                (2, 1, 2): (FEW // 2, 0.4),
                (3, 1, 2): (FEW // 2, 0.5),
                (0, 2, 3): (FEW // 2, 0.6),
                (0, 3, 3): (FEW // 2, 0.6),
                (0, 0, 5): (20 * FEW, 0.05),
            }
        )
    )

    def of(*group: int) -> float:
        return float(intervals.half_width(np.array([number(*group)]), np.ones(1))[0])

    assert of(0, 0, 1) == 0.1  # its own
    assert of(3, 0, 1) == 0.2
    assert of(4, 0, 1) == 0.2  # one too few of its own: the next smaller size, though its own are larger
    assert of(2, 0, 1) == 0.1  # none: the next smaller that has some
    assert of(2, 1, 2) == 0.5  # neither it nor smaller sizes: 90 % over all sizes
    assert of(0, 2, 3) == 0.6  # nor all sizes of its policy: all policies at its load
    assert of(1, 1, 0) == pytest.approx(0.3)  # nothing like it at all: 90 % of everything


def test_widths_are_the_quantile_times_the_error_expected() -> None:
    """Half-width = q·s, at most WIDEST: beyond that an interval says nothing anyway."""
    group = np.array([0, 5, EVERY - 1])
    scale = np.array([0.01, 0.1, 100.0])
    assert constant_intervals(2.0).half_width(group, scale).tolist() == [0.02, 0.2, WIDEST]


# ------------------------------------------------------------------------------------------ adaptation


def followed(scales: Floats, flows: int, seed: int) -> tuple[Adaptation, Floats]:
    """Windows of one group whose errors have these scales, widths made for 1; the share missed in each."""
    rng, adaptation = np.random.default_rng(seed), Adaptation()
    group, width = np.full(flows, 7), 1.6449  # 90 % of a normal law
    missed = []
    for scale in scales:
        misses = np.abs(rng.normal(0, scale, flows)) > width * adaptation.factor(group)
        adaptation.learn(group, misses)
        missed.append(misses.mean())
    return adaptation, np.array(missed)


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_widths_follow_a_network_that_errs_more_or_less(scale: float) -> None:
    """Errors half or three times as large as calibrated: in the end 90 % are covered, by widths as needed."""
    adaptation, missed = followed(np.full(800, scale), flows=50, seed=1)
    assert 1 - missed[400:].mean() == pytest.approx(0.9, abs=0.01)
    assert adaptation.factor(np.array([7]))[0] == pytest.approx(scale, rel=0.15)


def test_coverage_holds_in_the_long_run_whatever_drifts() -> None:
    """Errors that swing to twice and half, then jump: over the whole run 90 % are covered."""
    swing = np.exp(np.log(2) * np.sin(np.arange(1_500) / 150))
    scales = np.concatenate([swing, np.full(500, 3.0)])
    _, missed = followed(scales, flows=30, seed=2)
    assert 1 - missed.mean() == pytest.approx(0.9, abs=0.015)
    assert 1 - missed[-300:].mean() == pytest.approx(0.9, abs=0.02)


@given(st.lists(st.tuples(st.integers(0, EVERY - 1), st.integers(1, 400), st.floats(0, 1)), max_size=20))
def test_factors_stay_within_their_bounds(windows: list[tuple[int, int, float]]) -> None:
    """Whatever is measured a thousand times over, widths stay within e^−1.5 and e^2.5 of the calibrated."""
    adaptation = Adaptation(rate=1.0)
    for group, flows, share in windows * 10:
        adaptation.learn(np.full(flows, group), np.arange(flows) < share * flows)
        factors = adaptation.factor(np.arange(EVERY))
        assert np.isfinite(factors).all()
        assert (factors >= np.exp(-1.5)).all()
        assert (factors <= np.exp(2.5)).all()


@pytest.mark.parametrize(("missed", "ends_at"), [(True, 2.5), (False, -1.5)])
def test_the_bounds_are_reached_and_held(missed: bool, ends_at: float) -> None:
    """Missing all for ever widens up to the bound, missing none narrows down to it; others do not move."""
    adaptation, group = Adaptation(), np.full(100, 3)
    for _ in range(2_000):
        adaptation.learn(group, np.full(100, missed))
    assert adaptation.ln_factor[3] == pytest.approx(ends_at)
    assert not np.delete(adaptation.ln_factor, 3).any()


def test_a_window_of_few_flows_says_little() -> None:
    """One flow missed moves the width less than a hundred missed, and no flow moves nothing."""
    steps = []
    for flows in (0, 1, 10, 100):
        adaptation = Adaptation()
        adaptation.learn(np.zeros(flows, dtype=np.int64), np.ones(flows, dtype=np.bool_))
        steps.append(float(adaptation.ln_factor[0]))
    assert steps[0] == 0
    assert steps == sorted(set(steps))
