"""Our tables of a real snmpd agree with what net-snmp's own programs print of it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import ip_address, ip_network
from typing import TypeVar

import pytest
from collector_peers import SECRETS, inventory_of

from collectors.inventory import Engine
from collectors.snmp.open import Shared, open_engine
from collectors.snmp.poller import SnmpPoller

pytestmark = [pytest.mark.live, pytest.mark.alone]
IF, IFX, CIDR = "1.3.6.1.2.1.2.2.1", "1.3.6.1.2.1.31.1.1.1", "1.3.6.1.2.1.4.24.7.1"
STATES, MASKS = (f"{IFX}.1", f"{IF}.8", f"{IF}.7", f"{IF}.5"), "1.3.6.1.2.1.4.20.1.3"
TRIES = 10
COLUMNS = {  # field → column that net-snmp is asked for
    "in_octets": f"{IFX}.6",
    "out_octets": f"{IFX}.10",
    "in_packets": f"{IFX}.7",
    "out_packets": f"{IFX}.11",
    "in_discards": f"{IF}.13",
    "out_discards": f"{IF}.19",
    "in_errors": f"{IF}.14",
    "out_errors": f"{IF}.20",
}


@pytest.fixture
def bulkwalk(snmpd: int, need_tool: Callable[[str], str]) -> Callable[[str], dict[str, str]]:
    """net-snmp's walk of a column: what follows its OID → the value as printed."""
    program = need_tool("snmpbulkwalk")

    def walk(oid: str) -> dict[str, str]:
        command = [program, "-v2c", "-c", SECRETS["T_COMMUNITY"], "-On", "-Oe", "-OQ", "-Ot"]
        done = subprocess.run(
            [*command, f"127.0.0.1:{snmpd}", oid],
            env={**os.environ, "MIBS": ""},
            capture_output=True,
            text=True,
            check=True,
        )
        rows = (line.split(" = ", 1) for line in done.stdout.splitlines() if f".{oid}." in line)
        return {name.removeprefix(f".{oid}."): value.strip('"') for name, value in rows}

    return walk


Reading = TypeVar("Reading")


def _poller(snmpd: int, shared: Shared, engine: Engine) -> SnmpPoller:
    access = f'{{ port = {snmpd}, credentials = "v2c", engine = "{engine}" }}'
    inventory = inventory_of(f'name = "a"\naddress = "127.0.0.1"\nsnmp = {access}')
    opened = open_engine(inventory, inventory.devices[0], shared, timeout_s=2.0)
    return SnmpPoller("net", "a", opened, opened, time.time_ns)


async def _between(
    walk: Callable[[str], dict[str, str]],
    oids: Iterable[str],
    steady: Iterable[str],
    ours: Callable[[], Awaitable[Reading]],
) -> tuple[dict[str, dict[str, str]], Reading, dict[str, dict[str, str]]]:
    """What net-snmp prints before, our reading, what it prints after: with no change of the host in between.

    Whoever else works on this machine may make interfaces and routes meanwhile; that proves nothing.
    """
    columns = list(oids)
    for _ in range(TRIES):
        before = {oid: walk(oid) for oid in columns}
        reading = await ours()
        after = {oid: walk(oid) for oid in columns}
        same_rows = all(before[oid].keys() == after[oid].keys() for oid in columns)
        if same_rows and all(before[oid] == after[oid] for oid in steady):
            return before, reading, after
    pytest.fail(f"the host's interfaces or routes changed during each of {TRIES} readings")


@pytest.mark.parametrize("engine", ["gufo", "pysnmp"])
async def test_interfaces_agree_with_snmpbulkwalk(
    snmpd: int, shared: Shared, bulkwalk: Callable[[str], dict[str, str]], engine: Engine
) -> None:
    """Names, states and speeds are the same; a counter lies between what is printed before and after."""
    poller = _poller(snmpd, shared, engine)
    before, sample, after = await _between(bulkwalk, (*STATES, *COLUMNS.values()), STATES, poller.sample)
    names, oper, admin, speed = (before[oid] for oid in STATES)
    assert {str(one.if_index): one.name for one in sample.interfaces} == names
    for one in sample.interfaces:
        row = str(one.if_index)
        assert (one.oper_up, one.admin_up) == (oper[row] == "1", admin[row] == "1")
        assert (one.speed_bps or 0) == float(speed[row]) or speed[row] == str(2**32 - 1)
        for field, oid in COLUMNS.items():
            assert int(before[oid][row]) <= getattr(one, field) <= int(after[oid][row]), (one.name, field)


@pytest.mark.parametrize("engine", ["gufo", "pysnmp"])
async def test_routes_and_addresses_agree_with_snmpbulkwalk(
    snmpd: int, shared: Shared, bulkwalk: Callable[[str], dict[str, str]], engine: Engine
) -> None:
    """Every forwarding row of inetCidrRouteTable and every address of ipAddrTable is there, and no other."""
    poller, oids = _poller(snmpd, shared, engine), (f"{CIDR}.8", f"{CIDR}.12", MASKS)
    walked, topology, _ = await _between(bulkwalk, oids, oids, poller.topology)
    kinds, metrics, masks = (walked[oid] for oid in oids)
    expected = {_route(name, kind, int(metrics[name])) for name, kind in kinds.items() if kind in ("3", "4")}
    ours = {(r.prefix, r.next_hop, r.metric, r.local) for r in topology.routes}
    assert ours == expected - {None}
    found = {one.address: one.prefix for one in topology.addresses if ":" not in one.address}
    assert found == {
        address: str(ip_network(f"{address}/{mask}", strict=False)) for address, mask in masks.items()
    }


def _route(name: str, kind: str, metric: int) -> tuple[str, str, int, bool] | None:
    """An index as net-snmp prints it → the route; None for zoned addresses."""
    numbers = [int(part) for part in name.split(".")]
    octets = {1: 4, 2: 16}.get(numbers[0])
    if octets != numbers[1]:
        return None
    destination, numbers = bytes(numbers[2 : 2 + octets]), numbers[2 + octets :]
    length, policy = numbers[0], numbers[1]
    hop = numbers[2 + policy :]
    if hop[0] not in (0, 1, 2):
        return None
    address = ip_address(bytes(hop[2:])) if hop[1] else None
    text = "" if address is None or address.is_unspecified else str(address)
    prefix = str(ip_network((destination, length), strict=False))
    return prefix, text, max(metric, 0), kind == "3"


def test_the_route_helper_reads_an_index() -> None:
    """The independent reading of an index is right on an example of RFC 4292's form."""
    assert _route("1.4.10.2.0.0.16.2.0.0.1.4.10.0.0.1", "4", 20) == ("10.2.0.0/16", "10.0.0.1", 20, False)
