"""Active probes in the pipeline: both ways of a two-way probe, classes, round trips beside one-way delays."""

from __future__ import annotations

import random

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import PROBE_BITS, T0, Ring, S, event_time_ns, loopback, name

from stream.codec import encode
from stream.pipeline import NetworkPipeline, PipelineSettings
from twin.compare import comparable_mean_s
from twin.graph import StateView
from twin.records import DelayReport, Direction, PathDelay, Record, StateUpdate

RING = Ring()
V0 = T0 // (10 * S)


def view_of(log: list[Record], window: int = 3) -> tuple[StateUpdate, StateView]:
    """One window's state (1 = the first ten seconds) after all of a log."""
    pipeline, out = NetworkPipeline(), []
    for record in sorted(log, key=event_time_ns):
        out += [*pipeline.on_time(event_time_ns(record)), *pipeline.on_record(record)]
    out += pipeline.on_time(T0 + 80 * S)
    view = StateView()
    for update in out:
        if isinstance(update, StateUpdate) and update.version - V0 <= window:
            view.apply(update)
            last = update
    return last, view


def probe(
    source: int,
    target: int,
    end_s: int,
    mean_s: float,
    *,
    direction: Direction = "one-way",
    reporter: str = "",
    told_after_s: float = 1.5,
    traffic_class: int = 0,
    quality: tuple[str, ...] = (),
) -> DelayReport:
    """Twenty packets in the five seconds up to ``end_s``, told when the last could no longer come back."""
    end_ns = T0 + end_s * S
    delay = PathDelay(
        destination=loopback(target),
        start_ns=end_ns - 5 * S,
        end_ns=end_ns,
        count=20,
        mean_s=mean_s,
        packet_bits=PROBE_BITS,
        traffic_class=traffic_class,
    )
    return DelayReport(
        network="ring",
        device=name(source),
        observed_at_ns=end_ns + int(told_after_s * S),
        method="stamp",
        direction=direction,
        delays=(delay,),
        reporter=reporter,
        quality=quality,
    )


def both_ways(until_s: int = 60) -> list[Record]:
    """R000 measures R001 and tells both ways; R001 measures R002 itself, and tells it later each time."""
    log: list[Record] = list(RING.log(60))
    for end_s in range(5, until_s, 5):
        log += [
            probe(0, 1, end_s, 2e-3),
            probe(1, 0, end_s, 3e-3, reporter=name(0)),
            probe(1, 2, end_s, 4e-3, told_after_s=1.9),
        ]
    return log


def test_both_ways_of_a_probe_and_the_far_end_s_own_probes_are_all_counted() -> None:
    """Two reporters tell of paths from R001: neither closes the window before the other has told."""
    _, view = view_of(both_ways())
    stamp = view.delays["stamp"]
    for a, b, mean_s in ((0, 1, 2e-3), (1, 0, 3e-3), (1, 2, 4e-3)):
        path = view.network.path_index(name(a), name(b))
        assert stamp.mean_s[path] == pytest.approx(mean_s, rel=1e-3)
        assert stamp.count[path] == pytest.approx(40, rel=0.03)


def test_a_silent_reporter_is_missed_and_not_whom_it_measured() -> None:
    """R000's prober dies: its delays are missing, R001's own are there."""
    log = [
        record
        for record in both_ways()
        if not (
            isinstance(record, DelayReport)
            and record.method == "stamp"
            and (record.reporter or record.device) == name(0)
            and record.observed_at_ns > T0 + 20 * S
        )
    ]
    log = [record for record in log if not (isinstance(record, DelayReport) and record.method == "rttmon")]
    update, _ = view_of(log, window=6)
    assert {flag for flag in update.quality if flag.startswith("delays-missing")} == {
        f"delays-missing:{name(0)}"
    }


def test_probes_of_other_classes_are_not_taken_for_best_effort() -> None:
    """The twin predicts class 0; what EF sees is another matter."""
    log = both_ways() + [probe(0, 1, end_s, 0.5e-3, traffic_class=46) for end_s in range(5, 60, 5)]
    _, view = view_of(log)
    path = view.network.path_index(name(0), name(1))
    assert view.delays["stamp"].mean_s[path] == pytest.approx(2e-3, rel=1e-3)


def test_a_round_trip_stays_one_beside_one_way_delays_of_the_same_method() -> None:
    """Where clocks are not synchronised a path is compared with the sum of both directions' predictions."""
    log = both_ways() + [probe(3, 1, end_s, 9e-3, direction="round-trip") for end_s in range(5, 60, 5)]
    _, view = view_of(log)
    there, back = (view.network.path_index(name(a), name(b)) for a, b in ((3, 1), (1, 3)))
    trips = view.delays["stamp-round-trip"]
    assert trips.mean_s[there] == pytest.approx(9e-3, rel=1e-3)
    assert np.flatnonzero(trips.count).tolist() == [there]
    assert view.delays["stamp"].count[there] == 0
    predicted = np.arange(1.0, view.network.path_count + 1)
    expected = comparable_mean_s(view.network, view.traffic, predicted, trips)[there]
    one_way = comparable_mean_s(view.network, view.traffic, predicted, view.delays["stamp"])
    assert expected == pytest.approx(one_way[there] + one_way[back])


def test_a_step_of_the_prober_s_clock_is_a_flag_of_its_device() -> None:
    """What the report says of its reporter stands in the state under the reporter's name."""
    log = [*both_ways(), probe(1, 0, 26, 3e-3, reporter=name(0), quality=("clock-step",))]
    update, _ = view_of(log)
    assert f"clock-step:{name(0)}" in update.quality


def unanswered(source: int, target: int, end_s: int) -> DelayReport:
    """Twenty packets, and nothing came back."""
    report = probe(source, target, end_s, 0.0, direction="round-trip")
    (part,) = report.delays
    part = msgspec.structs.replace(part, count=0, sent=20, lost=20)
    return msgspec.structs.replace(report, delays=(part,))


def answered(source: int, target: int, end_s: int) -> DelayReport:
    """Twenty packets there and back."""
    report = probe(source, target, end_s, 5e-3, direction="round-trip")
    (part,) = report.delays
    return msgspec.structs.replace(report, delays=(msgspec.structs.replace(part, sent=20, lost=0),))


@pytest.mark.parametrize(
    ("dead", "alive", "flagged"),
    [
        ([(0, 1), (2, 1)], [(0, 2), (2, 0)], {1}),  # R001 answers nobody
        ([(0, 1), (0, 2), (0, 3)], [(2, 1), (1, 2), (2, 3)], {0}),  # nobody answers R000
        ([(0, 1)], [(0, 2), (2, 1)], set()),  # one path alone
        ([(0, 1)], [], {1}),  # one prober, one target
    ],
)
def test_who_exchanges_probes_with_nobody_is_flagged(
    dead: list[tuple[int, int]], alive: list[tuple[int, int]], flagged: set[int]
) -> None:
    """The node that all failing probes have in common, and not its many counterparts."""
    log: list[Record] = list(RING.log(60))
    for end_s in range(5, 60, 5):
        log += [unanswered(a, b, end_s) for a, b in dead] + [answered(a, b, end_s) for a, b in alive]
    update, _ = view_of(log)
    told = {flag for flag in update.quality if flag.startswith("probes-unanswered")}
    assert told == {f"probes-unanswered:{name(i)}" for i in flagged}


@given(st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_the_order_in_which_two_reporters_come_changes_no_byte(rnd: random.Random) -> None:
    """Bursts of several reports, torn apart by up to the lateness: the same states, byte for byte."""
    log = sorted(
        both_ways() + [probe(3, 1, end_s, 9e-3, direction="round-trip") for end_s in range(5, 60, 5)],
        key=event_time_ns,
    )
    lateness_ns = int(PipelineSettings().lateness_s * S)
    delays_ns = [rnd.choice([0, rnd.randrange(lateness_ns), lateness_ns]) for _ in log]
    timed = [(event_time_ns(record) + delay, record) for record, delay in zip(log, delays_ns, strict=True)]
    in_order = [(event_time_ns(record), record) for record in log]
    assert _told(sorted(timed, key=lambda item: item[0])) == _told(in_order)


def _told(timed: list[tuple[int, Record]]) -> list[bytes]:
    pipeline, out = NetworkPipeline(), []
    for clock_ns, record in timed:
        out += [*pipeline.on_time(clock_ns), *pipeline.on_record(record)]
    return [encode(record) for record in [*out, *pipeline.on_time(T0 + 100 * S)]]
