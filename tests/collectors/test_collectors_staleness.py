"""Counters that stand: caches of agents told apart from idle interfaces, and what rates become of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import msgspec
import pytest

from collectors.staleness import HANGS_S, IDLE_POLLS, IDLE_S, Standing, of_interface
from collectors.watch import InterfaceWatch
from stream.rates import CounterSeries, RateRules
from twin.records import DeviceSample, InterfaceCounters, NetworkEvent, QueueCounters

S = 1_000_000_000
T0 = 1_800_000_000 * S
PERIOD_S = 5
PPS = 200  # of a busy interface
OCTETS = 500
RATE_BPS = 8.0 * PPS * OCTETS

Count = Callable[[float], float]  # seconds → packets


def steady(at_s: float) -> float:
    """A busy interface."""
    return 10_000 + PPS * at_s


def hellos(at_s: float) -> float:
    """One packet in ten seconds."""
    return 100 + at_s // 10


def until(end_s: float, count: Count = steady) -> Count:
    """Busy, and then idle for good."""
    return lambda at_s: count(min(at_s, end_s))


def cached(every_s: float, count: Count = steady, first_s: float = 0.0) -> Count:
    """As an agent tells it that refreshes every so often."""
    return lambda at_s: count((at_s - first_s) // every_s * every_s + first_s)


def sample(at_s: float, ports: Mapping[str, Count], uptime_s: float | None = None) -> DeviceSample:
    """One poll; sysUpTime goes on unless told otherwise."""
    uptime_s = at_s + 1000 if uptime_s is None else uptime_s
    return DeviceSample(
        network="n",
        device="R",
        observed_at_ns=T0 + round(at_s * S),
        source="snmp",
        uptime_ns=round(uptime_s * S),
        interfaces=tuple(
            InterfaceCounters(
                name=name,
                if_index=number,
                speed_bps=1e9,
                out_packets=int(count(at_s)),
                out_octets=int(count(at_s)) * OCTETS,
                in_packets=7,
                in_octets=700,
            )
            for number, (name, count) in enumerate(ports.items(), 1)
        ),
    )


def judged(
    samples: list[DeviceSample], watch: InterfaceWatch | None = None
) -> tuple[list[DeviceSample], list[NetworkEvent]]:
    """The samples as the collector passes them on, and its events."""
    watch, found, events = watch or InterfaceWatch(), [], []
    for one in samples:
        marked, news = watch.judge(one, PERIOD_S * S)
        found.append(marked)
        events += news
    return found, events


def polls(seconds: int, ports: Mapping[str, Count]) -> list[DeviceSample]:
    """A poll every period."""
    return [sample(at_s, ports) for at_s in range(0, seconds + 1, PERIOD_S)]


def stale_at(samples: list[DeviceSample], name: str) -> list[int]:
    """When a row was called stale, in seconds."""
    return [
        (one.observed_at_ns - T0) // S
        for one in samples
        for port in one.interfaces
        if port.name == name and port.stale
    ]


def rates(samples: list[DeviceSample], start_s: int, end_s: int) -> tuple[dict[str, float], set[str]]:
    """Bit/s out of each measured interface in a window, and its flags."""
    series = CounterSeries()
    for number, one in enumerate(samples):
        series.add(one, bytes([number]))
    found, flags = series.rates(T0 + start_s * S, T0 + end_s * S, RateRules())
    return {name: rate.out_bps for name, rate in found.items()}, flags


@pytest.mark.parametrize("every_s", [10, 15, 30, 50])
def test_a_cache_makes_no_rate_of_nothing_and_no_spike(every_s: int) -> None:
    """Whatever window is measured while an agent refreshes seldom, its rate is the true one, and flagged."""
    found, _ = judged(polls(240, {"a": cached(every_s), "b": cached(every_s)}))
    raw = [rates(polls(240, {"a": cached(every_s)}), s, s + 5)[0]["a"] for s in range(100, 230, 5)]
    assert [min(raw), max(raw)] == pytest.approx([0.0, RATE_BPS * every_s / PERIOD_S])  # as it would be
    measured = [rates(found, start, start + 10) for start in range(100, 230, 10)]
    assert len([told for told, _ in measured if told]) >= 130 // every_s - 1
    assert all(told == pytest.approx({"a": RATE_BPS, "b": RATE_BPS}) for told, _ in measured if told)
    assert all(flags == {"stale:R"} for _, flags in measured)


def test_an_interface_that_falls_idle_beside_busy_ones_is_idle_after_three_polls() -> None:
    """Its rate is 0 back to its last move; nothing is told of the device."""
    ports = {"a": steady, "b": steady, "c": until(60)}
    found, events = judged(polls(120, ports))
    assert stale_at(found, "c") == [65, 70]
    assert IDLE_POLLS == 3
    assert (stale_at(found, "a"), events) == ([], [])
    told, _ = rates(found, 60, 80)
    assert told == pytest.approx({"a": RATE_BPS, "b": RATE_BPS, "c": 0.0})


def test_the_only_busy_interface_is_idle_after_a_minute() -> None:
    """Longer than any cache that is known of; then its rate is 0 for all that time."""
    found, events = judged(polls(180, {"a": until(60), "b": hellos}))
    assert stale_at(found, "a") == list(range(65, 60 + int(IDLE_S), PERIOD_S))
    assert rates(found, 70, 80) == ({"b": 8 * OCTETS / 10}, {"stale:R"})
    assert rates(found, 110, 120)[0]["a"] == 0.0
    assert rates(found, 130, 140) == ({"a": 0.0, "b": 8 * OCTETS / 10}, set())
    assert events == []


def test_a_quiet_interface_is_never_stale() -> None:
    """Hellos may miss a poll; an interface that is down stands rightly."""
    found, _ = judged(polls(120, {"a": steady, "b": hellos}))
    assert stale_at(found, "b") == []
    up = polls(60, {"a": steady, "b": until(30)})
    gone = [
        msgspec.structs.replace(
            one,
            interfaces=(one.interfaces[0], msgspec.structs.replace(one.interfaces[1], oper_up=number < 6)),
        )
        for number, one in enumerate(up)
    ]
    assert stale_at(judged(gone)[0], "b") == []
    back = [
        msgspec.structs.replace(
            one,
            interfaces=(one.interfaces[0], msgspec.structs.replace(one.interfaces[1], oper_up=number > 8)),
        )
        if number > 6
        else one
        for number, one in enumerate(up)
    ]
    assert stale_at(judged(back)[0], "b") == []


def test_an_agent_that_hangs_is_told_once_and_is_no_idle_device() -> None:
    """Several busy interfaces that stop between two polls: ten minutes long nothing of it is believed."""
    ports = {"a": until(60), "b": until(60), "c": until(60, hellos)}
    found, events = judged(polls(800, ports))
    stood = list(range(65, 60 + int(HANGS_S), PERIOD_S))
    assert (stale_at(found, "a"), stale_at(found, "c")) == (stood, stood)
    assert [event.kind for event in events] == ["counters-stale", "counters-fresh"]
    assert "no counter has moved for a minute" in events[0].detail
    assert "see whether the agent hangs" in events[0].detail
    assert events[0].observed_at_ns == T0 + 120 * S
    assert rates(found, 300, 310) == ({}, {"stale:R"})
    flagged = [one for one in found if "counters-stale" in one.quality]
    assert len(flagged) == (600 - 60) / PERIOD_S
    assert rates(found, 780, 790)[0]["a"] == 0.0


def test_an_answer_whose_uptime_stands_is_stale_as_long_as_that_lasts() -> None:
    """A proxy's cache: idle interfaces and all, without a bound; the event says so."""
    ports = {"a": until(30), "b": hellos}
    same = {"a": until(30), "b": until(30, hellos)}
    frozen = [sample(at_s, same, uptime_s=1030) for at_s in range(35, 900, 5)]
    found, events = judged([*polls(30, ports), *frozen])
    assert stale_at(found, "a") == stale_at(found, "b") == list(range(35, 900, 5))
    assert [event.kind for event in events] == ["counters-stale"]
    assert "the same answer comes again and again" in events[0].detail


def test_an_uptime_that_never_moves_is_an_agents_fault_where_counters_do() -> None:
    """Some agents tell no true sysUpTime: their counters count."""
    found, _ = judged([sample(at_s, {"a": steady}, uptime_s=5) for at_s in range(0, 60, 5)])
    assert stale_at(found, "a") == []


def test_a_device_that_refreshes_seldom_is_told_once_with_how_often() -> None:
    """After the third time; and when it moves with every poll again, that is told too."""
    slow = {"a": cached(30), "b": cached(30)}
    fast = {"a": steady, "b": steady}
    watch = InterfaceWatch()
    found, events = judged(polls(300, slow), watch)
    assert [event.kind for event in events] == ["counters-stale"]
    assert events[0].detail == (
        "snmp: counters move every 30 s, polls come every 5 s: "
        "poll less often, or let its agent refresh them sooner"
    )
    assert all("counters-stale" in one.quality for one in found if one.observed_at_ns >= T0 + 150 * S)
    later = [sample(at_s, fast) for at_s in range(305, 800, PERIOD_S)]
    after, news = judged(later, watch)
    assert [event.kind for event in news] == ["counters-fresh"]
    assert "counters-stale" not in after[-1].quality


def test_line_cards_with_caches_of_their_own_are_learnt() -> None:
    """Others move, so it seems idle until it has caught up twice: the spikes of the beginning are flagged."""
    card = cached(40, first_s=13)
    found, _ = judged(polls(400, {"a": steady, "b": steady, "c": card}))
    windows = [rates(found, start, start + 10) for start in range(100, 390, 10)]
    wrong = [
        flags for told, flags in windows if "c" in told and told["c"] != pytest.approx(RATE_BPS, rel=0.01)
    ]
    assert wrong == []
    early = [rates(found, start, start + 10) for start in range(0, 100, 10)]
    spikes = [flags for told, flags in early if told.get("c", 0.0) > 1.5 * RATE_BPS]
    assert all("stale:R" in flags for flags in spikes)
    assert len(spikes) == 3  # from a start that nobody knows the age of, and two jumps


def test_a_reading_that_the_agents_refresh_tore_is_not_counted() -> None:
    """Octets of before, packets of after: that would be no bit in one interval and twice as many later."""
    found, _ = judged([torn(one, at=45) for one in polls(100, {"a": steady, "b": steady})])
    assert stale_at(found, "a") == stale_at(found, "b") == [45]
    told, flags = rates(found, 40, 50)
    assert (told["a"], flags) == (pytest.approx(RATE_BPS), {"stale:R"})
    lasting, _ = judged([torn(one, at=45, until=100) for one in polls(100, {"a": steady, "b": steady})])
    assert stale_at(lasting, "a") == [45]  # a direction that falls idle: once


def torn(one: DeviceSample, at: int, until: int = 0) -> DeviceSample:
    """The sample, its octets as they were a poll before at this second, or from there on."""
    second = (one.observed_at_ns - T0) // S
    if not at <= second <= max(at, until):
        return one
    old = int(steady(at - PERIOD_S)) * OCTETS
    ports = tuple(msgspec.structs.replace(port, out_octets=old) for port in one.interfaces)
    return msgspec.structs.replace(one, interfaces=ports)


def test_after_a_restart_nothing_is_known_of_the_counters() -> None:
    """A device that comes back idle is not held to what it carried before."""
    before = polls(60, {"a": steady, "b": steady})
    idle = {"a": lambda _: 0.0, "b": steady}
    after = [sample(at_s, idle, uptime_s=at_s - 62) for at_s in range(65, 200, 5)]
    found, _ = judged([*before, *after])
    assert stale_at(found, "a") == []


def test_before_anything_moved_a_standing_table_is_no_idle_device() -> None:
    """A collector that starts between two refreshes; but a device that is idle is so after a minute."""
    found, _ = judged(polls(90, {"a": cached(30, first_s=-1), "b": cached(30, first_s=-1)}))
    assert stale_at(found, "a")[:5] == [5, 10, 15, 20, 25]
    idle, events = judged(polls(180, {"a": until(0), "b": until(0)}))
    assert stale_at(idle, "a") == list(range(5, 60, 5))
    assert events == []


def test_class_queues_have_caches_of_their_own() -> None:
    """A queue that stands while its interface moves is not taken for empty at once, and makes no spike."""
    shown = cached(10)
    samples = [
        msgspec.structs.replace(
            one,
            queues=tuple(
                QueueCounters(
                    interface="a",
                    direction="out",
                    name=name,
                    sent_octets=int(shown(at_s)) * OCTETS * 10,
                    dropped_packets=int(shown(at_s)),
                )
                for name in ("gold", "silver")
            ),
        )
        for at_s, one in ((at_s, sample(at_s, {"a": steady})) for at_s in range(0, 101, 5))
    ]
    found, _ = judged(samples)
    assert [queue.stale for one in found[3:5] for queue in one.queues] == [True, True, False, False]
    series = CounterSeries()
    for number, one in enumerate(found):
        series.add(one, bytes([number]))
    for start_s in range(20, 90, 10):
        measured, _ = series.rates(T0 + start_s * S, T0 + (start_s + 10) * S, RateRules())
        assert [queue.sent_bps for queue in measured["a"].queues] == [pytest.approx(10 * RATE_BPS)] * 2
        assert [queue.drops_pps for queue in measured["a"].queues] == [pytest.approx(PPS)] * 2


def test_only_octets_may_be_counted() -> None:
    """An interface without packet counters is known busy by its octets, of the largest packets."""
    standing: Standing[str] = Standing()
    ports = [
        InterfaceCounters(name="a", if_index=1, in_octets=octets) for octets in (10, 150_010, 150_010, 75_000)
    ]
    told = [
        set(standing.judge({"a": of_interface(one)}, T0 + 5 * S * n, 5 * S)) for n, one in enumerate(ports)
    ]
    assert told == [set(), set(), {"a"}, set()]


def test_what_later_windows_need_of_a_cached_device_is_kept() -> None:
    """Pruned at every window's end or not at all: the rates are the same, and little is kept."""
    found, _ = judged(polls(300, {"a": cached(30), "b": cached(30)}))
    whole, pruned = CounterSeries(), CounterSeries()
    for number, one in enumerate(found):
        whole.add(one, bytes([number]))
        pruned.add(one, bytes([number]))
    for start_s, end_s in pairwise(range(0, 301, 10)):
        window = (T0 + start_s * S, T0 + end_s * S)
        assert whole.rates(*window, RateRules()) == pruned.rates(*window, RateRules())
        pruned.prune(window[1])
    assert len(pruned.samples) <= 6
