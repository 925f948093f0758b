"""Discovery: from one address to an inventory, within bounds."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv4Interface, ip_network
from pathlib import Path

import pytest
import structlog
from collector_peers import SECRETS, free_udp_port, inventory_of

from collectors.inventory import load_inventory
from collectors.snmp.discovery import Bounds, Discovery, candidates
from ndtwin.discover import Plan, run_discovery
from ndtwin.lab.device import Device, Interface, Neighbour
from ndtwin.lab.snmp_agent import SnmpAccess, SnmpAgent, SnmpProtocol
from twin.errors import DeviceError, InventoryError, UsageError

# A chain of four; the last lies outside the prefix that may be asked.
ADDRESSES = {"A": "127.99.1.1", "B": "127.99.1.2", "C": "127.99.1.3", "D": "127.99.2.1"}
WITHIN = "127.99.1.0/24"
ACCESS = SnmpAccess(SECRETS["T_COMMUNITY"], "ndtwin", SECRETS["T_AUTH"], SECRETS["T_PRIVACY"])


def _device(number: int, name: str) -> Device:
    names = list(ADDRESSES)
    device = Device(name, number, IPv4Address(number), bytes(6), lambda: 10**18, 0)
    for index, near in enumerate((number - 2, number), 1):
        if 0 <= near < len(names):
            far = names[near]
            neighbour = Neighbour(far, "eth", bytes(6), IPv4Address(ADDRESSES[far]))
            device.interfaces.append(
                Interface(index, f"eth{index}", speed_bps=1e9, mac=bytes(6), neighbour=neighbour)
            )
    device.interfaces[0].address = IPv4Interface(f"{ADDRESSES[name]}/32")
    return device


@pytest.fixture
async def chain() -> AsyncIterator[int]:
    """The agents, on one port; gives it."""
    port, loop, transports = free_udp_port(ADDRESSES["A"]), asyncio.get_running_loop(), []
    for number, (name, address) in enumerate(ADDRESSES.items(), 1):
        agent = SnmpAgent(_device(number, name), ACCESS)
        transport, _ = await loop.create_datagram_endpoint(
            lambda agent=agent: SnmpProtocol(agent),  # type: ignore[misc]  # bound now, not at the call
            local_addr=(address, port),
        )
        transports.append(transport)
    yield port
    for transport in transports:
        transport.close()


def _discovery(port: int, within: str = WITHIN, most: int = 1000) -> Discovery:
    sets = inventory_of('name = "x"\naddress = "192.0.2.1"\nipfix = true', more="[ipfix]\n").credentials
    tried = {name: sets[name] for name in ("v2c-wrong", "v3")}
    return Discovery(tried, Bounds((ip_network(within),), port, most_devices=most, timeout_s=0.2))


async def test_discovery_walks_to_the_neighbours_and_no_further_than_it_may(chain: int) -> None:
    """Three devices within the prefix, found by whichever set works; the fourth is heard of, not asked."""
    discovery = _discovery(chain)
    await discovery.run(ADDRESSES["A"])
    assert [(one.name, one.address, one.credentials) for one in discovery.found] == [
        (name, ADDRESSES[name], "v3") for name in "ABC"
    ]
    assert discovery.outside == {ADDRESSES["D"]}
    assert discovery.silent == []


async def test_discovery_ends_with_as_many_devices_as_it_may_find(chain: int) -> None:
    """The bound on devices holds, and an address that nobody answers at is told."""
    discovery = _discovery(chain, most=2)
    await discovery.run(ADDRESSES["A"])
    assert [one.name for one in discovery.found] == ["A", "B"]
    nobody = _discovery(chain)
    await nobody.run("127.99.1.9")
    assert (nobody.found, nobody.silent) == ([], ["127.99.1.9"])


CREDENTIALS = """
[credentials.wrong]
community = "env:T_WRONG"
[credentials.right]
community = "file:community"
"""


async def test_the_inventory_of_a_discovery_can_be_used(chain: int, tmp_path: Path) -> None:
    """The file loads, holds only the set that is used, its reference moved along, and no secret."""
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "community").write_text(SECRETS["T_COMMUNITY"])
    (tmp_path / "sets" / "sets.toml").write_text(CREDENTIALS)
    out = tmp_path / "inventory.toml"
    plan = Plan(ADDRESSES["B"], tmp_path / "sets" / "sets.toml", (WITHIN,), out, "net", port=chain)
    said: list[str] = []
    with structlog.testing.capture_logs() as logs:
        summary = await asyncio.to_thread(run_discovery, plan, said.append)
    assert sorted(summary["devices"]) == ["A", "B", "C"]
    inventory = load_inventory(out)
    assert {device.name: device.address for device in inventory.devices} == {k: ADDRESSES[k] for k in "ABC"}
    assert list(tomllib.loads(out.read_text())["credentials"]) == ["right"]
    assert not any(secret in out.read_text() + str(logs) + str(said) for secret in SECRETS.values())
    with pytest.raises(UsageError, match="exists"):
        run_discovery(plan, said.append)


@pytest.mark.parametrize(
    ("seed", "within", "text", "error", "match"),
    [
        ("192.0.2.1", WITHIN, CREDENTIALS, UsageError, "no address within"),
        ("x", WITHIN, CREDENTIALS, UsageError, "no address within"),
        (ADDRESSES["A"], "127.99.1.1/24", CREDENTIALS, UsageError, "--within"),
        (ADDRESSES["A"], WITHIN, "", InventoryError, "has no"),
        (ADDRESSES["A"], WITHIN, "[credentials.a]\n", InventoryError, "community"),
        (
            ADDRESSES["A"],
            WITHIN,
            '[credentials.a]\ncommunity = "env:T_WRONG"\n',
            DeviceError,
            "does not answer",
        ),
    ],
)
def test_what_cannot_be_discovered_is_one_line(  # a table
    tmp_path: Path, seed: str, within: str, text: str, error: type[Exception], match: str
) -> None:
    """Seeds, prefixes and credential files that are wrong are told with what to do; nothing is written."""
    (tmp_path / "sets.toml").write_text(text)
    out = tmp_path / "out.toml"
    with pytest.raises(error, match=match):
        run_discovery(Plan(seed, tmp_path / "sets.toml", (within,), out, "net", port=free_udp_port()), print)
    assert not out.exists()


def test_candidates_are_the_addresses_in_the_indices() -> None:
    """LLDP's first, of both modules, IPv4 and IPv6; OSPF's after them; MAC addresses are none."""
    v1 = {(0, 5, 1, 1, 4, 10, 0, 0, 1): 2, (0, 5, 1, 6, 6, 2, 0, 0, 0, 0, 1): 2, (0, 5, 1): 2}
    v2 = {(0, 5, 1, 1, 2, 16, 0x20, 1, 0xD, 0xB8, *[0] * 11, 1): 2}
    ospf = {(10, 0, 0, 2, 0): 8, (0, 0, 0, 0, 3): 8, (10, 0, 0, 1, 0): 8, (999, 0, 0, 1, 0): 8}
    assert candidates([v1, v2], ospf) == ("10.0.0.1", "2001:db8::1", "10.0.0.2")
