"""A trained model on disk: weights, configuration, feature specification, operating range and provenance.

The file is a ``torch.save`` of plain containers and tensors and is read with ``weights_only=True``, so a file
from a stranger can be wrong but cannot run code. What does not fit this version is refused with one line.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twin.errors import CheckpointError
from twin.features import Specification
from twin.network import Floats

FORMAT = 1
COVERAGE = 0.9


@dataclass(frozen=True)
class RouteNetConfig:
    """The shape of the network."""

    state: int = 24
    hidden: int = 32
    iterations: int = 4
    limit: float = 4.0  # a correction stays within exp(±limit)


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
class Intervals:
    """Split-conformal half-widths of ln(queueing + transmission), by the highest load on the path.

    Calibrated apart for networks said to be Poisson and for networks said to be bursty: errors differ.
    """

    load_edges: tuple[float, ...]  # n inner edges make n + 1 buckets
    half_width: tuple[float, ...]
    bursty_half_width: tuple[float, ...]
    coverage: float = COVERAGE

    def width(self, load: Floats, *, bursty: bool) -> Floats:
        """Half-width of every path, [R]."""
        widths = np.array(self.bursty_half_width if bursty else self.half_width)
        return widths[np.searchsorted(self.load_edges, load)]


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

    weights: dict[str, Tensor]
    config: RouteNetConfig
    size_scv: float  # what the prior was told
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
            sha.update(self.weights[name].contiguous().numpy().tobytes())
        return sha.hexdigest()[:8]


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write beside, then rename: a reader never sees half a file."""
    parts = {name: getattr(checkpoint, name) for name in _PARTS}
    content = {"format": FORMAT, "weights": dict(checkpoint.weights), "size_scv": checkpoint.size_scv}
    content |= {name: asdict(part) for name, part in parts.items()}
    beside = path.with_name(path.name + ".part")
    torch.save(content, beside)
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
    content = _read(path)
    if content.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has format {content.get('format')}, this version reads {FORMAT}: train anew"
        )
    try:
        parts = {name: kind(**content[name]) for name, kind in _PARTS.items()}
        checkpoint = Checkpoint(weights=content["weights"], size_scv=content["size_scv"], **parts)
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} lacks a part or has one too many ({error}): train anew") from error
    if checkpoint.specification != Specification():
        raise CheckpointError(f"{path} was trained on other features than this version builds: train anew")
    return checkpoint


def _read(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        raise CheckpointError(f"{path} is not a checkpoint: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a checkpoint: it holds a {type(content).__name__}")
    return content
