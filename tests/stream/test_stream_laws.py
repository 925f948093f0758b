"""The laws of the stream: same set of records in, byte-identical states out, whatever befalls them."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import T0, Ring, S, event_time_ns, link_event, records

from stream.codec import decode, encode
from stream.consumer import Message
from stream.pipeline import NetworkPipeline, PipelineSettings
from stream.runner import PartitionRunner
from stream.topics import BY_RECORD, INPUT_TOPICS, key_of
from twin.errors import DecodeError
from twin.graph import DelayMeasurement, GraphState, Measurements, StateView
from twin.network import Traffic
from twin.records import DeadLetter, DeviceSample, Record, StateUpdate

LATENESS_NS = 2 * S
Timed = tuple[int, Record]  # (clock at arrival, record)


@functools.cache
def story() -> tuple[Record, ...]:
    """A minute of a ring: NETCONF beside SNMP, a reboot, a link that fails and returns, a silent router."""
    ring = Ring()
    told = [_as_it_happened(record) for record in ring.log(60) if not _is_silent(record)]
    netconf = [ring.sample(i, T0 + second * S + 3 * i, "netconf") for i in range(4) for second in (1, 19)]
    events = [link_event("link-down", 1, "eth0", T0 + 23 * S), link_event("link-up", 1, "eth0", T0 + 37 * S)]
    topology = [ring.topology(2, T0 + 31 * S)]
    return tuple(sorted([*told, *netconf, *events, *topology], key=event_time_ns))


def _is_silent(record: Record) -> bool:
    return getattr(record, "device", "") == "R003" and event_time_ns(record) > T0 + 25 * S


def _as_it_happened(record: Record) -> Record:
    """R001's eth0 is down from 23 s to 37 s; R002 restarts at 42 s."""
    if not isinstance(record, DeviceSample):
        return record
    at_ns = record.observed_at_ns - T0
    if record.device == "R001" and 23 * S < at_ns < 37 * S:
        down = msgspec.structs.replace(record.interfaces[0], oper_up=False)
        return msgspec.structs.replace(record, interfaces=(down, *record.interfaces[1:]))
    if record.device == "R002" and at_ns > 42 * S:
        return msgspec.structs.replace(record, uptime_ns=at_ns - 42 * S)
    return record


def drive(pipeline: NetworkPipeline, timed: Iterable[Timed]) -> list[Record]:
    """Feed records at their clocks, as a driver does, then let time pass."""
    out: list[Record] = []
    for clock_ns, record in timed:
        out += pipeline.on_time(clock_ns)
        out += pipeline.on_record(record)
    return out + pipeline.on_time(T0 + 100 * S)


def in_order() -> list[Timed]:
    """The story as told."""
    return [(event_time_ns(record), record) for record in story()]


@functools.cache
def expected() -> tuple[bytes, ...]:
    """What the undisturbed story makes."""
    return tuple(encode(record) for record in drive(NetworkPipeline(), in_order()))


def late_by(delays_ns: list[int]) -> list[Timed]:
    """The story with every record delayed on its way, and so out of order."""
    timed = [
        (at_ns + delay_ns, record) for (at_ns, record), delay_ns in zip(in_order(), delays_ns, strict=True)
    ]
    return sorted(timed, key=lambda item: item[0])


def test_the_story_has_what_it_promises() -> None:
    """The undisturbed story closes its windows with every kind of flaw in it, and nothing is refused."""
    states = [decode("ndt.state", payload) for payload in expected()]
    assert all(isinstance(state, StateUpdate) for state in states)
    flags = {flag for state in states if isinstance(state, StateUpdate) for flag in state.quality}
    assert {"silent:R003", "flows-missing:R003", "delays-missing:R003", "reset:R002"} <= flags
    versions = {state.topology_version for state in states if isinstance(state, StateUpdate)}
    assert len(versions) == 3  # up, down, up again


@given(st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_shuffling_within_the_lateness_changes_no_byte(rnd: random.Random) -> None:
    """Records delayed by anything up to the lateness give byte-identical outputs."""
    delays_ns = [rnd.choice([0, rnd.randrange(LATENESS_NS), LATENESS_NS]) for _ in story()]
    assert tuple(encode(record) for record in drive(NetworkPipeline(), late_by(delays_ns))) == expected()


@given(st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_duplicates_change_no_byte(rnd: random.Random) -> None:
    """Records that come again, up to half a minute later, give byte-identical outputs."""
    again = [(at_ns + rnd.randrange(30 * S), record) for at_ns, record in in_order() if rnd.random() < 0.3]
    timed = sorted(in_order() + again, key=lambda item: item[0])
    assert tuple(encode(record) for record in drive(NetworkPipeline(), timed)) == expected()


@given(st.sets(st.integers(0, len(story())), max_size=6))
@settings(max_examples=40, deadline=None)
def test_a_snapshot_restored_anywhere_changes_no_byte(places: set[int]) -> None:
    """Replacing the pipeline by one restored from its snapshot, anywhere, gives byte-identical outputs."""
    pipeline, out = NetworkPipeline(), []
    for i, (clock_ns, record) in enumerate(in_order()):
        if i in places:
            blob = pipeline.snapshot()
            pipeline = NetworkPipeline()
            pipeline.restore(blob)
            assert pipeline.snapshot() == blob
        out += [*pipeline.on_time(clock_ns), *pipeline.on_record(record)]
    out += pipeline.on_time(T0 + 100 * S)
    assert tuple(encode(record) for record in out) == expected()


def test_extra_ticks_of_the_clock_change_no_byte() -> None:
    """Telling the time between records, as a live driver does, gives byte-identical outputs."""
    pipeline, out, before_ns = NetworkPipeline(), [], T0
    for clock_ns, record in in_order():
        for now_ns in range(before_ns, clock_ns, S // 4):
            out += pipeline.on_time(now_ns)
        out += [*pipeline.on_time(clock_ns), *pipeline.on_record(record)]
        before_ns = clock_ns
    out += pipeline.on_time(T0 + 100 * S)
    assert tuple(encode(record) for record in out) == expected()


# ------------------------------------------------------------------------------------ crashes and redelivery


@functools.cache
def log() -> dict[str, list[Message]]:
    """The story as it lies in the topics of partition 0."""
    topics: dict[str, list[Message]] = {topic: [] for topic in INPUT_TOPICS}
    for record in story():
        topic = BY_RECORD[type(record)].name
        at_ms = event_time_ns(record) // 1_000_000
        topics[topic].append(Message(topic, 0, len(topics[topic]), at_ms, key_of(record), encode(record)))
    return topics


def consume(runner: PartitionRunner, positions: dict[str, int], choices: Iterable[str]) -> list[Record]:
    """Feed the next message of each chosen topic; release what may go."""
    out: list[Record] = []
    for topic in choices:
        if positions[topic] < len(log()[topic]):
            runner.feed(log()[topic][positions[topic]])
            positions[topic] += 1
            out += runner.step(lambda topic, offset: offset >= len(log()[topic]))
    return out


@given(st.randoms(use_true_random=False), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_a_crash_anywhere_loses_and_changes_nothing(rnd: random.Random, crashes: int) -> None:
    """However topics interleave, and restarted from a checkpoint with all delivered again, a runner gives
    every window the same bytes."""
    runner, checkpoint = PartitionRunner(NetworkPipeline(), INPUT_TOPICS, 0), b""
    out: list[Record] = []
    total = sum(len(messages) for messages in log().values())
    for _ in range(crashes):
        positions = dict.fromkeys(INPUT_TOPICS, 0)
        out += consume(runner, positions, rnd.choices(INPUT_TOPICS, k=rnd.randrange(2 * total)))
        if rnd.random() < 0.7:
            checkpoint = runner.checkpoint()
        runner = PartitionRunner(NetworkPipeline(), INPUT_TOPICS, 0)
        if checkpoint:
            runner.restore(checkpoint)
    everything = [topic for topic in INPUT_TOPICS for _ in log()[topic]]
    rnd.shuffle(everything)
    out += consume(runner, dict.fromkeys(INPUT_TOPICS, 0), everything)
    out += runner.advance(T0 + 100 * S)
    assert runner.held == 0
    assert {encode(record) for record in out} == set(expected())


# ------------------------------------------------------------------------------------------ bad input, limits


@given(st.lists(records(), max_size=30))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_record_whatever_stops_the_pipeline(strange: list[Record]) -> None:
    """Well-typed nonsense among good records raises nothing, and everything that comes out can be read."""
    pipeline, view = NetworkPipeline(), StateView()
    good = in_order()
    timed = sorted(
        good[::2] + [(T0 + i * 2 * S, record) for i, record in enumerate(strange)], key=lambda item: item[0]
    )
    out = drive(pipeline, timed)
    for record in out:
        assert isinstance(record, StateUpdate | DeadLetter)
        if isinstance(record, StateUpdate):
            view.apply(record)
    # A strange source may hold the last windows back for the idle time-out.
    assert view.version >= T0 // (10 * S) + 8
    blob = pipeline.snapshot()
    pipeline.restore(blob)
    assert pipeline.snapshot() == blob


def test_a_snapshot_is_small_and_quick() -> None:
    """With the story's state, a snapshot is far below 100 kB (its time is measured by the bench)."""
    pipeline = NetworkPipeline()
    for clock_ns, record in in_order():
        pipeline.on_time(clock_ns)
        pipeline.on_record(record)
    assert len(pipeline.snapshot()) < 20_000


def test_a_full_mesh_of_300_nodes_fits_into_one_message() -> None:
    """A keyframe of 300 nodes with all 89,700 paths loaded and measured by two methods stays under 1 MB."""
    ring, graph, rng = Ring(300), GraphState("ring"), np.random.default_rng(1)
    for i in range(300):
        graph.apply(ring.topology(i))
    graph.refresh(6)
    paths = 300 * 299
    pps = rng.lognormal(5, 1.5, paths)
    traffic = Traffic(bps=pps * rng.uniform(300, 1500, paths) * 8, pps=pps)
    delays = tuple(
        DelayMeasurement(method, "one-way", rng.lognormal(-4, 0.7, paths), count)
        for method, count in (("rttmon", np.full(paths, 20.0)), ("ipfix-on-path", np.floor(10 * pps)))
    )
    update = graph.close(6, 0, 10 * S, Measurements(traffic=traffic, delays=delays))
    assert update.keyframe
    assert len(encode(update)) < 1_000_000


def test_other_settings_refuse_a_snapshot() -> None:
    """A snapshot taken with other windows is refused with a reason, not misread."""
    blob = NetworkPipeline().snapshot()
    with pytest.raises(DecodeError, match="other settings"):
        NetworkPipeline(PipelineSettings(window_s=5.0)).restore(blob)
    with pytest.raises(DecodeError, match="damaged"):
        NetworkPipeline().restore(blob[:-3])
