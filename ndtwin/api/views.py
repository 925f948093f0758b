"""Frames → answers: pure functions, one for each thing the API shows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ndtwin.api import schema as s
from ndtwin.api.frames import NO_METHOD, Frame
from ndtwin.api.health import ComponentHealth
from ndtwin.api.history import LinkPoint, NetworkHistory, PathPoint
from ndtwin.api.layout import positions
from ndtwin.api.store import AlertLife, Store, UnknownName
from twin.network import Floats, Ints

SORTS = ("residual", "measured", "predicted", "traffic", "name")
OK_STATES = ("running", "starting")


def window_out(frame: Frame) -> s.WindowOut:
    """Which window."""
    return s.WindowOut(version=frame.version, start_ns=frame.start_ns, end_ns=frame.end_ns)


def network_out(history: NetworkHistory) -> s.NetworkOut:
    """A network in one line."""
    frame = history.newest
    network = frame.network if frame is not None else None
    return s.NetworkOut(
        name=history.name,
        nodes=len(network.nodes) if network is not None else 0,
        links=len(network.links) if network is not None else 0,
        paths=network.path_count if network is not None else 0,
        windows_seen=history.windows_seen,
        window=window_out(frame) if frame is not None else None,
        predicted=frame is not None and frame.predicted is not None,
        waiting_for=history.waiting_for,
    )


def state_out(frame: Frame) -> s.StateOut:
    """Nodes, links, quality."""
    places = positions(frame.network)
    return s.StateOut(
        network=frame.name,
        window=window_out(frame),
        quality=list(frame.quality),
        nodes=[s.NodeOut(name=n, x=places[n][0], y=places[n][1]) for n in frame.network.nodes],
        links=links_out(frame),
    )


def links_out(frame: Frame) -> list[s.LinkOut]:
    """Every link with its load."""
    modelled = frame.predicted.link_utilisation if frame.predicted is not None else np.zeros(0)
    return [
        s.LinkOut(
            name=frame.network.link_names[i],
            source=link.source,
            target=link.target,
            up=link.up,
            capacity_bps=link.capacity_bps,
            line_rate_bps=float(frame.network.line_rate_bps[i]),
            propagation_delay_s=link.propagation_delay_s,
            load_bps=float(frame.link_load_bps[i]),
            utilisation=float(frame.utilisation[i]),
            predicted_utilisation=float(modelled[i]) if i < len(modelled) else None,
            drops_pps=float(frame.link_drops_pps[i]),
            queues=[
                s.QueueOut(name=name, sent_bps=sent, drops_pps=drops, depth_octets=depth)
                for name, sent, drops, depth in frame.queues.of(i)
            ],
        )
        for i, link in enumerate(frame.network.links)
    ]


def select_paths(frame: Frame, *, source: str | None, destination: str | None, sort: str) -> Ints:
    """Path indices that match, in order."""
    sources, destinations = frame.network.ends
    keep = np.ones(frame.network.path_count, dtype=np.bool_)
    if source is not None:
        keep &= sources == node_index(frame, source)
    if destination is not None:
        keep &= destinations == node_index(frame, destination)
    chosen = np.flatnonzero(keep)
    return chosen[np.argsort(_sort_key(frame, sort)[chosen], kind="stable")]


def node_index(frame: Frame, node: str) -> int:
    """Index of a node; UnknownName lists the nodes."""
    if node not in frame.network.node_index:
        raise UnknownName(f"unknown node {node!r}: {frame.name} has {', '.join(frame.network.nodes)}")
    return frame.network.node_index[node]


def path_out(frame: Frame, path: int) -> s.PathOut:
    """One path, measured beside predicted."""
    source, destination = (frame.network.nodes[i] for i in frame.network.path_ends(path))
    method = int(frame.method_index[path])
    expected = figure(frame.expected_s, path)
    width = float(frame.predicted.log_width[path]) if frame.predicted is not None else 0.0
    comparable = bool(frame.comparable[path])
    return s.PathOut(
        path=f"{source}->{destination}",
        source=source,
        destination=destination,
        hops=int(frame.network.paths.lengths[path]),
        traffic_bps=float(frame.traffic.bps[path]),
        method=frame.methods[method] if method != NO_METHOD else None,
        measured_s=figure(frame.measured_s, path),
        predicted_s=figure(frame.predicted.mean_s, path) if frame.predicted is not None else None,
        expected_s=expected,
        low_s=expected * float(np.exp(-width)) if expected is not None else None,
        high_s=expected * float(np.exp(width)) if expected is not None else None,
        residual=float(frame.residual[path]) if comparable else None,
        score=float(frame.score[path]) if comparable else None,
    )


def path_history_out(
    history: NetworkHistory, frame: Frame, source: str, destination: str
) -> s.PathHistoryOut:
    """A path through the windows."""
    if source == destination:
        raise UnknownName(f"no path from {source} to itself: name two nodes")
    node_index(frame, source)
    node_index(frame, destination)
    path = frame.network.path_index(source, destination)
    return s.PathHistoryOut(
        network=frame.name,
        path=f"{source}->{destination}",
        links=[frame.network.link_names[i] for i in frame.network.paths.of(path)],
        points=[_point_out(point) for point in history.path_points(source, destination)],
    )


def predictions_out(frame: Frame) -> s.PredictionsOut:
    """What the twin expects of every path."""
    predicted = frame.predicted
    if predicted is None:
        raise UnknownName(f"no prediction for {frame.name} yet: is the component 'twin' running?")
    return s.PredictionsOut(
        network=frame.name,
        window=window_out(frame),
        model=predicted.model,
        model_version=predicted.model_version,
        coverage=predicted.coverage,
        out_of_range=list(predicted.out_of_range),
        paths=[
            s.PredictionOut(
                path=frame.network.path_name(p),
                mean_s=mean or None,
                low_s=mean * float(np.exp(-predicted.log_width[p])) if mean else None,
                high_s=mean * float(np.exp(predicted.log_width[p])) if mean else None,
                jitter_s=float(predicted.jitter_s[p]),
                loss=float(predicted.loss[p]),
            )
            for p, mean in enumerate(predicted.mean_s.tolist())
        ],
    )


def alert_out(life: AlertLife) -> s.AlertOut:
    """An alert and its life."""
    a = life.alert
    return s.AlertOut(
        **{f: getattr(a, f) for f in s.AlertOut.model_fields if f not in ("suspects", "paths", "life")},
        suspects=[s.SuspectOut(**{f: getattr(x, f) for f in s.SuspectOut.model_fields}) for x in a.suspects],
        paths=list(a.paths),
        life=[s.TransitionOut(state=state, at_ns=at_ns) for state, at_ns in life.transitions],
    )


def health_out(store: Store, now_ns: int) -> s.HealthOut:
    """How ndtwin itself is: healthy when every component heard of runs, and at least one was heard of."""
    components = store.components(now_ns)
    bad = [f"{c.name} {c.state}" for c in components if c.state not in OK_STATES]
    if not components:
        summary = "no component has been heard of yet"
    else:
        summary = ", ".join(bad) if bad else f"all {len(components)} components run"
    return s.HealthOut(
        healthy=bool(components) and not bad,
        summary=summary,
        components=[_component_out(component) for component in components],
    )


def fresh_out(frame: Frame) -> s.FreshStateOut:
    """A window as an optimiser needs it."""
    predicted_s = (
        frame.predicted.mean_s if frame.predicted is not None else np.zeros(frame.network.path_count)
    )
    return s.FreshStateOut(
        network=frame.name,
        window=window_out(frame),
        quality=list(frame.quality),
        links=links_out(frame),
        paths=[
            s.FreshPathOut(
                path=frame.network.path_name(p),
                traffic_bps=bps,
                measured_s=measured or None,
                predicted_s=mean or None,
            )
            for p, (bps, measured, mean) in enumerate(
                zip(frame.traffic.bps.tolist(), frame.measured_s.tolist(), predicted_s.tolist(), strict=True)
            )
        ],
        model=frame.predicted.model if frame.predicted is not None else None,
    )


def link_points(history: NetworkHistory, frame: Frame, link: str) -> list[LinkPoint]:
    """A link through the windows; UnknownName lists the links."""
    if link not in frame.link_index:
        raise UnknownName(f"unknown link {link!r}: {frame.name} has {', '.join(frame.network.link_names)}")
    return history.link_points(link)


def figure(values: Floats, index: int) -> float | None:
    """A figure, or None where 0 says that there is none."""
    return float(values[index]) or None


def _sort_key(frame: Frame, sort: str) -> Floats:
    keys: dict[str, Callable[[], Floats]] = {
        "residual": lambda: -np.abs(frame.score),
        "measured": lambda: -frame.measured_s,
        "predicted": lambda: -frame.expected_s,
        "traffic": lambda: -frame.traffic.bps,
        "name": lambda: np.arange(frame.network.path_count, dtype=np.float64),
    }
    return keys[sort]()


def _point_out(point: PathPoint) -> s.PathPointOut:
    return s.PathPointOut(
        version=point.version,
        end_ns=point.end_ns,
        measured_s=point.measured_s,
        expected_by_method_s=point.expected_by_method_s,
        expected_s=point.expected_s or None,
        low_s=point.low_s or None,
        high_s=point.high_s or None,
    )


def _component_out(component: ComponentHealth) -> s.ComponentOut:
    return s.ComponentOut(**{f: getattr(component, f) for f in s.ComponentOut.model_fields})
