"""Agents, and others, that answer what was not asked: ignored, counted, and no other device affected."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from collector_peers import SECRETS, free_udp_port, inventory_of, lab_device
from hostile_peers import Address, Answer, Scripted
from hypothesis import given
from hypothesis import strategies as st
from pyasn1.codec.ber import decoder, encoder
from pysnmp.proto.api import v2c

from collectors.inventory import Engine
from collectors.snmp import tables
from collectors.snmp.engine import SnmpEngine
from collectors.snmp.open import Shared, open_engine
from collectors.snmp.wire import message_id
from ndtwin.lab.snmp_agent import SnmpAccess, SnmpAgent
from twin.errors import DeviceError

ENGINES: tuple[Engine, ...] = ("gufo", "pysnmp")
ACCESS = SnmpAccess(SECRETS["T_COMMUNITY"], "ndtwin", SECRETS["T_AUTH"], SECRETS["T_PRIVACY"])
SYS_NAME, DESCRIPTIONS = "1.3.6.1.2.1.1.5.0", tables.INTERFACE_NAMES["description"]


@asynccontextmanager
async def listening(answer: Answer) -> AsyncIterator[int]:
    """An agent that answers by a script; gives its port."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: Scripted(answer), local_addr=("127.0.0.1", 0))
    yield transport.get_extra_info("sockname")[1]
    transport.close()


def opened(
    shared: Shared, port: int, engine: Engine, credentials: str = "v2c", timeout_s: float = 0.3
) -> SnmpEngine:
    """An engine towards a port."""
    access = f'{{ port = {port}, credentials = "{credentials}", engine = "{engine}" }}'
    inventory = inventory_of(f'name = "a"\naddress = "127.0.0.1"\nsnmp = {access}')
    return open_engine(inventory, inventory.devices[0], shared, timeout_s=timeout_s, retries=1)


def honest(agent: SnmpAgent) -> Answer:
    """The lab's agent as a script."""

    def answer(request: bytes) -> list[bytes]:
        response = agent.answer(request, ("127.0.0.1", 1))
        return [] if response is None else [response]

    return answer


def with_request_id(message: bytes, change: int) -> bytes:
    """The same response to another request, of the lowest octet of its id."""
    number = message_id(message)
    assert number is not None
    encoded = encoder.encode(v2c.Integer(number))
    return message.replace(encoded, encoded[:-1] + bytes([encoded[-1] ^ change]), 1)


@pytest.mark.parametrize("engine", ENGINES)
async def test_an_answer_to_another_request_is_not_taken(shared: Shared, engine: Engine) -> None:
    """A response with a wrong request-id comes first: it is ignored, and the right one is used."""
    agent = honest(SnmpAgent(lab_device(), ACCESS))

    class Wrong(Scripted):
        def datagram_received(self, data: bytes, addr: Address) -> None:
            (right,) = agent(data)
            self._transport.sendto(with_request_id(right, 0x55).replace(b"WA", b"XX"), addr)
            asyncio.get_running_loop().call_later(0.1, self._transport.sendto, right, addr)

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: Wrong(agent), local_addr=("127.0.0.1", 0))
    ours = opened(shared, transport.get_extra_info("sockname")[1], engine, timeout_s=2.0)
    assert await ours.get([SYS_NAME]) == {SYS_NAME: b"WA"}
    assert list((await ours.walk(DESCRIPTIONS)).values()) == [b"ge-0/0/0", b"cust0"]
    ours.close()
    transport.close()
    assert shared.traffic.ignored == 2


@pytest.mark.parametrize("engine", ENGINES)
async def test_an_answer_from_another_address_is_not_taken(shared: Shared, engine: Engine) -> None:
    """Somebody else answers with the right id before the device does: only the device's value counts."""
    agent = honest(SnmpAgent(lab_device(), ACCESS))
    forger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    forger.bind(("127.0.0.1", 0))

    class Forged(Scripted):
        def datagram_received(self, data: bytes, addr: Address) -> None:
            (right,) = agent(data)
            forger.sendto(right.replace(b"WA", b"XX"), addr)
            asyncio.get_running_loop().call_later(0.05, self._transport.sendto, right, addr)

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: Forged(agent), local_addr=("127.0.0.1", 0))
    ours = opened(shared, transport.get_extra_info("sockname")[1], engine, timeout_s=2.0)
    assert await ours.get([SYS_NAME]) == {SYS_NAME: b"WA"}
    ours.close()
    transport.close()
    forger.close()
    assert shared.traffic.ignored == (engine == "pysnmp")  # the kernel drops it before gufo sees it


async def test_late_answers_are_counted_and_forgotten(shared: Shared) -> None:
    """An answer that comes after its request was given up is not the answer to the next one."""
    agent = honest(SnmpAgent(lab_device(), ACCESS))
    held: list[bytes] = []

    def answer(request: bytes) -> list[bytes]:
        held.extend(agent(request))
        return [] if len(held) <= 2 else held[:]

    async with listening(answer) as port:
        ours = opened(shared, port, "gufo")
        with pytest.raises(TimeoutError):
            await ours.get([SYS_NAME])
        assert await ours.get([SYS_NAME]) == {SYS_NAME: b"WA"}
        ours.close()
    assert shared.traffic.retries == 1


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_replayed_answer_of_version_3_is_not_taken(shared: Shared, engine: Engine) -> None:
    """Once genuine, authenticated and private, an old answer to a new request counts for nothing."""
    agent = honest(SnmpAgent(lab_device(), ACCESS))
    recorded: list[bytes] = []
    replays = False

    def answer(request: bytes) -> list[bytes]:
        if replays:
            return recorded[-1:]
        recorded.extend(agent(request))
        return recorded[-1:]

    async with listening(answer) as port:
        ours = opened(shared, port, engine, "v3")
        assert await ours.get([SYS_NAME]) == {SYS_NAME: b"WA"}
        replays = True
        with pytest.raises((TimeoutError, DeviceError)):
            await ours.get([SYS_NAME])
        replays = False
        assert await ours.get([SYS_NAME]) == {SYS_NAME: b"WA"}
        ours.close()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("boots", [(1, 2), (9, 1)], ids=["restarted", "lost its boots"])
async def test_an_agent_whose_time_began_anew_is_read_again(
    shared: Shared, engine: Engine, boots: tuple[int, int]
) -> None:
    """After a restart the agent refuses our notion of its time once (RFC 3414 section 3.2); we learn it."""
    device = lab_device()
    agents = [honest(SnmpAgent(device, ACCESS, engine_boots=boot)) for boot in boots]

    def answer(request: bytes) -> list[bytes]:
        return agents[0](request)

    async with listening(answer) as port:
        ours = opened(shared, port, engine, "v3", timeout_s=1.0)
        assert await ours.get([SYS_NAME]) == {SYS_NAME: b"WA"}
        del agents[0]
        assert await ours.get([SYS_NAME]) == {SYS_NAME: b"WA"}
        ours.close()


async def test_an_answer_cut_short_is_asked_for_again_in_smaller_pages(shared: Shared) -> None:
    """Half a datagram is no table: the page shrinks and the walk goes on."""
    agent = honest(SnmpAgent(lab_device(), ACCESS))
    asked = 0

    def answer(request: bytes) -> list[bytes]:
        nonlocal asked
        asked += 1
        (whole,) = agent(request)
        return [whole[: len(whole) // 2]] if asked == 1 else [whole]

    async with listening(answer) as port:
        ours = opened(shared, port, "gufo")
        assert list((await ours.walk(DESCRIPTIONS)).values()) == [b"ge-0/0/0", b"cust0"]
        ours.close()
    assert shared.traffic.malformed == 1


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "noise",
    [b"", b"\x00", b"\x30\x84\xff\xff\xff\xff\x02\x01\x01", b"\x30" * 1400],
    ids=["empty", "zero", "4 GB", "nested"],
)
async def test_noise_is_an_error_and_no_crash(shared: Shared, engine: Engine, noise: bytes) -> None:
    """An agent that sends nonsense, 4 GB announced or endless nesting is a DeviceError or silent."""
    async with listening(lambda _: [noise]) as port:
        ours = opened(shared, port, engine, timeout_s=0.1)
        for asked in (ours.get([SYS_NAME]), ours.walk(DESCRIPTIONS)):
            with pytest.raises((TimeoutError, DeviceError)):
                await asked
        ours.close()


async def test_an_agent_that_makes_rows_up_for_ever_is_stopped(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that increase without an end cost bounded memory: the walk is given up."""
    monkeypatch.setattr("collectors.snmp.engine.Walk.__init__.__defaults__", (0, 500))

    def answer(request: bytes) -> list[bytes]:
        message, _ = decoder.decode(request, asn1Spec=v2c.Message())
        last = v2c.apiPDU.get_varbinds(v2c.apiMessage.get_pdu(message))[0][0]
        number = int(last[-1]) if len(last) == 12 else 0
        response = v2c.apiMessage.get_response(message)
        root = tuple(last)[:11] if len(last) == 12 else tuple(last)
        rows = [((*root, number + i), v2c.OctetString(b"x")) for i in range(1, 20)]
        v2c.apiPDU.set_varbinds(v2c.apiMessage.get_pdu(response), rows)
        return [encoder.encode(response)]

    async with listening(answer) as port:
        ours = opened(shared, port, "gufo")
        with pytest.raises(DeviceError, match="no end"):
            await ours.walk("1.3.6.1.2.1.2.2.1.2.9")
        ours.close()


async def test_a_closed_port_is_silence_at_once(shared: Shared) -> None:
    """ICMP says that nobody listens: the poll fails without waiting for its time-outs."""
    ours = opened(shared, free_udp_port(), "gufo", timeout_s=5.0)
    async with asyncio.timeout(4):
        with pytest.raises(TimeoutError):
            await ours.get([SYS_NAME])
    ours.close()


@pytest.mark.parametrize(
    "broken", [b"", b"\x30", b"\x30\x80", b"\x30\x03\x02\x01\x01", b"\x30\x84\xff", b"\x04\x01a"]
)
def test_the_number_of_what_is_no_message_is_none(broken: bytes) -> None:
    """Bytes that end too soon, announce too much or are something else have no request-id, nor an error."""
    assert message_id(broken) is None


@given(st.binary(max_size=64))
def test_any_bytes_have_a_number_or_none(data: bytes) -> None:
    """Whatever comes, reading the number neither fails nor takes long."""
    assert message_id(data) is None or isinstance(message_id(data), int)
