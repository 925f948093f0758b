"""All collectors of one inventory, in one event loop.

``run_collectors`` makes a task of every target (a device by a protocol) and one of the IPFIX listener, and
ends when told to. Trouble with a device stays with that device; trouble with ourselves (an exception that
nobody expected) ends everything, visibly.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import structlog

from collectors.gate import Gate
from collectors.inventory import Device, Inventory
from collectors.inventory import annotations as link_annotations
from collectors.listener import FlowListener, Share
from collectors.netconf import NetconfPoller, OpenSessions
from collectors.receive import plain_address
from collectors.schedule import DEADLINE
from collectors.snmp.engine import SnmpEngine
from collectors.snmp.identity import Identities
from collectors.snmp.open import RETRIES, Shared, open_engine
from collectors.snmp.places import Places
from collectors.snmp.poller import SnmpPoller
from collectors.snmp.trap_receiver import TrapReceiver
from collectors.stamp.prober import prober_of
from collectors.stamp.tables import probes_of
from collectors.stats import CollectorStats
from collectors.targets import LOG, Emit, NetconfWork, SnmpWork, Target
from collectors.trap_listener import TrapListener
from twin.errors import NdtwinError
from twin.records import Record

MAX_THREADS = 256  # NETCONF targets beyond this wait for one another
SNMP_AT_ONCE = 64  # devices read at the same time; those that are silent do not count
TOPOLOGIES_AT_ONCE = 16  # likewise; their tables are long
_OTHER_FILES = 1024  # broker connections, libraries, logs
_SAVE_S = 10.0
_ANNOTATIONS_S = 300.0  # sent again, for consumers that start from a short log


@dataclass(frozen=True)
class Periods:
    """How often what is read."""

    poll_s: float = 5.0
    netconf_s: float = 15.0
    topology_s: float = 30.0
    bin_s: float = 5.0


async def run_collectors(
    inventory: Inventory,
    emit: Emit,
    *,
    poll_s: float = 5.0,
    window_s: float = 10.0,
    stop: asyncio.Event,
    stats: CollectorStats | None = None,
    netconf_s: float = 15.0,
    topology_s: float = 30.0,
    clock: Callable[[], int] = time.time_ns,
    share: Share | None = None,
    identities: Path | None = None,
) -> None:
    """Collect from every device of the inventory until ``stop`` is set. ``emit`` must not block.

    ``identities``: the file that remembers who answers where; None: only until the end.
    """
    stats = stats if stats is not None else CollectorStats()
    periods = Periods(poll_s=poll_s, netconf_s=netconf_s, topology_s=topology_s, bin_s=window_s / 2)
    known = Identities(inventory.network, inventory.devices, identities)
    crew = _Crew(inventory, emit, stats, periods, clock, share or Share(), known)
    failure: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in crew.work()]
            structlog.get_logger(LOG).info(
                "collecting", network=inventory.network, devices=len(inventory.devices), tasks=len(tasks)
            )
            await stop.wait()
            for task in tasks:
                task.cancel()
    except* NdtwinError as errors:
        failure = errors.exceptions[0]
    finally:
        await crew.close()
    if failure is not None:
        raise failure  # by itself: its one line says all


class _Crew:
    """Everything that runs for one inventory."""

    def __init__(
        self,
        inventory: Inventory,
        emit: Emit,
        stats: CollectorStats,
        periods: Periods,
        clock: Callable[[], int],
        share: Share,
        identities: Identities,
    ) -> None:
        self._inventory = inventory
        self._identities = identities
        self._share = share
        self._emit_to = emit
        self._stats = stats
        self._periods = periods
        self._clock = clock
        self._shared = Shared(stats.snmp)
        self._gate, self._topology_gate = Gate(SNMP_AT_ONCE), Gate(TOPOLOGIES_AT_ONCE)
        self._traps = trap_listener(inventory, self._emit, stats, clock) if inventory.traps else None
        self._places = Places()
        for device in inventory.devices:
            self._places.settle(device.name, [device.address])
        self._engines: list[SnmpEngine] = []
        _make_room_for_sockets(4 * len(inventory.devices))
        self._pollers: list[NetconfPoller] = []
        self._open_sessions = OpenSessions()
        netconf = sum(device.netconf is not None for device in inventory.devices)
        self._pool = ThreadPoolExecutor(min(max(netconf, 1), MAX_THREADS), "netconf")
        # Their tracebacks say at length what our one line says.
        for chatty in ("ncclient", "paramiko"):
            logging.getLogger(chatty).setLevel(logging.CRITICAL)

    def work(self) -> list[Coroutine[None, None, None]]:
        """One coroutine for each task."""
        found = [self._annotate(), self._keep_identities()]
        for device in self._inventory.devices:
            if device.snmp is not None:
                found += [target.run() for target in self._snmp(device)]
            if device.netconf is not None:
                found.append(self._netconf(device).run())
        if self._inventory.ipfix is not None:
            found.append(
                flow_listener(
                    self._inventory,
                    self._emit,
                    self._stats,
                    self._share,
                    bin_s=self._periods.bin_s,
                    clock=self._clock,
                ).run()
            )
        if self._traps is not None and self._inventory.traps is not None:
            found.append(self._traps.run(self._inventory.traps.endpoint))
        if probes := [probe for probe in probes_of(self._inventory) if not probe.table.remote]:
            bin_ns = int(self._periods.bin_s * 1e9)
            found.append(prober_of(self._inventory, probes, self._emit, self._stats, bin_ns=bin_ns).run())
        return found

    async def close(self) -> None:
        """Let go of sockets and threads."""
        self._identities.save()
        for poller in self._pollers:
            poller.cut()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for poller in self._pollers:
            poller.close()
        for engine in self._engines:
            engine.close()
        await self._shared.close()

    def _emit(self, record: Record) -> None:
        self._stats.records += 1
        self._emit_to(record)

    def _snmp(self, device: Device) -> tuple[Target, Target]:
        """Counters and delays, and topology beside them."""
        # Every attempt of the first request must fit into the deadline, or one lost datagram fails the poll.
        timeout_s = min(1.0, DEADLINE * self._periods.poll_s / (RETRIES + 2))
        engines = [open_engine(self._inventory, device, self._shared, timeout_s=timeout_s) for _ in range(2)]
        self._engines += engines
        poller = SnmpPoller(
            self._inventory.network,
            device.name,
            engines[0],
            engines[1],
            self._clock,
            gate=self._gate.turn,
            topology_gate=self._topology_gate.turn,
            places=self._places,
            identities=self._identities,
        )
        work = SnmpWork(poller, self._emit, asyncio.Event(), int(self._periods.poll_s * 1e9))
        if self._traps is not None:
            assert device.snmp is not None, "callers pass devices with snmp"
            credentials = self._inventory.credentials[device.snmp.traps or device.snmp.credentials]
            self._traps.watch(device.name, plain_address(device.address), work, credentials)
            work.addresses_seen = partial(self._traps.also, device.name)
        counters = self._target(device, "snmp", self._periods.poll_s, work.poll)
        topology = self._target(device, "snmp-topology", self._periods.topology_s, work.poll_topology)
        return counters, replace(topology, announces=False, wake=work.topology_moved)

    def _netconf(self, device: Device) -> Target:
        timeout_s = DEADLINE * self._periods.netconf_s
        poller = NetconfPoller.of(
            self._inventory,
            device,
            timeout_s=timeout_s,
            clock=self._clock,
            open_sessions=self._open_sessions,
        )
        self._pollers.append(poller)
        period_ns = int(self._periods.netconf_s * 1e9)
        work = NetconfWork(poller, self._emit, self._pool, period_ns, tells_events=device.snmp is None)
        return self._target(device, "netconf", self._periods.netconf_s, work.poll)

    def _target(
        self, device: Device, protocol: str, period_s: float, poll: Callable[[], Awaitable[None]]
    ) -> Target:
        return Target(
            network=self._inventory.network,
            device=device.name,
            protocol=protocol,
            period_ns=int(period_s * 1e9),
            poll=poll,
            emit=self._emit,
            stats=self._stats,
            clock=self._clock,
        )

    async def _keep_identities(self) -> None:
        while True:
            await asyncio.sleep(_SAVE_S)
            self._identities.save()

    async def _annotate(self) -> None:
        while True:
            self._emit(link_annotations(self._inventory, self._clock()))
            await asyncio.sleep(_ANNOTATIONS_S)


def trap_listener(
    inventory: Inventory, emit: Emit, stats: CollectorStats, clock: Callable[[], int]
) -> TrapListener:
    """The listener for the devices with SNMP, under the credential sets of their traps."""
    accesses = [device.snmp for device in inventory.devices if device.snmp is not None]
    names = {access.traps or access.credentials for access in accesses}
    receiver = TrapReceiver(inventory.credentials[name] for name in sorted(names))
    return TrapListener(inventory.network, receiver, emit, stats, clock)


def flow_listener(
    inventory: Inventory,
    emit: Emit,
    stats: CollectorStats,
    share: Share,
    *,
    bin_s: float,
    clock: Callable[[], int] = time.time_ns,
) -> FlowListener:
    """The listener of an inventory that has one; one of several processes if ``share`` says so."""
    devices = {plain_address(device.address): device.name for device in inventory.devices if device.ipfix}
    return FlowListener(
        inventory.network,
        devices,
        emit,
        stats,
        table=inventory.ipfix,
        bin_ns=int(bin_s * 1e9),
        clock=clock,
        share=share,
        directions={d.name: d.flow_direction for d in inventory.devices if d.flow_direction is not None},
    )


def _make_room_for_sockets(count: int) -> None:
    """A socket or two for every device may be more files than a process opens by default (1,024)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
