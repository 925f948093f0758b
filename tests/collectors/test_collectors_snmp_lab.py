"""The SNMP poller against the lab's agent: what the device is, is what the records say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from collector_peers import SECRETS, LabAgents, free_udp_port, inventory_of, lab_device

from collectors.inventory import Engine
from collectors.snmp.open import Shared, open_engine
from collectors.snmp.poller import SnmpPoller
from collectors.targets import SnmpWork
from ndtwin.lab import ber
from ndtwin.lab.mib import Cell, fixed
from ndtwin.lab.snmp_agent import SnmpAccess, SnmpAgent, SnmpProtocol
from twin.records import DeviceTopology, InterfaceAddress, Neighbour, Record, Route

WAYS = [(engine, version) for engine in ("gufo", "pysnmp") for version in ("v2c", "v3")]


def _poller(lab: LabAgents, shared: Shared, engine: Engine, credentials: str) -> SnmpPoller:
    access = f'{{ port = {lab.snmp_port}, credentials = "{credentials}", engine = "{engine}" }}'
    inventory = inventory_of(f'name = "WA"\naddress = "127.0.0.1"\nsnmp = {access}')
    opened = open_engine(inventory, inventory.devices[0], shared, timeout_s=0.3, retries=1)
    return SnmpPoller("net", "WA", opened, opened, time.time_ns)


@pytest.mark.parametrize(("engine", "credentials"), WAYS)
async def test_a_sample_is_what_the_device_counts(
    lab: LabAgents, shared: Shared, engine: Engine, credentials: str
) -> None:
    """Counters, states, speeds and uptime of the lab's device arrive unchanged, 64 bits wide."""
    before_ns = time.time_ns()
    sample = await _poller(lab, shared, engine, credentials).sample()
    core, customers = sample.interfaces
    assert (core.name, core.if_index, core.speed_bps, core.counter_bits) == ("ge-0/0/0", 1, 10e6, 64)
    assert (core.in_octets, core.out_octets, core.out_discards) == (5_000_000_000, 7_000, 3)
    assert (core.in_packets, core.out_packets) == (6_000_000, 10)
    assert (customers.name, customers.speed_bps, customers.oper_up) == ("cust0", 10e9, True)
    assert before_ns <= sample.observed_at_ns <= time.time_ns()
    assert sample.uptime_ns == pytest.approx(3600e9, rel=0.01)
    assert sample.engine_boots == 1


@pytest.mark.parametrize(("engine", "credentials"), WAYS)
async def test_topology_is_what_the_device_knows(
    lab: LabAgents, shared: Shared, engine: Engine, credentials: str
) -> None:
    """Neighbours, addresses and routes of the lab's device, by interface name."""
    topology = await _poller(lab, shared, engine, credentials).topology()
    assert topology == DeviceTopology(
        network="net",
        device="WA",
        observed_at_ns=topology.observed_at_ns,
        source="snmp",
        neighbours=(Neighbour(local_interface="ge-0/0/0", remote_device="CA1", remote_interface="ge-0/0/7"),),
        addresses=(
            InterfaceAddress(interface="cust0", address="10.1.0.1", prefix="10.1.0.0/16"),
            InterfaceAddress(interface="ge-0/0/0", address="172.16.0.0", prefix="172.16.0.0/31"),
        ),
        routes=(
            Route(prefix="10.1.0.0/16", interface="cust0", local=True),
            Route(prefix="10.2.0.0/16", next_hop="172.16.0.1", interface="ge-0/0/0", metric=20),
            Route(prefix="172.16.0.0/31", interface="ge-0/0/0", local=True),
        ),
    )


@pytest.mark.parametrize(("engine", "credentials"), WAYS)
async def test_delays_are_what_the_operation_measured(
    lab: LabAgents, shared: Shared, engine: Engine, credentials: str
) -> None:
    """The finished jitter operation is reported one-way, once, dated when it ended."""
    poller = _poller(lab, shared, engine, credentials)
    await poller.topology()
    (report,) = await poller.delays()
    (delay,) = report.delays
    result = lab.device.operations[0].result
    assert result is not None
    assert (report.method, report.direction, report.quality) == ("rttmon", "one-way", ())
    assert (delay.destination, delay.count, delay.sent, delay.lost) == ("10.255.0.2", 9, 10, 1)
    assert (delay.mean_s, delay.min_s) == (pytest.approx(0.0123, abs=1e-6), pytest.approx(0.012))
    assert delay.jitter_s == pytest.approx(0.0005, rel=0.01)
    assert delay.end_ns == pytest.approx(result.completed_ns, abs=50_000_000)
    assert delay.end_ns - delay.start_ns == 5_000_000_000
    (nothing_new,) = await poller.delays()
    assert nothing_new.delays == ()


async def test_probes_that_no_longer_measure_are_told_as_stale(lab: LabAgents, shared: Shared) -> None:
    """Three times the operation's five seconds without a new run; a new run ends it."""
    poller, late_ns = _poller(lab, shared, "gufo", "v2c"), 0
    poller.clock = lambda: time.time_ns() + late_ns
    poller._probes.clock = poller.clock
    await poller.topology()
    flags = []
    for late_s in (0, 14, 17):
        late_ns = late_s * 1_000_000_000
        flags += [(report.quality, len(report.delays)) for report in await poller.delays()]
    result = lab.device.operations[0].result
    assert result is not None
    lab.device.operations[0].result = replace(result, completed_ns=result.completed_ns + 1_000_000_000)
    flags += [(report.quality, len(report.delays)) for report in await poller.delays()]
    assert flags == [((), 1), ((), 0), (("delays-stale",), 0), ((), 1)]


async def test_a_change_stamp_that_moves_asks_for_topology(lab: LabAgents, shared: Shared) -> None:
    """New rows in a table are noticed by the next sample, not only by the next topology poll."""
    poller = _poller(lab, shared, "gufo", "v2c")
    await poller.sample()
    await poller.sample()
    assert not poller.moved
    lab.device.routes = lab.device.routes[:2]
    lab.device.changed()
    await poller.sample()
    assert poller.moved


class OspfAgent(SnmpAgent):
    """The lab's agent with one full OSPF neighbour, of router id 10.255.0.2 (RFC 4750 section 5, nbr)."""

    def _cells(self, version_1: bool) -> Iterator[Cell]:
        yield from super()._cells(version_1)
        row = (172, 16, 0, 1, 0)
        yield (1, 3, 6, 1, 2, 1, 14, 10, 1, 3), row, fixed(ber.tlv(ber.IP_ADDRESS, bytes([10, 255, 0, 2])))
        yield (1, 3, 6, 1, 2, 1, 14, 10, 1, 6), row, fixed(ber.integer(8))


async def test_a_neighbour_that_nobody_knows_yet_is_asked_for_again(shared: Shared) -> None:
    """Topology is incomplete and says so until its neighbour was read, and is then read at the next poll."""
    port, log = free_udp_port(), list[Record]()
    access = SnmpAccess(SECRETS["T_COMMUNITY"], "ndtwin", SECRETS["T_AUTH"], SECRETS["T_PRIVACY"])
    protocol = SnmpProtocol(OspfAgent(lab_device(), access))
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: protocol, local_addr=("127.0.0.1", port))
    table = f'name = "WA"\naddress = "127.0.0.1"\nsnmp = {{ port = {port}, credentials = "v2c" }}'
    inventory = inventory_of(table)
    opened = open_engine(inventory, inventory.devices[0], shared, timeout_s=2.0)
    poller = SnmpPoller("net", "WA", opened, opened, time.time_ns)
    work = SnmpWork(poller, log.append, asyncio.Event(), 10**9)

    async def asks_again() -> bool:
        await work.poll()
        asked = work.topology_moved.is_set()
        work.topology_moved.clear()
        return asked

    await work.poll_topology()
    assert not await asks_again()
    for read, helps in (("CA2", ""), ("CA1", "10.255.0.2")):
        poller.places.learn(
            read, (InterfaceAddress(interface="lo", address=f"10.8.0.{read[2]}", prefix=""),), helps
        )
        assert await asks_again()
        await work.poll_topology()
        assert not await asks_again()
    poller.places.learn("CA3", (), "10.255.0.3")
    assert not await asks_again()  # it knows all of its own
    transport.close()
    told = [record for record in log if isinstance(record, DeviceTopology)]
    assert [one.quality for one in told] == [("neighbours-unknown",), ("neighbours-unknown",), ()]
    assert "CA1" in {one.remote_device for one in told[2].neighbours if one.protocol == "ospf"}


@pytest.mark.parametrize(("engine", "credentials"), WAYS)
async def test_an_engine_works_again_after_silence(
    lab: LabAgents, shared: Shared, engine: Engine, credentials: str
) -> None:
    """A device that answers nothing is a TimeoutError; what it leaves behind does not spoil the next poll."""
    poller = _poller(lab, shared, engine, credentials)
    for _ in range(2):
        lab.device.silent = True
        with pytest.raises(TimeoutError):
            await poller.sample()
        lab.device.silent = False
        assert len((await poller.sample()).interfaces) == 2
