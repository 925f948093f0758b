"""STAMP's sessions without sockets: sender and reflector face to face, with time as an argument."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.stamp.bins import Measured, ProbeBins, ProbeLabel
from collectors.stamp.clock import OwnClock
from collectors.stamp.losses import LossLedger, Split
from collectors.stamp.pace import LONGEST, SHORTEST, Pace, Stream
from collectors.stamp.packets import (
    ReplyPacket,
    TestPacket,
    decode_reply,
    decode_test,
    encode_reply,
    encode_test,
)
from collectors.stamp.reflector import Arrival, Reflector, ReflectorSettings
from collectors.stamp.sender import Echo, SenderSession, SessionSettings
from collectors.stamp.timestamps import ErrorEstimate, TimestampFormat
from twin.records import PathDelay

S = 1_000_000_000
MS = 1_000_000
T0 = 1_767_225_600 * S
KEY = b"not a secret in a test"
GOOD = ErrorEstimate(synchronised=True, error_s=1e-5)
BAD = ErrorEstimate(synchronised=False, error_s=1.0)


def arrival(at_ns: int, source: str = "192.0.2.1", port: int = 5000, **more: int) -> Arrival:
    """A datagram from a sender."""
    return Arrival((source, port), "192.0.2.9", at_ns, **more)


def bounce(
    session: SenderSession,
    reflector: Reflector,
    at_ns: int,
    *,
    there_ns: int = 3 * MS,
    held_ns: int = 1 * MS,
    back_ns: int = 5 * MS,
    ahead_ns: int = 0,
    ours: ErrorEstimate = GOOD,
    theirs: ErrorEstimate = GOOD,
) -> Echo | None:
    """One packet there and back; ``ahead_ns`` is the reflector's clock against ours."""
    datagram = session.send(at_ns, ours)
    reply = reflector.reflect(datagram, arrival(at_ns + there_ns + ahead_ns), theirs)
    assert reply is not None
    returned = reply.stamped(at_ns + there_ns + held_ns + ahead_ns, theirs)
    assert len(returned) == len(datagram)
    return session.receive(returned, at_ns + there_ns + held_ns + back_ns)


# ------------------------------------------------------------------------------------------- one packet


@pytest.mark.parametrize("key", [b"", KEY])
@pytest.mark.parametrize("forms", [("ntp", "ntp"), ("ptp", "ntp"), ("ntp", "ptp"), ("ptp", "ptp")])
@pytest.mark.parametrize("dscp", [0, 46])
def test_delays_come_out_whatever_the_formats(
    key: bytes, forms: tuple[TimestampFormat, TimestampFormat], dscp: int
) -> None:
    """3 ms there, 1 ms held, 5 ms back: a round trip of 8 ms, in every mode and format."""
    session = SenderSession(SessionSettings(ssid=9, key=key, dscp=dscp, payload_octets=200))
    reflector = Reflector(ReflectorSettings(key=key))
    ours, theirs = (replace(GOOD, form=form) for form in forms)
    echo = bounce(session, reflector, T0, ours=ours, theirs=theirs)
    assert echo is not None
    assert (echo.round_trip_s, echo.forward_s, echo.backward_s) == pytest.approx((8e-3, 3e-3, 5e-3), abs=5e-9)
    assert echo.synchronised
    assert echo.error_s == pytest.approx(2e-5, rel=0.01)


def test_a_round_trip_needs_no_common_clock() -> None:
    """The reflector's clock is two hours ahead: the round trip is exact, one-way delays are not believed."""
    session, reflector = SenderSession(SessionSettings()), Reflector(ReflectorSettings())
    echo = bounce(session, reflector, T0, ahead_ns=7200 * S, theirs=BAD)
    assert echo is not None
    assert echo.round_trip_s == pytest.approx(8e-3, abs=1e-8)
    assert not echo.synchronised


@pytest.mark.parametrize("ahead_ns", [-4 * MS, 6 * MS])
def test_a_clock_that_lies_is_found_out(ahead_ns: int) -> None:
    """Both say that they are synchronised; a delay below zero says that one of them is not."""
    session, reflector = SenderSession(SessionSettings()), Reflector(ReflectorSettings())
    echo = bounce(session, reflector, T0, ahead_ns=ahead_ns)
    assert echo is not None
    assert not echo.synchronised


def test_packets_are_as_large_as_asked() -> None:
    """Padding, class and seal fit into the size; below the base packet nothing fits."""
    for octets in (0, 44, 45, 47, 48, 52, 60, 100, 112, 113, 140, 1400):
        for key in (b"", KEY):
            settings = SessionSettings(key=key, dscp=46, payload_octets=octets)
            made = SenderSession(settings).send(T0, GOOD)
            assert len(made) in range(octets - 3, max(octets, 112 if key else 44) + 1)
            assert len(made) <= max(octets, 112 if key else 44)
            assert decode_test(made, key).sequence == 0


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda r: replace(r, sender_timestamp=r.sender_timestamp + 1), "foreign"),
        (lambda r: replace(r, sender_error=r.sender_error ^ 1), "foreign"),
        (lambda r: replace(r, ssid=8), "foreign"),
        (lambda r: replace(r, sender_sequence=r.sender_sequence + 1), "late"),
        (lambda r: replace(r, timestamp=r.receive_timestamp - 100), "implausible"),
        (lambda r: replace(r, timestamp=r.timestamp + (1 << 32)), "implausible"),
    ],
)
def test_a_reply_that_does_not_fit_is_counted_and_left(
    spoil: Callable[[ReplyPacket], ReplyPacket], reason: str
) -> None:
    """Forged, another session's, of an unknown packet, times out of order; the true one still counts."""
    session, reflector = SenderSession(SessionSettings(ssid=9)), Reflector(ReflectorSettings())
    datagram = session.send(T0, GOOD)
    reply = reflector.reflect(datagram, arrival(T0 + MS), GOOD)
    assert reply is not None
    true = reply.stamped(T0 + MS, GOOD)
    assert session.receive(encode_reply(spoil(decode_reply(true))), T0 + 2 * MS) is None
    assert session.counts[reason] == 1
    assert session.receive(b"nonsense", T0 + 2 * MS) is None
    assert session.receive(true, T0 + 2 * MS) is not None
    assert session.receive(true, T0 + 2 * MS) is None
    assert (session.counts["malformed"], session.counts["duplicate"]) == (1, 1)


def test_a_reply_after_its_time_is_late_and_memory_stays_bounded() -> None:
    """What is waited for is one time-out's worth of packets."""
    session, reflector = SenderSession(SessionSettings(timeout_s=0.5)), Reflector(ReflectorSettings())
    assert bounce(session, reflector, T0, back_ns=S) is None
    assert session.counts["late"] == 1
    for i in range(1000):
        session.send(T0 + S + i * 10 * MS, GOOD)
    assert session.waiting <= 51


def test_a_reflector_without_ssid_is_accepted() -> None:
    """RFC 8972 section 3: one that does not know it returns zero."""
    session = SenderSession(SessionSettings(ssid=9))
    datagram = session.send(T0, GOOD)
    reply = Reflector(ReflectorSettings()).reflect(datagram, arrival(T0 + MS), GOOD)
    assert reply is not None
    old = replace(decode_reply(reply.stamped(T0 + MS, GOOD)), ssid=0)
    assert session.receive(encode_reply(old)[:41], T0 + 2 * MS) is not None


def test_remarking_on_the_way_is_told() -> None:
    """The Class of Service TLV says in which class the packet arrived."""
    session, reflector = (
        SenderSession(SessionSettings(dscp=46, payload_octets=100)),
        Reflector(ReflectorSettings()),
    )
    for arrived, remarked in ((46, False), (0, True)):
        datagram = session.send(T0, GOOD)
        reply = reflector.reflect(datagram, arrival(T0 + MS, dscp=arrived), GOOD)
        assert reply is not None
        assert reply.dscp == 46
        echo = session.receive(reply.stamped(T0 + MS, GOOD), T0 + 2 * MS)
        assert echo is not None
        assert echo.remarked is remarked


# ------------------------------------------------------------------------------------------ the reflector


@given(st.integers(0, 300), st.sampled_from([b"", KEY]))
def test_a_reply_is_never_longer_than_its_request(octets: int, key: bytes) -> None:
    """No amplification: as long as the request, or none at all."""
    reflector = Reflector(ReflectorSettings(key=key))
    base = encode_test(decode_test(bytes(44)), key)
    datagram = (base + bytes(300))[:octets]
    reply = reflector.reflect(datagram, arrival(T0), GOOD)
    least = 112 if key else 41
    assert (reply is None) == (octets < least)
    if reply is not None:
        assert len(reply.stamped(T0, GOOD)) == octets
    assert reflector.counts["too-short"] == (octets < least)


@given(st.integers(0, 300), st.sampled_from([b"", KEY]))
def test_short_requests_are_answered_only_where_that_is_wanted(octets: int, key: bytes) -> None:
    """From TWAMP's 14 octets on, by TWAMP's 41; what is longer stays symmetrical, what is signed whole."""
    reflector = Reflector(ReflectorSettings(key=key, answer_short=True))
    sent = encode_test(TestPacket(7, 1 << 40, 0x8903), key) + bytes(300)
    reply = reflector.reflect(sent[:octets], arrival(T0), GOOD)
    assert (reply is None) == (octets < (112 if key else 14))
    if reply is not None:
        back = reply.stamped(T0, GOOD)
        assert len(back) == max(octets, 41)
        told = decode_reply(back, key)
        assert (told.sender_sequence, told.sender_timestamp, told.sender_error) == (7, 1 << 40, 0x8903)


def test_with_a_key_only_the_signed_is_answered() -> None:
    """An unsigned packet gets nothing and starts no session."""
    reflector = Reflector(ReflectorSettings(key=KEY))
    assert reflector.reflect(bytes(112), arrival(T0), GOOD) is None
    assert (reflector.counts["unsigned"], reflector.sessions) == (1, 0)


def test_a_flood_from_one_source_does_not_take_from_others() -> None:
    """Each address has its rate; together they have one too."""
    reflector = Reflector(ReflectorSettings(source_pps=10, total_pps=25))
    answered = {"192.0.2.1": 0, "192.0.2.2": 0, "192.0.2.3": 0}
    for source, packets in (("192.0.2.1", 1000), ("192.0.2.2", 10), ("192.0.2.3", 10)):
        for _ in range(packets):
            answered[source] += reflector.reflect(bytes(44), arrival(T0, source), GOOD) is not None
    assert answered == {"192.0.2.1": 10, "192.0.2.2": 10, "192.0.2.3": 5}
    assert reflector.reflect(bytes(44), arrival(T0 + S // 2, "192.0.2.1"), GOOD) is not None
    assert reflector.counts["over-rate"] == 995


def test_memory_of_sources_and_sessions_is_bounded() -> None:
    """A million forged addresses leave as much behind as a few thousand."""
    reflector = Reflector(ReflectorSettings(most_sources=50, most_sessions=80, total_pps=1e9))
    for i in range(5000):
        reflector.reflect(bytes(44), arrival(T0 + i, f"198.51.{i // 250}.{i % 250}"), GOOD)
    assert reflector.sessions == 80


def test_replies_are_numbered_per_session() -> None:
    """Stateful: sessions apart by port and SSID; a sender that begins anew is numbered anew."""
    reflector = Reflector(ReflectorSettings())
    steps = [((5000, 1), 3), ((5000, 1), 4), ((5001, 1), 9), ((5000, 2), 9), ((5000, 1), 5), ((5000, 1), 0)]
    numbers = []
    for (port, ssid), sequence in steps:
        packet = replace(decode_test(bytes(44)), sequence=sequence, ssid=ssid)
        reply = reflector.reflect(encode_test(packet), arrival(T0, port=port), GOOD)
        assert reply is not None
        numbers.append(reply.packet.sequence)
    assert numbers == [0, 1, 0, 0, 2, 0]


def test_a_stateless_reflector_repeats_the_number() -> None:
    """RFC 8762 section 4: nothing is remembered."""
    reflector = Reflector(ReflectorSettings(stateful=False))
    packet = replace(decode_test(bytes(44)), sequence=77)
    reply = reflector.reflect(encode_test(packet), arrival(T0), GOOD)
    assert reply is not None
    assert (reply.packet.sequence, reflector.sessions) == (77, 0)


@given(st.binary(max_size=300), st.sampled_from([b"", KEY]))
def test_hostile_bytes_are_answered_or_counted(datagram: bytes, key: bytes) -> None:
    """Every datagram has one fate, and none raises."""
    reflector = Reflector(ReflectorSettings(key=key))
    reply = reflector.reflect(datagram, arrival(T0), GOOD)
    assert sum(reflector.counts.values()) == 1
    assert (reply is not None) == (reflector.counts["reflected"] == 1)
    session = SenderSession(SessionSettings(key=key))
    session.send(T0, GOOD)
    assert session.receive(datagram, T0 + MS) is None


# ------------------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize(
    ("stateful", "echoes", "split"),
    [
        (None, [(0, 0), (1, 1), (2, 2)], Split(0, 0)),  # all there
        (None, [(0, 0), (3, 2)], Split(1, 1)),  # 1 or 2 lost forward, the other answer lost
        (None, [(0, 0), (3, 3)], Split()),  # stateless, or two answers lost: who knows
        (True, [(0, 0), (3, 3)], Split(0, 2)),
        (False, [(0, 0), (3, 2)], Split()),
        (None, [(5, 0)], Split(5, 0)),  # the first five never arrived
        (None, [(0, 900), (1, 901)], Split(0, 0)),  # a reflector that counts on from another session
        (None, [], Split()),
    ],
)
def test_losses_are_told_apart_by_two_sequences(
    stateful: bool | None, echoes: list[tuple[int, int]], split: Split
) -> None:
    """Forward is what the reflector never numbered, backward what it numbered and never came."""
    assert LossLedger(stateful).close(echoes) == split


def test_losses_go_on_from_bin_to_bin_and_survive_a_restart_of_the_reflector() -> None:
    """What was lost at a bin's end is counted in the next; a reflector that begins anew is told as such."""
    ledger = LossLedger()
    assert ledger.close([(0, 0), (1, 1)]) == Split(0, 0)
    assert ledger.close([(4, 3)]) == Split(1, 1)
    assert ledger.close([(9, 0)]) == Split(reset=True)
    assert ledger.close([(10, 1), (12, 2)]) == Split(1, 0)


@given(st.lists(st.sampled_from(["ok", "forward", "backward"]), min_size=1, max_size=60), st.integers(1, 9))
def test_the_ledger_adds_up(fates: list[str], size: int) -> None:
    """Up to the last packet that came back, every loss is found once and in its direction."""
    ledger, replied, told = LossLedger(stateful=True), 0, [0, 0]
    for begin in range(0, len(fates), size):
        echoes = []
        for number, fate in enumerate(fates[begin : begin + size], start=begin):
            if fate == "ok":
                echoes.append((number, replied))
            replied += fate != "forward"
        split = ledger.close(echoes)
        assert not split.reset
        told = [told[0] + (split.forward or 0), told[1] + (split.backward or 0)]
    last = max((i for i, fate in enumerate(fates) if fate == "ok"), default=-1)
    assert told == [fates[: last + 1].count("forward"), fates[: last + 1].count("backward")]


# --------------------------------------------------------------------------------------------------- pace


@pytest.mark.parametrize("stream", ["poisson", "periodic"])
def test_packets_leave_at_the_agreed_rate_and_never_in_a_burst(stream: Stream) -> None:
    """A hundred seconds at 20 a second: as many as agreed, none nearer than a tenth of the mean gap."""
    pace = Pace(20.0, stream, random.Random(7))
    now_ns, times = pace.start(0), []
    while now_ns < 100 * S:
        assert pace.take(now_ns)
        times.append(now_ns)
        assert pace.due_ns is not None
        now_ns = pace.due_ns
    gaps = np.diff(times) / 50e6
    assert len(times) == pytest.approx(2000, rel=0.07)
    assert gaps.min() >= SHORTEST * 0.9
    assert gaps.max() <= LONGEST * 1.1
    spread = {"poisson": pytest.approx(0.9, abs=0.1), "periodic": pytest.approx(0.0, abs=1e-3)}
    assert gaps.std() == spread[stream]


def test_after_a_standstill_nothing_is_made_up_for() -> None:
    """Ten seconds asleep cost two hundred packets, told as skipped, and no flood follows."""
    pace = Pace(20.0, "periodic", random.Random(7))
    first_ns = pace.start(0)
    assert pace.take(first_ns)
    assert not pace.take(first_ns + 10 * S)
    assert pace.skipped == pytest.approx(199, abs=2)
    sent = sum(pace.take(first_ns + 10 * S + ms * MS) for ms in range(1000))
    assert sent in (19, 20, 21)


def test_calls_before_time_send_nothing() -> None:
    """A timer that wakes early is no licence."""
    pace = Pace(1.0, "periodic", random.Random(7))
    due_ns = pace.start(0)
    assert not pace.take(due_ns - 1)
    assert pace.take(due_ns)
    assert not pace.take(due_ns + 1)


# --------------------------------------------------------------------------------------------------- bins


def _echo(sequence: int, sent_ns: int, forward_s: float, *, error_s: float = 1e-5, **more: bool) -> Echo:
    known = {"synchronised": True, "reordered": False, "remarked": False, **more}
    return Echo(
        sequence=sequence,
        reply_sequence=sequence,
        sent_ns=sent_ns,
        round_trip_s=forward_s + 0.005,
        forward_s=forward_s,
        backward_s=0.005,
        error_s=error_s,
        **known,
    )


def _bins(flows: int = 1) -> ProbeBins:
    label = ProbeLabel("WA", "NY", packet_bits=1024.0, traffic_class=46, flows=flows, stateful=True)
    return ProbeBins(label, bin_ns=5 * S, timeout_ns=S)


def test_a_bin_is_told_when_its_last_packet_can_no_longer_come_back() -> None:
    """Figures of both directions, each with its own losses, over [start, end)."""
    bins = _bins()
    for i, forward_s in enumerate((0.010, 0.012, 0.010, 0.020)):
        bins.sent(T0 + i * S)
        bins.echo(0, _echo(i, T0 + i * S, forward_s))
    bins.sent(T0 + 4 * S)
    assert bins.close(T0 + 6 * S - 1) == []
    (told,) = bins.close(T0 + 6 * S)
    assert told.round_trip is None
    assert told.forward == PathDelay(
        destination="NY",
        start_ns=T0,
        end_ns=T0 + 5 * S,
        count=4,
        mean_s=pytest.approx(0.013),
        min_s=0.010,
        max_s=0.020,
        p50_s=pytest.approx(0.011),
        p95_s=pytest.approx(0.0188),
        jitter_s=pytest.approx(0.004123, rel=1e-3),
        ipdv_s=pytest.approx((0.002 + 0.002 + 0.010) / 3),
        sent=5,
        lost=0,
        lost_forward=0,
        lost_backward=0,
        packet_bits=1024.0,
        traffic_class=46,
        clock_synchronised=True,
        error_s=1e-5,
    )
    assert told.backward is not None
    assert (told.backward.destination, told.backward.mean_s) == ("WA", pytest.approx(0.005))


@pytest.mark.parametrize(
    "spoilt",
    [
        {"synchronised": False},  # one packet's clocks are enough
        {"error_s": 0.005},  # clocks worse than a third of the round trip
        {"forward_s": -0.05},  # less than nothing on average
    ],
)
def test_else_the_round_trip_is_told_as_a_round_trip(spoilt: dict[str, float]) -> None:
    """And says whether its clocks were synchronised by their own word."""
    bins = _bins()
    for i in range(4):
        bins.sent(T0 + i)
        bins.echo(0, _echo(i, T0 + i, 0.010) if i else _echo(i, T0 + i, **{"forward_s": 0.010, **spoilt}))  # type: ignore[arg-type]  # a table's row
    (told,) = bins.close(T0 + 6 * S)
    assert (told.forward, told.backward) == (None, None)
    assert told.round_trip is not None
    assert told.round_trip.clock_synchronised is told.synchronised is spoilt.get("synchronised", True)


def test_a_silent_bin_tells_its_losses_in_the_kind_of_before() -> None:
    """Nothing came back: sent and lost are told, and no delay."""
    bins = _bins()
    bins.sent(T0)
    bins.echo(0, _echo(0, T0, 0.010))
    bins.sent(T0 + 5 * S)
    first, second = bins.close(T0 + 11 * S)
    assert (first.answered, second.answered) == (1, 0)
    assert second.forward is not None
    assert (second.forward.count, second.forward.sent, second.forward.lost) == (0, 1, None)
    assert second.synchronised is None


def test_a_step_of_our_clock_takes_the_figures_and_leaves_the_flag() -> None:
    """No time difference of such a bin is worth anything."""
    bins = _bins()
    bins.sent(T0)
    bins.echo(0, _echo(0, T0, 0.010))
    bins.stepped()
    (told,) = bins.close(T0 + 6 * S)
    delay = told.round_trip
    assert delay is not None
    assert (delay.count, delay.lost, delay.quality) == (0, 0, ("clock-step",))
    assert (told.answered, told.synchronised) == (1, None)


def test_a_packet_that_left_late_counts_for_losses_and_not_for_delays() -> None:
    """The program was held up between clock and socket: what that adds is no delay of the path."""
    bins = _bins()
    for i, doubted in enumerate((False, True, False)):
        bins.sent(T0 + i)
        bins.echo(0, _echo(i, T0 + i, 5.0 if doubted else 0.010, doubted=doubted))
    (told,) = bins.close(T0 + 6 * S)
    assert told.forward is not None
    assert (told.forward.count, told.forward.max_s, told.forward.sent, told.forward.lost) == (2, 0.010, 3, 0)
    assert told.forward.quality == ("sender-held-up",)
    session, reflector = SenderSession(SessionSettings()), Reflector(ReflectorSettings())
    datagram = session.send(T0, GOOD)
    session.doubt()
    reply = reflector.reflect(datagram, arrival(T0 + MS), GOOD)
    assert reply is not None
    echo = session.receive(reply.stamped(T0 + MS, GOOD), T0 + 2 * MS)
    assert echo is not None
    assert echo.doubted


def test_flows_are_merged_and_told_how_many() -> None:
    """Two source ports over two paths: one mean, variation within each flow only."""
    bins = _bins(flows=2)
    for i in range(6):
        bins.sent(T0 + i)
        bins.echo(i % 2, _echo(i // 2, T0 + i, 0.010 if i % 2 else 0.020))
    (told,) = bins.close(T0 + 6 * S)
    assert told.forward is not None
    assert (told.forward.flows, told.forward.mean_s, told.forward.ipdv_s) == (2, pytest.approx(0.015), 0.0)


def _flagged(told: Measured) -> tuple[str, ...]:
    delay = told.forward or told.round_trip
    return delay.quality if delay is not None else ()


def test_what_was_wrong_is_flagged() -> None:
    """Gaps of our own, remarking, reordering, a port without a listener, a reflector that began anew."""
    bins = _bins()
    bins.skipped(T0, 3)
    bins.refused(T0)
    bins.sent(T0)
    bins.echo(0, _echo(7, T0, 0.010, remarked=True, reordered=True))
    bins.sent(T0 + 5 * S)
    bins.echo(0, replace(_echo(8, T0 + 5 * S, 0.010), reply_sequence=0))
    first, second = bins.close(T0 + 11 * S)
    assert set(_flagged(first)) == {"probe-gap", "no-listener", "class-remarked", "reordered"}
    assert _flagged(second) == ("reflector-reset",)


# -------------------------------------------------------------------------------------------------- clock


@pytest.mark.parametrize(
    ("readings", "steps"),
    [
        ([(100, 0), (200, 100), (300, 200)], [False, False, False]),
        ([(100, 0), (100 + S, 100), (200 + S, 200)], [False, True, False]),
        ([(S, 0), (100, 100)], [False, True]),
        ([(0, 0), (S + 500_000, S)], [False, False]),  # slewed at 500 ppm
    ],
)
def test_a_clock_that_was_set_is_noticed(readings: list[tuple[int, int]], steps: list[bool]) -> None:
    """Against the monotonic clock: a step is more than any slewing."""
    clock = OwnClock()
    assert [clock.judge(now_ns, monotonic_ns) for now_ns, monotonic_ns in readings] == steps


def test_the_operator_knows_what_a_clock_is_worth() -> None:
    """A told error comes through, with the reading's own on top; an unsynchronised clock says so."""
    told = OwnClock("synchronised", 1e-3).estimate()
    assert (told.synchronised, told.error_s) == (True, pytest.approx(1.005e-3))
    assert OwnClock("unsynchronised").estimate().synchronised is False
    assert OwnClock().estimate().error_s > 0  # the kernel's word, whatever it is here
