"""The flow listener on real sockets: TCP, a port shared, templates kept, one event a fault."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import structlog
from collector_peers import eventually, free_udp_port
from ipfix_bytes import EXAMPLE, EXAMPLE_DATA_SET, EXAMPLE_TEMPLATE, any_set, message, template

from collectors import listener as module
from collectors.flows.decoder import MAX_HELD_SETS
from collectors.flows.settings import FlowTable
from collectors.listener import FlowListener, Share
from collectors.receive import SLOTS, open_socket, receiver_of
from collectors.stats import CollectorStats
from ndtwin.lab import ipfix_encoder as lab
from twin.errors import InventoryError
from twin.records import DeadLetter, FlowReport, NetworkEvent, Record

S = 1_000_000_000
DEVICES = {"127.0.0.1": "WA", "127.0.0.2": "CA"}


def _listener(
    emit: list[Record],
    stats: CollectorStats,
    port: int,
    *,
    tcp: bool = False,
    share: Share | None = None,
    clock: Callable[[], int] = time.time_ns,
) -> FlowListener:
    table = FlowTable(listen=f"127.0.0.1:{port}", tcp=tcp)
    return FlowListener("net", DEVICES, emit.append, stats, table=table, bin_ns=S, clock=clock, share=share)


@asynccontextmanager
async def _running(*listeners: FlowListener) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(one.run()) for one in listeners]
    await asyncio.sleep(0.1)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _connect(port: int, source: str = "127.0.0.1") -> asyncio.StreamWriter:
    for _ in range(100):
        try:
            return (await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0)))[1]
        except ConnectionRefusedError:
            await asyncio.sleep(0.05)
    raise AssertionError("nobody listens")


def _flow_messages() -> bytes:
    now_s = time.time()
    record = np.zeros(1, lab.INGRESS_RECORD)
    record["destination"], record["destination_prefix"] = 0x0A020000, 16
    record["octets"], record["packets"] = 1500, 1
    record["start_ms"] = record["end_ms"] = int(now_s * 1000)
    encoder = lab.Encoder(1)
    data = encoder.records(int(now_s), lab.INGRESS_TEMPLATE, record)
    return encoder.templates(int(now_s)) + b"".join(data)


async def test_ipfix_over_tcp_becomes_reports() -> None:
    """Messages cut anywhere by the stream; a second exporter's broken stream ends and is told, once."""
    log: list[Record] = []
    stats, port = CollectorStats(), free_udp_port()
    async with _running(_listener(log, stats, port, tcp=True)):
        good, bad = await _connect(port), await _connect(port, "127.0.0.2")
        data = _flow_messages()
        for part in (data[:7], data[7:300], data[300:]):
            good.write(part)
            await good.drain()
            await asyncio.sleep(0.02)
        bad.write(b"GET / HTTP/1.1\r\nHost: somebody\r\n\r\n")
        await eventually(lambda: any(isinstance(r, FlowReport) and r.cells for r in log))
        await eventually(lambda: any(isinstance(r, NetworkEvent) for r in log))
        good.close()
        bad.close()
    (cell,) = [cell for r in log if isinstance(r, FlowReport) for cell in r.cells]
    assert (cell.destination, cell.octets) == ("10.2.0.0/16", 1500.0)
    assert [(r.device, r.kind) for r in log if isinstance(r, NetworkEvent)] == [("CA", "flows-undecoded")]
    assert [r.source[:14] for r in log if isinstance(r, DeadLetter)] == ["tcp:127.0.0.2:"]


async def test_strangers_and_crowds_are_not_served_over_tcp() -> None:
    """An address that is not in the inventory, and one connection too many, are closed at once."""
    log: list[Record] = []
    stats, port = CollectorStats(), free_udp_port()
    async with _running(_listener(log, stats, port, tcp=True)):
        kept = [await _connect(port)]
        reader, stranger = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.9", 0))
        assert await asyncio.wait_for(reader.read(), 10) == b""
        stranger.close()
        kept += [await _connect(port) for _ in range(module.MAX_CONNECTIONS - 1)]
        reader, crowd = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.1", 0))
        assert await asyncio.wait_for(reader.read(), 10) == b""
        for writer in (*kept, crowd):
            writer.close()


async def test_templates_outlive_the_collector(tmp_path: Path) -> None:
    """What one run learnt the next one reads with, from its first datagram on, whichever worker it is."""
    port, sender = free_udp_port(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.bind(("127.0.0.1", 0))
    first, second = CollectorStats(), CollectorStats()
    async with _running(_listener([], first, port, share=Share(1, 2, tmp_path))):
        sender.sendto(EXAMPLE, ("127.0.0.1", port))
        await eventually(lambda: first.flow_records == 3)
    async with _running(_listener([], second, port, share=Share(0, 1, tmp_path))):
        sender.sendto(message(EXAMPLE_DATA_SET, sequence=3), ("127.0.0.1", port))
        await eventually(lambda: second.flow_records == 3)
    sender.close()


async def test_templates_outlive_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are written while the collector runs: whoever is killed had no time for it."""
    monkeypatch.setattr(module, "SAVE_S", 0.1)
    port, first, second = free_udp_port(), CollectorStats(), CollectorStats()
    kept, left_behind = tmp_path / "kept", tmp_path / "left-behind"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        async with _running(_listener([], first, port, share=Share(0, 1, kept))):
            sender.sendto(EXAMPLE, ("127.0.0.1", port))
            await eventually(lambda: list(kept.glob("*.json")))
            shutil.copytree(kept, left_behind)  # as a crash at this moment would leave it
        async with _running(_listener([], second, port, share=Share(0, 1, left_behind))):
            sender.sendto(message(EXAMPLE_DATA_SET, sequence=3), ("127.0.0.1", port))
            await eventually(lambda: second.flow_records == 3)


async def test_an_old_file_of_templates_is_not_used(tmp_path: Path) -> None:
    """An exporter may have given its numbers other meanings since: data wait for templates anew."""
    port, clock_ns = free_udp_port(), time.time_ns() - 2 * module.OLDEST_CACHE_NS
    first, second = CollectorStats(), CollectorStats()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        old = _listener([], first, port, share=Share(0, 1, tmp_path), clock=lambda: clock_ns)
        async with _running(old):
            sender.sendto(EXAMPLE, ("127.0.0.1", port))
            await eventually(lambda: first.flow_records == 3)
        async with _running(_listener([], second, port, share=Share(0, 1, tmp_path))):
            sender.sendto(message(EXAMPLE_DATA_SET, sequence=3), ("127.0.0.1", port))
            await eventually(lambda: second.datagrams == 1)
            await asyncio.sleep(3 * module.TICK_S)
            assert second.flow_records == 0
            sender.sendto(message(EXAMPLE_TEMPLATE, sequence=6), ("127.0.0.1", port))
            await eventually(lambda: second.flow_records == 3)


async def test_a_damaged_file_of_templates_is_one_line(tmp_path: Path) -> None:
    """The listener says which file it leaves, and listens."""
    (tmp_path / "flow-templates-0.json").write_bytes(b"{broken")
    port, stats = free_udp_port(), CollectorStats()
    with structlog.testing.capture_logs() as lines, socket.socket(type=socket.SOCK_DGRAM) as sender:
        async with _running(_listener([], stats, port, share=Share(0, 1, tmp_path))):
            sender.bind(("127.0.0.1", 0))
            sender.sendto(EXAMPLE, ("127.0.0.1", port))
            await eventually(lambda: stats.flow_records == 3)
    assert [line["event"] for line in lines] == ["kept templates are not used"]


async def test_listeners_that_share_a_port_share_the_exporters() -> None:
    """Each session stays with one of them: every template meets its data, whoever gets it."""
    port, logs = free_udp_port(), ([], [])  # type: tuple[list[Record], list[Record]]
    stats = [CollectorStats(), CollectorStats()]
    senders = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(24)]
    shares = [Share(0, 2), Share(1, 2)]
    pair = [_listener(logs[i], stats[i], port, share=shares[i]) for i in range(2)]
    async with _running(*pair):
        for sender in senders:
            sender.bind(("127.0.0.1", 0))
            sender.sendto(message(EXAMPLE_TEMPLATE), ("127.0.0.1", port))
        for sender in senders:
            sender.sendto(message(EXAMPLE_DATA_SET), ("127.0.0.1", port))
        await eventually(lambda: sum(one.flow_records for one in stats) == 3 * len(senders))
    assert all(one.datagrams > 0 for one in stats)
    assert all(one.datagrams % 2 == 0 for one in stats)
    for sender in senders:
        sender.close()


def test_data_whose_templates_never_come_are_told_once() -> None:
    """Held as long as there is room; then counted, and one event says what to do."""
    log: list[Record] = []
    stats = CollectorStats()
    listener = _listener(log, stats, 0)
    for i in range(3 * MAX_HELD_SETS):
        listener.receive(message(EXAMPLE_DATA_SET, sequence=3 * i), ("127.0.0.1", 1))
        if i % 64 == 63:
            listener.tick()
    assert stats.unread_flow_sets == 2 * MAX_HELD_SETS
    assert [(r.device, r.kind) for r in log if isinstance(r, NetworkEvent)] == [
        ("WA", "flows-without-template")
    ]


def test_every_report_that_lacks_something_says_so_until_nothing_lacks() -> None:
    """Sets without a template and datagrams that are none are one event each, and a flag of every report of
    a bin in which they came; another exporter's reports have none."""
    log, seconds = list[Record](), 1_000_000_000.5
    listener = _listener(log, CollectorStats(), 0, clock=lambda: int(seconds * S))
    unread = message(*[any_set(999, bytes(8))] * 2 * MAX_HELD_SETS, domain=7)
    for step in range(24):  # six seconds
        for address in DEVICES:
            good = message(EXAMPLE_TEMPLATE, EXAMPLE_DATA_SET, sequence=3 * step, time_s=int(seconds))
            listener.receive(good, (address, 1))
        if step < 8:
            listener.receive(unread, ("127.0.0.1", 1))
        if 8 <= step < 16:
            listener.receive(b"\x00\x0a" + bytes(30), ("127.0.0.1", 1))
        seconds += 0.25
        listener.tick()
    flags: dict[str, list[tuple[str, ...]]] = {device: [] for device in DEVICES.values()}
    for record in log:
        if isinstance(record, FlowReport) and "supplement" not in record.quality:
            flags[record.device].append(record.quality)
    both, untemplated, undecoded = (
        ("flows-undecoded", "flows-without-template"),
        ("flows-without-template",),
        ("flows-undecoded",),
    )
    assert flags["WA"][:5] == [untemplated, untemplated, both, undecoded, undecoded]
    assert flags["WA"][5:] == [()] * len(flags["WA"][5:]) != []
    assert set(flags["CA"]) == {()}
    kinds = [r.kind for r in log if isinstance(r, NetworkEvent) and r.kind != "sequence-gap"]
    assert kinds == ["flows-without-template", "flows-undecoded"]


async def test_a_flood_of_broken_datagrams_is_one_event_and_one_line() -> None:
    """Every one is counted; the topic, the log and the events are not flooded; a good exporter goes on."""
    log: list[Record] = []
    stats, port = CollectorStats(), free_udp_port()
    with structlog.testing.capture_logs() as lines:
        async with _running(_listener(log, stats, port)):
            with (
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as good,
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bad,
            ):
                good.bind(("127.0.0.1", 0))
                bad.bind(("127.0.0.2", 0))
                for i in range(300):
                    bad.sendto(b"\x00\x0a" + bytes([i % 256]) * 30, ("127.0.0.1", port))
                good.sendto(EXAMPLE, ("127.0.0.1", port))
                await eventually(lambda: stats.undecoded_datagrams == 300 and stats.flow_records == 3)
    assert [(r.device, r.kind) for r in log if isinstance(r, NetworkEvent)] == [("CA", "flows-undecoded")]
    assert 0 < sum(isinstance(r, DeadLetter) for r in log) <= 4 * module.MAX_LETTERS_PER_S
    assert len(lines) == 1


def test_strangers_do_not_take_the_dead_letters_of_exporters() -> None:
    """Whoever floods the port from elsewhere: what an exporter sends wrong in the same second is kept."""
    log, stats = list[Record](), CollectorStats()
    listener = _listener(log, stats, 0, clock=lambda: 1_000_000_000 * S)
    for number in range(1000):
        listener.receive(b"\x00\x0a" + bytes(number % 7), ("127.0.0.9", number))
    listener.receive(b"\x00\x0a broken", ("127.0.0.1", 1))
    letters = [one.source for one in log if isinstance(one, DeadLetter)]
    assert letters.count("udp:127.0.0.1:1") == 1
    assert len(letters) == module.MAX_LETTERS_PER_S + 1
    assert stats.unknown_datagrams == 1000


async def test_traps_that_are_sent_to_the_flow_port_leave_no_community_in_a_topic(
    need_tool: Callable[[str], str],
) -> None:
    """Of a known exporter and of a stranger: told as what they are, and their octets are not kept."""
    snmptrap, log, stats, port = need_tool("snmptrap"), list[Record](), CollectorStats(), free_udp_port()
    async with _running(_listener(log, stats, port)):
        for source in ("127.0.0.1", "127.0.0.9"):
            command = [snmptrap, "-v2c", "-c", "community-4711", f"--clientaddr={source}"]
            command += [f"127.0.0.1:{port}", "1", "1.3.6.1.6.3.1.1.5.3"]
            await asyncio.to_thread(subprocess.run, command, check=True, timeout=20, env={"MIBS": ""})
        await eventually(lambda: stats.datagrams == 2)
    letters = [one for one in log if isinstance(one, DeadLetter)]
    assert [(one.payload, "Have traps sent to the port of [traps]" in one.reason) for one in letters] == [
        (b"", True),
        (b"", True),
    ]
    (event,) = [one for one in log if isinstance(one, NetworkEvent)]
    assert (event.kind, "an SNMP message" in event.detail) == ("flows-undecoded", True)


def test_datagrams_that_take_long_are_received_by_few() -> None:
    """Thousands of template sets in each: polls get their turn; when it is over, many come at once again."""
    stats = CollectorStats()
    hostile = message(*[template(256, [(1, 1)])] * 5000)
    with open_socket(("127.0.0.1", 0)) as sock, socket.socket(type=socket.SOCK_DGRAM) as sender:
        listener, receiver = _listener([], stats, 0), receiver_of(sock)
        sender.bind(("127.0.0.1", 0))
        sent = 0
        while listener._at_once > module.MIN_AT_ONCE:
            for _ in range(20):
                sender.sendto(hostile, sock.getsockname())
            sent += 20
            listener._drain(receiver)
            assert sent < 1000
        while stats.datagrams < sent:
            listener._drain(receiver)
        for _ in range(20):
            sender.sendto(EXAMPLE, sock.getsockname())
            listener._drain(receiver)
    assert listener._at_once == SLOTS
    assert stats.undecoded_datagrams == 0


def test_a_port_that_is_taken_is_not_shared_by_accident() -> None:
    """Sharing is asked for: a second collector on the port is an error as ever."""
    with open_socket(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InventoryError, match="cannot be had"):
            open_socket(("127.0.0.1", port), shared=True)
