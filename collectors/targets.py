"""The loops: one asyncio task a target, which polls on time, judges the answer and tells what changed.

A target is one protocol of one device. Targets share nothing but the event loop (and NETCONF's thread pool,
which has a thread for each), so a silent one delays nobody. Its deadline is shorter than its period.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import structlog

from collectors import schedule
from collectors.gate import Overrun
from collectors.netconf import NetconfPoller, Reading
from collectors.snmp.engine import Endless
from collectors.snmp.identity import REPLACED, WrongDevice
from collectors.snmp.poller import SnmpPoller
from collectors.stats import CollectorStats
from collectors.watch import InterfaceWatch
from twin.errors import DecodeError, DeviceError, InventoryError
from twin.records import DeviceSample, NetworkEvent, Record

Emit = Callable[[Record], None]
Clock = Callable[[], int]
LOG = "ndtwin.collect"
_OVERRUN = "the collector did not get round to it: poll less often, or share the devices out"
_BACK_AFTER = 3  # polls that the device itself answers


@dataclass
class Target:
    """One device by one protocol, polled for ever."""

    network: str
    device: str
    protocol: str
    period_ns: int
    poll: Callable[[], Awaitable[None]]
    emit: Emit
    stats: CollectorStats
    clock: Clock
    announces: bool = True  # silence is told as an event; false where another target of the device tells it
    wake: asyncio.Event = field(default_factory=asyncio.Event)  # set: poll now
    health: schedule.Health = field(default_factory=schedule.Health)
    _own_answers: int = 0  # in a row, since another device answered

    @property
    def name(self) -> str:
        """``DEVICE/PROTOCOL``."""
        return f"{self.device}/{self.protocol}"

    async def run(self) -> None:
        """Poll at once, and then on the grid, until cancelled."""
        offset = schedule.offset_ns(self.name, self.period_ns)
        await asyncio.sleep(offset / 1e9)  # at the start too, not all at one instant
        while True:
            await self._once()
            self._unless_stopped()  # gufo's wait_for may swallow it (Python < 3.12)
            now_ns = self.clock()
            due_ns = schedule.next_poll_ns(now_ns, self.period_ns, offset, self.health.failures)
            await self._sleep((due_ns - now_ns) / 1e9)

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.wake.wait()
        self.wake.clear()

    async def _once(self) -> None:
        begin = time.perf_counter()
        deadline_s = schedule.DEADLINE * self.period_ns / 1e9
        self.stats.polls += 1
        worked = False
        try:
            async with asyncio.timeout(deadline_s):
                await self.poll()
        except Overrun:
            self._unless_stopped()
            self._overran(deadline_s)
        except Endless as error:
            self._unless_stopped()
            self._refused(str(error))
        except TimeoutError:
            self._timed_out(deadline_s)
        except WrongDevice as error:
            self._mistaken(str(error))
        except (DeviceError, DecodeError, InventoryError) as error:
            self._refused(str(error))
        else:
            worked = True
            self._succeeded()
        self.stats.targets[self.name].took(time.perf_counter() - begin, failed=not worked)

    def _unless_stopped(self) -> None:
        """What cut the poll off was its deadline, or somebody who stops the service."""
        me = asyncio.current_task()
        if me is not None and me.cancelling():
            raise asyncio.CancelledError

    def _overran(self, deadline_s: float) -> None:
        self.stats.overruns += 1
        first = not self.stats.late
        self.stats.late.add(self.name)
        if first:  # whoever comes first tells it for all: it is the collector's trouble, not the device's
            self._log().warning("collector is late", within_s=deadline_s)
            self._tell("collector-late", f"{self.protocol}: {_OVERRUN}")

    def _succeeded(self) -> None:
        self.stats.late.discard(self.name)
        if self.stats.mistaken.get(self.name) and not self._is_back():
            return
        was_silent = self.health.silent
        if self.health.succeeded():
            self._log().info("device answers again")
        was_another = self.stats.mistaken.pop(self.name, "")
        if was_silent or was_another:
            self.stats.silent.discard(self.name)
            self._tell("device-back")

    def _timed_out(self, deadline_s: float) -> None:
        self.stats.timeouts += 1
        if self.health.timed_out():
            self.stats.silent.add(self.name)
            self.stats.mistaken.pop(self.name, None)
            self._log().warning("device is silent", within_s=deadline_s)
            self._tell("device-silent", f"{self.protocol}: no answer within {deadline_s:g} s, twice")

    def _refused(self, complaint: str) -> None:
        self.stats.errors += 1
        if self.health.refused(complaint):
            self._log().warning("device cannot be read", reason=complaint)
            self._tell("device-refuses", f"{self.protocol}: {complaint}")

    def _is_back(self) -> bool:
        """Whether the device itself has answered for long enough: two may answer by turns."""
        self._own_answers += 1
        return self._own_answers >= _BACK_AFTER

    def _mistaken(self, complaint: str) -> None:
        """It answers, but is another device: what it says is not booked as this one's."""
        self.stats.errors += 1
        self._own_answers = 0
        self.stats.silent.discard(self.name)
        self.stats.mistaken[self.name] = complaint
        if self.health.refused(complaint):
            self._log().warning("another device answers", reason=complaint)
            self._tell("wrong-device", f"{self.protocol}: {complaint}")
        # It answers well: it is not silent, and there is no reason to ask it less often.
        self.health.failures, self.health.silent = 0, False

    def _tell(self, kind: str, detail: str = "") -> None:
        if self.announces:
            event = NetworkEvent(
                network=self.network,
                device=self.device,
                observed_at_ns=self.clock(),
                kind=kind,
                detail=detail or self.protocol,
            )
            self.emit(event)

    def _log(self) -> Any:
        return structlog.get_logger(LOG).bind(device=self.device, protocol=self.protocol)


@dataclass
class SnmpWork:
    """What one SNMP poll does: counters and delays. When something moved, topology is asked for at once."""

    poller: SnmpPoller
    emit: Emit
    topology_moved: asyncio.Event
    period_ns: int
    watch: InterfaceWatch = field(default_factory=InterfaceWatch)
    believed: bool = True  # false: another device answers
    _replaced: bool = False
    addresses_seen: Callable[[tuple[str, ...]], None] = lambda addresses: None

    def name_of(self, if_index: int) -> str:
        """The ifName of an interface as the last poll saw it; empty when it did not."""
        return self.poller.names.get(if_index, "")

    def told(self, kind: str, interface: str) -> None:
        """A trap told this: topology may have changed."""
        self.watch.told(kind, interface)
        if kind != "authentication-failure":
            self.topology_moved.set()

    async def poll(self) -> None:
        """One poll of the device."""
        sample, events = self.watch.judge(await self._sample(), self.period_ns)
        self.emit(sample)
        for event in events:
            self.emit(event)
        if events or self.poller.moved or self.poller.may_know_neighbours:
            self.topology_moved.set()
        for report in await self.poller.delays():
            self.emit(report)

    async def _sample(self) -> DeviceSample:
        """The sample; an empty one before it where the hardware is another, for no rate spans both."""
        try:
            sample = await self.poller.sample()
        except WrongDevice:
            self.believed = False
            self.emit(self.poller.nothing(self.poller.clock(), "wrong-device"))
            raise
        self.believed = True
        self._tell_news()
        if self._replaced:
            self._replaced, self.watch = False, InterfaceWatch()
            self.emit(self.poller.nothing(sample.observed_at_ns - 1, "reset"))
        return sample

    def _tell_news(self) -> None:
        poller = self.poller
        news, poller.news = poller.news, []
        self._replaced |= any(one.kind == REPLACED for one in news)
        for kind, detail in ((one.kind, one.detail) for one in news):
            structlog.get_logger(LOG).info(kind, device=poller.device, detail=detail)
            self.emit(
                NetworkEvent(
                    network=poller.network,
                    device=poller.device,
                    observed_at_ns=poller.clock(),
                    kind=kind,
                    detail=detail,
                )
            )

    async def poll_topology(self) -> None:
        """One reading of neighbours, addresses and routes."""
        topology = await self.poller.topology()
        self._tell_news()
        self.addresses_seen(tuple(one.address for one in topology.addresses))
        self.emit(topology)


@dataclass
class NetconfWork:
    """What one NETCONF poll does, in a thread. One that misses its deadline is cut off, never doubled."""

    poller: NetconfPoller
    emit: Emit
    pool: ThreadPoolExecutor
    period_ns: int
    tells_events: bool = True  # false where SNMP watches the same device
    watch: InterfaceWatch = field(default_factory=InterfaceWatch)
    _running: asyncio.Future[Reading] | None = None

    async def poll(self) -> None:
        """One poll; the thread of the one before must have ended."""
        if self._running is not None and not self._running.done():
            raise TimeoutError
        running = asyncio.get_running_loop().run_in_executor(self.pool, self.poller.read)
        running.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, even if late
        self._running = running
        try:
            reading = await asyncio.shield(running)
        except asyncio.CancelledError:
            self.poller.cut()
            raise
        told = self._told(reading)
        sample, events = self.watch.judge(reading.sample, self.period_ns)
        for record in (*told, sample, *reading.others, *(events if self.tells_events else [])):
            self.emit(record)

    def _told(self, reading: Reading) -> list[NetworkEvent]:
        """What notifications told; of links only where nobody watches them more closely."""
        news = []
        for event in reading.events:
            if event.interface and not self.tells_events:
                continue
            self.watch.told(event.kind, event.interface)
            news.append(event)
        return news
