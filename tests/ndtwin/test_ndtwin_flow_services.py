"""Flows through Kafka: several processes on one port, and the topics of other collectors."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import confluent_kafka
import msgspec
import numpy as np
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from flow_tools import write_pcap
from topics_seen import records_in

from collectors.inventory import parse_inventory
from collectors.stats import CollectorStats
from ndtwin.config import BrokerSettings, CollectSettings, FlowTopic, Settings
from ndtwin.flow_topics import TopicReading, first_offsets, run_flow_topics
from ndtwin.flow_workers import FlowWorkers
from ndtwin.lab import ipfix_encoder as lab
from ndtwin.ports import free_port
from stream.consumer import Reader, committed_offsets
from stream.pipeline import PipelineSettings
from twin.records import DeadLetter, FlowReport, Heartbeat, Record

pytestmark = [pytest.mark.live, pytest.mark.kafka]
INVENTORY = """
network = "net"
[ipfix]
listen = "127.0.0.1:{port}"
processes = 3
[[devices]]
name = "WA"
address = "127.0.0.1"
ipfix = true
"""


def _settings(kafka: str, tmp_path: Path, **collect: object) -> Settings:
    return Settings(
        run_dir=str(tmp_path),
        broker=BrokerSettings(bootstrap=kafka),
        collect=msgspec.structs.replace(
            CollectSettings(inventory=str(tmp_path / "inventory.toml")), **collect
        ),
        pipeline=PipelineSettings(window_s=2.0),
    )


def _wait_for(look: Callable[[], bool], timeout_s: float = 60.0) -> None:
    until_s = time.monotonic() + timeout_s
    while not look():
        assert time.monotonic() < until_s, f"not within {timeout_s:g} s"
        time.sleep(0.2)


def _running(kafka: str) -> set[str]:
    beats = records_in(kafka, "ndt.health", Heartbeat)
    return {
        beat.component
        for beat in beats
        if beat.component.startswith("collect-flows-") and beat.state == "running"
    }


def test_workers_share_the_port_and_are_started_again(kafka: str, tmp_path: Path) -> None:
    """What many exporters' ports send is counted once, by two processes; one that is killed comes back."""
    port = free_port(socket.SOCK_DGRAM)
    text = INVENTORY.format(port=port)
    (tmp_path / "inventory.toml").write_text(text)
    settings = _settings(kafka, tmp_path)
    with FlowWorkers(settings, parse_inventory(text)) as workers:
        _wait_for(lambda: _running(kafka) == {"collect-flows-1", "collect-flows-2"})
        before = workers.pids
        sent = sum(_send_flow(port) for _ in range(20))
        _wait_for(lambda: sum(_octets(kafka)) == sent)
        reports = [r for r in records_in(kafka, "ndt.flows", FlowReport) if r.cells]
        assert {flag for r in reports for flag in r.quality} >= {"supplement-worker-1", "supplement-worker-2"}
        os.kill(before[0], signal.SIGKILL)
        _wait_for(lambda: _checked(workers) and len(workers.pids) == 2 and workers.pids != before)
    assert workers.pids == []
    assert list((tmp_path / "flow-templates").glob("*.json"))


def _checked(workers: FlowWorkers) -> bool:
    workers.check()
    return True


def _send_flow(port: int) -> int:
    """One flow from a port of its own; its octets."""
    now_s = int(time.time())
    record = np.zeros(1, lab.INGRESS_RECORD)
    record["destination"], record["destination_prefix"] = 0x0A020000, 16
    record["octets"], record["packets"] = 1500, 1
    record["start_ms"] = record["end_ms"] = int(time.time() * 1000)
    encoder = lab.Encoder(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        sender.sendto(encoder.templates(now_s), ("127.0.0.1", port))
        for datagram in encoder.records(now_s, lab.INGRESS_TEMPLATE, record):
            sender.sendto(datagram, ("127.0.0.1", port))
    return 1500


def _octets(kafka: str) -> list[float]:
    reports = records_in(kafka, "ndt.flows", FlowReport)
    return [cell.octets for report in reports if report.network == "net" for cell in report.cells]


async def test_the_topics_of_pmacct_and_goflow2_are_read(kafka: str, tmp_path: Path) -> None:
    """From their messages to our reports; what cannot be read is a dead letter with its place."""
    names = ("theirs.pmacct", "theirs.goflow2")
    admin = AdminClient({"bootstrap.servers": kafka})
    for future in admin.create_topics([NewTopic(name, 1) for name in names]).values():
        future.result(20)
    topics = (FlowTopic(topic=names[0], format="pmacct"), FlowTopic(topic=names[1], format="goflow2"))
    settings = _settings(kafka, tmp_path, flow_topics=topics)
    log: list[Record] = []
    inventory = parse_inventory(INVENTORY.format(port=4739))
    stats = CollectorStats()
    task = asyncio.create_task(run_flow_topics(settings, inventory, log.append, stats))
    producer, began_s = Producer({"bootstrap.servers": kafka}), time.monotonic()
    while stats.flow_records < 2 or stats.undecoded_datagrams < 1:  # the reader begins at the end, some time
        assert time.monotonic() < began_s + 60
        await asyncio.to_thread(_produce, producer, names)
    while _destinations(log) != {"10.2.0.1/32", "10.3.0.1/32"}:
        assert time.monotonic() < began_s + 60
        await asyncio.sleep(0.2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    letters = {letter.source: letter for letter in log if isinstance(letter, DeadLetter)}
    assert letters[names[0]].payload == b"broken"
    assert letters[names[0]].offset >= 0


def _destinations(log: list[Record]) -> set[str]:
    return {cell.destination for r in log if isinstance(r, FlowReport) for cell in r.cells}


def _produce(producer: Producer, names: tuple[str, str]) -> None:
    now_s = time.time()
    theirs = {"peer_ip_src": "127.0.0.1", "ip_dst": "10.2.0.1", "bytes": 46000, "packets": 46}
    theirs |= {"timestamp_start": f"{now_s:.6f}", "timestamp_end": f"{now_s:.6f}"}
    producer.produce(names[0], json.dumps(theirs).encode())
    producer.produce(names[0], b"broken")
    others = {"sampler_address": "127.0.0.1", "dst_addr": "10.3.0.1", "bytes": 10000, "packets": 10}
    others |= {"time_flow_start_ns": int(now_s * 1e9), "time_flow_end_ns": int(now_s * 1e9)}
    producer.produce(names[1], json.dumps(others).encode())
    producer.flush(10)
    time.sleep(0.5)


# ----------------------------------------------------------------------------------- a real nfacctd, restarts


@pytest.fixture
def nfacctd(kafka: str, tmp_path: Path, need_tool: Callable[[str], str]) -> Iterator[Callable[[], int]]:
    """pmacct's nfacctd, which writes what softflowd exports to a topic; a call exports a capture anew."""
    tool, softflowd, port = need_tool("nfacctd"), need_tool("softflowd"), free_port(socket.SOCK_DGRAM)
    host, _, kafka_port = kafka.partition(":")
    octets = write_pcap(tmp_path / "packets.pcap")
    text = NFACCTD.format(port=port, host=host, kafka_port=kafka_port)
    (tmp_path / "nfacctd.conf").write_text(text)
    # Debian's librdkafka (2.0.2) misreads the embedded broker's list of versions; the wheel's does not.
    [library] = (Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs").glob("librdkafka-*")
    with (tmp_path / "nfacctd.log").open("wb") as log:
        process = subprocess.Popen(
            [tool, "-f", str(tmp_path / "nfacctd.conf")],
            env={**os.environ, "LD_PRELOAD": str(library)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def export() -> int:
        command = [softflowd, "-r", str(tmp_path / "packets.pcap"), "-n", f"127.0.0.1:{port}"]
        subprocess.run(
            [*command, "-v", "10", "-d", "-c", "none"], check=True, capture_output=True, timeout=60
        )
        return octets

    try:
        _wait_for(lambda: b"waiting for NetFlow" in (tmp_path / "nfacctd.log").read_bytes())
        yield export
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its plugins are processes of their own
        process.wait(20)


NFACCTD = """
daemonize: false
nfacctd_ip: 127.0.0.1
nfacctd_port: {port}
plugins: kafka[k]
kafka_topic[k]: theirs.nfacctd
kafka_broker_host[k]: {host}
kafka_broker_port[k]: {kafka_port}
kafka_output[k]: json
kafka_refresh_time[k]: 1
aggregate[k]: peer_src_ip, dst_host, dst_mask, tos, in_iface, sampling_rate, timestamp_start, timestamp_end
timestamps_utc: true
"""


async def test_what_a_real_nfacctd_writes_is_counted_once_over_a_restart(
    kafka: str, tmp_path: Path, nfacctd: Callable[[], int]
) -> None:
    """Octet for octet: what comes while the collector runs, while it is away, and after it came back."""
    _make_topic(kafka, "theirs.nfacctd")
    settings = _settings(kafka, tmp_path, flow_topics=(FlowTopic(topic="theirs.nfacctd", format="pmacct"),))
    log: list[Record] = []
    async with _reading(settings, log):
        sent = await asyncio.to_thread(nfacctd)
        await _until(lambda: _sum(log) == sent)
    sent += await asyncio.to_thread(nfacctd)
    await _until(lambda: _written(kafka, "theirs.nfacctd") == 2 * _FLOWS)
    async with _reading(settings, log):
        sent += await asyncio.to_thread(nfacctd)
        await _until(lambda: _sum(log) >= sent)
        await asyncio.sleep(2.5)  # a bin and more
    assert _sum(log) == sent
    assert [r for r in log if isinstance(r, DeadLetter)] == []
    assert _sum_of(log, "2001:db8:1::1/128") > 0


def test_what_was_not_reported_is_read_again_after_a_crash(kafka: str, tmp_path: Path) -> None:
    """Reading ends without a word in the middle of a bin, twice: the successor misses no flow."""
    topic = "theirs.crash"
    _make_topic(kafka, topic, partitions=2)
    settings = _settings(kafka, tmp_path, flow_topics=(FlowTopic(topic=topic, format="pmacct"),))
    log: list[Record] = []
    producer = Producer({"bootstrap.servers": kafka})

    def opened(delivered: bool = True) -> TopicReading:
        inventory = parse_inventory(INVENTORY.format(port=4739))
        reading = settings.collect.flow_topics[0], settings, inventory, log.append, CollectorStats()
        return TopicReading(*reading, lambda: delivered)

    def read(reading: TopicReading, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            reading.step()

    first = opened()
    _put(producer, topic, range(40))  # written before anything was read, but after the group was made
    read(first, 8.0)
    _put(producer, topic, range(40, 60))
    read(first, 0.7)
    first.abandon()
    _put(producer, topic, range(60, 80))
    unheard = opened(delivered=False)  # and one whose reports never arrived
    read(unheard, 8.0)
    unheard.abandon()
    del log[:]
    last = opened()
    read(last, 8.0)
    last.finish()
    found = {destination for r in log if isinstance(r, FlowReport) for destination in _hosts(r)}
    assert found >= {f"10.9.0.{i}/32" for i in range(40, 80)}
    assert not found & {f"10.9.0.{i}/32" for i in range(20)}  # those are done with, and not counted again


def test_a_backlog_becomes_the_reports_of_its_time(kafka: str, tmp_path: Path) -> None:
    """Two hours in which nobody read: each flow is in the bin in which it was seen."""
    topic = "theirs.backlog"
    _make_topic(kafka, topic)
    settings = _settings(kafka, tmp_path, flow_topics=(FlowTopic(topic=topic, format="pmacct"),))
    first_offsets(kafka, f"ndtwin-flows.net.{topic}", topic)
    producer, now_s = Producer({"bootstrap.servers": kafka}), int(time.time())
    stamps = [now_s - 7200 + 60 * i for i in range(100)]
    for i, stamp in enumerate(stamps):
        producer.produce(topic, _pmacct(i, stamp), timestamp=1000 * (stamp + 1))
    producer.flush(20)
    log: list[Record] = []
    inventory = parse_inventory(INVENTORY.format(port=4739))
    reading = TopicReading(
        settings.collect.flow_topics[0], settings, inventory, log.append, CollectorStats(), lambda: True
    )
    _wait_for(lambda: reading.step() or len(_bins(log)) == len(stamps))  # type: ignore[func-returns-value]  # None, then the comparison
    reading.finish()
    assert _bins(log) == {f"10.9.0.{i}/32": stamp for i, stamp in enumerate(stamps)}
    assert all("flow-times" not in r.quality for r in log if isinstance(r, FlowReport))


def _bins(log: list[Record]) -> dict[str, int]:
    """Destination → start of its bin, in seconds (bins are one second long here)."""
    return {host: r.start_ns // 10**9 for r in log if isinstance(r, FlowReport) for host in _hosts(r)}


def _hosts(report: FlowReport) -> list[str]:
    return [cell.destination for cell in report.cells]


def _pmacct(i: int, stamp: float) -> bytes:
    flow = {"peer_ip_src": "127.0.0.1", "ip_dst": f"10.9.0.{i}", "bytes": 1000, "packets": 1}
    return json.dumps(flow | {"timestamp_start": f"{stamp:.6f}", "timestamp_end": f"{stamp:.6f}"}).encode()


def _put(producer: Producer, topic: str, numbers: range) -> None:
    for i in numbers:
        producer.produce(topic, _pmacct(i, time.time()), partition=i % 2)
    producer.flush(20)


_FLOWS = 20  # of the capture


def _make_topic(kafka: str, name: str, partitions: int = 1) -> None:
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_topics([NewTopic(name, partitions)])[name].result(20)


def _written(kafka: str, topic: str) -> int:
    with Reader(kafka, [topic]) as reader:
        return sum(1 for _ in reader.iterate_to_end(20))


@asynccontextmanager
async def _reading(settings: Settings, log: list[Record]) -> AsyncIterator[None]:
    """A collector of flow topics, told to stop at the end."""
    inventory = parse_inventory(INVENTORY.format(port=4739))
    task = asyncio.create_task(run_flow_topics(settings, inventory, log.append, CollectorStats()))
    [topic] = settings.collect.flow_topics
    group = f"ndtwin-flows.net.{topic.topic}"
    await _until(lambda: bool(committed_offsets(settings.bootstrap, group, [topic.topic])))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _until(look: Callable[[], bool]) -> None:
    await asyncio.to_thread(_wait_for, look)


def _sum(log: list[Record]) -> float:
    return sum(cell.octets for r in log if isinstance(r, FlowReport) for cell in r.cells)


def _sum_of(log: list[Record], destination: str) -> float:
    cells = (cell for r in log if isinstance(r, FlowReport) for cell in r.cells)
    return sum(cell.octets for cell in cells if cell.destination == destination)
