"""The newest windows of one network: states and predictions joined by version, in a bounded ring.

Invariants
----------
- Frames stand in order of their windows' ends; a window is there once. A state seen again (a rewind, a
  redelivery) changes nothing.
- A prediction may come before its state (two topics, no order between them): it waits in ``_early`` until the
  state comes or a newer window has long passed.
- Memory is bounded whatever the size of the network: windows × paths ≤ :data:`CELL_BUDGET` (about 100 bytes a
  cell).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from ndtwin.api.frames import Frame, Predicted
from twin.errors import DecodeError
from twin.graph import StateView
from twin.network import Floats
from twin.records import Prediction, StateUpdate

CELL_BUDGET = 1_000_000
MIN_WINDOWS = 12
EARLY_LIMIT = 8
LATENCIES = 1000


@dataclass(frozen=True)
class PathPoint:
    """One path in one window; 0 where there is no figure."""

    version: int
    end_ns: int
    measured_s: dict[str, float]  # method → mean
    expected_by_method_s: dict[str, float]  # method → what it should have measured
    expected_s: float  # for the method that the path is judged by
    low_s: float
    high_s: float


@dataclass(frozen=True)
class LinkPoint:
    """One link in one window."""

    version: int
    end_ns: int
    utilisation: float
    predicted_utilisation: float | None


class NetworkHistory:
    """Everything kept about one network."""

    def __init__(self, name: str, windows: int) -> None:
        self.name = name
        self.windows_seen = 0
        self.waiting_for = ""  # why the newest state could not be applied; empty when it could
        self.latencies_s: deque[float] = deque(maxlen=LATENCIES)  # state published → prediction published
        self._windows = windows
        self._view = StateView()
        self._frames: tuple[Frame, ...] = ()
        self._early: dict[int, tuple[Prediction, int | None]] = {}
        self._published_ms: dict[int, int] = {}

    @property
    def frames(self) -> tuple[Frame, ...]:
        """All kept frames, oldest first (an immutable snapshot)."""
        return self._frames

    @property
    def newest(self) -> Frame | None:
        """The newest window, predicted or not yet."""
        return self._frames[-1] if self._frames else None

    @property
    def shown(self) -> Frame | None:
        """The window to look at: the newest predicted one, unless predictions lag by more than one window."""
        recent = self._frames[-2:]
        predicted = [frame for frame in recent if frame.predicted is not None]
        return predicted[-1] if predicted else self.newest

    def apply_state(self, update: StateUpdate, timestamp_ms: int | None) -> bool:
        """Take a state; False when it is old, or its topology was not seen yet (a keyframe is awaited)."""
        newest = self.newest
        if newest is not None and update.window_end_ns <= newest.end_ns:
            return False
        try:
            self._view.apply(update)
        except DecodeError as error:
            self.waiting_for = str(error)
            return False
        self.waiting_for = ""
        self._append(timestamp_ms)
        return True

    def apply_prediction(self, prediction: Prediction, timestamp_ms: int | None) -> bool:
        """Join a prediction to its window; False when there is no such window (yet)."""
        for position in range(len(self._frames) - 1, -1, -1):
            frame = self._frames[position]
            if frame.version == prediction.state_version:
                return self._join(position, prediction, timestamp_ms)
        self._early[prediction.state_version] = (prediction, timestamp_ms)
        while len(self._early) > EARLY_LIMIT:
            del self._early[min(self._early)]
        return False

    def path_points(self, source: str, destination: str) -> list[PathPoint]:
        """The history of one path, oldest first; windows whose topology lacks the path are left out."""
        return [
            _path_point(f, f.network.path_index(source, destination))
            for f in self._frames
            if _has(f, source, destination)
        ]

    def link_points(self, link: str) -> list[LinkPoint]:
        """The history of one link's utilisation, oldest first."""
        return [_link_point(f, f.link_index[link]) for f in self._frames if link in f.link_index]

    def _append(self, timestamp_ms: int | None) -> None:
        frame = Frame.of(self.name, self._view)
        keep = max(MIN_WINDOWS, min(self._windows, CELL_BUDGET // max(1, frame.network.path_count)))
        self._frames = (*self._frames, frame)[-keep:]
        self.windows_seen += 1
        if timestamp_ms is not None:
            self._published_ms[frame.version] = timestamp_ms
        self._forget_old()
        early = self._early.pop(frame.version, None)
        if early is not None:
            self._join(len(self._frames) - 1, *early)

    def _join(self, position: int, prediction: Prediction, timestamp_ms: int | None) -> bool:
        frame = self._frames[position]
        if frame.predicted is not None:
            return False
        predicted = Predicted.of(prediction)
        if len(predicted.mean_s) != frame.network.path_count:
            raise DecodeError(
                f"prediction for version {frame.version} of {self.name} has {len(predicted.mean_s)} paths, "
                f"its state has {frame.network.path_count}: restart the predictor"
            )
        joined = replace(frame, predicted=predicted)
        self._frames = (*self._frames[:position], joined, *self._frames[position + 1 :])
        published_ms = self._published_ms.pop(frame.version, None)
        if published_ms is not None and timestamp_ms is not None:
            self.latencies_s.append(max(0.0, (timestamp_ms - published_ms) / 1000))
        return True

    def _forget_old(self) -> None:
        oldest = self._frames[0].version
        self._published_ms = {v: t for v, t in self._published_ms.items() if v >= oldest}
        self._early = {v: p for v, p in self._early.items() if v >= oldest}


def _has(frame: Frame, source: str, destination: str) -> bool:
    return source != destination and {source, destination} <= frame.network.node_index.keys()


def _path_point(frame: Frame, path: int) -> PathPoint:
    expected = float(frame.expected_s[path])
    width = float(frame.predicted.log_width[path]) if frame.predicted is not None else 0.0
    measured: dict[str, float] = {
        m: float(frame.delays[m].mean_s[path]) for m in frame.methods if frame.delays[m].count[path] > 0
    }
    return PathPoint(
        version=frame.version,
        end_ns=frame.end_ns,
        measured_s=measured,
        expected_by_method_s={
            m: float(e[path]) for m, e in frame.expected_by_method.items() if m in measured
        },
        expected_s=expected,
        low_s=expected * float(np.exp(-width)),
        high_s=expected * float(np.exp(width)),
    )


def _link_point(frame: Frame, link: int) -> LinkPoint:
    modelled: Floats = frame.predicted.link_utilisation if frame.predicted is not None else np.zeros(0)
    return LinkPoint(
        version=frame.version,
        end_ns=frame.end_ns,
        utilisation=float(frame.utilisation[link]),
        predicted_utilisation=float(modelled[link]) if link < len(modelled) else None,
    )
