"""Fitting: what the labels say, what the loss asks for, and a run that can be stopped anywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from twin.checkpoint import RouteNetConfig
from twin.dataset import simulate
from twin.errors import CheckpointError
from twin.features import build_features
from twin.fitting import (
    MOST_RELATIVE,
    SLOPE,
    Fitting,
    Progress,
    fitting_loss,
    labelled_graph,
    log_error,
    relative_error,
    validation_mape,
)
from twin.queueing import MG1K
from twin.recipes import SLICES, Recipe
from twin.routenet import FlowGraph, RouteNetModule
from twin.samples import Sample
from twin.training import one_thread

CONFIG = RouteNetConfig(state=8, hidden=8, iterations=2, heads=2)
RECIPE = Recipe("test", {}, {}, epochs=6, batch=2, learning_rate=1e-2, config=CONFIG)
SHORT = replace(SLICES["smoke-mixed"], packets=100.0)
Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Seven small networks."""
    return [sample for seed in range(7) for sample in simulate(SHORT, seed)]


def graph_of(sample: Sample, heads: int, seed: int) -> FlowGraph:
    """The labelled graph of a sample under the queueing model."""
    recipe = replace(RECIPE, config=replace(CONFIG, heads=heads))
    return labelled_graph(sample, build_features(sample.network, sample.traffic, MG1K()), recipe, seed)


@pytest.fixture(scope="module")
def graphs(samples: list[Sample]) -> list[FlowGraph]:
    """Their graphs and labels."""
    return [graph_of(sample, CONFIG.heads, number) for number, sample in enumerate(samples)]


def fitting(
    graphs: list[FlowGraph], state: Path | None = None, recipe: Recipe = RECIPE, seed: int = 0
) -> Fitting:
    """Five graphs to train on, two to validate on."""
    return Fitting(recipe, graphs[:5], graphs[5:], seed=seed, state=state)


def same(one: Weights, other: Weights) -> bool:
    """Bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ---------------------------------------------------------------------------------------- labels and loss


def test_labels_are_in_transmission_times_and_weights_follow_what_is_known(samples: list[Sample]) -> None:
    """Queueing + transmission ÷ transmission; unlabelled flows weigh nothing, noisy ones less."""
    sample = samples[0]
    links = tuple(replace(link, propagation_delay_s=0.5) for link in sample.network.links)
    far = replace(sample.network, links=links)
    fixed = 0.5 * far.paths.lengths[sample.traffic.path]
    unknown = np.arange(len(fixed)) % 3 == 0
    noise = np.where(np.arange(len(fixed)) % 3 == 1, RECIPE.noise, 0.0)
    known = replace(
        sample,
        network=far,
        mean_s=np.where(unknown, 0.0, np.maximum(sample.mean_s, 1e-3) + fixed),
        count=np.where(unknown, 0.0, 100.0),
        noise=noise,
    )
    graph = graph_of(known, 3, 1)
    features = build_features(far, sample.traffic, MG1K())
    told = (graph.y.numpy() + graph.fixed.numpy()) * features.transmission_s
    np.testing.assert_allclose(told[~unknown], known.mean_s[~unknown], rtol=1e-9)
    weight = graph.weight.numpy()
    assert not weight[unknown].any()
    sure, noisy = weight[~unknown & (noise == 0)], weight[noise > 0]
    assert np.ptp(sure) == 0
    np.testing.assert_allclose(noisy, sure[0] / 2)
    assert not graph.jittered[unknown].any()


def test_a_sample_counts_as_the_square_root_of_its_flows(samples: list[Sample]) -> None:
    """Twice the flows of the same kind weigh √2 as much."""
    sample = replace(samples[0], noise=np.zeros(len(samples[0].mean_s)))
    half = replace(sample, count=np.where(np.cumsum(sample.labelled) % 2 == 0, sample.count, 0.0))
    whole, part = (graph_of(one, 1, 0).weight.sum().item() for one in (sample, half))
    share = half.labelled.sum() / sample.labelled.sum()
    assert part / whole == pytest.approx(np.sqrt(share))


def test_every_head_weighs_the_samples_its_own_way(samples: list[Sample]) -> None:
    """Bootstrap numbers differ between heads and samples, average to one, and follow from the seed."""
    draws = np.array([graph_of(samples[0], 3, seed).own[0].numpy() for seed in range(100)])
    assert draws.mean() == pytest.approx(1.0, abs=0.2)
    assert (draws[:, 0] != draws[:, 1]).any()
    again = graph_of(samples[0], 3, 5).own.numpy()
    assert (again == draws[5]).all()


def perfect(graph: FlowGraph, factor: float) -> FlowGraph:
    """The same graph with labels of ``factor`` times what an untrained network says."""
    said = RouteNetModule(CONFIG)(graph)
    told: FlowGraph = graph.clone()
    told.y = said.delays.mean(dim=1).detach() * factor
    told.y_std, told.y_loss = said.jitter.detach() * factor, said.loss.detach()
    return told


@pytest.mark.parametrize("relative", [False, True])
def test_the_loss_is_least_where_nothing_is_wrong(graphs: list[FlowGraph], relative: bool) -> None:
    """Predictions that meet their labels cost less than such that are off, and the further off the more."""
    module = RouteNetModule(CONFIG)
    costs = [
        fitting_loss(module, perfect(graphs[0], factor), relative=relative).item()
        for factor in (1.0, 1.1, 1.5, 2.0)
    ]
    assert costs == sorted(set(costs))
    assert validation_mape(module, [perfect(graphs[0], 1.0)]) == pytest.approx(0.0, abs=1e-9)
    assert validation_mape(module, [perfect(graphs[0], 2.0)]) == pytest.approx(0.5)


def test_the_relative_error_is_what_mape_asks_for_up_to_a_bound() -> None:
    """|r − 1| up to a factor of three, constant beyond."""
    ratio = torch.tensor([0.0, 0.5, 1.0, 1.5, 3.0, 30.0])
    assert relative_error(ratio).tolist() == [1.0, 0.5, 0.0, 0.5, 2.0, MOST_RELATIVE]


def test_a_small_error_costs_as_the_recipe_says() -> None:
    """Square below its threshold, and as steep as any other above it, half of the threshold spared."""
    ln = torch.tensor([0.0, 0.001, 0.005, 0.1])
    fine, coarse = log_error(ln.exp(), 0.005).tolist(), log_error(ln.exp()).tolist()
    assert fine == pytest.approx([0.0, SLOPE * 1e-4, SLOPE * 0.0025, SLOPE * (0.1 - 0.0025)], rel=1e-3)
    assert coarse == pytest.approx([0.0, 0.5e-6, 0.5 * 0.005**2, SLOPE * (0.1 - SLOPE / 2)], rel=1e-3)


def test_the_scale_of_the_error_does_not_move_the_delay(graphs: list[FlowGraph]) -> None:
    """What fits the error to expect reaches the read-out of delays not at all."""
    module = RouteNetModule(CONFIG)
    graph = graphs[0].clone()
    for term in ("own", "jittered"):
        graph[term] = torch.zeros_like(graph[term])
    fitting_loss(module, graph).backward()  # type: ignore[no-untyped-call]  # torch's own gap
    assert module.correct.weight.grad is None or not module.correct.weight.grad.any()
    bias = module.get_parameter("expect_error.2.bias").grad
    assert bias is not None
    assert bias.abs() > 0


# ------------------------------------------------------------------------------------------------- runs


def test_the_loss_falls_and_the_best_epoch_is_kept(graphs: list[FlowGraph]) -> None:
    """Fitted to its own training set: loss and error go down, and the best that was seen comes out."""
    seen: list[float] = []
    recipe = replace(RECIPE, epochs=12, batch=1)
    with one_thread():
        fit = Fitting(recipe, graphs, graphs, seed=0)
        best = fit.run(lambda progress: seen.append(progress.mape[-1]))
    progress = fit.progress
    assert (progress.epoch, len(progress.loss), progress.mape) == (12, 12, seen)
    assert progress.loss[-1] < progress.loss[0]
    assert progress.best_mape == min([*seen, progress.prior_mape]) < progress.prior_mape
    module = RouteNetModule(CONFIG)
    module.load_state_dict(best)
    assert validation_mape(module, graphs) == pytest.approx(progress.best_mape, rel=1e-9)


def test_seeds_decide_what_comes_out(graphs: list[FlowGraph]) -> None:
    """The same seed gives the same bytes, another seed others."""
    with one_thread():
        first, again, other = (fitting(graphs, seed=seed).run() for seed in (0, 0, 1))
    assert same(first, again)
    assert not same(first, other)


class Stopped(Exception):
    """Somebody pulled the plug."""


@pytest.mark.parametrize("after", [1, 4])
def test_a_run_that_is_resumed_ends_as_if_never_stopped(
    graphs: list[FlowGraph], tmp_path: Path, after: int
) -> None:
    """Stopped after an epoch and taken up by a new process's objects: the same bytes, losses and errors."""

    def stop(progress: Progress) -> None:
        if progress.epoch == after:
            raise Stopped

    path = tmp_path / "unfinished"
    with one_thread():
        whole = fitting(graphs)
        expected = whole.run()
        with pytest.raises(Stopped):
            fitting(graphs, path).run(stop)
        torch.rand(7)  # other random numbers are drawn in between
        resumed = fitting(graphs, path)
        assert resumed.progress.epoch == after
        assert same(resumed.run(), expected)
    assert resumed.progress == whole.progress
    assert same(resumed.module.state_dict(), whole.module.state_dict())
    assert [file.name for file in tmp_path.iterdir()] == ["unfinished"]


def test_a_finished_run_that_is_started_again_has_nothing_to_do(
    graphs: list[FlowGraph], tmp_path: Path
) -> None:
    """The file of a run that ended gives its weights without another epoch."""
    with one_thread():
        expected = fitting(graphs, tmp_path / "unfinished").run()
        epochs: list[int] = []
        again = fitting(graphs, tmp_path / "unfinished").run(lambda progress: epochs.append(progress.epoch))
    assert same(again, expected)
    assert epochs == []


def test_the_unfinished_file_of_another_run_is_refused(graphs: list[FlowGraph], tmp_path: Path) -> None:
    """Another recipe, seed, length or set of samples: one line that names both runs, and nothing is lost."""
    path = tmp_path / "unfinished"
    with one_thread():
        fitting(graphs, path).run()
    kept = path.read_bytes()
    others = (
        {"recipe": replace(RECIPE, name="other")},
        {"recipe": replace(RECIPE, epochs=7)},
        {"seed": 1},
    )
    for other in others:
        with pytest.raises(CheckpointError, match=r"unfinished run of .*remove it to start over") as caught:
            fitting(graphs, path, **other)
        assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="'samples': 5"):
        Fitting(RECIPE, graphs[:4], graphs[5:], seed=0, state=path)
    assert path.read_bytes() == kept


def test_the_unfinished_file_of_another_shape_is_refused(graphs: list[FlowGraph], tmp_path: Path) -> None:
    """A recipe whose network has changed under the same name is another recipe."""
    path = tmp_path / "unfinished"
    wider = replace(RECIPE, config=replace(CONFIG, state=16))
    with one_thread():
        fitting(graphs, path).run()
        with pytest.raises(CheckpointError, match="remove it to start over"):
            fitting(graphs, path, recipe=wider)


def test_a_damaged_unfinished_file_is_refused(graphs: list[FlowGraph], tmp_path: Path) -> None:
    """What is no unfinished run is an error in one line that names the file, not a start over."""
    path = tmp_path / "unfinished"
    path.write_bytes(b"not a run")
    with pytest.raises(CheckpointError, match="unfinished") as caught:
        fitting(graphs, path)
    assert "\n" not in str(caught.value)


def test_fine_tuning_begins_with_the_weights_given(graphs: list[FlowGraph]) -> None:
    """A run with a start has its weights and scales, with ranges widened to hold the new samples."""
    with one_thread():
        start = fitting(graphs[:5] + graphs[:2]).run()
        tuned = Fitting(RECIPE, graphs[5:], graphs[:2], seed=0, start=start)
    now = tuned.module.state_dict()
    for name, weight in start.items():
        if name.endswith(".low"):
            assert (now[name] <= weight).all(), name
        elif name.endswith(".high"):
            assert (now[name] >= weight).all(), name
        else:
            assert torch.equal(now[name], weight), name
    for graph in graphs[5:]:
        assert (graph.queue_x >= now["scale_queue.low"]).all()
        assert (graph.queue_x <= now["scale_queue.high"]).all()
