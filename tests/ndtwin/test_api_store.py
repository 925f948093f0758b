"""The store: windows joined by version, alerts with their life, components by their heartbeats."""

from __future__ import annotations

from typing import get_args

import msgspec
import numpy as np
import pytest
from rehearsal import COMPONENTS, WINDOW_NS, Rehearsal, event, feed, heartbeats, link_alert

from ndtwin.api import history as history_module
from ndtwin.api.frames import PREFERENCE
from ndtwin.api.store import Store, UnknownName
from ndtwin.api.views import state_out
from ndtwin.page.charts import METHOD_COLOURS
from stream.codec import decode, encode
from twin.errors import DecodeError
from twin.graph_view import label_of
from twin.packing import pack_integers, pack_magnitudes
from twin.records import DeadLetter, DelayMethod, Direction, Prediction, QueuePlane, StateUpdate

S = 1_000_000_000


def test_a_window_shows_its_prediction_whichever_came_first() -> None:
    """State then prediction, or prediction then state, give the same joined window."""
    (state, prediction), *_ = Rehearsal().windows(1)
    one, other = Store(), Store()
    feed(one, [state, prediction])
    feed(other, [prediction, state])
    for store in (one, other):
        frame = store.network("nsfnet").shown
        assert frame is not None
        assert frame.version == state.version == prediction.state_version
        assert frame.predicted is not None
        assert frame.predicted.model == "mg1k"
        assert int(frame.comparable.sum()) == 182


def test_links_show_what_their_classes_drop() -> None:
    """By class where the device tells of its queues; elsewhere the interface's drops alone."""
    state, _ = Rehearsal().window()
    drops = pack_magnitudes(np.arange(42.0))
    plane = QueuePlane(
        classes=("voice",),
        link=pack_integers(np.array([5], np.int16)),
        name=pack_integers(np.array([0], np.int16)),
        sent_bps=pack_magnitudes(np.array([1e6])),
        drops_pps=pack_magnitudes(np.array([5.0])),
        depth_octets=pack_magnitudes(np.array([300.0])),
    )
    store = Store()
    feed(store, [msgspec.structs.replace(state, link_drops_pps=drops, queues=plane)])
    frame = store.network("nsfnet").newest
    assert frame is not None
    links = state_out(frame).links
    assert [link.drops_pps for link in links] == pytest.approx(list(range(42)), rel=1e-3)
    assert [len(link.queues) for link in links] == [k == 5 for k in range(42)]
    (queue,) = links[5].queues
    assert (queue.name, queue.sent_bps) == ("voice", pytest.approx(1e6, rel=1e-3))
    assert (queue.drops_pps, queue.depth_octets) == (pytest.approx(5, rel=1e-3), pytest.approx(300, rel=1e-3))


def test_what_travels_as_bytes_shows_the_same() -> None:
    """A window that went through the codec equals the one that did not."""
    state, prediction = Rehearsal().window()
    direct, decoded = Store(), Store()
    feed(direct, [state, prediction])
    feed(decoded, [decode("ndt.state", encode(state)), decode("ndt.predictions", encode(prediction))])
    frames = [store.network("nsfnet").shown for store in (direct, decoded)]
    assert frames[0] is not None
    assert frames[1] is not None
    assert np.array_equal(frames[0].residual, frames[1].residual)


def test_a_window_seen_twice_counts_once() -> None:
    """A rewind or a redelivery changes neither the history nor the revision."""
    store, windows = Store(), list(Rehearsal().windows(3))
    for state, prediction in windows:
        feed(store, [state, prediction])
    revision = store.revision
    for state, prediction in windows:
        feed(store, [state, prediction])
    assert store.network("nsfnet").windows_seen == 3
    assert store.revision == revision


def test_deltas_before_the_first_keyframe_wait() -> None:
    """A reader that begins between keyframes shows nothing until one comes, and says what it waits for."""
    store, windows = Store(), [state for state, _ in Rehearsal(keyframe_every=6).windows(7)]
    feed(store, windows[1:6])
    assert store.network("nsfnet").newest is None
    assert "keyframe" in store.network("nsfnet").waiting_for
    feed(store, windows[6:])
    assert store.network("nsfnet").waiting_for == ""
    newest = store.network("nsfnet").newest
    assert newest is not None
    assert newest.version == windows[6].version


def test_the_shown_window_waits_for_its_prediction_but_not_for_ever() -> None:
    """The newest predicted window is shown; when predictions lag more than one window, the newest is."""
    store, windows = Store(), list(Rehearsal().windows(3))
    feed(store, [*windows[0], windows[1][0]])
    shown = store.network("nsfnet").shown
    assert shown is not None
    assert shown.version == windows[0][0].version
    feed(store, [windows[2][0]])
    shown = store.network("nsfnet").shown
    assert shown is not None
    assert shown.version == windows[2][0].version
    assert shown.predicted is None


def test_residuals_name_the_faulty_link() -> None:
    """Extra delay on a link puts exactly the paths over it outside their interval."""
    rehearsal, store = Rehearsal(extra_delay_s={"CA1->UT": 0.003}), Store()
    feed(store, rehearsal.window())
    frame = store.network("nsfnet").shown
    assert frame is not None
    over = frame.network.paths.hop_path[frame.network.paths.links == frame.link_index["CA1->UT"]]
    assert set(np.flatnonzero(frame.score > 1.5)) == set(over)


def test_probes_of_another_size_agree_with_the_twin_too() -> None:
    """Small probes see less delay than the traffic; compared like with like, every method fits."""
    store = Store()
    feed(store, Rehearsal().window())
    frame = store.network("nsfnet").shown
    assert frame is not None
    assert frame.methods == ("ipfix-on-path", "rttmon")
    for method in frame.methods:
        apart = frame.delays[method].mean_s / frame.expected_by_method[method] - 1
        assert abs(np.median(apart)) < 0.01
    assert (frame.expected_by_method["rttmon"] < frame.expected_s).all()


def test_memory_is_bounded_by_windows_and_by_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ring keeps the number of windows asked for, fewer where a network has very many paths."""
    few = Store(history_windows=15)
    for state, _ in Rehearsal().windows(20):
        feed(few, [state])
    assert len(few.network("nsfnet").frames) == 15
    monkeypatch.setattr(history_module, "CELL_BUDGET", 182 * 13)
    bounded = Store(history_windows=360)
    for state, _ in Rehearsal().windows(20):
        feed(bounded, [state])
    assert len(bounded.network("nsfnet").frames) == 13
    assert bounded.network("nsfnet").windows_seen == 20


def test_history_of_a_path_and_a_link() -> None:
    """One point a window, oldest first, with every method's measurement inside a sensible interval."""
    store = Store()
    for window in Rehearsal().windows(5):
        feed(store, window)
    points = store.network("nsfnet").path_points("WA", "NY")
    assert [p.version for p in points] == [f.version for f in store.network("nsfnet").frames]
    assert all(p.low_s < p.expected_s < p.high_s for p in points)
    assert all(set(p.measured_s) == {"ipfix-on-path", "rttmon"} for p in points)
    assert store.network("nsfnet").path_points("WA", "nowhere") == []
    links = store.network("nsfnet").link_points("WA->CA1")
    assert all(0 < p.utilisation < 1 and p.predicted_utilisation is not None for p in links)
    assert len(links) == 5


def test_latency_from_close_to_prediction_is_told_by_kafka_timestamps() -> None:
    """The time between the two messages of a version, whichever came first."""
    store, ((state, prediction), (late_state, early)) = Store(), tuple(Rehearsal().windows(2))
    store.apply(state, timestamp_ms=1_000)
    store.apply(prediction, timestamp_ms=1_250)
    store.apply(early, timestamp_ms=11_400)
    store.apply(late_state, timestamp_ms=11_000)
    assert list(store.network("nsfnet").latencies_s) == [0.25, 0.4]


def test_a_damaged_prediction_is_refused_and_counted() -> None:
    """A prediction whose arrays do not fit its state raises DecodeError and leaves the window as it was."""
    state, prediction = Rehearsal().window()
    other = Rehearsal(name="nsfnet").window()[1]
    store = Store()
    feed(store, [state])
    for bad in (
        msgspec.structs.replace(prediction, mean_s=b"not deflated"),
        msgspec.structs.replace(other, mean_s=prediction.link_utilisation),
    ):
        with pytest.raises(DecodeError):
            store.apply(bad)
    assert store.counters()["refused"]["Prediction"] == 2
    frame = store.network("nsfnet").shown
    assert frame is not None
    assert frame.predicted is None


def test_alerts_keep_their_life_and_stand_firing_first() -> None:
    """Each state is entered once; an older record does not overwrite a newer one."""
    store = Store()
    for state, at in (("pending", 10), ("pending", 20), ("firing", 30), ("firing", 40), ("resolved", 90)):
        store.apply(link_alert(state, at * S, starts_at_ns=10 * S))
    store.apply(link_alert("firing", 35 * S, starts_at_ns=10 * S))
    firing = msgspec.structs.replace(link_alert("firing", 95 * S, starts_at_ns=95 * S), fingerprint="new")
    store.apply(firing)
    first, second = store.alerts()
    assert first.alert.fingerprint == "new"
    assert second.transitions == (("pending", 10 * S), ("firing", 30 * S), ("resolved", 90 * S))
    assert [e.text.split(":")[0] for e in store.journal()] == ["firing", "resolved", "firing", "pending"]


@pytest.mark.parametrize(
    ("beats", "now_s", "state", "restarts"),
    [
        ([(1, 0, "running")], 9, "running", 0),
        ([(1, 0, "running")], 11, "stale", 0),
        ([(1, 0, "stopped")], 11, "stopped", 0),
        ([(1, 0, "running"), (2, 1, "degraded")], 2, "degraded", 0),
        ([(1, 0, "running"), (2, 5, "starting"), (2, 20, "running")], 21, "running", 1),
        ([(1, 0, "running"), (2, 20, "running"), (3, 40, "running")], 41, "running", 2),
    ],
)
def test_component_health(beats: list[tuple[int, int, str]], now_s: int, state: str, restarts: int) -> None:
    """A component is as its worst live worker; silence makes it stale; a replaced process is a restart."""
    store = Store()
    for pid, at_s, said in beats:
        feed(store, heartbeats(at_s * S, pid=pid, state=said, names=("twin",)))
    (component,) = store.components(now_s * S)
    assert (component.state, component.restarts) == (state, restarts)
    assert store.restarts(now_s * S) == restarts


def test_components_stand_in_the_order_of_the_loop() -> None:
    """Whatever order they were heard in; others follow by name."""
    store = Store()
    feed(store, heartbeats(0, names=("zeta", *reversed(COMPONENTS))))
    assert [c.name for c in store.components(0)] == [*COMPONENTS, "zeta"]


def test_events_and_dead_letters_reach_the_journal_once() -> None:
    """The newest first, and a redelivered record is told once."""
    store = Store()
    letter = DeadLetter(source="ndt.flows", payload=b"\x00", reason="not JSON", observed_at_ns=3 * S)
    feed(store, [event(1 * S), letter, event(1 * S), letter])
    assert [e.text for e in store.journal()] == [
        "dead letter from ndt.flows: not JSON",
        "MI eth2: link-down",
    ]


def test_unknown_names_list_the_known_ones() -> None:
    """Networks and alerts that are not there."""
    store = Store()
    with pytest.raises(UnknownName, match="none yet: the first window has not closed"):
        store.network("nsfnet")
    feed(store, Rehearsal().window())
    with pytest.raises(UnknownName, match="unknown network 'foo': known are nsfnet"):
        store.network("foo")
    with pytest.raises(UnknownName, match="known are none"):
        store.alert("foo")


def test_versions_of_another_window_length_are_taken_by_their_time() -> None:
    """After the window length changed, smaller versions are newer: windows are ordered by their end."""
    store, rehearsal = Store(), Rehearsal()
    state, prediction = rehearsal.window()
    feed(store, [state, prediction])
    longer: StateUpdate = msgspec.structs.replace(
        rehearsal.window()[0],
        version=state.version // 2,
        window_end_ns=state.window_end_ns + 2 * WINDOW_NS,
        topology=state.topology,
    )
    renamed: Prediction = msgspec.structs.replace(prediction, state_version=longer.version)
    feed(store, [longer, renamed])
    shown = store.network("nsfnet").shown
    assert shown is not None
    assert shown.version == state.version // 2
    assert shown.predicted is not None


def test_every_kind_of_measurement_has_its_place_and_its_colour() -> None:
    """A method that the records know is never left out of the API or of a chart."""
    kinds = {label_of(m, d) for m in get_args(DelayMethod) for d in get_args(Direction)}
    assert kinds <= set(PREFERENCE) == set(METHOD_COLOURS)
    assert len(set(PREFERENCE)) == len(PREFERENCE)
