"""NETCONF: the mapping from XML, and sessions with a real server."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import psutil
import pytest
from collector_peers import LabAgents, eventually, inventory_of
from hostile_peers import HELLO, Anybody

from collectors.netconf import NetconfPoller, OpenSessions, parse_interfaces
from collectors.stats import CollectorStats
from collectors.targets import NetconfWork, Target
from ndtwin.lab.device import Interface
from ndtwin.lab.netconf_server import make_host_key
from twin.errors import DecodeError, DeviceError, InventoryError
from twin.records import DeviceSample, DeviceTopology, InterfaceCounters, Record

RFC_8343 = b"""<?xml version="1.0" encoding="UTF-8"?>
<rpc-reply message-id="urn:uuid:1" xmlns="urn:ietf:params:xml:ns:netconf:base:1.0"><data>
 <interfaces xmlns="urn:ietf:params:xml:ns:yang:ietf-interfaces"
             xmlns:ianaift="urn:ietf:params:xml:ns:yang:iana-if-type">
  <interface>
   <name>eth1</name><type>ianaift:ethernetCsmacd</type><enabled>true</enabled>
   <admin-status>up</admin-status><oper-status>down</oper-status>
   <if-index>7</if-index><speed>1000000000</speed>
   <statistics>
    <discontinuity-time>2026-04-01T03:00:00.5+00:00</discontinuity-time>
    <in-octets>18446744073709551615</in-octets><in-unicast-pkts>101</in-unicast-pkts>
    <in-discards>1</in-discards><in-errors>2</in-errors>
    <out-octets>3</out-octets><out-unicast-pkts>4</out-unicast-pkts>
    <out-discards>5</out-discards><out-errors>6</out-errors>
   </statistics>
   <ipv4 xmlns="urn:ietf:params:xml:ns:yang:ietf-ip"><mtu>1500</mtu></ipv4>
  </interface>
  <interface><name>eth0</name><enabled>false</enabled><oper-status>up</oper-status></interface>
 </interfaces>
</data></rpc-reply>"""
RFC_7223 = b"""<data xmlns="urn:ietf:params:xml:ns:netconf:base:1.0">
 <interfaces xmlns="urn:ietf:params:xml:ns:yang:ietf-interfaces">
  <interface><name>a</name><enabled>true</enabled></interface></interfaces>
 <interfaces-state xmlns="urn:ietf:params:xml:ns:yang:ietf-interfaces">
  <interface><name>a</name><oper-status>down</oper-status><admin-status>down</admin-status><if-index>3</if-index>
   <statistics><in-octets>9</in-octets></statistics></interface></interfaces-state></data>"""


def test_every_mapped_leaf_of_rfc_8343_arrives() -> None:
    """Each leaf of the mapping table becomes its field; other modules' leaves and missing ones do no harm."""
    assert parse_interfaces(RFC_8343) == (
        InterfaceCounters(name="eth0", if_index=0, admin_up=False, oper_up=True),
        InterfaceCounters(
            name="eth1",
            if_index=7,
            in_octets=2**64 - 1,
            out_octets=3,
            in_packets=101,
            out_packets=4,
            in_discards=1,
            out_discards=5,
            in_errors=2,
            out_errors=6,
            speed_bps=1e9,
            admin_up=True,
            oper_up=False,
            discontinuity_at_ns=1_775_012_400_500_000_000,
        ),
    )


def test_the_older_module_with_state_beside_it_is_read_too() -> None:
    """Devices of RFC 7223 keep state in interfaces-state: both lists are one interface."""
    assert parse_interfaces(RFC_7223) == (
        InterfaceCounters(name="a", if_index=3, in_octets=9, admin_up=False, oper_up=False),
    )


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        (b"", "not XML"),
        (RFC_8343[:300], "not XML"),
        (RFC_8343.replace(b">101<", b">many<"), "eth1: statistics/in-unicast-pkts is 'many'"),
        (RFC_8343.replace(b"2026-04-01T", b"yesterday"), "discontinuity-time"),
    ],
)
def test_nonsense_is_a_decode_error(xml: bytes, reason: str) -> None:
    """What is not a reply of the model is refused with what is wrong."""
    with pytest.raises(DecodeError, match=reason):
        parse_interfaces(xml)


def test_external_entities_are_not_followed(tmp_path: Path) -> None:
    """A reply cannot make the collector read files."""
    secret = tmp_path / "secret"
    secret.write_text("42")
    doctype = f'<!DOCTYPE d [<!ENTITY x SYSTEM "file://{secret}">]>'.encode()
    xml = doctype + RFC_7223.replace(b"<if-index>3<", b"<if-index>&x;<")
    with pytest.raises(DecodeError, match="document type"):
        parse_interfaces(xml)


# -------------------------------------------------------------------------------------------- sessions


@pytest.fixture
def pollers() -> Iterator[list[NetconfPoller]]:
    """Pollers to be closed at the end."""
    made: list[NetconfPoller] = []
    yield made
    for poller in made:
        poller.close()


def _poller(
    made: list[NetconfPoller],
    port: int,
    directory: Path,
    credentials: str = "netconf",
    timeout_s: float = 5.0,
) -> NetconfPoller:
    access = f'{{ port = {port}, credentials = "{credentials}" }}'
    inventory = inventory_of(f'name = "WA"\naddress = "127.0.0.1"\nnetconf = {access}', base=directory)
    made.append(NetconfPoller.of(inventory, inventory.devices[0], timeout_s=timeout_s, clock=time.time_ns))
    return made[-1]


def count(interface: Interface) -> None:
    """Let it carry 1 Mbit/s from now on: what stands is told as stale."""
    interface.counters |= {"out_octets": lambda: int(time.time() * 125_000)}


async def _sample(poller: NetconfPoller) -> DeviceSample:
    return await asyncio.get_running_loop().run_in_executor(None, poller.sample)


async def test_a_sample_is_what_the_device_counts(lab: LabAgents, pollers: list[NetconfPoller]) -> None:
    """Two polls of the lab's NETCONF server over one session: its counters, marked as from NETCONF."""
    poller = _poller(pollers, lab.netconf_port, lab.directory)
    for _ in range(2):
        sample = await _sample(poller)
    customers, core = sample.interfaces
    assert (sample.source, sample.device, sample.network, sample.uptime_ns) == ("netconf", "WA", "net", None)
    assert (core.name, core.if_index, core.in_octets, core.out_discards) == ("ge-0/0/0", 1, 5_000_000_000, 3)
    assert (customers.name, customers.speed_bps) == ("cust0", 10e9)
    assert core.discontinuity_at_ns == pytest.approx(lab.device.started_ns, abs=2_000_000)


@pytest.mark.parametrize("alone", [True, False])
async def test_a_missed_poll_and_another_number_are_flags(
    lab: LabAgents, pollers: list[NetconfPoller], alone: bool
) -> None:
    """Of a sample by NETCONF as of one by SNMP, also where SNMP tells what happened to the device."""
    told, poller, period_ns = list[Record](), _poller(pollers, lab.netconf_port, lab.directory), 10**9
    late_ns = 0
    poller.clock = lambda: time.time_ns() + late_ns
    interfaces = lab.device.interfaces
    count(interfaces[0])
    with ThreadPoolExecutor(1) as pool:
        work = NetconfWork(poller, told.append, pool, period_ns, tells_events=alone)
        await work.poll()
        await work.poll()
        late_ns = 2 * period_ns
        await work.poll()
        interfaces[0] = replace(interfaces[0], index=interfaces[0].index + 100)
        await work.poll()
        await work.poll()
    flags = [record.quality for record in told if isinstance(record, DeviceSample)]
    assert flags == [(), (), ("gap",), ("renumbered",), ()]


async def test_polls_that_a_silent_device_missed_are_a_gap(
    lab: LabAgents, pollers: list[NetconfPoller]
) -> None:
    """The first sample after real silence says so, and that an interface has another number since."""
    told, period_ns = list[Record](), 10**9
    stats, poller = CollectorStats(), _poller(pollers, lab.netconf_port, lab.directory, timeout_s=0.6)
    interfaces = lab.device.interfaces
    count(interfaces[0])

    def flags() -> list[tuple[str, ...]]:
        return [record.quality for record in told if isinstance(record, DeviceSample)]

    with ThreadPoolExecutor(1) as pool:
        work = NetconfWork(poller, told.append, pool, period_ns)
        target = Target("net", "WA", "netconf", period_ns, work.poll, told.append, stats, time.time_ns)
        running = asyncio.create_task(target.run())
        try:
            await eventually(lambda: len(flags()) >= 2)
            lab.device.silent = True
            await eventually(lambda: stats.timeouts + stats.errors >= 2, within_s=30)
            before = len(flags())
            interfaces[0] = replace(interfaces[0], index=interfaces[0].index + 100)
            lab.device.silent = False
            await eventually(lambda: len(flags()) >= before + 1, within_s=60)
        finally:
            lab.device.silent = False
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    assert flags()[before] == ("gap", "renumbered")
    assert {flag for sample in flags()[:before] for flag in sample} <= {"gap"}  # a slow machine misses polls


async def test_a_wrong_password_is_one_clear_line(lab: LabAgents, pollers: list[NetconfPoller]) -> None:
    """The server's refusal names the user and what to do, not a traceback."""
    with pytest.raises(DeviceError, match="NETCONF refused user ndtwin: check the credentials"):
        await _sample(_poller(pollers, lab.netconf_port, lab.directory, "netconf-wrong"))


async def test_a_changed_host_key_is_refused(
    lab: LabAgents, pollers: list[NetconfPoller], tmp_path: Path
) -> None:
    """A server with another key than known_hosts has gets no password."""
    other = make_host_key(tmp_path / "other_key")
    (lab.directory / "known_hosts").write_text(f"[127.0.0.1]:{lab.netconf_port} {other}\n")
    with pytest.raises(DeviceError, match="host key is not the one in"):
        await _sample(_poller(pollers, lab.netconf_port, lab.directory))


@pytest.mark.parametrize(
    ("known_hosts", "message"),
    [("", "host key unknown: check it, then ssh-keyscan"), (None, "cannot be read")],
)
async def test_an_unknown_host_key_is_refused(
    lab: LabAgents, pollers: list[NetconfPoller], known_hosts: str | None, message: str
) -> None:
    """Without a known key there is no session, and the line says how to get one."""
    path = lab.directory / "known_hosts"
    path.unlink()
    if known_hosts is not None:
        path.write_text(known_hosts)
    with pytest.raises(DeviceError, match=message):
        await _sample(_poller(pollers, lab.netconf_port, lab.directory))


async def test_a_missing_secret_is_told_as_such(
    lab: LabAgents, pollers: list[NetconfPoller], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secret that went away after the start is an inventory error, at the poll that needs it."""
    monkeypatch.delenv("T_PASSWORD")
    with pytest.raises(InventoryError, match="T_PASSWORD is not set"):
        await _sample(_poller(pollers, lab.netconf_port, lab.directory))


async def test_a_port_where_nobody_listens_is_silence(lab: LabAgents, pollers: list[NetconfPoller]) -> None:
    """A refused connection is a device that does not answer."""
    known = (lab.directory / "known_hosts").read_text()
    (lab.directory / "known_hosts").write_text(known.replace(str(lab.netconf_port), "1"))
    with pytest.raises(TimeoutError):
        await _sample(_poller(pollers, 1, lab.directory))


async def test_a_silent_server_can_be_cut(lab: LabAgents, pollers: list[NetconfPoller]) -> None:
    """A server that accepts and says nothing holds the thread only until it is cut."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        key = (lab.directory / "known_hosts").read_text().partition(" ")[2]
        (lab.directory / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}")
        poller = _poller(pollers, port, lab.directory, timeout_s=30.0)
        running = asyncio.ensure_future(_sample(poller))
        await asyncio.sleep(0.3)
        assert not running.done()
        begin = time.monotonic()
        poller.cut()
        with pytest.raises(DeviceError, match="NETCONF failed"):
            await running
        assert time.monotonic() - begin < 5


# ----------------------------------------------------------------------------------------------- bounds


@asynccontextmanager
async def _ssh_server(directory: Path, handle: Callable[[Any], Awaitable[None]]) -> AsyncIterator[int]:
    """An SSH server with a known key; gives its port."""
    key = directory / "server_key"
    public = make_host_key(key)
    server = await asyncssh.create_server(
        Anybody, "127.0.0.1", 0, server_host_keys=[str(key)], process_factory=handle, encoding=None
    )
    port = server.get_port()
    (directory / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}\n")
    yield port
    server.close()
    await server.wait_closed()


@asynccontextmanager
async def endless_server(directory: Path) -> AsyncIterator[tuple[int, list[int]]]:
    """A NETCONF server whose reply never ends; gives its port, and how much of a reply each session took."""
    sent: list[int] = []

    async def handle(process: Any) -> None:
        process.stdout.write(HELLO.encode())
        await process.stdin.readuntil(b"]]>]]>")  # their hello
        await process.stdin.readuntil(b"]]>]]>")  # their request
        sent.append(0)
        try:
            process.stdout.write(b'<rpc-reply xmlns="urn:ietf:params:xml:ns:netconf:base:1.0"><data>')
            while sent[-1] < 200 << 20:
                process.stdout.write(b"<x>" + b"a" * 32_000 + b"</x>")
                sent[-1] += 32_007
                await process.stdout.drain()
        except (asyncssh.Error, BrokenPipeError, ConnectionError):
            return

    async with _ssh_server(directory, handle) as port:
        yield port, sent


async def test_a_reply_of_200_mb_is_cut_off(lab: LabAgents, pollers: list[NetconfPoller]) -> None:
    """A reply beyond the limit ends the session with one clear line, long before it is in memory."""
    async with endless_server(lab.directory) as (port, sent):
        poller = _poller(pollers, port, lab.directory, timeout_s=60.0)
        poller.session.most_octets = 2 << 20
        with pytest.raises(DeviceError, match="NETCONF reply is longer than 2048 KiB"):
            await _sample(poller)
        assert not poller.session.is_open
    assert 1 << 20 < sent[0] < 16 << 20  # what is beyond the limit was on its way


@asynccontextmanager
async def boasting_server(directory: Path, sends: bool) -> AsyncIterator[int]:
    """A NETCONF server whose reply is a chunk of 4 GB (RFC 6242 section 4.2); much comes, or nothing."""

    async def handle(process: Any) -> None:
        process.stdout.write(HELLO.replace("base:1.0</capability>", "base:1.1</capability>").encode())
        await process.stdin.readuntil(b"]]>]]>")  # their hello
        await process.stdin.readuntil(b"\n##\n")  # their request
        process.stdout.write(b"\n#4294967295\n")
        try:
            while sends:
                process.stdout.write(b"<x>" + b"a" * 32_000 + b"</x>")
                await process.stdout.drain()
            await process.stdin.read()
        except (asyncssh.Error, BrokenPipeError, ConnectionError):
            return

    async with _ssh_server(directory, handle) as port:
        yield port


@pytest.mark.parametrize("sends", [True, False])
async def test_a_chunk_of_4_gb_takes_neither_memory_nor_time(
    lab: LabAgents, pollers: list[NetconfPoller], sends: bool
) -> None:
    """What a length field announces is not set aside: the limit or the deadline ends the session."""
    async with boasting_server(lab.directory, sends) as port:
        poller = _poller(pollers, port, lab.directory, timeout_s=30.0 if sends else 2.0)
        poller.session.most_octets = 2 << 20
        before, begin = psutil.Process().memory_info().rss, time.monotonic()
        with pytest.raises(
            DeviceError if sends else TimeoutError, match="longer than 2048" if sends else None
        ):
            await _sample(poller)
        assert not poller.session.is_open
        assert time.monotonic() - begin < 20
        assert psutil.Process().memory_info().rss - before < 64 << 20


async def test_sessions_beyond_the_limit_are_closed_after_each_poll(
    lab: LabAgents, pollers: list[NetconfPoller]
) -> None:
    """Of two devices with room for one the second logs in anew for every poll, and both are read."""
    room = OpenSessions(1)
    for _ in range(2):
        _poller(pollers, lab.netconf_port, lab.directory).open_sessions = room
    for poller in pollers * 2:
        assert len((await _sample(poller)).interfaces) == 2
    assert [poller.session.is_open for poller in pollers] == [True, False]


async def test_a_device_without_snmp_tells_its_addresses_by_netconf(
    lab: LabAgents, pollers: list[NetconfPoller]
) -> None:
    """The first poll brings the topology, the next one soon after does not ask again."""
    poller = _poller(pollers, lab.netconf_port, lab.directory)
    first = await asyncio.get_running_loop().run_in_executor(None, poller.read)
    again = await asyncio.get_running_loop().run_in_executor(None, poller.read)
    (topology,) = first.others
    assert isinstance(topology, DeviceTopology)
    assert [(one.interface, one.prefix) for one in topology.addresses] == [
        ("cust0", "10.1.0.0/16"),
        ("ge-0/0/0", "172.16.0.0/31"),
    ]
    assert again.others == ()
