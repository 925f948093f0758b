"""The file a model comes from: it comes back as it went, and what is not whole or not ours is refused."""

from __future__ import annotations

import io
import json
import os
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from routenet_examples import arrays, checkpoint_of, features_of, mixed

from twin.checkpoint import (
    FORMAT,
    Checkpoint,
    Provenance,
    RouteNetConfig,
    SafeRange,
    read_checkpoint,
    write_checkpoint,
)
from twin.errors import CheckpointError
from twin.features import Specification
from twin.inference import RouteNet, load
from twin.intervals import conformal


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    """One whose every part holds something that is not the default."""
    rng = np.random.default_rng(0)
    return replace(
        checkpoint_of(
            RouteNetConfig(name="other", state=8, hidden=16, heads=2, limit=1.5), seen=[features_of(mixed())]
        ),
        intervals=conformal(rng.integers(720, size=5_000) % 120, rng.exponential(size=5_000)),
        safe_range=SafeRange({"nodes": (3.0, 30.0), "load": (0.0, 1 / 3)}),
        provenance=Provenance("test", 7, 123, "2026-01-01", {"numpy": "2"}, {"mape": 0.031}),
    )


def test_a_checkpoint_comes_back_as_it_went(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Every weight to the bit and every other part as it was; nothing is left beside the file."""
    write_checkpoint(tmp_path / "m.npz", checkpoint)
    again = read_checkpoint(tmp_path / "m.npz")
    assert again.weights.keys() == checkpoint.weights.keys()
    for name, array in checkpoint.weights.items():
        assert again.weights[name].dtype == np.float32
        assert again.weights[name].tobytes() == array.tobytes()
    assert replace(again, weights={}) == replace(checkpoint, weights={})
    assert os.listdir(tmp_path) == ["m.npz"]


def test_a_model_predicts_the_same_from_its_file(tmp_path: Path) -> None:
    """Written and read again, it predicts the same bytes under the same name and version."""
    model = RouteNet(checkpoint_of(), threads=1)
    write_checkpoint(tmp_path / "m.npz", model.checkpoint)
    again = load(tmp_path / "m.npz", threads=1)
    assert (again.name, again.version) == (model.name, model.version)
    first, second = arrays(model.predict(*mixed())), arrays(again.predict(*mixed()))
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_the_version_changes_with_any_weight(checkpoint: Checkpoint) -> None:
    """One weight changed by one unit in its last place, or under another name, is another version."""
    digests = {checkpoint.digest}
    for name, array in checkpoint.weights.items():
        touched = array.copy()
        touched.flat[-1] = np.nextafter(touched.flat[-1], np.float32(0.5))
        digests.add(replace(checkpoint, weights={**checkpoint.weights, name: touched}).digest)
    assert len(digests) == 1 + len(checkpoint.weights)
    assert all(len(digest) == 8 for digest in digests)


def test_writing_replaces_a_file_at_once(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Who reads while a file is written again sees the old one or the new one, never a part."""
    path = tmp_path / "m.npz"
    write_checkpoint(path, checkpoint)
    with path.open("rb") as held:
        write_checkpoint(path, replace(checkpoint, size_scv=0.9))
        with zipfile.ZipFile(held) as old:
            assert old.testzip() is None
    assert read_checkpoint(path).size_scv == 0.9


# -------------------------------------------------------------------------------------- what is refused


def refused(path: Path, why: str) -> None:
    """The file is refused for this reason, in one line that names it."""
    with pytest.raises(CheckpointError, match=why) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def archive(path: Path, content: Any, **weights: Any) -> None:
    """A NumPy archive with a JSON text, as a checkpoint is."""
    np.savez(path, checkpoint=np.array(json.dumps(content)), **weights)


def text_of(checkpoint: Checkpoint, path: Path) -> dict[str, Any]:
    """The JSON text of a checkpoint."""
    write_checkpoint(path, checkpoint)
    with np.load(path) as stored:
        content: dict[str, Any] = json.loads(str(stored["checkpoint"]))
    return content


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    """Missing, a folder, empty, no archive, one array, an archive of something else: one line each."""
    path = tmp_path / "m.npz"
    refused(path, "cannot read")
    refused(tmp_path, "cannot read")
    for garbage in (
        b"",
        b"not a model",
        b"PK\x03\x04 not an archive",
        b"\x93NUMPY\x01\x00",
        b"\x80\x02]q\x00.",
    ):
        path.write_bytes(garbage)
        refused(path, "is not a checkpoint")
    with path.open("wb") as file:
        np.save(file, np.arange(3))
    refused(path, "is not a checkpoint")
    np.savez(path, something=np.arange(3))
    refused(path, "is not a checkpoint")
    np.savez(path, checkpoint=np.array("{half a tex"))
    refused(path, "is not a checkpoint")
    archive(path, [1, 2])
    refused(path, "holds a list")


def test_pickles_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """An archive that carries a Python object is refused before the object is made."""
    path, trap = tmp_path / "m.npz", Trap(tmp_path / "sprung")
    content = text_of(checkpoint, path)
    trapped = np.array([trap], dtype=object)
    np.savez(path, allow_pickle=True, checkpoint=np.array(json.dumps(content)), **{"correct.bias": trapped})
    refused(path, "is not a checkpoint")
    assert not (tmp_path / "sprung").exists()
    with np.load(path, allow_pickle=True) as stored:  # the trap is real
        stored["correct.bias"]
    assert (tmp_path / "sprung").exists()


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.open, (str(self.path), os.O_CREAT)


def test_other_formats_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A file of an older or newer format, or without one, says which it has."""
    path = tmp_path / "m.npz"
    content = text_of(checkpoint, path)
    for other in (1, FORMAT + 1, None):
        archive(path, {**content, "format": other}, **checkpoint.weights)
        refused(path, f"has format {other}, this version reads {FORMAT}")


def test_parts_that_lack_or_are_unknown_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Each part must be there, be of its kind, and hold what this version knows."""
    path = tmp_path / "m.npz"
    content = text_of(checkpoint, path)
    for part in ("config", "intervals", "safe_range", "provenance", "specification", "size_scv"):
        archive(path, {name: value for name, value in content.items() if name != part}, **checkpoint.weights)
        refused(path, "lacks a part or has one too many")
        archive(path, {**content, part: "nothing"}, **checkpoint.weights)
        refused(path, "lacks a part or has one too many")
    archive(path, {**content, "config": {**content["config"], "depth": 3}}, **checkpoint.weights)
    refused(path, "lacks a part or has one too many.*depth")


@pytest.mark.parametrize(
    "other",
    [Specification(version=1), Specification(queue=("load", "colour")), Specification(hop=("share",))],
    ids=["version", "queue", "hop"],
)
def test_other_features_are_refused(checkpoint: Checkpoint, tmp_path: Path, other: Specification) -> None:
    """A model that was trained on other features than this version builds is refused."""
    write_checkpoint(tmp_path / "m.npz", replace(checkpoint, specification=other))
    refused(tmp_path / "m.npz", "other features")


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(checkpoint: Checkpoint, tmp_path: Path, share: float) -> None:
    """Any beginning of a file is no model."""
    path = tmp_path / "m.npz"
    write_checkpoint(path, checkpoint)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    refused(path, "is not a checkpoint")


def test_a_damaged_checkpoint_is_refused_or_whole(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Whatever byte of a file is changed, it is refused in one line or read as it was written."""
    path = tmp_path / "m.npz"
    write_checkpoint(path, checkpoint)
    whole = path.read_bytes()
    rng = np.random.default_rng(2)
    near = np.concatenate([np.arange(64), len(whole) - 64 + np.arange(64)])
    for place in np.concatenate([near, rng.integers(len(whole), size=300)]).tolist():
        damaged = bytearray(whole)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            said = load(path).checkpoint
        except CheckpointError as error:
            assert "\n" not in str(error)  # noqa: PT017  # both outcomes are right
        else:
            assert said.digest == checkpoint.digest
            assert replace(said, weights={}) == replace(checkpoint, weights={})


def test_a_checkpoint_with_an_entry_lost_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """An archive that is whole but for one array of weights is no model, whichever it is."""
    path = tmp_path / "m.npz"
    write_checkpoint(path, checkpoint)
    with zipfile.ZipFile(path) as stored:
        entries = {name: stored.read(name) for name in stored.namelist()}
    for lost in entries:
        less = io.BytesIO()
        with zipfile.ZipFile(less, "w") as rest:
            for name, content in entries.items():
                if name != lost:
                    rest.writestr(name, content)
        path.write_bytes(less.getvalue())
        refused(path, str(path))


# ------------------------------------------------------------------------------------------- safe range


def test_violations_say_what_lies_outside_and_by_how_much() -> None:
    """Inside and on the limits nothing is said; outside, one sentence a side."""
    safe = SafeRange({"load": (0.1, 1.2), "nodes": (10.0, 20.0)})
    assert safe.violations({"load": (0.1, 1.2), "nodes": (10.0, 20.0)}) == ()
    assert safe.violations({"load": (0.01, 1.456), "nodes": (30.0, 30.0)}) == (
        "load 0.01 below 0.1 seen",
        "load 1.46 above 1.2 seen",
        "nodes 30 above 20 seen",
    )
