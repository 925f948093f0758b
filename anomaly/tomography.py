"""Linear tomography: which link explains the excess delays of all paths.

Theory
------
Let y[n] be the excess delays (one row per path and measuring method), A[n, L] say which share of a row's
packets crosses a link (1, or less where a path has several equal routes), and

    y = A·e + noise,   noise ~ N(0, D) independent,   e ~ N(0, S) the links' natural wander,

where S is what queues do in one window without any fault. Then y ~ N(0, Σ) with Σ = D + A·S·Aᵀ, and a fault
that adds x·h (h[n] the pattern of the fault, x ≥ 0 its size) is seen with the matched filter

    x̂ = hᵀΣ⁻¹y / hᵀΣ⁻¹h,   z = hᵀΣ⁻¹y / √(hᵀΣ⁻¹h),   gain in log-likelihood = z²/2.

Σ is never formed. With G = AᵀD⁻¹A, b = AᵀD⁻¹y and M = S⁻¹ + G (all in link space), Woodbury gives

    hᵀΣ⁻¹k = hᵀD⁻¹k − (AᵀD⁻¹h)ᵀ M⁻¹ (AᵀD⁻¹k),

and for the links' own patterns (h = a column of A) F = AᵀΣ⁻¹A = S⁻¹ − S⁻¹M⁻¹S⁻¹, u = AᵀΣ⁻¹y = S⁻¹M⁻¹b.
Two links whose patterns are parallel under Σ⁻¹ cannot be told apart by anybody: `alike` finds them.

Invariants: z is at most x/σ of the link itself; a link no row crosses has z = 0; row order does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from twin.network import Floats, Ints


@dataclass(frozen=True)
class Observations:
    """Rows of the tomography: CSR incidence, excess, variance, and where every row comes from."""

    links: Ints  # [H] link of every hop, row after row
    share: Floats  # [H] of the row's packets that cross it
    offsets: Ints  # [n + 1]
    excess_s: Floats  # [n]
    expected_s: Floats  # [n] what was expected of the whole row
    variance: Floats  # [n] s²
    packet_bits: Floats  # [n] size of what was measured
    path: Ints  # [n]
    method: Ints  # [n]

    @cached_property
    def row(self) -> Ints:
        """The row of every hop, [H]."""
        return np.repeat(np.arange(len(self.excess_s)), np.diff(self.offsets))


@dataclass(frozen=True)
class Pattern:
    """A fault's pattern h over the rows, where it is not zero."""

    rows: Ints
    values: Floats


def ragged(starts: Ints, lengths: Ints) -> Ints:
    """The indices start, start + 1, … of every run, one run after the other."""
    before = np.cumsum(lengths) - lengths
    runs: Ints = np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths)
    return runs


def stack(parts: list[Observations]) -> Observations:
    """Rows of several methods, one after the other."""
    starts = np.cumsum([0] + [part.offsets[-1] for part in parts])
    offsets = [part.offsets[1:] + start for part, start in zip(parts, starts, strict=False)]
    columns = ("links", "share", "excess_s", "expected_s", "variance", "packet_bits", "path", "method")
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in columns}
    return Observations(offsets=np.concatenate([np.zeros(1, dtype=np.int64), *offsets]), **joined)


@dataclass(frozen=True)
class Field:
    """Observations and the links' natural wander, ready to weigh hypotheses."""

    rows: Observations
    wander_variance: Floats  # [L] S

    @cached_property
    def _gram(self) -> Floats:  # G [L, L]
        rows, size = self.rows, len(self.wander_variance)
        lengths = np.diff(rows.offsets)
        per_hop = lengths[rows.row]  # partners of every hop
        left = np.repeat(np.arange(len(rows.links)), per_hop)
        right = ragged(rows.offsets[rows.row], per_hop)
        weight = (1.0 / rows.variance)[rows.row[left]] * (rows.share[left] * rows.share[right])
        cell = rows.links[left] * size + rows.links[right]
        summed = np.bincount(cell, weights=weight, minlength=size * size)
        return summed.astype(np.float64).reshape(size, size)

    @cached_property
    def _inverse(self) -> Floats:  # M⁻¹ [L, L]
        scale = np.sqrt(self.wander_variance)
        inner = np.eye(len(scale)) + scale[:, None] * self._gram * scale[None, :]
        inverse: Floats = scale[:, None] * np.linalg.inv(inner) * scale[None, :]
        return inverse

    def _to_links(self, h: Floats) -> Floats:  # AᵀD⁻¹h [L]
        weighted = (h / self.rows.variance)[self.rows.row] * self.rows.share
        summed = np.bincount(self.rows.links, weights=weighted, minlength=len(self.wander_variance))
        return summed.astype(np.float64)

    def inner(self, h: Floats, k: Floats) -> float:
        """hᵀΣ⁻¹k for any two patterns over the rows."""
        direct = float(np.sum(h * k / self.rows.variance))
        return direct - float(self._to_links(h) @ self._inverse @ self._to_links(k))

    @cached_property
    def explained(self) -> Floats:
        """The links' most likely natural wander ê, [L] seconds."""
        result: Floats = self._inverse @ self._to_links(self.rows.excess_s)
        return result

    @cached_property
    def link_projection(self) -> Floats:
        """u = AᵀΣ⁻¹y, [L]."""
        return self.explained / self.wander_variance

    @cached_property
    def link_information(self) -> Floats:
        """F = AᵀΣ⁻¹A, [L, L]."""
        s = self.wander_variance
        information: Floats = np.diag(1.0 / s) - self._inverse / (s[:, None] * s[None, :])
        return information

    def combined(self, links: Ints) -> tuple[float, float]:
        """(z, x̂) of the same rise on all of some links."""
        top = float(self.link_projection[links].sum())
        information = float(self.link_information[np.ix_(links, links)].sum())
        return (top / information**0.5, top / information) if information > 1e-12 else (0.0, 0.0)

    def pattern_scores(self, patterns: list[Pattern]) -> tuple[Floats, Floats]:
        """(z, x̂) of any patterns over the rows, all at once, [len(patterns)] each."""
        count, size = len(patterns), len(self.wander_variance)
        number = np.repeat(np.arange(count), [len(pattern.rows) for pattern in patterns])
        row = np.concatenate([pattern.rows for pattern in patterns])
        value = np.concatenate([pattern.values for pattern in patterns])
        weight = value / self.rows.variance[row]
        starts, lengths = self.rows.offsets[row], np.diff(self.rows.offsets)[row]
        hops = ragged(starts, lengths)
        cell = np.repeat(number, lengths) * size + self.rows.links[hops]
        weighted = np.repeat(weight, lengths) * self.rows.share[hops]
        links = np.bincount(cell, weighted, count * size).reshape(count, size)  # AᵀD⁻¹h
        top = np.bincount(number, weight * self.rows.excess_s[row], count) - links @ self.explained
        information = np.bincount(number, weight * value, count) - ((links @ self._inverse) * links).sum(
            axis=1
        )
        safe = np.maximum(information, 1e-12)
        return np.where(information > 1e-12, top / np.sqrt(safe), 0.0), top / safe

    @cached_property
    def link_scores(self) -> tuple[Floats, Floats]:
        """(z[L], x̂[L]) of a rise on every single link."""
        information = np.diag(self.link_information)
        seen = information > 1e-9 / self.wander_variance
        safe = np.where(seen, information, 1.0)
        rise = np.where(seen, self.link_projection / safe, 0.0)
        return rise * np.sqrt(safe) * seen, rise

    @cached_property
    def misfit(self) -> float:
        """yᵀΣ⁻¹y: how badly "no fault" explains the rows."""
        return self.inner(self.rows.excess_s, self.rows.excess_s)

    def alike(self, link: int, closeness: float = 0.995) -> Ints:
        """Other links whose pattern no row tells from this one's."""
        diagonal = np.sqrt(np.maximum(np.diag(self.link_information), 1e-30))
        cosine = self.link_information[link] / (diagonal * diagonal[link])
        found: Ints = np.flatnonzero((cosine > closeness) & (self.crossed > 0))
        others: Ints = found[found != link]
        return others

    @cached_property
    def crossed(self) -> NDArray[np.int64]:
        """Rows over every link, [L]."""
        return np.bincount(self.rows.links, minlength=len(self.wander_variance))

    def freed(self, links: Ints) -> Field:
        """The same field where these links may rise as they like: what is left to explain."""
        wander = self.wander_variance.copy()
        wander[links] = 1.0
        return Field(self.rows, wander)

    def without(self, pattern: Pattern, size: float) -> Field:
        """The same field with a pattern's share taken away."""
        excess = self.rows.excess_s.copy()
        excess[pattern.rows] -= size * pattern.values
        return replace(self, rows=replace(self.rows, excess_s=excess))
