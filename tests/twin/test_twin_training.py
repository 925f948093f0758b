"""Training end to end on a small scale but for real, and the judgement that goes with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from measured_data import testbed_record, write_lines
from numpy.typing import NDArray
from routenet_examples import checkpoint_of

from twin.checkpoint import Checkpoint, RouteNetConfig, SafeRange
from twin.dataset import load_samples, simulate
from twin.errors import UsageError
from twin.evaluation import evaluate
from twin.features import build_features, operating_point
from twin.fitting import Progress
from twin.inference import RouteNet, load
from twin.intervals import LABEL_Z, constant_intervals
from twin.models import PathPrediction
from twin.network import Floats
from twin.queueing import MG1K, MM1B
from twin.recipes import CALIBRATION_SEED, RECIPES, SLICES, Measured, Recipe
from twin.samples import Sample
from twin.training import MOST_NOISE, MeasuredFiles, Run, calibrate, gather, scores_of, train


class Trained:
    """What a training run of the recipe "smoke" left behind."""

    def __init__(self, folder: Path) -> None:
        self.data, self.file, self.epochs = folder / "data", folder / "m.npz", list[Progress]()
        run = Run(self.data, on_epoch=self.epochs.append)
        self.figures = train("smoke", self.file, run, date="2026-01-01")

    def calibration(self) -> Iterator[Sample]:
        """The samples that the intervals were made of."""
        for name, count in RECIPES["smoke"].calibration.items():
            yield from load_samples(self.data / name, range(CALIBRATION_SEED, CALIBRATION_SEED + count))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Simulated, fitted and calibrated once for all tests."""
    return Trained(tmp_path_factory.mktemp("smoke"))


def test_training_improves_on_its_prior(trained: Trained) -> None:
    """A few scenarios and epochs already beat M/G/1/K on validation, and every epoch was told."""
    assert 0 < trained.figures["mape"] < trained.figures["prior_mape"]
    assert len(trained.epochs) == RECIPES["smoke"].epochs


def test_the_checkpoint_says_where_it_is_from(trained: Trained) -> None:
    """Recipe, seed, number of samples, versions, date, and the figures that training returned."""
    provenance = load(trained.file).checkpoint.provenance
    assert (provenance.recipe, provenance.seed, provenance.date) == ("smoke", 0, "2026-01-01")
    assert provenance.samples == 6 * SLICES["smoke"].windows + 6
    assert provenance.versions.keys() == {"python", "numpy", "numba", "torch", "torch_geometric"}
    assert provenance.validation == trained.figures


def test_the_model_knows_what_it_was_calibrated_on(trained: Trained) -> None:
    """Calibration samples lie in its range; it predicts finite numbers, and its
    intervals, widened by what labels are uncertain by, hold 90 % of them."""
    model, inside = load(trained.file), list[bool]()
    for sample in trained.calibration():
        said = model.predict(sample.network, sample.traffic)
        assert said.out_of_range == ()
        assert np.isfinite(said.mean_s).all()
        known = sample.labelled
        off = np.abs(np.log(said.mean_s[known] / sample.mean_s[known]))
        width = np.hypot(said.log_width[known], LABEL_Z * sample.noise[known])
        inside += (off <= width * (1 + 1e-9)).tolist()
    assert 0.88 <= np.mean(inside) <= 0.97


def test_training_again_gives_the_same_model(trained: Trained, tmp_path: Path) -> None:
    """From the samples that are kept, on another day: the same weights, intervals and range."""
    train("smoke", tmp_path / "m.npz", Run(trained.data, state=tmp_path / "unfinished"), date="2026-02-02")
    first, second = load(trained.file).checkpoint, load(tmp_path / "m.npz").checkpoint
    assert first.digest == second.digest
    assert (first.intervals, first.safe_range) == (second.intervals, second.safe_range)
    assert second.provenance.date == "2026-02-02"


# --------------------------------------------------------------------------------------- calibration


def draft() -> Checkpoint:
    """Random weights before calibration, whose errors are about as large as expected, and no range yet."""
    config = RouteNetConfig(limit=1.0, ln_scale=-1.0)
    return replace(
        checkpoint_of(config, spread=0.1), intervals=constant_intervals(1.0), safe_range=SafeRange({})
    )


def test_calibration_covers_and_spans_what_it_was_given(trained: Trained) -> None:
    """Whatever the weights are worth, intervals cover 90 % of the flows of too few networks for groups of
    their own, and all points are inside."""
    samples = list(trained.calibration())
    model = RouteNet(calibrate(draft(), samples, []), threads=1)
    features = [build_features(sample.network, sample.traffic, model.prior) for sample in samples]
    scores = [scores_of(model, *pair) for pair in zip(samples, features, strict=True)]
    group, score, _ = (np.concatenate(part) for part in zip(*scores, strict=True))
    covered = score <= model.checkpoint.intervals.half_width(group, np.ones(len(score)))
    assert 0.9 <= covered.mean() < 0.93
    points = [operating_point(a.network, b.queues) for a, b in zip(samples, features, strict=True)]
    assert all(model.checkpoint.safe_range.violations(point) == () for point in points)
    assert model.checkpoint.safe_range.limits["load"][1] == max(point["load"][1] for point in points)


def test_scores_are_errors_of_what_is_uncertain(trained: Trained) -> None:
    """|ln(predicted ÷ measured)| of delay less propagation, in units of the error expected; less the noise of
    so many packets, and never below zero."""
    sample = next(trained.calibration())
    model = RouteNet(draft(), threads=1)
    queueing, scale, jitter = model.expect(build_features(sample.network, sample.traffic, model.prior))
    links = tuple(replace(link, propagation_delay_s=0.25) for link in sample.network.links)
    fixed = 0.25 * sample.traffic.hops(sample.network).lengths
    known = sample.labelled
    measured = np.exp(2 * scale) * queueing

    def told(observed_s: float | None) -> tuple[Floats, NDArray[np.bool_]]:
        far = replace(
            sample,
            network=replace(sample.network, links=links),
            traffic=replace(sample.traffic, observed_s=observed_s),
            mean_s=np.where(known, measured + fixed, 0.0),
        )
        return scores_of(model, far, build_features(far.network, far.traffic, model.prior))[1:]

    score, telling = told(None)
    assert len(score) == known.sum()
    assert telling.all()
    np.testing.assert_allclose(score, 2.0, rtol=1e-6)
    lasts_s = 100.0
    noise = LABEL_Z * jitter / (queueing * np.sqrt(sample.traffic.pps * lasts_s))
    left = np.maximum(4 - (noise / scale)[known] ** 2, 0.0)
    assert np.count_nonzero(left) > 0
    score, telling = told(lasts_s)
    np.testing.assert_allclose(score, np.sqrt(left), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(telling, (noise <= MOST_NOISE * scale)[known])
    score, telling = told(1e-3)
    assert score.mean() < 1
    assert not telling.all()


# ------------------------------------------------------------------------------------------ wrong names


def test_unknown_recipes_and_slices_are_refused(tmp_path: Path) -> None:
    """A wrong name lists the right ones, before anything is written."""
    with pytest.raises(UsageError, match=f"no recipe 'best': choose one of {', '.join(RECIPES)}"):
        train("best", tmp_path / "m.npz", Run(tmp_path), date="")
    with pytest.raises(UsageError, match="no slice 'moon': choose from random, lab"):
        train(Recipe("own", {"moon": 1}, {}, epochs=1), tmp_path / "m.npz", Run(tmp_path), date="")
    with pytest.raises(UsageError, match="no slice 'moon'"):
        next(gather(Run(tmp_path), {"moon": [1]}))
    assert list(tmp_path.iterdir()) == []


def test_measured_files_must_be_told_where(tmp_path: Path) -> None:
    """A recipe that trains on measured files says which, when nobody says where they lie."""
    recipe = Recipe("own", {}, {}, epochs=1, measured=Measured("testbed", ("a.jsonl.gz",), ("b.jsonl.gz",)))
    with pytest.raises(UsageError, match=r"measured files \(a\.jsonl\.gz\): say where they lie"):
        train(recipe, tmp_path / "m.npz", Run(tmp_path), date="")


def test_what_is_held_out_of_measured_files_is_trained_on_nowhere(tmp_path: Path) -> None:
    """Of ten samples every fourth is held out, in turn for the epoch and the intervals; the others train."""
    write_lines([testbed_record()], tmp_path / "a.jsonl.gz")
    write_lines([testbed_record()] * 10, tmp_path / "b.jsonl.gz")
    files = MeasuredFiles(
        Measured("testbed", ("a.jsonl.gz",), ("b.jsonl.gz",), held_every=4), Run(tmp_path, dataset=tmp_path)
    )
    fitted, chosen, judged = (
        [sample.name for sample in part]
        for part in (files.training(), files.validation(), files.calibration())
    )
    assert (len(fitted), len(chosen), len(judged)) == (8, 2, 1)
    assert len(set(fitted[1:]) | set(chosen) | set(judged)) == 10


# -------------------------------------------------------------------------------------- the baselines


def test_simulator_and_queueing_model_agree_on_poisson_traffic() -> None:
    """Under Poisson traffic M/G/1/K is within 10 % of the simulator on average, and M/M/1/b is further."""
    conditions = replace(SLICES["nsfnet-lab"], window_s=20.0, windows=1)
    samples = [sample for seed in range(4) for sample in simulate(conditions, seed)]

    def strong(sample: Sample) -> PathPrediction:
        return MG1K().predict(sample.network, sample.traffic)

    def weak(sample: Sample) -> PathPrediction:
        return MM1B().predict(sample.network, sample.traffic)

    models = evaluate({"mg1k": strong, "mm1b": weak}, samples)["models"]
    assert models["mg1k"]["mape"] < 10
    assert models["mm1b"]["mape"] > models["mg1k"]["mape"]
