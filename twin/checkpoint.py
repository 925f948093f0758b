"""A trained model on disk: weights, configuration, feature specification, intervals, operating range,
provenance.

The file is a NumPy archive of plain arrays beside one JSON text, read without pickle, so a file from a
stranger can be wrong but cannot run code, and reading it needs no torch. What does not fit this version is
refused with one line."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import CheckpointError
from twin.features import FLOW_FEATURES, HOP_FEATURES, Specification
from twin.features_queues import QUEUE_FEATURES
from twin.intervals import Intervals

FORMAT = 2
OTHERS = 3  # outputs of a hop beside the wait's: ln deviation of the wait, slope and offset of ln blocking
LEAST_LN_SCALE = -7.0  # ln of the expected error of ln delay: 0.1 %
# What reading an archive raises that is none, or is damaged.
DAMAGED = (
    ValueError,
    KeyError,
    AttributeError,
    TypeError,
    EOFError,
    NotImplementedError,
    zlib.error,
    zipfile.BadZipFile,
)
Weights = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class RouteNetConfig:
    """The shape of the network, and which queueing model it corrects.

    An RNN over the path is a RouteNet of one iteration on the ``unqueued`` prior: nothing is told to queues,
    and no queueing model helps.
    """

    name: str = "routenet"  # of the model
    prior: str = "mg1k"  # key of twin.inference.PRIORS
    state: int = 16
    hidden: int = 24
    iterations: int = 2
    heads: int = 3  # of the ensemble on the wait
    limit: float = 4.0  # a correction stays within exp(±limit)
    ln_scale: float = -3.0  # ln of the error to expect before anything is learnt: 5 %
    most_ln_scale: float = 1.0  # ln of the largest error to expect: delays wrong by a factor of e^e


@dataclass(frozen=True)
class SafeRange:
    """Between which values of the operating point the model was trained and checked."""

    limits: dict[str, tuple[float, float]]

    def violations(self, point: dict[str, tuple[float, float]]) -> tuple[str, ...]:
        """Short sentences: ``load 1.4 above 1.2 seen``."""
        said = []
        for name, (low, high) in self.limits.items():
            smallest, largest = point[name]
            if smallest < low:
                said.append(f"{name} {smallest:.3g} below {low:.3g} seen")
            if largest > high:
                said.append(f"{name} {largest:.3g} above {high:.3g} seen")
        return tuple(said)


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from and what it was worth on networks it had not seen."""

    recipe: str
    seed: int
    samples: int
    date: str  # as given by whoever trained
    versions: dict[str, str]
    validation: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """Everything a prediction depends on."""

    weights: Weights
    config: RouteNetConfig
    size_scv: float  # what the prior is told where traffic does not say
    intervals: Intervals
    safe_range: SafeRange
    provenance: Provenance
    specification: Specification = field(default_factory=Specification)

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that change with any weight."""
        sha = hashlib.sha256()
        for name in sorted(self.weights):
            sha.update(name.encode())
            sha.update(np.ascontiguousarray(self.weights[name]).tobytes())
        return sha.hexdigest()[:8]


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write beside, then rename: a reader never sees half a file."""
    parts = {name: asdict(getattr(checkpoint, name)) for name in _PARTS}
    text = json.dumps({"format": FORMAT, "size_scv": checkpoint.size_scv, **parts})
    beside = path.with_name(path.name + ".part")
    with beside.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, checkpoint=np.array(text), **checkpoint.weights)
    os.replace(beside, path)


_PARTS: dict[str, Any] = {
    "config": RouteNetConfig,
    "intervals": Intervals,
    "safe_range": SafeRange,
    "provenance": Provenance,
    "specification": Specification,
}


def read_checkpoint(path: Path) -> Checkpoint:
    """CheckpointError when the file is missing, damaged, or made for other features."""
    content, weights = _read(path)
    if content.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has format {content.get('format')}, this version reads {FORMAT}: train anew"
        )
    try:
        parts = {name: kind(**_tuples(content[name])) for name, kind in _PARTS.items()}
        checkpoint = Checkpoint(weights=weights, size_scv=float(content["size_scv"]), **parts)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} lacks a part or has one too many ({error}): train anew") from error
    if checkpoint.specification != Specification():
        raise CheckpointError(f"{path} was trained on other features than this version builds: train anew")
    if unfit := misfits(checkpoint):
        raise CheckpointError(f"{path} does not hold the weights that its configuration asks for: {unfit}")
    return checkpoint


def misfits(checkpoint: Checkpoint) -> str:
    """The weights that are missing, too many, of another shape than the configuration says, or not finite."""
    expected = shapes(checkpoint.config)
    names = sorted(expected.keys() ^ checkpoint.weights.keys())
    for name, shape in expected.items():
        array = checkpoint.weights.get(name)
        ranges = name.endswith((".low", ".high"))  # infinite before they are fitted
        if array is not None and (
            array.shape != shape or array.dtype != np.float32 or not (ranges or np.isfinite(array).all())
        ):
            names.append(name)
    return ", ".join(names[:3])


def shapes(config: RouteNetConfig) -> dict[str, tuple[int, ...]]:
    """Name → shape of every array of :class:`twin.routenet.RouteNetModule`."""
    state, hidden, hop = config.state, config.hidden, len(HOP_FEATURES)
    tables = {"queue": len(QUEUE_FEATURES), "flow": len(FLOW_FEATURES), "hop": hop}
    layers = {
        "embed_queue.0": (hidden, tables["queue"]),
        "embed_queue.2": (state, hidden),
        "embed_flow.0": (hidden, tables["flow"]),
        "embed_flow.2": (state, hidden),
        "readout": (hidden, 2 * state + hop),
        "correct": (config.heads + OTHERS, hidden),
        "expect_error.0": (state, state),
        "expect_error.2": (1, state),
    }
    cells = {"flow_update": state + hop, "queue_update": 2 * state}
    found: dict[str, tuple[int, ...]] = {}
    for table, columns in tables.items():
        found |= {f"scale_{table}.{part}": (columns,) for part in ("low", "high", "mean", "deviation")}
    for layer, shape in layers.items():
        found |= {f"{layer}.weight": shape, f"{layer}.bias": shape[:1]}
    for cell, inputs in cells.items():
        found |= {f"{cell}.weight_ih": (3 * state, inputs), f"{cell}.weight_hh": (3 * state, state)}
        found |= {f"{cell}.bias_{side}": (3 * state,) for side in ("ih", "hh")}
    return found


def _read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        content = json.loads(str(arrays.pop("checkpoint")))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except DAMAGED as error:
        why = str(error).splitlines() or [type(error).__name__]
        raise CheckpointError(f"{path} is not a checkpoint: {why[0]}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a checkpoint: it holds a {type(content).__name__}")
    return content, arrays


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples they were."""
    if isinstance(value, dict):
        return {name: _tuples(item) for name, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
