"""The report of a loop."""

from __future__ import annotations

import msgspec
import pytest
from rehearsal import COMPONENTS, Rehearsal, feed, heartbeats

from ndtwin.api.store import Store
from ndtwin.report import loop_report

KEYS = {
    "windows_closed",
    "paths_total",
    "paths_measured",
    "paths_predicted",
    "ape_median",
    "ape_p90",
    "close_to_prediction_p99_s",
    "components",
    "restarts",
}


def test_a_whole_loop() -> None:
    """All paths measured and predicted, a small error, every component running."""
    store = Store()
    for state, prediction in Rehearsal().windows(8):
        at_ms = state.window_end_ns // 1_000_000
        store.apply(state, timestamp_ms=at_ms)
        store.apply(prediction, timestamp_ms=at_ms + 120)
    feed(store, heartbeats(5, state="running"))
    report = loop_report(store, now_ns=6)
    assert report.keys() == KEYS
    assert report["windows_closed"] == 8
    assert report["paths_total"] == report["paths_measured"] == report["paths_predicted"] == 182
    assert 0 < report["ape_median"] < report["ape_p90"] < 5
    assert report["close_to_prediction_p99_s"] == pytest.approx(0.12)
    assert report["components"] == dict.fromkeys(COMPONENTS, "running")
    assert report["restarts"] == 0
    assert msgspec.json.decode(msgspec.json.encode(report)) == report


def test_nothing_seen() -> None:
    """No figure is invented: counts are zero and the rest is null."""
    report = loop_report(Store(), now_ns=0)
    assert report.keys() == KEYS
    assert report["windows_closed"] == report["paths_total"] == report["restarts"] == 0
    assert report["ape_median"] is report["ape_p90"] is report["close_to_prediction_p99_s"] is None
    assert report["components"] == {}


def test_missing_predictions_and_silent_components_show() -> None:
    """States alone: nothing predicted, no error, and a component that fell silent is stale."""
    store = Store()
    feed(store, [state for state, _ in Rehearsal().windows(2)])
    feed(store, heartbeats(0, names=("twin",)))
    report = loop_report(store, now_ns=11_000_000_000)
    assert (report["paths_measured"], report["paths_predicted"]) == (182, 0)
    assert report["ape_median"] is None
    assert report["components"] == {"twin": "stale"}


def test_the_error_of_a_faulty_link_is_in_the_tail() -> None:
    """Extra delay on one cable lifts the worst tenth, not the median."""
    quiet, faulty = Store(), Store()
    for window in Rehearsal().windows(3):
        feed(quiet, window)
    for window in Rehearsal(extra_delay_s={"IL->PA": 0.003, "PA->IL": 0.003}).windows(3):  # 29 paths
        feed(faulty, window)
    one, other = loop_report(quiet, now_ns=0), loop_report(faulty, now_ns=0)
    assert other["ape_p90"] > 5 * one["ape_p90"]
    assert other["ape_median"] < 3
