"""State in, prediction out: the processor that the live predictor and the replay share.

A version is predicted once per network: what is not newer than the newest predicted only keeps the view up to
date. So a rewound reader can feed old states without publishing anything twice.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from twin.graph import StateView
from twin.models import DelayModel
from twin.network import Network, Traffic
from twin.packing import pack_magnitudes
from twin.records import Prediction, Record, StateUpdate


class ForecastProcessor:
    """StateUpdate → Prediction, for any number of networks."""

    def __init__(self, model: DelayModel) -> None:
        self.model = model
        self.newest: dict[str, int] = {}  # network → newest version predicted
        self.skipped = 0  # deltas that came before their keyframe
        self._views: dict[str, StateView] = {}
        self._keyframes: dict[str, StateUpdate] = {}

    def on_record(self, record: Record) -> Iterable[Record]:
        """Predict the window of a state; DecodeError (or the model's own error) when it cannot be."""
        if not isinstance(record, StateUpdate):
            return []
        view = self._views.setdefault(record.network, StateView())
        if record.topology is None and record.topology_version != view.topology_version:
            self.skipped += 1  # its keyframe was not seen yet: nothing is wrong with it
            return []
        if record.version <= view.version:
            return []  # a duplicate after a restart of the stream
        view.apply(record)
        if record.keyframe:
            self._keyframes[record.network] = record
        if record.version <= self.newest.get(record.network, -1):
            return []
        prediction = predict(self.model, record, view.network, view.traffic)
        self.newest[record.network] = record.version
        return [prediction]

    def attempt(self, record: Record) -> tuple[list[Record], str]:
        """The predictions that follow from a record, or why the model has none: the next one may have."""
        try:
            return list(self.on_record(record)), ""
        except Exception as error:  # a model may fail in any way on one state
            return [], f"no prediction from {self.model.name}: {error!r}"

    def on_time(self, now_ns: int) -> Iterable[Record]:
        """Predictions follow from states, not from time."""
        return []

    def snapshot(self) -> bytes:
        """Newest versions and keyframes; the rest of a view comes with the next state."""
        return msgspec.json.encode((self.newest, self._keyframes), order="deterministic")

    def restore(self, blob: bytes) -> None:
        """Become what :meth:`snapshot` described."""
        self.newest, self._keyframes = msgspec.json.decode(
            blob, type=tuple[dict[str, int], dict[str, StateUpdate]]
        )
        self._views = {network: StateView() for network in self._keyframes}
        for network, keyframe in self._keyframes.items():
            self._views[network].apply(keyframe)


def predict(model: DelayModel, update: StateUpdate, network: Network, traffic: Traffic) -> Prediction:
    """The prediction record of one state, which describes this network and traffic."""
    said = model.predict(network, traffic)
    return Prediction(
        network=update.network,
        state_version=update.version,
        topology_version=update.topology_version,
        window_start_ns=update.window_start_ns,
        window_end_ns=update.window_end_ns,
        model=model.name,
        model_version=model.version,
        mean_s=pack_magnitudes(said.mean_s),
        log_width=pack_magnitudes(said.log_width),
        jitter_s=pack_magnitudes(said.jitter_s),
        loss=pack_magnitudes(said.loss),
        link_utilisation=pack_magnitudes(said.link_utilisation),
        out_of_range=said.out_of_range,
    )
