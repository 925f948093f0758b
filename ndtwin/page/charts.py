"""ECharts options: the history of a path with its interval band, of a link with what the twin expected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ndtwin.api.history import LinkPoint, PathPoint

MEASURED, PREDICTED, TEXT, FAINT = "#ffc857", "#5ec8f2", "#93a1b1", "#1f2934"
METHOD_COLOURS = {
    "ipfix-on-path": MEASURED,
    "rttmon": "#c792ea",
    "rttmon-round-trip": "#a98fc0",
    "stamp": "#c3e88d",
    "stamp-round-trip": "#8fb35e",
    "disman-ping": "#ff9f6b",
    "juniper-rpm": "#f78fb3",
    "juniper-rpm-one-way": "#fbc6d8",
    "openconfig-probes": "#d4a373",
}
FEW_POINTS = 60  # ten minutes: below that the dots have room
LEAST_SPAN_MS = 120_000  # of the time axis: a single window would stretch over days
Options = dict[str, Any]

# The band is two stacked lines; the tooltip shows them as one interval.
_PATH_TOOLTIP = """(items) => {
  const byName = Object.fromEntries(items.map((i) => [i.seriesName, i.value[1]]));
  const ms = (v) => (v === null || v === undefined ? "–" : v.toFixed(3) + " ms");
  const rows = items.filter((i) => !["low", "interval"].includes(i.seriesName))
    .map((i) => i.marker + i.seriesName + " <b>" + ms(i.value[1]) + "</b>");
  if (byName.low !== undefined && byName.low !== null)
    rows.push("interval <b>" + byName.low.toFixed(3) + " … " + ms(byName.low + byName.interval) + "</b>");
  return new Date(items[0].value[0]).toLocaleTimeString([], {hour12: false}) + "<br>" + rows.join("<br>");
}"""
_LINK_TOOLTIP = """(items) => new Date(items[0].value[0]).toLocaleTimeString([], {hour12: false}) + "<br>" +
  items.filter((i) => i.value[1] !== null)
    .map((i) => i.marker + i.seriesName + " <b>" + i.value[1].toFixed(1) + " %</b>").join("<br>")"""


def path_options(points: list[PathPoint]) -> Options:
    """Measured dots (one colour a method), predicted line, interval band; milliseconds."""
    expected = [[_ms(p), _or_none(p.expected_s)] for p in points]
    low = [[_ms(p), _or_none(p.low_s)] for p in points]
    band = [[_ms(p), _or_none(p.high_s - p.low_s)] for p in points]
    methods = sorted({method for p in points for method in p.measured_s})
    dots = {m: [[_ms(p), _or_none(_on_one_scale(p, m))] for p in points] for m in methods}
    return _chart(
        "ms",
        _PATH_TOOLTIP,
        [
            _line("low", low, lineStyle={"opacity": 0}, stack="band"),
            _line(
                "interval",
                band,
                lineStyle={"opacity": 0},
                stack="band",
                areaStyle={"color": PREDICTED, "opacity": 0.16},
            ),
            _line(
                "predicted",
                expected,
                lineStyle={"width": 1.6, "color": PREDICTED},
                itemStyle={"color": PREDICTED},
            ),
            *(
                {
                    "type": "scatter",
                    "name": m,
                    "data": dots[m],
                    "symbolSize": 6 if len(points) < FEW_POINTS else 3.5,
                    "itemStyle": {"color": METHOD_COLOURS[m]},
                }
                for m in methods
            ),
        ],
        legend=["predicted", *methods],
        times=[_ms(p) for p in points],
    )


def _on_one_scale(point: PathPoint, method: str) -> float:
    """A measurement less what its probe size and direction explain: all methods meet one prediction."""
    measured = point.measured_s.get(method, 0.0)
    expected = point.expected_by_method_s.get(method, 0.0)
    return measured + point.expected_s - expected if measured > 0 and expected > 0 else measured


def link_options(points: list[LinkPoint]) -> Options:
    """Measured utilisation as an area, the twin's as a line; percent of capacity."""
    measured = [[_ms(p), round(100 * p.utilisation, 2)] for p in points]
    modelled = [
        [_ms(p), None if p.predicted_utilisation is None else round(100 * p.predicted_utilisation, 2)]
        for p in points
    ]
    return _chart(
        "%",
        _LINK_TOOLTIP,
        [
            _line(
                "measured",
                measured,
                lineStyle={"width": 1.4, "color": MEASURED},
                itemStyle={"color": MEASURED},
                areaStyle={"color": MEASURED, "opacity": 0.10},
            ),
            _line(
                "predicted",
                modelled,
                lineStyle={"width": 1.4, "color": PREDICTED},
                itemStyle={"color": PREDICTED},
            ),
        ],
        legend=["measured", "predicted"],
        times=[_ms(p) for p in points],
    )


def _chart(unit: str, tooltip: str, series: list[Options], *, legend: list[str], times: list[int]) -> Options:
    axis_text = {"color": TEXT, "fontSize": 10}
    return {
        "animation": False,
        "grid": {"left": 48, "right": 12, "top": 24, "bottom": 20},
        "legend": {
            "data": legend,
            "top": 0,
            "right": 8,
            "itemWidth": 12,
            "itemHeight": 7,
            "textStyle": {"color": TEXT, "fontSize": 10},
            "icon": "roundRect",
        },
        "tooltip": {
            "trigger": "axis",
            "confine": True,
            "backgroundColor": "#18212b",
            "borderColor": "#2c3846",
            "textStyle": {"color": "#d7dee7", "fontSize": 11},
            ":formatter": tooltip,
        },
        "xAxis": {
            "type": "time",
            "min": min(times[0], times[-1] - LEAST_SPAN_MS) if times else None,
            "axisLabel": {**axis_text, "hideOverlap": True},
            "axisLine": {"lineStyle": {"color": "#2c3846"}},
            "splitNumber": 4,
        },
        "yAxis": {
            "type": "value",
            "scale": unit == "ms",
            "min": 0 if unit == "%" else None,
            "axisLabel": {**axis_text, "formatter": f"{{value}} {unit}"},
            "splitLine": {"lineStyle": {"color": FAINT}},
            "splitNumber": 3,
        },
        "series": series,
    }


def _line(name: str, data: Sequence[Sequence[float | None]], **style: Any) -> Options:
    return {"type": "line", "name": name, "data": data, "showSymbol": len(data) == 1, "silent": True, **style}


def _ms(point: PathPoint | LinkPoint) -> int:
    return point.end_ns // 1_000_000


def _or_none(seconds: float) -> float | None:
    return round(seconds * 1e3, 5) if seconds > 0 else None
