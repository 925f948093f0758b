"""How fast flow export becomes a traffic matrix, beside nfdump's tools (Debian) and netflow (PyPI).

Three measurements on the same datagrams, in seconds of processor time of one core, so that what else the
machine does counts little:

1. From memory, where the datagrams lie as they come from a socket: every record decoded, scaled, spread over
   time bins, summed and reported (``records_per_s``).
2. The PyPI package ``netflow``: it decodes, and does nothing else (``vs_netflow`` compares the two).
3. Through a loopback socket: our listener as it runs in production, in a process of its own, and nfcapd,
   each fed by the same sender, no faster than it reads, so that nothing is lost. Both run on for days, so
   what they need at first is left out: a part of the datagrams comes before the measurement. Ours is then
   measured until the last report is made, nfcapd until its file is complete.

nfcapd receives, decodes and stores; it sums nothing. nfdump then sums the same cells from the file. So

    vs_nfcapd        (nfcapd + nfdump) / ours: the same work on both sides, from datagrams to sums
    vs_nfcapd_alone  nfcapd / ours: our summing and reporting against no summing at all

All of them must come to the same number of octets.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from collectors.flows.aggregate import FlowAggregator
from collectors.flows.burst import Burst, feed_burst
from collectors.flows.decoder import Exporter, FlowSession
from collectors.flows.settings import FlowTable
from collectors.listener import FlowListener
from collectors.receive import SLOTS
from collectors.stats import CollectorStats
from ndtwin.lab import ipfix_encoder as lab
from ndtwin.ports import free_port
from twin.errors import PeerError
from twin.records import FlowReport, Record

BIN_NS = 5_000_000_000
DOMAINS = 4
EXPORTER = "127.0.0.1"
TURNS = 5
NETFLOW_RECORDS = 20_000  # enough for a slow one
WARM_UP = 0.2  # of the datagrams, before what is measured
_SETTLE_S = 0.1  # what has been read is being worked on
_MAX_QUEUED = 2_000_000  # octets in a receive queue before the sender waits: some ten milliseconds


@dataclass(frozen=True)
class Corpus:
    """Datagrams and what is in them."""

    datagrams: list[bytes]
    records: int
    octets: int
    ended_at_ns: int


def corpus(records: int, seed: int = 1) -> Corpus:
    """Ten seconds of flows of four line cards: 300 prefixes, three classes, eight interfaces.

    They end a little ahead of now, so that no bin closes before all have come.
    """
    random, now_s = np.random.default_rng(seed), int(time.time()) + 30
    rows = np.zeros(records, lab.INGRESS_RECORD)
    rows["source"] = 0x0A000000 | random.integers(0, 2**20, records)
    rows["destination"] = 0x0A000000 + random.integers(0, 300 << 16, records)
    rows["source_prefix"] = rows["destination_prefix"] = 16
    rows["protocol"], rows["source_port"] = 17, random.integers(1024, 65536, records)
    rows["destination_port"] = 443
    rows["tos"] = random.choice([0, 0, 0, 46 << 2, 10 << 2], records)
    rows["ingress_interface"] = random.integers(1, 9, records)
    rows["packets"] = random.integers(1, 1000, records)
    rows["octets"] = rows["packets"] * random.integers(64, 1500, records)
    rows["end_ms"] = (now_s - 10) * 1000 + np.arange(records) * 10_000 // records
    rows["start_ms"] = rows["end_ms"] - random.integers(0, 1000, records).astype(np.uint64)
    cards = [lab.Encoder(domain) for domain in range(1, DOMAINS + 1)]
    streams = [
        [card.templates(now_s), *card.records(now_s, lab.INGRESS_TEMPLATE, rows[i::DOMAINS])]
        for i, card in enumerate(cards)
    ]
    longest = max(len(stream) for stream in streams)
    mixed = [stream[k] for k in range(longest) for stream in streams if k < len(stream)]
    return Corpus(mixed, records, int(rows["octets"].sum()), now_s * 1_000_000_000)


def bench_ipfix(records: int = 1_000_000, *, watch: Callable[[str], None] = print) -> dict[str, float]:
    """``records_per_s``; ``vs_netflow`` and ``vs_nfcapd`` where those are installed."""
    flows = corpus(records)
    figures: dict[str, float] = {"records": records, "datagrams": len(flows.datagrams)}
    figures |= _ours(flows)
    if importlib.util.find_spec("netflow"):
        figures |= _netflow(flows)
        figures["vs_netflow"] = figures["records_per_s"] / figures["netflow_records_per_s"]
    else:
        watch("netflow is not compared with: install it by `pip install 'ndtwin[dev]'`")
    if shutil.which("nfcapd") and shutil.which("nfdump"):
        figures |= _over_loopback(flows)
    else:
        watch("nfcapd is not compared with: install the Debian package nfdump")
    return figures


# --------------------------------------------------------------------------------------------- from memory


def _ours(flows: Corpus) -> dict[str, float]:
    spent_s, cells = min(_decode_and_sum(flows) for _ in range(TURNS))
    return {"records_per_s": flows.records / spent_s, "cells": cells}


def _decode_and_sum(flows: Corpus) -> tuple[float, int]:
    """(processor seconds, cells), from datagrams to reports."""
    session, sums = FlowSession(), FlowAggregator("bench", {EXPORTER: "R"}, bin_ns=BIN_NS)
    longest = max(map(len, flows.datagrams))
    slots = np.zeros((len(flows.datagrams), longest), np.uint8)
    for slot, datagram in zip(slots, flows.datagrams, strict=True):
        slot[: len(datagram)] = np.frombuffer(datagram, np.uint8)
    sizes = np.array([len(datagram) for datagram in flows.datagrams], dtype=np.int64)
    senders, exporters = np.zeros(SLOTS, np.int64), list[Exporter]([(EXPORTER, 4739)])
    began = time.process_time()
    for start in range(0, len(sizes), SLOTS):
        some = sizes[start : start + SLOTS]
        burst = Burst(slots[start : start + SLOTS], some, senders[: len(some)], exporters)
        if feed_burst(session, burst):
            raise PeerError("not every datagram was decoded: the figures compare nothing")
        for batch in session.take():
            sums.add(batch, flows.ended_at_ns)
    reports = sums.close(flows.ended_at_ns + 2 * BIN_NS)
    spent_s = time.process_time() - began
    _must_agree(flows, _octets(reports), "ndtwin")
    return spent_s, sum(len(report.cells) for report in reports if isinstance(report, FlowReport))


def _octets(records: list[Record]) -> float:
    return sum(cell.octets for report in records if isinstance(report, FlowReport) for cell in report.cells)


def _must_agree(flows: Corpus, octets: float, who: str) -> None:
    if abs(octets - flows.octets) > 1e-9 * flows.octets:
        raise PeerError(f"{who} counted {octets:.0f} octets of {flows.octets}: the figures compare nothing")


def _netflow(flows: Corpus) -> dict[str, float]:
    import netflow

    templates: dict[str, dict[object, object]] = {"netflow": {}, "ipfix": {}}
    some, found = flows.datagrams[: NETFLOW_RECORDS // 20], 0
    began = time.process_time()
    for datagram in some:
        found += len(netflow.parse_packet(datagram, templates).flows)
    return {"netflow_records_per_s": found / (time.process_time() - began)}


# ------------------------------------------------------------------------------------ through a socket


def _over_loopback(flows: Corpus) -> dict[str, float]:
    """The best of some turns each, taken in turn: whatever else runs disturbs both alike."""
    turns = [(_listener_seconds(flows), *_nfdump_turn(flows)) for _ in range(TURNS)]
    ours_s, nfcapd_s, nfdump_s = (min(turn[i] for turn in turns) for i in range(3))
    return {
        "listener_records_per_s": 1 / ours_s,
        "nfcapd_records_per_s": 1 / (nfcapd_s + nfdump_s),
        "nfcapd_alone_records_per_s": 1 / nfcapd_s,
        "vs_nfcapd": (nfcapd_s + nfdump_s) / ours_s,
        "vs_nfcapd_alone": nfcapd_s / ours_s,
    }


def _nfdump_turn(flows: Corpus) -> tuple[float, float]:
    with tempfile.TemporaryDirectory(prefix="ndtwin-bench-") as directory:
        return _nfcapd_seconds(flows, Path(directory)), _nfdump_seconds(flows, Path(directory))


def _measured(flows: Corpus) -> float:
    """The part of the datagrams that comes after the first ones."""
    return 1 - int(len(flows.datagrams) * WARM_UP) / len(flows.datagrams)


@contextlib.contextmanager
def _sender(port: int) -> Iterator[Callable[[list[bytes]], None]]:
    """Sends datagrams, no faster than they are read; PeerError when the kernel had to drop some."""
    # Both get the buffer that the system allows everybody; half of it is never filled.
    most = min(_MAX_QUEUED, int(Path("/proc/sys/net/core/rmem_max").read_text()) // 2)

    def send(datagrams: list[bytes]) -> None:
        for i, datagram in enumerate(datagrams):
            sender.send(datagram)
            if i % 16 == 0:
                _wait_until_read(port, most)
        _wait_until_read(port, 0)
        if dropped := _queue(port)[1]:
            raise PeerError(f"the kernel dropped {dropped} datagrams: raise net.core.rmem_max")

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect((EXPORTER, port))
        yield send


def _send(flows: Corpus, port: int, between: Callable[[], None]) -> None:
    """The first part, a word in between, and the rest."""
    first = int(len(flows.datagrams) * WARM_UP)
    with _sender(port) as send:
        send(flows.datagrams[:first])
        time.sleep(_SETTLE_S)
        between()
        send(flows.datagrams[first:])


def _wait_until_read(port: int, left: int) -> None:
    while _queue(port)[0] > left:
        time.sleep(0.0001)


def _queue(port: int) -> tuple[int, int]:
    """(octets that wait in the receive queue of a UDP port, datagrams dropped), from /proc/net/udp."""
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(f":{port:04X}"):
            return int(fields[4].split(":")[1], 16), int(fields[12])
    raise PeerError(f"nobody listens on port {port}")


def _listener_seconds(flows: Corpus) -> float:
    """Processor seconds of our listener for a record, in its own process, to the last report."""
    port, context = free_port(socket.SOCK_DGRAM), multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_listen, args=(port, theirs), daemon=True)
    process.start()
    try:
        ours.recv()
        before_s = list[float]()
        _send(flows, port, lambda: before_s.append(_cpu_s(process.pid or 0)))
        ours.send("all sent")
        after_s, octets = ours.recv()
    finally:
        process.join(10)
    _must_agree(flows, octets, "the listener")
    return float(after_s - before_s[0]) / (flows.records * _measured(flows))


def _listen(port: int, pipe: Connection) -> None:
    asyncio.run(_listen_until_told(port, pipe))


async def _listen_until_told(port: int, pipe: Connection) -> None:
    emitted: list[Record] = []
    ahead_ns = [0]
    table = FlowTable(listen=f"{EXPORTER}:{port}")
    listener = FlowListener(
        "bench",
        {EXPORTER: "R"},
        emitted.append,
        CollectorStats(),
        table=table,
        bin_ns=BIN_NS,
        clock=lambda: time.time_ns() + ahead_ns[0],
    )
    task = asyncio.create_task(listener.run())
    await asyncio.sleep(0.3)
    pipe.send("ready")
    await asyncio.to_thread(pipe.recv)
    ahead_ns[0] = 10 * BIN_NS  # all bins are over
    listener.tick()
    pipe.send((time.process_time(), _octets(emitted)))
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _nfcapd_seconds(flows: Corpus, directory: Path) -> float:
    """Processor seconds of nfcapd for a record, to the end of its file."""
    port = free_port(socket.SOCK_DGRAM)
    command = ["nfcapd", "-b", EXPORTER, "-p", str(port), "-w", str(directory), "-B", "4000000", "-t", "3600"]
    with _running(command) as process:
        _wait_for_socket(port)
        before_s = list[float]()
        _send(flows, port, lambda: before_s.append(_cpu_s(process.pid)))
        process.send_signal(signal.SIGTERM)
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
    spent_s = usage.ru_utime + usage.ru_stime - before_s[0]
    return spent_s / (flows.records * _measured(flows))


@contextlib.contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            process.wait()


def _wait_for_socket(port: int) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with contextlib.suppress(PeerError):
            _queue(port)
            time.sleep(0.2)  # the rest of its start
            return
        time.sleep(0.02)
    raise PeerError("nfcapd does not listen within 10 s")


def _cpu_s(pid: int) -> float:
    """Processor time of a process so far (clock_getcpuclockid(3), as Linux numbers these clocks)."""
    return time.clock_gettime(~pid << 3 | 2)


def _nfdump_seconds(flows: Corpus, directory: Path) -> float:
    """Processor seconds for a record that nfdump takes to sum what nfcapd stored into cells like ours."""
    before = os.times()
    command = ["nfdump", "-R", str(directory), "-A", "dstip4/16,tos,inif", "-q", "-o", "fmt:%byt", "-N"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    after = os.times()
    octets = sum(int(line) for line in done.stdout.split() if line.isdecimal())
    _must_agree(flows, octets, "nfdump")
    spent_s = after.children_user + after.children_system - before.children_user - before.children_system
    return spent_s / flows.records
