"""The pipeline by hand-computed figures: what a network says, and what its state must be."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np
import pytest
from strategies import (
    CAPACITY_BPS,
    FLOW_BPS,
    LOAD_BPS,
    PACKET_OCTETS,
    PROBE_BITS,
    T0,
    Ring,
    S,
    event_time_ns,
    link_event,
    loopback,
    name,
)

from collectors.watch import InterfaceWatch
from stream.codec import decode
from stream.pipeline import NetworkPipeline, PipelineSettings
from twin.errors import ConfigError
from twin.graph import StateView
from twin.records import (
    DeadLetter,
    DelayReport,
    DeviceSample,
    DeviceTopology,
    FlowReport,
    LinkAnnotations,
    NetworkEvent,
    PathDelay,
    QueueCounters,
    Record,
    StateUpdate,
)

RING = Ring()
V0 = T0 // (10 * S)  # the version that begins at T0 is V0 + 1


def states(log: Iterable[Record], until_s: int = 80) -> dict[int, tuple[StateUpdate, StateView]]:
    """Window number (1 = the first ten seconds) → its state, and a view that followed so far."""
    pipeline, out = NetworkPipeline(), []
    for record in log:
        out += [*pipeline.on_time(event_time_ns(record)), *pipeline.on_record(record)]
    out += pipeline.on_time(T0 + until_s * S)
    found: dict[int, tuple[StateUpdate, StateView]] = {}
    updates = [record for record in out if isinstance(record, StateUpdate)]
    for k, update in enumerate(updates):
        view = StateView()
        for earlier in updates[: k + 1]:
            view.apply(earlier)
        found[update.version - V0] = (update, view)
    return found


def log_without(*kinds: type[Record], device: str = "") -> list[Record]:
    """The ring's minute without records of some kinds, of one device or of all."""
    return [
        r for r in RING.log(60) if not (isinstance(r, kinds) and device in ("", getattr(r, "device", "")))
    ]


def ordered(*logs: Iterable[Record]) -> list[Record]:
    """Several logs as one, by event time."""
    return sorted((record for log in logs for record in log), key=event_time_ns)


def test_a_healthy_network_is_told_right() -> None:
    """Topology, capacities, annotations, loads, drops, traffic and delays come out as they went in."""
    update, view = states(RING.log(60))[3]
    network = view.network
    assert network.nodes == tuple(name(i) for i in range(4))
    assert len(network.links) == 8
    assert {link.capacity_bps for link in network.links} == {CAPACITY_BPS}
    assert {link.buffer_packets for link in network.links} == {64}
    forward = network.link_names.index("R000->R001")
    assert network.propagation_delay_s[forward] == 4e-3
    assert view.link_measured.tolist() == [1] * 8
    assert view.link_load_bps[forward] == pytest.approx(LOAD_BPS[0], rel=1e-3)
    assert view.link_load_pps[forward] == pytest.approx(LOAD_BPS[0] / 8 / PACKET_OCTETS, rel=1e-3)
    assert view.link_drops_pps[forward] == pytest.approx(3, rel=0.1)
    assert view.traffic.bps == pytest.approx(np.full(12, FLOW_BPS), rel=2e-3)
    assert view.traffic.mean_packet_bits == pytest.approx(np.full(12, 8 * PACKET_OCTETS), rel=5e-3)
    probes = view.delays["rttmon"]
    assert probes.mean_s[network.path_index("R001", "R000")] == pytest.approx(4e-3, rel=1e-3)
    assert probes.count == pytest.approx(np.full(12, 20), rel=0.03)
    assert (probes.direction, probes.packet_bits) == ("one-way", PROBE_BITS)
    assert update.quality == ()


def test_class_queues_of_a_device_stand_in_the_state() -> None:
    """Forty drops a second of one class, which the interface itself counts as three."""
    log: list[Record] = []
    for record in RING.log(60):
        if isinstance(record, DeviceSample) and record.device == "R000":
            seconds = (record.observed_at_ns - T0) // S
            queue = QueueCounters(
                interface="eth0",
                direction="out",
                name="bulk",
                sent_octets=1_000 * seconds,
                dropped_packets=40 * seconds,
                depth_octets=3_000,
            )
            record = msgspec.structs.replace(record, queues=(queue,))  # noqa: PLW2901  the log as told
        log.append(record)
    _, view = states(log)[3]
    forward, back = (view.network.link_names.index(n) for n in ("R000->R001", "R000->R003"))
    assert view.queues.classes == ("bulk",)
    assert view.queues.of(forward)[0][1:] == pytest.approx((8_000, 40, 3_000), rel=1e-2)
    assert view.link_drops_pps[forward] == pytest.approx(40, rel=1e-2)
    assert view.queues.of(back) == []


def test_routes_go_as_the_devices_forward() -> None:
    """Paths follow the forwarding tables: one hop to neighbours, two clockwise hops across."""
    network = states(RING.log(60))[3][1].network
    hops = network.paths.of(network.path_index("R000", "R002"))
    assert [network.link_names[k] for k in hops] == ["R000->R001", "R001->R002"]
    assert network.paths.lengths.max() == 2


def test_versions_follow_the_windows_and_keyframes_come_every_sixth() -> None:
    """Versions count windows since 1970; keyframes come when the topology changes and every sixth version."""
    found = [update for update, _ in states(RING.log(60)).values()]
    assert [update.version for update in found] == list(range(V0 + 1, V0 + 1 + len(found)))
    assert all(update.window_end_ns == update.version * 10 * S for update in found)
    keyframes = {update.version for update in found if update.keyframe}
    assert keyframes == {V0 + 1} | {u.version for u in found if u.version % 6 == 0}
    assert all((update.topology is not None) == update.keyframe for update in found)


def test_a_link_that_fails_makes_a_new_topology_at_once() -> None:
    """A link-down event takes both directions down in its window, with a keyframe; the paths break there."""
    down = [link_event("link-down", 0, "eth0", T0 + 58 * S)]
    update, view = states(ordered(RING.log(60), down))[6]
    assert update.keyframe
    assert update.topology_version == update.version
    assert {link.name for link in view.network.links if not link.up} == {"R000->R001", "R001->R000"}
    assert view.network.paths.lengths[view.network.path_index("R000", "R001")] == 0


def test_a_silent_device_is_flagged_and_stays() -> None:
    """A device without samples stays a node; its links are measured at their far ends; gaps are flagged."""
    cut = T0 + 20 * S
    log = [r for r in RING.log(60) if getattr(r, "device", "") != "R001" or event_time_ns(r) <= cut]
    update, view = states(log)[5]
    assert "R001" in view.network.nodes
    assert {"silent:R001", "flows-missing:R001", "delays-missing:R001"} == set(update.quality)
    out = view.network.link_names.index("R001->R002")
    assert view.link_measured[out] == 2
    assert view.link_load_bps[out] == pytest.approx(LOAD_BPS[0], rel=1e-3)


def test_a_collector_that_says_silent_is_believed_at_once() -> None:
    """A device-silent event flags its device until it is heard again."""
    event = NetworkEvent(network="ring", device="R002", observed_at_ns=T0 + 29 * S, kind="device-silent")
    found = states(ordered(RING.log(60), [event]))
    assert [("silent:R002" in found[k][0].quality) for k in (2, 3, 4)] == [False, True, False]


def test_a_missing_poll_is_flagged_in_the_windows_it_mixes() -> None:
    """R001's poll at 20 s is missing: what it counted from 15 to 25 s is shared out to two windows."""
    log: list[Record] = []
    for record in RING.log(60):
        second = (event_time_ns(record) - T0) // S
        if isinstance(record, DeviceSample) and record.device == "R001" and second in (20, 25):
            if second == 20:
                continue
            record = msgspec.structs.replace(record, quality=("gap",))  # noqa: PLW2901  the log as told
        log.append(record)
    found = states(log)
    assert {k for k, (update, _) in found.items() if "gap:R001" in update.quality} == {2, 3}


def cached(log: Iterable[Record], device: str, every_s: int, *, judged: bool) -> list[Record]:
    """The log with a device whose agent refreshes its counters seldom; as a collector judges it, or raw."""
    watch, told = InterfaceWatch(), list[Record]()
    for record in log:
        if not isinstance(record, DeviceSample) or record.device != device:
            told.append(record)
            continue
        age_ns = (record.observed_at_ns - T0) % (every_s * S)
        old = RING.sample(int(device[1:]), record.observed_at_ns - age_ns)
        shown = msgspec.structs.replace(record, interfaces=old.interfaces)
        told.append(watch.judge(shown, 5 * S)[0] if judged else shown)
    return told


def test_an_agents_cache_makes_no_load_of_nothing_and_no_spike() -> None:
    """What R001 sends is measured at the far ends meanwhile, and windows say why. Raw it would be wrong."""
    log = RING.log(120)
    raw = states(cached(log, "R001", 30, judged=False), until_s=130)
    found = states(cached(log, "R001", 30, judged=True), until_s=130)
    true = states(log, until_s=130)
    out = found[3][1].network.link_names.index("R001->R002")
    wrong = [view.link_load_bps[out] / LOAD_BPS[0] for k, (_, view) in raw.items() if k > 3]
    assert min(wrong) == 0
    assert max(wrong) > 1.5
    for k, (update, view) in found.items():
        if 3 < k < 12:
            assert view.link_load_bps == pytest.approx(true[k][1].link_load_bps, rel=0.02)
            assert "stale:R001" in update.quality
    assert {int(view.link_measured[out]) for k, (_, view) in found.items() if 3 < k < 12} == {1, 2}


def test_stale_rows_outlast_a_restart() -> None:
    """Stopped and restored after every record: the same states, though intervals reach over three windows."""
    log = cached(RING.log(120), "R001", 30, judged=True)
    whole, taken, restored = NetworkPipeline(), list[Record](), list[Record]()
    parts = NetworkPipeline()
    for record in log:
        taken += [*whole.on_time(event_time_ns(record)), *whole.on_record(record)]
        restored += [*parts.on_time(event_time_ns(record)), *parts.on_record(record)]
        blob, parts = parts.snapshot(), NetworkPipeline()
        parts.restore(blob)
    assert taken
    assert restored == taken


def test_what_a_topology_complains_of_holds_until_there_is_a_newer_one() -> None:
    """Topology is told less often than windows close; an older report that comes late takes nothing back."""
    told = RING.topology(1, T0 + 22 * S)
    unknown = msgspec.structs.replace(told, quality=("neighbours-unknown",))
    known = msgspec.structs.replace(told, observed_at_ns=T0 + 48 * S)
    stale = msgspec.structs.replace(told, observed_at_ns=T0 + 21 * S)
    pipeline, out = NetworkPipeline(), []
    for record in ordered(RING.log(60), [unknown, known]):
        out += [*pipeline.on_time(event_time_ns(record)), *pipeline.on_record(record)]
        if event_time_ns(record) == T0 + 35 * S + 10_000_000:
            out += pipeline.on_record(stale)
            successor = NetworkPipeline()  # and a restart forgets nothing
            successor.restore(pipeline.snapshot())
            pipeline = successor
    out += pipeline.on_time(T0 + 80 * S)
    flagged = [
        u.version - V0 for u in out if isinstance(u, StateUpdate) and "neighbours-unknown:R001" in u.quality
    ]
    assert flagged == [3, 4]


def test_netconf_stands_in_when_snmp_was_never_there() -> None:
    """With NETCONF samples alone, every 5 s, loads are measured from those before the window's end."""
    log = [
        msgspec.structs.replace(r, source="netconf") if isinstance(r, DeviceSample) else r
        for r in RING.log(60)
    ]
    update, view = states(log)[3]
    assert view.link_measured.tolist() == [1] * 8
    assert update.quality == ()


def test_slow_netconf_beside_snmp_changes_nothing() -> None:
    """NETCONF samples every 30 s, with counters of their own, neither delay nor disturb."""
    netconf = [RING.sample(i, T0 + at_s * S, "netconf") for i in range(4) for at_s in (2, 32)]
    with_netconf, without = states(ordered(RING.log(60), netconf)), states(RING.log(60))
    assert {k: v[0] for k, v in with_netconf.items()} == {k: v[0] for k, v in without.items()}


def test_flows_are_scaled_to_what_their_bins_cover() -> None:
    """Bins of 4 s give the same rates; a lost record and an unknown prefix are flagged."""
    log = log_without(FlowReport)
    flows = [RING.flows(i, T0 + k * 4 * S, T0 + (k + 1) * 4 * S) for i in range(4) for k in range(15)]
    odd = msgspec.structs.replace(flows[7].cells[0], destination="192.0.2.0/24")
    flows[7] = msgspec.structs.replace(flows[7], lost_records=2, cells=(*flows[7].cells, odd))
    found = states(ordered(log, flows))
    assert found[2][1].traffic.bps == pytest.approx(np.full(12, FLOW_BPS), rel=2e-3)
    flags = {flag for update, _ in found.values() for flag in update.quality if "missing" not in flag}
    assert {"flows-lost:R000", "flows-unresolved:1"} <= flags


def test_transit_traffic_is_counted_once() -> None:
    """Cells that entered on an interface towards another node were counted where they entered the network."""
    log = []
    for record in RING.log(60):
        if isinstance(record, FlowReport):
            transit = tuple(msgspec.structs.replace(cell, ingress_interface=2) for cell in record.cells)
            outside = tuple(msgspec.structs.replace(cell, ingress_interface=7) for cell in record.cells)
            record = msgspec.structs.replace(record, cells=transit + outside)  # noqa: PLW2901  the log as told
        log.append(record)
    assert states(log)[3][1].traffic.bps == pytest.approx(np.full(12, FLOW_BPS), rel=2e-3)


def test_several_measurements_of_a_path_are_weighted_by_their_packets() -> None:
    """Thirty packets at 2 ms and ten at 6 ms make forty at 3 ms, whether told by name or by address."""
    at_ns = T0 + 25 * S
    parts = [
        PathDelay(destination=token, start_ns=at_ns - S, end_ns=at_ns - k, count=count, mean_s=mean_s)
        for k, (token, count, mean_s) in enumerate([("R001", 30, 2e-3), (loopback(1), 10, 6e-3)])
    ]
    report = DelayReport(
        network="ring",
        device="R000",
        observed_at_ns=at_ns,
        method="stamp",
        direction="round-trip",
        delays=tuple(parts),
    )
    again = msgspec.structs.replace(report, observed_at_ns=at_ns + S)  # read a second time: no news
    view = states(ordered(RING.log(60), [report, again]))[3][1]
    path = view.network.path_index("R000", "R001")
    assert view.delays["stamp-round-trip"].direction == "round-trip"
    assert view.delays["stamp-round-trip"].mean_s[path] == pytest.approx(3e-3, rel=1e-3)
    assert view.delays["stamp-round-trip"].count[path] == pytest.approx(40, rel=0.03)
    assert view.delays["stamp-round-trip"].packet_bits is None


def test_unsynchronised_clocks_are_left_out_and_flagged() -> None:
    """One-way delays by a clock known to be off do not count, and neither do negative ones."""
    log = []
    for record in RING.log(60):
        if isinstance(record, DelayReport) and record.device in ("R000", "R001"):
            bad = {"clock_synchronised": False} if record.device == "R000" else {"mean_s": -1e-3}
            parts = tuple(msgspec.structs.replace(part, **bad) for part in record.delays)
            record = msgspec.structs.replace(record, delays=parts)  # noqa: PLW2901  the log as told
        log.append(record)
    update, view = states(log)[3]
    assert {"clock-unsynchronised:R000", "clock-unsynchronised:R001"} == set(update.quality)
    measured = {view.network.path_name(int(k))[:4] for k in np.flatnonzero(view.delays["rttmon"].count)}
    assert measured == {"R002", "R003"}


def test_what_comes_too_late_is_counted_and_given_back() -> None:
    """A record for a closed window comes out as a dead letter with its bytes; the next state counts it."""
    pipeline, out = NetworkPipeline(), []
    for record in RING.log(40):
        out += [*pipeline.on_time(event_time_ns(record)), *pipeline.on_record(record)]
    late = RING.sample(0, T0 + 3 * S)
    letters = pipeline.on_record(late)
    out += pipeline.on_time(T0 + 80 * S)
    assert [type(letter) for letter in letters] == [DeadLetter]
    assert letters[0].reason.startswith("late")
    assert letters[0].source == "ndt.samples"
    assert decode("ndt.samples", letters[0].payload) == late
    counted = [u.version for u in out if isinstance(u, StateUpdate) and "late:1" in u.quality]
    assert len(counted) == 1
    assert pipeline.metrics["late"] == 1


def test_a_record_from_the_future_is_refused() -> None:
    """A sample stamped an hour ahead is a dead letter and closes no window."""
    log = RING.log(60)
    ahead = RING.sample(0, T0 + 3600 * S)
    pipeline, out = NetworkPipeline(), []
    for record in log:
        out += [*pipeline.on_time(event_time_ns(record)), *pipeline.on_record(record)]
        if record is log[30]:
            letters = pipeline.on_record(ahead)
            assert isinstance(letters[0], DeadLetter)
            assert letters[0].reason.startswith("future")
    out += pipeline.on_time(T0 + 80 * S)
    assert {u.version - V0: u for u in out if isinstance(u, StateUpdate)} == {
        k: v[0] for k, v in states(log).items()
    }


def test_without_topology_there_is_no_state_and_then_there_is() -> None:
    """Windows before the first topology give no update; the first after it is a keyframe."""
    log = log_without(DeviceTopology, LinkAnnotations)
    late_topology = [RING.topology(i, T0 + 21 * S) for i in range(4)]
    found = states(ordered(log, late_topology))
    assert min(found) == 3
    assert found[3][0].keyframe


def test_networks_are_kept_apart() -> None:
    """Two networks in one pipeline give what each gives alone."""
    other = Ring(5, "other")
    pipeline, out = NetworkPipeline(), []
    for record in ordered(RING.log(60), other.log(60)):
        out += [*pipeline.on_time(event_time_ns(record)), *pipeline.on_record(record)]
    out += pipeline.on_time(T0 + 80 * S)
    mine = {u.version - V0: u for u in out if isinstance(u, StateUpdate) and u.network == "ring"}
    assert mine == {k: v[0] for k, v in states(RING.log(60)).items()}
    assert {u.network for u in out if isinstance(u, StateUpdate)} == {"ring", "other"}


def test_settings_that_cannot_be_are_refused() -> None:
    """A window of no length and a lateness beyond the idle time-out are configuration errors."""
    for wrong in ({"window_s": 0.0}, {"lateness_s": 20.0}, {"lateness_s": -1.0}, {"keyframe_every": 0}):
        with pytest.raises(ConfigError):
            PipelineSettings(**wrong)
