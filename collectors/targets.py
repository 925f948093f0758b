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

import msgspec
import structlog

from collectors import schedule
from collectors.gate import Overrun
from collectors.netconf import NetconfPoller, Reading
from collectors.snmp.identity import REPLACED, WrongDevice
from collectors.snmp.poller import SnmpPoller
from collectors.staleness import Standing, of_interface, of_queue
from collectors.stats import CollectorStats
from twin.errors import DecodeError, DeviceError, InventoryError
from twin.records import DeviceSample, NetworkEvent, QueueCounters, Record

Emit = Callable[[Record], None]
Clock = Callable[[], int]
LOG = "ndtwin.collect"
_OVERRUN = "the collector did not get round to it: poll less often, or share the devices out"
_UPTIME_WRAP_NS = 2**32 * 10_000_000  # TimeTicks: 32 bits of hundredths of a second
_UPTIME_SLACK_NS = 30_000_000_000
_TRAP_GRACE = 1  # polls that may contradict a trap
_GAP = 1.5  # periods between two samples: a poll is missing


@dataclass
class InterfaceWatch:
    """Compares a device's samples: links that went down or came up, restarts, and what the flaws are.

    What a trap told first is not told again. An agent may answer from a cache that is some seconds old, so a
    poll that contradicts a trap is believed only when the next one does too.
    """

    last: DeviceSample | None = None
    _told: dict[str, tuple[bool, int]] = field(default_factory=dict)  # interface → (up, polls to wait)
    _restart_told: bool = False
    _interfaces: Standing[str] = field(default_factory=Standing)
    _queues: Standing[tuple[str, str, str]] = field(default_factory=Standing)
    _old_counters: bool = False  # told as counters-stale

    def told(self, kind: str, interface: str) -> None:
        """A trap told this."""
        if kind in ("link-down", "link-up"):
            self._told[interface] = (kind == "link-up", _TRAP_GRACE)
        self._restart_told |= kind in ("cold-start", "warm-start")

    def judge(self, sample: DeviceSample, period_ns: int) -> tuple[DeviceSample, list[NetworkEvent]]:
        """The sample with its flags, and what changed."""
        sample = self._marked(sample, period_ns)
        news = self._staleness_told(sample, period_ns)
        judged = msgspec.structs.replace(sample, quality=self.quality(sample, period_ns))
        return judged, [*self.events(sample), *news]

    def _marked(self, sample: DeviceSample, period_ns: int) -> DeviceSample:
        """The sample with its stale rows marked."""
        last, at_ns = self.last, sample.observed_at_ns
        if last is not None and was_restarted(last, sample):
            self._interfaces.forget()
            self._queues.forget()
        same = last is not None and sample.uptime_ns is not None and sample.uptime_ns == last.uptime_ns
        ports = {one.name: of_interface(one) for one in sample.interfaces}
        classes = {_class_of(one): of_queue(one) for one in sample.queues}
        old_ports = self._interfaces.judge(ports, at_ns, period_ns, same_answer=same)
        old_classes = self._queues.judge(classes, at_ns, period_ns, same_answer=same)
        if not (old_ports or old_classes):
            return sample
        mark = msgspec.structs.replace
        return mark(
            sample,
            interfaces=tuple(
                mark(one, stale=True) if one.name in old_ports else one for one in sample.interfaces
            ),
            queues=tuple(
                mark(one, stale=True) if _class_of(one) in old_classes else one for one in sample.queues
            ),
        )

    def _staleness_told(self, sample: DeviceSample, period_ns: int) -> list[NetworkEvent]:
        """Counters that are old time and again are told once, and once when they no longer are."""
        trouble = self._interfaces.trouble(sample.observed_at_ns, period_ns)
        before, self._old_counters = self._old_counters, bool(trouble)
        if before == self._old_counters:
            return []
        detail = f"{sample.source}: {trouble or 'counters move with every poll, or there is no traffic'}"
        return [_event(sample, "counters-stale" if trouble else "counters-fresh", detail=detail)]

    def events(self, sample: DeviceSample) -> list[NetworkEvent]:
        """What changed since the sample before; nothing at the first."""
        last, self.last = self.last, sample
        if last is None:
            return []
        up = {one.name: one.oper_up for one in last.interfaces}
        found = [
            _event(sample, "link-up" if one.oper_up else "link-down", interface=one.name)
            for one in sample.interfaces
            if self._is_news(one.name, up.get(one.name, one.oper_up), one.oper_up)
        ]
        if was_restarted(last, sample):
            uptime_s = (sample.uptime_ns or 0) / 1e9
            if not self._restart_told:
                found.append(_event(sample, "cold-start", detail=f"sysUpTime {uptime_s:.0f} s"))
            self._restart_told = False
        return found

    def _is_news(self, interface: str, was_up: bool, is_up: bool) -> bool:
        told = self._told.pop(interface, None)
        if told is None:
            return was_up != is_up
        told_up, polls = told
        if told_up != is_up and polls:
            self._told[interface] = (told_up, polls - 1)
            return False
        return told_up != is_up

    def quality(self, sample: DeviceSample, period_ns: int) -> tuple[str, ...]:
        """The sample's flags, with what only the sample before can tell."""
        last = self.last
        if last is None:
            return sample.quality
        numbers = {one.name: one.if_index for one in last.interfaces}
        found = {
            "reset": was_restarted(last, sample),
            "gap": sample.observed_at_ns - last.observed_at_ns > _GAP * period_ns,
            "renumbered": any(numbers.get(i.name, i.if_index) != i.if_index for i in sample.interfaces),
            "stale": self._interfaces.late or any(one.stale for one in sample.interfaces),
            "counters-stale": self._old_counters,
        }
        return (*sample.quality, *(flag for flag, holds in found.items() if holds))


def _class_of(queue: QueueCounters) -> tuple[str, str, str]:
    return queue.interface, queue.direction, queue.name


def was_restarted(before: DeviceSample, after: DeviceSample) -> bool:
    """Whether the device's counters began anew: another boot, or an uptime that went back.

    Of the latter only what is no wrap of sysUpTime's 32 bits after 497 days.
    """
    if None not in (before.engine_boots, after.engine_boots) and before.engine_boots != after.engine_boots:
        return True
    if before.uptime_ns is None or after.uptime_ns is None or after.uptime_ns >= before.uptime_ns:
        return False
    expected_ns = before.uptime_ns + after.observed_at_ns - before.observed_at_ns - _UPTIME_WRAP_NS
    return abs(after.uptime_ns - expected_ns) > _UPTIME_SLACK_NS


def _event(sample: DeviceSample, kind: str, *, interface: str = "", detail: str = "") -> NetworkEvent:
    return NetworkEvent(
        network=sample.network,
        device=sample.device,
        observed_at_ns=sample.observed_at_ns,
        kind=kind,
        interface=interface,
        detail=detail,
    )


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

    @property
    def name(self) -> str:
        """``DEVICE/PROTOCOL``."""
        return f"{self.device}/{self.protocol}"

    async def run(self) -> None:
        """Poll at once, and then on the grid, until cancelled."""
        offset = schedule.offset_ns(self.name, self.period_ns)
        await asyncio.sleep(offset / 1e9)  # at the start too, not all at one instant
        me = asyncio.current_task()
        while True:
            await self._once()
            if me is not None and me.cancelling():  # gufo's wait_for may swallow it (Python < 3.12)
                raise asyncio.CancelledError
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
            self._overran(deadline_s)
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

    def _overran(self, deadline_s: float) -> None:
        self.stats.overruns += 1
        first = not self.stats.late
        self.stats.late.add(self.name)
        if first:  # whoever comes first tells it for all: it is the collector's trouble, not the device's
            self._log().warning("collector is late", within_s=deadline_s)
            self._tell("collector-late", f"{self.protocol}: {_OVERRUN}")

    def _succeeded(self) -> None:
        self.stats.late.discard(self.name)
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
            self._log().warning("device is silent", within_s=deadline_s)
            self._tell("device-silent", f"{self.protocol}: no answer within {deadline_s:g} s, twice")

    def _refused(self, complaint: str) -> None:
        self.stats.errors += 1
        if self.health.refused(complaint):
            self._log().warning("device cannot be read", reason=complaint)
            self._tell("device-refuses", f"{self.protocol}: {complaint}")

    def _mistaken(self, complaint: str) -> None:
        """It answers, but is another device: what it says is not booked as this one's."""
        self.stats.errors += 1
        self.stats.silent.discard(self.name)
        self.stats.mistaken[self.name] = complaint
        if self.health.refused(complaint):
            self._log().warning("another device answers", reason=complaint)
            self._tell("wrong-device", f"{self.protocol}: {complaint}")
        self.health.failures = 0  # it answers well: no reason to ask it less often

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
