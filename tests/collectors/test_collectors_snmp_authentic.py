"""Answers of SNMPv3 that nobody with the key made: somebody on the way forges or changes what snmpd says."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import cast

import pytest
from collector_peers import SECRETS, inventory_of, running_snmpd
from hypothesis import given
from hypothesis import strategies as st

from collectors.inventory import Engine
from collectors.snmp.authentic import Seal
from collectors.snmp.engine import SnmpEngine
from collectors.snmp.open import Shared, open_engine
from collectors.snmp.wire import message_id, secured, sender_of
from ndtwin.lab import ber
from twin.errors import DeviceError

SYS_NAME = "1.3.6.1.2.1.1.5.0"
ENGINES: tuple[Engine, ...] = ("gufo", "pysnmp")
MORE = f"""createUser signs SHA-256 {SECRETS["T_AUTH"]}
rouser signs auth
sysName REAL
"""
SIGNS = """[credentials.signs]
version = "3"
user = "signs"
auth_protocol = "SHA256"
auth_key = "env:T_AUTH"
"""
Relay = Callable[[bytes, bytes], list[bytes]]  # a request and snmpd's answer → what the collector gets


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory, need_tool: Callable[[str], str]) -> Iterator[int]:
    """Debian's snmpd with a user that signs and one that encrypts too; gives its port."""
    with running_snmpd(need_tool("snmpd"), tmp_path_factory.mktemp("snmpd"), MORE) as port:
        yield port


class OnTheWay(asyncio.DatagramProtocol):
    """Between a collector and snmpd."""

    def __init__(self, port: int, relay: Relay) -> None:
        self._port, self._relay = port, relay

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as upstream, suppress(TimeoutError):
            upstream.settimeout(2)
            upstream.sendto(data, ("127.0.0.1", self._port))
            for datagram in self._relay(data, upstream.recv(65535)):
                self._transport.sendto(datagram, addr)


@asynccontextmanager
async def asking(
    agent: int, relay: Relay, user: str, engine: Engine
) -> AsyncIterator[tuple[SnmpEngine, Shared]]:
    """An engine that speaks to snmpd through somebody on the way."""
    loop, shared = asyncio.get_running_loop(), Shared()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: OnTheWay(agent, relay), local_addr=("127.0.0.1", 0)
    )
    port = transport.get_extra_info("sockname")[1]
    access = f'{{ port = {port}, credentials = "{user}", engine = "{engine}" }}'
    inventory = inventory_of(f'name = "a"\naddress = "127.0.0.1"\nsnmp = {access}', more=SIGNS)
    ours = open_engine(inventory, inventory.devices[0], shared, timeout_s=0.5, retries=1)
    yield ours, shared
    ours.close()
    await shared.close()
    transport.close()


def forged(request: bytes, flags: int, tag: bytes) -> bytes:
    """An answer to a signed request that says another name: of the right engine, ids and time."""
    sender, number = sender_of(request), message_id(request)
    assert sender is not None
    assert number is not None
    row = _sequence(ber.oid((1, 3, 6, 1, 2, 1, 1, 5, 0)), ber.octets("EVIL"))
    pdu = ber.tlv(0xA2, request_id(request) + ber.integer(0) * 2 + _sequence(row))
    security = _sequence(
        ber.octets(sender.engine_id), ber.integer(sender.boots), ber.integer(sender.time_s),
        ber.octets(sender.user), ber.octets(tag), ber.octets(b""),
    )  # fmt: skip
    header = _sequence(ber.integer(number), ber.integer(65_507), ber.octets(bytes([flags])), ber.integer(3))
    scoped = _sequence(ber.octets(sender.engine_id), ber.octets(b""), pdu)
    return _sequence(ber.integer(3), header, ber.octets(security), scoped)


def request_id(request: bytes) -> bytes:
    """The request-id of a request in plain text, as it is encoded: behind the GetRequest-PDU's tag."""
    at = request.rindex(b"\xa0")
    while request[at + 2] != 2:  # an octet that only looks like the tag
        at = request.rindex(b"\xa0", 0, at)
    return request[at + 2 : at + 4 + request[at + 3]]


def _sequence(*parts: bytes) -> bytes:
    return ber.tlv(ber.SEQUENCE, b"".join(parts))


def _is_request(request: bytes) -> bool:
    sender = sender_of(request)
    return sender is not None and sender.user != "" and b"\xa0" in request


@pytest.mark.parametrize(
    ("flags", "tag"), [(0, b""), (1, b""), (1, bytes(24)), (1, b"\xff" * 12)],
    ids=["plain", "no tag", "zeros", "short"],
)  # fmt: skip
async def test_an_answer_that_is_not_signed_is_not_taken(agent: int, flags: int, tag: bytes) -> None:
    """It comes before snmpd's own, with all ids right: it is counted, and snmpd's counts."""

    def relay(request: bytes, answer: bytes) -> list[bytes]:
        return [forged(request, flags, tag), answer] if _is_request(request) else [answer]

    async with asking(agent, relay, "signs", "gufo") as (ours, shared):
        assert await ours.get([SYS_NAME]) == {SYS_NAME: b"REAL"}
    assert shared.traffic.forged >= 1


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("user", ["signs", "v3"])
async def test_an_answer_that_was_changed_on_the_way_is_not_taken(
    agent: int, user: str, engine: Engine
) -> None:
    """A bit of a signed or encrypted answer, wherever it is: silence or an error, and never another value."""
    for at in (1, 9, 30):

        def relay(request: bytes, answer: bytes, at: int = at) -> list[bytes]:
            changed = answer[:-at] + bytes([answer[-at] ^ 1]) + answer[len(answer) - at + 1 :]
            return [changed if len(answer) > 100 else answer]

        async with asking(agent, relay, user, engine) as (ours, _):
            with suppress(TimeoutError, DeviceError):
                assert await ours.get([SYS_NAME]) in ({SYS_NAME: b"REAL"}, {}), at


SEAL = Seal("SHA256", b"k" * 32, private=False)


@given(st.binary(max_size=300))
def test_octets_that_are_no_message_are_not_authentic(octets: bytes) -> None:
    """Whatever comes: no exception, and no belief."""
    assert not SEAL.fits(octets)
    assert not SEAL.fits(b"\x30" + octets)
    assert secured(octets[:2]) is None


def test_keys_of_ever_new_engines_cost_no_memory() -> None:
    """Engine ids are what the sender says."""
    seal = Seal("SHA256", b"k" * 32, private=False)
    for number in range(1000):
        seal._key(b"%05d" % number)
    assert len(seal._keys) <= 4
