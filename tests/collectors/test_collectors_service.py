"""All collectors together, against real sockets: devices that work, devices that do not, and both at once."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import numpy as np
import pytest
import structlog
from collector_peers import LabAgents, eventually, free_udp_port, inventory_of
from ipfix_bytes import EXAMPLE

from collectors.inventory import Inventory
from collectors.listener import MAX_LETTERS_PER_S, FlowListener
from collectors.receive import open_socket, plain_address
from collectors.service import run_collectors
from collectors.stats import CollectorStats
from collectors.watch import InterfaceWatch
from ndtwin.lab import ipfix_encoder as lab_ipfix
from twin.errors import InventoryError
from twin.records import (
    DeadLetter,
    DelayReport,
    DeviceSample,
    DeviceTopology,
    FlowReport,
    InterfaceCounters,
    LinkAnnotations,
    NetworkEvent,
    Record,
)

S = 1_000_000_000


class Log(list[Record]):
    """What was emitted, with a view by kind."""

    def of(self, kind: type[Record], device: str = "") -> list[Record]:
        """The records of one kind, of one device if given."""
        return [r for r in self if type(r) is kind and (not device or getattr(r, "device", "") == device)]

    def samples(self) -> list[DeviceSample]:
        """All samples."""
        return [r for r in self if isinstance(r, DeviceSample)]

    def events(self, kind: str) -> list[NetworkEvent]:
        """The events of one kind."""
        return [r for r in self if isinstance(r, NetworkEvent) and r.kind == kind]


@asynccontextmanager
async def collecting(
    inventory: Inventory, *, poll_s: float = 0.4, window_s: float = 2.0
) -> AsyncIterator[tuple[Log, CollectorStats]]:
    """The service, running; stopped at the end."""
    log, stats, stop = Log(), CollectorStats(), asyncio.Event()
    task = asyncio.create_task(
        run_collectors(
            inventory,
            log.append,
            poll_s=poll_s,
            window_s=window_s,
            stop=stop,
            stats=stats,
            netconf_s=4 * poll_s,
            topology_s=3 * poll_s,
        )
    )
    try:
        yield log, stats
    finally:
        stop.set()
        async with asyncio.timeout(10):
            await task


def _snmp(name: str, address: str, port: int, credentials: str = "v2c", engine: str = "gufo") -> str:
    access = f'{{ port = {port}, credentials = "{credentials}", engine = "{engine}" }}'
    return f'name = "{name}"\naddress = "{address}"\nsnmp = {access}'


def _netconf(name: str, address: str, port: int) -> str:
    return f'name = "{name}"\naddress = "{address}"\nnetconf = {{ port = {port}, credentials = "netconf" }}'


def _exporter(port: int) -> Inventory:
    listen = f'[ipfix]\nlisten = "127.0.0.1:{port}"\n'
    return inventory_of('name = "WA"\naddress = "127.0.0.1"\nipfix = true', more=listen)


async def test_a_device_with_everything_gives_every_kind_of_record(lab: LabAgents) -> None:
    """SNMP and NETCONF samples, topology, delays and annotations of one device, from one call."""
    both = _snmp("WA", "127.0.0.1", lab.snmp_port)
    both += f'\nnetconf = {{ port = {lab.netconf_port}, credentials = "netconf" }}'
    async with collecting(inventory_of(both, base=lab.directory)) as (log, stats):
        wanted = (LinkAnnotations, DeviceTopology, DelayReport)
        await eventually(lambda: all(log.of(kind) for kind in wanted))
        await eventually(
            lambda: {s.source for s in log if isinstance(s, DeviceSample)} == {"snmp", "netconf"}
        )
        assert (stats.timeouts, stats.errors, stats.silent) == (0, 0, set())
    assert log.events("device-silent") == []
    assert stats.records == len(log)


async def test_a_device_with_netconf_alone_is_collected(lab: LabAgents) -> None:
    """NETCONF needs no SNMP beside it, and tells link events itself."""
    alone = _netconf("WA", "127.0.0.1", lab.netconf_port)
    async with collecting(inventory_of(alone, base=lab.directory)) as (log, _):
        await eventually(lambda: log.of(DeviceSample))
        lab.device.set_oper(lab.device.interface("ge-0/0/0"), up=False)
        await eventually(lambda: log.events("link-down"))
    assert [event.interface for event in log.events("link-down")] == ["ge-0/0/0"]


@pytest.mark.parametrize("engine", ["gufo", "pysnmp"])
async def test_a_silent_device_delays_nobody(lab: LabAgents, engine: str) -> None:
    """Beside twenty devices that never answer a device is polled as often as alone; they are told as silent.

    Alone and beside them at the same time, so that a busy machine holds up both alike. Waiting for the silent
    ones one after the other would leave the device one poll in fifteen.
    """
    alone = _snmp("WA", "127.0.0.1", lab.snmp_port, engine=engine)
    with ExitStack() as stack:
        mute = []
        for i in range(20):
            silent = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            silent.bind((f"127.0.0.{100 + i}", 0))
            mute.append(_snmp(f"mute{i}", f"127.0.0.{100 + i}", silent.getsockname()[1], engine=engine))
        async with (
            collecting(inventory_of(alone), poll_s=0.8) as (reference, _),
            collecting(inventory_of(alone, *mute), poll_s=0.8) as (log, stats),
        ):
            await eventually(lambda: len(_told_silent(log)) == 20 and len(reference.samples()) >= 8, 60.0)
            polls, undisturbed = len(log.samples()), len(reference.samples())
            silent_now = {name.partition("/")[0] for name in stats.silent}
    assert 2 * polls >= undisturbed
    assert {sample.device for sample in log.samples()} == {"WA"}
    assert sorted(_told_silent(log)) == sorted({f"mute{i}" for i in range(20)})  # once each
    assert silent_now - {"WA"} == set(_told_silent(log))


def _told_silent(log: Log) -> list[str]:
    """The devices told as silent; not the one that answers: a machine may be too busy for any answer."""
    return [event.device for event in log.events("device-silent") if event.device != "WA"]


async def test_a_device_that_comes_back_is_told(lab: LabAgents) -> None:
    """Silence and return are one event each, and one log line each."""
    with structlog.testing.capture_logs() as lines:
        async with collecting(inventory_of(_snmp("WA", "127.0.0.1", lab.snmp_port))) as (log, stats):
            await eventually(lambda: log.of(DeviceTopology))
            lab.device.silent = True
            await eventually(lambda: log.events("device-silent"))
            lab.device.silent = False
            await eventually(lambda: log.events("device-back"))
            await eventually(lambda: not stats.silent)
    assert (len(log.events("device-silent")), len(log.events("device-back"))) == (1, 1)
    told = [line["event"] for line in lines if line.get("protocol") == "snmp"]
    assert told == ["device is silent", "device answers again"]


async def test_a_wrong_credential_is_one_line_and_the_others_go_on(lab: LabAgents) -> None:
    """Refusals by SNMPv3 and NETCONF are told once with what to do; a good device goes on beside them."""
    devices = [
        _snmp("WA", "127.0.0.1", lab.snmp_port),
        _snmp("W", "127.0.0.2", lab.snmp_port, "v3-wrong"),
    ]
    netconf = _netconf("N", "127.0.0.3", lab.netconf_port)
    with structlog.testing.capture_logs() as lines:
        async with collecting(inventory_of(*devices, netconf, base=lab.directory)) as (log, _):
            await eventually(lambda: len(log.events("device-refuses")) == 2)
            await asyncio.sleep(1.0)
            assert len(log.of(DeviceSample, "WA")) >= 2
    refused = {event.device: event.detail for event in log.events("device-refuses")}
    assert "snmp: SNMPv3 refused" in refused["W"] or "snmp: SNMP refused" in refused["W"]
    assert "netconf: host key unknown" in refused["N"]
    complaints = [line for line in lines if line["event"] == "device cannot be read"]
    assert {(line["device"], line["protocol"]) for line in complaints} == {
        ("W", "snmp"),
        ("W", "snmp-topology"),
        ("N", "netconf"),
    }
    assert len(complaints) == 3


async def test_a_link_that_fails_is_an_event_and_new_topology(lab: LabAgents) -> None:
    """Operational status is compared between polls; the neighbour that is gone is read at once."""
    async with collecting(inventory_of(_snmp("WA", "127.0.0.1", lab.snmp_port))) as (log, _):
        await eventually(lambda: len(log.of(DeviceSample)) >= 2)
        lab.device.set_oper(lab.device.interface("ge-0/0/0"), up=False)
        await eventually(lambda: log.events("link-down"))
        await eventually(lambda: log.of(DeviceTopology)[-1].neighbours == ())  # type: ignore[attr-defined]  # its field
        lab.device.set_oper(lab.device.interface("ge-0/0/0"), up=True)
        await eventually(lambda: log.events("link-up"))
    assert [(e.device, e.interface) for e in log.events("link-down") + log.events("link-up")] == [
        ("WA", "ge-0/0/0"),
        ("WA", "ge-0/0/0"),
    ]


def _sample(at_ns: int, *, up: bool, uptime_ns: int) -> DeviceSample:
    interfaces = (InterfaceCounters(name="a", if_index=1, oper_up=up),)
    return DeviceSample(
        network="n",
        device="d",
        observed_at_ns=at_ns,
        source="snmp",
        uptime_ns=uptime_ns,
        interfaces=interfaces,
    )


def test_a_restart_is_told_by_the_uptime() -> None:
    """sysUpTime that goes back is a cold start; the first sample tells nothing."""
    watch = InterfaceWatch()
    steps = [(1, True, 100), (2, True, 200), (3, False, 5), (4, False, 10)]
    kinds = [[e.kind for e in watch.events(_sample(t, up=up, uptime_ns=u))] for t, up, u in steps]
    assert kinds == [[], [], ["link-down", "cold-start"], []]


# ------------------------------------------------------------------------------------------------ IPFIX


async def test_datagrams_become_flow_reports_and_dead_letters() -> None:
    """Good datagrams are reported per bin; malformed and foreign ones are kept with their bytes."""
    port = free_udp_port()
    inventory = _exporter(port)
    encoder = lab_ipfix.Encoder(1)
    record = np.zeros(1, lab_ipfix.INGRESS_RECORD)
    record["destination"], record["destination_prefix"] = 0x0A020000, 16
    record["octets"], record["packets"] = 1500, 1
    async with collecting(inventory) as (log, stats):
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as good,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as foreign,
        ):
            good.bind(("127.0.0.1", 0))
            foreign.bind(("127.0.0.9", 0))
            now_s = time.time()
            record["start_ms"] = record["end_ms"] = int(now_s * 1000)
            (data,) = encoder.records(int(now_s), lab_ipfix.INGRESS_TEMPLATE, record)
            await eventually(lambda: log.of(LinkAnnotations))
            await asyncio.sleep(0.1)
            for datagram in (encoder.templates(int(now_s)), data, b"nonsense"):
                good.sendto(datagram, ("127.0.0.1", port))
            foreign.sendto(EXAMPLE, ("127.0.0.1", port))
            await eventually(lambda: [r for r in log.of(FlowReport) if r.cells])  # type: ignore[attr-defined]  # its field
    cells = [cell for report in log if isinstance(report, FlowReport) for cell in report.cells]
    assert [(cell.destination, cell.octets) for cell in cells] == [("10.2.0.0/16", 1500.0)]
    letters = {letter.payload: letter for letter in log if isinstance(letter, DeadLetter)}
    assert set(letters) == {b"nonsense", EXAMPLE}
    assert letters[EXAMPLE].source.startswith("udp:127.0.0.9:")
    assert "not in the inventory" in letters[EXAMPLE].reason
    assert (stats.datagrams, stats.undecoded_datagrams, stats.unknown_datagrams) == (4, 1, 1)


async def test_a_port_in_use_is_one_clear_line() -> None:
    """The error names the key of the inventory, the port and what to do, and ends the service."""
    with open_socket(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        inventory = _exporter(port)
        with pytest.raises(
            InventoryError, match=rf"ipfix.listen: 127.0.0.1:{port} cannot be had \(Address already"
        ):
            await run_collectors(inventory, print, stop=asyncio.Event())


def _listener(log: Log, stats: CollectorStats, now_ns: list[int]) -> FlowListener:
    return FlowListener("n", {"192.0.2.1": "WA"}, log.append, stats, bin_ns=5 * S, clock=lambda: now_ns[0])


def test_dead_letters_are_bounded_per_second() -> None:
    """A broken exporter cannot drown the topic; everything is counted all the same."""
    log, stats, now_ns = Log(), CollectorStats(), [100 * S]
    listener = _listener(log, stats, now_ns)
    with structlog.testing.capture_logs() as lines:
        for _ in range(100):
            listener.receive(b"x", ("192.0.2.1", 1))
        now_ns[0] += S
        listener.receive(b"x", ("192.0.2.1", 1))
    assert len(log.of(DeadLetter)) == MAX_LETTERS_PER_S + 1
    assert stats.undecoded_datagrams == 101
    assert len(lines) == 1


def test_a_sequence_gap_is_an_event_and_stands_in_the_report() -> None:
    """What was lost on the way is told, with how much."""
    log, stats, now_ns = Log(), CollectorStats(), [100 * S]
    listener, encoder = _listener(log, stats, now_ns), lab_ipfix.Encoder(1)
    record = np.zeros(1, lab_ipfix.INGRESS_RECORD)
    record["start_ms"] = record["end_ms"] = 100_500
    sent = [encoder.templates(100)]
    for _ in range(3):
        sent += encoder.records(100, lab_ipfix.INGRESS_TEMPLATE, record)
    for datagram in (sent[0], sent[1], sent[3]):
        listener.receive(datagram, ("192.0.2.1", 1))
    now_ns[0] = 107 * S
    listener.tick()
    assert [event.detail for event in log.events("sequence-gap")] == ["1 flow records lost on the way"]
    lost = [r.lost_records for r in log if isinstance(r, FlowReport)]
    assert sum(lost) == stats.lost_flow_records == 1


@pytest.mark.parametrize(
    ("seen", "plain"),
    [("::ffff:192.0.2.1", "192.0.2.1"), ("fe80::1%eth0", "fe80::1"), ("10.0.0.1", "10.0.0.1")],
)
def test_sender_addresses_are_compared_as_the_inventory_writes_them(seen: str, plain: str) -> None:
    """IPv4 over an IPv6 socket, and zones, do not hide an exporter."""
    assert plain_address(seen) == plain
