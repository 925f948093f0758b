"""The lab's IPFIX: layouts and sequence numbers here, the totals by nfdump."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ndtwin.lab import ipfix_encoder as ipfix
from ndtwin.lab.addressing import Addressing
from ndtwin.lab.flows import FlowPlan
from ndtwin.lab.ipfix_exporter import Exporters, RecordMaker
from ndtwin.lab.second import Second
from ndtwin.lab.sim import Driver
from ndtwin.ports import free_address_block, free_port
from twin.network import canonical_ends
from twin.scenarios import LAB_SIZES
from twin.simulator import FlowDelays
from twin.topologies import nsfnet
from twin.workload import Flow

NOW_NS = 1_800_000_000_000_000_000
SECOND_NS = 1_000_000_000


def make_driver(base: str = "127.31.0.0") -> tuple[Driver, Addressing]:
    """A driver of NSFNET that is not started."""
    network = nsfnet().network()
    traffic = tuple(Flow(int(s), int(d), 20.0, LAB_SIZES) for s, d in zip(*canonical_ends(14), strict=True))
    addressing = Addressing(14, Addressing(1).base.__class__(base))
    plan = FlowPlan(network, traffic, 4.0, 8000.0)
    return Driver(plan, lambda time_s: np.full(182, 20.0), seed=3, addressing=addressing), addressing


def played_second(driver: Driver, start_ns: int = NOW_NS) -> Second:
    """One second of the simulator by hand."""
    sim = driver.simulator
    packets, octets = sim.sent_packets.copy(), sim.sent_octets.copy()
    sim.advance(sim.now_s + 1.0)
    sent, volume = sim.sent_packets - packets, sim.sent_octets - octets
    return Second(start_ns, start_ns + SECOND_NS, sent, volume, sim.take_delays(), driver.routed)


def parse(message: bytes) -> tuple[tuple[int, ...], list[tuple[int, bytes]]]:
    """(header fields, [(set id, body)]) by the book: RFC 7011 sections 3.1 and 3.3.2."""
    header = struct.unpack_from("!HHIII", message)
    assert header[0] == 10
    assert header[1] == len(message)
    sets, at = [], 16
    while at < len(message):
        set_id, length = struct.unpack_from("!HH", message, at)
        sets.append((set_id, message[at + 4 : at + length]))
        at += length
    assert at == len(message)
    return header, sets


def test_templates_describe_the_records() -> None:
    """Every template's field lengths sum up to the size of the records behind it."""
    _, sets = parse(ipfix.Encoder(5).templates(1))
    (_, body), (options_id, options), (sampling_id, sampler) = sets
    assert (options_id, sampling_id) == (3, 258)
    sizes, at = {}, 0
    while at < len(body):
        template, count = struct.unpack_from("!HH", body, at)
        fields = [struct.unpack_from("!HH", body, at + 4 + 4 * i) for i in range(count)]
        sizes[template] = sum(length for _, length in fields)
        at += 4 + 4 * count
    assert sizes == {256: ipfix.INGRESS_RECORD.itemsize, 257: ipfix.DELAY_RECORD.itemsize}
    assert struct.unpack_from("!HHHHH", options) == (258, 4, 1, 302, 8)  # one scope field: selectorId
    assert struct.unpack("!QHII", sampler) == (1, 1, 1, 0)  # every packet is taken


def test_sequence_counts_data_records_only() -> None:
    """The sequence number is that of the message's first record; templates do not count (RFC 7011 3.1)."""
    encoder = ipfix.Encoder(5, sequence=2**32 - 2)
    first, _ = parse(encoder.templates(1))
    assert first[3:] == (2**32 - 2, 5)
    records = np.zeros(40, ipfix.INGRESS_RECORD)
    headers = [parse(message)[0] for message in encoder.records(1, ipfix.INGRESS_TEMPLATE, records)]
    steps = [(1400 - 20) // ipfix.INGRESS_RECORD.itemsize]
    assert [header[3] for header in headers] == [2**32 - 1, *np.cumsum(steps) - 1]
    assert max(header[1] for header in headers) <= ipfix.MAX_MESSAGE_OCTETS
    assert encoder.sequence == 39


def test_records_are_big_endian_even_when_numpy_is_not() -> None:
    """A native-endian array, as numpy's concatenate makes it, goes out in network order."""
    native = np.zeros(1, ipfix.INGRESS_RECORD.newbyteorder("="))
    native["source"], native["octets"] = 0x0A010203, 1500
    (message,) = ipfix.Encoder(1).records(1, ipfix.INGRESS_TEMPLATE, native)
    _, ((_, body),) = parse(message)
    assert body.startswith(b"\x0a\x01\x02\x03")
    assert (1500).to_bytes(8, "big") in body


def test_ingress_records_count_what_was_sent() -> None:
    """All flows that were sent are told once, by the router where they enter, in packets and octets."""
    driver, addressing = make_driver()
    maker = RecordMaker(driver.world, driver.plan, addressing)
    second = played_second(driver)
    records = maker.records(second)
    shown = driver.plan.traffic_slice().stop + driver.plan.paths  # traffic and probes; hidden flows never
    assert sum(int(ingress["packets"].sum()) for ingress, _ in records) == second.sent_packets[:shown].sum()
    assert sum(int(ingress["octets"].sum()) for ingress, _ in records) == second.sent_octets[:shown].sum()
    for device, (ingress, delays) in zip(driver.devices, records, strict=True):
        assert set(ingress["direction"]) == {ipfix.INGRESS}
        assert set(delays["direction"]) == {ipfix.EGRESS}
        own = {int(device.router_id), int(addressing.customers(device.index).network_address) + 10}
        assert set(ingress["source"]) <= own
        assert set(delays["destination"]) <= own


def test_hidden_traffic_is_in_no_record() -> None:
    """Traffic that a fault hides changes no ingress record, while it loads links."""
    driver, addressing = make_driver()
    maker = RecordMaker(driver.world, driver.plan, addressing)
    driver.set_hidden_rate(0, 500.0)
    second = played_second(driver)
    assert second.sent_packets[driver.plan.hidden(0)] > 300
    told = sum(int(ingress["packets"].sum()) for ingress, _ in maker.records(second))
    assert told == second.sent_packets.sum() - second.sent_packets[driver.plan.hidden(0)]


def test_delay_records_carry_the_simulators_delays() -> None:
    """Mean, minimum, maximum and sum of a path are those of the simulator, in microseconds."""
    driver, addressing = make_driver()
    second = played_second(driver)
    records = RecordMaker(driver.world, driver.plan, addressing).records(second)
    path = 7
    source, destination = driver.network.path_ends(path)
    _, delays = records[destination]
    network = int(addressing.customers(source + 1).network_address) + 10
    (row,) = delays[delays["source"] == network]
    assert row["packets"] == second.delays.count[path]
    for name, values in (
        ("mean", second.delays.mean_s),
        ("min", second.delays.min_s),
        ("max", second.delays.max_s),
    ):
        assert row[f"delay_{name}_us"] == round(values[path] * 1e6)
    assert row["delay_sum_us"] == pytest.approx(row["packets"] * second.delays.mean_s[path] * 1e6, abs=1)


def test_sampling_takes_every_nth_packet() -> None:
    """Over many seconds one packet in n is told, and the options record says n."""
    driver, addressing = make_driver()
    maker = RecordMaker(driver.world, driver.plan, addressing, sampling_ratio=10)
    told = sent = 0
    for second in (played_second(driver) for _ in range(20)):
        told += sum(int(ingress["packets"].sum()) for ingress, _ in maker.records(second))
        sent += int(second.sent_packets.sum())
    assert told == pytest.approx(sent / 10, rel=0.02)
    _, sets = parse(ipfix.Encoder(1, sampling_ratio=10).templates(1))
    assert struct.unpack("!QHII", sets[2][1])[2:] == (1, 9)


def test_silent_flows_have_no_records() -> None:
    """A flow without packets in a second is not exported."""
    driver, addressing = make_driver()
    nothing = np.zeros(3 * 182, dtype=np.int64)
    zeros = np.zeros(3 * 182)
    empty = FlowDelays(nothing, zeros, zeros, zeros, zeros)
    second = Second(NOW_NS, NOW_NS + SECOND_NS, nothing, nothing, empty, driver.routed)
    records = RecordMaker(driver.world, driver.plan, addressing).records(second)
    assert sum(len(part) for pair in records for part in pair) == 0


@pytest.mark.live
async def test_nfdump_adds_up_to_the_same_totals(tmp_path: Path, need_tool: Callable[[str], str]) -> None:
    """nfcapd and nfdump decode every exporter; flows, packets and octets are those of the simulator."""
    nfcapd, nfdump = need_tool("nfcapd"), need_tool("nfdump")
    base = free_address_block()
    driver, addressing = make_driver(base)
    port = free_port(socket.SOCK_DGRAM)
    (tmp_path / "flows").mkdir()
    collector = await asyncio.create_subprocess_exec(
        nfcapd, "-b", "127.0.0.1", "-p", str(port), "-w", str(tmp_path / "flows"), "-B", "4000000",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    exporters = Exporters(driver.world, RecordMaker(driver.world, driver.plan, addressing), addressing, 1)
    seconds = []
    try:
        await asyncio.sleep(1.0)  # nfcapd tells nobody when it listens
        for i in range(3):
            seconds.append(played_second(driver, NOW_NS + i * SECOND_NS))
            await exporters.export(seconds[-1], ("127.0.0.1", port))
        await asyncio.sleep(0.5)
    finally:
        exporters.close()
        collector.send_signal(signal.SIGTERM)
        await collector.wait()
    process = await asyncio.create_subprocess_exec(
        nfdump, "-R", str(tmp_path / "flows"), "-q", "-o", "fmt:%sa %da %pkt %byt %in %out %sp",
        "src net 10.0.0.0/8", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    rows = [line.split() for line in out.decode().splitlines() if re.match(r"\s*10\.", line)]
    told = [row for row in rows if int(row[3]) > 0]  # on-path delay records carry no octets
    sent = sum(second.sent_packets for second in seconds)
    volume = sum(second.sent_octets for second in seconds)
    assert sum(int(row[2]) for row in told) == sent.sum()
    assert sum(int(row[3]) for row in told) == volume.sum()
    source, destination = driver.network.path_ends(7)
    ends = [str(addressing.customers(node + 1).network_address + 10) for node in (source, destination)]
    assert sum(int(row[2]) for row in told if row[:2] == ends) == sent[7]
