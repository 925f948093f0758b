"""One window of one network as people see it: the measured state beside the twin's prediction of the same
version.

A frame is immutable: the consumer thread builds a new one whenever a state or a prediction arrives, and
readers on other threads keep whichever frame they took. Per path the *measured* delay is that of the first
method in :data:`PREFERENCE` that measured the path in this window; the *expected* delay is the prediction
corrected to what that method would see (:mod:`twin.compare`), so the two are comparable. The residual is r =
ln(measured / expected); its score is r divided by the log-width of the prediction's interval, so |score| > 1
means outside the interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from twin.compare import comparable_mean_s
from twin.graph import MeasuredDelays, StateView
from twin.graph_view import MeasuredQueues
from twin.network import Floats, Network, Traffic
from twin.packing import unpack_magnitudes
from twin.records import Prediction

# What measures the traffic itself comes first, then one-way probes, then round trips.
PREFERENCE = (
    "ipfix-on-path",
    "stamp",
    "rttmon",
    "juniper-rpm-one-way",
    "juniper-rpm",
    "stamp-round-trip",
    "rttmon-round-trip",
    "openconfig-probes",
    "disman-ping",
)
NO_METHOD = -1
MIN_LOG_WIDTH = 1e-3  # an interval narrower than 0.1 % is a model that gives none: keeps the score finite


@dataclass(frozen=True)
class Predicted:
    """A prediction record, unpacked."""

    model: str
    model_version: str
    coverage: float
    out_of_range: tuple[str, ...]
    mean_s: Floats = field(repr=False)  # [P] 0 = no route
    log_width: Floats = field(repr=False)  # [P]
    jitter_s: Floats = field(repr=False)  # [P]
    loss: Floats = field(repr=False)  # [P]
    link_utilisation: Floats = field(repr=False)  # [L], empty when the model gives none

    @classmethod
    def of(cls, record: Prediction) -> Predicted:
        """Unpack; DecodeError when an array is damaged."""
        return cls(
            model=record.model,
            model_version=record.model_version,
            coverage=record.coverage,
            out_of_range=record.out_of_range,
            mean_s=unpack_magnitudes(record.mean_s),
            log_width=unpack_magnitudes(record.log_width),
            jitter_s=unpack_magnitudes(record.jitter_s),
            loss=unpack_magnitudes(record.loss),
            link_utilisation=unpack_magnitudes(record.link_utilisation)
            if record.link_utilisation
            else np.zeros(0),
        )


@dataclass(frozen=True)
class Frame:
    """One window: state, and the prediction for it once that has come."""

    name: str  # of the network
    version: int
    start_ns: int
    end_ns: int
    network: Network
    traffic: Traffic
    link_load_bps: Floats  # [L]
    link_drops_pps: Floats  # [L]
    queues: MeasuredQueues
    delays: Mapping[str, MeasuredDelays]
    quality: tuple[str, ...]
    predicted: Predicted | None = None

    @classmethod
    def of(cls, name: str, view: StateView) -> Frame:
        """The view as it stands; its next update replaces its arrays and touches none of these."""
        return cls(
            name=name,
            version=view.version,
            start_ns=view.window_start_ns,
            end_ns=view.window_end_ns,
            network=view.network,
            traffic=view.traffic,
            link_load_bps=view.link_load_bps,
            link_drops_pps=view.link_drops_pps,
            queues=view.queues,
            delays=dict(view.delays),
            quality=tuple(view.quality),
        )

    @cached_property
    def utilisation(self) -> Floats:
        """[L] load measured on the wire over capacity."""
        return self.link_load_bps / self.network.capacity_bps

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """The methods that measured anything in this window, most telling first."""
        return tuple(m for m in PREFERENCE if m in self.delays and bool((self.delays[m].count > 0).any()))

    @cached_property
    def method_index(self) -> NDArray[np.int8]:
        """[P] index into :attr:`methods` of the one the path is judged by; NO_METHOD where not measured."""
        chosen = np.full(self.network.path_count, NO_METHOD, dtype=np.int8)
        for i in reversed(range(len(self.methods))):
            chosen[self.delays[self.methods[i]].count > 0] = i
        return chosen

    @cached_property
    def measured_s(self) -> Floats:
        """[P] by the method of :attr:`method_index`; 0 = not measured."""
        return self._by_method({m: self.delays[m].mean_s for m in self.methods})

    @cached_property
    def expected_by_method(self) -> dict[str, Floats]:
        """Method → [P] what that method would measure if the twin were right; empty without a prediction."""
        if self.predicted is None:
            return {}
        mean_s = self.predicted.mean_s
        return {
            m: np.where(
                mean_s > 0, comparable_mean_s(self.network, self.traffic, mean_s, self.delays[m]), 0.0
            )
            for m in self.methods
        }

    @cached_property
    def expected_s(self) -> Floats:
        """[P] the prediction as the path's method would see it; as it is where nothing measured the path."""
        if self.predicted is None:
            return np.zeros(self.network.path_count)
        return np.where(
            self.method_index == NO_METHOD, self.predicted.mean_s, self._by_method(self.expected_by_method)
        )

    @cached_property
    def comparable(self) -> NDArray[np.bool_]:
        """[P] measured and predicted both exist."""
        return (self.measured_s > 0) & (self.expected_s > 0)

    @cached_property
    def residual(self) -> Floats:
        """[P] ln(measured / expected); 0 where not comparable."""
        out = np.zeros(self.network.path_count)
        c = self.comparable
        out[c] = np.log(self.measured_s[c] / self.expected_s[c])
        return out

    @cached_property
    def score(self) -> Floats:
        """[P] residual in units of the interval's log-width."""
        if self.predicted is None:
            return np.zeros(self.network.path_count)
        return self.residual / np.maximum(self.predicted.log_width, MIN_LOG_WIDTH)

    @cached_property
    def percentage_error(self) -> Floats:
        """[comparable paths] |expected − measured| / measured, in percent."""
        return np.abs(np.expm1(-self.residual[self.comparable])) * 100

    @cached_property
    def link_index(self) -> dict[str, int]:
        """Link name → index."""
        return {name: i for i, name in enumerate(self.network.link_names)}

    def _by_method(self, planes: Mapping[str, Floats]) -> Floats:
        out = np.zeros(self.network.path_count)
        for i, method in enumerate(self.methods):
            mine = self.method_index == i
            out[mine] = planes[method][mine]
        return out
