"""What the page shows, without a browser."""

from __future__ import annotations

import msgspec
import pytest
from rehearsal import Rehearsal, feed, heartbeats, link_alert, with_link_down

from ndtwin.api.store import Store
from ndtwin.page import charts, payload
from ndtwin.page.payload import Choice
from twin.topologies import nsfnet, power_law

S = 1_000_000_000


@pytest.fixture
def store() -> Store:
    """Three windows of NSFNET with a fault and its alert."""
    store = Store()
    for window in Rehearsal(extra_delay_s={"CA1->UT": 0.003}).windows(3):
        feed(store, window)
    feed(store, [*heartbeats(0), link_alert("firing", 5 * S, starts_at_ns=S)])
    return store


def test_everything_is_plain_json(store: Store) -> None:
    """All payloads survive JSON: no numpy scalar, no NaN, no infinity."""
    choice = payload.default_choice(store, Choice())
    history = store.network("nsfnet")
    for data in (
        payload.top_bar(store, choice, 0),
        payload.topology_map(store, choice, 0),
        payload.path_table(store, choice),
        payload.alert_list(store, choice),
        payload.journal(store),
        charts.path_options(history.path_points("WA", "NY")),
        charts.link_options(history.link_points("WA->CA1")),
    ):
        assert msgspec.json.decode(msgspec.json.encode(data)) == data


def test_the_table_shows_every_path_of_a_small_network(store: Store) -> None:
    """182 rows, the worst first; those of an open alert are marked."""
    table = payload.path_table(store, Choice())
    assert (len(table["rows"]), table["total"], table["cut"]) == (182, 182, False)
    alerted = {row["path"] for row in table["rows"] if row["alerted"]}
    assert alerted == set(link_alert("firing", 0, starts_at_ns=0).paths)
    assert abs(table["rows"][0]["score"]) > abs(table["rows"][-1]["score"])


def test_the_table_of_a_large_network_is_cut_to_the_worst_and_searched_by_the_server() -> None:
    """1,000 of 3,540 rows travel; a search finds paths that are not among them."""
    store = Store()
    feed(store, Rehearsal(network=power_law(60, seed=2).network(), name="big").window())
    table = payload.path_table(store, Choice())
    assert (len(table["rows"]), table["total"], table["cut"]) == (1000, 3540, True)
    sent = {row["path"] for row in table["rows"]}
    missing = next(name for name in (f"n00->n{i:02d}" for i in range(1, 60)) if name not in sent)
    found = payload.path_table(store, Choice(query=missing.lower()))
    assert [row["path"] for row in found["rows"]] == [missing]


def test_a_click_on_a_link_or_node_filters_and_a_second_click_clears(store: Store) -> None:
    """A link keeps the paths that cross it, a node those that end there; a path does not filter."""
    link = Choice().picked({"link": "CA1->UT"})
    table = payload.path_table(store, link)
    assert 0 < len(table["rows"]) < 182
    assert table["filter"] == "CA1->UT"
    node = link.picked({"node": "NY"})
    assert (node.link, node.node) == ("", "NY")
    assert {"NY"} <= {
        end for row in payload.path_table(store, node)["rows"] for end in row["path"].split("->")
    }
    assert len(payload.path_table(store, node)["rows"]) == 26
    assert node.picked({"node": "NY"}) == Choice()
    followed = node.picked({"path": "WA->NY"})
    assert (followed.node, followed.path) == ("NY", "WA->NY")


def test_suspects_of_open_alerts_stand_on_the_map(store: Store) -> None:
    """With their probability, until the alert is resolved."""

    def marked() -> dict[str, float]:
        shown = payload.topology_map(store, Choice(), 0)
        return {x["name"]: x["suspect"] for x in (*shown["links"], *shown["nodes"]) if x["suspect"]}

    assert marked() == {"CA1->UT": 0.86, "UT->CO": 0.09, "UT": 0.05}
    assert payload.link_to_show(store, Choice()) == "CA1->UT"
    feed(store, [link_alert("resolved", 9 * S, starts_at_ns=S)])
    assert marked() == {}


def test_the_verdict_names_the_worst_there_is() -> None:
    """Waiting, no prediction, all well, an alert that may fire, one that does, a dead component."""
    store, (state, prediction) = Store(), Rehearsal().window()
    verdicts = []
    for records, now_s in (
        ([], 1),
        ([*heartbeats(S)], 1),
        ([state], 1),
        ([prediction], 1),
        ([link_alert("pending", 4 * S, starts_at_ns=S)], 1),
        ([link_alert("firing", 5 * S, starts_at_ns=S)], 1),
        ([], 30),
    ):
        feed(store, records)
        top = payload.top_bar(store, Choice(), now_s * S)
        verdicts.append((top["level"], top["verdict"].partition(",")[0]))
    assert verdicts == [
        ("wait", "waiting"),
        ("wait", "waiting"),
        ("warn", "no prediction"),
        ("ok", "all well"),
        ("warn", "alerts: 1 pending"),
        ("bad", "1 alert firing"),
        ("bad", "broker stale"),
    ]


def test_before_the_first_window_the_page_says_what_it_waits_for() -> None:
    """Nothing heard; components heard; a keyframe awaited."""
    store = Store()
    assert "first heartbeat" in payload.topology_map(store, Choice(), S)["waiting"]
    feed(store, heartbeats(S, names=("collect",)))
    shown = payload.topology_map(store, Choice(), 13 * S)
    assert "first window" in shown["waiting"]
    assert shown["hints"] == ["collect: stale for 10 s"]
    assert shown["since_ms"] == 1000
    rehearsal = Rehearsal()
    rehearsal.window()
    feed(store, [rehearsal.window()[0]])
    assert "keyframe" in payload.topology_map(store, Choice(), 13 * S)["waiting"]


def test_a_link_that_is_down_and_a_silent_device_are_marked() -> None:
    """From the topology and from the quality flags."""
    store = Store()
    state, _ = Rehearsal(network=with_link_down(nsfnet().network(), "WA->CA1")).window()
    quality = ("late:4", "silent:TX", *(f"flows-missing:{node}" for node in ("CO", "IL", "MI", "NE", "UT")))
    feed(store, [msgspec.structs.replace(state, quality=quality)])
    shown = payload.topology_map(store, Choice(), 0)
    assert [link["name"] for link in shown["links"] if not link["up"]] == ["WA->CA1"]
    assert [node["name"] for node in shown["nodes"] if node["silent"]] == ["TX"]
    assert shown["flags"] == ["late: 4", "silent: TX", "flows-missing: CO, IL, MI +2"]


def test_the_chosen_path_stays_chosen() -> None:
    """The first choice is the worst path of the first predicted window; later windows do not change it."""
    store, rehearsal = Store(), Rehearsal()
    assert payload.default_choice(store, Choice()).path == ""
    feed(store, rehearsal.window())
    choice = payload.default_choice(store, Choice())
    assert choice.path == payload.path_table(store, Choice())["rows"][0]["path"]
    feed(store, rehearsal.window())
    assert payload.default_choice(store, choice) == choice


def test_charts_show_all_methods_on_one_scale(store: Store) -> None:
    """Small probes see less delay than the traffic; the chart moves them onto the prediction's scale."""
    points = store.network("nsfnet").path_points("TX", "CA2")
    options = charts.path_options(points)
    series = {s["name"]: [value for _, value in s["data"]] for s in options["series"]}
    assert series["rttmon"] == pytest.approx(series["ipfix-on-path"], rel=0.15)
    assert [p.measured_s["rttmon"] for p in points] < [p.measured_s["ipfix-on-path"] * 0.95 for p in points]
    assert all(low < mean for low, mean in zip(series["low"], series["predicted"], strict=True))


def test_after_one_window_the_charts_span_minutes(store: Store) -> None:
    """A single point would stretch an axis of time over days, and a line of one point would be invisible."""
    points = store.network("nsfnet").path_points("WA", "NY")[-1:]
    options = charts.path_options(points)
    assert points[0].end_ns // 1_000_000 - options["xAxis"]["min"] == 120_000
    assert all(line["showSymbol"] for line in options["series"] if line["type"] == "line")
    assert charts.link_options([])["xAxis"]["min"] is None
