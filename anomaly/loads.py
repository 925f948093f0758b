"""Measured link loads beside what the flows explain: hidden traffic and wrong routes.

x[l] = (measured − explained) / capacity, against the level and width learnt for the link.

- More than explained on some links, less on none: traffic that no flow record shows.
- Less on one link out of a node and as much more on another: the node forwards otherwise than its routes say.
- Less, and the missing packets were dropped at a queue: no matter of routes; the delays tell it better.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomaly.findings import Finding, Judgement
from anomaly.learnt import Learnt
from anomaly.settings import DetectorSettings
from anomaly.window import Window
from twin.network import Floats, Ints
from twin.records import Suspect

EXPLAINED_BY_DROPS = 0.2  # of the missing load: from here on it was queues that lost it


@dataclass(frozen=True)
class _Loads:
    share: Floats  # [L] (measured − explained) / capacity beyond the usual; 0 where not measured
    score: Floats  # [L]
    more: NDArray[np.bool_]
    less: NDArray[np.bool_]


def judge_loads(
    settings: DetectorSettings, learnt: Learnt, window: Window, open_scope: frozenset[str]
) -> Judgement:
    """Findings about load in one window; moves ``learnt``."""
    names = window.network.link_names
    explained = window.queues.utilisation * window.network.capacity_bps
    usable = window.counted & ~window.distrust.links
    x = np.where(usable, (window.load_bps - explained) / window.network.capacity_bps, np.nan)
    loads = _weigh(settings, learnt, x)
    findings = _findings(settings, window, loads)
    large = np.abs(loads.share) > settings.min_load_share / 2
    lingering = {names[k] for k in np.flatnonzero(large & (np.abs(loads.score) > settings.clear_score))}
    alarmed = open_scope.union(*(finding.scope for finding in findings))
    frozen = np.array([name in alarmed for name in names], dtype=np.bool_)
    learnt.loads.learn_one(np.where(frozen, np.nan, x))
    return Judgement(tuple(findings), frozenset(lingering))


def _weigh(settings: DetectorSettings, learnt: Learnt, x: Floats) -> _Loads:
    score = learnt.loads.score_one(x)
    share = np.where(np.isfinite(x), x - learnt.loads.level, 0.0)
    more = (score >= settings.fire_score) & (share >= settings.min_load_share)
    missing = settings.min_load_share * (0.5 if more.any() else 1.0)  # what came here left elsewhere
    less = (score <= -settings.fire_score) & (share <= -missing)
    return _Loads(share, score, more, less)


def _findings(settings: DetectorSettings, window: Window, loads: _Loads) -> list[Finding]:
    if loads.less.any() and not _dropped(window, loads):
        return _wrong_route(settings, window, loads)
    return _hidden(settings, window, loads) if loads.more.any() else []


def _dropped(window: Window, loads: _Loads) -> bool:
    bits = float(window.queues.service_s.mean() * window.network.capacity_bps.mean())
    missing = float((-loads.share * window.network.capacity_bps)[loads.less].max())
    return float((window.drops_pps * window.counted).sum()) * bits > EXPLAINED_BY_DROPS * missing


def _hidden(settings: DetectorSettings, window: Window, loads: _Loads) -> list[Finding]:
    links = _strongest(loads.score, loads.more)
    suspects = tuple(
        _link_suspect(window, loads, int(k), "hidden-traffic") for k in links[: settings.max_suspects]
    )
    return [_finding(settings, window, loads, links, suspects)]


def _wrong_route(settings: DetectorSettings, window: Window, loads: _Loads) -> list[Finding]:
    links = _strongest(np.abs(loads.score), loads.less | loads.more)
    node, moved = _turning_point(window, loads)
    told = f"{100 * moved:.1f} % of a link's capacity leaves by another link than routes say"
    first = Suspect(kind="node", target=node, hypothesis="wrong-route", probability=0.9, evidence=told)
    rest = [_link_suspect(window, loads, int(k), "wrong-route") for k in links[: settings.max_suspects - 1]]
    return [_finding(settings, window, loads, links, (first, *rest))]


def _turning_point(window: Window, loads: _Loads) -> tuple[str, float]:
    """The node whose links out lose and gain most together; else the one where most goes missing."""
    network = window.network
    lost, won = np.zeros(len(network.nodes)), np.zeros(len(network.nodes))
    np.maximum.at(lost, network.source_index, np.maximum(-loads.share, 0.0))
    np.maximum.at(won, network.source_index, np.maximum(loads.share, 0.0))
    moved = np.minimum(lost, won)
    if moved.max() < 0.5 * lost.max():
        moved = lost
    node = int(np.argmax(moved))
    return network.nodes[node], float(moved[node])


def _strongest(score: Floats, which: NDArray[np.bool_]) -> Ints:
    links = np.flatnonzero(which)
    return links[np.argsort(-score[links], kind="stable")]


def _link_suspect(window: Window, loads: _Loads, link: int, hypothesis: str) -> Suspect:
    load, share = window.load_bps[link], loads.share[link]
    usual = load - share * window.network.capacity_bps[link]
    return Suspect(
        kind="link",
        target=window.network.link_names[link],
        hypothesis=hypothesis,
        probability=round(float(1.0 - np.exp(-abs(loads.score[link]) / 6.0)), 4),
        evidence=f"{load / 1e6:.2f} Mbit/s measured, {usual / 1e6:.2f} explained by the flows",
    )


def _finding(
    settings: DetectorSettings, window: Window, loads: _Loads, links: Ints, suspects: tuple[Suspect, ...]
) -> Finding:
    network = window.network
    names = frozenset(network.link_names[k] for k in links)
    crossing = np.unique(network.paths.hop_path[np.isin(network.paths.links, links[:1])])
    paths = tuple(network.path_name(int(k)) for k in crossing[: settings.max_paths])
    scope = names | {f"node:{s.target}" for s in suspects if s.kind == "node"}
    top = suspects[0]
    summary = f"{top.target}: {top.hypothesis} ({top.evidence})"
    strength = float(np.abs(loads.score[links]).max())
    return Finding("load-divergence", scope, suspects, summary, paths=paths, strength=strength)
