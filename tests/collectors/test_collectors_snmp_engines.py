"""Both engines against real agents: Debian's snmpd, and agents that misbehave."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import cast

import pytest
from collector_peers import inventory_of
from pyasn1.codec.ber import decoder, encoder
from pysnmp.proto.api import v2c

from collectors.inventory import Engine
from collectors.snmp import tables
from collectors.snmp.engine import Index, SnmpEngine, Value, Walk, get_in_parts
from collectors.snmp.open import Shared, open_engine
from collectors.snmp.paging import FRAME_OCTETS, Paging
from collectors.snmp.poller import SnmpPoller
from twin.errors import DeviceError

ENGINES: tuple[Engine, ...] = ("gufo", "pysnmp")
# Tables whose contents do not change between two walks.
STEADY = {
    "system": "1.3.6.1.2.1.1.9",
    "names": tables.INTERFACE_COUNTERS_32["in_octets"].rsplit(".", 1)[0] + ".2",
    "macs": "1.3.6.1.2.1.2.2.1.6",
    "addresses": "1.3.6.1.2.1.4.20.1",
    "prefixes": tables.ADDRESSES["prefix"],
    "routes": tables.ROUTES["kind"],
    "nothing": "1.3.6.1.4.1.9.9.42",
}
SYS_OBJECT_ID, NOTHING = "1.3.6.1.2.1.1.2.0", "1.3.6.1.2.1.99.99.0"


Table = list[tuple[Index, Value]]
Opener = Callable[..., SnmpEngine]


@pytest.fixture
def opened(shared: Shared) -> Opener:
    """Opens an engine towards a port of 127.0.0.1."""

    def open_to(port: int, credentials: str, engine: Engine, timeout_s: float = 2.0) -> SnmpEngine:
        access = f'{{ port = {port}, credentials = "{credentials}", engine = "{engine}" }}'
        inventory = inventory_of(f'name = "a"\naddress = "127.0.0.1"\nsnmp = {access}')
        return open_engine(inventory, inventory.devices[0], shared, timeout_s=timeout_s, retries=1)

    return open_to


async def _everything(engine: SnmpEngine, octets: int) -> tuple[dict[str, Table], dict[str, object]]:
    engine._paging.budget_octets = octets  # type: ignore[attr-defined]  # pages of this size to begin with
    walks = {name: list((await engine.walk(root)).items()) for name, root in STEADY.items()}
    got = await engine.get([SYS_OBJECT_ID, NOTHING, tables.UPTIME])
    got.pop(tables.UPTIME)
    return walks, dict(got)


@pytest.mark.live
@pytest.mark.parametrize("octets", [60, FRAME_OCTETS])
@pytest.mark.parametrize("credentials", ["v1", "v2c", "v3"])
async def test_both_engines_read_the_same_from_snmpd(
    snmpd: int, opened: Opener, credentials: str, octets: int
) -> None:
    """Versions 1, 2c and 3, small and large pages, fast and portable engine: the same tables, in order."""
    expected, got = await _everything(opened(snmpd, "v2c", "gufo"), 300)
    assert len(expected["names"]) >= 1
    assert expected["nothing"] == []
    assert set(got) == {SYS_OBJECT_ID}
    for engine in ENGINES:
        assert await _everything(opened(snmpd, credentials, engine), octets) == (expected, got)


@pytest.mark.live
async def test_engines_give_counters_of_both_widths(snmpd: int, opened: Opener) -> None:
    """A sample of snmpd has high-capacity counters; in version 1, which has none, 32-bit ones."""
    for credentials, bits in (("v2c", 64), ("v1", 32)):
        for kind in ENGINES:
            engine = opened(snmpd, credentials, kind)
            sample = await SnmpPoller("net", "a", engine, engine, time.time_ns).sample()
            loopback = next(one for one in sample.interfaces if one.name == "lo")
            assert loopback.counter_bits == bits
            assert loopback.in_octets is not None
            assert loopback.oper_up
            assert sample.quality == (("counters-32bit",) if bits == 32 else ())


@pytest.mark.live
@pytest.mark.parametrize("engine", ENGINES)
async def test_a_wrong_key_is_told_from_silence(snmpd: int, opened: Opener, engine: Engine) -> None:
    """A version 3 key that is wrong is refused by the agent; a wrong community is met with silence."""
    with pytest.raises(DeviceError, match="SNMP"):
        await opened(snmpd, "v3-wrong", engine).get([tables.UPTIME])
    with pytest.raises(TimeoutError):
        await opened(snmpd, "v2c-wrong", engine, timeout_s=0.2).get([tables.UPTIME])


# --------------------------------------------------------------------------------- agents that misbehave


class CirclingAgent(asyncio.DatagramProtocol):
    """Answers every GETBULK with the same row: a walk of it has no end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        request, _ = decoder.decode(data, asn1Spec=v2c.Message())
        response = v2c.apiMessage.get_response(request)
        row = ((1, 3, 6, 1, 2, 1, 2, 2, 1, 2, 5), v2c.Integer(7))
        v2c.apiPDU.set_varbinds(v2c.apiMessage.get_pdu(response), [row, row])
        self._transport.sendto(encoder.encode(response), addr)


@pytest.mark.parametrize("engine", ENGINES)
async def test_an_agent_that_walks_in_circles_is_stopped(opened: Opener, engine: Engine) -> None:
    """An OID that does not increase ends the walk with an error, not with an endless loop."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(CirclingAgent, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    try:
        with pytest.raises(DeviceError):
            async with asyncio.timeout(10):
                await opened(port, "v2c", engine).walk("1.3.6.1.2.1.2.2.1.2")
    finally:
        transport.close()


def _rows(*oids: str) -> list[tuple[str, Value]]:
    return [(oid, 1) for oid in oids]


def test_a_walk_takes_pages_until_the_subtree_ends() -> None:
    """Rows are keyed by what follows the root; requests go on after the last; 1.3.60 is not in 1.3.6."""
    walk = Walk("1.3.6")
    assert walk.next_oid == "1.3.6"
    walk.take(_rows("1.3.6.7", "1.3.6.7.8"))
    assert (walk.found, walk.next_oid, walk.ended) == ({(7,): 1, (7, 8): 1}, "1.3.6.7.8", False)
    walk.take(_rows("1.3.6.10", "1.3.60.1"))
    assert (list(walk.found), walk.ended) == ([(7,), (7, 8), (10,)], True)


@pytest.mark.parametrize("page", [[], [None], [("1.3.7.1", 5)]])
def test_a_walk_ends_where_the_view_ends(page: list[tuple[str, Value] | None]) -> None:
    """An empty answer, an end mark and a row from outside all end it."""
    walk = Walk("1.3.6")
    walk.take(page)
    assert (walk.ended, walk.found) == (True, {})


def test_a_walk_of_known_length_ends_with_its_last_row() -> None:
    """Nothing is asked beyond the rows that another column has."""
    walk = Walk("1.3", rows=3)
    walk.take(_rows("1.3.1", "1.3.2"))
    assert (walk.ended, walk.wanted) == (False, 1)
    walk.take(_rows("1.3.3"))
    assert walk.ended


def test_the_guard_stops_circles_and_endless_tables() -> None:
    """Equal or falling OIDs, names that are none, and more rows than the limit are errors."""
    walk = Walk("1.3", limit=3)
    walk.take(_rows("1.3.9", "1.3.10", "1.3.10.1"))
    with pytest.raises(DeviceError, match="no end"):
        walk.take(_rows("1.3.11"))
    for first, second in (("1.3.5", "1.3.5"), ("1.3.10", "1.3.9")):
        walk = Walk("1.3")
        walk.take(_rows(first))
        with pytest.raises(DeviceError, match="in circles"):
            walk.take(_rows(second))
    with pytest.raises(DeviceError, match="no object identifier"):
        Walk("1.3").take(_rows("1.3.x"))


def test_pages_fill_one_datagram_and_no_more() -> None:
    """Rows of 26 octets: as many as fit into a frame; of a column that is known, one more than it has."""
    paging, row = Paging(), ("1.3.6.1.2.1.31.1.1.1.6.17", 10**9)
    paging.answered("if", row, 0.01, 1.0)
    assert 40 <= paging.repetitions("if") <= FRAME_OCTETS // 22
    paging.ended("if", 10)
    assert paging.repetitions("if") == 11
    assert paging.repetitions("if", wanted=4) == 4
    paging.answered("text", ("1.3.6.1.2.1.2.2.1.2.17", b"x" * 255), 0.01, 1.0)
    assert paging.repetitions("text") <= 5


def test_pages_shrink_with_trouble_and_grow_again() -> None:
    """A lost or refused page halves the next; a prompt answer lets it grow; a slow one does not."""
    paging, row = Paging(), ("1.3.6.1.17", 1)
    paging.answered("c", row, 0.01, 1.0)
    most = paging.repetitions("c")
    paging.failed()
    assert paging.repetitions("c") == pytest.approx(most / 2, abs=1)
    for _ in range(20):
        paging.failed()
    assert paging.repetitions("c") >= 1
    paging.answered("c", row, 0.3, 1.0)  # neither prompt nor slow
    least = paging.repetitions("c")
    for _ in range(30):
        paging.answered("c", row, 0.01, 1.0)
    assert least < paging.repetitions("c") == most
    paging.answered("c", row, 0.9, 1.0)
    assert paging.repetitions("c") < most


async def test_a_get_that_is_too_big_is_halved() -> None:
    """Whatever the agent can answer in smaller parts arrives; what it does not have does not."""
    asked: list[int] = []

    async def agent(oids: object) -> dict[str, object]:
        wanted = list(oids)  # type: ignore[call-overload]  # a sequence, as engines pass it
        asked.append(len(wanted))
        return {} if len(wanted) > 2 else {oid: 1 for oid in wanted if oid != "5"}

    found = await get_in_parts(agent, [str(i) for i in range(8)], 8)  # type: ignore[arg-type]  # a plain double
    assert set(found) == {"0", "1", "2", "3", "4", "6", "7"}
    assert max(asked) == 8
