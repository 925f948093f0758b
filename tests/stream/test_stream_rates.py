"""Counters to rates: wraps, resets, discontinuities, out-of-order polls, shares of windows."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import LOAD_BPS, T0, Ring, S

from stream.dedupe import digest_of
from stream.rates import CounterSeries, RateRules, counter_advance, device_was_reset
from twin.records import DeviceSample, QueueCounters

RULES = RateRules()
WINDOW = (T0, T0 + 10 * S)


def series_of(*samples: DeviceSample) -> CounterSeries:
    """A series of samples."""
    series = CounterSeries()
    for sample in samples:
        series.add(sample, digest_of(sample))
    return series


def changed(sample: DeviceSample, **fields: Any) -> DeviceSample:
    """The sample with some fields of its first interface changed."""
    first = msgspec.structs.replace(sample.interfaces[0], **fields)
    return msgspec.structs.replace(sample, interfaces=(first, *sample.interfaces[1:]))


@pytest.mark.parametrize(
    ("before", "after", "bits", "limit", "expected"),
    [
        (100, 350, 64, 1e9, 250),
        (100, 350, 64, None, 250),
        (None, 350, 64, 1e9, None),  # not read
        (2**32 - 100, 150, 32, 1e6, 250),  # a wrap that the line rate allows
        (2**32 - 100, 150, 32, 200.0, "reset"),  # and one that it does not
        (2**32 - 100, 150, 32, None, "ambiguous-counters"),  # speed unknown: wrap or reset?
        (100, 350, 32, 2.0**32, "ambiguous-counters"),  # at line rate it may have wrapped unseen
        (350, 100, 64, 1e9, "reset"),  # 64 bits do not wrap in a lifetime
        (100, 350, 64, 200.0, "implausible"),
    ],
)
def test_how_far_a_counter_went(
    before: int | None, after: int | None, bits: int, limit: float | None, expected: int | str | None
) -> None:
    """A counter's step is told, or why it cannot be."""
    assert counter_advance(before, after, bits, limit) == expected


@pytest.mark.parametrize(
    ("uptimes_s", "boots", "expected"),
    [
        ((1000.0, 1005.0), (3, 3), False),
        ((1000.0, 3.0), (3, 3), True),  # went back
        ((1000.0, 1005.0), (3, 4), True),  # engineBoots changed
        ((42949670.0, 2.04), (None, None), False),  # TimeTicks wrapped after 497 days
        ((None, 5.0), (None, 4), False),  # not told
    ],
)
def test_a_restart_is_recognised(
    uptimes_s: tuple[float | None, float], boots: tuple[int | None, int | None], expected: bool
) -> None:
    """A device restarted when its uptime or its boot count says so, not when a 32-bit uptime wraps."""
    samples = [
        msgspec.structs.replace(
            Ring().sample(0, T0 + 5 * S * i),
            uptime_ns=None if uptime_s is None else round(uptime_s * S),
            engine_boots=boot,
        )
        for i, (uptime_s, boot) in enumerate(zip(uptimes_s, boots, strict=True))
    ]
    assert device_was_reset(*samples) is expected


def test_a_restart_between_two_distant_polls_is_recognised() -> None:
    """An uptime that grew less than the time that passed betrays a restart although it did not go back."""
    before, after = (Ring().sample(0, T0 + at_s * S) for at_s in (0, 3600))
    before = msgspec.structs.replace(before, uptime_ns=100 * S)
    assert device_was_reset(before, msgspec.structs.replace(after, uptime_ns=900 * S))
    assert not device_was_reset(before, msgspec.structs.replace(after, uptime_ns=3699 * S))


@given(st.lists(st.integers(-20 * S, 30 * S), min_size=2, max_size=12, unique=True))
def test_steady_counters_give_their_rate_however_they_are_polled(times_ns: list[int]) -> None:
    """Polled at any times, in any order, a steady load is found wherever the window is covered by half."""
    ring = Ring()
    rates, flags = series_of(*(ring.sample(0, T0 + at_ns) for at_ns in times_ns)).rates(*WINDOW, RULES)
    covered = min(max(times_ns), 10 * S) - max(min(times_ns), 0)
    assert not flags
    assert bool(rates) == (covered >= 5 * S)
    for k, load in enumerate(LOAD_BPS if rates else ()):
        assert rates[f"eth{k}"].out_bps == pytest.approx(load, rel=1e-3)
        assert rates[f"eth{k}"].in_bps == pytest.approx(LOAD_BPS[1 - k], rel=1e-3)


def test_a_window_gets_the_share_of_an_interval_that_overlaps_it() -> None:
    """Of 12 Mbit in the interval [5, 15) and none in [-5, 5), the window [0, 10) gets half of the first."""
    ring = Ring()
    counters = [(-5, 0), (5, 0), (15, 1_500_000)]
    samples = [changed(ring.sample(0, T0 + at_s * S), out_octets=octets) for at_s, octets in counters]
    rates, _ = series_of(*samples).rates(*WINDOW, RULES)
    assert rates["eth0"].out_bps == pytest.approx(6e6 / 10)


@pytest.mark.parametrize(
    ("fields", "flag"),
    [
        ({"discontinuity_at_ns": 7 * S}, "reset:R000"),
        ({"out_octets": 5}, "reset:R000"),
        ({"out_octets": 10**12}, "implausible:R000"),
    ],
)
def test_a_bad_interval_is_left_out_and_flagged(fields: dict[str, int], flag: str) -> None:
    """The interface with the flaw is not measured from that interval; the other one is."""
    ring = Ring()
    good = changed(ring.sample(0, T0), discontinuity_at_ns=0)
    bad = changed(ring.sample(0, T0 + 10 * S), **{"discontinuity_at_ns": 0, **fields})
    rates, flags = series_of(good, bad).rates(*WINDOW, RULES)
    assert flags == {flag}
    assert rates.keys() == {"eth1"}


def test_after_a_reset_the_rest_of_the_window_counts() -> None:
    """Of polls at 0, 4, 10 with a restart before 4, the interval [4, 10) is enough to measure the window."""
    ring = Ring()
    samples = [ring.sample(0, T0 + at_s * S) for at_s in (0, 4, 10)]
    restarted = [msgspec.structs.replace(s, uptime_ns=s.observed_at_ns - T0 - 3 * S) for s in samples[1:]]
    rates, flags = series_of(samples[0], *restarted).rates(*WINDOW, RULES)
    assert flags == {"reset:R000"}
    assert rates["eth0"].out_bps == pytest.approx(LOAD_BPS[0], rel=1e-3)


def test_only_what_later_windows_need_is_kept() -> None:
    """Pruning at a window's end keeps the last sample up to it and all after it."""
    ring = Ring()
    series = series_of(*(ring.sample(0, T0 + at_s * S) for at_s in (0, 5, 10, 12)))
    series.prune(T0 + 11 * S)
    assert [sample.observed_at_ns for sample in series.samples] == [T0 + 10 * S, T0 + 12 * S]


def test_too_long_an_interval_says_nothing() -> None:
    """Counters read ten minutes apart do not tell the load of one window."""
    ring = Ring()
    rates, flags = series_of(ring.sample(0, T0 - 300 * S), ring.sample(0, T0 + 300 * S)).rates(*WINDOW, RULES)
    assert (rates, flags) == ({}, set())


def queued(at_s: int, *told: tuple[str, int | None, int | None]) -> DeviceSample:
    """The ring's first router at some second, with (class, octets sent, packets dropped) at eth0."""
    queues = [
        QueueCounters(interface="eth0", direction="out", name=name, sent_octets=sent, dropped_packets=drops)
        for name, sent, drops in told
    ]
    incoming = QueueCounters(
        interface="eth0", direction="in", name="a", sent_octets=at_s, dropped_packets=at_s
    )
    lost = QueueCounters(interface="eth9", direction="out", name="a", sent_octets=at_s, dropped_packets=at_s)
    return msgspec.structs.replace(Ring().sample(0, T0 + at_s * S), queues=(*queues, incoming, lost))


def test_class_queues_are_shared_out_like_their_interface() -> None:
    """5,000 octets and 20 drops in 10 s, half of them in the window; classes of one name are added up."""
    before, after = queued(5, ("a", 100, 3), ("b", 7, 0)), queued(15, ("a", 5_100, 23), ("b", 7, 0))
    found, flags = series_of(Ring().sample(0, T0), before, after).rates(*WINDOW, RULES)
    (a, b), seconds = found["eth0"].queues, 5.0  # of the window that polls with queues cover
    assert (a.name, a.sent_bps, a.drops_pps) == ("a", 8 * 2_500 / seconds, 10 / seconds)
    assert (b.name, b.sent_bps, b.drops_pps) == ("b", 0.0, 0.0)
    assert (found["eth1"].queues, flags) == ((), set())
    twice = series_of(queued(0, ("a", 0, 0), ("a", 50, 5)), queued(10, ("a", 1_000, 1), ("a", 1_050, 9)))
    (both,) = twice.rates(*WINDOW, RULES)[0]["eth0"].queues
    assert (both.sent_bps, both.drops_pps) == (8 * 2_000 / 10, 0.5)


@pytest.mark.parametrize(
    "after", [("a", 50, 4), ("a", 5_100, 2), ("a", None, 23), ("a", 5_100, None), ("other", 5_100, 23)]
)
def test_a_queue_that_began_anew_or_tells_nothing_is_left_out(
    after: tuple[str, int | None, int | None],
) -> None:
    """Its interface is measured all the same."""
    series = series_of(queued(0, ("a", 100, 3)), queued(10, after))
    assert series.rates(*WINDOW, RULES)[0]["eth0"].queues == ()
    without = series_of(queued(0, ("a", None, 3)), queued(10, ("a", 100, 3)))
    assert without.rates(*WINDOW, RULES)[0]["eth0"].queues == ()
