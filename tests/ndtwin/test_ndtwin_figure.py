"""The figures of the paper: slices, errors by size, costs by size, pictures, and the command."""

from __future__ import annotations

import json
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ndtwin.cli import app, main
from ndtwin.commands.loading import predictors
from ndtwin.figure import SLICES, Slice, choose, figure3, holds, samples_of
from ndtwin.figure_drawing import draw_costs, draw_errors
from twin.errors import UsageError
from twin.models import PathPrediction
from twin.queueing import MG1K, MM1B
from twin.recipes import RECIPES
from twin.samples import Sample, read_samples, write_samples

QUEUEING = predictors({"mm1b": MM1B(), "mg1k": MG1K()})


def _tiny(nodes: int, packets: float = 150) -> Slice:
    mixed = SLICES["figure3-25"].conditions
    return Slice(replace(mixed, nodes=(nodes, nodes), packets=packets), networks=2)


TINY = {"figure3-5": _tiny(5), "figure3-7": _tiny(7)}


def test_no_recipe_sees_the_networks_of_the_figure() -> None:
    """Sizes as in the paper, two networks or more of each, and no recipe names one of these slices."""
    assert [own.conditions.nodes for own in SLICES.values()] == [
        (nodes, nodes) for nodes in (25, 50, 75, 100, 150, 200, 250, 300)
    ]
    assert all(own.networks >= 2 for own in SLICES.values())
    named = {name for recipe in RECIPES.values() for name in (*recipe.parts, *recipe.calibration)}
    assert not named & SLICES.keys()


def test_slices_are_chosen_by_size() -> None:
    """In the order given, no more networks than asked for; an unknown size is refused, naming the others."""
    assert [*choose("75,25")] == ["figure3-75", "figure3-25"]
    assert choose("25", 3)["figure3-25"].networks == 3
    assert choose(None, 100) == SLICES
    with pytest.raises(UsageError, match="no networks of '26' nodes: choose from 25, 50,"):
        choose("25,26")


def test_the_figure_has_errors_and_noise_by_size(tmp_path: Path) -> None:
    """Every size has its models' errors in order, the noise of its labels and the networks they rest on."""
    report = figure3(QUEUEING, TINY, tmp_path)
    assert list(report["sizes"]) == ["5", "7"]
    for own in report["sizes"].values():
        assert own["networks"] == 2
        assert 0 < own["label_noise"] < 30
        for name in QUEUEING:
            assert 0 < own[name]["p15"] <= own[name]["median"] <= own[name]["p85"]
    assert report["holds"] == {}  # nothing to say without RouteNet


def test_samples_are_simulated_once(tmp_path: Path) -> None:
    """What the data folder holds is used again, and a lost file alone is made anew, the same."""
    first = list(samples_of(TINY, tmp_path))
    files = {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*.npz"))}
    lost = next(iter(files))
    lost.unlink()
    again = list(samples_of(TINY, tmp_path))
    assert len(files) == len(first) == 4
    assert all(path.stat().st_mtime_ns == time for path, time in files.items() if path != lost)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.mean_s, other.mean_s)


def test_label_noise_is_the_error_of_the_truth(tmp_path: Path) -> None:
    """Where labels are the truth times 1 ± 3 %, a model that says the truth errs by ``label_noise_mape``."""
    slices, rng = {"figure3-12": _tiny(12)}, np.random.default_rng(1)
    truth = {sample.name: sample.mean_s for sample in samples_of(slices, tmp_path)}
    for name, mean_s in truth.items():
        file = tmp_path / "figure3-12" / f"{name}.npz"
        blurred = mean_s * (1 + 0.03 * rng.normal(size=len(mean_s)))
        (sample,) = read_samples(file)
        write_samples(file, [replace(sample, mean_s=blurred, noise=np.full(len(mean_s), 0.03))])

    def know(sample: Sample) -> PathPrediction:
        return replace(MM1B().predict(sample.network, sample.traffic), mean_s=truth[sample.name])

    own = figure3({"oracle": know}, slices, tmp_path)["sizes"]["12"]
    assert own["label_noise"] == pytest.approx(3.0, rel=1e-4)
    assert own["label_noise_mape"] == pytest.approx(3 * 0.7979, rel=1e-3)
    assert own["oracle"]["mape"] == pytest.approx(own["label_noise_mape"], rel=0.15)


@pytest.mark.parametrize(
    ("routenet", "order", "four"),
    [((3.0, 3.5), True, True), ((3.0, 4.5), True, False), ((9.0, 3.0), False, True)],
)
def test_what_should_hold_is_checked_at_every_size(
    routenet: tuple[float, float], order: bool, four: bool
) -> None:
    """The order of the models at all sizes, and RouteNet's error at 300 nodes."""
    sizes = {
        size: {"routenet": {"mape": mape}, "mg1k": {"mape": 8.0}, "mm1b": {"mape": 20.0}}
        for size, mape in zip(("25", "300"), routenet, strict=True)
    }
    assert holds(sizes) == {"routenet<mg1k<mm1b at every size": order, "routenet<=4 at 300 nodes": four}


def test_costs_are_told_by_size() -> None:
    """`--figure cost --json`: seconds of every model at every size, and what they depend on."""
    argv = ["evaluate", "--figure", "cost", "--sizes", "25", "--model", "mg1k", "--model", "mm1b", "--json"]
    report = json.loads(CliRunner().invoke(app, argv).stdout.splitlines()[-1])
    own = report["sizes"]["25"]
    assert own.keys() == {"mm1b_s", "mg1k_s", "nodes", "paths", "hops"}
    assert (own["nodes"], own["paths"]) == (25, 600)
    assert 0 < own["mm1b_s"] < 1
    assert report["versions"].keys() == {"mm1b", "mg1k"}


def test_people_get_a_row_a_size() -> None:
    """Without --json: a table of seconds."""
    argv = ["evaluate", "--figure", "cost", "--sizes", "25", "--model", "mm1b"]
    said = CliRunner().invoke(app, argv).stdout
    assert "seconds" in said
    assert "mm1b" in said
    assert "{" not in said


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("--figure", "4"), "no figure '4': choose from 3, cost"),
        (("--figure", "3", "--sizes", "26"), "no networks of '26' nodes"),
        (("--figure", "3", "--dataset", "x"), "leave --dataset out"),
        (("--figure", "3", "--out", "x.txt"), "a picture's name ends in .png"),
    ],
)
def test_wrong_use_is_told_before_the_work(
    argv: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One clear line, exit code 2, and nothing simulated."""
    monkeypatch.setattr(sys, "argv", ["ndtwin", "evaluate", *argv])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_without_matplotlib_pictures_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--out says which extra to install."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # Python's own way to say that there is none
    monkeypatch.setattr(sys, "argv", ["ndtwin", "evaluate", "--figure", "3", "--out", "x.png"])
    with pytest.raises(SystemExit):
        main()
    assert "pip install 'ndtwin[figures]'" in capsys.readouterr().err


def test_pictures_are_drawn(tmp_path: Path) -> None:
    """Both figures become PNG files of 1,400 × 840 points, with whatever models there are."""
    errors = {"mape": 5.0, "p15": 1.0, "p85": 9.0}
    sizes = {size: {"mg1k": errors, "label_noise_mape": 1.0} for size in ("25", "50")}
    draw_errors(sizes, tmp_path / "3.png")
    draw_costs({size: {"mg1k_s": 0.01} for size in sizes}, tmp_path / "folder" / "cost.png")
    for picture in (tmp_path / "3.png", tmp_path / "folder" / "cost.png"):
        content = picture.read_bytes()
        assert content.startswith(b"\x89PNG")
        assert struct.unpack(">II", content[16:24]) == (1400, 840)
