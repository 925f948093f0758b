"""A replay gives what the live services gave, byte for byte, and says exactly where it does not."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from ring_log import longer_than_told
from strategies import T0, Ring, S, event_time_ns

from anomaly.processor import DivergenceProcessor
from stream.archive import ArchiveWriter
from stream.codec import decode, encode
from stream.consumer import Message
from stream.forecast import ForecastProcessor
from stream.newest import newest_predictions
from stream.pipeline import NetworkPipeline, PipelineSettings
from stream.replay import ReplayReport, replay
from stream.runner import PartitionRunner
from stream.topics import BY_RECORD, INPUT_TOPICS, key_of
from twin.calibration import CalibrationRules
from twin.errors import UsageError
from twin.models import DelayModel
from twin.queueing import MG1K, MM1B
from twin.records import Alert, DelayReport, Prediction, Record, StateUpdate

SECONDS = 400
FAULT_FROM_S, FAULT_TO_S = 200, 300
RULES = CalibrationRules()
EVER = (0, T0 + 10**6 * S)


def with_fault(record: Record) -> Record:
    """20 ms more on every path out of R000 while the fault lasts."""
    if not isinstance(record, DelayReport) or record.device != "R000":
        return record
    if not FAULT_FROM_S <= (record.observed_at_ns - T0) / S < FAULT_TO_S:
        return record
    delays = tuple(msgspec.structs.replace(one, mean_s=one.mean_s + 0.02) for one in record.delays)
    return msgspec.structs.replace(record, delays=delays)


@dataclass
class Log:
    """A partition of a broker: messages with offsets per topic."""

    messages: list[Message] = field(default_factory=list)
    ends: dict[str, int] = field(default_factory=dict)

    def of(self, topic: str) -> list[Message]:
        return [message for message in self.messages if message.topic == topic]

    def append(self, record: Record, at_ns: int) -> Message:
        topic = BY_RECORD[type(record)].name
        offset = self.ends.get(topic, 0)
        self.ends[topic] = offset + 1
        message = Message(topic, 0, offset, at_ns // 1_000_000, key_of(record), encode(record))
        self.messages.append(message)
        return message


class LiveServices:
    """The services as they run live: topics read side by side, a wall clock; stream and twin die once."""

    def __init__(
        self, log: Log, *, skip_prediction: int | None = None, rules: CalibrationRules | None = None
    ) -> None:
        self.log = log
        self._skip = skip_prediction
        self._rules = rules
        self._stream = PartitionRunner(NetworkPipeline(PipelineSettings()), INPUT_TOPICS, 0)
        self._forecast = ForecastProcessor(MG1K(), rules)
        self._detect = PartitionRunner(DivergenceProcessor(), ("ndt.state", "ndt.predictions"), 0)

    def turn(self, wall_ns: int) -> None:
        """What a quarter of a second makes of what is in the log."""
        for record in self._stream.step(lambda *_: True, wall_ns):
            state = self.log.append(record, wall_ns)
            if not isinstance(record, StateUpdate):
                continue
            self._detect.feed(state, wall_ns)
            for prediction in self._forecast.on_record(record):
                if isinstance(prediction, Prediction) and prediction.state_version == self._skip:
                    continue
                self._detect.feed(self.log.append(prediction, wall_ns + 30_000_000), wall_ns)
        for alert in self._detect.step(lambda *_: True, wall_ns + S):
            self.log.append(alert, wall_ns + S)

    def feed(self, message: Message, wall_ns: int) -> None:
        self._stream.feed(message, wall_ns)

    def die_and_recover(self, fed: Iterable[Message], wall_ns: int) -> None:
        """A crash of stream and twin. A new stream has the checkpoint, and everything is delivered again.

        A new twin has what the topics tell, and predicts nothing of it again.
        """
        blob = self._stream.checkpoint()
        self._stream = PartitionRunner(NetworkPipeline(PipelineSettings()), INPUT_TOPICS, 0)
        self._stream.restore(blob)
        for message in fed:
            self._stream.feed(message, wall_ns)
        self._forecast = ForecastProcessor(MG1K(), self._rules)
        for prediction in newest_predictions(self.log.of("ndt.predictions")):
            self._forecast.resume(prediction)
        for message in self.log.of("ndt.state"):
            assert self._forecast.attempt(decode(message.topic, message.payload)) == ([], "")


def live(*, skip_prediction: int | None = None, rules: CalibrationRules | None = None) -> Log:
    """The log of a ring of routers and its services; calibrated, its links are longer than told."""
    log = Log()
    services = LiveServices(log, skip_prediction=skip_prediction, rules=rules)
    inputs: list[Message] = []
    turn_ns = T0
    for record in Ring().log(SECONDS):
        at_ns = event_time_ns(record) + 40_000_000
        while turn_ns < at_ns:
            services.turn(turn_ns)
            if turn_ns == T0 + 150 * S:
                services.die_and_recover(inputs, turn_ns)
            turn_ns += S // 4
        spoken = longer_than_told(record) if rules else record
        inputs.append(log.append(with_fault(spoken), at_ns))
        services.feed(inputs[-1], at_ns)
    for _ in range(60):
        services.turn(turn_ns)
        turn_ns += S // 4
    return log


def archive(log: Log, directory: Path) -> Path:
    writer = ArchiveWriter(directory)
    for message in log.messages:
        writer.add(message, "e1")
    writer.flush()
    return directory


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Log, Path]:
    """One live run and its archive."""
    log = live()
    return log, archive(log, tmp_path_factory.mktemp("archive"))


def again(
    directory: Path,
    out: Path,
    between: tuple[int, int] = EVER,
    *,
    model: DelayModel | None = None,
    rules: CalibrationRules | None = None,
    warm_up_s: float | None = None,
) -> ReplayReport:
    return replay(directory, *between, out, model=model or MG1K(), rules=rules, warm_up_s=warm_up_s)


def payloads(log: Log, topic: str) -> list[bytes]:
    return [message.payload for message in log.of(topic)]


def test_a_replay_from_the_beginning_gives_the_same_bytes_as_live(
    recorded: tuple[Log, Path], tmp_path: Path
) -> None:
    """States, predictions and alerts, raised and resolved, come out byte for byte, in the same order."""
    log, directory = recorded
    report = again(directory, tmp_path)
    alerts = [decode("ndt.alerts", payload) for payload in payloads(log, "ndt.alerts")]
    assert {"firing", "resolved"} <= {alert.state for alert in alerts if isinstance(alert, Alert)}
    assert report.same_as_live, report.compared
    for name, topic in (
        ("states", "ndt.state"),
        ("predictions", "ndt.predictions"),
        ("alerts", "ndt.alerts"),
    ):
        written = (tmp_path / f"{name}.jsonl").read_bytes().splitlines()
        assert written == payloads(log, topic)
        assert report.compared[name].identical == len(written) == report.written[name] > 0
    assert report.records == len([m for m in log.messages if m.topic in INPUT_TOPICS])
    assert report.damaged_files == []


def test_a_replay_of_a_range_gives_what_live_gave_in_that_range(
    recorded: tuple[Log, Path], tmp_path: Path
) -> None:
    """Warmed up from the beginning, a range around the fault has the same states, predictions and alerts."""
    _, directory = recorded
    between = (T0 + 180 * S, T0 + 330 * S)
    report = again(directory, tmp_path, between)
    assert report.same_as_live, report.compared
    assert 13 <= report.compared["states"].identical <= 15
    assert report.compared["alerts"].identical > 0
    versions = [s.version for s in map(state, (tmp_path / "states.jsonl").read_bytes().splitlines())]
    assert versions == list(range(versions[0], versions[0] + len(versions)))
    assert versions[0] * 10 * S >= between[0] - 10 * S
    assert versions[-1] * 10 * S < between[1]


def state(payload: bytes) -> StateUpdate:
    record = decode("ndt.state", payload)
    assert isinstance(record, StateUpdate)
    return record


def test_a_warm_up_knows_the_topology_that_was_told_before_it(
    recorded: tuple[Log, Path], tmp_path: Path
) -> None:
    """Topology told once, long before: after a minute of warm-up every figure is as it was live."""
    _, directory = recorded
    report = again(directory, tmp_path, (T0 + 180 * S, T0 + 330 * S), warm_up_s=60)
    assert report.warm_up_from_ns == T0 + 120 * S
    for name in ("states", "predictions"):
        compared = report.compared[name]
        assert (compared.identical, compared.different) == (0, 0)
        assert compared.equal >= 13
    alerts = report.compared["alerts"]  # the same changes; their evidence rests on younger baselines
    assert (alerts.only_live, alerts.only_replayed) == (0, 0)
    assert alerts.equal + alerts.identical + alerts.different > 0


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Log, Path]:
    """One live run with a calibrated twin, and its archive."""
    log = live(rules=RULES)
    return log, archive(log, tmp_path_factory.mktemp("calibrated"))


def test_a_calibrated_run_replays_to_the_same_bytes(calibrated: tuple[Log, Path], tmp_path: Path) -> None:
    """What live learnt, over a crash and through a fault, the replay learns again, to the bit."""
    log, directory = calibrated
    report = again(directory, tmp_path, rules=RULES)
    assert report.same_as_live, report.compared
    written = (tmp_path / "predictions.jsonl").read_bytes().splitlines()
    assert written == payloads(log, "ndt.predictions")
    newest = decode("ndt.predictions", written[-1])
    assert isinstance(newest, Prediction)
    assert newest.windows_learnt > 30
    assert {"firing", "resolved"} <= {
        alert.state
        for alert in (decode("ndt.alerts", payload) for payload in payloads(log, "ndt.alerts"))
        if isinstance(alert, Alert)
    }


@pytest.mark.parametrize("warm_up_s", [None, 60, 0])
def test_a_calibrated_range_goes_on_from_what_was_known_before_it(
    calibrated: tuple[Log, Path], tmp_path: Path, warm_up_s: float | None
) -> None:
    """Whatever the warm-up learns, in the range every figure is as live, and so is what is learnt in it."""
    log, directory = calibrated
    between = (T0 + 180 * S, T0 + 330 * S)
    report = again(directory, tmp_path, between, rules=RULES, warm_up_s=warm_up_s)
    told = {p.state_version: p for p in map(prediction, payloads(log, "ndt.predictions"))}
    written = [prediction(line) for line in (tmp_path / "predictions.jsonl").read_bytes().splitlines()]
    assert len(written) >= 13
    if warm_up_s == 0:  # its first windows lack what came before: they are predicted and learnt otherwise
        assert written[1].windows_learnt >= told[written[0].state_version].windows_learnt - 1 > 10
    else:
        assert [p.calibration for p in written] == [told[p.state_version].calibration for p in written]
        assert [p.mean_s for p in written] == [told[p.state_version].mean_s for p in written]
        assert report.compared["predictions"].same
    assert report.same_as_live == (warm_up_s is None)


def prediction(payload: bytes) -> Prediction:
    record = decode("ndt.predictions", payload)
    assert isinstance(record, Prediction)
    return record


def test_a_calibrated_run_replayed_without_shows_as_different(
    calibrated: tuple[Log, Path], tmp_path: Path
) -> None:
    """The configuration must say what live did, and the report shows where it does not."""
    report = again(calibrated[1], tmp_path)
    assert report.compared["states"].same
    assert report.compared["predictions"].different == report.written["predictions"]


def test_a_replay_that_has_nothing_to_compare_is_not_called_the_same(
    recorded: tuple[Log, Path], tmp_path: Path
) -> None:
    """An archive of inputs alone replays, and is not reported as equal to live."""
    log, _ = recorded
    inputs = Log([message for message in log.messages if message.topic in INPUT_TOPICS])
    report = again(archive(inputs, tmp_path / "archive"), tmp_path / "out")
    assert report.written["states"] > 30
    assert not report.same_as_live


def test_another_model_shows_as_different_predictions_and_the_same_states(
    recorded: tuple[Log, Path], tmp_path: Path
) -> None:
    """What if M/M/1/b had been in charge: its predictions differ, and the report names both models."""
    _, directory = recorded
    report = again(directory, tmp_path, model=MM1B())
    assert report.compared["states"].same
    assert report.compared["predictions"].different == report.written["predictions"]
    assert report.model.startswith("mm1b ")
    assert report.live_models == [f"mg1k {MG1K().version}"]
    assert not report.same_as_live


def test_a_prediction_that_was_missing_live_is_told(tmp_path: Path) -> None:
    """A window that live went unpredicted is predicted by the replay, and counted as such."""
    log = live()
    versions = [state(payload).version for payload in payloads(log, "ndt.state")]
    holed = live(skip_prediction=versions[5])
    report = again(archive(holed, tmp_path / "archive"), tmp_path / "out")
    assert report.compared["predictions"].only_replayed == 1
    assert report.compared["predictions"].identical == len(versions) - 1
    assert report.compared["states"].same


def test_the_order_in_which_the_archive_was_written_does_not_matter(
    recorded: tuple[Log, Path], tmp_path: Path
) -> None:
    """The same log in a hundred small files, as a real archive writes it, replays the same."""
    log, _ = recorded
    directory = tmp_path / "archive"
    for start in range(0, len(log.messages), 20):
        archive(Log(log.messages[start : start + 20]), directory)
    assert again(directory, tmp_path / "out").same_as_live


def test_speed_paces_the_range_and_not_the_warm_up(recorded: tuple[Log, Path], tmp_path: Path) -> None:
    """20 s of log, its last poll at 15 s, take 15/20 s at speed 20; the warm-up would take 300/20."""
    _, directory = recorded
    started_s = time.monotonic()
    replay(directory, T0 + 300 * S, T0 + 320 * S, tmp_path, model=MG1K(), speed=20, warm_up_s=None)
    assert 0.75 <= time.monotonic() - started_s < 6


def test_a_damaged_file_is_reported_and_the_rest_is_replayed(
    recorded: tuple[Log, Path], tmp_path: Path
) -> None:
    """One torn file: the replay goes on without it and names it."""
    log, _ = recorded
    directory = tmp_path / "archive"
    for start in range(0, len(log.messages), 50):
        archive(Log(log.messages[start : start + 50]), directory)
    torn = sorted(directory.glob("topic=ndt.samples/*/*/*.parquet"))[1]
    torn.write_bytes(torn.read_bytes()[:50])
    report = again(directory, tmp_path / "out")
    assert report.damaged_files == [str(torn)]
    assert report.written["states"] > 30


def test_what_cannot_be_replayed_is_wrong_use_and_says_what_there_is(
    recorded: tuple[Log, Path], tmp_path: Path
) -> None:
    """No archive, an empty range, a range without data, a speed of zero: one line each."""
    _, directory = recorded
    with pytest.raises(UsageError, match="no archive at"):
        again(tmp_path / "absent", tmp_path)
    with pytest.raises(UsageError, match="--to later than --from"):
        again(directory, tmp_path, (T0, T0))
    with pytest.raises(UsageError, match=r"begins after 2023-11-14T22:00Z and ends before 2023-11-14T23:00Z"):
        again(directory, tmp_path, (0, S), warm_up_s=0)
    with pytest.raises(UsageError, match="speed 0"):
        replay(directory, *EVER, tmp_path, model=MG1K(), speed=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="give another --out"):
        again(directory, tmp_path / "file" / "out")
