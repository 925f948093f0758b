"""Records → line protocol of InfluxDB: which measurements, tags and fields there are, and what they mean.

==============  ==================================  ==================================================
measurement     tags                                fields
==============  ==================================  ==================================================
``path_delay``  network, path (``A->B``), method    measured_s; predicted_s, low_s, high_s: what the
                                                    twin expects this method to measure; jitter_s, loss
``link_load``   network, link (``A->B``)            load_bps, capacity_bps, utilisation, drops_pps;
                                                    predicted_utilisation
``queue``       network, link, class (its name)     sent_bps, drops_pps, depth_octets: of class queues,
                                                    where devices tell of them
``probe``       network, path (as told), method,    what a device's or a collector's own probe
                direction, class (DSCP)             measured: mean_s … error_s, sent, lost; nothing
                                                    is predicted of classes other than 0
``alert``       network, fingerprint, kind          state, firing (1 or 0), severity, summary,
                                                    suspect, probability
==============  ==================================  ==================================================

The time of a point is the end of its window (of an alert: its change; of a probe: the end of what it
measured, which is told only after that). Measured and predicted fields of a
window come in two writes and meet in one point. A path that no method measured has ``method=none``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin.compare import comparable_mean_s
from twin.errors import DecodeError
from twin.graph import MeasuredDelays, StateView
from twin.network import Floats, Network, Traffic
from twin.packing import unpack_magnitudes
from twin.records import Alert, DelayReport, Prediction, Record, StateUpdate

# Field names by measurement: what a dashboard may ask for.
FIELDS = {
    "path_delay": ("measured_s", "predicted_s", "low_s", "high_s", "jitter_s", "loss"),
    "link_load": ("load_bps", "capacity_bps", "utilisation", "drops_pps", "predicted_utilisation"),
    "queue": ("sent_bps", "drops_pps", "depth_octets"),
    "probe": (
        "count",
        "mean_s",
        "min_s",
        "p50_s",
        "p95_s",
        "max_s",
        "jitter_s",
        "ipdv_s",
        "error_s",
        "sent",
        "lost",
        "lost_forward",
        "lost_backward",
    ),
    "alert": ("state", "firing", "severity", "summary", "suspect", "probability"),
}
TAGS = {
    "path_delay": ("network", "path", "method"),
    "link_load": ("network", "link"),
    "queue": ("network", "link", "class"),
    "probe": ("network", "path", "method", "direction", "class"),
    "alert": ("network", "fingerprint", "kind"),
}
UNMEASURED = "none"
_NO_PROBES = frozenset({"ipfix-on-path"})  # the traffic itself: any number of prefixes, and in path_delay
_WINDOWS_KEPT = 8  # predictions follow their states by less than one window
_WAITING = 200  # predictions whose state has not been read yet
_Fields = dict[str, float | str]


def line(measurement: str, tags: tuple[str, ...], fields: _Fields, at_ns: int) -> str:
    """One point in line protocol; ``tags`` in the order of :data:`TAGS`."""
    named = zip(TAGS[measurement], tags, strict=True)
    head = ",".join([measurement, *(f"{name}={_escape(value)}" for name, value in named)])
    body = ",".join(f"{n}={_quote(v) if isinstance(v, str) else repr(float(v))}" for n, v in fields.items())
    return f"{head} {body} {at_ns}"


def _escape(text: str) -> str:
    text = text.replace("\n", " ").rstrip("\\")  # a backslash at the end would escape what follows the tag
    for character in ", =":
        text = text.replace(character, "\\" + character)
    return text or UNMEASURED


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'


@dataclass(frozen=True)
class _Window:
    """What a prediction needs of the state it is about."""

    network: Network
    traffic: Traffic
    delays: dict[str, MeasuredDelays]


class Lines:
    """Records in, lines of line protocol out. Remembers the newest states of every network."""

    def __init__(self) -> None:
        self.unusable = 0  # predictions whose state never came, deltas before a keyframe, damage
        self._views: dict[str, StateView] = {}
        self._windows: dict[tuple[str, int], _Window] = {}
        self._waiting: dict[tuple[str, int], Prediction] = {}  # read before their state: topics have no order
        self._takes: dict[type[Record], Callable[..., Iterator[str]]] = {
            StateUpdate: self._state,
            Prediction: self._prediction,
            DelayReport: _probes,
            Alert: _alert,
        }

    def of(self, record: Record) -> list[str]:
        """The lines of a record; none (and one more ``unusable``) when it cannot be used."""
        take = self._takes.get(type(record))
        try:
            return list(take(record)) if take else []
        except DecodeError:
            self.unusable += 1
            return []

    def _state(self, update: StateUpdate) -> Iterator[str]:
        view = self._views.setdefault(update.network, StateView())
        view.apply(update)
        self._remember(update.network, view)
        yield from _measured_delays(view, update)
        yield from _measured_loads(view, update)
        yield from _measured_queues(view, update)
        prediction = self._waiting.pop((update.network, update.version), None)
        if prediction is not None:
            yield from self._prediction(prediction)

    def _remember(self, network: str, view: StateView) -> None:
        delays = {str(method): measured for method, measured in view.delays.items()}
        self._windows[network, view.version] = _Window(view.network, view.traffic, delays)
        for key in sorted(key for key in self._windows if key[0] == network)[:-_WINDOWS_KEPT]:
            del self._windows[key]

    def _prediction(self, prediction: Prediction) -> Iterator[str]:
        key = (prediction.network, prediction.state_version)
        window = self._windows.get(key)
        if window is None:
            self._wait(key, prediction)
            return
        yield from _predicted_delays(window, prediction)
        yield from _predicted_loads(window, prediction)

    def _wait(self, key: tuple[str, int], prediction: Prediction) -> None:
        self._waiting[key] = prediction
        while len(self._waiting) > _WAITING:
            del self._waiting[next(iter(self._waiting))]
            self.unusable += 1


def _measured_delays(view: StateView, update: StateUpdate) -> Iterator[str]:
    for method, measured in view.delays.items():
        for path in np.flatnonzero(measured.count > 0):
            tags = (update.network, view.network.path_name(int(path)), method)
            yield line("path_delay", tags, {"measured_s": measured.mean_s[path]}, update.window_end_ns)


def _measured_loads(view: StateView, update: StateUpdate) -> Iterator[str]:
    for index, name in enumerate(view.network.link_names):
        load_bps, capacity_bps = view.link_load_bps[index], view.network.capacity_bps[index]
        fields: _Fields = {
            "load_bps": load_bps,
            "capacity_bps": capacity_bps,
            "utilisation": load_bps / capacity_bps,
            "drops_pps": view.link_drops_pps[index],
        }
        yield line("link_load", (update.network, name), fields, update.window_end_ns)


def _measured_queues(view: StateView, update: StateUpdate) -> Iterator[str]:
    for index in np.unique(view.queues.link):
        for name, *figures in view.queues.of(int(index)):
            tags = (update.network, view.network.link_names[index], name)
            yield line("queue", tags, dict(zip(FIELDS["queue"], figures, strict=True)), update.window_end_ns)


def _predicted_delays(window: _Window, prediction: Prediction) -> Iterator[str]:
    mean_s, width, jitter_s, loss = (
        _sized(blob, window.network.path_count)
        for blob in (prediction.mean_s, prediction.log_width, prediction.jitter_s, prediction.loss)
    )
    for method, expected_s, where in _expected(window, mean_s):
        for path in np.flatnonzero(where):
            spread = np.exp(width[path])
            fields: _Fields = {
                "predicted_s": expected_s[path],
                "low_s": expected_s[path] / spread,
                "high_s": expected_s[path] * spread,
                "jitter_s": jitter_s[path],
                "loss": loss[path],
            }
            tags = (prediction.network, window.network.path_name(int(path)), method)
            yield line("path_delay", tags, fields, prediction.window_end_ns)


def _expected(window: _Window, mean_s: Floats) -> Iterator[tuple[str, Floats, NDArray[np.bool_]]]:
    """(method, what it should measure [P], where it did [P]); what no method measured comes as ``none``."""
    left = mean_s > 0
    for method, delays in window.delays.items():
        where = (delays.count > 0) & (mean_s > 0)
        left &= ~where
        yield method, comparable_mean_s(window.network, window.traffic, mean_s, delays), where
    yield UNMEASURED, mean_s, left


def _predicted_loads(window: _Window, prediction: Prediction) -> Iterator[str]:
    utilisation = _sized(prediction.link_utilisation, len(window.network.links))
    for name, value in zip(window.network.link_names, utilisation, strict=True):
        tags = (prediction.network, name)
        yield line("link_load", tags, {"predicted_utilisation": value}, prediction.window_end_ns)


def _sized(blob: bytes, size: int) -> Floats:
    values = unpack_magnitudes(blob)
    if len(values) != size:
        raise DecodeError(f"prediction is damaged: an array has {len(values)} values where {size} belong")
    return values


def _probes(report: DelayReport) -> Iterator[str]:
    if report.method in _NO_PROBES:
        return
    for delay in report.delays:
        path = f"{report.device}->{delay.destination}"
        tags = (report.network, path, report.method, report.direction, str(delay.traffic_class))
        told = {name: getattr(delay, name) for name in FIELDS["probe"]}
        if not delay.count:  # nothing came back: there is no delay to tell
            del told["mean_s"]
        fields: _Fields = {n: v for n, v in told.items() if v is not None and math.isfinite(v)}
        yield line("probe", tags, fields, delay.end_ns)


def _alert(alert: Alert) -> Iterator[str]:
    suspect = alert.suspects[0] if alert.suspects else None
    fields: _Fields = {
        "state": alert.state,
        "firing": float(alert.state in ("firing", "acknowledged")),
        "severity": alert.severity,
        "summary": alert.summary,
        "suspect": suspect.target if suspect else "",
        "probability": suspect.probability if suspect else 0.0,
    }
    yield line("alert", (alert.network, alert.fingerprint, alert.kind), fields, alert.updated_at_ns)
