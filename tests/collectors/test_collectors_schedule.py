"""When polls are due, and what counts as a change of a target's state: tables of (now, in, out)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.schedule import DEADLINE, MOST_COMPLAINTS, SPREAD, Health, next_poll_ns, offset_ns
from collectors.stats import CollectorStats

S = 1_000_000_000


@pytest.mark.parametrize(
    ("now_s", "failures", "due_s"),
    [
        (100.0, 0, 100.2),  # offset 0.2 s on a grid of 5 s
        (100.2, 0, 105.2),  # strictly after
        (104.9, 0, 105.2),
        (104.9, 2, 105.2),
        (104.9, 3, 110.2),
        (104.9, 4, 120.2),
        (104.9, 5, 140.2),
        (104.9, 50, 160.2),  # never further than a minute
    ],
)
def test_polls_stand_on_a_grid_and_back_off(now_s: float, failures: int, due_s: float) -> None:
    """The next poll is on the device's own grid; silence doubles the distance up to a bound."""
    due_ns = next_poll_ns(round(now_s * S), 5 * S, S // 5, failures)
    assert due_ns == round(due_s * S)


@given(st.integers(0, 2**62), st.integers(1, 10**11), st.text(min_size=1), st.integers(0, 100))
def test_every_next_poll_is_later_and_on_the_grid(
    now_ns: int, period_ns: int, name: str, failures: int
) -> None:
    """Whatever the clock says, polls go forward and keep their phase."""
    offset = offset_ns(name, period_ns)
    due_ns = next_poll_ns(now_ns, period_ns, offset, failures)
    assert due_ns > now_ns
    assert (due_ns - offset) % period_ns == 0
    assert 0 <= offset <= SPREAD * period_ns


def test_a_deadline_leaves_room_before_the_next_poll() -> None:
    """Offset and deadline together fit into one period."""
    assert SPREAD + DEADLINE < 1


def test_silence_is_told_after_two_misses_and_once() -> None:
    """One miss is no silence; the second is; more change nothing; success brings the target back, once."""
    health = Health()
    assert [health.timed_out() for _ in range(4)] == [False, True, False, False]
    assert [health.succeeded() for _ in range(2)] == [True, False]
    assert health.failures == 0


def test_a_refusal_is_told_when_its_reason_changes() -> None:
    """A complaint is told once, also where two take turns; after a poll that worked it is news again."""
    health = Health()
    assert [health.refused(why) for why in ("a", "a", "b", "a", "b")] == [True, False, True, False, False]
    assert [health.succeeded() for _ in range(2)] == [True, False]
    assert health.refused("a")


def test_a_device_that_is_wrong_in_another_way_each_time_is_not_told_for_ever() -> None:
    """Reasons may hold what the device sent: a few are told, and no more are remembered."""
    health = Health()
    assert sum(health.refused(f"leaf is {number}") for number in range(10_000)) == MOST_COMPLAINTS
    assert len(health.complaints) == MOST_COMPLAINTS


def test_stats_tell_the_slowest_targets() -> None:
    """Heartbeat metrics are numbers, with the five slowest targets by name, and those that failed."""
    stats = CollectorStats(polls=3)
    for i in range(9):
        stats.targets[f"R{i}/snmp"].took(2.0 * i, failed=False)
        stats.targets[f"R{i}/snmp"].took(1.0 * i, failed=i == 4)
    metrics = stats.metrics()
    assert metrics["polls"] == 3
    assert [name for name in metrics if name.startswith("poll_duration_s/")] == [
        f"poll_duration_s/R{i}/snmp" for i in (8, 7, 6, 5, 4)
    ]
    assert (metrics["poll_duration_s/R8/snmp"], metrics["poll_worst_s/R8/snmp"]) == (8.0, 16.0)
    assert stats.targets["R8/snmp"].mean_s == 12.0
    assert {name for name in metrics if name.startswith("failed_polls/")} == {"failed_polls/R4/snmp"}
