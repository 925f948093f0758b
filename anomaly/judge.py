"""From one window to findings about delay: rows → field → pursuit → suspects; then learn what is usual.

Steps of :meth:`DelayJudge.judge`
---------------------------------
1. Residuals of all methods become rows, each with the bias and the width learnt for its path.
2. The links' natural wander (theory × learnt spread) and the rows make the field.
3. The pursuit names what stands out by at least ``fire_score`` and by enough seconds to matter; a link whose
   small rises have added up (CUSUM) by ``clear_score`` only.
4. Causes that belong together (both directions of a cable, by-catch of a big fault) become one finding.
5. Everything that no open alert and no finding concerns is learnt.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomaly.findings import Finding, Judgement
from anomaly.learnt import RISE_LIMIT, Learnt
from anomaly.localise import Candidate, Round, pursue
from anomaly.residuals import observations
from anomaly.settings import DetectorSettings
from anomaly.suspects import summary_of, suspects_of
from anomaly.tomography import Field, Observations, stack
from anomaly.wander import link_wander_s
from anomaly.window import Window
from twin.equal_routes import crossings
from twin.network import Floats, Network

UNKNOWN_S = 1.0  # wander of a link whose traffic is not known: it can explain anything
BY_CATCH = 0.4  # a later cause with less than this share of the first one's score is put down to the first


@dataclass(frozen=True)
class _Scene:
    window: Window
    field: Field
    theory_s: Floats  # [L] wander by theory alone
    rounds: list[Round]
    hypotheses: list[Candidate]  # all of the first round


def judge_delays(
    settings: DetectorSettings, learnt: Learnt, window: Window, open_scope: frozenset[str]
) -> Judgement:
    """Findings about delay in one window; moves ``learnt``."""
    scene = _scene(settings, learnt, window)
    if scene is None:
        return Judgement(blind=frozenset(["delay-divergence"]))
    findings = _findings(settings, scene)
    lingering = _lingering(settings, scene)
    _learn_paths(learnt, scene, open_scope.union(*(finding.scope for finding in findings)))
    _learn_links(learnt, scene, open_scope)
    return Judgement(tuple(findings), lingering)


def _scene(settings: DetectorSettings, learnt: Learnt, window: Window) -> _Scene | None:
    rows = _rows(learnt, window)
    if rows is None:
        return None
    theory = link_wander_s(window.queues, window.window_s)
    young = 1.0 + float(np.mean([learnt.of_method(m).gain.mean() for m in window.methods]))
    wander = theory * learnt.links.factor * young * (1.5 if window.out_of_range else 1.0)
    field = Field(rows, np.where(window.distrust.links, UNKNOWN_S, wander) ** 2)
    risen = learnt.rises.score_one(field.link_scores[0]) >= 1.0
    enough = settings.clear_score if risen.any() else settings.fire_score
    rounds, hypotheses = pursue(window.network, field, window.methods, enough)
    rounds = [one for one in rounds if one.best.score >= settings.fire_score or risen[one.best.links].any()]
    return _Scene(window, field, theory, rounds, hypotheses)


def _rows(learnt: Learnt, window: Window) -> Observations | None:
    parts = []
    for number, part in enumerate(window.residuals):
        baseline = learnt.of_method(part.method)
        parts.append(observations(window.network, part, number, baseline.level, baseline.width))
    if not parts or not sum(len(part.path) for part in parts):
        return None
    return stack(parts)


def _findings(settings: DetectorSettings, scene: _Scene) -> list[Finding]:
    rounds = [one for one in scene.rounds if _matters(settings, scene.window, one.best)]
    groups: list[list[Round]] = []
    for one in rounds:
        home = next((group for group in groups if _belongs(scene.window.network, group, one)), None)
        if home is None:
            groups.append([one])
        else:
            home.append(one)
    return [_finding(settings, scene, group) for group in groups]


def _matters(settings: DetectorSettings, window: Window, best: Candidate) -> bool:
    if best.pattern is not None:
        # Instruments and routes rest on fewer rows than links do, so chance comes twice as far.
        return best.name == "lying-probe" or best.size >= 2 * settings.min_excess_s
    hop = float((window.queues.wait_s + window.queues.service_s)[best.links].mean())
    return best.size >= max(settings.min_excess_s, settings.min_excess_ratio * hop)


def _belongs(network: Network, group: list[Round], one: Round) -> bool:
    return _is_by_catch(group, one) or _is_kin(network, group[0].best, one.best)


def _is_by_catch(group: list[Round], one: Round) -> bool:
    return one.best.score < BY_CATCH * group[0].best.score


def _is_kin(network: Network, first: Candidate, other: Candidate) -> bool:
    """The other direction of the same cable, or a parallel link."""
    ends = {_ends(network, link) for link in first.links}
    return any(end in ends or end[::-1] in ends for end in (_ends(network, link) for link in other.links))


def _ends(network: Network, link: int) -> tuple[str, str]:
    return network.links[link].source, network.links[link].target


def _finding(settings: DetectorSettings, scene: _Scene, group: list[Round]) -> Finding:
    network, best = scene.window.network, group[0].best
    kin = [one for one in group if one is group[0] or _is_kin(network, best, one.best)]
    suspects = suspects_of(scene.window, scene.field, kin, settings.max_suspects)
    scope = {one.best.scope for one in group} | {network.link_names[k] for k in best.links}
    paths = _worst_paths(network, scene.field, best, settings.max_paths)
    summary = summary_of(suspects[0], best)
    return Finding("delay-divergence", frozenset(scope), suspects, summary, paths=paths, strength=best.score)


def _worst_paths(network: Network, field: Field, best: Candidate, most: int) -> tuple[str, ...]:
    rows = field.rows
    touched = np.zeros(len(rows.path), dtype=np.bool_)
    if best.pattern is None:
        touched[rows.row[np.isin(rows.links, best.links)]] = True
    else:
        touched[best.pattern.rows] = True
    strength = np.where(touched, np.abs(rows.excess_s) / np.sqrt(rows.variance), 0.0)
    worst = np.zeros(network.path_count)
    np.maximum.at(worst, rows.path, strength)
    order = np.argsort(-worst, kind="stable")[:most]
    return tuple(network.path_name(int(k)) for k in order if worst[k] > 0)


def _lingering(settings: DetectorSettings, scene: _Scene) -> frozenset[str]:
    scores, rises = scene.field.link_scores
    hop = scene.window.queues.wait_s + scene.window.queues.service_s
    enough = np.maximum(settings.min_excess_s, settings.min_excess_ratio * hop) / 2
    names = scene.window.network.link_names
    links = {names[k] for k in np.flatnonzero((scores > settings.clear_score) & (rises > enough))}
    others = {
        one.scope for one in scene.hypotheses if one.kind != "link" and one.score > settings.clear_score
    }
    return frozenset(links | others)


def _learn_paths(learnt: Learnt, scene: _Scene, alarmed: frozenset[str]) -> None:
    window, network = scene.window, scene.window.network
    frozen_links = _links_in(network, alarmed) | window.distrust.links
    paths, _ = crossings(network)
    weights = frozen_links[paths.links] * 1.0
    crossing = np.bincount(paths.hop_path, weights=weights, minlength=network.path_count) > 0
    source, _ = network.ends
    for part in window.residuals:
        lying = [k for k, name in enumerate(network.nodes) if f"probe:{name}:{part.method}" in alarmed]
        frozen = crossing | np.isin(source, lying)
        learnt.of_method(part.method).learn_one(np.where(frozen, np.nan, part.log_ratio))


def _learn_links(learnt: Learnt, scene: _Scene, open_scope: frozenset[str]) -> None:
    """A finding that never becomes an alert was a burst: unlike the bias, the spread learns from it."""
    frozen = (
        _links_in(scene.window.network, open_scope) | scene.window.distrust.links | (scene.field.crossed == 0)
    )
    learnt.links.learn_one(np.where(frozen, np.nan, scene.field.explained / scene.theory_s))
    learnt.rises.learn_one(np.where(frozen, -RISE_LIMIT, scene.field.link_scores[0]))  # told: starts over


def _links_in(network: Network, scope: frozenset[str]) -> NDArray[np.bool_]:
    named = zip(network.link_names, network.links, strict=True)
    return np.array([name in scope or f"node:{link.source}" in scope for name, link in named], dtype=np.bool_)
