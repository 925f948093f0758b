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

What a sample says of itself is told of the window it was taken in; what it says of the interval that ends
with it (:data:`OF_INTERVALS`) is told of every window to which the interval gives something. Where a poll is
missing, what came after the window's end may be counted into it and the other way round: ``gap:DEV``, unless
as good as all of the interval lies on one side.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from twin.graph import InterfaceRates, QueueRates
from twin.records import DeviceSample, InterfaceCounters

_NS = 1e-9
_LINE_RATE_MARGIN = 1.1  # counters and clock are read a little apart
_UPTIME_WRAP_NS = 2**32 * 10_000_000  # TimeTicks: 32 bits of hundredths of a second
_UPTIME_SLACK_NS = 30_000_000_000
_PACKET_BITS_MIN = 64 * 8  # the smallest frame: bounds packets by the line rate
_PACKET_BITS_MAX = 9216 * 8  # a jumbo frame is counted at one instant, however short the interval
_MIXED = 0.1  # of the window: an interval that gives less to it, or reaches less beyond it, changes little
OF_INTERVALS = frozenset(["reset", "gap", "renumbered"])
Flags = set[str]


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

    def prune(self, end_ns: int) -> None:
        """Drop what no window after ``end_ns`` needs: all but the last sample up to it and what follows."""
        first = sum(at_ns <= end_ns for at_ns, _, _ in self._entries)
        del self._entries[: max(0, first - 1)]

    def rates(
        self, start_ns: int, end_ns: int, rules: RateRules, cutoff_ns: int | None = None
    ) -> tuple[dict[str, InterfaceRates], Flags]:
        """The rates of every measured interface over a window, and what was wrong.

        Samples from after the cutoff do not count.
        """
        tallies: dict[str, _Tally] = {}
        flags: Flags = set()
        for before, after in self._intervals(start_ns, end_ns, rules):
            if cutoff_ns is not None and after.observed_at_ns > cutoff_ns:
                break
            flags |= _complaints(before, after, (start_ns, end_ns))
            if device_was_reset(before, after):
                flags.add(f"reset:{after.device}")
            else:
                _share_out(before, after, (start_ns, end_ns), tallies, flags)
        enough_ns = rules.min_coverage * (end_ns - start_ns)
        measured = {
            name: tally.rates(enough_ns) for name, tally in tallies.items() if tally.covered_ns >= enough_ns
        }
        return measured, flags

    def _intervals(
        self, start_ns: int, end_ns: int, rules: RateRules
    ) -> Iterator[tuple[DeviceSample, DeviceSample]]:
        """The intervals that overlap a window, up to the first sample at or after its end."""
        for (before_ns, _, before), (after_ns, _, after) in pairwise(self._entries):
            if before_ns >= end_ns:
                return
            if after_ns > start_ns and 0 < after_ns - before_ns <= rules.max_interval_ns:
                yield before, after


def _complaints(before: DeviceSample, after: DeviceSample, window: tuple[int, int]) -> Flags:
    """What a sample says of the interval that ends with it, as far as it concerns the window."""
    said = OF_INTERVALS.intersection(after.quality)
    if "gap" in said:
        inside_ns = min(after.observed_at_ns, window[1]) - max(before.observed_at_ns, window[0])
        outside_ns = after.observed_at_ns - before.observed_at_ns - inside_ns
        if min(inside_ns, outside_ns) < _MIXED * (window[1] - window[0]):
            said -= {"gap"}
    return {f"{flag}:{after.device}" for flag in said}


def _share_out(
    before: DeviceSample,
    after: DeviceSample,
    window: tuple[int, int],
    tallies: dict[str, _Tally],
    flags: Flags,
) -> None:
    length_ns = after.observed_at_ns - before.observed_at_ns
    overlap_ns = min(after.observed_at_ns, window[1]) - max(before.observed_at_ns, window[0])
    share = overlap_ns / length_ns
    earlier = {interface.name: interface for interface in before.interfaces}
    for interface in after.interfaces:
        was = earlier.get(interface.name)
        advances = _advances(was, interface, length_ns * _NS) if was is not None else None
        if isinstance(advances, str):
            flags.add(f"{advances}:{after.device}")
        elif advances is not None:
            tally = tallies.setdefault(interface.name, _Tally())
            tally.covered_ns += overlap_ns
            tally.out_bits += share * advances[0]
            tally.out_packets += share * advances[1]
            tally.drops += share * advances[2]
            tally.in_bits += share * advances[3]
            tally.in_packets += share * advances[4]
    _share_out_queues(before, after, overlap_ns, share, tallies)


def _share_out_queues(
    before: DeviceSample, after: DeviceSample, overlap_ns: int, share: float, tallies: dict[str, _Tally]
) -> None:
    """Likewise what the class queues of measured interfaces sent and dropped; their counters have 64 bits."""
    earlier = _queue_counts(before)
    for (interface, name), (sent, dropped, depth) in _queue_counts(after).items():
        was = earlier.get((interface, name))
        if was is None or interface not in tallies or sent < was[0] or dropped < was[1]:
            continue
        queue = tallies[interface].queues.setdefault(name, _QueueTally())
        queue.covered_ns += overlap_ns
        queue.sent_bits += share * 8.0 * (sent - was[0])
        queue.drops += share * (dropped - was[1])
        queue.depth_octets = float(depth)


def _queue_counts(sample: DeviceSample) -> dict[tuple[str, str], tuple[int, int, int]]:
    """(interface, class) → octets sent, packets dropped, octets waiting; classes of one name are one.

    Only of queues that tell what they sent and dropped, or the first reading would be an advance.
    """
    found: dict[tuple[str, str], tuple[int, int, int]] = {}
    for queue in sample.queues:
        if queue.direction == "out" and queue.sent_octets is not None and queue.dropped_packets is not None:
            sent, dropped, depth = found.get((queue.interface, queue.name), (0, 0, 0))
            found[queue.interface, queue.name] = (
                sent + queue.sent_octets,
                dropped + queue.dropped_packets,
                depth + (queue.depth_octets or 0),
            )
    return found
