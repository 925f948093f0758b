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
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import CheckpointError
from twin.features import Specification
from twin.intervals import Intervals

FORMAT = 2
LEAST_LN_SCALE, MOST_LN_SCALE = -7.0, 1.0  # ln of the expected error of ln delay: 0.1 % to a factor of e
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
    iterations: int = 3
    heads: int = 3  # of the ensemble on the wait
    limit: float = 4.0  # a correction stays within exp(±limit)
    ln_scale: float = -3.0  # ln of the error to expect before anything is learnt: 5 %


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
    return checkpoint


def _read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        content = json.loads(str(arrays.pop("checkpoint")))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, AttributeError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} is not a checkpoint: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a checkpoint: it holds a {type(content).__name__}")
    return content, arrays


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples they were."""
    if isinstance(value, dict):
        return {name: _tuples(item) for name, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
