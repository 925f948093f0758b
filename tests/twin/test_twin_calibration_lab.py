"""Calibration on the simulated lab: what the twin is told wrongly is learnt, a fault is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from twin.calibration import Calibration
from twin.calibration_trial import LinkFault, Step, calibrate_samples, lab_figures, lab_windows
from twin.models import DelayModel
from twin.network import Floats, Network
from twin.queueing import MG1K, MM1B
from twin.samples import Sample
from twin.topologies import nsfnet
from twin.traffic import lab_scenario

SEED = 1
FAULT = LinkFault(link=7, extra_s=0.005, first=50, windows=20)
LEARNT = (10, 30, 100)  # windows


@pytest.fixture(scope="module")
def windows() -> list[Sample]:
    """The lab for 1,010 s: no propagation told, every fourth link 10 % slower, a fault for 200 s."""
    return list(lab_windows(101, seed=SEED, fault=FAULT))


@pytest.fixture(scope="module")
def truth() -> Network:
    """The lab as it was built: true propagation, and the capacities that the twin is told."""
    return lab_scenario(nsfnet(), seed=SEED)[0]


def crossing(sample: Sample) -> Floats:
    """1 for every path over the faulty link, 0 for the others."""
    paths = sample.network.paths
    over = paths.links == FAULT.link
    return np.bincount(paths.hop_path, over, minlength=len(paths.lengths)).astype(np.float64)


def errors(steps: Sequence[Step]) -> list[float]:
    """The mean error after 10, 30 and 100 windows."""
    return [steps[learnt].mean for learnt in LEARNT]


@pytest.mark.parametrize("model", [MM1B(), MG1K()], ids=lambda model: model.name)
def test_an_untold_propagation_is_learnt(model: DelayModel, windows: list[Sample]) -> None:
    """From an error of 40 % and more to 1.2 % within ten windows, whichever the model, and it stays there."""
    steps, _ = calibrate_samples(model, windows)
    assert steps[0].mean == steps[0].mean_raw > 0.4
    assert max(errors(steps)) < 0.012
    assert steps[100].mean_raw > 0.4


def test_a_tenth_less_capacity_is_learnt(windows: list[Sample], truth: Network) -> None:
    """With propagation known, what a quarter of the links lack in capacity costs 2 % and then below 1 %."""
    told = [replace(sample, network=truth) for sample in windows]
    steps, calibration = calibrate_samples(MG1K(), told)
    assert min(steps[learnt].mean_raw for learnt in (0, *LEARNT)) > 0.02
    assert max(errors(steps)) < 0.01
    assert calibration is not None
    slower = np.arange(len(truth.links)) % 4 == 0
    delay = calibration.links.offset_s / (8_000 / truth.capacity_bps)  # in transmissions of a mean packet
    gain = delay + calibration.links.excess
    assert gain[slower].min() > gain[~slower].max()


def test_calibration_beats_the_model_that_was_told_the_truth(windows: list[Sample]) -> None:
    """After 100 windows what is left is no more than the sampling of the measurements: a median of 0.6 %."""
    steps, _ = calibrate_samples(MG1K(), windows)
    assert steps[100].median < 0.006


def test_a_fault_is_not_learnt_away(windows: list[Sample], truth: Network) -> None:
    """5 ms more on a link for 20 windows stay visible in full, and nothing of them is left behind."""
    model, calibration = MM1B(), None
    for number, sample in enumerate(windows[: FAULT.first + FAULT.windows + 1]):
        steps, calibration = calibrate_samples(model, [sample], calibration=calibration)
        assert calibration is not None
        off = np.abs(calibration.links.offset_s - truth.propagation_delay_s)
        if number >= FAULT.first - 1:
            assert off.max() < 0.2e-3
        if number == FAULT.first + FAULT.windows - 1:  # the fault's last window, after 19 of it
            said = model.predict(sample.network, sample.traffic)
            expected = calibration.correct(sample.network, sample.traffic, said).prediction.mean_s
            late = (sample.mean_s - expected)[sample.labelled]
            faulty = crossing(sample)[sample.labelled] > 0
            assert np.median(late[faulty]) == pytest.approx(FAULT.extra_s, rel=0.05)
            assert np.abs(late[~faulty]).max() < 0.1 * FAULT.extra_s
    assert steps[0].mean < 0.012


def test_frozen_windows_change_nothing(windows: list[Sample]) -> None:
    """What is frozen is predicted and not learnt: the state keeps its bytes."""
    _, calibration = calibrate_samples(MM1B(), windows[:5])
    assert calibration is not None
    before = calibration.dump()
    steps, _ = calibrate_samples(MM1B(), windows[5:15], calibration=calibration, frozen=lambda _: True)
    assert calibration.dump() == before
    assert max(step.mean for step in steps) < 0.02


def test_a_calibration_that_was_stored_goes_on_to_the_same_bits(windows: list[Sample]) -> None:
    """Dumped and loaded between any two windows, it predicts and learns as if it had never stopped."""
    model, network = MM1B(), windows[0].network
    going, stopped = Calibration(network), Calibration(network)
    for sample in windows[:12]:
        own, _ = calibrate_samples(model, [sample], calibration=going)
        stopped = Calibration.load(stopped.dump(), network)
        other, _ = calibrate_samples(model, [sample], calibration=stopped)
        assert own == other
        assert going.dump() == stopped.dump()


def test_figures_are_those_of_the_windows_asked_for() -> None:
    """The first windows are the model's own error, until a correction has proved itself: then a tenth."""
    figures = lab_figures(MG1K(), after=(0, 1, 2))
    assert figures[0].mean == figures[0].mean_raw > 10 * figures[2].mean
    assert figures[1].mean == figures[1].mean_raw
