"""Counters that stand still: answers from a cache told apart from interfaces that are idle.

Theory
------
Agents serve counters from caches: net-snmp for 3 s, Junos for 5 s (stats-cache-lifetime), IOS XR collects
from its line cards every 30 s, and a switch was seen that takes 50 s (telegraf #3030). Who polls faster sees
counters that stand, and then a jump: a rate of nothing, and one of several times the truth. A row whose
counters stand although they *should* move is therefore ``stale``: it is passed on, but no rate is made of it;
the next row that moved is compared with the last one that had.

A row should move when its last move was worth :data:`BUSY_PACKETS` a poll or more, and it is up. Before
anything of the device has moved nothing is known of it, and every row that has counted at all should move.
For how long a standing row is believed to be stale depends on what else is seen in the same poll:

    the whole answer stands, sysUpTime too     as long as that lasts: it is the same answer again
    all that should move stand, several        HANGS_S: they do not fall idle all at once, and a device hears
                                               itself polled; but an idle one must not wait for ever
    most of them stand, or the only one        IDLE_S: longer than any cache that is known of
    others move                                IDLE_POLLS polls: it is idle, but line cards and interfaces may
                                               have caches of their own

and always at least twice the time that the device was lately seen to take to refresh. After that the row is
idle (its rate is 0, all the way back to its last move) until it moves again. Where several that should move
all stand, the slower rows are as old as they.

A row of which some counters that were busy stand, and others move, was read while the agent refreshed: it is
stale too, but never twice in a row, since a direction may fall idle.

What cannot be known: how old the first answer after a start is, and the age of counters that do move. A
device that refreshes every 4 s and is polled every 5 s is off by up to 4 s of traffic a poll.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from statistics import median
from typing import Generic, NamedTuple, TypeVar

from twin.records import InterfaceCounters, QueueCounters

K = TypeVar("K", bound=Hashable)
BUSY_PACKETS = 50  # a poll: by chance alone such a row does not stand still, and hellos are far fewer
IDLE_POLLS = 3
IDLE_S = 60.0
HANGS_S = 600.0
LATELY_S = 300.0  # how long stale counters are remembered
_EPISODES = 3  # in that time, of several rows at once: it is the device's habit
_REMEMBERED = 8  # refreshes whose lengths are known
_OCTETS = 1500  # of a packet, where only octets are counted
_INTERFACE_SCALES = (1 / _OCTETS, 1 / _OCTETS, 1.0, 1.0)
_QUEUE_SCALES = (1 / _OCTETS, 1 / _OCTETS, 1.0)
_NS = 1e9


class Counts(NamedTuple):
    """What one row counted, and whether it is up."""

    values: tuple[int | None, ...]
    scales: tuple[float, ...]  # a value's step → packets, about
    packets: float  # in all, about
    up: bool = True


def of_interface(one: InterfaceCounters) -> Counts:
    """What is compared of an interface."""
    inwards, outwards = one.in_packets, one.out_packets
    packets: float = (inwards or 0) + (outwards or 0)
    if inwards is None and outwards is None:
        packets = ((one.in_octets or 0) + (one.out_octets or 0)) / _OCTETS
    values = (one.in_octets, one.out_octets, inwards, outwards)
    return Counts(values, _INTERFACE_SCALES, packets, one.admin_up and one.oper_up)


def of_queue(one: QueueCounters) -> Counts:
    """What is compared of a class queue."""
    octets = one.sent_octets if one.sent_octets is not None else one.offered_octets
    values = (one.offered_octets, one.sent_octets, one.dropped_packets)
    return Counts(values, _QUEUE_SCALES, (octets or 0) / _OCTETS)


@dataclass
class _Row:
    counts: Counts
    moved_at_ns: int  # or first seen
    per_s: float | None = None  # packets in its last move; 0: idle; None: it has not moved yet
    before_s: float = 0.0  # per_s when it fell idle
    polls: int = 0  # for which it stands
    before: Counts | None = None  # its last move began with these
    took_s: float = 0.0  # … and took so long
    torn: bool = False  # the reading before was

    def moved(self, counts: Counts, at_ns: int) -> None:
        self.took_s = max((at_ns - self.moved_at_ns) / _NS, 1e-3)
        self.per_s = max(counts.packets - self.counts.packets, 0.0) / self.took_s
        self.before, self.counts = self.counts, counts
        self.moved_at_ns, self.polls, self.torn = at_ns, 0, False

    def is_torn(self, counts: Counts, least_per_s: float) -> bool:
        """Whether of what moves only a part is new: read before and after the agent refreshed."""
        if self.torn or self.before is None:
            return False
        least = least_per_s * self.took_s
        four = zip(self.before.values, self.counts.values, counts.values, counts.scales, strict=True)
        return any(
            then == now and ((then or 0) - (old or 0)) * scale >= least for old, then, now, scale in four
        )


@dataclass
class Standing(Generic[K]):
    """Watches the rows of one table of one device."""

    late: bool = False  # a row moved for all the time that it was thought idle: its last rate is wrong
    _rows: dict[K, _Row] = field(default_factory=dict)
    _any_moved: bool = False
    _refreshes_ns: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    _still_since_ns: int | None = None  # since when nothing moves that should
    _same_answer: bool = False

    def forget(self) -> None:
        """The device restarted: its counters are others."""
        self._rows.clear()
        self._any_moved, self._still_since_ns = False, None

    def judge(
        self, table: Mapping[K, Counts], at_ns: int, period_ns: int, *, same_answer: bool = False
    ) -> AbstractSet[K]:
        """The keys of the stale rows. ``same_answer``: sysUpTime stands."""
        if self._rows.keys() - table.keys():
            self._rows = {key: row for key, row in self._rows.items() if key in table}
        changed = {key for key, row in self._rows.items() if row.counts.values != table[key].values}
        self._same_answer = same_answer and bool(self._rows) and not changed
        if self._same_answer:
            self._still_since_ns = self._still_since_ns or min(r.moved_at_ns for r in self._rows.values())
            return self._rows.keys()
        self._any_moved |= bool(changed)
        least_per_s = BUSY_PACKETS * _NS / period_ns
        should = {key for key, row in self._rows.items() if self._should_move(row, table[key], least_per_s)}
        torn = {key for key in changed & should if self._rows[key].is_torn(table[key], least_per_s)}
        changed -= torn
        self._learn(changed, should, table, at_ns)
        for key, counts in table.items():
            if key in changed:
                self._rows[key].moved(counts, at_ns)
            elif key not in self._rows:
                self._rows[key] = _Row(counts, at_ns)
            if not counts.up:  # idle, also when it comes up
                self._rows[key].per_s = self._rows[key].before_s = 0.0
        for key in torn:
            self._rows[key].torn = True
        return torn | self._stale(should - changed - torn, len(should), at_ns)

    def _should_move(self, row: _Row, counts: Counts, least_per_s: float) -> bool:
        if row.per_s is None:
            return counts.up and not self._any_moved and row.counts.packets > 0
        return counts.up and row.per_s >= least_per_s

    def _stale(self, standing: set[K], should: int, at_ns: int) -> set[K]:
        known = sum(self._rows[key].per_s is not None for key in standing)
        nothing_moves = len(standing) == should and known > 1
        together = 2 * len(standing) > should
        longest_ns = (HANGS_S if nothing_moves else IDLE_S) * _NS
        self._note_stillness(standing, at_ns, nothing_moves=nothing_moves)
        found = set()
        for key in standing:
            row = self._rows[key]
            row.polls += 1
            stood_ns = at_ns - row.moved_at_ns
            waits = (together or row.polls < IDLE_POLLS) and stood_ns < longest_ns
            if waits or stood_ns < 2 * (self.refresh_ns or 0):
                found.add(key)
            else:
                row.before_s, row.per_s = row.per_s or 0.0, 0.0
        if not found:
            self._still_since_ns = None
        if found and nothing_moves:
            return {key for key, row in self._rows.items() if row.per_s and row.moved_at_ns < at_ns}
        return found

    def _note_stillness(self, standing: set[K], at_ns: int, *, nothing_moves: bool) -> None:
        if not nothing_moves:
            self._still_since_ns = None
        elif self._still_since_ns is None:
            self._still_since_ns = min((self._rows[key].moved_at_ns for key in standing), default=at_ns)

    def _learn(self, changed: set[K], should: set[K], table: Mapping[K, Counts], at_ns: int) -> None:
        """How long the device takes to refresh, from rows that caught up after they had stood still."""
        caught_up = {key for key in changed if _caught_up(self._rows[key], table[key], at_ns)}
        slow = {key for key in caught_up if not self._rows[key].per_s}
        rows = [self._rows[key] for key in caught_up if key in slow or key in should]
        self.late = bool(slow)
        while self._refreshes_ns and at_ns - self._refreshes_ns[0][0] > LATELY_S * _NS:
            self._refreshes_ns.popleft()
        if len(rows) > 1 or slow:  # one row alone may have sent in bursts
            self._refreshes_ns.append((at_ns, int(median(at_ns - row.moved_at_ns for row in rows))))

    @property
    def refresh_ns(self) -> int | None:
        """After how long the device's counters move, where that is longer than a poll."""
        return int(median(took_ns for _, took_ns in self._refreshes_ns)) if self._refreshes_ns else None

    def trouble(self, at_ns: int, period_ns: int) -> str:
        """What operators should know of the device's counters; empty: nothing."""
        still = self._still_since_ns is not None and at_ns - self._still_since_ns >= IDLE_S * _NS
        if still and self._same_answer:
            return (
                "the same answer comes again and again, sysUpTime included: "
                "see what answers in the device's place, or restart its agent"
            )
        if still:
            return (
                "no counter has moved for a minute though several interfaces had traffic: "
                "see whether the agent hangs, and restart it"
            )
        if len(self._refreshes_ns) < _EPISODES:
            return ""
        refresh_s, period_s = (self.refresh_ns or 0) / _NS, period_ns / _NS
        return (
            f"counters move every {refresh_s:.0f} s, polls come every {period_s:g} s: "
            "poll less often, or let its agent refresh them sooner"
        )


def _caught_up(row: _Row, counts: Counts, at_ns: int) -> bool:
    """Whether a row that stood still, or was thought idle, moved by what was to come in all that time."""
    stood_s = (at_ns - row.moved_at_ns) / _NS
    missed = (row.per_s or row.before_s) * stood_s
    return row.polls > 0 and 0 < missed / 2 <= counts.packets - row.counts.packets and stood_s < 2 * IDLE_S
