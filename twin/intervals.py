"""How wide a prediction's interval must be to cover what it promises: split-conformal, by groups, adapted
online.

Theory
------
A model says of every flow how large an error it expects, s_f (a scale, not a promise). The score of a
labelled flow is |ln(predicted ÷ measured)| of queueing + transmission delay ÷ s_f. On data that no training
saw, the ⌈(n + 1)·c⌉-th smallest of n scores, q, covers the next flow with probability c if it is exchangeable
with those (Vovk et al. 2005; Lei et al., JASA 2018). It is not: errors differ with the size of the network,
its schedulers and its load. So quantiles are taken group by group (Mondrian conformal prediction), a group
being

    size of the network × policy and load of the link with the highest load on the way,

and a group with few scores, or of few networks, takes the quantile of another. The interval is
delay·exp(±w) on the part of the delay that is uncertain; propagation is known.

What is measured is not the mean but that of n packets, uncertain by σ/√n even where the model is right
(:func:`sampling_noise`). Where traffic tells how long it is observed, the interval is to hold what will be
measured: w² = (q·s_f)² + noise², and scores are of the error beyond the noise, of labels that tell of it.

:class:`Adaptation` moves q with a live network's own measurements (adaptive conformal inference, Gibbs and
Candès, NeurIPS 2021, on the logarithm of the width): after a window in which a share m of the flows of a
group was missed, ln factor += rate · (m − (1 − c)), so that in the long run 1 − c are missed, whatever
changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from twin.network import Floats, Ints
from twin.scheduling import POLICIES

COVERAGE = 0.9
LABEL_Z = NormalDist().inv_cdf((1 + COVERAGE) / 2)  # standard errors that hold a label so often
SIZE_EDGES = (25, 50, 100, 200)  # nodes
LOAD_EDGES = (0.3, 0.5, 0.7, 0.85, 1.0)
GROUPS = (len(SIZE_EDGES) + 1, len(POLICIES), len(LOAD_EDGES) + 1)
FEW = 200  # scores: a group with fewer has no quantile of its own
FEW_NETWORKS = 8  # nor has one with scores from fewer networks: those of one network are alike
WIDEST = 5.0  # of ln: beyond a factor of 150 an interval says nothing anyway


@dataclass(frozen=True)
class Intervals:
    """Quantiles of the scores by group: sizes × policies × loads."""

    quantile: tuple[tuple[tuple[float, ...], ...], ...]
    coverage: float = COVERAGE

    def half_width(self, group: Ints, scale: Floats) -> Floats:
        """Half-width on ln(queueing + transmission), [F]."""
        width: Floats = np.minimum(np.array(self.quantile).ravel()[group] * scale, WIDEST)
        return width


def sampling_noise(std_s: Floats, seconds: Floats, packets: Floats) -> Floats:
    """By how much the mean delay of so many packets strays at COVERAGE, as a share of ``seconds``, [F].

    Of independent packets of standard deviation ``std_s``: a lower bound where they meet the same backlog. 0
    where nothing is measured."""
    known = (packets > 0) & (seconds > 0)
    part = LABEL_Z * std_s / np.where(known, seconds * np.sqrt(np.maximum(packets, 1.0)), 1.0)
    return np.asarray(np.where(known, part, 0.0))


def constant_intervals(quantile: float) -> Intervals:
    """The same quantile for every group: what a model has before it is calibrated."""
    sizes, policies, loads = GROUPS
    return Intervals(quantile=(((quantile,) * loads,) * policies,) * sizes)


def group_of(nodes: int, policy: Ints, load: NDArray[np.floating]) -> Ints:
    """Number of every flow's group, [F]: its network's nodes, its bottleneck's policy and load."""
    size = np.full(len(load), np.searchsorted(SIZE_EDGES, nodes))
    bucket = np.searchsorted(LOAD_EDGES, load)
    return np.asarray(np.ravel_multi_index((size, policy, bucket), GROUPS))


def conformal(
    groups: Ints,
    scores: Floats,
    networks: Ints | None = None,
    *,
    coverage: float = COVERAGE,
    least: float = 0.0,
    telling: NDArray[np.bool_] | None = None,
    few_networks: int = FEW_NETWORKS,
) -> Intervals:
    """Quantiles of the calibration scores [n] of flows in ``groups`` [n] of ``networks`` [n] (None: each its
    own).

    Where a group has fewer than FEW scores or ``few_networks`` networks: the group of the next smaller size,
    then of all sizes, then of all policies, then all.

    ``telling`` [n]: whose label is sure enough to tell of the model (None: none is). Where noise rules,
    nearly every quantile covers what it should; so the others are asked only where no group of this size or
    of a smaller one has enough of these, and what they say is never less than ``least``."""
    size, policy, load = np.unravel_index(groups, GROUPS)
    networks = np.arange(len(scores)) if networks is None else networks
    telling = np.zeros(len(scores), dtype=np.bool_) if telling is None else telling
    overall = _quantile(scores, coverage)

    def enough(chosen: NDArray[np.bool_]) -> bool:
        return bool(chosen.sum() >= FEW) and len(np.unique(networks[chosen])) >= few_networks

    def of(group: tuple[int, ...]) -> float:
        alike = (policy == group[1]) & (load == group[2])
        smaller = [alike & (size == one) for one in range(group[0], -1, -1)]
        for chosen in (one & telling for one in smaller):
            if enough(chosen):
                return _quantile(scores[chosen], coverage)
        for chosen in (*smaller, alike, load == group[2]):
            if enough(chosen):
                return max(_quantile(scores[chosen], coverage), least)
        return max(overall, least)

    table = np.array([of(group) for group in np.ndindex(*GROUPS)]).reshape(GROUPS).tolist()
    return Intervals(tuple(tuple(map(tuple, rows)) for rows in table), coverage)


def _quantile(scores: Floats, coverage: float) -> float:
    rank = min(ceil((len(scores) + 1) * coverage), len(scores))
    return float(np.partition(scores, rank - 1)[rank - 1])


@dataclass
class Adaptation:
    """Factors on the widths of all groups, moved by what a live network measures."""

    rate: float = 0.05
    coverage: float = COVERAGE
    ln_factor: Floats = field(default_factory=lambda: np.zeros(int(np.prod(GROUPS))))

    def factor(self, group: Ints) -> Floats:
        """What to multiply every flow's half-width with, [F]."""
        factors: Floats = np.exp(self.ln_factor)[group]
        return factors

    def learn(self, group: Ints, missed: NDArray[np.bool_]) -> None:
        """One window: flows of these groups were measured, these outside their interval.

        A group's step shrinks where few flows stand for it: a window of one flow says little.
        """
        count = np.bincount(group, minlength=len(self.ln_factor))
        misses = np.bincount(group, weights=missed, minlength=len(self.ln_factor))
        share = misses / np.maximum(count, 1)
        weight = count / (count + 10.0)
        self.ln_factor += self.rate * weight * (share - (1 - self.coverage)) * (count > 0)
        np.clip(self.ln_factor, -1.5, 2.5, out=self.ln_factor)
