"""The past through the same processors: archived inputs in, states, predictions and alerts out.

The replay reads the archived *input* topics in the order in which the live runner released them (by time,
then topic name, then offset), and drives the same processors on the same clock, the log's own. So a state,
a prediction and an alert come out byte for byte as they did live, where the processors knew as much as they
did live. What they know grows with time (topology, baselines, open alerts); hence the warm-up: the replay
begins ``warm_up_s`` before the range, or at the beginning of the archive (None), and keeps only what falls
into the range. A warm-up is preceded by the newest topology record of every device in the day before it; a
replay that begins later than live then differs in one field only, ``topology_version``, and is called equal.

A calibration (``rules``) goes on from the archive: from the newest prediction before the warm-up, and again
from the newest before the range, so that what the warm-up learnt otherwise than live stays out of the range.

Known differences, all visible in the report: a window that was predicted late or never because the twin's
service was away is predicted here, and teaches the calibration, which live it did not; another model or other
settings give other predictions and alerts; what people did (acknowledgements) is not replayed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import IO

from anomaly.processor import DetectorSettings, DivergenceProcessor
from stream.archive_files import Damage, hour_of, hours, read_archive
from stream.codec import encode
from stream.consumer import Message
from stream.forecast import ForecastProcessor
from stream.newest import newest_of_each, newest_predictions
from stream.pipeline import NetworkPipeline, PipelineSettings
from stream.replay_compare import Comparison, Ledger, compare
from stream.runner import PartitionRunner
from stream.topics import INPUT_TOPICS
from twin.calibration import CalibrationRules
from twin.errors import UsageError
from twin.models import DelayModel
from twin.records import Alert, DeadLetter, Prediction, Record, StateUpdate

WARM_UP_S = 3600.0
# The order of topics is that of the live runner among equal timestamps.
_TOPICS = tuple(sorted(INPUT_TOPICS))
_TOPOLOGY = {"ndt.topology": 1}
_OUTPUTS: dict[type[Record], str] = {
    StateUpdate: "states",
    Prediction: "predictions",
    Alert: "alerts",
    DeadLetter: "deadletters",
}
_LIVE_TOPICS = ("ndt.state", "ndt.predictions", "ndt.alerts")
_HOUR_NS = 3_600_000_000_000
_DAY_NS = 24 * _HOUR_NS
_LIVE_DELAY_NS = 60_000_000_000  # live outputs follow their windows; none of interest by more than this
OnProgress = Callable[[int, int], None]  # messages read, the clock


@dataclass
class ReplayReport:
    """What a replay did."""

    from_ns: int
    to_ns: int
    warm_up_from_ns: int
    records: int = 0
    duration_s: float = 0.0
    written: dict[str, int] = field(default_factory=dict)
    compared: dict[str, Comparison] = field(default_factory=dict)
    damaged_files: list[str] = field(default_factory=list)
    model: str = ""
    live_models: list[str] = field(default_factory=list)

    @property
    def same_as_live(self) -> bool:
        """Whether there are windows that both cover, and every figure in them is the same."""
        states = self.compared.get("states", Comparison())
        return states.identical + states.equal > 0 and all(
            comparison.same for comparison in self.compared.values()
        )

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return {**asdict(self), "same_as_live": self.same_as_live}


@dataclass(frozen=True)
class _Rooms:
    """What a chain is made with."""

    pipeline: PipelineSettings
    model: DelayModel
    detector: DetectorSettings
    rules: CalibrationRules | None
    known: list[Prediction]  # whose calibrations the replay goes on from


class Chain:
    """Pipeline → model → detector over one partition, on the log's clock."""

    def __init__(self, partition: int, rooms: _Rooms) -> None:
        self._runner = PartitionRunner(NetworkPipeline(rooms.pipeline), _TOPICS, partition)
        self._forecast = ForecastProcessor(rooms.model, rooms.rules)
        for prediction in rooms.known:
            self._forecast.know(prediction)
        self._detector = DivergenceProcessor(rooms.detector)
        self._offsets = dict.fromkeys(_TOPICS, 0)  # our own: those of the log start again with every epoch

    @property
    def clock_ns(self) -> int:
        """How far the log's clock is."""
        return self._runner.clock_ns

    def take(self, message: Message) -> list[Record]:
        """One archived message; everything that follows from it."""
        offset = self._offsets[message.topic]
        self._offsets[message.topic] = offset + 1
        self._runner.feed(replace(message, offset=offset))
        return self._follow(self._runner.step(lambda _topic, _offset: True))

    def advance(self, clock_ns: int) -> list[Record]:
        """The clock moves without a message: the end of the range."""
        return self._follow(self._runner.advance(clock_ns))

    def _follow(self, first: list[Record]) -> list[Record]:
        outputs: list[Record] = []
        for record in first:
            outputs.append(record)
            outputs += self._detector.on_time(self.clock_ns)
            outputs += self._detector.on_record(record)
            predictions, problem = self._forecast.attempt(record)
            if problem:
                outputs.append(self._dead_letter(record, problem))
            for prediction in predictions:
                outputs.append(prediction)
                outputs += self._detector.on_record(prediction)
        return outputs

    def _dead_letter(self, record: Record, reason: str) -> DeadLetter:
        return DeadLetter(
            source="ndt.state", payload=encode(record), reason=reason, observed_at_ns=self.clock_ns
        )


def replay(
    archive: Path,
    from_ns: int,
    to_ns: int,
    out: Path,
    *,
    model: DelayModel,
    pipeline: PipelineSettings | None = None,
    detector: DetectorSettings | None = None,
    rules: CalibrationRules | None = None,
    speed: float | None = None,
    warm_up_s: float | None = WARM_UP_S,
    stop: Event | None = None,
    on_progress: OnProgress | None = None,
) -> ReplayReport:
    """Replay [from, to) into ``out`` (one JSON Lines file for each kind of record) and compare with live.

    ``speed`` 1 is real time, None as fast as possible; ``rules`` calibrate the model, as live where live did.
    UsageError when there is nothing to replay.
    """
    _check(archive, from_ns, to_ns, speed)
    damage = Damage()
    begin_ns = 0 if warm_up_s is None else max(0, from_ns - round(warm_up_s * 1e9))
    told = [] if rules is None else _predicted_before(archive, (begin_ns, from_ns), damage)
    rooms = _Rooms(pipeline or PipelineSettings(), model, detector or DetectorSettings(), rules, told)
    run = _Run(out, from_ns, rooms)
    known = read_archive(archive, _TOPOLOGY, begin_ns - _DAY_NS, begin_ns, damage=damage)
    messages = read_archive(archive, _TOPICS, begin_ns, to_ns, damage=damage)
    started_s = time.monotonic()
    with run:
        for message in newest_of_each(known, _TOPOLOGY):
            run.take(message)
        for message in _paced(messages, from_ns, speed, stop):
            run.take(message)
            if on_progress is not None:
                on_progress(run.records, message.timestamp_ms * 1_000_000)
        if not run.records:
            raise UsageError(f"archive {archive} holds no input in that range: it {_extent(archive)}")
        if stop is None or not stop.is_set():
            run.finish(_newest_ns(archive, from_ns, to_ns, damage))
    report = ReplayReport(from_ns, to_ns, begin_ns, run.records, time.monotonic() - started_s)
    report.written = run.written
    report.model = f"{model.name} {model.version}"
    live = Ledger()
    live.add_messages(read_archive(archive, _LIVE_TOPICS, from_ns, to_ns + _LIVE_DELAY_NS, damage=damage))
    report.live_models = sorted(live.models)
    report.compared = compare(live, run.ledger)
    report.damaged_files = sorted({str(path) for path in damage.files})
    return report


def _check(archive: Path, from_ns: int, to_ns: int, speed: float | None) -> None:
    if not archive.is_dir():
        raise UsageError(f"no archive at {archive}: give its directory, or set archive.directory")
    if from_ns >= to_ns:
        raise UsageError("the replay would end before it begins: give a --to later than --from")
    if speed is not None and not speed > 0:
        raise UsageError(f"speed {speed:g}: give a factor greater than 0")


def _extent(archive: Path) -> str:
    found = [hour_of(hour) // 1000 for topic in _TOPICS for hour in hours(archive, topic)]
    if not found:
        return "is empty"
    first, last = (time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime(s)) for s in (min(found), max(found) + 3600))
    return f"begins after {first} and ends before {last}"


def _paced(
    messages: Iterator[Message], from_ns: int, speed: float | None, stop: Event | None
) -> Iterator[Message]:
    """At ``speed`` times real time from the beginning of the range; the warm-up runs as fast as it can."""
    stop = stop or Event()
    began_s: float | None = None
    for message in messages:
        ahead_s = message.timestamp_ms / 1e3 - from_ns / 1e9
        if speed is not None and ahead_s >= 0:
            began_s = time.monotonic() - ahead_s / speed if began_s is None else began_s
            stop.wait(max(0.0, began_s + ahead_s / speed - time.monotonic()))
        if stop.is_set():
            return
        yield message


class _Run:
    """One replay: a chain for every partition, and the files that take what comes out."""

    def __init__(self, out: Path, from_ns: int, rooms: _Rooms) -> None:
        self.records = 0
        self.written = dict.fromkeys(_OUTPUTS.values(), 0)
        self.ledger = Ledger()
        self._out = out
        self._from_ns = from_ns
        self._rooms = rooms
        self._chains: dict[int, Chain] = {}
        self._files: dict[str, IO[bytes]] = {}

    def __enter__(self) -> _Run:
        try:
            self._out.mkdir(parents=True, exist_ok=True)
            self._files = {name: (self._out / f"{name}.jsonl").open("wb") for name in self.written}
        except OSError as error:
            raise UsageError(f"cannot write to {self._out} ({error.strerror}): give another --out") from error
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def take(self, message: Message) -> None:
        """One message into the chain of its partition."""
        self.records += 1
        if message.partition not in self._chains:
            self._chains[message.partition] = Chain(message.partition, self._rooms)
        chain = self._chains[message.partition]
        self._write(chain, chain.take(message))

    def finish(self, clock_ns: int) -> None:
        """Bring every chain to the end of the range."""
        for _, chain in sorted(self._chains.items()):
            if clock_ns > chain.clock_ns:
                self._write(chain, chain.advance(clock_ns))

    def _write(self, chain: Chain, records: list[Record]) -> None:
        if chain.clock_ns < self._from_ns:
            return
        for record in records:
            name, payload = _OUTPUTS[type(record)], encode(record)
            self.written[name] += 1
            self.ledger.add(record, payload)
            self._files[name].write(payload + b"\n")


def _predicted_before(archive: Path, times_ns: tuple[int, ...], damage: Damage) -> list[Prediction]:
    """The newest prediction of every network before each of the times, of the day before it at most.

    Read hour by hour backwards, since a day of a large network is much: the first hour with any decides.
    """
    found: list[Prediction] = []
    for time_ns in times_ns:
        for end_ns in range(time_ns, max(0, time_ns - _DAY_NS), -_HOUR_NS):
            messages = read_archive(archive, ["ndt.predictions"], end_ns - _HOUR_NS, end_ns, damage=damage)
            newest = newest_predictions(messages)
            if newest:
                found += newest
                break
    return found


def _newest_ns(archive: Path, from_ns: int, to_ns: int, damage: Damage) -> int:
    """How far the live clock certainly was before the end of the range: the newest output of the stream."""
    newest_ms = 0
    for message in read_archive(archive, ["ndt.state"], from_ns, to_ns, damage=damage):
        newest_ms = max(newest_ms, message.timestamp_ms)
    return newest_ms * 1_000_000
