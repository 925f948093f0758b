"""Calibration where it has nothing to learn: hardware measurements whose error does not persist."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from measured_data import public_data

from twin.calibration_trial import calibrate_samples
from twin.queueing import MG1K
from twin.samples import Sample
from twin.testbed import read_testbed

SERIES = 10  # samples of one wiring
MODEL = MG1K()


@pytest.mark.data
def test_on_the_real_testbed_it_does_no_harm_for_long() -> None:
    """Samples there are no series: every one has other flows, and errors come from their bursts.

    So corrections, wild as they are, are used in few of them, and after ten windows in none.
    """
    wirings: dict[tuple[object, ...], list[Sample]] = defaultdict(list)
    for sample in read_testbed(public_data("real-testbed-2023") / "cbr_mb-fold3.jsonl.gz"):
        wirings[sample.network.nodes, sample.network.link_names, len(sample.mean_s)].append(sample)
    series = [samples for samples in wirings.values() if len(samples) >= SERIES]
    assert len(series) > 10
    steps = [calibrate_samples(MODEL, samples)[0] for samples in series]
    worse = [step.median - step.median_raw for one in steps for step in one]
    assert np.count_nonzero(worse) < 0.05 * len(worse)
    later = [step.median - step.median_raw for one in steps for step in one[SERIES:]]
    assert len(later) > 50
    assert not np.any(later)
