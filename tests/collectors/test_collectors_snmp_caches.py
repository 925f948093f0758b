"""Debian's snmpd with a longer cache than the poll's period, and real traffic: what is believed of it."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from collector_peers import inventory_of, running_snmpd

from collectors.snmp.open import Shared, open_engine
from collectors.snmp.poller import SnmpPoller
from collectors.targets import SnmpWork
from stream.rates import CounterSeries, RateRules
from twin.records import DeviceSample, InterfaceCounters, NetworkEvent, Record

S = 1_000_000_000
PERIOD_S, CACHE_S = 1.0, 5
CACHE_TIMEOUT = "1.3.6.1.4.1.8072.1.5.3.1.2.1.3.6.1.2.1.2.2"  # nsCacheTimeout of ifTable, NET-SNMP-AGENT-MIB
OCTETS, BURST, GAP_S = 1000, 25, 0.05  # 500 datagrams a second over the loopback interface


async def _traffic() -> None:
    """A steady load on ``lo`` until cancelled."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as source,
    ):
        sink.bind(("127.0.0.1", 0))
        source.connect(sink.getsockname())
        due_s = time.monotonic()
        while True:
            for _ in range(BURST):
                source.send(bytes(OCTETS))
            due_s += GAP_S
            await asyncio.sleep(max(due_s - time.monotonic(), 0))


def _out_octets() -> int:
    """What the kernel has counted out of ``lo`` by now."""
    line = next(one for one in Path("/proc/net/dev").read_text().splitlines() if "lo:" in one)
    return int(line.split()[9])


def _refresh_seldom(snmpset: str, port: int) -> None:
    command = [snmpset, "-v2c", "-c", "writer", f"127.0.0.1:{port}", CACHE_TIMEOUT, "i", str(CACHE_S)]
    subprocess.run(command, check=True, capture_output=True, env={"MIBS": ""})


async def _collect(work: SnmpWork, polls: int) -> list[int]:
    """Poll on time; the kernel's own counts at each poll."""
    truth, due_s = [], time.monotonic()
    for _ in range(polls):
        await work.poll()
        truth.append(_out_octets())
        due_s += PERIOD_S
        await asyncio.sleep(max(due_s - time.monotonic(), 0))
    return truth


def _rates(samples: list[DeviceSample], start_ns: int, end_ns: int) -> tuple[float | None, set[str]]:
    series = CounterSeries()
    for number, one in enumerate(samples):  # lo says 10 Mbit/s, which is nothing for who else uses it
        ports = tuple(msgspec.structs.replace(port, speed_bps=None) for port in one.interfaces)
        series.add(msgspec.structs.replace(one, interfaces=ports), bytes([number]))
    found, flags = series.rates(start_ns, end_ns, RateRules())
    return (found["lo"].out_bps if "lo" in found else None), flags


def counts(port: InterfaceCounters) -> tuple[int | None, ...]:
    """All that lo counts."""
    return port.in_octets, port.out_octets, port.in_packets, port.out_packets


async def test_snmpds_cache_makes_no_rate_of_nothing_and_no_spike(
    shared: Shared, tmp_path: Path, need_tool: Callable[[str], str]
) -> None:
    """Polled five times a refresh: standing rows are stale, and the rates between them true."""
    snmpset, told = need_tool("snmpset"), list[Record]()
    with running_snmpd(need_tool("snmpd"), tmp_path, "rwcommunity writer 127.0.0.1\n") as port:
        _refresh_seldom(snmpset, port)
        access = f'{{ port = {port}, credentials = "v2c" }}'
        inventory = inventory_of(f'name = "R"\naddress = "127.0.0.1"\nsnmp = {access}')
        engine = open_engine(inventory, inventory.devices[0], shared, timeout_s=0.5)
        poller = SnmpPoller("net", "R", engine, engine, time.time_ns)
        work = SnmpWork(poller, told.append, asyncio.Event(), int(PERIOD_S * S))
        traffic = asyncio.create_task(_traffic())
        try:
            truth = await _collect(work, 5 * CACHE_S)
        finally:
            traffic.cancel()
            engine.close()
    samples = [one for one in told if isinstance(one, DeviceSample)]
    loopback = [next(port for port in one.interfaces if port.name == "lo") for one in samples]
    # lo sends as much as it receives: where some counters stand, the agent refreshed while it was read
    stood = [any(x == y for x, y in zip(counts(a), counts(b), strict=True)) for a, b in pairwise(loopback)]
    assert sum(stood) > len(stood) / 2  # it does cache
    moves = [n for n, still in enumerate(stood) if not still]
    assert [one.stale for one in loopback[1:]][moves[1] :] == stood[moves[1] :]
    assert all(("stale" in one.quality) == port.stale for one, port in zip(samples, loopback, strict=True))
    measured = 0
    for first, last in pairwise([n for n, port in enumerate(loopback) if not port.stale][1:]):
        start_ns, end_ns = samples[first].observed_at_ns, samples[last].observed_at_ns
        advance = (loopback[last].out_octets or 0) - (loopback[first].out_octets or 0)
        mean_bps = 8 * advance / (end_ns - start_ns) * S
        rate_bps, flags = _rates(samples, start_ns, end_ns)
        assert rate_bps == pytest.approx(mean_bps)
        assert flags == {"stale:R"}
        assert _rates(samples, start_ns, samples[last - 1].observed_at_ns) == (None, {"stale:R"})
        measured += mean_bps > 8 * OCTETS * BURST / GAP_S / 2
    assert measured >= 3
    first, *_, last = [n for n, port in enumerate(loopback) if not port.stale][1:]
    counted = (loopback[last].out_octets or 0) - (loopback[first].out_octets or 0)
    assert 0.5 * (truth[last] - truth[first]) < counted < 2 * (truth[last] - truth[first])
    events = [(one.kind, one.detail) for one in told if isinstance(one, NetworkEvent)]
    assert all("counters move every" in detail for _, detail in events)  # if two interfaces are busy
