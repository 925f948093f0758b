"""The ranked list an operator reads: one suspect per target, its probability, its evidence in words."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from anomaly.causes import LinkFacts, explain, shares
from anomaly.localise import Candidate, Round
from anomaly.tomography import Field
from anomaly.window import Window
from twin.records import Suspect

NEGLIGIBLE = 0.005  # probability below which a target is not named
_CLASSES = 4  # told by name
_MAY_BE_TOO = 0.1  # … and from which a second explanation of the same link is told


def suspects_of(window: Window, field: Field, group: list[Round], most: int) -> tuple[Suspect, ...]:
    """First what the pursuit chose, round by round, then what else might explain the first round."""
    found: dict[str, Suspect] = {}
    for one in group:
        best = one.best
        found.setdefault(best.target, suspect(window, field, best, one.probabilities[0]))
    for candidate, probability in _alternatives(group[0]):
        if len(found) >= most:
            break
        if candidate.target not in found:
            found[candidate.target] = suspect(window, field, candidate, probability)
    return tuple(found.values())[:most]


def _alternatives(one: Round) -> Iterator[tuple[Candidate, float]]:
    pairs = zip(one.candidates, one.probabilities, strict=True)
    return ((candidate, p) for candidate, p in pairs if p >= NEGLIGIBLE)


def suspect(window: Window, field: Field, candidate: Candidate, probability: float) -> Suspect:
    """One candidate in words."""
    hypothesis, details = _cause(window, field, candidate)
    texts = [_seen(field, candidate), *details, *_twins(window, field, candidate)]
    return Suspect(
        kind=candidate.kind,
        target=candidate.target,
        hypothesis=hypothesis,
        probability=round(probability, 4),
        evidence="; ".join(texts),
    )


def summary_of(first: Suspect, best: Candidate) -> str:
    """One line for the alert."""
    return f"{first.target}: {first.hypothesis} ({_size(best)}), {likely(first.probability)}"


def likely(probability: float) -> str:
    """``97 % likely``; never certain, as a name is the best of those that were thought of."""
    percent = round(100 * probability)
    return "over 99 % likely" if percent > 99 else f"{percent} % likely"


def _cause(window: Window, field: Field, candidate: Candidate) -> tuple[str, list[str]]:
    if candidate.kind != "link":
        return candidate.name, []
    link = int(candidate.links[0])
    explanations = explain(field, link, link_facts(window, link))
    dropped = _dropped_by_class(window, link)
    likely = shares(explanations)
    told = [explanations[0].detail]
    told += [
        f"or {e.name} ({p:.2f}): {e.detail}"
        for e, p in zip(explanations[1:], likely[1:], strict=True)
        if p > _MAY_BE_TOO
    ]
    return explanations[0].name, [*told, dropped] if dropped else told


def _dropped_by_class(window: Window, link: int) -> str:
    """Which classes of traffic lose packets at the link, most first; empty where none does or none tells."""
    if not window.counted[link]:
        return ""
    queues = [(drops, name) for name, _, drops, _ in window.class_queues.of(link) if drops > 0]
    worst = sorted(queues, key=lambda one: (-one[0], one[1]))[:_CLASSES]
    return "drops by class: " + ", ".join(f"{name} {drops:.3g}/s" for drops, name in worst) if worst else ""


def link_facts(window: Window, link: int) -> LinkFacts:
    """What is known of one link in this window."""
    counted = bool(window.counted[link])
    return LinkFacts(
        link=window.network.links[link],
        routed_pps=float(window.queues.arrival_pps[link]),
        routed_bits=float(window.queues.service_s[link] * window.network.capacity_bps[link]),
        load_bps=float(window.load_bps[link]) if counted else None,
        drops_pps=float(window.drops_pps[link]) if counted else None,
        window_s=window.window_s,
    )


def _seen(field: Field, candidate: Candidate) -> str:
    if candidate.pattern is None:
        rows = int(np.isin(field.rows.links, candidate.links).sum())
    else:
        rows = len(candidate.pattern.rows)
    instrument = f" by {candidate.method}" if candidate.method else ""
    scatter = f"{candidate.score:.0f} times the usual scatter"
    return f"{_size(candidate)} on {rows} measurements{instrument}, {scatter}"


def _size(candidate: Candidate) -> str:
    if candidate.name == "lying-probe":
        return f"{100 * candidate.size:.1f} %"
    return f"+{1e3 * candidate.size:.2f} ms"


def _twins(window: Window, field: Field, candidate: Candidate) -> list[str]:
    if candidate.kind != "link":
        return []
    others = [window.network.link_names[k] for k in field.alike(int(candidate.links[0]))]
    return [f"no path tells it from {', '.join(others)}"] if others else []
