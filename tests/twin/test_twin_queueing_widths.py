"""The intervals of the queueing models: a table by policy and load, and the noise of what is measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from twin.dataset import simulate
from twin.intervals import GROUPS, group_of
from twin.queueing import MG1K, MM1B
from twin.queueing_widths import measure
from twin.recipes import SLICES, TEST_SEED
from twin.samples import Sample
from twin.scheduling import POLICIES

MODELS = (MG1K(), MM1B())


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Networks of all kinds, of seeds that no table was made from."""
    kinds = replace(SLICES["mixed"], nodes=(14, 24), packets=300.0)
    return [simulate(kinds, TEST_SEED + seed)[0] for seed in range(16)]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_intervals_hold_most_of_what_is_measured(model: MG1K, samples: list[Sample]) -> None:
    """Nine in ten is what is promised; on sixteen networks it is between three in four and all."""
    inside = []
    for sample in samples:
        said, known = model.predict(sample.network, sample.traffic), sample.labelled
        off = np.abs(np.log(sample.mean_s[known] / said.mean_s[known]))
        inside.append(off <= said.log_width[known])
    assert 0.75 <= np.concatenate(inside).mean() <= 0.99


def test_tables_say_which_load_and_policy_is_how_uncertain() -> None:
    """The weak model is surer of an idle FIFO link than of a full one, and the strong one surer than it."""
    fifo, sp = POLICIES.index("FIFO"), POLICIES.index("SP")
    group = group_of(60, np.array([fifo, fifo, sp]), np.array([0.1, 1.2, 1.2]))
    weak, strong = (model.intervals.half_width(group, np.ones(3)) for model in (MM1B(), MG1K()))
    assert weak[0] < weak[1] < weak[2]
    assert (strong < weak).all()


def test_measured_tables_have_a_width_for_everything(samples: list[Sample]) -> None:
    """Sizes × policies × loads, all positive; those seldom seen borrow from others."""
    table = np.array(measure(MG1K(), samples).quantile)
    assert table.shape == GROUPS
    assert (table > 0).all()


def test_a_short_look_is_less_certain(samples: list[Sample]) -> None:
    """The fewer packets the mean is taken over, the wider the interval that is to hold it."""
    sample = samples[0]
    seen = sample.traffic.observed_s
    assert seen is not None
    long, short = (
        MG1K().predict(sample.network, replace(sample.traffic, observed_s=seconds)).log_width
        for seconds in (seen, seen / 100)
    )
    used = sample.traffic.pps > 0
    assert (short[used] > long[used]).all()
