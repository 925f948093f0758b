"""Known pitfalls of counters, each named by the thread that tells of it (Cacti, OpenNMS, net-snmp, …).

From agents' columns through the collector's records to rates: what may be counted, and what is flagged.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from collectors.gate import Gate
from collectors.snmp.interfaces import TICK_NS, interfaces
from collectors.snmp.tables import Columns
from collectors.stats import CollectorStats
from collectors.targets import Target
from collectors.watch import InterfaceWatch
from stream.rates import CounterSeries, RateRules
from twin.records import DeviceSample, InterfaceCounters

S = 1_000_000_000
T0 = 1_800_000_000 * S
WRAP = 2**32


def sample(at_s: float, uptime_s: float = 10_000.0, boots: int | None = 1, **fields: object) -> DeviceSample:
    """A poll of one interface of 1 Gbit/s that has carried 1 MB a second since the beginning."""
    values = {"out_octets": int(10**12 + at_s * 1e6), "out_packets": int(at_s * 1000), "if_index": 1} | fields
    one = InterfaceCounters(name="eth0", speed_bps=1e9, **values)  # type: ignore[arg-type]  # tables of fields
    return DeviceSample(
        network="n",
        device="R",
        observed_at_ns=T0 + int(at_s * S),
        source="snmp",
        uptime_ns=int((uptime_s + at_s) * S),
        engine_boots=boots,
        interfaces=(one,),
    )


GOOD = 8e6
PITFALLS = {
    "a steady load": (sample(0), sample(10), GOOD, set()),
    "OpenNMS NMS-7106, Ozark PR#764: sysUpTime went back": (
        sample(0),
        sample(10, -9_990.0),
        None,
        {"reset:R"},
    ),
    "engineBoots rose though sysUpTime did not go back": (sample(0), sample(10, boots=2), None, {"reset:R"}),
    "Cacti plugin_monitor #161: sysUpTime wrapped after 497 days": (
        sample(0, uptime_s=WRAP / 100 - 5),
        sample(10, uptime_s=-5.0),
        GOOD,
        set(),
    ),
    "net-snmp #1079: the discontinuity time moved": (
        sample(0, discontinuity_at_ns=0),
        sample(10, discontinuity_at_ns=5 * S),
        None,
        {"reset:R"},
    ),
    "net-snmp #1080: a 64-bit counter went back, no discontinuity told": (
        sample(0),
        sample(10, out_octets=500),
        None,
        {"reset:R"},
    ),
    "weathermap #232: a 32-bit counter wrapped": (
        sample(0, out_octets=WRAP - 5_000_000, counter_bits=32),
        sample(10, out_octets=5_000_000, counter_bits=32),
        GOOD,
        set(),
    ),
    "nagios-plugins #410: at line rate 32 bits may wrap unseen between polls": (
        sample(0, out_octets=0, counter_bits=32),
        sample(60, out_octets=60_000_000, counter_bits=32),
        None,
        {"ambiguous-counters:R"},
    ),
    "centreon #4908, monitoring-plugins #2257: more than the line carries": (
        sample(0),
        sample(10, out_octets=10**12 + 10 * 10**9),
        None,
        {"implausible:R"},
    ),
    "Cacti #4532, #454: the interface has another ifIndex now": (
        sample(0, if_index=1),
        sample(10, if_index=7),
        GOOD,
        set(),
    ),
}


@pytest.mark.parametrize("pitfall", PITFALLS)
def test_a_pitfall_is_counted_right_or_flagged(pitfall: str) -> None:
    """What crossed the interface is right, or left out with a flag that names the device."""
    before, after, rate_bps, flags = PITFALLS[pitfall]
    series = CounterSeries()
    for number, one in enumerate((before, after)):
        series.add(one, bytes([number]))
    found, flaws = series.rates(before.observed_at_ns, after.observed_at_ns, RateRules())
    assert flaws == flags
    assert (found["eth0"].out_bps if found else None) == (
        None if rate_bps is None else pytest.approx(rate_bps)
    )


FLAGS = {
    "a steady load": (sample(0), sample(10), ()),
    "a restart": (sample(0), sample(10, -9_990.0), ("reset",)),
    "other boots": (sample(0), sample(10, boots=2), ("reset",)),
    "497 days": (sample(0, uptime_s=WRAP / 100 - 5), sample(10, uptime_s=-5.0), ()),
    "missed polls": (sample(0), sample(30), ("gap",)),
    "another ifIndex": (sample(0), sample(10, if_index=7), ("renumbered",)),
    "all at once": (sample(0), sample(30, -9_990.0, if_index=7), ("reset", "gap", "renumbered")),
}


@pytest.mark.parametrize("case", FLAGS)
def test_a_sample_says_what_only_the_one_before_can_tell(case: str) -> None:
    """Restarts, missed polls and renumbering are flags of the record itself; the device's own flags stay."""
    before, after, flags = FLAGS[case]
    watch = InterfaceWatch()
    assert watch.quality(before, 10 * S) == ()
    watch.events(before)
    noted = msgspec.structs.replace(after, quality=("counters-32bit",))
    assert watch.quality(noted, 10 * S) == ("counters-32bit", *flags)


def test_what_is_said_of_an_interval_reaches_every_window_that_it_gives_to() -> None:
    """A missing poll where it mixes two windows: from 4 s before the bound to 6 s after; the rest always."""
    late = msgspec.structs.replace(sample(16), quality=("gap", "renumbered", "counters-32bit"))
    series = CounterSeries()
    for number, one in enumerate((sample(6), late, sample(21))):
        series.add(one, bytes([number]))
    flags = [series.rates(T0 + start * S, T0 + (start + 10) * S, RateRules())[1] for start in (0, 10, 20)]
    assert flags == [{"gap:R", "renumbered:R"}, {"gap:R", "renumbered:R"}, set()]


@pytest.mark.parametrize(("first_s", "last_s"), [(0.0, 9.0), (0.5, 10.5), (-0.5, 9.8), (-20.0, 0.5)])
def test_a_missing_poll_that_mixes_nothing_is_no_gap(first_s: float, last_s: float) -> None:
    """As good as all of the interval lies within the window, or outside of it."""
    series = CounterSeries()
    series.add(sample(first_s), b"0")
    series.add(msgspec.structs.replace(sample(last_s), quality=("gap",)), b"1")
    assert series.rates(T0, T0 + 10 * S, RateRules())[1] == set()


def test_names_follow_the_columns_through_renumbering() -> None:
    """After a reboot two interfaces changed their numbers: each name keeps its own counters."""

    def columns(**values: dict[int, object]) -> Columns:
        return {name: {(i,): value for i, value in column.items()} for name, column in values.items()}  # type: ignore[misc]

    before, after = (
        interfaces(
            columns(oper={1: 1, 2: 1}, name=names),
            columns(in_octets=octets, discontinuity={1: 300, 2: 300}),
            {},
        )
        for names, octets in (
            ({1: b"eth0", 2: b"eth1"}, {1: 100, 2: 900}),
            ({1: b"eth1", 2: b"eth0"}, {1: 910, 2: 105}),
        )
    )
    assert {one.name: one.in_octets for one in before} == {"eth0": 100, "eth1": 900}
    assert {one.name: one.in_octets for one in after} == {"eth0": 105, "eth1": 910}
    assert {one.discontinuity_at_ns for one in before} == {300 * TICK_NS}


def test_what_a_trap_told_is_not_told_again_by_the_poll() -> None:
    """Polls from an old cache and polls that agree add nothing; that the link comes up again is told."""
    watch = InterfaceWatch()
    watch.events(sample(0))
    watch.told("link-down", "eth0")
    told = [
        [event.kind for event in watch.events(sample(at_s, oper_up=up))]
        for at_s, up in ((10, True), (20, False), (30, False), (40, True))
    ]
    assert told == [[], [], [], ["link-up"]]


def test_a_trap_that_polls_contradict_is_corrected() -> None:
    """Two polls in a row that see the link up overrule the trap."""
    watch = InterfaceWatch()
    watch.events(sample(0))
    watch.told("link-down", "eth0")
    told = [[event.kind for event in watch.events(sample(at_s))] for at_s in (10, 20, 30)]
    assert told == [[], ["link-up"], []]


async def test_a_collector_that_is_late_says_so_once_and_calls_nobody_silent() -> None:
    """Polls that wait for their turn until the deadline are the collector's overrun; the first tells it."""
    gate, stats = Gate(1), CollectorStats()
    log: list[Any] = []

    async def poll() -> None:
        async with gate.turn():
            raise AssertionError("unreachable: the turn is taken")

    async with gate.turn():
        targets = [
            Target("n", f"R{i}", "snmp", S // 20, poll, log.append, stats, lambda: T0) for i in range(3)
        ]
        for target in targets:
            await target._once()
    assert (stats.overruns, stats.timeouts, stats.silent) == (3, 0, set())
    assert [(event.kind, event.device) for event in log] == [("collector-late", "R0")]
    assert gate.most == 1


async def test_a_collector_that_is_stopped_is_not_late() -> None:
    """A poll that waits for its turn when the service stops tells nothing."""
    gate, stats = Gate(1), CollectorStats()
    log: list[Any] = []

    async def poll() -> None:
        async with gate.turn():
            raise AssertionError("unreachable: the turn is taken")

    async with gate.turn():
        task = asyncio.create_task(
            Target("n", "R", "snmp", 600 * S, poll, log.append, stats, lambda: T0)._once()
        )
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (stats.overruns, log) == (0, [])
