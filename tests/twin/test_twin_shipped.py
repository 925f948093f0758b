"""The checkpoints that come with the package: small, traceable, fast, and better than what they correct."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from routenet_examples import lab

from twin.evaluation import Predict, evaluate
from twin.inference import load
from twin.models import DelayModel
from twin.network import Floats
from twin.queueing import MG1K, MM1B
from twin.recipes import RECIPES, TEST_SEED
from twin.scheduling import POLICIES
from twin.training import Run, gather

WEIGHTS = Path(__file__).parents[2] / "twin" / "weights"
SHIPPED = ("routenet", "rnn")
shipped = pytest.mark.parametrize("name", SHIPPED)


def test_all_weights_together_are_small() -> None:
    """5 MB at most, and nothing lies there that no command loads or no recipe makes."""
    files = [file for file in WEIGHTS.iterdir() if file.suffix != ".py" and file.is_file()]
    assert {file.name for file in files} == {"routenet.npz", "routenet-base.npz", "rnn.npz", "testbed.npz"}
    assert sum(file.stat().st_size for file in files) <= 5_000_000


@shipped
def test_it_says_where_it_is_from(name: str) -> None:
    """Its own name, a recipe of this version, many samples, versions, and an error below its prior's."""
    model = load(name=name)
    provenance = model.checkpoint.provenance
    assert model.name == name
    assert provenance.recipe in RECIPES
    assert model.version == f"{provenance.recipe}-{model.checkpoint.digest}"
    assert model.checkpoint.config == RECIPES[provenance.recipe].config
    assert provenance.samples > 100
    assert {"python", "numpy", "torch"} <= provenance.versions.keys()
    assert 0 < provenance.validation["mape"] < provenance.validation["prior_mape"]


def test_the_testbeds_weights_were_tuned_on_its_folds() -> None:
    """They come from the recipe of measured files, begun from the shipped weights, and beat their prior."""
    provenance = load(name="testbed").checkpoint.provenance
    assert provenance.recipe == "testbed-5"
    assert provenance.samples > 3_000
    assert 0 < provenance.validation["mape"] < provenance.validation["prior_mape"]


def test_its_range_holds_the_lab_and_what_is_claimed() -> None:
    """The lab's NSFNET, all four schedulers, overload, and 300 nodes lie within its range."""
    model = load()
    assert model.predict(*lab()).out_of_range == ()
    limits = model.checkpoint.safe_range.limits
    assert limits["nodes"][1] >= 300
    assert limits["load"][1] >= 1
    assert all(limits[f"{policy} scheduling"][1] == 1 for policy in POLICIES)


def test_it_answers_for_nsfnet_within_50_ms() -> None:
    """All 182 paths of NSFNET take less than 50 ms of processor time once warm."""
    model = load(threads=1)
    model.predict(*lab())
    spent = []
    for _ in range(5):
        start = time.thread_time()
        model.predict(*lab())
        spent.append(time.thread_time() - start)
    assert min(spent) < 0.05


def test_it_rises_with_load() -> None:
    """Averaged over paths, more traffic means more delay and no less loss, from a tenth to twice the mean."""
    network, traffic = lab()
    network = replace(network, links=tuple(replace(link, propagation_delay_s=0.0) for link in network.links))
    model = load()
    said = [model.predict(network, traffic.scaled(factor)) for factor in (0.1, 0.5, 1.0, 1.5, 2.0)]
    assert (np.diff([one.mean_s.mean() for one in said]) > 0).all()
    loss: list[Floats] = [one.loss for one in said]
    assert loss[-1].mean() >= loss[0].mean()


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, dict[str, float]]]:
    """Slice → model → figures, on scenarios that nothing was trained or calibrated on."""
    run, seeds = Run(tmp_path_factory.mktemp("unseen")), range(TEST_SEED, TEST_SEED + 4)
    models = {model.name: _predict(model) for model in (load(), load(name="rnn"), MG1K(), MM1B())}
    return {name: evaluate(models, gather(run, {name: seeds}))["models"] for name in ("nsfnet-lab", "mixed")}


def _predict(model: DelayModel) -> Predict:
    return lambda sample: model.predict(sample.network, sample.traffic)


@pytest.mark.parametrize("name", ["nsfnet-lab", "mixed"])
def test_it_beats_all_baselines_on_unseen_networks(
    judged: dict[str, dict[str, dict[str, float]]], name: str
) -> None:
    """On a map and on mixed traffic that it never saw, RouteNet errs least, and its intervals hold."""
    models = judged[name]
    rivals = min(models[other]["mape"] for other in ("mg1k", "mm1b", "rnn", "median"))
    assert models["routenet"]["mape"] < rivals
    assert models["routenet"]["coverage90"] > 80
    assert models["routenet"]["median_ape"] < 5
