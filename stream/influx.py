"""States, predictions and alerts → InfluxDB 2, or what takes its line protocol (VictoriaMetrics does).

What is written: :mod:`stream.influx_lines`. Nothing is lost while the database is away: a batch is written
(again and again, if need be) before its offsets are committed, and a point written twice is the same point. A
batch that the database calls malformed is counted and passed over.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from threading import Event

from influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.rest import ApiException
from urllib3.exceptions import HTTPError

from stream import client
from stream.consumer import Message, Place, Reader, decode_message
from stream.health import Heart
from stream.influx_lines import Lines
from stream.publisher import Publisher
from twin.records import DeadLetter

TOPICS = ("ndt.state", "ndt.predictions", "ndt.delays", "ndt.alerts")
BATCH_LINES = 5_000
REWIND = 60
_RETRY_S = 5.0
_TIMEOUT_MS = 10_000
_ADVICE = dict.fromkeys((401, 403), "set NDTWIN_INFLUX_TOKEN")
_LOG = client.logger("sink")


@dataclass
class SinkFigures:
    """What the sink did."""

    points: int = 0
    batches: int = 0
    retries: int = 0
    rejected: int = 0  # points in batches that the database called malformed


class InfluxWriter:
    """Writes batches. ``problem`` says why the last attempt failed; empty when it did not."""

    def __init__(self, url: str, token: str, org: str, bucket: str) -> None:
        self.figures = SinkFigures()
        self.problem = ""
        self._url, self._bucket = url, bucket
        self._client = InfluxDBClient(url, token=token, org=org, timeout=_TIMEOUT_MS)
        self._api = self._client.write_api(write_options=SYNCHRONOUS)

    def write(self, lines: list[str]) -> bool:
        """One batch; False when it must be tried again."""
        try:
            self._api.write(self._bucket, record=lines)
        except ApiException as error:
            return self._refused(error, len(lines))
        except (HTTPError, OSError) as error:
            reason = f"no InfluxDB answers at {self._url} ({_short(error)})"
            return self._failed(f"{reason}: start it or unset influx.url")
        self.problem = ""
        self.figures.points += len(lines)
        self.figures.batches += 1
        return True

    def _refused(self, error: ApiException, lines: int) -> bool:
        if error.status in (400, 413, 422):  # these bytes will never be taken
            self.figures.rejected += lines
            _LOG.error("batch rejected", points=lines, status=error.status, reason=_short(error.body))
            return True
        advice = _ADVICE.get(error.status, "check influx.org and influx.bucket")
        return self._failed(f"{self._url} refuses writes ({error.status} {error.reason}): {advice}")

    def _failed(self, problem: str) -> bool:
        self.figures.retries += 1
        if problem != self.problem:
            _LOG.warning("writes wait", reason=problem)
        self.problem = problem
        return False

    def close(self) -> None:
        """Close the connection."""
        self._api.close()
        self._client.close()


def _short(error: object) -> str:
    return " ".join(str(error).split())[:200]


class _Sink:
    """One run of the service."""

    def __init__(self, reader: Reader, writer: InfluxWriter, heart: Heart, stop: Event) -> None:
        self._reader, self._writer, self._heart, self._stop = reader, writer, heart, stop
        self._lines = Lines()

    def step(self) -> None:
        """One poll: lines, batches, commit."""
        messages = self._reader.poll()
        lines = [text for message in messages for text in self._of(message)]
        for start in range(0, len(lines), BATCH_LINES):
            if not self._write(lines[start : start + BATCH_LINES]):
                return  # told to stop while the database is away: what is not committed comes again
        done: dict[Place, int] = {message.place: message.offset + 1 for message in messages}
        if done:
            self._reader.commit(done)
        self.beat()

    def _of(self, message: Message) -> Iterable[str]:
        record = decode_message(message)
        if isinstance(record, DeadLetter):
            self._lines.unusable += 1
            return ()
        return self._lines.of(record)

    def _write(self, lines: list[str]) -> bool:
        while not self._writer.write(lines):
            self.beat()
            if self._stop.wait(_RETRY_S):
                return False
        return True

    def beat(self) -> None:
        """Say how it goes."""
        figures, problem = self._writer.figures, self._writer.problem
        metrics = {name: float(value) for name, value in vars(figures).items()}
        metrics["unusable"] = float(self._lines.unusable)
        self._heart.beat("degraded" if problem else "running", problem, metrics)


def run_influx_sink(
    bootstrap: str,
    *,
    partitions: int,
    url: str,
    token: str,
    org: str,
    bucket: str,
    stop: Event,
    group: str = "ndtwin-sink",
) -> SinkFigures:
    """Write until ``stop`` is set. A database that is away is waited for."""
    writer = InfluxWriter(url, token, org, bucket)
    try:
        with (
            Publisher(bootstrap, partitions, client_id="sink") as publisher,
            Reader(bootstrap, TOPICS, group=group, rewind=REWIND, resume=True) as reader,
        ):
            heart = Heart(publisher, "sink")
            sink = _Sink(reader, writer, heart, stop)
            while not stop.is_set():
                sink.step()
            heart.beat("stopped", writer.problem)
    finally:
        writer.close()
    return writer.figures
