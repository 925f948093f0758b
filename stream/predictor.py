"""The twin as a service: ndt.state in, a prediction of every path out, in a process of its own.

Faust stays out of here on purpose: inference holds the processor for milliseconds to seconds, and an agent
that does so starves its event loop. One confluent-kafka reader, one model, one thread.

Life
----
1. The model is loaded before anything is read. If its checkpoint cannot be used the queueing model M/G/1/K
   predicts instead, and says so in every prediction (``model``) and every heartbeat (``degraded``).
2. The reader begins :data:`REWIND` states before the end: enough to hold a keyframe of every network, and to
   predict what was missed while the service was away, but nothing older: a prediction is about now.
3. Whenever partitions are given to this worker, at its start or when another has gone, the newest predictions
   tell which versions are done, and what the calibration knew after them.
4. A state that breaks the model becomes a dead letter; the next one is predicted as usual.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Event

import numpy as np

from stream import client
from stream.codec import encode
from stream.consumer import Message, Place, Reader, dead_letter, decode_message
from stream.forecast import ForecastProcessor
from stream.health import Heart
from stream.newest import newest_predictions
from stream.publisher import Publisher
from stream.topics import key_of
from twin.calibration import Calibration, CalibrationRules, Reading
from twin.errors import CheckpointError
from twin.graph_view import MeasuredDelays
from twin.models import DelayModel
from twin.network import Link, Network, Traffic
from twin.queueing import MG1K, MM1B
from twin.records import DeadLetter, Prediction, Record

REWIND = 60
_LATENCIES_KEPT = 500
_LOG = client.logger("twin")


def load_model(name: str, checkpoint: Path | None = None) -> tuple[DelayModel, str]:
    """The model to use, and why it is not the one asked for (empty when it is)."""
    try:
        return MODELS[name](checkpoint), ""
    except CheckpointError as error:
        return MG1K(), f"{name} cannot be loaded, mg1k predicts instead: {error}"


def _load_trained(name: str, checkpoint: Path | None) -> DelayModel:
    from twin.inference import load

    return load(checkpoint, name=name)


MODELS: dict[str, Callable[[Path | None], DelayModel]] = {
    "routenet": lambda checkpoint: _load_trained("routenet", checkpoint),
    "rnn": lambda checkpoint: _load_trained("rnn", checkpoint),
    "mg1k": lambda _: MG1K(),
    "mm1b": lambda _: MM1B(),
}


def run_predictor(
    bootstrap: str,
    *,
    partitions: int,
    model: str = "routenet",
    checkpoint: Path | None = None,
    rules: CalibrationRules | None = None,
    group: str = "ndtwin-twin",
    stop: Event,
) -> Predictor:
    """Predict until ``stop`` is set; give the predictor, whose figures tell what it did.

    With ``rules``, the network's measurements calibrate the model.
    """
    loaded, problem = load_model(model, checkpoint)
    if problem:
        _LOG.error("DEGRADED", reason=problem)
    warm_up(loaded, rules)
    with Publisher(bootstrap, partitions, client_id="twin") as publisher:
        heart = Heart(publisher, "twin")
        heart.beat("starting", problem)
        forecast = ForecastProcessor(loaded, rules)
        predictor = Predictor(forecast, publisher, lambda: newest_predicted(bootstrap))
        with Reader(bootstrap, ["ndt.state"], group=group, rewind=REWIND) as reader:
            while not stop.is_set():
                predictor.step(reader)
                heart.beat(
                    "degraded" if problem else "running", problem or loaded.version, predictor.metrics()
                )
        heart.beat("stopped", metrics=predictor.metrics())
    return predictor


def warm_up(model: DelayModel, rules: CalibrationRules | None = None) -> None:
    """Predict a two-node network, so that compilation is over before the first state comes."""
    links = (Link("A", "B", 1e9), Link("B", "A", 1e9))
    next_link = np.array([[-1, 0], [1, -1]], dtype=np.int16)
    network = Network(nodes=("A", "B"), links=links, next_link=next_link)
    traffic = Traffic(bps=np.array([1e8, 1e8]), pps=np.array([1e4, 1e4]))
    said = model.predict(network, traffic)
    if rules is not None:
        calibration = Calibration(network, rules)
        measured = MeasuredDelays("one-way", said.mean_s, np.full(2, 1e4))
        calibration.learn(calibration.correct(network, traffic, said), [Reading(measured)])


def newest_predicted(bootstrap: str) -> list[Prediction]:
    """The newest prediction of every network that is among the newest in the topic."""
    with Reader(bootstrap, ["ndt.predictions"], rewind=REWIND) as reader:
        return newest_predictions(reader.iterate_to_end())


class Predictor:
    """The loop around the processor: messages in, predictions and dead letters out, figures kept.

    ``published`` gives the newest predictions in the topic, of whichever worker.
    """

    def __init__(
        self,
        forecast: ForecastProcessor,
        publisher: Publisher,
        published: Callable[[], Iterable[Prediction]] = tuple,
    ) -> None:
        self.forecast = forecast
        self.predicted = 0
        self.failed = 0
        self.latencies_s: deque[float] = deque(maxlen=_LATENCIES_KEPT)
        self._publisher = publisher
        self._published = published
        self._owned: frozenset[Place] = frozenset()

    def step(self, reader: Reader) -> None:
        """One poll: predict what came, then commit, for those who watch the lag (a start rewinds anyway)."""
        done: dict[Place, int] = {}
        messages = reader.poll()
        self._take_over(reader.owned)
        for message in messages:
            self.take(message)
            done[message.place] = message.offset + 1
        if done:
            reader.commit(done)

    def _take_over(self, owned: frozenset[Place]) -> None:
        """Go on from what others predicted in partitions that were not ours."""
        if owned - self._owned:
            for prediction in self._published():
                self.forecast.resume(prediction)
        self._owned = owned

    def take(self, message: Message) -> None:
        """Predict the state in one message; whatever goes wrong with it stays with it."""
        record = decode_message(message)
        if isinstance(record, DeadLetter):
            self._give_up(record)
            return
        predictions, problem = self.forecast.attempt(record)
        if problem:
            self._give_up(dead_letter(message, problem))
        for prediction in predictions:
            self._publish(prediction, message)

    def metrics(self) -> dict[str, float]:
        """What the heartbeat tells."""
        figures = {"predictions": float(self.predicted), "failed": float(self.failed)}
        figures["skipped_deltas"] = float(self.forecast.skipped)
        if self.forecast.calibrations is not None:
            figures["calibrations_refused"] = float(self.forecast.calibrations.refused)
        if self.latencies_s:
            figures["close_to_prediction_s"] = self.latencies_s[-1]
            figures["close_to_prediction_p99_s"] = float(np.percentile(list(self.latencies_s), 99))
        return figures

    def _publish(self, prediction: Record, message: Message) -> None:
        """Publish with a timestamp of our own, so that the latency told is the latency in the log."""
        now_ms = time.time_ns() // 1_000_000
        self._publisher.send(
            "ndt.predictions",
            encode(prediction),
            key=key_of(prediction),
            partition=message.partition,
            timestamp_ms=now_ms,
        )
        self.predicted += 1
        self.latencies_s.append((now_ms - message.timestamp_ms) / 1000)

    def _give_up(self, letter: DeadLetter) -> None:
        self.failed += 1
        _LOG.warning(
            "state set aside", reason=letter.reason, partition=letter.partition, offset=letter.offset
        )
        self._publisher.publish(letter)
