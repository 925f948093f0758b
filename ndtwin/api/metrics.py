"""``/metrics`` for Prometheus: read from the store when scraped, so that nothing is counted twice."""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ndtwin.api.frames import Frame
from ndtwin.api.history import NetworkHistory
from ndtwin.api.store import Store
from ndtwin.api.views import OK_STATES

QUANTILES = (0.5, 0.9, 0.99)


class StoreCollector(Collector):
    """The store as metric families."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def describe(self) -> Iterable[Metric]:
        """Nothing: families depend on what the store holds."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """All families, as of now."""
        histories = [self._store.network(name) for name in self._store.networks()]
        yield from self._of_networks(histories)
        yield from self._of_paths(histories)
        yield from self._of_links(histories)
        yield from self._of_alerts()
        yield from self._of_components(time.time_ns())
        yield from self._of_records()

    def _of_networks(self, histories: list[NetworkHistory]) -> Iterable[Metric]:
        windows = CounterMetricFamily(
            "ndtwin_windows", "Windows closed since the API listens.", labels=["network"]
        )
        end = GaugeMetricFamily(
            "ndtwin_window_end_seconds", "End of the newest window, Unix time.", labels=["network"]
        )
        latency = _quantiles(
            "ndtwin_close_to_prediction_seconds", "From a state's publication to its prediction's."
        )
        for history in histories:
            windows.add_metric([history.name], history.windows_seen)
            if history.newest is not None:
                end.add_metric([history.name], history.newest.end_ns / 1e9)
            _add_quantiles(latency, history.name, np.array(list(history.latencies_s)))
        yield from (windows, end, latency)

    def _of_paths(self, histories: list[NetworkHistory]) -> Iterable[Metric]:
        paths = GaugeMetricFamily("ndtwin_paths", "Paths of the window shown.", labels=["network", "what"])
        residual = _quantiles("ndtwin_residual_abs", "Quantiles over paths of |ln(measured / expected)|.")
        outside = GaugeMetricFamily(
            "ndtwin_paths_outside_interval", "Paths measured outside the interval.", labels=["network"]
        )
        for frame in _shown(histories):
            counts = {"total": frame.network.path_count, "measured": int((frame.measured_s > 0).sum())}
            counts["predicted"] = (
                int((frame.predicted.mean_s > 0).sum()) if frame.predicted is not None else 0
            )
            for what, count in counts.items():
                paths.add_metric([frame.name, what], count)
            _add_quantiles(residual, frame.name, np.abs(frame.residual[frame.comparable]))
            outside.add_metric([frame.name], int((np.abs(frame.score) > 1).sum()))
        yield from (paths, residual, outside)

    def _of_links(self, histories: list[NetworkHistory]) -> Iterable[Metric]:
        labels = ["network", "link"]
        utilisation = GaugeMetricFamily(
            "ndtwin_link_utilisation_ratio", "Measured load over capacity.", labels=labels
        )
        up = GaugeMetricFamily("ndtwin_link_up", "1 when the link is up.", labels=labels)
        for frame in _shown(histories):
            for i, name in enumerate(frame.network.link_names):
                utilisation.add_metric([frame.name, name], float(frame.utilisation[i]))
                up.add_metric([frame.name, name], float(frame.network.links[i].up))
        yield from (utilisation, up)

    def _of_alerts(self) -> Iterable[Metric]:
        alerts = GaugeMetricFamily("ndtwin_alerts", "Alerts by state.", labels=["state"])
        states = [life.alert.state for life in self._store.alerts()]
        for state in ("pending", "firing", "acknowledged", "resolved"):
            alerts.add_metric([state], states.count(state))
        yield alerts

    def _of_components(self, now_ns: int) -> Iterable[Metric]:
        up = GaugeMetricFamily(
            "ndtwin_component_up", "1 when a component's heartbeat is fresh and well.", labels=["component"]
        )
        restarts = CounterMetricFamily(
            "ndtwin_component_restarts", "Processes replaced.", labels=["component"]
        )
        figures = GaugeMetricFamily(
            "ndtwin_component_figure",
            "What a component counts of itself, from its newest heartbeat.",
            labels=["component", "figure"],
        )
        for component in self._store.components(now_ns):
            up.add_metric([component.name], float(component.state in OK_STATES))
            restarts.add_metric([component.name], component.restarts)
            for name, value in component.metrics.items():
                figures.add_metric([component.name, name], value)
        yield from (up, restarts, figures)

    def _of_records(self) -> Iterable[Metric]:
        counters = self._store.counters()
        families = (("records", "type"), ("refused", "type"), ("dead_letters", "source"))
        for name, label in families:
            family = CounterMetricFamily(
                f"ndtwin_api_{name}", f"Consumer of the API: {name} by {label}.", labels=[label]
            )
            for key, count in counters[name].items():
                family.add_metric([key], count)
            yield family
        delay = GaugeMetricFamily(
            "ndtwin_api_consumer_delay_seconds",
            "Age of the newest message when it was read.",
            labels=["topic"],
        )
        for topic, delay_s in self._store.delays().items():
            delay.add_metric([topic], delay_s)
        yield delay


class RequestCounter:
    """ASGI middleware that counts requests by route and status; a stream counts when it begins."""

    def __init__(self, app: ASGIApp, *, registry: CollectorRegistry) -> None:
        self._app = app
        self._requests = Counter(
            "ndtwin_api_requests", "API requests.", ["method", "route", "status"], registry=registry
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on; note the status on its way out."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "other")
                self._requests.labels(scope["method"], route, str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, counting)


def exposition(registry: CollectorRegistry) -> bytes:
    """The text format."""
    return generate_latest(registry)


def _shown(histories: list[NetworkHistory]) -> list[Frame]:
    return [frame for frame in (history.shown for history in histories) if frame is not None]


def _quantiles(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=["network", "quantile"])


def _add_quantiles(family: GaugeMetricFamily, network: str, values: np.ndarray) -> None:
    if len(values):
        for q in QUANTILES:
            family.add_metric([network, str(q)], float(np.quantile(values, q)))
