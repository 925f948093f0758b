"""State in, prediction out: the processor that the live predictor and the replay share.

A version is predicted once per network: what is not newer than the newest predicted only keeps the view up to
date. So a rewound reader can feed old states without publishing anything twice.

Given rules of calibration, the model's figures are corrected by what the network's own measurements taught
(:mod:`stream.calibration`). Without them a prediction is what the model says.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from stream.calibration import Calibrations, CalibrationsSnapshot, Known
from twin.calibration import CalibrationRules
from twin.equal_routes import predict_paths
from twin.graph import StateView
from twin.models import DelayModel, PathPrediction
from twin.network import Network, Traffic
from twin.packing import pack_magnitudes
from twin.records import Prediction, Record, StateUpdate


class _Snapshot(msgspec.Struct, array_like=True):
    newest: dict[str, int]
    keyframes: dict[str, StateUpdate]
    calibrations: CalibrationsSnapshot | None = None


class ForecastProcessor:
    """StateUpdate → Prediction, for any number of networks; calibrated where there are rules for it."""

    def __init__(self, model: DelayModel, rules: CalibrationRules | None = None) -> None:
        self.model = model
        self.calibrations = Calibrations(rules) if rules is not None else None
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
            if self.calibrations is not None:
                self.calibrations.passed(record.network, view)
            return []
        prediction = self._predict(record, view)
        self.newest[record.network] = record.version
        return [prediction]

    def _predict(self, update: StateUpdate, view: StateView) -> Prediction:
        if self.calibrations is None or not view.network.links:  # nothing to correct, nothing to learn
            return predict(self.model, update, view.network, view.traffic)
        said = predict_paths(self.model, view.network, view.traffic)
        window = self.calibrations.predict(update.network, view, said)
        return msgspec.structs.replace(
            record_of(self.model, update, window.prediction),
            calibration=self.calibrations.known(update.network),
            windows_learnt=window.learnt,
            corrected=window.used,
        )

    def resume(self, prediction: Prediction) -> None:
        """Go on after a prediction that another published: nothing up to it is predicted again."""
        if prediction.state_version > self.newest.get(prediction.network, -1):
            self.newest[prediction.network] = prediction.state_version
            self.know(prediction)

    def know(self, prediction: Prediction) -> None:
        """Once the window of a prediction is over, what it says of the calibration holds.

        What another model was corrected by is of no use.
        """
        same = (prediction.model, prediction.model_version) == (self.model.name, self.model.version)
        if self.calibrations is not None and prediction.calibration and same:
            known = Known(prediction.state_version, prediction.calibration)
            self.calibrations.resume(prediction.network, known)

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
        """Newest versions, keyframes and calibrations; the rest of a view comes with the next state."""
        calibrations = self.calibrations.snapshot() if self.calibrations is not None else None
        state = _Snapshot(self.newest, self._keyframes, calibrations)
        return msgspec.json.encode(state, order="deterministic")

    def restore(self, blob: bytes) -> None:
        """Become what :meth:`snapshot` described."""
        state = msgspec.json.decode(blob, type=_Snapshot)
        self.newest, self._keyframes = state.newest, state.keyframes
        self._views = {network: StateView() for network in self._keyframes}
        for network, keyframe in self._keyframes.items():
            self._views[network].apply(keyframe)
        if self.calibrations is not None and state.calibrations is not None:
            networks = {name: view.network for name, view in self._views.items()}
            self.calibrations.restore(state.calibrations, networks)


def predict(model: DelayModel, update: StateUpdate, network: Network, traffic: Traffic) -> Prediction:
    """The prediction record of one state, which describes this network and traffic, by the model alone."""
    return record_of(model, update, predict_paths(model, network, traffic))


def record_of(model: DelayModel, update: StateUpdate, said: PathPrediction) -> Prediction:
    """What was predicted of a state, as a record."""
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
