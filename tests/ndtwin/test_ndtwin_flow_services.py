"""Flows through Kafka: several processes on one port, and the topics of other collectors."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from topics_seen import records_in

from collectors.inventory import parse_inventory
from collectors.stats import CollectorStats
from ndtwin.config import BrokerSettings, CollectSettings, FlowTopic, Settings
from ndtwin.flow_topics import run_flow_topics
from ndtwin.flow_workers import FlowWorkers
from ndtwin.lab import ipfix_encoder as lab
from ndtwin.ports import free_port
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
