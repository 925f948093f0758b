"""`ndtwin bench inference`: what a prediction costs, and which models a command loads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ndtwin.bench_inference import bench_inference, cold_start_s, lab, time_changes, with_load, with_rates
from ndtwin.cli import app
from ndtwin.commands.loading import load_models
from twin.checkpoint import Checkpoint, Provenance, RouteNetConfig, SafeRange, write_checkpoint
from twin.errors import UsageError
from twin.inference import load
from twin.intervals import constant_intervals
from twin.queueing import MG1K, MM1B, SIZE_SCV


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RouteNet that learnt nothing."""
    from twin.routenet import RouteNetModule

    config = RouteNetConfig()
    weights = {name: tensor.numpy() for name, tensor in RouteNetModule(config).state_dict().items()}
    provenance = Provenance(recipe="none", seed=0, samples=0, date="2026-01-01", versions={})
    path = tmp_path_factory.mktemp("checkpoint") / "routenet.npz"
    intervals = constant_intervals(1.0)
    write_checkpoint(path, Checkpoint(weights, config, SIZE_SCV, intervals, SafeRange({}), provenance))
    return path


def test_the_last_line_is_the_figures() -> None:
    """--json: seconds of every model asked for, the size of the network, and what else they depend on."""
    argv = ["bench", "inference", "--nodes", "9", "--model", "mg1k", "--model", "mm1b", "--json"]
    done = CliRunner().invoke(app, argv)
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures.keys() == {
        "mg1k_s", "mm1b_s", "nodes", "paths", "hops", "threads", "versions", "skipped"
    }  # fmt: skip
    assert (figures["nodes"], figures["paths"], figures["skipped"]) == (9, 72, {})
    assert figures["versions"] == {"mg1k": MG1K.version, "mm1b": MM1B.version}
    assert 0 < figures["mm1b_s"] < 1
    assert "mg1k, 9 nodes" in done.stderr


def test_people_get_a_table() -> None:
    """Without --json, one row a figure and no JSON."""
    done = CliRunner().invoke(app, ["bench", "inference", "--nodes", "5", "--model", "mm1b"])
    assert "mm1b_s" in done.stdout
    assert "versions: mm1b" in done.stdout
    assert "{" not in done.stdout


def test_a_larger_network_takes_longer() -> None:
    """The whole prediction is timed: 20 times the paths take more time."""
    small, large = (bench_inference({"mg1k": MG1K()}, nodes)["mg1k_s"] for nodes in (10, 45))
    assert large > small


def test_what_a_change_costs_and_how_true_it_is(checkpoint: Path) -> None:
    """Of one link's load and of all flows over a link: seconds, flows run again, and errors within 1e-4."""
    figures = time_changes(load(checkpoint), *lab(20))
    assert figures.keys() == {
        f"incremental_{name}"
        for what in ("", "through_")
        for name in (f"{what}s", f"{what}flows", f"{what}max_rel_error")
    }
    for what in ("", "through_"):
        assert 0 < figures[f"incremental_{what}s"] < 1
        assert 0 < figures[f"incremental_{what}flows"] <= 20 * 19
        assert figures[f"incremental_{what}max_rel_error"] < 1e-4


def test_the_changes_are_what_they_are_called() -> None:
    """One raises the load of one link by a tenth; the other those of many, by the flows of one link."""
    network, traffic = lab(20)
    before = MG1K().solve(network, traffic).link_load
    link = next(
        k
        for k, one in enumerate(network.links)
        if network.paths.of(network.path_index(one.source, one.target)).tolist() == [k]
    )
    step = MG1K().solve(network, with_load(network, traffic, link)).link_load / before
    assert step[link] == pytest.approx(1.1)
    assert np.count_nonzero(step != 1) == 1
    step = MG1K().solve(network, with_rates(network, traffic, link)).link_load / before
    assert step[link] == pytest.approx(1.2)
    assert np.count_nonzero(step > 1) > 1


@pytest.mark.live
def test_a_cold_start_is_a_whole_process(checkpoint: Path) -> None:
    """From outside, a process that loads RouteNet and predicts takes longer than Python does to start."""
    assert 0.3 < cold_start_s(checkpoint) < 120


def test_a_checkpoint_is_of_one_model(checkpoint: Path) -> None:
    """It replaces the shipped weights of its own model, is not taken for those of another, and says so."""
    models, skipped = load_models(["routenet", "mm1b"], checkpoint)
    assert models["routenet"].version.startswith("none-")
    assert not skipped
    with pytest.raises(UsageError, match="holds the model 'routenet': ask for it by --model routenet"):
        load_models(["rnn"], checkpoint)
