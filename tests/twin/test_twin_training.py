"""Training data, training, calibration and evaluation, on a small scale but for real."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from twin.checkpoint import Intervals
from twin.dataset import Conditions, Sample, burstiness_of, generate, load_samples, simulate
from twin.errors import UsageError
from twin.models import DelayModel, PathPrediction
from twin.network import Link, Network
from twin.queueing import MG1K, MM1B
from twin.routenet import load
from twin.simulator import Simulator
from twin.training import (
    CALIBRATION_SEED,
    LOAD_EDGES,
    RECIPES,
    SLICES,
    conformal_widths,
    evaluate,
    score,
    train,
)
from twin.workload import Arrivals, Flow, Modulated, OnOff, PacketSizes, Poisson

SHORT = Conditions(windows=2, window_s=4.0)


def test_the_same_seed_gives_the_same_samples() -> None:
    """A scenario is a function of its conditions and seed; another seed gives another."""
    first, again, other = (simulate(SHORT, seed) for seed in (7, 7, 8))
    for a, b in zip(first, again, strict=True):
        assert a.mean_s.tobytes() == b.mean_s.tobytes()
        assert a.traffic.bps.tobytes() == b.traffic.bps.tobytes()
    assert first[0].mean_s.tobytes() != other[0].mean_s.tobytes()


def test_samples_are_stored_and_generation_resumes(tmp_path: Path) -> None:
    """What was written is read back exactly; a second run writes only what is missing."""
    generate(tmp_path, SHORT, [1, 2])
    kept = (tmp_path / "000001.npz").stat().st_mtime_ns
    (tmp_path / "000002.npz").unlink()
    generate(tmp_path, SHORT, [1, 2])
    assert (tmp_path / "000001.npz").stat().st_mtime_ns == kept
    stored, fresh = load_samples(tmp_path, [2]), simulate(SHORT, 2)
    assert len(stored) == len(fresh) == 2
    for a, b in zip(stored, fresh, strict=True):
        np.testing.assert_array_equal(a.mean_s, b.mean_s)
        np.testing.assert_array_equal(a.network.capacity_bps, b.network.capacity_bps)
        np.testing.assert_array_equal(a.network.paths.links, b.network.paths.links)
    assert not list(tmp_path.glob("*.part*"))


@pytest.mark.parametrize("name", sorted(SLICES))
def test_every_slice_makes_sense(name: str) -> None:
    """Each slice yields labelled windows whose busiest link is near the load asked for."""
    conditions = replace(SLICES[name], windows=1, window_s=3.0, warm_up_s=1.0, nodes=(10, 12))
    (sample,) = simulate(conditions, 5)
    assert (sample.count > 0).mean() > 0.3
    assert (sample.mean_s[sample.count > 0] > 0).all()
    load = MG1K().solve(sample.network, sample.traffic).load.max()
    low, high = conditions.worst_load
    assert 0.5 * low < load < 1.5 * high


@pytest.mark.parametrize(
    "arrivals",
    [Poisson(), Modulated(sigma=0.6, mean_s=0.3), OnOff(mean_on_s=0.4, mean_off_s=0.2)],
    ids=["poisson", "modulated", "on-off"],
)
def test_burstiness_is_what_the_simulator_does(arrivals: Arrivals) -> None:
    """Packet counts of a second vary as the squared variation and correlation time that are told say.

    Var N = m + m²·c·f(T/τ), f(x) = 2(x − 1 + e^(−x))/x² for an exponential autocovariance (c, τ).
    """
    links = (Link("a", "b", 1e12), Link("b", "a", 1e12))
    network = Network(("a", "b"), links, np.array([[-1, 0], [1, -1]], dtype=np.int16))
    mean = 200.0
    simulator = Simulator(network, [Flow(0, 1, mean, PacketSizes.fixed(8_000), arrivals)] * 3_000, seed=1)
    simulator.advance(1.0)
    told = burstiness_of(arrivals)
    x = 1.0 / max(told.time_s, 1e-9)
    expected = mean + mean**2 * told.rate_scv * 2 * (x - 1 + np.exp(-x)) / x**2
    assert simulator.sent_packets.mean() == pytest.approx(mean, rel=0.03)
    assert simulator.sent_packets.var() == pytest.approx(expected, rel=0.15)


def predict_with(model: DelayModel, sample: Sample) -> PathPrediction:
    """What a model says of a sample."""
    return model.predict(sample.network, sample.traffic)


def test_simulator_and_queueing_model_agree_on_poisson_traffic() -> None:
    """Under Poisson traffic M/G/1/K is within 10 % of the simulator on average, and M/M/1/b is not."""
    conditions = replace(SLICES["nsfnet-lab"], window_s=20.0, windows=1)
    samples = [sample for seed in range(4) for sample in simulate(conditions, seed)]
    strong, weak = (score(partial(predict_with, model), samples) for model in (MG1K(), MM1B()))
    assert strong["mape"] < 0.10
    assert weak["mape"] > strong["mape"]


def test_training_writes_a_model_that_improves_on_its_prior(tmp_path: Path) -> None:
    """A few scenarios and epochs already beat M/G/1/K on validation, and the file predicts."""
    figures = train("smoke", tmp_path / "m.pt", data=tmp_path / "data", date="2026-01-01")
    model = load(tmp_path / "m.pt")
    assert figures["mape"] < figures["prior_mape"]
    assert model.checkpoint.provenance.recipe == "smoke"
    assert model.checkpoint.provenance.samples == 16
    samples = load_samples(tmp_path / "data" / "smoke", [CALIBRATION_SEED])
    prediction = model.predict(samples[0].network, samples[0].traffic)
    assert np.isfinite(prediction.mean_s).all()
    assert prediction.out_of_range == ()


def test_evaluation_compares_all_models_on_test_networks(tmp_path: Path) -> None:
    """evaluate() reports errors, coverage and label noise of all three models for each slice asked for."""
    report = evaluate(data=tmp_path, scenarios=1, slices=("smoke",))
    assert list(report) == ["smoke"]
    assert set(report["smoke"]) == {"mm1b", "mg1k", "routenet", "routenet-untold"}
    for figures in report["smoke"].values():
        assert 0 < figures["ape_median"] <= figures["ape_p90"]
        assert 0 <= figures["coverage"] <= 1
        assert figures["label_noise_median"] > 0


def test_unknown_recipes_and_slices_are_refused(tmp_path: Path) -> None:
    """A wrong name lists the right ones."""
    with pytest.raises(UsageError, match=f"choose one of {', '.join(RECIPES)}"):
        train("best", tmp_path / "m.pt", data=tmp_path, date="")
    with pytest.raises(UsageError, match="no slice 'moon': choose from"):
        evaluate(data=tmp_path, slices=("moon",))


def test_conformal_widths_cover_what_they_promise() -> None:
    """On fresh scores of the same law each bucket's interval covers 90 % within sampling error."""
    rng = np.random.default_rng(0)
    loads = rng.uniform(0, 1.2, 40_000)
    scores = np.abs(rng.normal(0, 0.02 + 0.3 * loads))
    intervals = Intervals(LOAD_EDGES, conformal_widths(scores[:20_000], loads[:20_000]), ())
    covered = scores[20_000:] <= intervals.width(loads[20_000:], bursty=False)
    for low, high in zip((0, *LOAD_EDGES), (*LOAD_EDGES, 1.2), strict=True):
        inside = (loads[20_000:] >= low) & (loads[20_000:] < high)
        assert covered[inside].mean() == pytest.approx(0.9, abs=0.025)


def test_a_bucket_with_few_scores_borrows_from_all() -> None:
    """Loads never seen get the overall width rather than none."""
    assert conformal_widths(np.full(500, 0.2), np.full(500, 0.1)) == (0.2,) * (len(LOAD_EDGES) + 1)
