"""Store → what each element of the page shows: pure functions, tested without a browser."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ndtwin.api.frames import Frame
from ndtwin.api.health import EXPECTED, ComponentHealth
from ndtwin.api.history import NetworkHistory
from ndtwin.api.layout import positions
from ndtwin.api.store import Store
from ndtwin.api.views import OK_STATES, links_out, node_index, path_out, select_paths
from twin.records import Suspect

MAX_ROWS = 1000  # rows sent to a browser: the worst by residual
MAX_ALERTS = 40
MAX_JOURNAL = 60
FLAG_NAMES = 3
OPEN_STATES = ("pending", "firing", "acknowledged")
Payload = dict[str, Any]


@dataclass(frozen=True)
class Choice:
    """What one viewer looks at; empty strings mean nothing chosen."""

    network: str = ""
    path: str = ""
    link: str = ""  # chosen link: filters the paths to those that cross it
    node: str = ""  # chosen node: filters the paths to those that begin or end there
    query: str = ""
    opened_ms: int = field(default=0, compare=False)

    def picked(self, what: Payload) -> Choice:
        """After a click: a path is followed; a link or node filters, a second click on it clears."""
        if path := what.get("path"):
            return replace(self, path=str(path))
        link, node = str(what.get("link", "")), str(what.get("node", ""))
        return replace(self, link="" if link == self.link else link, node="" if node == self.node else node)


def network_of(store: Store, choice: Choice) -> NetworkHistory | None:
    """The network looked at: the one chosen, else the first."""
    names = store.networks()
    if not names:
        return None
    return store.network(choice.network if choice.network in names else names[0])


def frame_of(store: Store, choice: Choice) -> Frame | None:
    """The window looked at."""
    history = network_of(store, choice)
    return history.shown if history is not None else None


# ---------------------------------------------------------------------------------------------- the top


def top_bar(store: Store, choice: Choice, now_ns: int) -> Payload:
    """Names, window, figures, components, verdict."""
    history = network_of(store, choice)
    frame = history.shown if history is not None else None
    components = store.components(now_ns)
    level, verdict = _verdict(store, frame, components)
    return {
        "networks": list(store.networks()),
        "network": history.name if history is not None else "",
        "window": _window(frame) if frame is not None else None,
        "figures": _figures(history, frame) if history is not None and frame is not None else [],
        "components": _strip(components),
        "level": level,
        "verdict": verdict,
    }


def _window(frame: Frame) -> Payload:
    return {
        "version": frame.version,
        "start_ms": frame.start_ns // 1_000_000,
        "end_ms": frame.end_ns // 1_000_000,
    }


def _figures(history: NetworkHistory, frame: Frame) -> list[Payload]:
    total = frame.network.path_count
    measured = int((frame.measured_s > 0).sum())
    predicted = int((frame.predicted.mean_s > 0).sum()) if frame.predicted is not None else 0
    apart = frame.percentage_error
    latencies = np.array(list(history.latencies_s))
    busiest = float(frame.utilisation.max()) * 100 if len(frame.utilisation) else 0.0
    return [
        _figure("paths measured", f"{measured}/{total}", "", "" if measured == total else "warn"),
        _figure("paths predicted", f"{predicted}/{total}", "", "" if predicted == total else "warn"),
        _figure("median error", f"{np.median(apart):.1f}" if len(apart) else "–", "%" if len(apart) else ""),
        _figure("busiest link", f"{busiest:.0f}", "%"),
        _figure(
            "prediction lag",
            f"{np.median(latencies):.2f}" if len(latencies) else "–",
            "s" if len(latencies) else "",
        ),
    ]


def _figure(label: str, value: str, unit: str, level: str = "") -> Payload:
    return {"label": label, "value": value, "unit": unit, "level": level}


def _strip(components: list[ComponentHealth]) -> list[Payload]:
    known = {c.name: c for c in components}
    names = [
        *(n for n in EXPECTED if n in known or n not in ("broker", "lab", "archive")),
        *(n for n in known if n not in EXPECTED),
    ]
    return [
        {
            "name": name,
            "state": known[name].state if name in known else "unheard",
            "detail": known[name].detail if name in known else "no heartbeat yet",
            "restarts": known[name].restarts if name in known else 0,
        }
        for name in names
    ]


def _verdict(store: Store, frame: Frame | None, components: list[ComponentHealth]) -> tuple[str, str]:
    bad = [f"{c.name} {c.state}" for c in components if c.state not in OK_STATES]
    states = [life.alert.state for life in store.alerts()]
    told = [f"{states.count(state)} {state}" for state in OPEN_STATES if state in states]
    if bad:
        return "bad", ", ".join(bad)
    if firing := states.count("firing"):
        return "bad", f"{firing} alert{'s' if firing > 1 else ''} firing"
    if frame is None:
        return "wait", "waiting"
    if frame.predicted is None:
        return "warn", "no prediction"
    if told:
        return "warn", f"alerts: {', '.join(told)}"
    return "ok", "all well"


# ---------------------------------------------------------------------------------------------- the map


def topology_map(store: Store, choice: Choice, now_ns: int) -> Payload:
    """Nodes, links, suspects and what is chosen; before the first window: what is awaited."""
    frame = frame_of(store, choice)
    if frame is None:
        return waiting(store, choice, now_ns)
    suspects = suspicion(store, frame.name)
    return {
        "nodes": _nodes(frame, suspects),
        "links": [
            {**link.model_dump(), "suspect": suspects.get(link.name, 0.0)} for link in links_out(frame)
        ],
        "link": choice.link,
        "node": choice.node,
        "route": _route(frame, choice.path),
        "flags": _flags(frame),
        "waiting": "",
        "hints": [],
        "since_ms": 0,
    }


def suspicion(store: Store, network: str) -> dict[str, float]:
    """Suspect link or node → highest probability in any open alert."""
    found: dict[str, float] = {}
    for life in store.alerts(network):
        if life.alert.state in OPEN_STATES:
            for suspect in life.alert.suspects:
                found[suspect.target] = max(found.get(suspect.target, 0.0), suspect.probability)
    return found


def waiting(store: Store, choice: Choice, now_ns: int) -> Payload:
    """The empty map says what is being waited for."""
    components = store.components(now_ns)
    history = network_of(store, choice)
    if history is not None and history.waiting_for:
        said = "waiting for the next keyframe, at most six windows:"
    elif not components:
        said = "waiting for the first heartbeat of any component (`ndtwin up` starts them all)"
    else:
        said = "waiting for the first window to close:"
    hints = [f"{c.name}: {c.state} for {max(0, now_ns - c.since_ns) // 10**9 // 5 * 5} s" for c in components]
    since_ms = min((c.since_ns for c in components), default=choice.opened_ms * 1_000_000) // 1_000_000
    return {
        "nodes": [],
        "links": [],
        "link": "",
        "node": "",
        "route": [],
        "flags": [],
        "waiting": said,
        "hints": hints,
        "since_ms": since_ms,
    }


def _flags(frame: Frame) -> list[str]:
    """What the window suffers from, one line a kind (``silent: TX, NE``); then the model's own doubts."""
    kinds: dict[str, list[str]] = {}
    for flag in frame.quality:
        kind, _, what = flag.partition(":")
        kinds.setdefault(kind, []).append(what)
    lines = []
    for kind, things in kinds.items():
        named = ", ".join(thing for thing in things[:FLAG_NAMES] if thing)
        more = f" +{len(things) - FLAG_NAMES}" if len(things) > FLAG_NAMES else ""
        lines.append(f"{kind}: {named}{more}" if named else kind)
    return [*lines, *(frame.predicted.out_of_range if frame.predicted is not None else ())]


def _nodes(frame: Frame, suspects: dict[str, float]) -> list[Payload]:
    places = positions(frame.network)
    out = np.bincount(frame.network.source_index, frame.link_load_bps, len(frame.network.nodes))
    into = np.bincount(frame.network.target_index, frame.link_load_bps, len(frame.network.nodes))
    degree = np.bincount(frame.network.source_index, minlength=len(frame.network.nodes))
    silent = {flag.partition(":")[2] for flag in frame.quality if flag.startswith("silent:")}
    return [
        {
            "name": name,
            "x": round(places[name][0], 4),
            "y": round(places[name][1], 4),
            "degree": int(degree[i]),
            "sends_bps": float(out[i]),
            "receives_bps": float(into[i]),
            "suspect": suspects.get(name, 0.0),
            "silent": name in silent,
        }
        for i, name in enumerate(frame.network.nodes)
    ]


def _route(frame: Frame, path: str) -> list[str]:
    index = path_index(frame, path)
    return [] if index is None else [frame.network.link_names[i] for i in frame.network.paths.of(index)]


def link_to_show(store: Store, choice: Choice) -> str:
    """The link whose history is shown: the chosen one, else the prime suspect, else the busiest."""
    frame = frame_of(store, choice)
    if frame is None or not len(frame.network.links):
        return ""
    if choice.link in frame.link_index:
        return choice.link
    suspects = {k: p for k, p in suspicion(store, frame.name).items() if k in frame.link_index}
    if suspects:
        return max(sorted(suspects), key=lambda name: suspects[name])
    return frame.network.link_names[int(np.argmax(frame.utilisation))]


def class_queues(store: Store, choice: Choice) -> Payload:
    """What the device tells of the class queues of the link shown; those that drop come first."""
    frame, link = frame_of(store, choice), link_to_show(store, choice)
    told = frame.queues.of(frame.link_index[link]) if frame is not None and link else []
    rows = [
        {"name": name, "sent_bps": sent, "drops_pps": drops, "depth_octets": depth}
        for name, sent, drops, depth in sorted(told, key=lambda queue: queue[2] <= 0)
    ]
    return {"link": link, "rows": rows}


def path_index(frame: Frame, path: str) -> int | None:
    """Index of ``SOURCE->DESTINATION``; None when this topology has no such path."""
    source, _, destination = path.partition("->")
    nodes = frame.network.node_index
    known = source in nodes and destination in nodes and source != destination
    return frame.network.path_index(source, destination) if known else None


# -------------------------------------------------------------------------------------------- the table


def path_table(store: Store, choice: Choice) -> Payload:
    """Rows of the paths that match, at most :data:`MAX_ROWS`, the farthest outside its interval first."""
    frame = frame_of(store, choice)
    if frame is None:
        return {
            "rows": [],
            "total": 0,
            "cut": False,
            "filter": "",
            "chosen": "",
            "waiting": "waiting for the first window",
        }
    chosen = _matching(frame, choice)
    alerted = {
        p for life in store.alerts(frame.name) if life.alert.state in OPEN_STATES for p in life.alert.paths
    }
    return {
        "rows": [_row(frame, p, alerted) for p in chosen[:MAX_ROWS]],
        "total": frame.network.path_count,
        "cut": len(chosen) > MAX_ROWS,
        "filter": choice.link or choice.node,
        "chosen": choice.path,
        "waiting": "",
    }


def _matching(frame: Frame, choice: Choice) -> list[int]:
    """Paths that cross the chosen link or end at the chosen node, and fit the search, the worst first."""
    keep = np.ones(frame.network.path_count, dtype=np.bool_)
    if choice.link in frame.link_index:
        crossing = frame.network.paths.links == frame.link_index[choice.link]
        keep[:] = False
        keep[frame.network.paths.hop_path[crossing]] = True
    elif choice.node in frame.network.node_index:
        node = node_index(frame, choice.node)
        keep = np.logical_or(*(ends == node for ends in frame.network.ends))
    order = select_paths(frame, source=None, destination=None, sort="residual")
    chosen: list[int] = order[keep[order]].tolist()
    if not choice.query or frame.network.path_count <= MAX_ROWS:
        return chosen  # of a small network the browser has every row and searches by itself
    return [p for p in chosen if choice.query in frame.network.path_name(p).lower()]


def _row(frame: Frame, path: int, alerted: set[str]) -> Payload:
    p = path_out(frame, path)
    return {
        "path": p.path,
        "source": p.source,
        "destination": p.destination,
        "method": p.method,
        "traffic": round(p.traffic_bps / 1e6, 4),
        "measured": _ms(p.measured_s),
        "expected": _ms(p.expected_s),
        "low": _ms(p.low_s),
        "high": _ms(p.high_s),
        "residual": _rounded(p.residual),
        "score": _rounded(p.score),
        "alerted": p.path in alerted,
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 5)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


# ----------------------------------------------------------------------------------- alerts and journal


def alert_list(store: Store, choice: Choice) -> Payload:
    """Alerts of the network looked at."""
    history = network_of(store, choice)
    lives = store.alerts(history.name if history is not None else None)[:MAX_ALERTS]
    frame = history.shown if history is not None else None
    calm = (
        "measured and predicted agree"
        if frame is not None and frame.predicted is not None
        else "nothing to compare yet"
    )
    return {
        "calm": calm,
        "alerts": [
            {
                "fingerprint": a.fingerprint,
                "state": a.state,
                "kind": a.kind,
                "severity": a.severity,
                "summary": a.summary,
                "starts_at_ms": a.starts_at_ns // 1_000_000,
                "updated_at_ms": a.updated_at_ns // 1_000_000,
                "ends_at_ms": a.ends_at_ns // 1_000_000 if a.ends_at_ns is not None else None,
                "suspects": [_suspect(s) for s in a.suspects[:5]],
                "paths": list(a.paths[:50]),
                "life": [
                    {"state": state, "at_ms": at_ns // 1_000_000} for state, at_ns in life.transitions[-4:]
                ],
            }
            for life in lives
            for a in (life.alert,)
        ],
    }


def _suspect(suspect: Suspect) -> Payload:
    return {
        "kind": suspect.kind,
        "target": suspect.target,
        "hypothesis": suspect.hypothesis,
        "probability": round(suspect.probability, 3),
        "evidence": suspect.evidence,
    }


def journal(store: Store) -> Payload:
    """What happened lately."""
    entries = store.journal()[:MAX_JOURNAL]
    return {
        "entries": [
            {"at_ms": e.at_ns // 1_000_000, "kind": e.kind, "level": e.level, "text": e.text} for e in entries
        ]
    }


def default_choice(store: Store, choice: Choice) -> Choice:
    """Something to look at before anything was chosen: the path farthest from its prediction."""
    frame = frame_of(store, choice)
    if frame is None or frame.predicted is None or path_index(frame, choice.path) is not None:
        return choice
    if not frame.network.path_count:
        return choice
    return replace(choice, path=frame.network.path_name(int(np.argmax(np.abs(frame.score)))))
