"""Devices that swap their addresses, are renamed or replaced: by table, with lab agents, with two snmpd."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import structlog
from collector_peers import SECRETS, eventually, free_udp_port, inventory_of, lab_device, running_snmpd

from collectors.inventory import Inventory
from collectors.own_health import OwnHealth
from collectors.service import run_collectors
from collectors.snmp import tables as t
from collectors.snmp.identity import Identities, Identity, WrongDevice, identity_of
from collectors.stats import CollectorStats
from ndtwin.lab.netconf_server import NetconfServer, make_host_key
from ndtwin.lab.snmp_agent import SnmpAccess, SnmpAgent, SnmpProtocol
from ndtwin.ports import free_port
from stream.rates import CounterSeries, RateRules
from twin.records import DeviceSample, DeviceTopology, NetworkEvent, Record

S = 1_000_000_000
A = Identity(name="core-1", model="1.3.6.1.4.1.9.1.1", engine_id="80000009030a", chassis="02:00:00:00:00:0a")
B = Identity(name="core-2", model="1.3.6.1.4.1.9.1.1", engine_id="80000009030b", chassis="02:00:00:00:00:0b")


def bare(one: Identity) -> Identity:
    """Of a device that shows only its name."""
    return Identity(name=one.name)


def inventory(**access: str) -> Inventory:
    """Two devices, whose names need not be what they call themselves; more of ``snmp`` by device."""
    return inventory_of(
        *(
            f'name = "{name}"\naddress = "192.0.2.{number}"\n'
            f'snmp = {{ credentials = "v2c"{access.get(name, "")} }}'
            for number, name in enumerate(("west", "east"), 1)
        )
    )


def identities(path: Path | None = None, **access: str) -> Identities:
    """What is known of two devices: nothing yet, or what a file tells."""
    devices = inventory(**access).devices
    return Identities("net", devices, path)


def sight(known: Identities, device: str, found: Identity, at_s: int, uptime_s: int | None = None) -> str:
    """What becomes of who answers: the kinds of news, or "wrong"."""
    uptime_ns = None if uptime_s is None else uptime_s * S
    try:
        news = known.check(device, found, uptime_ns, at_s * S)
    except WrongDevice:
        return "wrong"
    return ",".join(one.kind for one in news)


RENAMED_A = Identity(name="spine-1", model=A.model, engine_id=A.engine_id, chassis=A.chassis)
SIGHTS = {
    "the same": (A, A, ""),
    "the same with a domain": (A, Identity(name="CORE-1.example.net", engine_id=A.engine_id), ""),
    "the other one": (A, B, "wrong"),
    "a stranger": (A, Identity(name="guest", engine_id="8000000903ff"), "wrong"),
    "renamed": (A, RENAMED_A, "device-renamed"),
    "renamed with one mark left": (A, Identity(name="spine-1", chassis=A.chassis), "device-renamed"),
    "the agent forgot its engine id": (
        A,
        Identity(name="core-1", engine_id="8000000903ff"),
        "device-replaced",
    ),
    "the agent forgot it, the chassis is the same": (
        A,
        Identity(name="core-1", engine_id="8000000903ff", chassis=A.chassis),
        "",
    ),
    "a new supervisor, another name, the same agent": (
        A,
        Identity(name="x", engine_id=A.engine_id, chassis="02:00:00:00:00:ff"),
        "device-renamed",
    ),
    "it says nothing of itself now": (A, Identity(), ""),
    "only names, another one": (bare(A), bare(B), "wrong"),
    "marks are new": (bare(A), A, ""),
    "the same name on another model": (
        Identity(name="core-1", model="1.3.6.1.4.1.9.1.1"),
        Identity(name="core-1", model="1.3.6.1.4.1.9.1.2"),
        "device-replaced",
    ),
    "another name on another model": (
        Identity(name="core-1", model="1.3.6.1.4.1.9.1.1"),
        Identity(name="core-9", model="1.3.6.1.4.1.9.1.2"),
        "wrong",
    ),
}


@pytest.mark.parametrize("case", SIGHTS)
def test_who_answers_is_told_from_another(case: str) -> None:
    """The table of the module: marks first, then names; nothing is told twice."""
    before, after, expected = SIGHTS[case]
    known = identities()
    assert sight(known, "west", before, 0, 1000) == ""
    if case != "a stranger":
        assert sight(known, "east", B if before is A else bare(B), 0, 5) == ""
    assert sight(known, "west", after, 10, 17) == expected
    if expected != "wrong":
        assert sight(known, "west", after, 20, 27) == ""
    else:
        assert sight(known, "west", after, 20, 27) == "wrong"
        assert sight(known, "west", before, 30, 1030) == ""  # it is back


def test_a_device_with_a_name_alone_is_renamed_if_its_uptime_goes_on() -> None:
    """Within two seconds; whoever answers with another uptime is another device."""
    known = identities()
    assert sight(known, "west", bare(A), 0, 1000) == ""
    assert sight(known, "west", Identity(name="spine-1"), 10, 1010) == "device-renamed"
    assert sight(known, "west", Identity(name="leaf-1"), 20, 1030) == "wrong"
    assert sight(known, "west", Identity(name="leaf-1"), 20) == "wrong"


def test_marks_that_two_devices_share_are_none() -> None:
    """Images copied with their engine id: names tell them apart, and a swap is no renaming."""
    known = identities()
    clones = [Identity(name=name, engine_id=A.engine_id) for name in ("core-1", "core-2")]
    assert sight(known, "west", clones[0], 0, 1000) == ""
    assert sight(known, "east", clones[1], 0, 500) == ""
    assert sight(known, "west", clones[1], 10, 510) == "wrong"
    assert sight(known, "east", clones[0], 10, 1010) == "wrong"


def test_devices_of_one_name_are_told_apart_by_their_marks() -> None:
    """Both call themselves "Router", as they came from the factory."""
    known, (a, b) = identities(), (Identity(name="Router", engine_id=one.engine_id) for one in (A, B))
    assert sight(known, "west", a, 0) == sight(known, "east", b, 0) == ""
    with pytest.raises(WrongDevice, match=r"says it is Router \(engine id 80000009030b\); that is east: "):
        known.check("west", b, None, S)


def test_at_first_sight_a_name_of_another_device_is_wrong() -> None:
    """Addresses swapped in the inventory from the beginning: both are told, with what to do."""
    known = identities()
    with pytest.raises(WrongDevice) as told:
        known.check("west", Identity(name="east.example.net"), None, 0)
    assert str(told.value) == (
        "west at 192.0.2.1:161 says it is 'east.example.net'; that is east, which the inventory has at "
        "192.0.2.2:161: correct the address in the inventory, or confirm who answers there with "
        'snmp.sys_name = "east.example.net"'
    )
    assert sight(known, "east", Identity(name="east"), 0) == ""


def test_devices_that_answer_by_turns_are_no_replacement() -> None:
    """Members of a cluster share its name and its address: told once as replaced, then as wrong."""
    known = identities()
    one, other = (Identity(name="fw", engine_id=mark.engine_id) for mark in (A, B))
    told = [sight(known, "west", (one, other)[n % 2], 5 * n) for n in range(6)]
    assert told == ["", "device-replaced", "wrong", "", "wrong", ""]
    assert sight(known, "west", one, 700) == "device-replaced"  # for good, ten minutes later


def test_the_operator_has_the_last_word() -> None:
    """sys_name in the inventory decides who is believed, whatever was known."""
    known = identities(west=', sys_name = "core-2"')
    assert sight(known, "west", A, 0) == "wrong"
    assert sight(known, "west", B, 1) == ""
    assert sight(known, "west", Identity(name="CORE-2", engine_id="8000000903ff"), 2) == "device-replaced"
    assert sight(known, "west", A, 3) == "wrong"


def test_identities_outlast_the_collector(tmp_path: Path) -> None:
    """Devices that swap while nobody looks are told; who answers at a new address is learnt."""
    path = tmp_path / "run" / "identities.json"
    known = identities(path)
    assert sight(known, "west", A, 0) == sight(known, "east", B, 0) == ""
    known.save()
    assert sight(identities(path), "west", B, 0) == "wrong"
    assert sight(identities(path, west=", port = 1161"), "west", A, 0) == ""
    assert (
        sight(
            identities(path, west=", port = 1161"), "west", Identity(name="new", engine_id="8000000903ff"), 0
        )
        == ""
    )
    assert sight(identities(path, west=", port = 1161"), "west", B, 0) == "wrong"  # it got east's address
    other = Identities("another net", inventory().devices, path)
    assert sight(other, "west", B, 0) == ""


@pytest.mark.parametrize("content", [b"", b"{", b'{"network": 5}', b"\xff\xfe"])
def test_a_damaged_file_is_told_and_everything_learnt_anew(tmp_path: Path, content: bytes) -> None:
    """One line of log, and no reason not to start."""
    path = tmp_path / "identities.json"
    path.write_bytes(content)
    with structlog.testing.capture_logs() as lines:
        assert sight(identities(path), "west", A, 0) == ""
    assert [line["event"] for line in lines] == ["kept identities are not used"]


ENGINES = {
    "80001f8880aabbccdd": "80001f8880aabbccdd",  # net-snmp: random octets
    "800000090301020304aabb": "800000090301020304aabb",  # a MAC address
    "8000000901c0000201": "",  # of the IPv4 address 192.0.2.1, which moves with it
    "800000090220010db8000000000000000000000001": "",
    "000000090000000000000001": "000000090000000000000001",  # of RFC 1910's kind: 12 octets
    "80": "",
}


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_id_made_of_an_address_is_no_mark(engine: str) -> None:
    """RFC 3411 section 5: its fifth octet says of what it was made. Junos makes it of the address."""
    assert identity_of({t.IDENTITY["engine_id"]: bytes.fromhex(engine)}).engine_id == ENGINES[engine]


def test_only_a_mac_address_is_a_chassis() -> None:
    """lldpLocChassisIdSubtype: the management address (5) would move along, too."""
    for subtype, chassis in ((4, "02:00:00:00:00:0a"), (5, ""), (None, "")):
        answer = {t.IDENTITY["chassis"]: bytes.fromhex("02000000000a"), t.IDENTITY["subtype"]: subtype}
        assert identity_of(answer).chassis == chassis


def test_what_a_stranger_says_of_itself_is_bounded_and_one_line() -> None:
    """It goes into logs, events and a file: no control characters, no megabyte of a name."""
    answer = {
        t.IDENTITY["name"]: b"core\x1b[2J\nERROR all is lost" + b"x" * 60_000,
        t.IDENTITY["model"]: "1.3.6",
        t.IDENTITY["engine_id"]: bytes([0x80, 0, 0, 9, 3]) + b"y" * 60_000,
        t.IDENTITY["chassis"]: b"z" * 60_000,
        t.IDENTITY["subtype"]: 4,
    }
    found = identity_of(answer)
    assert found.name.startswith("core?[2J?ERROR all is lostxxx")
    assert (len(found.name), len(found.engine_id), found.chassis) == (255, 64, "")
    assert identity_of(dict.fromkeys(answer, 7)) == Identity()


def test_health_says_who_answers_and_what_to_do() -> None:
    """The whole line of one device, whichever of its readings told it; and how many more there are."""
    stats, health = CollectorStats(), OwnHealth()
    stats.mistaken = {"west/snmp": "west says …: do this", "west/snmp-topology": "west says …: do this"}
    state, detail, metrics = health.look(stats, 0.0)
    assert (state, detail) == ("degraded", "another device answers: west says …: do this")
    assert metrics["wrong_devices"] == 1
    stats.mistaken["zz/snmp"] = "zz says …"
    assert health.look(stats, 1.0)[1] == "another device answers: west says …: do this (and 1 more)"


# ------------------------------------------------------------------------------------- with real agents


@asynccontextmanager
async def collecting(one: Inventory, path: Path) -> AsyncIterator[tuple[list[Record], CollectorStats]]:
    """The service, running; stopped at the end."""
    log, stats, stop = list[Record](), CollectorStats(), asyncio.Event()
    running = run_collectors(
        one, log.append, poll_s=0.4, window_s=2.0, stop=stop, stats=stats, topology_s=0.8, identities=path
    )
    task = asyncio.create_task(running)
    try:
        yield log, stats
    finally:
        stop.set()
        async with asyncio.timeout(10):
            await task


def of(log: list[Record], device: str) -> list[DeviceSample]:
    """The samples of a device."""
    return [one for one in log if isinstance(one, DeviceSample) and one.device == device]


def events(log: list[Record], *kinds: str) -> list[NetworkEvent]:
    """The events of these kinds."""
    return [one for one in log if isinstance(one, NetworkEvent) and one.kind in kinds]


def two(ports: tuple[int, int], credentials: str = "v2c") -> Inventory:
    """WA and CA1 on loopback ports."""
    return inventory_of(
        *(
            f'name = "{name}"\naddress = "127.0.0.{number}"\n'
            f'snmp = {{ port = {port}, credentials = "{credentials}" }}'
            for number, (name, port) in enumerate(zip(("WA", "CA1"), ports, strict=True), 1)
        )
    )


class Pair:
    """Two lab agents, each at one of two endpoints, that can swap."""

    def __init__(self) -> None:
        counted = {
            "out_octets": lambda: int(time.time() * 1e6),
            "out_packets": lambda: int(time.time() * 1e3),
        }
        self.devices = [lab_device(), lab_device()]
        self.devices[1].name, self.devices[1].router_id = "CA1", IPv4Address("10.255.0.2")
        self.devices[1].chassis = bytes.fromhex("02005e0000ff")
        self.devices[1].interfaces[0].counters |= counted
        for number, device in enumerate(self.devices):
            device.interfaces[0].name = f"port{number}"
        self.ports = (free_udp_port("127.0.0.1"), free_udp_port("127.0.0.2"))
        self._transports: list[asyncio.DatagramTransport] = []

    async def answer(self, *order: int) -> None:
        """Let device ``order[i]`` answer at endpoint i from now on."""
        if self._transports:
            self.close()
            await asyncio.sleep(0.3)  # so that what is asked meanwhile is asked again
        access = SnmpAccess(SECRETS["T_COMMUNITY"], "ndtwin", SECRETS["T_AUTH"], SECRETS["T_PRIVACY"])
        for i, number in enumerate(order):
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda number=number: SnmpProtocol(SnmpAgent(self.devices[number], access)),  # type: ignore[misc]  # bound now
                local_addr=(f"127.0.0.{i + 1}", self.ports[i]),
            )
            self._transports.append(transport)

    def close(self) -> None:
        """Nobody answers."""
        for transport in self._transports:
            transport.close()
        self._transports.clear()


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    """Both agents, where they belong."""
    agents = Pair()
    await agents.answer(0, 1)
    yield agents
    agents.close()


async def test_two_devices_that_swap_addresses_are_not_booked_as_each_other(
    pair: Pair, tmp_path: Path
) -> None:
    """One event and one line for each; no sample, topology or rate of the other's; back by themselves."""
    own = {"WA": "port0", "CA1": "port1"}
    path = tmp_path / "identities.json"
    with structlog.testing.capture_logs() as lines:
        async with collecting(two(pair.ports), path) as (log, stats):
            await eventually(lambda: all(len(of(log, name)) >= 2 for name in own))
            await pair.answer(1, 0)
            await eventually(lambda: len(events(log, "wrong-device")) == 2)
            await eventually(
                lambda: set(stats.mistaken.values()) == {e.detail[6:] for e in events(log, "wrong-device")}
            )
            health = OwnHealth().look(stats, 0.0)
            swapped = len(log)
            await asyncio.sleep(1.5)
            during = log[swapped:]
            await pair.answer(0, 1)
            await eventually(lambda: len(events(log, "device-back")) == 2)
            await eventually(lambda: not stats.mistaken)
            await eventually(lambda: all(of(log, name)[-1].interfaces for name in own))
    told = {event.device: event.detail for event in events(log, "wrong-device")}
    assert set(told) == set(own)
    assert told["WA"].startswith(
        f"snmp: WA at 127.0.0.1:{pair.ports[0]} says it is CA1 (engine id 80007ed9050aff0002); "
    )
    assert 'or confirm who answers there with snmp.sys_name = "CA1"' in told["WA"]
    assert health[0] == "degraded"
    assert health[1].startswith("another device answers: CA1 at 127.0.0.2")
    booked = {(one.device, port.name) for name in own for one in of(log, name) for port in one.interfaces}
    assert {port for device, port in booked if device == "WA"} == {"port0", "cust0"}
    assert {port for device, port in booked if device == "CA1"} == {"port1", "cust0"}
    named = [one for one in log if isinstance(one, DeviceTopology)]
    assert {(one.device, n.local_interface) for one in named for n in one.neighbours} == set(own.items())
    marked = [one for one in during if isinstance(one, DeviceSample)]
    assert {(one.quality, one.interfaces) for one in marked} == {(("wrong-device",), ())}
    assert not [one for one in during if isinstance(one, DeviceTopology)]
    assert sorted(
        line["device"]
        for line in lines
        if line["event"] == "another device answers" and line["protocol"] == "snmp"
    ) == ["CA1", "WA"]
    series = CounterSeries()
    for number, one in enumerate(of(log, "CA1")):
        series.add(one, number.to_bytes(4))
    wrong_ns = [one.observed_at_ns for one in of(log, "CA1") if "wrong-device" in one.quality]
    assert series.rates(min(wrong_ns), max(wrong_ns), RateRules())[0] == {}


async def test_an_address_that_two_devices_share_by_turns_is_told_once(pair: Pair, tmp_path: Path) -> None:
    """Every other poll is another's: one event; what the device itself says is booked."""
    async with collecting(two(pair.ports), tmp_path / "identities.json") as (log, stats):
        await eventually(lambda: len(of(log, "WA")) >= 2)
        for turn in range(6):
            await pair.answer(*((1, 1), (0, 1))[turn % 2])
            seen = len(of(log, "WA"))
            await eventually(lambda seen=seen: len(of(log, "WA")) > seen)  # type: ignore[misc]  # bound now
        assert stats.mistaken
        await eventually(lambda: not stats.mistaken)
    told = [event.kind for event in events(log, "wrong-device", "device-back") if event.device == "WA"]
    assert told == ["wrong-device", "device-back"]


async def test_a_wrong_device_that_falls_silent_is_silent(pair: Pair, tmp_path: Path) -> None:
    """What nobody says any more is not told any more; the device itself comes back all the same."""
    async with collecting(two(pair.ports), tmp_path / "identities.json") as (log, stats):
        await eventually(lambda: len(of(log, "WA")) >= 2)
        await pair.answer(1, 1)
        await eventually(lambda: "WA/snmp" in stats.mistaken)
        pair.devices[1].silent = True
        await eventually(lambda: "WA/snmp" in stats.silent)
        assert "WA/snmp" not in stats.mistaken
        pair.devices[1].silent = False
        await pair.answer(0, 1)
        await eventually(lambda: "WA/snmp" not in stats.silent, within_s=30)
    told = [
        one.kind for one in events(log, "wrong-device", "device-silent", "device-back") if one.device == "WA"
    ]
    assert told == ["wrong-device", "device-silent", "device-back"]


async def test_a_swap_that_happened_while_nobody_looked_is_told(pair: Pair, tmp_path: Path) -> None:
    """After a restart of the collector; with names that say nothing of the inventory's."""
    pair.devices[0].name, pair.devices[1].name = "r1", "r2"
    await pair.answer(0, 1)
    path = tmp_path / "identities.json"
    async with collecting(two(pair.ports), path) as (log, _):
        await eventually(lambda: of(log, "WA") and of(log, "CA1"))
    await pair.answer(1, 0)
    async with collecting(two(pair.ports), path) as (log, _):
        await eventually(lambda: len(events(log, "wrong-device")) == 2)
        assert not [port for name in ("WA", "CA1") for one in of(log, name) for port in one.interfaces]
    assert "r2" in events(log, "wrong-device")[0].detail


async def test_a_renamed_device_is_an_event_and_no_outage(pair: Pair, tmp_path: Path) -> None:
    """sysName changes, engine and chassis do not: samples go on without a gap."""
    async with collecting(two(pair.ports), tmp_path / "identities.json") as (log, _):
        await eventually(lambda: len(of(log, "WA")) >= 2)
        pair.devices[0].name = "seattle"
        pair.devices[0].changed()
        await eventually(lambda: events(log, "device-renamed"))
        before = len(of(log, "WA"))
        await eventually(lambda: len(of(log, "WA")) >= before + 2)
    (event,) = events(log, "device-renamed", "wrong-device", "device-replaced")
    assert (event.device, event.kind) == ("WA", "device-renamed")
    assert "calls itself seattle, and called itself WA, but is the same device" in event.detail
    assert all(one.interfaces for one in of(log, "WA"))


async def test_replaced_hardware_is_an_event_and_its_counters_begin_anew(pair: Pair, tmp_path: Path) -> None:
    """The same name, other marks: no rate is made between the old one's counters and the new one's."""
    async with collecting(two(pair.ports), tmp_path / "identities.json") as (log, _):
        await eventually(lambda: len(of(log, "CA1")) >= 2)
        spare = replace(pair.devices[1], router_id=IPv4Address("10.255.0.77"), chassis=bytes(6))
        spare.interfaces = [replace(one) for one in spare.interfaces]
        spare.interfaces[0].counters = {
            name: lambda: int(time.time() * 2e6) for name in ("out_octets", "out_packets")
        }
        pair.devices[1] = spare
        await pair.answer(0, 1)
        await eventually(lambda: events(log, "device-replaced"))
        await eventually(lambda: len([s for s in of(log, "CA1") if "reset" in s.quality]) == 1)
        await eventually(lambda: of(log, "CA1")[-1].interfaces)
    assert not events(log, "wrong-device")
    samples = of(log, "CA1")
    (at,) = [n for n, one in enumerate(samples) if "reset" in one.quality]
    assert samples[at].interfaces == ()
    assert samples[at - 1].interfaces
    assert samples[at + 1].interfaces


@contextmanager
def running_pair(program: str, directory: Path, ports: tuple[int, int], order: str) -> Iterator[None]:
    """Two snmpd with engine ids of their own; the letters of ``order`` say who is at which endpoint."""
    with ExitStack() as stack:
        for number, (letter, port) in enumerate(zip(order, ports, strict=True), 1):
            home = directory / letter
            home.mkdir(exist_ok=True)
            more = f"sysName {letter * 3}\nexactEngineID 0x80001f88800{letter}0000000000\n"
            endpoint = (f"127.0.0.{number}", port)
            stack.enter_context(running_snmpd(program, home, more, endpoint))
        yield


@pytest.mark.parametrize("credentials", ["v2c", "v3"])
async def test_two_snmpd_that_swap_are_told_apart(
    tmp_path: Path, need_tool: Callable[[str], str], credentials: str
) -> None:
    """Debian's agents, in versions 2c and 3; in version 3 the engine id is part of the protocol."""
    program, ports = need_tool("snmpd"), (free_udp_port("127.0.0.1"), free_udp_port("127.0.0.2"))
    inventory = two(ports, credentials)
    with ExitStack() as agents:
        agents.enter_context(running_pair(program, tmp_path, ports, "ab"))
        async with collecting(inventory, tmp_path / "identities.json") as (log, stats):
            await eventually(lambda: of(log, "WA") and of(log, "CA1"), within_s=30)
            agents.close()
            agents.enter_context(running_pair(program, tmp_path, ports, "ba"))
            await eventually(lambda: len(events(log, "wrong-device")) == 2, within_s=30)
            swapped = len(log)
            await asyncio.sleep(1.5)
            during = [one for one in log[swapped:] if isinstance(one, DeviceSample | DeviceTopology)]
            agents.close()
            agents.enter_context(running_pair(program, tmp_path, ports, "ab"))
            await eventually(lambda: not stats.mistaken and not stats.silent, within_s=60)
            await eventually(lambda: of(log, "WA")[-1].interfaces and of(log, "CA1")[-1].interfaces)
    told = {event.device: event.detail for event in events(log, "wrong-device")}
    assert "says it is bbb (engine id 80001f88800b0000000000); WA was aaa (" in told["WA"]
    assert "says it is aaa (engine id 80001f88800a0000000000); CA1 was bbb (" in told["CA1"]
    assert during
    assert {(type(one), one.quality) for one in during} == {(DeviceSample, ("wrong-device",))}


# ------------------------------------------------------------------------------------------- by NETCONF


async def test_by_netconf_the_host_key_tells_who_answers(pair: Pair, tmp_path: Path) -> None:
    """Two servers that swap: both are refused before a password is sent, and nothing is booked."""
    ports, keys = (free_port(), free_port()), [tmp_path / "key0", tmp_path / "key1"]
    known = "".join(f"[127.0.0.{n + 1}]:{ports[n]} {make_host_key(keys[n])}\n" for n in (0, 1))
    (tmp_path / "known_hosts").write_text(known)
    tables = (
        f'name = "{name}"\naddress = "127.0.0.{n + 1}"\n'
        f'netconf = {{ port = {ports[n]}, credentials = "netconf" }}'
        for n, name in enumerate(("WA", "CA1"))
    )
    inventory = inventory_of(*tables, base=tmp_path)

    @asynccontextmanager
    async def serving(*order: int) -> AsyncIterator[None]:
        servers = [NetconfServer(pair.devices[number], "ndtwin", SECRETS["T_PASSWORD"]) for number in order]
        for n, (server, number) in enumerate(zip(servers, order, strict=True)):
            await server.listen(f"127.0.0.{n + 1}", ports[n], keys[number])
        yield
        for server in servers:
            await server.close()

    async with collecting(inventory, tmp_path / "identities.json") as (log, _):
        async with serving(0, 1):
            await eventually(lambda: of(log, "WA") and of(log, "CA1"), within_s=30)
        async with serving(1, 0):
            both = {"WA", "CA1"}
            await eventually(lambda: refused(log) == both, within_s=30)
            swapped = len(log)
            await asyncio.sleep(3)
            assert not [one for one in log[swapped:] if isinstance(one, DeviceSample)]
        async with serving(0, 1):
            await eventually(lambda: booked(log[swapped:]).keys() == both, within_s=60)
    assert booked(log) == {"WA": {"port0", "cust0"}, "CA1": {"port1", "cust0"}}


def refused(log: list[Record]) -> set[str]:
    """The devices whose host key is another's."""
    return {one.device for one in events(log, "device-refuses") if "host key is not the one in" in one.detail}


def booked(log: list[Record]) -> dict[str, set[str]]:
    """The interfaces that samples brought, by device."""
    samples = [one for one in log if isinstance(one, DeviceSample)]
    return {
        name: {port.name for one in samples if one.device == name for port in one.interfaces}
        for name in {one.device for one in samples}
    }
