"""Linear tomography: which link explains the excess delays of all paths.

Theory
------
Let y[n] be the excess delays (one row per path and measuring method), A[n, L] say which links a row crosses,
and

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


def stack(parts: list[Observations]) -> Observations:
    """Rows of several methods, one after the other."""
    starts = np.cumsum([0] + [part.offsets[-1] for part in parts])
    offsets = [part.offsets[1:] + start for part, start in zip(parts, starts, strict=False)]
    columns = ("links", "excess_s", "expected_s", "variance", "packet_bits", "path", "method")
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
        first = np.repeat(rows.offsets[rows.row], per_hop)
        within = np.arange(len(left)) - np.repeat(np.cumsum(per_hop) - per_hop, per_hop)
        weight = (1.0 / rows.variance)[rows.row[left]]
        cell = rows.links[left] * size + rows.links[first + within]
        summed = np.bincount(cell, weights=weight, minlength=size * size)
        return summed.astype(np.float64).reshape(size, size)

    @cached_property
    def _inverse(self) -> Floats:  # M⁻¹ [L, L]
        scale = np.sqrt(self.wander_variance)
        inner = np.eye(len(scale)) + scale[:, None] * self._gram * scale[None, :]
        inverse: Floats = scale[:, None] * np.linalg.inv(inner) * scale[None, :]
        return inverse

    def _to_links(self, h: Floats) -> Floats:  # AᵀD⁻¹h [L]
        weighted = (h / self.rows.variance)[self.rows.row]
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
        return _matched(top, information)

    def pattern(self, h: Floats) -> tuple[float, float]:
        """(z, x̂) of any pattern over the rows."""
        return _matched(self.inner(h, self.rows.excess_s), self.inner(h, h))

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

    def without(self, pattern: Floats, size_s: float) -> Field:
        """The same field with a pattern's share taken away."""
        return replace(self, rows=replace(self.rows, excess_s=self.rows.excess_s - size_s * pattern))


def _matched(top: float, information: float) -> tuple[float, float]:
    if information <= 1e-12:
        return 0.0, 0.0
    return float(top / np.sqrt(information)), top / information
