"""What a device's samples say beside each other: events, and the flags that a single sample cannot tell."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from collectors.staleness import Standing, of_interface, of_queue
from twin.records import DeviceSample, NetworkEvent, QueueCounters

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
