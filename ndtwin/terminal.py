"""What `ndtwin up` shows in a terminal: one table of components, one line of figures, the last events."""

from __future__ import annotations

import time

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ndtwin.api.health import EXPECTED
from ndtwin.loop import Loop

_COLOURS = {"running": "green", "starting": "yellow", "degraded": "yellow", "stopped": "red", "stale": "red"}
_LABELS = {
    "broker": "Kafka-protocol broker",
    "lab": "simulated devices",
    "collect": "SNMP, NETCONF, IPFIX",
    "stream": "graph state (Faust)",
    "twin": "delay predictions",
    "detect": "divergence and alerts (Faust)",
    "archive": "Parquet archive",
    "serve": "API and page",
    "sink": "InfluxDB sink",
}


def screen(loop: Loop) -> Group:
    """The whole picture, drawn anew each time."""
    settings = loop.settings
    return Group(
        Text.assemble(
            ("ndtwin ", "bold"), f"· page http://{settings.serve.host}:{settings.serve.port} · Ctrl-C stops"
        ),
        _components(loop),
        Text(_figures(loop)),
        Panel(_events(loop), title="events", title_align="left", border_style="dim"),
    )


def _components(loop: Loop) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("component", "state", "what it does", "process", "restarts", "says"):
        table.add_column(column)
    health = {component.name: component for component in loop.store.components(time.time_ns())}
    for name in dict.fromkeys((*EXPECTED, *loop.supervisor.children)):
        child, known = loop.supervisor.children.get(name), health.get(name)
        if child is None and known is None:
            continue
        state = known.state if known else "starting"
        pid = child.pid if child else (loop.supervisor.broker.pid if loop.supervisor.broker else 0)
        restarts = child.restarts if child else loop.supervisor.broker_restarts
        says = known.detail if known else ""
        table.add_row(
            name,
            Text(state, _COLOURS.get(state, "")),
            _LABELS.get(name, ""),
            str(pid or "-"),
            str(restarts),
            says,
        )
    return table


def _figures(loop: Loop) -> str:
    report = loop.report()
    ape = report["ape_median"]
    error = f"median error {ape:.1f} %" if isinstance(ape, float) else "median error not known yet"
    firing = sum(life.alert.state == "firing" for life in loop.store.alerts())
    return (
        f"\nwindows {report['windows_closed']} · paths {report['paths_total']}, "
        f"measured {report['paths_measured']}, predicted {report['paths_predicted']} · "
        f"{error} · alerts firing {firing}\n"
    )


def _events(loop: Loop) -> Text:
    lines = [entry.text for entry in loop.store.journal()[:6]] + list(loop.supervisor.journal)[-3:]
    return Text("\n".join(lines) or "none so far", overflow="ellipsis", no_wrap=True)
