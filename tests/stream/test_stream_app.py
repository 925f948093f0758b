"""The Faust app on a real broker: end to end, in real time, killed and restarted, bad messages, no broker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Producer
from strategies import Ring, S, event_time_ns
from topics_seen import records_in, wait_for

from stream.codec import encode
from stream.pipeline import NetworkPipeline, PipelineSettings
from stream.topics import BY_RECORD, key_of
from twin.records import DeadLetter, Record, StateUpdate

pytestmark = [pytest.mark.kafka, pytest.mark.live]
WORKER = Path(__file__).with_name("stream_worker.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
NONSENSE = b"\xff nonsense"
SETTINGS = PipelineSettings(window_s=2.0, lateness_s=0.5, settle_s=0.3, idle_timeout_s=4.0)
Start = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def start(kafka: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Start]:
    """Start a stream worker; what still runs at the end is killed."""
    workers: list[subprocess.Popen[bytes]] = []
    name = request.node.name.replace("_", "-")

    def begin() -> subprocess.Popen[bytes]:
        log = (tmp_path / f"worker-{len(workers)}.log").open("wb")
        with log:
            settings = msgspec.json.encode(SETTINGS).decode()
            command = [sys.executable, str(WORKER), name, kafka, str(tmp_path / "data"), settings]
            workers.append(subprocess.Popen(command, stderr=log, stdout=log, env=ENVIRONMENT))
        return workers[-1]

    yield begin
    for worker in workers:
        if worker.poll() is None:
            worker.kill()
        worker.wait()


class Live:
    """A ring that speaks in real time, in a thread, until its story is told."""

    def __init__(self, bootstrap: str, seconds: int) -> None:
        now_ns = time.time_ns()
        self.ring = Ring(network="live", epoch_ns=now_ns // (10 * S) * 10 * S + 10 * S)
        self.log = self.ring.log(seconds, poll_s=1, bin_s=2)
        self._producer = Producer({"bootstrap.servers": bootstrap})
        self._thread = threading.Thread(target=self._tell)
        self._thread.start()

    def _tell(self) -> None:
        nonsense_ns = self.ring.epoch_ns + 5 * S
        for record in self.log:
            time.sleep(max(0.0, (event_time_ns(record) - time.time_ns()) / S))
            topic = BY_RECORD[type(record)].name
            self._producer.produce(topic, encode(record), key_of(record), partition=0)
            if event_time_ns(record) >= nonsense_ns:
                self._producer.produce("ndt.flows", NONSENSE, b"R000", partition=0)
                nonsense_ns = 2**63
        assert self._producer.flush(10) == 0

    def at(self, second: float) -> None:
        """Wait for a second of the story."""
        time.sleep(max(0.0, (self.ring.epoch_ns - time.time_ns()) / S + second))

    def end(self) -> None:
        """Wait until all is told."""
        self._thread.join()


def uninterrupted(records: Iterable[Record]) -> dict[int, bytes]:
    """Version → bytes of the states that the bare pipeline makes of the records."""
    pipeline, out = NetworkPipeline(SETTINGS), []
    for record in records:
        out += [*pipeline.on_time(event_time_ns(record)), *pipeline.on_record(record)]
    return {state.version: encode(state) for state in out if isinstance(state, StateUpdate)}


def states_of(bootstrap: str) -> dict[int, set[bytes]]:
    """Version → the different bytes that were published for it."""
    found: dict[int, set[bytes]] = {}
    for state in records_in(bootstrap, "ndt.state", StateUpdate):
        found.setdefault(state.version, set()).add(encode(state))
    return found


def test_a_killed_worker_leaves_no_trace(kafka: str, start: Start) -> None:
    """Killed twice while the network speaks, a worker started anew publishes every window's bytes as an
    uninterrupted pipeline does; nonsense goes to the dead letters; in silence windows still close, flagged;
    SIGTERM ends the worker cleanly."""
    worker = start()
    live = Live(kafka, 24)
    expected = uninterrupted(live.log)
    for kill_at_s in (9.0, 16.5):
        live.at(kill_at_s)
        worker.kill()
        worker.wait()
        worker = start()
    live.end()
    newest = max(expected) + 3
    found = wait_for(lambda: states_of(kafka), lambda found: max(found, default=0) >= newest, 40)
    assert {version: found[version] for version in expected} == {v: {b} for v, b in expected.items()}
    flags = [
        state.quality for state in records_in(kafka, "ndt.state", StateUpdate) if state.version == newest
    ]
    assert "silent:R000" in flags[0]
    letters = set(records_in(kafka, "ndt.deadletter", DeadLetter))
    assert {letter.payload for letter in letters} == {NONSENSE}
    assert all((one.source, one.key, one.partition) == ("ndt.flows", b"R000", 0) for one in letters)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(15) == 0


def test_no_broker_is_one_clear_line(tmp_path: Path) -> None:
    """Without a broker the app says so and ends, instead of trying for ever."""
    command = [sys.executable, str(WORKER), "nobody", "127.0.0.1:9", str(tmp_path), "{}"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False)
    assert done.returncode != 0
    assert "BrokerUnavailable: no Kafka broker answers at 127.0.0.1:9" in done.stderr
