"""The twin's service: every version predicted once, whatever dies, and never silently by another model."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
from ring_log import longer_than_told, ring_states
from topics_seen import messages_in, records_in, wait_for

from ndtwin.broker import EmbeddedBroker
from stream.admin import ensure_topics
from stream.codec import encode
from stream.consumer import Message, Reader
from stream.forecast import ForecastProcessor
from stream.predictor import REWIND, Predictor, load_model, newest_predicted, run_predictor
from stream.publisher import Publisher
from twin.calibration import CalibrationRules
from twin.errors import DecodeError
from twin.models import PathPrediction
from twin.network import Network, Traffic
from twin.packing import unpack_magnitudes
from twin.queueing import MG1K
from twin.records import DeadLetter, Heartbeat, Prediction, Record

LEFT, RIGHT = "ring", "a"  # of two partitions, one each


def forecast(records: Sequence[Record], processor: ForecastProcessor) -> list[Prediction]:
    return [p for record in records for p in processor.on_record(record) if isinstance(p, Prediction)]


def test_every_state_is_predicted_once_with_its_version_window_and_model() -> None:
    """Twelve states, twelve predictions that name their state; states fed twice add nothing."""
    states = ring_states(12)
    processor = ForecastProcessor(MG1K())
    predictions = forecast([*states, *states[3:]], processor)
    assert [p.state_version for p in predictions] == [s.version for s in states]
    assert [p.window_end_ns for p in predictions] == [s.window_end_ns for s in states]
    assert {(p.model, p.model_version, p.network) for p in predictions} == {("mg1k", MG1K().version, "ring")}
    assert all((unpack_magnitudes(p.mean_s) > 0).all() for p in predictions)


def test_deltas_before_the_first_keyframe_wait_and_are_no_error() -> None:
    """A start in the middle of the log skips deltas until a keyframe, then predicts everything."""
    states = ring_states(12)
    keyframes = [i for i, state in enumerate(states) if state.keyframe]
    first = next(i for i in keyframes if i > keyframes[0] + 1)
    processor = ForecastProcessor(MG1K())
    predictions = forecast(states[keyframes[0] + 1 :], processor)
    assert predictions[0].state_version == states[first].version
    assert processor.skipped == first - keyframes[0] - 1 > 0


def test_a_restored_processor_goes_on_as_if_nothing_had_happened() -> None:
    """Snapshot after any state, restore elsewhere, feed the rest: the same predictions, none twice."""
    states = ring_states(8)
    whole = forecast(states, ForecastProcessor(MG1K()))
    for cut in range(1, len(states)):
        first, second = ForecastProcessor(MG1K()), ForecastProcessor(MG1K())
        before = forecast(states[:cut], first)
        second.restore(first.snapshot())
        assert second.snapshot() == first.snapshot()
        assert before + forecast(states[cut - 1 :], second) == whole


def test_networks_do_not_disturb_each_other() -> None:
    """Two networks interleaved give what each gives alone."""
    left, right = ring_states(5, "left"), ring_states(5, "right")
    mixed: list[Record] = [state for pair in zip(left, right, strict=True) for state in pair]
    predictions = forecast(mixed, ForecastProcessor(MG1K()))
    for network, states in (("left", left), ("right", right)):
        alone = forecast(list(states), ForecastProcessor(MG1K()))
        assert [p for p in predictions if p.network == network] == alone


def test_a_damaged_state_raises_and_leaves_the_view_as_it_was() -> None:
    """A state with an array of the wrong length is refused; the next one is predicted."""
    states = ring_states(4)
    processor = ForecastProcessor(MG1K())
    forecast(states[:2], processor)
    damaged = msgspec.structs.replace(states[2], traffic_bps=b"garbage")
    with pytest.raises(DecodeError):
        processor.on_record(damaged)
    assert [p.state_version for p in forecast(states[2:], processor)] == [s.version for s in states[2:]]


def test_a_checkpoint_that_cannot_be_read_falls_back_and_says_so(tmp_path: Path) -> None:
    """No checkpoint, or garbage: M/G/1/K predicts, and the reason names the file."""
    garbage = tmp_path / "garbage.npz"
    garbage.write_bytes(b"not a checkpoint")
    for path in (garbage, tmp_path / "absent.npz"):
        model, problem = load_model("routenet", path)
        assert model.name == "mg1k"
        assert str(path) in problem
        assert "\n" not in problem
    assert load_model("mm1b")[1] == ""


# ------------------------------------------------------------------------------------------- the service


@contextmanager
def predicting(bootstrap: str, **options: object) -> Iterator[None]:
    """The service in a thread; it must end within ten seconds of being told to."""
    stop = threading.Event()
    arguments: dict[str, object] = {"partitions": 1, "model": "mg1k", "stop": stop, **options}
    thread = threading.Thread(target=run_predictor, args=(bootstrap,), kwargs=arguments)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.kafka
def test_the_service_predicts_what_it_missed_and_nothing_twice(embedded: EmbeddedBroker) -> None:
    """States before, during and between two lives of the service each get one prediction, soon after."""
    ensure_topics(embedded.bootstrap, 1)
    states = ring_states(12)

    def versions() -> list[int]:
        return [p.state_version for p in records_in(embedded.bootstrap, "ndt.predictions", Prediction)]

    with Publisher(embedded.bootstrap, 1) as publisher:
        publisher.publish_all(states[:4])
        publisher.flush()
        with predicting(embedded.bootstrap):
            wait_for(versions, lambda found: len(found) == 4)
            publisher.publish_all(states[4:7])
            wait_for(versions, lambda found: len(found) == 7)
        publisher.publish_all(states[7:9])
        publisher.flush()
        with predicting(embedded.bootstrap):
            wait_for(versions, lambda found: len(found) == 9)
            publisher.publish_all(states[9:])
            wait_for(versions, lambda found: len(found) == 12)
    assert versions() == [state.version for state in states]
    arrived = [m.timestamp_ms for m in messages_in(embedded.bootstrap, "ndt.predictions")]
    closed = [m.timestamp_ms for m in messages_in(embedded.bootstrap, "ndt.state")]
    late_s = [(there - here) / 1000 for there, here in zip(arrived, closed, strict=True)]
    assert max(late_s[4:7] + late_s[9:]) < 2.0
    beats = records_in(embedded.bootstrap, "ndt.health", Heartbeat)
    assert {b.component for b in beats} == {"twin"}
    assert [beats[0].state, beats[-1].state] == ["starting", "stopped"]
    measured = [b.metrics["close_to_prediction_s"] for b in beats if "close_to_prediction_s" in b.metrics]
    assert measured
    assert all(0 <= value < 30 for value in measured)


def at_least(count: int) -> Callable[[list[Message]], bool]:
    return lambda seen: len(seen) >= count


@pytest.mark.kafka
def test_the_service_goes_on_with_what_it_had_learnt(embedded: EmbeddedBroker) -> None:
    """Two lives of a calibrated service give the bytes of one that never died."""
    ensure_topics(embedded.bootstrap, 1)
    states, rules = ring_states(12, spoken=longer_than_told), CalibrationRules()
    for first, last in ((0, 6), (6, 12)):
        with Publisher(embedded.bootstrap, 1) as publisher:
            publisher.publish_all(states[first:last])
        with predicting(embedded.bootstrap, rules=rules):
            found = wait_for(lambda: messages_in(embedded.bootstrap, "ndt.predictions"), at_least(last))
    whole = forecast(states, ForecastProcessor(MG1K(), rules))
    assert whole[-1].windows_learnt > 5
    assert [message.payload for message in found] == [encode(prediction) for prediction in whole]
    beats = records_in(embedded.bootstrap, "ndt.health", Heartbeat)
    assert beats[-1].metrics["calibrations_refused"] == 0.0


@pytest.mark.kafka
def test_a_worker_goes_on_with_what_the_one_before_it_had_learnt(embedded: EmbeddedBroker) -> None:
    """Two workers share two networks; one leaves: the other predicts both on, nothing twice, to the bit."""
    ensure_topics(embedded.bootstrap, 2)
    networks = {name: ring_states(12, name, spoken=longer_than_told) for name in (LEFT, RIGHT)}

    def payloads() -> list[bytes]:
        return sorted(message.payload for message in messages_in(embedded.bootstrap, "ndt.predictions"))

    def publish(first: int, last: int) -> None:
        for states in networks.values():
            publisher.publish_all(states[first:last])
        publisher.flush()

    def work(until: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + 30
        while not until():
            assert time.monotonic() < deadline_s, [reader.owned for reader in readers]
            for predictor, reader in zip(predictors, readers, strict=True):
                predictor.step(reader)
            publisher.flush()

    def worker() -> Predictor:
        forecast = ForecastProcessor(MG1K(), CalibrationRules())
        return Predictor(forecast, publisher, lambda: newest_predicted(embedded.bootstrap))

    with Publisher(embedded.bootstrap, 2) as publisher:
        readers = [
            Reader(embedded.bootstrap, ["ndt.state"], group="workers", rewind=REWIND) for _ in range(2)
        ]
        predictors = [worker(), worker()]
        publish(0, 4)
        work(lambda: all(len(reader.owned) == 1 for reader in readers) and len(payloads()) == 8)
        publish(4, 8)
        work(lambda: len(payloads()) == 16)
        readers.pop(0).close()
        predictors.pop(0)
        publish(8, 12)
        work(lambda: len(payloads()) >= 24)
        readers.pop().close()
    whole = [
        prediction
        for states in networks.values()
        for prediction in forecast(states, ForecastProcessor(MG1K(), CalibrationRules()))
    ]
    assert payloads() == sorted(encode(prediction) for prediction in whole)


@pytest.mark.kafka
def test_a_model_that_cannot_be_loaded_is_seen_in_heartbeats_and_predictions(
    embedded: EmbeddedBroker, tmp_path: Path
) -> None:
    """The fallback is loud: degraded heartbeats with the reason, and its own name in the predictions."""
    ensure_topics(embedded.bootstrap, 1)
    with Publisher(embedded.bootstrap, 1) as publisher:
        publisher.publish_all(ring_states(2))
    with predicting(embedded.bootstrap, model="routenet", checkpoint=tmp_path / "absent.npz"):
        found = wait_for(
            lambda: records_in(embedded.bootstrap, "ndt.predictions", Prediction), lambda seen: len(seen) == 2
        )
    assert {prediction.model for prediction in found} == {"mg1k"}
    beats = records_in(embedded.bootstrap, "ndt.health", Heartbeat)
    degraded = [beat for beat in beats if beat.state == "degraded"]
    assert degraded
    assert all("absent.npz" in beat.detail and "mg1k" in beat.detail for beat in degraded)


class Fussy:
    """A delay model that fails on its second network, as a model with a hidden fault does."""

    name = "fussy"
    version = "1"
    calls = 0

    def predict(self, network: Network, traffic: Traffic) -> PathPrediction:
        """M/G/1/K, but for one call."""
        self.calls += 1
        if self.calls == 2:
            raise FloatingPointError("divide by zero in message passing")
        return MG1K().predict(network, traffic)


@pytest.mark.kafka
def test_what_breaks_the_model_becomes_a_dead_letter_and_the_next_is_predicted(kafka: str) -> None:
    """A failing model and undecodable bytes: two dead letters that say why; all other states done."""
    states = ring_states(4)
    with Publisher(kafka, 1) as publisher:
        predictor = Predictor(ForecastProcessor(Fussy()), publisher)
        payloads = [encode(states[0]), b"\x00garbage", *(encode(state) for state in states[1:])]
        for offset, payload in enumerate(payloads):
            now_ms = time.time_ns() // 1_000_000
            predictor.take(Message("ndt.state", 0, offset, now_ms, b"ring", payload))
        publisher.flush()
        letters = records_in(kafka, "ndt.deadletter", DeadLetter)
    assert [(letter.source, letter.offset, letter.payload) for letter in letters] == [
        ("ndt.state", 1, payloads[1]),
        ("ndt.state", 2, payloads[2]),
    ]
    assert "divide by zero" in letters[1].reason
    assert (predictor.predicted, predictor.failed) == (3, 2)
    assert np.isfinite(predictor.metrics()["close_to_prediction_p99_s"])
