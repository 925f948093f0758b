"""Counters to rates: what crossed an interface between two polls, shared out to windows by time.

Theory
------
Two consecutive samples of one device by one protocol bound an *interval*. What a counter advanced in it is
spread evenly over it, so a window gets the share of its overlap; the window's rate is what it got divided
by the time that intervals covered. An interface counts as measured when that is at least half of the
window.

An interval says nothing, and is flagged, when
- ``reset:DEV``: sysUpTime went back or stayed behind (and not because it wrapped after 497 days),
  snmpEngineBoots changed, the interface's ifCounterDiscontinuityTime changed (RFC 2863 section 3.1.5), or a
  64-bit counter went back;
- ``ambiguous-counters:DEV``: a 32-bit counter may have wrapped more than once at line rate, or went back
  while the speed, without which a wrap cannot be told from a reset, is unknown;
- ``implausible:DEV``: the rate would exceed the line rate by more than a tenth.

Rows that the collector calls *stale* (answers from an agent's cache) bound no interval: a row's interval goes
from its last row that was not to its next, so that no rate of 0 is made of them and no jump after it. Windows
in which that was so are flagged ``stale:DEV``: what is counted into them may belong to others.

What a sample says of itself is told of the window it was taken in; what it says of the interval that ends
with it (:data:`OF_INTERVALS`) is told of every window to which the interval gives something. Where a poll is
missing, what came after the window's end may be counted into it and the other way round: ``gap:DEV``, unless
as good as all of the interval lies on one side.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field

from twin.graph import InterfaceRates, QueueRates
from twin.records import DeviceSample, InterfaceCounters

_NS = 1e-9
_LINE_RATE_MARGIN = 1.1  # counters and clock are read a little apart
_UPTIME_WRAP_NS = 2**32 * 10_000_000  # TimeTicks: 32 bits of hundredths of a second
_UPTIME_SLACK_NS = 30_000_000_000
_PACKET_BITS_MIN = 64 * 8  # the smallest frame: bounds packets by the line rate
_PACKET_BITS_MAX = 9216 * 8  # a jumbo frame is counted at one instant, however short the interval
_MIXED = 0.1  # of the window: an interval that gives less to it, or reaches less beyond it, changes little
OF_INTERVALS = frozenset(["reset", "gap", "renumbered", "stale"])
Flags = set[str]
Window = tuple[int, int]
_QueueCounts = tuple[int, int, int]  # octets sent, packets dropped, octets waiting


@dataclass(frozen=True)
class RateRules:
    """When an interval is used, and when a window is measured."""

    min_coverage: float = 0.5
    max_interval_ns: int = 120_000_000_000


@dataclass
class _QueueTally:
    """What one class queue of an interface gave to one window so far."""

    covered_ns: int = 0
    sent_bits: float = 0.0
    drops: float = 0.0
    depth_octets: float = 0.0

    def rates(self, name: str) -> QueueRates:
        seconds = self.covered_ns * _NS
        return QueueRates(name, self.sent_bits / seconds, self.drops / seconds, self.depth_octets)


@dataclass
class _Tally:
    """What one interface gave to one window so far."""

    covered_ns: int = 0
    out_bits: float = 0.0
    out_packets: float = 0.0
    drops: float = 0.0
    in_bits: float = 0.0
    in_packets: float = 0.0
    queues: dict[str, _QueueTally] = field(default_factory=dict)

    def rates(self, enough_ns: float) -> InterfaceRates:
        seconds = self.covered_ns * _NS
        queues = (one.rates(name) for name, one in sorted(self.queues.items()) if one.covered_ns >= enough_ns)
        return InterfaceRates(
            out_bps=self.out_bits / seconds,
            out_pps=self.out_packets / seconds,
            drops_pps=self.drops / seconds,
            in_bps=self.in_bits / seconds,
            in_pps=self.in_packets / seconds,
            queues=tuple(queues),
        )


def counter_advance(
    before: int | None, after: int | None, bits: int, limit: float | None
) -> int | str | None:
    """How far a counter went, the name of the flaw that forbids to say, or None when it was not read.

    ``limit`` is the most it can have gone at line rate; None when the speed is unknown.
    """
    if before is None or after is None:
        return None
    step = after - before
    if bits < 64 and limit is not None and limit >= 2**bits:
        return "ambiguous-counters"
    if step < 0 and bits >= 64:
        return "reset"
    if step < 0 and limit is None:
        return "ambiguous-counters"
    if step < 0:
        step += 2**bits
        return step if limit is not None and step <= limit else "reset"
    return step if limit is None or step <= limit else "implausible"


def device_was_reset(before: DeviceSample, after: DeviceSample) -> bool:
    """Whether the device restarted between two samples."""
    if None not in (before.engine_boots, after.engine_boots) and before.engine_boots != after.engine_boots:
        return True
    if before.uptime_ns is None or after.uptime_ns is None:
        return False
    expected_ns = before.uptime_ns + after.observed_at_ns - before.observed_at_ns
    if after.uptime_ns >= max(before.uptime_ns, expected_ns - _UPTIME_SLACK_NS):
        return False
    return abs(after.uptime_ns - (expected_ns - _UPTIME_WRAP_NS)) > _UPTIME_SLACK_NS


def _advances(
    before: InterfaceCounters, after: InterfaceCounters, seconds: float
) -> tuple[float, float, float, float, float] | str | None:
    """(out bits, out packets, drops, in bits, in packets) of an interval; or its flaw; or None: not read."""
    if (
        None not in (before.discontinuity_at_ns, after.discontinuity_at_ns)
        and before.discontinuity_at_ns != after.discontinuity_at_ns
    ):
        return "reset"
    speed = after.speed_bps or None
    bits = min(before.counter_bits, after.counter_bits)
    bits_limit = speed and (speed * seconds * _LINE_RATE_MARGIN + _PACKET_BITS_MAX)
    octets_limit, packets_limit = bits_limit and bits_limit / 8, bits_limit and bits_limit / _PACKET_BITS_MIN
    found = [
        counter_advance(before.out_octets, after.out_octets, bits, octets_limit),
        counter_advance(before.out_packets, after.out_packets, bits, packets_limit),
        counter_advance(before.in_octets, after.in_octets, bits, octets_limit),
        counter_advance(before.in_packets, after.in_packets, bits, packets_limit),
    ]
    flaw = next((one for one in found if isinstance(one, str)), None)
    if flaw is not None or found[0] is None:
        return flaw
    out_octets, out_packets, in_octets, in_packets = (one if isinstance(one, int) else 0 for one in found)
    return 8.0 * out_octets, out_packets, _drops(before, after), 8.0 * in_octets, in_packets


def _drops(before: InterfaceCounters, after: InterfaceCounters) -> float:
    """ifOutDiscards is a Counter32 whatever the others are: from its upper half, a step back is a wrap."""
    if before.out_discards is None or after.out_discards is None:
        return 0.0
    step = after.out_discards - before.out_discards
    if step < 0 and before.out_discards >= 2**31:
        step += 2**32
    return float(max(step, 0))


class CounterSeries:
    """The samples of one device by one protocol that windows still need, in order of time."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, bytes, DeviceSample]] = []  # (time, digest, sample), sorted

    @property
    def samples(self) -> list[DeviceSample]:
        """In canonical order."""
        return [sample for _, _, sample in self._entries]

    def add(self, sample: DeviceSample, digest: bytes) -> None:
        """Take a sample in; polls that came out of order are put in order."""
        insort(self._entries, (sample.observed_at_ns, digest, sample))

    def before(self, end_ns: int) -> list[DeviceSample]:
        """The samples from before an instant."""
        return [sample for at_ns, _, sample in self._entries if at_ns < end_ns]

    def prune(self, end_ns: int, reach_ns: int = RateRules.max_interval_ns) -> None:
        """Drop what no window after ``end_ns`` needs.

        That is all before the last sample up to it without a stale row, or that can bound no interval.
        """
        first = sum(at_ns <= end_ns for at_ns, _, _ in self._entries) - 1
        while first > 0 and _has_stale_rows(self._entries[first][2]):
            if self._entries[first - 1][0] < end_ns - reach_ns:
                break
            first -= 1
        del self._entries[: max(0, first)]

    def rates(
        self, start_ns: int, end_ns: int, rules: RateRules, cutoff_ns: int | None = None
    ) -> tuple[dict[str, InterfaceRates], Flags]:
        """The rates of every measured interface over a window, and what was wrong.

        Samples from after the cutoff do not count.
        """
        taken = _Window((start_ns, end_ns), rules)
        for _, _, sample in self._entries:
            if taken.is_past or (cutoff_ns is not None and sample.observed_at_ns > cutoff_ns):
                break
            taken.take(sample)
        enough_ns = rules.min_coverage * (end_ns - start_ns)
        measured = {
            name: tally.rates(enough_ns)
            for name, tally in taken.tallies.items()
            if tally.covered_ns >= enough_ns
        }
        return measured, taken.flags


def _has_stale_rows(sample: DeviceSample) -> bool:
    return any(one.stale for one in sample.interfaces) or any(one.stale for one in sample.queues)


def _complaints(before: DeviceSample, after: DeviceSample, window: tuple[int, int]) -> Flags:
    """What a sample says of the interval that ends with it, as far as it concerns the window."""
    said = OF_INTERVALS.intersection(after.quality)
    if "gap" in said:
        inside_ns = min(after.observed_at_ns, window[1]) - max(before.observed_at_ns, window[0])
        outside_ns = after.observed_at_ns - before.observed_at_ns - inside_ns
        if min(inside_ns, outside_ns) < _MIXED * (window[1] - window[0]):
            said -= {"gap"}
    return {f"{flag}:{after.device}" for flag in said}


@dataclass
class _Window:
    """One window while the samples of a device pass by, in order of time."""

    window: Window
    rules: RateRules
    tallies: dict[str, _Tally] = field(default_factory=dict)
    flags: Flags = field(default_factory=set)
    _last: DeviceSample | None = None
    # The rows that begin the next intervals: the newest that were not stale.
    _interfaces: dict[str, tuple[DeviceSample, InterfaceCounters]] = field(default_factory=dict)
    _queues: dict[tuple[str, str], tuple[DeviceSample, _QueueCounts]] = field(default_factory=dict)

    @property
    def is_past(self) -> bool:
        """Whether nothing that follows concerns the window."""
        return self._last is not None and self._last.observed_at_ns >= self.window[1]

    def take(self, sample: DeviceSample) -> None:
        """The next sample."""
        last, self._last = self._last, sample
        if last is not None:
            concerned = self._overlap_ns(last, sample) > 0
            if concerned:
                self.flags |= _complaints(last, sample, self.window)
            if device_was_reset(last, sample):
                self._interfaces.clear()
                self._queues.clear()
                self.flags |= {f"reset:{sample.device}"} if concerned else set()
        self._take_interfaces(sample, last)
        self._take_queues(sample)

    def _overlap_ns(self, before: DeviceSample, after: DeviceSample) -> int:
        """How much of the interval between two samples lies in the window; 0 too for one that is too long."""
        if not 0 < after.observed_at_ns - before.observed_at_ns <= self.rules.max_interval_ns:
            return 0
        return max(min(after.observed_at_ns, self.window[1]) - max(before.observed_at_ns, self.window[0]), 0)

    def _take_interfaces(self, sample: DeviceSample, last: DeviceSample | None) -> None:
        rows: dict[str, tuple[DeviceSample, InterfaceCounters]] = {}
        for one in sample.interfaces:
            begin = self._interfaces.get(one.name)
            if one.stale:
                rows |= {one.name: begin} if begin is not None else {}
                continue
            rows[one.name] = sample, one
            if begin is not None:
                self._share_out(*begin, sample, one)
                if begin[0] is not last and self._overlap_ns(begin[0], sample):
                    self.flags.add(f"stale:{sample.device}")
        self._interfaces = rows

    def _share_out(
        self, before: DeviceSample, was: InterfaceCounters, after: DeviceSample, one: InterfaceCounters
    ) -> None:
        overlap_ns, length_ns = self._overlap_ns(before, after), after.observed_at_ns - before.observed_at_ns
        advances = _advances(was, one, length_ns * _NS) if overlap_ns else None
        if isinstance(advances, str):
            self.flags.add(f"{advances}:{after.device}")
        elif advances is not None:
            share, tally = overlap_ns / length_ns, self.tallies.setdefault(one.name, _Tally())
            tally.covered_ns += overlap_ns
            tally.out_bits += share * advances[0]
            tally.out_packets += share * advances[1]
            tally.drops += share * advances[2]
            tally.in_bits += share * advances[3]
            tally.in_packets += share * advances[4]

    def _take_queues(self, sample: DeviceSample) -> None:
        """Likewise the class queues of measured interfaces; their counters have 64 bits."""
        rows: dict[tuple[str, str], tuple[DeviceSample, _QueueCounts]] = {}
        old = _stale_queues(sample)
        for key, counts in _queue_counts(sample).items():
            begin = self._queues.get(key)
            if key in old:
                rows |= {key: begin} if begin is not None else {}
                continue
            rows[key] = sample, counts
            if begin is not None:
                self._share_out_queue(key, *begin, sample, counts)
        self._queues = rows

    def _share_out_queue(
        self,
        key: tuple[str, str],
        before: DeviceSample,
        was: _QueueCounts,
        after: DeviceSample,
        counts: _QueueCounts,
    ) -> None:
        (interface, name), (sent, dropped, depth) = key, counts
        overlap_ns, length_ns = self._overlap_ns(before, after), after.observed_at_ns - before.observed_at_ns
        if not overlap_ns or interface not in self.tallies or sent < was[0] or dropped < was[1]:
            return
        share = overlap_ns / length_ns
        queue = self.tallies[interface].queues.setdefault(name, _QueueTally())
        queue.covered_ns += overlap_ns
        queue.sent_bits += share * 8.0 * (sent - was[0])
        queue.drops += share * (dropped - was[1])
        queue.depth_octets = float(depth)


def _stale_queues(sample: DeviceSample) -> set[tuple[str, str]]:
    """The class queues that are stale, or belong to a stale interface: drops are compared with its own."""
    ports = {one.name for one in sample.interfaces if one.stale}
    return {(one.interface, one.name) for one in sample.queues if one.stale or one.interface in ports}


def _queue_counts(sample: DeviceSample) -> dict[tuple[str, str], _QueueCounts]:
    """(interface, class) → octets sent, packets dropped, octets waiting; classes of one name are one.

    Only of queues that tell what they sent and dropped, or the first reading would be an advance.
    """
    found: dict[tuple[str, str], _QueueCounts] = {}
    for queue in sample.queues:
        if queue.direction == "out" and queue.sent_octets is not None and queue.dropped_packets is not None:
            sent, dropped, depth = found.get((queue.interface, queue.name), (0, 0, 0))
            found[queue.interface, queue.name] = (
                sent + queue.sent_octets,
                dropped + queue.dropped_packets,
                depth + (queue.depth_octets or 0),
            )
    return found
