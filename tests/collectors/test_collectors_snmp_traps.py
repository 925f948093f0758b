"""Traps and informs: by net-snmp's own programs, by table, and in storms."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import structlog
from collector_peers import SECRETS, LabAgents, eventually, free_udp_port, inventory_of
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.inventory import Inventory
from collectors.service import run_collectors, trap_listener
from collectors.snmp.trap_receiver import TrapReceiver
from collectors.snmp.traps import (
    KINDS,
    TRAP_OID,
    UPTIME,
    Allowance,
    Notification,
    Seen,
    interface_of,
    notification_of,
)
from collectors.stats import CollectorStats
from collectors.trap_listener import TrapListener, open_trap_socket
from ndtwin.lab import ber
from twin.errors import InventoryError
from twin.records import NetworkEvent, Record

S = 1_000_000_000
LINK_DOWN, AUTHENTICATION = "1.3.6.1.6.3.1.1.5.3", "1.3.6.1.6.3.1.1.5.5"
IF_INDEX = "1.3.6.1.2.1.2.2.1.1.7"


@dataclass
class Poller:
    """A device's poller, as the listener sees it."""

    names: dict[int, str] = field(default_factory=lambda: {7: "ge-0/0/7"})
    heard: list[tuple[str, str]] = field(default_factory=list)
    believed: bool = True

    def name_of(self, if_index: int) -> str:
        """From the last poll."""
        return self.names.get(if_index, "")

    def told(self, kind: str, interface: str) -> None:
        """What a trap said."""
        self.heard.append((kind, interface))


@dataclass
class Listening:
    """A listener on a loopback port, and net-snmp's programs to send to it."""

    port: int
    listener: TrapListener
    stats: CollectorStats
    events: list[NetworkEvent]
    poller: Poller
    directory: Path

    async def send(self, program: str, *arguments: str) -> int:
        """Run snmptrap or snmpinform; its exit status."""
        environment = {**os.environ, "MIBS": "", "SNMP_PERSISTENT_DIR": str(self.directory)}
        process = await asyncio.create_subprocess_exec(
            program, *arguments, env=environment, cwd=self.directory, stdout=-3, stderr=-3
        )
        return await process.wait()

    @property
    def to(self) -> str:
        """Where they send to."""
        return f"127.0.0.1:{self.port}"


def _inventory() -> Inventory:
    sets = ("v1", "v2c", "v3")
    devices = [
        f'name = "R{i}"\naddress = "127.0.0.{i}"\nsnmp = {{ credentials = "{name}" }}'
        for i, name in enumerate(sets, 1)
    ]
    return inventory_of(*devices, more="[traps]\n")


INVENTORY = _inventory()


@pytest.fixture
async def listening(tmp_path: Path, need_tool: Callable[[str], str]) -> AsyncIterator[Listening]:
    """A listener that hears 127.0.0.1 as device R1."""
    need_tool("snmptrap")
    events: list[Record] = []
    stats, poller = CollectorStats(), Poller()
    listener = trap_listener(INVENTORY, events.append, stats, time.time_ns)
    listener.watch("R1", "127.0.0.1", poller)
    port = free_udp_port()
    task = asyncio.create_task(listener.run(("127.0.0.1", port)))
    await asyncio.sleep(0)
    yield Listening(port, listener, stats, events, poller, tmp_path)  # type: ignore[arg-type]  # only events come
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _watch(listening: Listening, credentials: str) -> None:
    """127.0.0.1 is polled under this set from now on, and nothing was heard of it."""
    listening.poller.heard.clear()
    listening.listener.watch("R1", "127.0.0.1", listening.poller, INVENTORY.credentials[credentials])


COMMUNITY = ("-c", SECRETS["T_COMMUNITY"])


def _v3(
    auth_key: str = SECRETS["T_AUTH"], engine: str = "8000000001020304", at: str = "3,1000"
) -> tuple[str, ...]:
    secrets = ("-A", auth_key, "-x", "AES", "-X", SECRETS["T_PRIVACY"])
    return ("-v3", "-e", engine, "-Z", at, "-u", "ndtwin", "-l", "authPriv", "-a", "SHA-256", *secrets)


LINK = ("123456", LINK_DOWN, IF_INDEX, "i", "7")


@pytest.mark.live
@pytest.mark.parametrize(
    ("program", "version"),
    [
        ("snmptrap", ("-v2c", *COMMUNITY)),
        ("snmpinform", ("-v2c", *COMMUNITY)),
        ("snmptrap", _v3()),
    ],
    ids=["v2c trap", "v2c inform", "v3 trap"],
)
async def test_a_link_that_goes_down_is_told_at_once(
    listening: Listening, program: str, version: tuple[str, ...]
) -> None:
    """One event with the ifName that the last poll saw; informs are acknowledged."""
    assert await listening.send(program, *version, listening.to, *LINK) == 0
    await eventually(lambda: listening.events)
    (event,) = listening.events
    assert (event.device, event.kind, event.interface) == ("R1", "link-down", "ge-0/0/7")
    assert event.detail == "trap at sysUpTime 1234.56 s"
    assert abs(time.time_ns() - event.observed_at_ns) < 60 * S
    assert listening.poller.heard == [("link-down", "ge-0/0/7")]


@pytest.mark.live
async def test_an_inform_of_version_3_is_acknowledged(listening: Listening) -> None:
    """The sender learns our engine id and time (RFC 3414 section 4), and gets its Response."""
    version = ("-v3", *_v3()[5:])
    assert await listening.send("snmpinform", *version, "-r2", listening.to, *LINK) == 0
    assert [event.kind for event in listening.events] == ["link-down"]
    assert await listening.send("snmpinform", *version, "-r0", "-t1", "127.0.0.1:1", *LINK) != 0


@pytest.mark.live
@pytest.mark.parametrize(
    ("generic", "kind"),
    [
        ("0", "cold-start"),
        ("1", "warm-start"),
        ("2", "link-down"),
        ("3", "link-up"),
        ("4", "authentication-failure"),
    ],
)
async def test_generic_traps_of_version_1_are_told(listening: Listening, generic: str, kind: str) -> None:
    """RFC 1157's generic traps become the same events."""
    enterprise = ("1.3.6.1.4.1.32473", "10.0.0.1", generic, "0", "4200")
    assert (
        await listening.send("snmptrap", "-v1", *COMMUNITY, listening.to, *enterprise, IF_INDEX, "i", "7")
        == 0
    )
    await eventually(lambda: listening.events)
    assert [(event.kind, event.interface) for event in listening.events] == [(kind, "ge-0/0/7")]


@pytest.mark.live
async def test_wrong_keys_and_replays_are_one_clear_event_each(listening: Listening) -> None:
    """A wrong community, a wrong key and a time that went back are refused, told once, and show no secret."""
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            await listening.send("snmptrap", "-v2c", "-c", SECRETS["T_WRONG"], listening.to, *LINK)
            await listening.send("snmptrap", *_v3(auth_key=SECRETS["T_WRONG"]), listening.to, *LINK)
        await eventually(lambda: listening.stats.refused_traps == 4)
        assert await listening.send("snmptrap", *_v3(at="5,2000"), listening.to, *LINK) == 0
        await eventually(lambda: any(event.kind == "link-down" for event in listening.events))
        for _ in range(2):
            await listening.send("snmptrap", *_v3(at="4,2000"), listening.to, *LINK)
        await eventually(lambda: listening.stats.refused_traps == 6)
    refused = [event.detail for event in listening.events if event.kind == "trap-refused"]
    assert len(refused) == 3, refused
    assert "unknown community: let the device send under" in refused[0]
    assert "authentication key" in refused[1]
    assert "time window" in refused[2]
    assert not any(secret in str(listening.events) + str(logs) for secret in SECRETS.values())


def _v3_open(level: str, at: str = "3,1000") -> tuple[str, ...]:
    """With less than authPriv: with the user's name alone, or with the authentication key."""
    auth = ("-a", "SHA-256", "-A", SECRETS["T_AUTH"]) if level == "authNoPriv" else ()
    return ("-v3", "-e", "8000000001020304", "-Z", at, "-u", "ndtwin", "-l", level, *auth)


@pytest.mark.live
@pytest.mark.parametrize("level", ["noAuthNoPriv", "authNoPriv"])
async def test_less_security_than_a_user_has_is_refused(listening: Listening, level: str) -> None:
    """Who knows its name alone cannot tell a link down, nor make what the device tells look replayed."""
    _watch(listening, "v3")
    await listening.send("snmptrap", *_v3_open(level, at="2147483640,9"), listening.to, *LINK)
    await eventually(lambda: listening.stats.refused_traps == 1)
    assert [(event.kind, event.detail[:18]) for event in listening.events] == [
        ("trap-refused", "with less security")
    ]
    await listening.send("snmptrap", *_v3(), listening.to, *LINK)
    await eventually(lambda: listening.poller.heard == [("link-down", "ge-0/0/7")])
    assert listening.stats.refused_traps == 1


@pytest.mark.live
async def test_a_device_is_heard_under_its_own_credential_set_only(listening: Listening) -> None:
    """One of version 3 is not heard under another's community, nor one of version 2c by another's user."""
    _watch(listening, "v3")
    await listening.send("snmptrap", "-v2c", *COMMUNITY, listening.to, *LINK)
    await eventually(lambda: listening.stats.refused_traps == 1)
    _watch(listening, "v2c")
    await listening.send("snmptrap", *_v3(), listening.to, *LINK)
    await eventually(lambda: listening.stats.refused_traps == 2)
    assert listening.poller.heard == []
    assert [event.detail[:28] for event in listening.events] == ["under another credential set"] * 2
    await listening.send("snmptrap", "-v2c", *COMMUNITY, listening.to, *LINK)
    await eventually(lambda: listening.poller.heard == [("link-down", "ge-0/0/7")])


@pytest.mark.live
@pytest.mark.parametrize("program", ["snmptrap", "snmpinform"])
async def test_users_of_one_name_have_the_keys_of_their_device(listening: Listening, program: str) -> None:
    """Two credential sets, one user name, other keys: each device is read with its own, in turn."""
    sets = [INVENTORY.credentials[one] for one in ("v3", "v3-wrong")]
    listening.listener._receiver = TrapReceiver(sets)
    engine = () if program == "snmpinform" else ("-e", "8000000001020304", "-Z", "3,1000")
    for number, (name, key) in enumerate((("v3", "T_AUTH"), ("v3-wrong", "T_WRONG"), ("v3", "T_AUTH"))):
        _watch(listening, name)
        secrets = ("-A", SECRETS[key], "-x", "AES", "-X", SECRETS["T_PRIVACY"])
        user = ("-v3", *engine, "-u", "ndtwin", "-l", "authPriv", "-a", "SHA-256", *secrets)
        assert await listening.send(program, *user, listening.to, str(100 + number), *LINK[1:]) == 0
        await eventually(lambda: len(listening.poller.heard) == 1)
    assert listening.stats.refused_traps == 0


@pytest.mark.live
async def test_a_trap_of_another_device_at_its_address_is_not_booked(listening: Listening) -> None:
    """While SNMP says that another one answers there; an inform is acknowledged all the same."""
    listening.poller.believed = False
    assert await listening.send("snmpinform", "-v2c", *COMMUNITY, listening.to, *LINK) == 0
    assert (listening.events, listening.poller.heard, listening.stats.traps) == ([], [], 1)


@pytest.mark.live
async def test_a_trap_of_a_stranger_is_counted_only(listening: Listening) -> None:
    """Who is not in the inventory is not heard."""
    listening.listener._senders.clear()
    await listening.send("snmptrap", "-v2c", *COMMUNITY, listening.to, *LINK)
    await eventually(lambda: listening.stats.unknown_traps == 1)
    assert listening.events == []


def _quiet() -> tuple[TrapListener, CollectorStats, list[Record]]:
    events: list[Record] = []
    stats = CollectorStats()
    listener = trap_listener(_inventory(), events.append, stats, lambda: 1000 * S)
    listener.watch("R1", "127.0.0.1", Poller())
    return listener, stats, events


def test_a_storm_is_bounded_before_it_is_decoded() -> None:
    """Of ten thousand at one instant fifty are looked at; it is told once; others are heard."""
    listener, stats, events = _quiet()
    listener.watch("R2", "127.0.0.2", Poller())
    begin = time.perf_counter()
    for _ in range(10_000):
        listener.receive(b"\x30\x00", ("127.0.0.1", 1))
    assert (stats.dropped_traps, stats.refused_traps) == (9_950, 50)
    assert time.perf_counter() - begin < 10
    listener.receive(b"\x30\x00", ("127.0.0.2", 1))
    assert stats.refused_traps == 51
    kinds = [event.kind for event in events if isinstance(event, NetworkEvent)]
    assert (kinds.count("trap-storm"), len(kinds)) == (1, 3)


def test_who_is_dropped_for_what_others_send_is_not_blamed() -> None:
    """A hundred devices in a storm: one that sends a single trap then is told of as one among many."""
    listener, stats, events = _quiet()
    addresses = [f"127.0.1.{i}" for i in range(100)]
    for address in addresses:
        listener.watch(address, address, Poller())
        for _ in range(50):
            listener.receive(b"\x30\x00", (address, 1))
    listener.receive(b"\x30\x00", ("127.0.0.1", 1))
    assert stats.dropped_traps == 100 * 50 - 500 + 1
    (told,) = [one for one in events if isinstance(one, NetworkEvent) and one.device == "R1"]
    assert (told.kind, told.detail) == (
        "trap-storm",
        "more than 100 a second from all devices together: some are dropped",
    )


@given(st.lists(st.binary(max_size=200), min_size=20, max_size=60))
@settings(max_examples=5, deadline=None)  # pysnmp takes milliseconds for each
def test_any_datagram_is_survived(datagrams: list[bytes]) -> None:
    """Whatever bytes come, the listener goes on and nothing is accepted."""
    receiver = TrapReceiver([_inventory().credentials["v2c"]])
    for data in datagrams:
        assert receiver.receive(data, ("127.0.0.1", 1)).bindings == ()


@pytest.mark.parametrize("octets", [1, 4, 33])
def test_an_engine_id_that_cannot_be_is_no_notification(octets: int) -> None:
    """SnmpEngineID has 5 to 32 octets (RFC 3411): no keys are made for another, whose user we know."""
    credentials = _inventory().credentials["v3"]
    security = (ber.octets(b"\x80" * octets), *[ber.integer(1)] * 2, ber.octets(credentials.user))
    header = (ber.integer(1), ber.integer(65_507), ber.octets(b"\x04"), ber.integer(3))
    sequence = ber.SEQUENCE
    parts = (
        ber.integer(3),
        ber.tlv(sequence, b"".join(header)),
        ber.octets(ber.tlv(sequence, b"".join((*security, ber.octets(b""), ber.octets(b""))))),
        ber.tlv(sequence, b""),
    )
    found = TrapReceiver([credentials]).receive(ber.tlv(sequence, b"".join(parts)), ("127.0.0.1", 1))
    assert (found.bindings, bool(found.refused)) == ((), True)


def test_a_port_that_cannot_be_had_is_one_line() -> None:
    """The operator is told which setting to change."""
    with open_trap_socket(("127.0.0.1", 0)) as taken, pytest.raises(InventoryError, match=r"traps\.listen"):
        open_trap_socket(taken.getsockname())
    with pytest.raises(InventoryError, match=r"traps\.listen"):
        inventory_of(
            'name = "a"\naddress = "127.0.0.1"\nsnmp = { credentials = "v2c" }',
            more='[traps]\nlisten = "x"\n',
        )


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ([(IF_INDEX, 7)], "ge-0/0/7"),
        ([(IF_INDEX, 9)], "if9"),
        ([(IF_INDEX, 9), ("1.3.6.1.2.1.31.1.1.1.1.9", b"xe-9")], "xe-9"),
        ([(IF_INDEX, 9), ("1.3.6.1.2.1.2.2.1.2.9", b"Port 9")], "Port 9"),
        ([], ""),
    ],
)
def test_interfaces_are_named_by_the_poll_then_by_the_trap(
    more: list[tuple[str, int | bytes]], expected: str
) -> None:
    """ifName of the last poll; else ifName, else ifDescr in the trap; else the index."""
    told = notification_of([(UPTIME, 5), (TRAP_OID, LINK_DOWN), *more])
    assert (told.kind, told.uptime_ticks) == (KINDS[LINK_DOWN], 5)
    assert interface_of(told, Poller().name_of) == expected


def test_a_notification_that_comes_again_is_told_once() -> None:
    """The same of the same sysUpTime is a repetition; of another device, or another time, it is not."""
    seen, told = Seen(), Notification("link-down", LINK_DOWN, 100, 7)
    assert [seen.again("R1", told) for _ in range(3)] == [False, True, True]
    assert not seen.again("R2", told)
    assert not seen.again("R1", Notification("link-down", LINK_DOWN, 101, 7))
    timeless = Notification("link-down", LINK_DOWN, None, 7)
    assert [seen.again("R1", timeless) for _ in range(2)] == [False, False]


def test_an_allowance_refills_with_time() -> None:
    """Two at once, one more for each half second; a clock that goes back gives nothing."""
    allowance = Allowance(per_s=2.0, burst=2.0)
    table = [
        (10.0, True),
        (10.0, True),
        (10.0, False),
        (10.5, True),
        (10.5, False),
        (9.0, False),
        (60.0, True),
    ]
    assert [allowance.take(int(at_s * S)) for at_s, _ in table] == [taken for _, taken in table]


async def test_the_service_takes_traps_beside_its_polls(
    lab: LabAgents, need_tool: Callable[[str], str], tmp_path: Path
) -> None:
    """A linkDown trap is an event before the poll sees it, and the poll does not tell it a second time.

    The device is polled by version 3 and sends traps of version 2c, as the inventory says.
    """
    port = free_udp_port()
    access = f'{{ port = {lab.snmp_port}, credentials = "v3", traps = "v2c" }}'
    inventory = inventory_of(
        f'name = "WA"\naddress = "127.0.0.1"\nsnmp = {access}', more=f'[traps]\nlisten = "127.0.0.1:{port}"\n'
    )
    log: list[Record] = []
    stats, stop = CollectorStats(), asyncio.Event()
    task = asyncio.create_task(run_collectors(inventory, log.append, poll_s=0.5, stop=stop, stats=stats))
    program = Listening(port, None, stats, [], Poller(), tmp_path)  # type: ignore[arg-type]  # it only sends
    need_tool("snmptrap")
    await eventually(lambda: stats.targets["WA/snmp"].polls >= 2)
    lab.device.set_oper(lab.device.interface("ge-0/0/0"), up=False)
    await program.send(
        "snmptrap", "-v2c", *COMMUNITY, program.to, "99", LINK_DOWN, IF_INDEX[:-1] + "1", "i", "1"
    )
    polls = stats.targets["WA/snmp"].polls
    await eventually(lambda: stats.targets["WA/snmp"].polls >= polls + 3)
    stop.set()
    await task
    events = [one for one in log if isinstance(one, NetworkEvent)]
    assert [(one.kind, one.interface) for one in events] == [("link-down", "ge-0/0/0")]
    assert stats.traps == 1
