"""One viewer's page: builds the elements once, then pushes to each what changed. Keeps what the viewer chose.

A timer looks at the store's revision twice a second; only when it moved (or every two seconds, for the
components' health, which changes by silence) is anything computed, and only what differs is sent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from nicegui import ui

from ndtwin.api.store import Store
from ndtwin.page import charts, payload
from ndtwin.page.elements import AlertList, ClassQueues, Journal, PathTable, TopBar, TopologyMap
from ndtwin.page.payload import Choice, Payload

LOOK_EVERY_S = 0.5
HEALTH_EVERY_S = 2.0
NOT_YET = "waiting for the first window"


class Dashboard:
    """See the module's docstring."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._choice = payload.default_choice(store, Choice(opened_ms=time.time_ns() // 1_000_000))
        self._revision = store.revision
        self._looked_s = time.monotonic()
        self._build()
        self._show_charts()
        ui.timer(LOOK_EVERY_S, self._look, immediate=False)

    def _build(self) -> None:
        store, choice, now_ns = self._store, self._choice, time.time_ns()
        pick = {"pick": self._pick}
        with ui.element("main").classes("page"):
            self._top = TopBar(payload.top_bar(store, choice, now_ns), {"network": self._network})
            with _panel("map-panel", "Network", "load on the wire, both directions"):
                self._map = TopologyMap(payload.topology_map(store, choice, now_ns), pick)
            with _panel("alert-panel", "Alerts", "suspects ranked by the twin"):
                self._alerts = AlertList(payload.alert_list(store, choice), pick)
            with _panel("journal-panel", "Journal", ""):
                self._journal = Journal(payload.journal(store), {})
            with _panel("table-panel", "Paths", "measured beside predicted"):
                more = {"clear": self._clear, "search": self._search}
                self._table = PathTable(payload.path_table(store, choice), {**pick, **more})
            with _panel("path-panel", "Path", NOT_YET) as self._path_title:
                self._path_chart = ui.echart(charts.path_options([]))
            link_panel = _panel("link-panel", "Link", NOT_YET)
            with link_panel as self._link_title, ui.element("div").classes("beside"):
                self._link_chart = ui.echart(charts.link_options([]))
                self._queues = ClassQueues(payload.class_queues(store, choice), {})

    # ------------------------------------------------------------------------------------------- pushing

    def _look(self) -> None:
        revision = self._store.revision
        if revision != self._revision:
            self._revision = revision
            self._choice = payload.default_choice(self._store, self._choice)
            self._show_all()
        elif time.monotonic() - self._looked_s > HEALTH_EVERY_S:
            self._show_top()

    def _show_all(self) -> None:
        self._show_top()
        self._alerts.show(payload.alert_list(self._store, self._choice))
        self._journal.show(payload.journal(self._store))
        self._show_chosen()

    def _show_top(self) -> None:
        self._looked_s, now_ns = time.monotonic(), time.time_ns()
        self._top.show(payload.top_bar(self._store, self._choice, now_ns))
        self._map.show(payload.topology_map(self._store, self._choice, now_ns))

    def _show_chosen(self) -> None:
        self._table.show(payload.path_table(self._store, self._choice))
        self._show_charts()

    def _show_charts(self) -> None:
        history = payload.network_of(self._store, self._choice)
        if history is None:
            return
        source, _, destination = self._choice.path.partition("->")
        link = payload.link_to_show(self._store, self._choice)
        self._path_title.set_text(f"{source} → {destination}" if destination else "choose a path")
        self._link_title.set_text(link.replace("->", " → ") or "choose a link")
        _chart(self._path_chart, charts.path_options(history.path_points(source, destination)))
        _chart(self._link_chart, charts.link_options(history.link_points(link)))
        self._queues.show(payload.class_queues(self._store, self._choice))

    # ------------------------------------------------------------------------------------------ choosing

    def _pick(self, what: Payload) -> None:
        self._choice = self._choice.picked(what)
        self._show_top()
        self._show_chosen()

    def _clear(self, _what: Payload) -> None:
        self._pick({})

    def _search(self, what: Payload) -> None:
        query = str(what.get("query", "")).strip().lower().replace("→", "->")
        self._choice = replace(self._choice, query=query)
        self._table.show(payload.path_table(self._store, self._choice))

    def _network(self, what: Payload) -> None:
        self._choice = Choice(network=str(what.get("network", "")), opened_ms=self._choice.opened_ms)
        self._choice = payload.default_choice(self._store, self._choice)
        self._show_all()


@contextmanager
def _panel(css: str, title: str, subtitle: str) -> Iterator[ui.label]:
    """A framed part of the page; gives the label beside its title."""
    with ui.element("section").classes(f"panel {css}"):
        with ui.element("div").classes("title"):
            ui.label(title).classes("name")
            aside = ui.label(subtitle).classes("aside")
        yield aside


def _chart(chart: ui.echart, options: charts.Options) -> None:
    if chart.options != options:
        chart.options.clear()
        chart.options.update(options)
        chart.update()
