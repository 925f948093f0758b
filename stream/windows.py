"""Event-time tumbling windows of one network: who is waited for, what is late, when a window closes.

Theory
------
*Event time* is when a thing happened (the end of an interval, for what covers one); the *clock* is the
log's: the newest Kafka timestamp seen. A *source* is one device's stream of one kind of record. A record is
*in time* when the clock has not passed its event time by more than the lateness.

The window that ends at E closes as soon as the clock has reached E + lateness and every source that is
waited for has *passed*: it gave a record with event time x ≥ E, the clock has reached x + lateness, and
what came with it in one burst has had the settling time to come. Then every in-time record with an event
time up to x is in, so what the window holds is a function of the set of in-time records, not of the order
in which they came. Records of a source from after its first pass do not count for this window, whether they
are there or not. Whatever the sources do, the window closes when the clock reaches E + idle time-out; a
source that had not passed by then is idle and is not waited for again until it speaks.

- Nothing closes before some source was seen. The first window waits for one idle time-out after the first
  record, so that sources that speak every few seconds are known before they are needed.
- A record from the future (event time > clock + tolerance) is refused: it would tear every window shut.
- When no source spoke for the dormant time the network sleeps: no more windows, until a record wakes it.
- Windows are closed in order, each once; versions never go back. If all clocks jump back, what comes is late
  until they have caught up.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import msgspec


class Verdict(enum.Enum):
    """What becomes of a record."""

    ACCEPTED = "accepted"
    LATE = "late"
    FUTURE = "future"


@dataclass(frozen=True)
class WindowRules:
    """Lengths of time, nanoseconds."""

    length_ns: int
    lateness_ns: int
    settle_ns: int
    idle_ns: int
    future_ns: int
    dormant_ns: int


class Source(msgspec.Struct, array_like=True):
    """One device's stream of one kind."""

    newest_ns: int
    recent_ns: list[
        tuple[int, int]
    ]  # (event time, clock when it came), from the newest closed window's end on
    waited_for: bool = True
    idle: bool = False


class WindowsSnapshot(msgspec.Struct, array_like=True):
    """All state of :class:`Windows`."""

    closed_until_ns: int = 0
    earliest_ns: int | None = None
    woken_at_ns: int = 0
    sources: dict[str, Source] = {}
    warming_up: bool = False


class Windows:
    """The windows of one network."""

    def __init__(self, rules: WindowRules, state: WindowsSnapshot | None = None) -> None:
        self._rules = rules
        self._state = state if state is not None else WindowsSnapshot(sources={})
        self._blocker = ""  # a source that was found to hold the next window back: looked at first

    @property
    def closed_until_ns(self) -> int:
        """The end of the newest closed window; 0 before the first."""
        return self._state.closed_until_ns

    @property
    def warming_up(self) -> bool:
        """Whether the next window is the first since the network woke: sources told but a part of it."""
        return self._state.warming_up

    def admit(self, last_ns: int, newest_ns: int, now_ns: int) -> Verdict:
        """Judge a record by the last instant of the window it belongs to, and the newest time it tells."""
        if now_ns and newest_ns > now_ns + self._rules.future_ns:
            return Verdict.FUTURE
        if last_ns < self._state.closed_until_ns:
            return Verdict.LATE
        if self._state.earliest_ns is None and last_ns < now_ns - self._rules.idle_ns:
            return Verdict.LATE  # too old to begin with
        return Verdict.ACCEPTED

    def observe(
        self, source: str, event_ns: int, last_ns: int, now_ns: int, *, waited_for: bool = True
    ) -> None:
        """Note an accepted record of a source: event time for the watermark, last instant for its window."""
        state = self._state
        if state.earliest_ns is None:
            state.earliest_ns = last_ns
            self._wake(now_ns)
        state.earliest_ns = min(state.earliest_ns, last_ns)
        known = state.sources.get(source)
        if known is None:
            state.sources[source] = Source(event_ns, [(event_ns, now_ns)], waited_for)
            return
        known.newest_ns = max(known.newest_ns, event_ns)
        known.recent_ns.append((event_ns, now_ns))
        known.idle = False

    def _wake(self, now_ns: int) -> None:
        """The first record since the network slept: what is older than the idle time-out is late now."""
        oldest_ns = (now_ns - self._rules.idle_ns) // self._rules.length_ns * self._rules.length_ns
        self._state.closed_until_ns = max(self._state.closed_until_ns, oldest_ns)
        self._state.woken_at_ns = now_ns
        self._state.warming_up = True

    def due(self, now_ns: int) -> int | None:
        """The end of the next window, if it may close now."""
        state, rules = self._state, self._rules
        if state.earliest_ns is None or now_ns < state.woken_at_ns + rules.idle_ns:
            return None
        end_ns = self._next_end(state.earliest_ns)
        if now_ns < end_ns + rules.lateness_ns:
            return None
        if now_ns < end_ns + rules.idle_ns and self._held_back(end_ns, now_ns):
            return None
        return end_ns

    def _next_end(self, earliest_ns: int) -> int:
        start_ns = max(
            self._state.closed_until_ns, earliest_ns // self._rules.length_ns * self._rules.length_ns
        )
        return start_ns + self._rules.length_ns

    def _held_back(self, end_ns: int, now_ns: int) -> bool:
        sources = self._state.sources
        blocker = sources.get(self._blocker)
        if blocker is not None and self._holds(blocker, end_ns, now_ns):
            return True
        self._blocker = next((name for name, one in sources.items() if self._holds(one, end_ns, now_ns)), "")
        return bool(self._blocker)

    def _holds(self, source: Source, end_ns: int, now_ns: int) -> bool:
        return source.waited_for and not source.idle and not self._passed(source, end_ns, now_ns)

    def _passed(self, source: Source, end_ns: int, now_ns: int) -> bool:
        event_until_ns, came_until_ns = now_ns - self._rules.lateness_ns, now_ns - self._rules.settle_ns
        return any(
            end_ns <= at_ns <= event_until_ns and came_ns <= came_until_ns
            for at_ns, came_ns in source.recent_ns
        )

    def cutoff(self, source: str, end_ns: int) -> int:
        """Up to which event time a source's records count for the window that ends here.

        Its first pass; of a source that is not waited for, or did not pass, what it said before the end.
        """
        known = self._state.sources.get(source)
        recent = known.recent_ns if known is not None and known.waited_for else []
        return min((at_ns for at_ns, _ in recent if at_ns >= end_ns), default=end_ns - 1)

    def close(self, end_ns: int) -> None:
        """The window that ends here is closed."""
        state = self._state
        for source in state.sources.values():
            source.recent_ns = [recent for recent in source.recent_ns if recent[0] >= end_ns]
            source.idle |= not source.recent_ns
        state.closed_until_ns = end_ns
        state.warming_up = False
        state.earliest_ns = end_ns
        newest_ns = max((source.newest_ns for source in state.sources.values()), default=0)
        if newest_ns < end_ns - self._rules.dormant_ns:
            state.earliest_ns = None

    def snapshot(self) -> WindowsSnapshot:
        """All state, canonical."""
        state = self._state
        sources = {
            name: Source(one.newest_ns, sorted(one.recent_ns), one.waited_for, one.idle)
            for name, one in sorted(state.sources.items())
        }
        return WindowsSnapshot(
            state.closed_until_ns, state.earliest_ns, state.woken_at_ns, sources, state.warming_up
        )
