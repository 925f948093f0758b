"""Train a checkpoint from its recipe: simulate, fit, calibrate, write.

1. Simulate what the data folder does not hold yet. 2. Build graphs. 3. Fit the weights (:mod:`twin.fitting`),
keeping the epoch that is best on validation. 4. Calibrate intervals and the operating range on samples that
no step before saw. 5. Write the checkpoint. Every step resumes where it was stopped."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress as Bar
from torch import Tensor

from twin import fitting
from twin.checkpoint import Checkpoint, Provenance, SafeRange, write_checkpoint
from twin.dataset import generate, load_samples
from twin.errors import UsageError
from twin.evaluation import READERS
from twin.features import Features, build_features, operating_point
from twin.fitting import Fitting, labelled_graph
from twin.inference import PRIORS, RouteNet, load
from twin.intervals import conformal, constant_intervals, group_of, sampling_noise
from twin.network import Floats, Ints
from twin.queueing import SIZE_SCV
from twin.recipes import (
    CALIBRATION_SEED,
    SLICES,
    TRAINING_SEED,
    VALIDATION_SEED,
    Measured,
    Recipe,
    find_recipe,
)
from twin.routenet import FlowGraph
from twin.samples import Dropped, Sample

# The error that the network expects is the quantile already: calibration widens it. (Where labels are noisier
# than the network, scores are zero and say nothing.)
LEAST_QUANTILE = 1.0
MOST_NOISE = 2.0  # of a label, as a part of the error expected: beyond it the label says little of that
FEW_NETWORKS = 12  # that make a group's quantile: with fewer it is the quantile of those few
PACKAGES = ("numpy", "numba", "torch", "torch_geometric")


Bools = NDArray[np.bool_]
Point = dict[str, tuple[float, float]]  # smallest and largest of what decides whether a state was seen


@dataclass(frozen=True)
class Run:
    """How a training is run; none of it decides what comes out."""

    data: Path  # simulated samples, kept
    dataset: Path | None = None  # where the files of a measured data set lie
    state: Path | None = None  # the unfinished run, kept between epochs
    processes: int = 1  # of the simulation
    bar: Bar | None = None
    on_epoch: Callable[[fitting.Progress], None] = lambda _: None


def train(recipe: str | Recipe, out: Path, run: Run, *, date: str, seed: int = 0) -> dict[str, float]:
    """The five steps above; returns the validation figures."""
    chosen = find_recipe(recipe)
    data = Simulated(chosen, run) if chosen.measured is None else MeasuredFiles(chosen.measured, run)
    points: list[Point] = []
    training = graphs(data.training(), chosen, run, points)
    validation = graphs(data.validation(), chosen, run, [])
    start = state_of(load(name=chosen.start).checkpoint) if chosen.start else None
    with one_thread():
        fit = Fitting(chosen, training, validation, seed=seed, state=run.state, start=start)
        weights = fit.run(run.on_epoch)
    draft = Checkpoint(
        weights={name: tensor.numpy() for name, tensor in weights.items()},
        config=chosen.config,
        size_scv=SIZE_SCV,
        intervals=constant_intervals(1.0),
        safe_range=SafeRange({}),
        provenance=Provenance(
            recipe=chosen.name,
            seed=seed,
            samples=len(training),
            date=date,
            versions={"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
            validation={"mape": fit.progress.best_mape, "prior_mape": fit.progress.prior_mape},
        ),
    )
    write_checkpoint(out, calibrate(draft, data.calibration(), points))
    return draft.provenance.validation


@dataclass(frozen=True)
class Simulated:
    """Samples of a recipe's slices, from disjoint ranges of seeds."""

    recipe: Recipe
    run: Run

    def training(self) -> Iterator[Sample]:
        """What the weights are fitted to."""
        return self._gather(TRAINING_SEED, self.recipe.parts)

    def validation(self) -> Iterator[Sample]:
        """What chooses the epoch: a sixth of the training's scenarios, 4 to ``recipe.validation`` a slice."""
        parts = self.recipe.parts.items()
        most = self.recipe.validation
        return self._gather(VALIDATION_SEED, {name: min(most, max(4, n // 6)) for name, n in parts})

    def calibration(self) -> Iterator[Sample]:
        """What the intervals are made of."""
        return self._gather(CALIBRATION_SEED, self.recipe.calibration)

    def _gather(self, first: int, counts: Mapping[str, int]) -> Iterator[Sample]:
        return gather(self.run, {name: range(first, first + count) for name, count in counts.items()})


@dataclass(frozen=True)
class MeasuredFiles:
    """Samples of a measured data set under ``run.dataset``."""

    files: Measured
    run: Run

    def training(self) -> Iterator[Sample]:
        """What the weights are fitted to."""
        yield from self._read(self.files.training)
        every = self.files.held_every
        if every > 1:
            held_out = enumerate(self._read(self.files.held_out))
            yield from (sample for number, sample in held_out if number % every)

    def validation(self) -> Iterator[Sample]:
        """What chooses the epoch: every second sample held out."""
        return islice(self._held_out(), 0, None, 2)

    def calibration(self) -> Iterator[Sample]:
        """What the intervals are made of: the others."""
        return islice(self._held_out(), 1, None, 2)

    def _held_out(self) -> Iterator[Sample]:
        return islice(self._read(self.files.held_out), 0, None, self.files.held_every)

    def _read(self, names: Sequence[str]) -> Iterator[Sample]:
        if self.run.dataset is None:
            raise UsageError(f"this recipe trains on measured files ({', '.join(names)}): say where they lie")
        for name in names:
            yield from READERS[self.files.format](self.run.dataset / name, Dropped())


def gather(run: Run, wanted: Mapping[str, Sequence[int]]) -> Iterator[Sample]:
    """The samples of {slice: seeds}, simulated where they are missing; one file in memory at a time."""
    for name, seeds in wanted.items():
        if name not in SLICES:
            raise UsageError(f"no slice {name!r}: choose from {', '.join(SLICES)}")
        generate(run.data / name, SLICES[name], seeds, run.bar, processes=run.processes)
        for seed in seeds:
            yield from load_samples(run.data / name, [seed])


def graphs(samples: Iterable[Sample], recipe: Recipe, run: Run, points: list[Point]) -> list[FlowGraph]:
    """Labelled graphs of all samples; ``points`` gets where they lie."""
    task = None if run.bar is None else run.bar.add_task("build graphs", total=None)
    prior, built = PRIORS[recipe.config.prior](SIZE_SCV), []
    for number, sample in enumerate(samples):
        features = build_features(sample.network, sample.traffic, prior)
        built.append(labelled_graph(sample, features, recipe, number))
        points.append(operating_point(sample.network, features.queues))
        if run.bar is not None and task is not None:
            run.bar.update(task, completed=number + 1)
    return built


# -------------------------------------------------------------------------------------- calibration


def calibrate(checkpoint: Checkpoint, samples: Iterable[Sample], seen: Iterable[Point]) -> Checkpoint:
    """Conformal quantiles by group, and the range of conditions in which errors were measured."""
    model = RouteNet(replace(checkpoint, intervals=constant_intervals(1.0)), threads=1)
    columns, points = list[tuple[Ints, Floats, Ints, Bools]](), list(seen)
    network, number = None, 0
    for sample in samples:
        number += sample.network is not network  # windows of one network are alike
        network = sample.network
        features = build_features(sample.network, sample.traffic, model.prior)
        group, score, telling = scores_of(model, sample, features)
        columns.append((group, score, np.full(len(score), number), telling))
        points.append(operating_point(sample.network, features.queues))
    group, score, networks, telling = (np.concatenate(column) for column in zip(*columns, strict=True))
    intervals = conformal(
        group, score, networks, least=LEAST_QUANTILE, telling=telling, few_networks=FEW_NETWORKS
    )
    return replace(checkpoint, intervals=intervals, safe_range=_hull(points))


def scores_of(model: RouteNet, sample: Sample, features: Features) -> tuple[Ints, Floats, Bools]:
    """Group and score of every labelled flow: its error beyond the noise of what is measured ÷ expected
    error; and whether the noise is small enough for the score to tell of the model.

    A label lies within exp(±(q²s² + noise²)^½) of the prediction, as :mod:`twin.intervals` has it, if and
    only if (error² − noise²)^½ ÷ s ≤ q."""
    queueing, scale, jitter = model.expect(features)
    packets = sample.traffic.pps * (sample.traffic.observed_s or 0.0)
    measured = sample.mean_s - features.propagation_s
    known = sample.labelled & features.routed & (measured > 0)
    error = np.log(queueing[known] / measured[known])
    noise = sampling_noise(jitter, queueing, packets)[known]
    score = np.sqrt(np.maximum(error**2 - noise**2, 0.0)) / scale[known]
    group = group_of(len(sample.network.nodes), features.bottleneck, features.worst_load)
    return group[known], score, noise <= MOST_NOISE * scale[known]


def _hull(points: Sequence[Point]) -> SafeRange:
    return SafeRange(
        {
            name: (min(point[name][0] for point in points), max(point[name][1] for point in points))
            for name in points[0]
        }
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: tensors are too small to share, and sums then come out the same everywhere."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def state_of(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """A checkpoint's weights as torch loads them."""
    return {name: torch.from_numpy(array.copy()) for name, array in checkpoint.weights.items()}
