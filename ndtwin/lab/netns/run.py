"""A lab in namespaces from start to end: what `ndtwin lab netns` runs.

1. Is everything here? Then a slot, cleaned of what a killed lab may have left.
2. Namespaces, cables, queues; the files of all programs.
3. The programs, snmpd first; the control's socket; the customers' traffic.
4. Wait until OSPF has a way from everywhere to everywhere and every agent answers.
5. The inventory; then ``on_ready``.
6. Until ``stop``: restart what dies. A traffic generator that fails ends the lab with its error.
7. However it ends: traffic, programs, namespaces, files, in this order.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from ndtwin.lab.client import SOCKET_NAME
from ndtwin.lab.control import Control, serve_control
from ndtwin.lab.fault_desk import FaultDesk
from ndtwin.lab.fault_records import FaultRecord
from ndtwin.lab.inventory import RunDirectory
from ndtwin.lab.netns.daemons import PROGRAMS, Access, Daemons, Site, keep_caches_short, make_site
from ndtwin.lab.netns.inventory import inventory_of
from ndtwin.lab.netns.plan import NETCONF_PORT, Plan, make_plan
from ndtwin.lab.netns.settings import NetnsSettings
from ndtwin.lab.netns.spaces import build, held_slot
from ndtwin.lab.netns.tools import check_ready, run
from ndtwin.lab.netns.traffic import Generator
from ndtwin.lab.netns.world import FAULTS, RunningNetwork
from ndtwin.lab.run import JOURNAL_NAME
from ndtwin.lab.settings import LabSettings
from twin.errors import PeerError
from twin.traffic import TrafficCycle

READY_S = 120.0  # on a machine that is busy with other things; a quiet one needs some seconds
WATCH_S = 1.0
TEMPLATES_S = 5.0  # a collector that starts later understands flow records after so long at most
_log = structlog.get_logger("ndtwin.lab")


async def run_netns_lab(
    settings: LabSettings,
    netns: NetnsSettings,
    run_dir: Path,
    stop: asyncio.Event,
    on_ready: Callable[[Path], None] = lambda inventory: None,
) -> None:
    """Run until ``stop`` is set; ``on_ready`` gets the inventory's path when everything answers."""
    check_ready()  # 1
    make_plan(settings, netns, 0)  # what is wrong with the settings is told before anything is touched
    begin_s = time.monotonic()
    async with AsyncExitStack() as stack:
        plan = make_plan(settings, netns, stack.enter_context(held_slot()))
        lab = NetnsLab(plan, settings, netns, RunDirectory(run_dir), stack)
        build(plan)  # 2
        lab.prepare()
        await lab.start()  # 3
        await lab.wait_ready(stop)  # 4
        if stop.is_set():
            return
        inventory = lab.write_inventory()  # 5
        took_s = round(time.monotonic() - begin_s, 1)
        _log.info("lab-ready", network=plan.name, devices=len(plan.routers), took_s=took_s)
        on_ready(inventory)
        await lab.watch(stop)  # 6


class NetnsLab:
    """The parts of a running lab; the stack ends them."""

    def __init__(
        self,
        plan: Plan,
        settings: LabSettings,
        netns: NetnsSettings,
        directory: RunDirectory,
        stack: AsyncExitStack,
    ) -> None:
        self.plan, self.settings, self.netns, self.directory = plan, settings, netns, directory
        self.daemons = Daemons(directory.path / "logs" / "netns")
        cycle = TrafficCycle(plan.network.path_count, settings.seed)
        self.traffic = Generator(plan, cycle.multipliers, settings.seed, tcp=netns.tcp)
        self.sites: list[Site] = []
        self._stack = stack
        self._changes = ThreadPoolExecutor(1, "lab-faults")  # one change of the network at a time
        self._started_s = time.monotonic()
        stack.callback(self._changes.shutdown)

    def prepare(self) -> None:
        """Files and secrets."""
        keys: dict[str, str] = {}
        host_keys: dict[str, Path] = {}
        for router in self.plan.routers:
            host_keys[router.name], public = self.directory.host_key(router.name)
            keys[str(router.management.ip)] = public
        self.directory.write_known_hosts(keys, NETCONF_PORT)
        access = Access(
            self.directory.snmp_access(), self.directory.secret("snmp-writer"), host_keys, self._authorise()
        )
        port = self.settings.ipfix_port
        self.sites = [make_site(router, self.plan, access, port) for router in self.plan.routers]

    @property
    def client_key(self) -> Path:
        """The private key that collectors log in with."""
        return self.directory.host_key("collector")[0].resolve()

    def _authorise(self) -> Path:
        file = self.client_key.with_suffix(".pub")
        file.write_text(self.directory.host_key("collector")[1] + "\n")
        return file

    async def start(self) -> None:
        """Step 3. On the main thread: see :meth:`Daemons.start`."""
        await self._start_control()
        self._stack.callback(self.daemons.stop)
        for name in PROGRAMS:
            for site in self.sites:
                self.daemons.start(site, name)
                await asyncio.sleep(0)
            if name == "snmpd":
                await asyncio.to_thread(self._tune_agents)
        self.daemons.start_reflector([router.space for router in self.plan.routers])
        self.traffic.open()
        self._stack.callback(self.traffic.stop)
        self.traffic.start()

    def _tune_agents(self) -> None:
        for site in self.sites:
            keep_caches_short(site)

    async def _start_control(self) -> None:
        world = RunningNetwork(self.plan, self.daemons, self.traffic)
        desk = FaultDesk(world, FAULTS, self.directory.path / JOURNAL_NAME)
        path = self.directory.path / SOCKET_NAME
        runner = await serve_control(Control(self._call, desk, self.status), path)
        self._stack.callback(path.unlink, missing_ok=True)
        self._stack.push_async_callback(runner.cleanup)

    def _call(self, action: Callable[[], FaultRecord]) -> Future[FaultRecord]:
        return self._changes.submit(action)

    def write_inventory(self) -> Path:
        """Step 5."""
        return self.directory.write(inventory_of(self.plan, self.settings, self.netns, self.client_key))

    # ------------------------------------------------------------------ ready?

    async def wait_ready(self, stop: asyncio.Event) -> None:
        """Step 4."""
        deadline_s = time.monotonic() + READY_S
        while (lacking := await asyncio.to_thread(self._lacking)) and not stop.is_set():
            if time.monotonic() > deadline_s:
                raise PeerError(
                    f"the lab was not ready in {READY_S:.0f} s: {lacking}: see {self.daemons.logs}"
                )
            self._look_after()
            await asyncio.sleep(0.25)

    def _lacking(self) -> str:
        """What is not ready yet; empty when all is."""
        for router, site in zip(self.plan.routers, self.sites, strict=True):
            if not (site.place / "ncx.sock").exists() or not _answers(
                str(router.management.ip), NETCONF_PORT
            ):
                return f"{router.name} does not answer NETCONF"
            if len(self.plan.routers) - 1 > _learnt_prefixes(router.space):
                return f"{router.name} has not learnt all routes from OSPF"
        return ""

    # ------------------------------------------------------------------ watching

    async def watch(self, stop: asyncio.Event) -> None:
        """Step 6."""
        templates_s = 0.0
        while not stop.is_set():
            self._look_after()
            if time.monotonic() - templates_s >= TEMPLATES_S:
                await asyncio.to_thread(self.daemons.send_templates, self.sites)
                templates_s = time.monotonic()
            try:
                await asyncio.wait_for(stop.wait(), WATCH_S)
            except TimeoutError:
                continue

    def _look_after(self) -> None:
        if self.traffic.failure is not None:
            raise PeerError(f"the lab's traffic failed: {self.traffic.failure}") from self.traffic.failure
        for line in self.daemons.check(time.monotonic()):
            _log.warning("lab-program", what=line)

    def status(self) -> dict[str, object]:
        """What GET /status tells."""
        return {
            "network": self.plan.name,
            "topology": self.settings.topology,
            "kind": "netns",
            "nodes": len(self.plan.network.nodes),
            "links": len(self.plan.network.links),
            "pid": os.getpid(),
            "lag_s": 0.0,  # the kernel's network is never behind; what its customers could not send is below
            "packets_sent": self.traffic.sent,
            "traffic_left_out_s": self.traffic.late_s,
            "restarts": self.daemons.restarts,
            "spaces": list(self.plan.spaces),
        }


def _answers(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=1.0):
            return True
    except OSError:
        return False


def _learnt_prefixes(space: str) -> int:
    """How many router ids OSPF has a way to."""
    routes = run("ip", "-n", space, "route", "show", "proto", "ospf").splitlines()
    return sum(line.startswith("10.255.0.") for line in routes)
