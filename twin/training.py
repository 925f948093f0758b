"""Train RouteNet on simulated networks, and say what it is worth on networks it has not seen.

Four disjoint ranges of seeds: *training*; *validation* chooses the epoch; *calibration* makes the conformal
intervals and, with the training set, the safe operating range; *test* is for :func:`evaluate` alone.

The loss is Huber's on ln(predicted ÷ measured) of queueing + transmission delay (propagation is known, and
would only hide errors), near-absolute, so that it minimises what MAPE measures without its bias towards low
predictions. Paths whose label is noise count less. Jitter and loss follow with smaller weights.
"""

from __future__ import annotations

import copy
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path

import numpy as np
import torch
import torch_geometric
from rich.progress import Progress
from torch import Tensor, nn
from torch_geometric.loader import DataLoader

from twin.checkpoint import (
    COVERAGE,
    Checkpoint,
    Intervals,
    Provenance,
    RouteNetConfig,
    SafeRange,
    write_checkpoint,
)
from twin.dataset import Conditions, Sample, generate, load_samples
from twin.errors import UsageError
from twin.features import build_features, operating_point, worst_load
from twin.models import DelayModel, PathPrediction
from twin.network import Floats
from twin.queueing import MG1K, MM1B, SIZE_SCV
from twin.routenet import PathGraph, RouteNet, RouteNetModule, load, one_thread, to_graph

VALIDATION_SEED, CALIBRATION_SEED, TEST_SEED = 100_000, 200_000, 300_000
LOAD_EDGES = (0.3, 0.5, 0.7, 0.85, 1.0)
HUBER = 0.1  # ln; beyond it the loss is absolute
NOISE = 0.1  # ln; a label this uncertain counts half
AUTOCORRELATION = 3.0  # the mean of queue delays is about this much less certain than of independent ones
LOSS_FLOOR = 1e-3
JITTER_WEIGHT, LOSS_WEIGHT = 0.3, 0.1
FEW = 100  # scores: fewer make no quantile of their own


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out of a training run, but its seed."""

    name: str
    parts: dict[str, int]  # slice → scenarios of it in the training set
    epochs: int
    validation: int = 12  # scenarios of each part
    calibration: int = 24  # scenarios of each slice
    calibrate_on: tuple[str, ...] = ("random", "lab", "large", "nsfnet-bursty", "geant2", "gbn")
    batch: int = 8  # windows
    learning_rate: float = 4e-3
    config: RouteNetConfig = field(default_factory=RouteNetConfig)


# What is trained, calibrated and tested on. No recipe trains on the maps or on the larger networks.
_LAB = Conditions(draw="lab", worst_load=(0.2, 1.1), buffers=(64,), arrivals=(("poisson", 1.0),), windows=2)
_BURSTY = (("modulated", 0.5), ("on-off", 0.5))
SLICES = {
    "random": Conditions(),
    "lab": _LAB,
    "smoke": Conditions(windows=2, window_s=4.0, arrivals=(("on-off", 1.0),)),
    "large": Conditions(nodes=(30, 50), windows=2),
    "nsfnet-lab": replace(_LAB, topologies=("nsfnet",)),
    "nsfnet-bursty": replace(_LAB, topologies=("nsfnet",), arrivals=_BURSTY),
    "geant2": Conditions(topologies=("geant2",)),
    "gbn": Conditions(topologies=("gbn",)),
}
TEST_SLICES = tuple(name for name in SLICES if name != "smoke")
RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "smoke", {"smoke": 8}, epochs=8, validation=2, calibration=2, calibrate_on=("smoke",), batch=2
        ),
        Recipe("fifo-1", {"random": 320, "lab": 160}, epochs=60),
    )
}


def train(
    recipe: str | Recipe,
    out: Path,
    *,
    data: Path,
    date: str,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Train, calibrate and write a checkpoint; returns its validation figures.

    1. Simulate what ``data`` does not hold yet. 2. Build graphs. 3. Fit feature scales and train, keeping the
    epoch that is best on validation. 4. Calibrate intervals and the operating range. 5. Write ``out``.
    """
    chosen = find_recipe(recipe)
    torch.manual_seed(seed)
    training = _gather(data, {name: range(count) for name, count in chosen.parts.items()}, progress)
    seeds = range(VALIDATION_SEED, VALIDATION_SEED + chosen.validation)
    validation = _gather(data, dict.fromkeys(chosen.parts, seeds), progress)
    module = RouteNetModule(chosen.config)
    with one_thread():
        figures = _fit(module, chosen, _graphs(training), _graphs(validation), progress)
    draft = Checkpoint(
        weights=module.state_dict(),
        config=chosen.config,
        size_scv=SIZE_SCV,
        intervals=Intervals(load_edges=(), half_width=(0.0,), bursty_half_width=(0.0,)),
        safe_range=SafeRange({}),
        provenance=Provenance(
            recipe=chosen.name,
            seed=seed,
            samples=len(training),
            date=date,
            versions=_versions(),
            validation=figures,
        ),
    )
    seeds = range(CALIBRATION_SEED, CALIBRATION_SEED + chosen.calibration)
    calibration = _gather(data, dict.fromkeys(chosen.calibrate_on, seeds), progress)
    write_checkpoint(out, calibrate(draft, calibration, training))
    return draft.provenance.validation


def find_recipe(recipe: str | Recipe) -> Recipe:
    """A recipe by its name."""
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise UsageError(f"no recipe {recipe!r}: choose one of {', '.join(RECIPES)}")
    return RECIPES[recipe]


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": str(torch.__version__),
        "torch_geometric": torch_geometric.__version__,
    }


def _gather(data: Path, wanted: Mapping[str, Sequence[int]], progress: Progress | None) -> list[Sample]:
    """The samples of {slice: seeds}, simulated where they are missing."""
    samples = []
    for name, seeds in wanted.items():
        if name not in SLICES:
            raise UsageError(f"no slice {name!r}: choose from {', '.join(SLICES)}")
        generate(data / name, SLICES[name], seeds, progress)
        samples += load_samples(data / name, seeds)
    return samples


# ------------------------------------------------------------------------------------------ fitting


def labelled_graph(sample: Sample) -> PathGraph:
    """The graph of a sample with its labels: y, y_std (÷ transmission), y_loss, weight, [R] each."""
    prior = MG1K(size_scv=SIZE_SCV)
    features = build_features(sample.network, sample.traffic, prior, sample.burstiness)
    graph = to_graph(features)
    mean, std, count = (a[features.routed] for a in (sample.mean_s, sample.std_s, sample.count))
    measured = (count > 0) & (std > 0)
    safe_mean = np.where(measured, mean, 1.0)
    noise = AUTOCORRELATION * std / (safe_mean * np.sqrt(np.maximum(count, 1)))
    graph.y = torch.from_numpy(np.where(measured, mean / features.transmission_s, 1.0))
    graph.y_std = torch.from_numpy(np.where(measured, std / features.transmission_s, 1.0))
    graph.y_loss = torch.from_numpy(sample.loss[features.routed])
    graph.weight = torch.from_numpy(np.where(measured, 1 / (1 + (noise / NOISE) ** 2), 0.0))
    return graph


def _graphs(samples: list[Sample]) -> list[PathGraph]:
    return [labelled_graph(sample) for sample in samples]


def training_loss(module: RouteNetModule, graph: PathGraph) -> Tensor:
    """Weighted Huber loss of delay, jitter and loss."""
    said = module(graph)
    huber = nn.HuberLoss(reduction="none", delta=HUBER)
    zero = torch.zeros_like(graph.y)
    each = huber((said.delay / graph.y).log(), zero)
    each = each + JITTER_WEIGHT * huber((said.jitter / graph.y_std).log(), zero)
    loss_ratio = ((said.loss + LOSS_FLOOR) / (graph.y_loss + LOSS_FLOOR)).log()
    each = each + LOSS_WEIGHT * huber(loss_ratio, zero)
    weighted: Tensor = (graph.weight * each).sum() / graph.weight.sum().clamp(min=1.0)
    return weighted


def _fit(
    module: RouteNetModule,
    recipe: Recipe,
    training: list[PathGraph],
    validation: list[PathGraph],
    progress: Progress | None,
) -> dict[str, float]:
    """Leave the best epoch's weights in ``module``; returns its validation MAPE and that of the prior."""
    module.fit_scales(training)
    batches = DataLoader(training, batch_size=recipe.batch, shuffle=True)
    optimiser = torch.optim.AdamW(module.parameters(), lr=recipe.learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.learning_rate, total_steps=recipe.epochs * len(batches), pct_start=0.1
    )
    prior_mape = validation_mape(module, validation)  # an untrained network is its prior
    best, best_mape = copy.deepcopy(module.state_dict()), prior_mape
    task = None if progress is None else progress.add_task("train", total=recipe.epochs)
    for epoch in range(recipe.epochs):
        for graph in batches:
            optimiser.zero_grad()
            training_loss(module, graph).backward()  # type: ignore[no-untyped-call]  # torch's own gap
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        mape = validation_mape(module, validation)
        if mape < best_mape:
            best, best_mape = copy.deepcopy(module.state_dict()), mape
        if progress is not None and task is not None:
            progress.update(
                task, advance=1, description=f"epoch {epoch + 1}: MAPE {mape:.2%}, best {best_mape:.2%}"
            )
    module.load_state_dict(best)
    return {"mape": best_mape, "prior_mape": prior_mape}


def validation_mape(module: RouteNetModule, graphs: list[PathGraph]) -> float:
    """Weighted mean absolute relative error of queueing + transmission delay."""
    with torch.inference_mode():
        errors = [(graph.weight * (module(graph).delay / graph.y - 1).abs()).sum() for graph in graphs]
    return float(sum(errors) / sum(graph.weight.sum() for graph in graphs))


# -------------------------------------------------------------------------------------- calibration


def calibrate(checkpoint: Checkpoint, samples: list[Sample], training: list[Sample]) -> Checkpoint:
    """Conformal half-widths per load bucket and the range of conditions in which errors were measured."""
    model = RouteNet(checkpoint)
    bursty = [sample for sample in samples if sample.burstiness.rate_scv > 0]
    calm = [sample for sample in samples if sample.burstiness.rate_scv == 0]
    intervals = Intervals(
        load_edges=LOAD_EDGES,
        half_width=conformal_widths(*_scores(model, calm or samples)),
        bursty_half_width=conformal_widths(*_scores(model, bursty or samples)),
    )
    return replace(checkpoint, intervals=intervals, safe_range=_safe_range(model, [*samples, *training]))


def _scores(model: RouteNet, samples: list[Sample]) -> tuple[Floats, Floats]:
    """|ln(predicted ÷ measured)| and the highest load of every measured path."""
    scores, loads = [], []
    for sample in samples:
        features = build_features(sample.network, sample.traffic, model.prior)
        measured = sample.count > 0
        predicted = model.predict(sample.network, sample.traffic, sample.burstiness).mean_s
        scores.append(np.abs(np.log(predicted[measured] / sample.mean_s[measured])))
        loads.append(worst_load(features)[measured[features.routed]])
    return np.concatenate(scores), np.concatenate(loads)


def _safe_range(model: RouteNet, samples: list[Sample]) -> SafeRange:
    points = [
        operating_point(sample.network, model.prior.solve(sample.network, sample.traffic))
        for sample in samples
    ]
    return SafeRange(
        {
            name: (min(point[name][0] for point in points), max(point[name][1] for point in points))
            for name in points[0]
        }
    )


def conformal_widths(scores: Floats, loads: Floats) -> tuple[float, ...]:
    """The ⌈(n + 1)·coverage⌉-th smallest score of each load bucket; of all where few fall into one."""
    overall = _quantile(scores)
    buckets = [scores[np.searchsorted(LOAD_EDGES, loads) == index] for index in range(len(LOAD_EDGES) + 1)]
    return tuple(_quantile(inside) if len(inside) >= FEW else overall for inside in buckets)


def _quantile(scores: Floats) -> float:
    rank = min(ceil((len(scores) + 1) * COVERAGE), len(scores))
    return float(np.sort(scores)[rank - 1])


# --------------------------------------------------------------------------------------- evaluation


def evaluate(
    checkpoint: Path | None = None,
    *,
    data: Path,
    scenarios: int = 12,
    slices: Sequence[str] = TEST_SLICES,
    progress: Progress | None = None,
) -> dict[str, dict[str, dict[str, float]]]:
    """{slice: {model: figures}} of all models on test networks, simulated into ``data`` where missing.

    ``routenet`` is told how bursty the traffic is, ``routenet-untold`` is not, like the queueing models.
    """
    routenet = load(checkpoint)
    models: dict[str, Predict] = {
        "mm1b": _untold(MM1B()),
        "mg1k": _untold(MG1K()),
        "routenet": lambda sample: routenet.predict(sample.network, sample.traffic, sample.burstiness),
        "routenet-untold": _untold(routenet),
    }
    seeds = range(TEST_SEED, TEST_SEED + scenarios)
    report = {}
    for name in slices:
        samples = _gather(data, {name: seeds}, progress)
        report[name] = {model: score(predict, samples) for model, predict in models.items()}
    return report


Predict = Callable[[Sample], PathPrediction]


def _untold(model: DelayModel) -> Predict:
    """A model that is given what telemetry tells, and so takes bursty traffic for Poisson."""
    return lambda sample: model.predict(sample.network, sample.traffic)


def score(predict: Predict, samples: Sequence[Sample]) -> dict[str, float]:
    """Errors of queueing + transmission delay over all measured paths, and what the interval covers."""
    rows = np.concatenate([_residuals(predict(sample), sample) for sample in samples], axis=1)
    error, width, jitter, lost, noise = rows
    ape = np.abs(np.expm1(error))
    return {
        "mape": float(ape.mean()),
        "ape_median": float(np.median(ape)),
        "ape_p90": float(np.quantile(ape, 0.9)),
        "bias": float(error.mean()),
        "coverage": float((np.abs(error) <= width).mean()),
        "width_median": float(np.median(width)),
        "jitter_mape": float(np.abs(np.expm1(jitter)).mean()),
        "loss_mae": float(np.abs(lost).mean()),
        "label_noise_median": float(np.median(noise)),
        "paths": float(rows.shape[1]),
    }


def _residuals(said: PathPrediction, sample: Sample) -> Floats:
    """[5, measured paths]: ln(predicted ÷ measured), half-width, ln jitter ratio, loss error, label noise."""
    measured = (sample.count > 0) & (sample.std_s > 0)
    actual = sample.mean_s[measured]
    return np.array(
        [
            np.log(said.mean_s[measured] / actual),
            said.log_width[measured],
            np.log(said.jitter_s[measured] / sample.std_s[measured]),
            said.loss[measured] - sample.loss[measured],
            sample.std_s[measured] / (actual * np.sqrt(sample.count[measured])),
        ]
    )
