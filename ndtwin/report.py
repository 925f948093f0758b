"""Was the loop whole? The figures that ``ndtwin up --headless --report`` writes, from what a store saw."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from ndtwin.api.frames import Frame
from ndtwin.api.history import NetworkHistory
from ndtwin.api.store import Store
from twin.network import Floats

LAST_WINDOWS = 6  # a minute of the default windows


def loop_report(
    store: Store, *, now_ns: int | None = None, last_windows: int = LAST_WINDOWS
) -> dict[str, Any]:
    """The report, over all networks; errors rest on the paths of the last windows. None where there is no
    figure.

    A path counts as measured (predicted) when it was so in any of the last windows of the present topology.
    ``ape_*`` is |predicted − measured| / measured in percent, the two made comparable.
    """
    now_ns = time.time_ns() if now_ns is None else now_ns
    histories = [store.network(name) for name in store.networks()]
    recent = [_recent(history, last_windows) for history in histories]
    errors = _joined(frame.percentage_error for frames in recent for frame in frames)
    latencies = _joined(np.array(list(history.latencies_s)) for history in histories)
    return {
        "windows_closed": sum(history.windows_seen for history in histories),
        "paths_total": sum(frames[-1].network.path_count for frames in recent if frames),
        "paths_measured": sum(_covered(frames, measured=True) for frames in recent),
        "paths_predicted": sum(_covered(frames, measured=False) for frames in recent),
        "ape_median": _quantile(errors, 0.5),
        "ape_p90": _quantile(errors, 0.9),
        "close_to_prediction_p99_s": _quantile(latencies, 0.99),
        "components": {component.name: component.state for component in store.components(now_ns)},
        "restarts": store.restarts(now_ns),
    }


def _recent(history: NetworkHistory, windows: int) -> list[Frame]:
    """The last windows whose network has the paths it has now."""
    frames = history.frames[-windows:]
    return [frame for frame in frames if frame.network.nodes == frames[-1].network.nodes]


def _covered(frames: list[Frame], *, measured: bool) -> int:
    if not frames:
        return 0
    seen = np.zeros(frames[-1].network.path_count, dtype=np.bool_)
    for frame in frames:
        if measured:
            seen |= frame.measured_s > 0
        elif frame.predicted is not None:
            seen |= frame.predicted.mean_s > 0
    return int(seen.sum())


def _joined(arrays: Iterable[Floats]) -> Floats:
    return np.concatenate([np.zeros(0), *arrays])


def _quantile(values: Floats, q: float) -> float | None:
    return round(float(np.quantile(values, q)), 4) if len(values) else None
