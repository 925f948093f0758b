"""Fitting RouteNet's weights to samples: labels, loss, optimiser, and a run that can be stopped and resumed.

The loss is Huber's on ln(predicted ÷ measured) of queueing + transmission delay (propagation is known, and
would only hide errors), near-absolute, so that it minimises what MAPE measures without its bias towards low
predictions. Flows whose label is noise count less, and a sample counts as the square root of its flows, so
that neither the largest nor the smallest networks have it all. Every head of the ensemble weighs the samples
with its own Poisson(1) numbers (the bootstrap). Jitter and loss follow with smaller weights. The scale of the
error is the quantile that intervals need (:data:`twin.intervals.COVERAGE`) of |ln(predicted ÷ measured)|
beyond what the label is uncertain by, fitted by quantile regression (Koenker and Bassett, Econometrica 46,
1978) on the logarithm, without touching what it is the scale of.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import swa_utils
from torch_geometric.loader import DataLoader

from twin.errors import CheckpointError
from twin.features import Features
from twin.intervals import COVERAGE, sampling_noise
from twin.recipes import Recipe
from twin.routenet import FlowGraph, RouteNetModule, to_graph
from twin.samples import Sample

SLOPE = 0.03  # of Huber's loss where it is absolute; jitter's and loss's is so from this error on
LOSS_FLOOR = 1e-3
LEAST_ERROR = 1e-3  # ln; a model is never surer than this
JITTER_WEIGHT, LOSS_WEIGHT, SCALE_WEIGHT = 0.3, 0.1, 0.05
AVERAGING = 0.995  # a step, of the weights that are kept
MOST_RELATIVE = 2.0  # beyond a factor of three a flow pulls no harder


def labelled_graph(sample: Sample, features: Features, recipe: Recipe, seed: int) -> FlowGraph:
    """The graph of a sample and its labels, [F] each: y, y_std and fixed (propagation), all ÷ transmission;
    y_loss, weight and noise (what errors of ln y may owe to the label); own [F, heads]."""
    graph = to_graph(features)
    queueing = sample.mean_s - features.propagation_s
    measured = sample.labelled & (queueing > 0) & features.routed
    seconds = np.where(measured, features.transmission_s, 1.0)
    jittered = measured & (sample.std_s > 0)  # elsewhere neither jitter nor loss is known
    weight = np.where(measured, 1 / (1 + (sample.noise / recipe.noise) ** 2), 0.0)
    total = weight.sum()
    draws = np.random.default_rng([seed, len(weight)]).poisson(1.0, recipe.config.heads).astype(np.float64)
    graph.y = torch.from_numpy(np.where(measured, queueing / seconds, 1.0))
    graph.fixed = torch.from_numpy(np.where(measured, features.propagation_s / seconds, 0.0))
    graph.y_std = torch.from_numpy(np.where(jittered, sample.std_s / seconds, 1.0))
    graph.y_loss = torch.from_numpy(sample.loss)
    graph.weight = torch.from_numpy(weight / np.sqrt(max(total, 1.0)))
    graph.noise = torch.from_numpy(
        sampling_noise(sample.std_s, np.where(measured, queueing, 0.0), sample.count)
    )
    graph.jittered = torch.from_numpy(jittered)
    graph.own = torch.from_numpy(np.tile(draws, (len(weight), 1)))
    return graph


def relative_error(ratio: Tensor) -> Tensor:
    """|predicted ÷ measured − 1|, at most MOST_RELATIVE: what MAPE asks for, low bias and all."""
    return torch.where(ratio < 1, 1 - ratio, (ratio - 1).clamp(max=MOST_RELATIVE))


def log_error(ratio: Tensor, delta: float = SLOPE) -> Tensor:
    """Huber's loss of ln ``ratio``: square up to ``delta``, absolute beyond it, with SLOPE there."""
    each: Tensor = nn.HuberLoss(reduction="none", delta=delta)(ratio.log(), torch.zeros_like(ratio))
    return each * (SLOPE / delta)


def fitting_loss(
    module: RouteNetModule, graph: FlowGraph, *, huber: float = SLOPE, relative: bool = False
) -> Tensor:
    """Weighted loss of delay (Huber's on its logarithm, or ``relative``), jitter and loss, and the
    quantile of the errors."""
    said = module(graph)
    fixed = graph.fixed.unsqueeze(1) if relative else 0.0
    ratio = (fixed + said.delays) / (fixed + graph.y.unsqueeze(1))
    each = (graph.own * (relative_error(ratio) if relative else log_error(ratio, huber))).mean(dim=1)
    each = each + JITTER_WEIGHT * graph.jittered * log_error(said.jitter / graph.y_std)
    lost = (said.loss + LOSS_FLOOR) / (graph.y_loss + LOSS_FLOOR)
    each = each + LOSS_WEIGHT * graph.jittered * log_error(lost)
    error = (said.delays.detach().mean(dim=1) / graph.y).log() ** 2 - graph.noise**2  # the model's own part
    short = 0.5 * error.clamp(min=LEAST_ERROR**2).log() - said.ln_scale
    each = each + SCALE_WEIGHT * torch.maximum(COVERAGE * short, (COVERAGE - 1) * short)
    weighted: Tensor = (graph.weight * each).sum() / graph.weight.sum().clamp(min=1e-9)
    return weighted


def validation_mape(module: RouteNetModule, graphs: Sequence[FlowGraph]) -> float:
    """Weighted mean absolute relative error of the whole delay."""

    def error(graph: FlowGraph) -> Tensor:
        ratio = (graph.fixed + module(graph).delays.mean(dim=1)) / (graph.fixed + graph.y)
        total: Tensor = (graph.weight * (ratio - 1).abs()).sum()
        return total

    with torch.inference_mode():
        errors = [error(graph) for graph in graphs]
    return float(sum(errors) / sum(graph.weight.sum() for graph in graphs))


@dataclass
class Progress:
    """Where a run stands: losses and validation errors epoch by epoch, and the best so far."""

    epoch: int = 0
    loss: list[float] = field(default_factory=list)
    mape: list[float] = field(default_factory=list)
    best_mape: float = float("inf")
    prior_mape: float = float("inf")  # of an untrained network, which is its prior


class Fitting:
    """One training run; ``state`` is its file between epochs.

    1. Scales are taken from the training set. 2. Every epoch: one pass over the shuffled samples, then the
    averaged weights are judged on the validation set; the best are kept. 3. After every epoch everything is
    written to ``state``; a run that finds the file of the same recipe, seed and samples goes on from there.
    """

    def __init__(
        self,
        recipe: Recipe,
        training: Sequence[FlowGraph],
        validation: Sequence[FlowGraph],
        *,
        seed: int,
        state: Path | None = None,
        start: dict[str, Tensor] | None = None,
    ) -> None:
        torch.manual_seed(seed)
        self.recipe, self.validation, self.state = recipe, validation, state
        self.seed = seed
        self.identity = {
            "recipe": recipe.name,
            "seed": seed,
            "samples": len(training),
            "epochs": recipe.epochs,
            "config": asdict(recipe.config),
        }
        self.module = RouteNetModule(recipe.config)
        if start is None:
            self.module.fit_scales(training)
        else:
            self.module.load_state_dict(start)
            self.module.widen_scales(training)
        self.batches = DataLoader(list(training), batch_size=recipe.batch, shuffle=True)
        self.optimiser = torch.optim.AdamW(
            self.module.parameters(), lr=recipe.learning_rate, weight_decay=1e-4
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, recipe.learning_rate, total_steps=recipe.epochs * len(self.batches), pct_start=0.1
        )
        averaging = swa_utils.get_ema_multi_avg_fn(AVERAGING)  # type: ignore[no-untyped-call]  # torch's gap
        self.average = swa_utils.AveragedModel(self.module, multi_avg_fn=averaging, use_buffers=True)
        self.best = copy.deepcopy(self.module.state_dict())
        self.progress = Progress(prior_mape=validation_mape(self.module, validation))
        self.progress.best_mape = self.progress.prior_mape
        if state is not None and state.exists():
            self._resume(state)

    def run(self, on_epoch: Callable[[Progress], None] = lambda _: None) -> dict[str, Tensor]:
        """Fit until the recipe's last epoch; the best weights."""
        while self.progress.epoch < self.recipe.epochs:
            self._epoch()
            if self.state is not None:
                self._keep(self.state)
            on_epoch(self.progress)
        return self.best

    def _epoch(self) -> None:
        torch.manual_seed(self.seed * 100_003 + self.progress.epoch)  # the same order when resumed
        losses = [self._step(graph) for graph in self.batches]
        judged: Any = self.average.module
        mape = validation_mape(judged, self.validation)
        progress = self.progress
        progress.epoch += 1
        progress.loss.append(float(np.mean(losses)))
        progress.mape.append(mape)
        if mape < progress.best_mape:
            progress.best_mape, self.best = mape, copy.deepcopy(judged.state_dict())

    def _step(self, graph: FlowGraph) -> float:
        self.optimiser.zero_grad()
        loss = fitting_loss(self.module, graph, huber=self.recipe.huber, relative=self.recipe.relative)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own gap
        nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimiser.step()
        self.schedule.step()
        self.average.update_parameters(self.module)
        return float(loss.detach())

    def _keep(self, path: Path) -> None:
        parts = ("module", "average", "optimiser", "schedule")
        content = {name: getattr(self, name).state_dict() for name in parts}
        content |= {"identity": self.identity, "progress": asdict(self.progress), "best": self.best}
        beside = path.with_name(path.name + ".part")
        torch.save(content, beside)
        beside.replace(path)

    def _resume(self, path: Path) -> None:
        try:
            content = torch.load(path, weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise CheckpointError(f"{path} is no unfinished run: remove it to start over") from error
        if content["identity"] != self.identity:
            raise CheckpointError(
                f"{path} is an unfinished run of {content['identity']}, not of {self.identity}: "
                "remove it to start over"
            )
        for name in ("module", "average", "optimiser", "schedule"):
            getattr(self, name).load_state_dict(content[name])
        self.progress, self.best = Progress(**content["progress"]), content["best"]
