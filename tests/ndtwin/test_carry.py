"""A controlled restart of the embedded broker: nothing is lost, processed or archived twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from strategies import Ring, S, event_time_ns
from topics_seen import messages_in, records_in, state, wait_for

from ndtwin.broker import EmbeddedBroker
from ndtwin.carry import CARRIED, carry_over
from stream.admin import ensure_topics
from stream.archive import run_archive
from stream.archive_files import read_archive
from stream.codec import encode
from stream.consumer import decode_message
from stream.pipeline import NetworkPipeline, PipelineSettings
from stream.publisher import Publisher
from twin.records import Alert, DeviceSample, DeviceTopology, NetworkEvent, Record, StateUpdate

pytestmark = pytest.mark.kafka
WORKER = Path(__file__).parents[1] / "stream" / "stream_worker.py"


def topology(device: str, at_ns: int) -> DeviceTopology:
    return DeviceTopology(network="net", device=device, observed_at_ns=at_ns, source="snmp")


def alert(fingerprint: str, updated_at_ns: int) -> Alert:
    return Alert(
        network="net",
        fingerprint=fingerprint,
        state="firing",
        kind="delay-divergence",
        severity="warning",
        summary="",
        starts_at_ns=1,
        updated_at_ns=updated_at_ns,
    )


def test_a_controlled_restart_keeps_what_consumers_need_and_frees_the_memory(
    embedded: EmbeddedBroker,
) -> None:
    """Fill, carry over, restart, write: newest alerts, topologies and states are back, the bulk is gone."""
    ensure_topics(embedded.bootstrap, 2)
    bulk = [
        DeviceSample(
            network="net", device="A", observed_at_ns=i, source="snmp", quality=(os.urandom(5000).hex(),)
        )
        for i in range(5000)
    ]
    records: list[Record] = [alert("f1", 1), alert("f1", 2), alert("f2", 1), topology("A", 1)]
    records += [state(v, n) for v in range(20) for n in ("net", "other")]
    with Publisher(embedded.bootstrap, 2) as publisher:
        publisher.publish_all([*bulk, *records])
        assert publisher.flush(60) == 0  # 50 MB take a busy machine longer than closing waits
    full = embedded.rss_bytes()
    before = {topic: messages_in(embedded.bootstrap, topic) for topic in CARRIED}

    carry = carry_over(embedded.bootstrap)
    embedded.restart()
    ensure_topics(embedded.bootstrap, 2)
    assert carry.write(embedded.bootstrap) == len(carry.messages)

    after = {topic: messages_in(embedded.bootstrap, topic) for topic in CARRIED}
    assert [m.payload for m in after["ndt.alerts"]] == [encode(alert("f1", 2)), encode(alert("f2", 1))]
    assert [m.payload for m in after["ndt.topology"]] == [encode(topology("A", 1))]
    for network in ("net", "other"):
        kept = [decode_message(m) for m in after["ndt.state"] if m.key == network.encode()]
        assert kept == [state(v, network) for v in range(13, 20)]
    for topic, messages in after.items():
        assert {(m.payload, m.timestamp_ms) for m in messages} <= {
            (m.payload, m.timestamp_ms) for m in before[topic]
        }
        assert all(m.carried for m in messages)
    assert messages_in(embedded.bootstrap, "ndt.samples") == []
    assert embedded.rss_bytes() < full - 25_000_000


def test_topologies_of_all_devices_of_a_network_are_carried(embedded: EmbeddedBroker) -> None:
    """The topic's key is the network, yet the newest record of every device must survive."""
    ensure_topics(embedded.bootstrap, 1)
    with Publisher(embedded.bootstrap, 1) as publisher:
        publisher.publish_all([topology("A", 1), topology("B", 1), topology("A", 2), topology("C", 1)])
    carried = [decode_message(m) for m in carry_over(embedded.bootstrap).messages]
    assert carried == [topology("B", 1), topology("A", 2), topology("C", 1)]


def restart(broker: EmbeddedBroker, partitions: int = 1) -> None:
    """What the supervisor does between stopping and starting the services."""
    carry = carry_over(broker.bootstrap)
    broker.restart()
    ensure_topics(broker.bootstrap, partitions)
    assert carry.write(broker.bootstrap) == len(carry.messages)


# ------------------------------------------------------------------------------------------- the archive


def event(number: int) -> NetworkEvent:
    return NetworkEvent(network="net", device="A", observed_at_ns=number, kind="link-down")


def archive_until(bootstrap: str, directory: Path, enough: Callable[[], bool]) -> None:
    """Run the archive until enough is in it, and stop it as the supervisor does."""
    stop = threading.Event()
    options = {"partitions": 1, "stop": stop, "flush_s": 0.3}
    thread = threading.Thread(target=run_archive, args=(bootstrap, directory), kwargs=options)
    thread.start()
    wait_for(enough, bool)
    stop.set()
    thread.join(15)
    assert not thread.is_alive()


def test_the_archive_gets_what_it_had_not_read_and_nothing_twice(
    embedded: EmbeddedBroker, tmp_path: Path
) -> None:
    """What came after the archive stopped is carried for it; what it has is carried and skipped."""
    ensure_topics(embedded.bootstrap, 1)

    def numbers() -> list[int]:
        found = [decode_message(m) for m in read_archive(tmp_path, ["ndt.events"], 0, 1 << 62)]
        return [one.observed_at_ns for one in found if isinstance(one, NetworkEvent)]

    def alerts() -> list[bytes]:
        return [m.payload for m in read_archive(tmp_path, ["ndt.alerts"], 0, 1 << 62)]

    with Publisher(embedded.bootstrap, 1) as publisher:
        publisher.publish_all([alert("f1", 1), *(event(i) for i in range(20))])
        publisher.flush()
        archive_until(embedded.bootstrap, tmp_path, lambda: len(numbers()) == 20 and len(alerts()) == 1)
        publisher.publish_all([*(event(i) for i in range(20, 30)), alert("f2", 1)])
        publisher.flush()
        restart(embedded)
        publisher.publish_all(event(i) for i in range(30, 35))
        publisher.flush()
        archive_until(embedded.bootstrap, tmp_path, lambda: len(numbers()) >= 35)
    assert numbers() == list(range(35))
    assert alerts() == [encode(alert("f1", 1)), encode(alert("f2", 1))]


# ------------------------------------------------------------------------------------------- the stream

SETTINGS = PipelineSettings(window_s=2.0, lateness_s=0.5, settle_s=0.3, idle_timeout_s=6.0)


@pytest.fixture
def worker(embedded: EmbeddedBroker, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Start the Faust worker of the stream; what still runs at the end is killed."""
    ensure_topics(embedded.bootstrap, 1)
    started: list[subprocess.Popen[bytes]] = []

    def begin() -> subprocess.Popen[bytes]:
        with (tmp_path / f"worker-{len(started)}.log").open("wb") as log:
            settings = msgspec.json.encode(SETTINGS).decode()
            command = [sys.executable, str(WORKER), "carried", embedded.bootstrap, str(tmp_path), settings]
            env = {**os.environ, "PYTHONPATH": str(WORKER.parents[2])}
            started.append(subprocess.Popen(command, stderr=log, stdout=log, env=env))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


class Teller:
    """Tells the ring's story in real time, as far as it is asked to."""

    def __init__(self, publisher: Publisher, seconds: int) -> None:
        ring = Ring(network="live", epoch_ns=(time.time_ns() // (10 * S) + 1) * 10 * S)
        self.epoch_ns = ring.epoch_ns
        self.log = ring.log(seconds, poll_s=1, bin_s=2)
        self._left = list(self.log)
        self._publisher = publisher

    def tell(self, until_s: float) -> None:
        """Publish every record at its own time, up to a second of the story."""
        while self._left and event_time_ns(self._left[0]) < self.epoch_ns + until_s * S:
            record = self._left.pop(0)
            time.sleep(max(0.0, (event_time_ns(record) - time.time_ns()) / S))
            self._publisher.publish(record)
        assert self._publisher.flush(10) == 0


@pytest.mark.live
def test_the_stream_goes_on_over_a_restart_as_if_nothing_had_happened(
    embedded: EmbeddedBroker, worker: Callable[[], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """Restarted within a window, the worker publishes every window as an uninterrupted pipeline does: its
    checkpoint and the records it had not processed were carried over."""
    process, log = worker(), tmp_path / "worker-0.log"
    wait_for(lambda: "partition assigned" in log.read_text(), bool, 40)
    with Publisher(embedded.bootstrap, 1) as publisher:
        teller = Teller(publisher, 20)
        teller.tell(9.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        teller.tell(10.6)  # what nobody has processed when the broker goes
        before = states_in(embedded)
        restart(embedded)
        process = worker()
        teller.tell(21)
        expected = uninterrupted(teller.log)
        after = wait_for(
            lambda: states_in(embedded), lambda found: max(found, default=0) >= max(expected), 40
        )
    found = {**before, **after}
    differing = {v: (found.get(v), blob) for v, blob in expected.items() if found.get(v) != blob}
    assert not differing
    assert before
    assert set(after) - set(before)


def states_in(broker: EmbeddedBroker) -> dict[int, bytes]:
    """Version → bytes; a version published with different bytes fails."""
    found: dict[int, bytes] = {}
    for one in records_in(broker.bootstrap, "ndt.state", StateUpdate):
        assert found.setdefault(one.version, encode(one)) == encode(one)
    return found


def uninterrupted(records: list[Record]) -> dict[int, bytes]:
    """Version → bytes of the states that the bare pipeline makes of the records."""
    pipeline, out = NetworkPipeline(SETTINGS), []
    for record in records:
        out += [*pipeline.on_time(event_time_ns(record)), *pipeline.on_record(record)]
    return {one.version: encode(one) for one in out if isinstance(one, StateUpdate)}
