"""What real daemons tell by SNMP of a network whose plan is known: OSPF-MIB (FRR), LLDP-MIB (lldpd) and the
routes (net-snmp), read by our own reader.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from netns_ring import need_namespaces, ring, running_lab, wait

from collectors.inventory import load_inventory
from collectors.snmp import tables as t
from collectors.snmp.engine import Index, Value
from collectors.snmp.interfaces import interface_names
from collectors.snmp.open import Shared, open_engine
from collectors.snmp.places import Places
from collectors.snmp.poller import SnmpPoller
from collectors.snmp.reading import columns
from collectors.snmp.topology import routes
from ndtwin.lab.client import LabClient
from ndtwin.lab.netns.plan import Plan, Router, make_plan
from ndtwin.lab.netns.settings import NetnsSettings
from ndtwin.lab.netns.tools import run
from ndtwin.lab.settings import LabSettings
from twin.records import DeviceTopology, Route

pytestmark = [pytest.mark.netns, pytest.mark.alone, pytest.mark.live]
START_S = 60.0  # the lab's promise
SETTLE_S = 30.0
OSPF_IF_STATE = "1.3.6.1.2.1.14.7.1.12"  # RFC 4750; indexed by the interface's address and 0
POINT_TO_POINT = 4

Hop = tuple[str, str, str]  # prefix, next hop, interface
Cable = tuple[str, str, str, str]  # device, interface, device, interface


@dataclass
class Lab:
    """A lab that runs, what it was planned to be, and how it is read."""

    run_dir: Path
    plan: Plan

    def topologies(self) -> dict[str, DeviceTopology]:
        """Of all routers, twice, as the collector does: the first turn learns whose the addresses are."""
        return asyncio.run(self._read())

    async def _read(self) -> dict[str, DeviceTopology]:
        inventory, shared, places = load_inventory(self.run_dir / "inventory.toml"), Shared(), Places()
        pollers = []
        for device in inventory.devices:
            engine, other = (open_engine(inventory, device, shared, timeout_s=3.0) for _ in range(2))
            pollers.append(SnmpPoller("lab", device.name, engine, other, time.time_ns, places=places))
        for _ in range(2):
            found = {poller.device: await poller.topology() for poller in pollers}
        await shared.close()
        return found

    def walk(self, router: Router, table: t.ColumnTable) -> dict[str, dict[Index, Value]]:
        """Columns of one router."""

        async def read() -> dict[str, dict[Index, Value]]:
            inventory, shared = load_inventory(self.run_dir / "inventory.toml"), Shared()
            device = next(one for one in inventory.devices if one.name == router.name)
            engine = open_engine(inventory, device, shared, timeout_s=3.0)
            try:
                return {name: dict(rows) for name, rows in (await columns(engine, table)).items()}
            finally:
                engine.close()
                await shared.close()

        return asyncio.run(read())

    def knows_all(self, protocol: str) -> bool:
        """Whether there are as many neighbours as ends of cables; which, is for the tests."""
        return len(told(self.topologies(), protocol)) == len(self.plan.network.links)

    def cables(self) -> set[Cable]:
        """Of the plan, both ways."""
        links = self.plan.network.links
        return {(one.source, one.source_interface, one.target, one.target_interface) for one in links}


def told(topologies: dict[str, DeviceTopology], protocol: str) -> set[Cable]:
    """The cables that all devices tell of by a protocol."""
    return {
        (name, one.local_interface, one.remote_device, one.remote_interface)
        for name, topology in topologies.items()
        for one in topology.neighbours
        if one.protocol == protocol
    }


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A ring of four with its adjacencies formed."""
    need_namespaces()
    place = tmp_path_factory.mktemp("mibs")
    topology, run_dir = ring(place / "ring.graphml"), place / "run"
    with running_lab(topology, run_dir, START_S):
        slot = int(LabClient(run_dir).status()["spaces"][0].removeprefix("ndtwin").partition("-")[0])
        made = Lab(run_dir, make_plan(LabSettings(topology=str(topology)), NetnsSettings(), slot))
        wait(partial(made.knows_all, "lldp"), SETTLE_S)
        wait(partial(made.knows_all, "ospf"), SETTLE_S)
        yield made


@pytest.mark.parametrize("protocol", ["ospf", "lldp"])
def test_neighbours_are_the_cables_of_the_plan(lab: Lab, protocol: str) -> None:
    """FRR's ospfNbrTable and lldpd's lldpRemTable both give every cable, with the interfaces of both ends."""
    topologies = lab.topologies()
    assert told(topologies, protocol) == lab.cables()
    assert all(topology.quality == () for topology in topologies.values())


def test_ospf_runs_point_to_point_on_the_addresses_of_the_plan(lab: Lab) -> None:
    """ospfIfTable: every cable's end by its address, and none of them elected a designated router."""
    for router in lab.plan.routers:
        state = lab.walk(router, {"state": OSPF_IF_STATE})["state"]
        cables = {(*port.address.ip.packed, 0) for port in router.ports}
        assert {index for index, value in state.items() if value == POINT_TO_POINT} == cables


def by_kernel(router: Router) -> set[Hop]:
    """What OSPF put into the kernel."""
    found = set()
    for line in run("ip", "-n", router.space, "route", "show", "proto", "ospf").splitlines():
        words = line.split()
        prefix = words[0] if "/" in words[0] else f"{words[0]}/32"
        found.add((prefix, words[words.index("via") + 1], words[words.index("dev") + 1]))
    return found


def test_routes_are_what_the_kernel_forwards_by(lab: Lab) -> None:
    """inetCidrRouteTable comes to what `ip route` shows, once snmpd's cache is over.

    Nothing is stated of ipCidrRouteTable, read where there is no other: net-snmp 5.9 leaves out of it,
    for good, rows that change.
    """
    for router in lab.plan.routers:
        wait(partial(agrees, lab, router), SETTLE_S)


def reaches_all(plan: Plan, router: Router) -> bool:
    """Whether the kernel has a way to all prefixes of the others."""
    others = [one for one in plan.routers if one is not router]
    wanted = {str(prefix) for one in others for prefix in (one.prefix, one.receivers.network)}
    return wanted <= {prefix for prefix, _, _ in by_kernel(router)}


def agrees(lab: Lab, router: Router) -> bool:
    """Whether the kernel has all ways, and SNMP tells its routes over cables, no fewer and no more."""
    names = interface_names(lab.walk(router, t.INTERFACE_NAMES))
    told = over_cables(routes(lab.walk(router, t.ROUTES), names), router)
    return reaches_all(lab.plan, router) and told == by_kernel(router)


def over_cables(found: tuple[Route, ...], router: Router) -> set[Hop]:
    """Of the routes that go on."""
    cables = {port.name for port in router.ports}
    return {
        (one.prefix, one.next_hop, one.interface) for one in found if one.next_hop and one.interface in cables
    }


def test_a_cable_that_is_cut_leaves_ospf_and_comes_back(lab: Lab) -> None:
    """The adjacency goes from both ends' tables, and nothing else does; the routes follow."""
    client = LabClient(lab.run_dir)
    cut = {cable for cable in lab.cables() if {cable[0], cable[2]} == {"A", "B"}}
    fault = client.start("link-down", "A->B")
    try:
        wait(lambda: told(lab.topologies(), "ospf") == lab.cables() - cut, SETTLE_S)
    finally:
        client.stop(fault.id)
    wait(lambda: told(lab.topologies(), "ospf") == lab.cables(), SETTLE_S)
    for router in lab.plan.routers:
        wait(partial(agrees, lab, router), SETTLE_S)
