"""Which hypothesis explains the excess delays best: greedy matching pursuit over a dictionary of patterns.

Theory
------
Hypotheses and their patterns over the rows of the tomography (:mod:`anomaly.tomography`):

    rise on a link       every row over it rises by the same x ≥ 0
    slow node            every row over any link that leaves the node rises by x ≥ 0
    lying probe          the rows of one source and one method are scaled, while the other methods' are not
    constant lie         … or all off by the same seconds
    wrong route          the rows of one destination through one node change by x, either way
    clock offset         the rows from a node fall by x and those to it rise by x, in one method only

Round 1 weighs them all; the best is set free (its links may rise as they like) and what is left is weighed
again, so two faults, or the two directions of one cable, come out one after the other. Within a round

    log-likelihood = −(n/2)·ln(misfit left) + log prior,    misfit left = yᵀΣ⁻¹y − z²,

that is, with the noise's scale unknown: a big fault that the linear pattern fits only to a few per cent does
not make us certain of nonsense. Probabilities are the softmax over the round's hypotheses. What no set of
paths can tell apart (parallel patterns) shares the evidence and is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from anomaly.tomography import Field, Pattern
from twin.network import Ints, Network

SuspectKind = Literal["link", "node", "path", "probe"]
MAX_CAUSES = 4  # rounds of the pursuit
# Ln of prior odds against a fault on one link: whole nodes and instruments fail more rarely, and their
# patterns are richer.
LOG_PRIOR: dict[SuspectKind, float] = {"link": 0.0, "node": -2.0, "probe": -1.0, "path": -4.0}
MAX_ROUTES = 32  # the rows that deviate most; each path among them may be routed otherwise
SUSPICIOUS_ROW = 4.0  # standard deviations from which a path may be routed otherwise than we think


@dataclass(frozen=True)
class Candidate:
    """One hypothesis weighed."""

    kind: SuspectKind
    target: str
    name: str  # "rise", "slow-node", "lying-probe", "constant-lie", "clock-offset", "wrong-route"
    links: Ints  # the links it sets free; empty for a probe
    score: float  # z
    size: float  # x̂: seconds, or a ratio for a lying probe
    pattern: Pattern | None = None  # where it is not a combination of links
    method: str = ""  # the instrument, of a probe
    log_likelihood: float = 0.0

    @property
    def scope(self) -> str:
        """What an alert about this hypothesis is about, as one word."""
        return (
            self.target
            if self.kind == "link"
            else f"{self.kind}:{self.target}{self.method and ':' + self.method}"
        )


@dataclass(frozen=True)
class Round:
    """One round of the pursuit: the best first, with probabilities."""

    candidates: tuple[Candidate, ...]
    probabilities: tuple[float, ...]

    @property
    def best(self) -> Candidate:
        """The most likely."""
        return self.candidates[0]


def pursue(
    network: Network, field: Field, methods: tuple[str, ...], enough: float
) -> tuple[list[Round], list[Candidate]]:
    """Rounds of the pursuit while the best hypothesis scores ``enough``, and all hypotheses of the first."""
    rounds: list[Round] = []
    first = found = weigh(network, field, methods)
    while found and found[0].score >= enough and len(rounds) < MAX_CAUSES:
        rounds.append(_round(found))
        field = _explained_away(field, found[0])
        found = weigh(network, field, methods)
    return rounds, first


def weigh(network: Network, field: Field, methods: tuple[str, ...]) -> list[Candidate]:
    """All hypotheses with a positive score, most likely first; ties go by name."""
    found = [
        *_links(network, field),
        *_nodes(network, field),
        *_probes(network, field, methods),
        *_routes(network, field),
    ]
    weighed = [_with_likelihood(field, candidate) for candidate in found if candidate.score > 0]
    return sorted(weighed, key=lambda c: (-c.log_likelihood, c.kind, c.target, c.method, c.name))


def _with_likelihood(field: Field, candidate: Candidate) -> Candidate:
    freedom = float(np.count_nonzero(field.crossed))
    left = max(field.misfit - candidate.score**2, 1e-3 * field.misfit, 1e-9)
    return replace(candidate, log_likelihood=-0.5 * freedom * float(np.log(left)) + LOG_PRIOR[candidate.kind])


def _round(found: list[Candidate]) -> Round:
    values = np.array([candidate.log_likelihood for candidate in found])
    weights = np.exp(values - values.max())
    shares = weights / weights.sum()
    return Round(tuple(found), tuple(float(share) for share in shares))


def _explained_away(field: Field, best: Candidate) -> Field:
    if best.pattern is None:
        return field.freed(best.links)
    return field.without(best.pattern, best.size)


def _links(network: Network, field: Field) -> Iterator[Candidate]:
    scores, sizes = field.link_scores
    for link in np.flatnonzero(scores > 0):
        score, size = float(scores[link]), float(sizes[link])
        yield Candidate("link", network.link_names[link], "rise", np.array([link]), score, size)


def _nodes(network: Network, field: Field) -> Iterator[Candidate]:
    for node, name in enumerate(network.nodes):
        links = np.flatnonzero((network.source_index == node) & (field.crossed > 0))
        if len(links) > 1:  # with one link out, the node and the link are one thing
            score, size = field.combined(links)
            yield Candidate("node", name, "slow-node", links, score, size)


def _patterned(field: Field, hypotheses: list[Candidate]) -> Iterator[Candidate]:
    """Score hypotheses with patterns of their own; a negative size turns the pattern round."""
    if not hypotheses:
        return
    scores, sizes = field.pattern_scores([h.pattern for h in hypotheses if h.pattern is not None])
    for hypothesis, score, size in zip(hypotheses, scores, sizes, strict=True):
        assert hypothesis.pattern is not None
        pattern = (
            hypothesis.pattern
            if size >= 0
            else replace(hypothesis.pattern, values=-hypothesis.pattern.values)
        )
        yield replace(hypothesis, score=float(abs(score)), size=float(abs(size)), pattern=pattern)


def _probes(network: Network, field: Field, methods: tuple[str, ...]) -> Iterator[Candidate]:
    found: list[Candidate] = []
    source, destination = (ends[field.rows.path] for ends in network.ends)
    for number, method in enumerate(methods):
        mine = field.rows.method == number
        for node in np.unique(source[mine]):
            sent, received = (
                np.flatnonzero(mine & (source == node)),
                np.flatnonzero(mine & (destination == node)),
            )
            both = np.concatenate([received, sent])
            signs = np.repeat([1.0, -1.0], [len(received), len(sent)])
            patterns = {
                "lying-probe": Pattern(sent, field.rows.expected_s[sent]),
                "constant-lie": Pattern(sent, np.ones(len(sent))),
                "clock-offset": Pattern(both, signs),
            }
            found += [
                _of_pattern("probe", network.nodes[node], name, p, method) for name, p in patterns.items()
            ]
    yield from _patterned(field, found)


def _routes(network: Network, field: Field) -> Iterator[Candidate]:
    """One hypothesis per path that itself deviates, with all rows that pass its source to its end."""
    rows = field.rows
    strength = np.abs(rows.excess_s) / np.sqrt(rows.variance)
    worst = np.argsort(-strength, kind="stable")[:MAX_ROUTES]
    source, destination = network.ends
    found: list[Candidate] = []
    for path in np.unique(rows.path[worst[strength[worst] > SUSPICIOUS_ROW]]):
        passing = rows.row[network.source_index[rows.links] == source[path]]
        together = np.unique(passing[destination[rows.path[passing]] == destination[path]])
        pattern = Pattern(together, np.ones(len(together)))
        found.append(_of_pattern("path", network.path_name(int(path)), "wrong-route", pattern))
    yield from _patterned(field, found)


def _of_pattern(kind: SuspectKind, target: str, name: str, pattern: Pattern, method: str = "") -> Candidate:
    return Candidate(kind, target, name, np.empty(0, dtype=np.int64), 0.0, 0.0, pattern, method)
