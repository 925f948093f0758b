"""The lab's SNMP agents, asked by net-snmp's tools."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab_doubles import ACCESS, make_device

from ndtwin.lab.device import COUNTER_NAMES, Device
from ndtwin.lab.snmp_agent import SnmpAgent, SnmpProtocol
from ndtwin.ports import free_address_block

pytestmark = pytest.mark.live
V2C = ("-v2c", "-c", ACCESS.community)
V3 = ("-v3", "-u", ACCESS.user, "-l", "authPriv", "-a", "SHA-256", "-A", ACCESS.auth_key)
V3 += ("-x", "AES", "-X", ACCESS.privacy_key)
FUZZED = SnmpAgent(make_device(), ACCESS)
HIGH_CAPACITY = {"in_octets": 6, "in_packets": 7, "out_octets": 10, "out_packets": 11}


@dataclass
class Running:
    """An agent that listens."""

    device: Device
    agent: SnmpAgent
    address: str

    async def ask(self, tool: str, *arguments: str) -> tuple[int, list[str], str]:
        """(exit status, lines, errors) of a net-snmp tool; numeric output, one second's patience."""
        argv = [tool, "-On", "-Oe", "-OU", "-t1", "-r0", "-m", "", *arguments]
        process = await asyncio.create_subprocess_exec(*argv, stdout=-1, stderr=-1)
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode().splitlines(), err.decode()

    async def walk(self, *arguments: str) -> dict[str, str]:
        """OID → value of a walk that must succeed."""
        status, lines, errors = await self.ask(*arguments)
        assert status == 0, errors
        return dict(
            line.split(" = ", 1) for line in lines if " = " in line and "No more variables" not in line
        )


@pytest.fixture
async def running(need_tool: Callable[[str], str]) -> AsyncIterator[Running]:
    """The double of lab_doubles behind a socket."""
    need_tool("snmpbulkwalk")
    device = make_device()
    agent = SnmpAgent(device, ACCESS, engine_boots=7)
    host = free_address_block()[:-1] + "1"
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: SnmpProtocol(agent), local_addr=(host, 0)
    )
    port = transport.get_extra_info("sockname")[1]
    yield Running(device, agent, f"{host}:{port}")
    transport.close()


@pytest.mark.parametrize("version", [V2C, V3], ids=["v2c", "v3"])
async def test_bulkwalk_sees_every_cell(running: Running, version: tuple[str, ...]) -> None:
    """snmpbulkwalk over everything returns exactly the agent's cells and ends by itself."""
    cells = await running.walk("snmpbulkwalk", "-Cr20", *version, running.address, ".1")
    assert len(cells) == len(running.agent.mib())


@pytest.mark.parametrize("version", [V2C, V3], ids=["v2c", "v3"])
async def test_counters_agree_with_the_device(running: Running, version: tuple[str, ...]) -> None:
    """snmpget reads each high-capacity counter as the device counts it, beyond 2³²."""
    for name, column in HIGH_CAPACITY.items():
        oid = f".1.3.6.1.2.1.31.1.1.1.{column}.1"
        cells = await running.walk("snmpget", *version, running.address, oid)
        assert cells[oid] == f"Counter64: {running.device.interface('eth1').counter(name)}"
    assert set(HIGH_CAPACITY) < set(COUNTER_NAMES)


async def test_version_1_knows_no_counter64(running: Running) -> None:
    """snmpwalk -v1 walks everything but the 64-bit counters; the 32-bit ones carry the low half."""
    cells = await running.walk("snmpwalk", "-v1", "-c", ACCESS.community, running.address, ".1.3.6.1.2.1")
    assert not any(value.startswith("Counter64") for value in cells.values())
    octets = running.device.interface("eth1").counter("out_octets")
    assert cells[".1.3.6.1.2.1.2.2.1.16.1"] == f"Counter32: {octets % 2**32}"
    assert ".1.3.6.1.2.1.31.1.5.0" in cells


async def test_one_way_delay_is_told_in_microseconds(running: Running) -> None:
    """The jitter operation's sums and counts give the mean one-way delay that was measured."""
    jitter = ".1.3.6.1.4.1.9.9.42.1.5.2.1"
    cells = await running.walk("snmpbulkwalk", *V2C, running.address, jitter)
    total, count = (int(cells[f"{jitter}.{column}.2"].split(": ")[1]) for column in (33, 41))
    assert cells[f"{jitter}.51.2"] == "INTEGER: 1"  # NTP synchronised
    result = running.device.operations[0].result
    assert result is not None
    assert total / count == pytest.approx(1e6 * result.forward.mean_s, abs=0.5)
    assert cells[f"{jitter}.26.2"] == f"Gauge32: {result.forward.lost}"


async def test_engine_tells_its_boots(running: Running) -> None:
    """snmpEngineBoots is what the lab counts, under v3 as well, whose time window depends on it."""
    oid = ".1.3.6.1.6.3.10.2.1.2.0"
    assert (await running.walk("snmpget", *V3, running.address, oid))[oid] == "INTEGER: 7"


async def test_missing_things_are_named(running: Running) -> None:
    """A GET of a missing row and of a missing object are two different answers, and no error."""
    oids = (".1.3.6.1.2.1.2.2.1.8.77", ".1.3.6.1.2.1.99.1.0")
    cells = await running.walk("snmpget", *V2C, running.address, *oids)
    assert "No Such Instance" in cells[oids[0]]
    assert "No Such Object" in cells[oids[1]]


async def test_wrong_community_is_silence(running: Running) -> None:
    """An unknown community gets no answer at all."""
    status, _, errors = await running.ask(
        "snmpget", "-v2c", "-c", "wrong", running.address, ".1.3.6.1.2.1.1.5.0"
    )
    assert status != 0
    assert "Timeout" in errors


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"-A": "some-other-key"}, "Authentication failure"),
        ({"-u": "nobody"}, "Unknown user name"),
        ({"-X": "some-other-key"}, "Timeout"),
    ],
    ids=["key", "user", "privacy"],
)
async def test_wrong_keys_read_nothing(running: Running, change: dict[str, str], complaint: str) -> None:
    """A wrong user, authentication or privacy key never yields data (RFC 3414)."""
    arguments = list(V3)
    for option, value in change.items():
        arguments[arguments.index(option) + 1] = value
    status, lines, errors = await running.ask("snmpget", *arguments, running.address, ".1.3.6.1.2.1.1.5.0")
    assert status != 0
    assert not any("WA" in line for line in lines)
    assert complaint in errors or "Decryption" in errors


async def test_authentication_without_privacy_is_refused(running: Running) -> None:
    """The v3 user must encrypt: authNoPriv reads nothing."""
    arguments = [*V3[: V3.index("-x")]]
    arguments[arguments.index("authPriv")] = "authNoPriv"
    status, lines, _ = await running.ask("snmpget", *arguments, running.address, ".1.3.6.1.2.1.1.5.0")
    assert status != 0
    assert not any("WA" in line for line in lines)


async def test_nothing_can_be_written(running: Running) -> None:
    """SET is answered by notWritable and changes nothing."""
    status, _, errors = await running.ask("snmpset", *V2C, running.address, ".1.3.6.1.2.1.1.5.0", "s", "X")
    assert status != 0
    assert "notWritable" in errors
    assert running.device.name == "WA"


async def test_a_silent_device_answers_nothing(running: Running) -> None:
    """While silent the agent swallows requests; afterwards it answers again."""
    running.device.silent = True
    status, _, errors = await running.ask("snmpget", *V2C, running.address, ".1.3.6.1.2.1.1.5.0")
    assert status != 0
    assert "Timeout" in errors
    running.device.silent = False
    assert await running.walk("snmpget", *V2C, running.address, ".1.3.6.1.2.1.1.5.0")


async def test_new_rows_appear_at_once(running: Running) -> None:
    """When the device's rows change, the next walk shows the new rows."""
    neighbours = ".1.0.8802.1.1.2.1.4.1.1.9"
    assert len(await running.walk("snmpbulkwalk", *V2C, running.address, neighbours)) == 1
    running.device.set_oper(running.device.interface("eth1"), up=False)
    cells = await running.walk("snmpbulkwalk", *V2C, running.address, neighbours)
    assert not any("STRING" in value for value in cells.values())


GET_SYS_NAME = bytes.fromhex(
    "30290201010406733363726574a01c02047b000001020100020100300e300c06082b060102010105000500"
)  # sysName.0


@given(position=st.integers(0, len(GET_SYS_NAME) - 1), byte=st.integers(0, 255), end=st.integers(1, 60))
def test_no_bytes_stop_an_agent(position: int, byte: int, end: int) -> None:
    """However a request is bent or cut, the agent answers or drops it; a good one is answered afterwards."""
    bent = bytearray(GET_SYS_NAME)
    bent[position] = byte
    FUZZED.answer(bytes(bent[:end]), ("127.0.0.1", 9))
    answer = FUZZED.answer(GET_SYS_NAME, ("127.0.0.1", 9))
    assert answer is not None
    assert answer.endswith(b"\x04\x02WA")


@pytest.mark.parametrize(
    "datagram", [b"", b"\x30", b"garbage", b"\x30\x82\xff\xff" + b"\x00" * 40, bytes(2000)]
)
async def test_garbage_gets_no_answer_and_does_no_harm(running: Running, datagram: bytes) -> None:
    """Bytes that are no SNMP are dropped; the next request is answered."""
    assert running.agent.answer(datagram, ("127.0.0.1", 9)) is None
    assert await running.walk("snmpget", *V2C, running.address, ".1.3.6.1.2.1.1.5.0")
