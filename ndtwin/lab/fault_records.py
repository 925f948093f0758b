"""What the lab's control and its clients tell each other about faults."""

from __future__ import annotations

from typing import Literal

import msgspec

from twin.errors import UsageError

TargetKind = Literal["link", "node", "path"]


class UnknownFaultError(UsageError):
    """There is no active fault of that id."""


class FaultRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One fault that was injected."""

    id: str
    fault: str
    target: str
    magnitude: float | None
    unit: str
    started_at_ns: int
    stopped_at_ns: int | None = None


class FaultKind(msgspec.Struct, frozen=True, kw_only=True):
    """What `ndtwin lab fault list` tells about a fault."""

    fault: str
    about: str
    target: TargetKind
    magnitude: float | None  # when none is given; None: it has no magnitude
    unit: str
    low: float = 0.0
    high: float = 0.0
