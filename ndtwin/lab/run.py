"""A lab from start to end: what `ndtwin lab sim` runs.

1. Scenario: topology, capacities, mean traffic, and the driver over them (:mod:`ndtwin.lab.sim`).
2. Agents: for every device SNMP, NETCONF and an IPFIX exporter on its own loopback address.
3. Control: the unix socket in the run directory.
4. The inventory, when all of that answers; then ``on_ready``.
5. Until ``stop``: watch the driver. A driver that fails ends the lab with its error.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog

from ndtwin.lab.addressing import Addressing
from ndtwin.lab.client import SOCKET_NAME
from ndtwin.lab.control import Control, serve_control
from ndtwin.lab.device import Device
from ndtwin.lab.faults import FaultControl
from ndtwin.lab.flows import FlowPlan
from ndtwin.lab.inventory import NETCONF_USER, RunDirectory
from ndtwin.lab.ipfix_exporter import Exporters, RecordMaker
from ndtwin.lab.netconf_server import NetconfServer
from ndtwin.lab.second import Second
from ndtwin.lab.settings import LabSettings
from ndtwin.lab.sim import Driver, Timing
from ndtwin.lab.snmp_agent import SnmpAccess, SnmpAgent, SnmpProtocol
from twin.errors import PeerError, UsageError
from twin.network import Floats
from twin.scenarios import LAB_SIZES
from twin.topologies import open_topology
from twin.traffic import TrafficCycle, lab_scenario, path_flows

JOURNAL_NAME = "faults.jsonl"
WATCH_S = 1.0
T = TypeVar("T")
_log = structlog.get_logger("ndtwin.lab")


@dataclass(frozen=True)
class Scenario:
    """A driver, ready to start, and what it plays."""

    name: str
    driver: Driver
    addressing: Addressing


def make_scenario(settings: LabSettings) -> Scenario:
    """Step 1. TopologyError or ConfigError when the settings make no lab."""
    settings.check()
    topology = open_topology(settings.topology, settings.seed)
    for note in topology.notes:
        _log.info("topology", note=note)
    network, traffic = lab_scenario(
        topology,
        seed=settings.seed,
        packet_hops_per_s=settings.packet_hops_per_s,
        utilisation=settings.utilisation,
    )
    flows = tuple(path_flows(network, traffic, LAB_SIZES))
    plan = FlowPlan(network, flows, settings.probe_pps, 8.0 * settings.probe_octets)
    cycle = TrafficCycle(network.path_count, settings.seed)
    addressing = settings.addressing(len(network.nodes))

    def rates(time_s: float) -> Floats:
        return traffic.pps * cycle.multipliers(time_s)

    timing = Timing(probe_period_s=settings.probe_period_s)
    driver = Driver(plan, rates, seed=settings.seed, addressing=addressing, timing=timing)
    return Scenario(settings.network or topology.name, driver, addressing)


async def run_lab(
    settings: LabSettings,
    run_dir: Path,
    stop: asyncio.Event,
    on_ready: Callable[[Path], None] = lambda inventory: None,
) -> None:
    """Run until ``stop`` is set; ``on_ready`` gets the inventory's path when every agent answers."""
    scenario = make_scenario(settings)
    directory = RunDirectory(run_dir)
    async with AsyncExitStack() as stack:
        lab = Lab(scenario, settings, directory, stack)
        await lab.start_control()
        await lab.start_agents()
        lab.start_export()
        await lab.start_driver()
        inventory = directory.write_inventory(
            scenario.driver.network, settings, scenario.addressing, scenario.name
        )
        _log.info(
            "lab-ready", network=scenario.name, devices=len(lab.driver.devices), inventory=str(inventory)
        )
        on_ready(inventory)
        await lab.watch(stop)


class Lab:
    """The parts of a running lab; everything it opens is closed by the stack."""

    def __init__(
        self, scenario: Scenario, settings: LabSettings, directory: RunDirectory, stack: AsyncExitStack
    ) -> None:
        self.scenario, self.settings, self.directory = scenario, settings, directory
        self.driver = scenario.driver
        self._stack = stack
        self._exporters: Exporters | None = None
        self._exports: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------------ agents

    async def start_agents(self) -> None:
        """SNMP and NETCONF of all devices."""
        access, boots = self.directory.snmp_access(), self.directory.next_boot()
        password = self.directory.secret("netconf-password")
        keys: dict[str, str] = {}
        for device in self.driver.devices:
            address = self.scenario.addressing.management(device.index)
            await self._start_snmp(device, address, access, boots)
            keys[address] = await self._start_netconf(device, address, password)
        self.directory.write_known_hosts(keys, self.settings.netconf_port)

    async def _start_snmp(self, device: Device, address: str, access: SnmpAccess, boots: int) -> None:
        agent = SnmpAgent(device, access, engine_boots=boots)
        opening = asyncio.get_running_loop().create_datagram_endpoint(
            lambda: SnmpProtocol(agent), local_addr=(address, self.settings.snmp_port)
        )
        transport, _ = await _listening(opening, address, self.settings.snmp_port)
        self._stack.callback(transport.close)

    async def _start_netconf(self, device: Device, address: str, password: str) -> str:
        file, public = self.directory.host_key(device.name)
        port = self.settings.netconf_port
        server = NetconfServer(device, NETCONF_USER, password)
        await _listening(server.listen(address, port, file), address, port)
        self._stack.push_async_callback(server.close)
        return public

    # ------------------------------------------------------------------ export

    def start_export(self) -> None:
        """IPFIX of all devices, fed by the driver once a second."""
        world, ratio, addressing = self.driver.world, self.settings.sampling_ratio, self.scenario.addressing
        maker = RecordMaker(world, self.driver.plan, addressing, ratio)
        self._exporters = Exporters(world, maker, addressing, ratio)
        self._stack.callback(self._exporters.close)
        self._stack.push_async_callback(self._finish_exports)
        loop = asyncio.get_running_loop()
        self.driver.on_second = lambda second: _post(loop, self._export, second)

    def _export(self, second: Second) -> None:
        assert self._exporters is not None  # set before the driver got this callback
        collector = ("127.0.0.1", self.settings.ipfix_port)
        task = asyncio.get_running_loop().create_task(self._exporters.export(second, collector))
        self._exports.add(task)
        task.add_done_callback(self._exports.discard)

    async def _finish_exports(self) -> None:
        if self._exports:
            await asyncio.gather(*self._exports)

    # ------------------------------------------------------------------ driver and control

    async def start_control(self) -> None:
        """The unix socket: first of all, since it tells whether a lab runs here already."""
        faults = FaultControl(self.driver, self.directory.path / JOURNAL_NAME)
        path = self.directory.path / SOCKET_NAME
        runner = await serve_control(Control(self.driver.call, faults, self.status), path)
        self._stack.callback(path.unlink, missing_ok=True)  # asyncio leaves it behind before Python 3.13
        self._stack.push_async_callback(runner.cleanup)

    async def start_driver(self) -> None:
        """Wait until the simulator plays (it may have to be compiled first)."""
        self.driver.start()
        self._stack.push_async_callback(asyncio.to_thread, self.driver.stop)
        while not self.driver.playing:
            self._check()
            await asyncio.sleep(0.05)

    async def watch(self, stop: asyncio.Event) -> None:
        """Return when told to; raise when the driver fails."""
        while not stop.is_set():
            self._check()
            try:
                await asyncio.wait_for(stop.wait(), WATCH_S)
            except TimeoutError:
                continue

    def _check(self) -> None:
        if self.driver.failure is not None:
            raise PeerError(f"the lab's simulator failed: {self.driver.failure}") from self.driver.failure

    def status(self) -> dict[str, object]:
        """What GET /status tells."""
        driver = self.driver
        return {
            "network": self.scenario.name,
            "topology": self.settings.topology,
            "nodes": len(driver.network.nodes),
            "links": len(driver.network.links),
            "pid": os.getpid(),
            "lag_s": driver.lag_s,
            "simulated_s": driver.simulator.now_s,
            "packet_hops": driver.simulator.packet_hops,
            "ipfix_messages_dropped": self._exporters.dropped_messages if self._exporters else 0,
        }


def _post(loop: asyncio.AbstractEventLoop, action: Callable[[Second], None], second: Second) -> None:
    """From the driver's thread to the loop; a loop that has ended takes nothing more."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(action, second)


async def _listening(opening: Awaitable[T], address: str, port: int) -> T:
    """One clear line when a port is taken."""
    try:
        return await opening
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES):
            raise
        raise UsageError(
            f"cannot listen on {address}:{port} ({os.strerror(error.errno)}): "
            "stop what uses it, or set another lab.base_address or port"
        ) from error
