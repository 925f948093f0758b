"""Windows: tables of (now, in, out)."""

from __future__ import annotations

import pytest

from stream.windows import Verdict, WindowRules, Windows

S = 1_000_000_000
RULES = WindowRules(
    length_ns=10 * S,
    lateness_ns=2 * S,
    settle_ns=S // 2,
    idle_ns=15 * S,
    future_ns=60 * S,
    dormant_ns=100 * S,
)
A, B = "samples/snmp/A", "flows/B"


def awake(*sources: str) -> Windows:
    """Windows that closed [90, 100) and know the sources, which spoke at 91 and 101."""
    windows = Windows(RULES)
    for at_s in (91, 101):
        for source in sources:
            say(windows, source, at_s, at_s)
    assert windows.due(114 * S) == 100 * S
    windows.close(100 * S)
    return windows


def say(windows: Windows, source: str, event_s: float, now_s: float) -> None:
    """One record of a source."""
    windows.observe(source, int(event_s * S), int(event_s * S), int(now_s * S))


def test_nothing_closes_before_a_source_was_seen() -> None:
    """Without a record no window is due, whatever the time."""
    assert Windows(RULES).due(10**18) is None


def test_the_first_window_waits_for_one_idle_timeout() -> None:
    """After the first record, slower sources get the idle time-out to show themselves."""
    windows = Windows(RULES)
    say(windows, A, 99, 99)
    say(windows, A, 103, 103)
    assert windows.due(113 * S) is None
    assert windows.due(114 * S) == 100 * S


@pytest.mark.parametrize(
    ("said", "now_s", "closes"),
    [
        ([(A, 110.5, 110.6), (B, 110, 110.2)], 112.4, False),  # A passed at 110.5: its lateness ends at 112.5
        ([(A, 110.5, 110.6), (B, 110, 110.2)], 112.5, True),
        ([(A, 110.5, 110.6), (B, 109.9, 110.2)], 120.0, False),  # B has not passed
        ([(A, 110.5, 110.6), (B, 109.9, 110.2)], 125.0, True),  # idle time-out after the end
        ([(A, 110.5, 110.6), (B, 110, 113.0)], 113.4, False),  # B's burst has half a second to be complete
        ([(A, 110.5, 110.6), (B, 110, 113.0)], 113.5, True),
        ([], 124.9, False),
        ([], 125.0, True),
    ],
)
def test_a_window_closes_when_every_source_has_passed_or_the_time_is_out(
    said: list[tuple[str, float, float]], now_s: float, closes: bool
) -> None:
    """The window that ends at 110 closes at the given time, or does not."""
    windows = awake(A, B)
    for source, event_s, came_s in said:
        say(windows, source, event_s, came_s)
    assert (windows.due(int(now_s * S)) == 110 * S) is closes


def test_an_idle_source_is_not_waited_for_until_it_speaks() -> None:
    """B misses one window; the next closes without it; when B speaks again it is waited for again."""
    windows = awake(A, B)
    say(windows, A, 110.5, 110.5)
    assert windows.due(125 * S) == 110 * S
    windows.close(110 * S)
    say(windows, A, 120.5, 120.5)
    assert windows.due(125 * S) == 120 * S
    windows.close(120 * S)
    say(windows, B, 125, 125.5)
    say(windows, A, 130.5, 130.5)
    assert windows.due(133 * S) is None
    say(windows, B, 130, 133)
    assert windows.due(134 * S) == 130 * S


def test_a_slow_source_that_nobody_waits_for_holds_nothing_back() -> None:
    """A source observed with waited_for=False never delays a window."""
    windows = awake(A)
    windows.observe("samples/netconf/A", 101 * S, 101 * S, 101 * S, waited_for=False)
    say(windows, A, 110, 110)
    assert windows.due(112 * S) == 110 * S


def test_records_are_judged_by_the_window_and_the_clock() -> None:
    """Late: its window closed. Future: told for more than the tolerance ahead. Else accepted."""
    windows = awake(A)
    assert windows.admit(100 * S - 1, 100 * S, 120 * S) is Verdict.LATE
    assert windows.admit(100 * S, 100 * S, 120 * S) is Verdict.ACCEPTED
    assert windows.admit(180 * S, 180 * S, 120 * S) is Verdict.ACCEPTED
    assert windows.admit(180 * S + 1, 180 * S + 1, 120 * S) is Verdict.FUTURE
    assert windows.admit(100 * S, 2**62, 120 * S) is Verdict.FUTURE


def test_a_record_from_long_ago_does_not_open_ancient_windows() -> None:
    """The first record, when older than the idle time-out, is late; and so is any that follows the first."""
    windows = Windows(RULES)
    assert windows.admit(50 * S, 50 * S, 1000 * S) is Verdict.LATE
    say(windows, A, 999, 1000)
    assert windows.admit(900 * S, 900 * S, 1000 * S) is Verdict.LATE
    assert windows.due(1016 * S) == 1000 * S


def test_a_network_that_fell_silent_sleeps_and_wakes() -> None:
    """Windows go on, by time-out, for the dormant time; then none until a record comes."""
    windows = awake(A)
    ends = []
    while (end_ns := windows.due(10_000 * S)) is not None:
        windows.close(end_ns)
        ends.append(end_ns // S)
    assert ends == list(range(110, 211, 10))
    say(windows, A, 9_999, 10_000)
    assert windows.due(10_015 * S) == 10_000 * S


def test_the_cutoff_is_the_first_pass() -> None:
    """What a source says after its first pass does not count for the window."""
    windows = awake(A, B)
    say(windows, A, 112, 112)
    say(windows, A, 110.5, 112.1)
    assert windows.cutoff(A, 110 * S) == 110.5 * S
    assert windows.cutoff(B, 110 * S) == 110 * S - 1
    assert windows.cutoff("nobody", 110 * S) == 110 * S - 1


def test_a_snapshot_goes_on_the_same() -> None:
    """Windows rebuilt from their snapshot give the same snapshot and the same next window."""
    windows = awake(A, B)
    say(windows, A, 110.5, 110.5)
    again = Windows(RULES, windows.snapshot())
    assert again.snapshot() == windows.snapshot()
    assert again.due(125 * S) == windows.due(125 * S) == 110 * S
