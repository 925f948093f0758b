"""What is learnt of links (an offset in seconds and a factor on the wait) and of paths (a small factor).

Links: a Kalman filter of two states each
-----------------------------------------
A window tells that link l was e seconds slower than corrected so far (:mod:`twin.calibration_window`), of a
prior variance v of which a share g was resolved. With w the wait the model expects,

    e = d(offset) + w · d(factor) + ν,      var ν = wander²,

so one window never tells offset and factor apart, but windows of different load do: every link keeps the full
2 × 2 covariance P of both. With x = (1, w) and c = P·x, v = xᵀ·c + wander², the exact update given e alone is

    θ += c/v · e,        P −= c·cᵀ/v · g.

An offset has a least value (no link is faster than light) and the factor has bounds. Offset and factor
balance each other in P: when one stops at its bound the other takes what P makes likely of that,
θ₂ += P₁₂/P₁₁ · (bound − θ₁), and likewise the other way round. Otherwise it would balance a move that was
never made, and run away with every window.

P grows by a random walk that makes the gain settle at 1/memory. ``wander`` has a factor of its own for every
link, moved so that e/√(v·g) has the variance one: bursts are learnt as noise, not as delay.

What is beyond ``gate`` deviations is counted and not learnt. After ``patience_windows`` in a row on one side
the link is taken to have changed: P is opened, and what is seen of an open link is learnt however far off.

Paths: the Kalman gain of a constant
------------------------------------
An offset o of the logarithm of the delay, held within ±0.127 and stored in thousandths. A window's innovation
i, of a standard deviation σ that links and sampling tell, moves it by i / (n + (σ / path_width)²), n being
the number of windows that taught it, at most ``path_memory_windows``. Gate and patience are those of links.

The whole state is small (float32 and smaller) and rounded to what is stored, so that a calibration that was
dumped and loaded goes on to the very same bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin.network import Floats, Ints

FACTORS = (0.2, 5.0)  # of the wait
WANDER_FACTORS = (0.3, 5.0)
WANDER_RATE = 0.05
HUBERED_VARIANCE = 0.93  # of a normal deviate whose square is held at 2.5²
MOST_TOLD = 100.0  # of a square: only an open link's can be larger, and it must not overflow
GREATEST_OFFSET_S = 1.0
TRANSMISSION_WANDER = 0.02  # of the transmission of a mean packet
LEAST_WANDER_S = 1e-7
LINK_FIELDS: dict[str, type[np.generic]] = {
    "offset_s": np.float32,  # added to the link's delay
    "excess": np.float32,  # factor on its wait, less one
    "offset_variance": np.float32,
    "covariance": np.float32,
    "excess_variance": np.float32,
    "wander_factor": np.float32,
    "run": np.int16,  # windows in a row beyond the gate, negative where too fast
}
LinkRow = tuple[float, ...]
STEP = 1e-3
GREATEST = 127
_MOST_SEEN = 255
PATH_FIELDS: dict[str, type[np.generic]] = {"offset": np.int8, "seen": np.uint8, "run": np.int16}


@dataclass(frozen=True)
class CalibrationRules:
    """Windows are those of the stream: 10 s by default."""

    memory_windows: int = 100  # what is learnt drifts no faster: a quarter of an hour
    gate: float = 4.0  # deviations: what is farther off is a fault until it has lasted
    patience_windows: int = 180  # half an hour: what was off for so long is how the network is now
    huber: float = 2.5  # deviations: what is farther off moves no more than this
    first_offset_s: float = 0.05  # standard deviation of a propagation nobody told: 10,000 km of fibre
    first_excess: float = 0.5  # standard deviation of (factor on the wait − 1) of a link never seen
    wander: float = 0.1  # of a link's wait: how far one window strays from the mean of many
    path_memory_windows: int = 50
    path_width: float = 0.03  # standard deviation of what links do not explain of a path, as a logarithm


@dataclass(frozen=True)
class LinkPrior:
    """What is expected of every link in one window, before its measurements: [L] each."""

    wait_s: Floats
    covariance: tuple[Floats, Floats, Floats]  # P: of the offset, of both, of the excess
    wander: Floats  # variance, s²

    @property
    def lever(self) -> tuple[Floats, Floats]:
        """c = P·x."""
        a, b, d = self.covariance
        return a + b * self.wait_s, b + d * self.wait_s

    @property
    def variance(self) -> Floats:
        """v, s²."""
        by_offset, by_excess = self.lever
        return by_offset + self.wait_s * by_excess + self.wander

    def deviations(self, e: Floats, resolved: Floats) -> Floats:
        """e in standard deviations."""
        return e / np.sqrt(self.variance * np.maximum(resolved, 1e-9))


class LinkCorrections:
    """State of all links of one network."""

    def __init__(self, links: int, rules: CalibrationRules) -> None:
        self.rules = rules
        self.arrays = self._fresh(links)

    def _fresh(self, links: int) -> dict[str, NDArray[np.generic]]:
        first = {
            "offset_variance": self.rules.first_offset_s**2,
            "excess_variance": self.rules.first_excess**2,
            "wander_factor": 1.0,
        }
        return {name: np.full(links, first.get(name, 0), dtype=kind) for name, kind in LINK_FIELDS.items()}

    def _get(self, name: str) -> Floats:
        return self.arrays[name].astype(np.float64)

    def _set(self, name: str, values: Floats, where: NDArray[np.bool_]) -> None:
        self.arrays[name][where] = values[where].astype(LINK_FIELDS[name])

    @property
    def offset_s(self) -> Floats:
        """[L]."""
        return self._get("offset_s")

    @property
    def excess(self) -> Floats:
        """Factor on the wait, less one, [L]."""
        return self._get("excess")

    @property
    def _open(self) -> NDArray[np.bool_]:
        """Nothing was learnt since the start or since the link was taken to have changed, [L]."""
        return np.asarray(self.arrays["offset_variance"] >= np.float32(self.rules.first_offset_s**2))

    def prior(self, wait_s: Floats, packet_s: Floats) -> LinkPrior:
        """What to expect of a window in which the model expects ``wait_s``, [L]."""
        rules, memory = self.rules, self.rules.memory_windows
        wander = rules.wander * wait_s * (1 + self.excess) + TRANSMISSION_WANDER * packet_s
        wander = self._get("wander_factor") * wander + LEAST_WANDER_S
        walk = np.minimum(wander, rules.first_offset_s) / memory
        a = np.minimum(self._get("offset_variance") + walk**2, rules.first_offset_s**2)
        d = self._get("excess_variance") + (rules.wander / memory) ** 2
        covariance = (a, self._get("covariance"), np.minimum(d, rules.first_excess**2))
        return LinkPrior(wait_s, covariance, wander**2)

    def learn(self, prior: LinkPrior, e: Floats, resolved: Floats, slowest: Floats) -> NDArray[np.bool_]:
        """Take one window in; which links were beyond the gate, [L].

        ``resolved`` is g, 0 for links that no row crossed; ``slowest`` is the least offset allowed, s.
        """
        seen = resolved > 0
        z = prior.deviations(e, resolved)
        beyond = seen & ~self._open & (np.abs(z) > self.rules.gate)
        live = seen & ~beyond
        held = np.where(self._open, z, np.clip(z, -self.rules.huber, self.rules.huber))
        self._move(prior, held * np.sqrt(prior.variance * resolved), resolved, live, slowest)
        self._learn_wander(prior, held, live)
        self._count(np.sign(z), beyond, live)
        return beyond

    def _move(
        self, prior: LinkPrior, e: Floats, resolved: Floats, live: NDArray[np.bool_], slowest: Floats
    ) -> None:
        (a, b, d), (by_offset, by_excess) = prior.covariance, prior.lever
        variance = prior.variance
        offset = self.offset_s + by_offset / variance * e
        excess = self.excess + by_excess / variance * e
        learnt = resolved / variance
        a = np.maximum(a - by_offset**2 * learnt, 1e-18)
        d = np.maximum(d - by_excess**2 * learnt, 1e-9)
        most = 0.999 * np.sqrt(a * d)
        b = np.clip(b - by_offset * by_excess * learnt, -most, most)
        possible = np.clip(offset, slowest, GREATEST_OFFSET_S)
        excess, offset = excess + b / a * (possible - offset), possible
        possible = np.clip(excess, FACTORS[0] - 1, FACTORS[1] - 1)
        offset = np.clip(offset + b / d * (possible - excess), slowest, GREATEST_OFFSET_S)
        self._set("offset_s", offset, live)
        self._set("excess", possible, live)
        self._set("offset_variance", a, live)
        self._set("excess_variance", d, live)
        self._set("covariance", b, live)

    def _learn_wander(self, prior: LinkPrior, held: Floats, live: NDArray[np.bool_]) -> None:
        """A link that is still uncertain tells nothing of its wander."""
        own = prior.wander / prior.variance
        step = 0.5 * WANDER_RATE * own * (np.minimum(held**2, MOST_TOLD) - HUBERED_VARIANCE)
        self._set("wander_factor", np.clip(self._get("wander_factor") * np.exp(step), *WANDER_FACTORS), live)

    def _count(self, side: Floats, beyond: NDArray[np.bool_], live: NDArray[np.bool_]) -> None:
        run = self._get("run")
        run = np.where(beyond, np.where(side * run >= 0, run + side, side), np.where(live, 0.0, run))
        changed = np.abs(run) >= self.rules.patience_windows
        fresh = self._fresh(len(run))
        for name in ("offset_variance", "covariance", "excess_variance"):
            self._set(name, fresh[name].astype(np.float64), changed)
        self._set("run", np.where(changed, 0.0, run), np.ones(len(run), dtype=np.bool_))

    def follow(self, origin: Ints) -> None:
        """Renumber: link i goes on as what was origin[i]; −1 starts afresh."""
        fresh, known = self._fresh(len(origin)), origin >= 0
        for name, array in fresh.items():
            array[known] = self.arrays[name][origin[known]]
        self.arrays = fresh

    def forget(self, where: NDArray[np.bool_]) -> None:
        """Some links start afresh, [L]."""
        for name, array in self._fresh(len(where)).items():
            self.arrays[name][where] = array[where]

    def row(self, link: int) -> LinkRow:
        """All that is known of one link, in the order of LINK_FIELDS."""
        return tuple(float(self.arrays[name][link]) for name in LINK_FIELDS)

    def put(self, link: int, row: LinkRow) -> None:
        """Inverse of :meth:`row`, to the bit."""
        for name, value in zip(LINK_FIELDS, row, strict=True):
            self.arrays[name][link] = value


class PathOffsets:
    """State of all paths of one network."""

    def __init__(self, paths: int, rules: CalibrationRules) -> None:
        self.rules = rules
        self.arrays = self._fresh(paths)

    @staticmethod
    def _fresh(paths: int) -> dict[str, NDArray[np.generic]]:
        return {name: np.zeros(paths, dtype=kind) for name, kind in PATH_FIELDS.items()}

    @property
    def factor(self) -> Floats:
        """On every path's delay, [P]."""
        factor: Floats = np.exp(STEP * self.arrays["offset"].astype(np.float64))
        return factor

    def learn(self, path: Ints, innovation: Floats, deviation: Floats) -> None:
        """One window: some paths (each once) with ln(measured ÷ expected) and its standard deviation."""
        old = {name: array[path].astype(np.float64) for name, array in self.arrays.items()}
        z = innovation / deviation
        beyond = np.abs(z) > self.rules.gate
        run = np.where(beyond, np.where(z * old["run"] >= 0, old["run"] + np.sign(z), np.sign(z)), 0.0)
        changed = np.abs(run) >= self.rules.patience_windows
        known = np.minimum(old["seen"] + 1, self.rules.path_memory_windows)
        gain = 1.0 / (known + (deviation / self.rules.path_width) ** 2)
        held = np.clip(innovation, -self.rules.huber * deviation, self.rules.huber * deviation)
        offset = old["offset"] + np.where(beyond, 0.0, gain * held / STEP)
        offset = np.where(changed, old["offset"] + innovation / STEP, offset)
        new = {
            "offset": np.clip(np.rint(offset), -GREATEST, GREATEST),
            "seen": np.where(changed, 1, np.minimum(old["seen"] + ~beyond, _MOST_SEEN)),
            "run": np.where(changed, 0, run),
        }
        for name, values in new.items():
            self.arrays[name][path] = values.astype(PATH_FIELDS[name])

    def follow(self, origin: Ints) -> None:
        """Renumber: path i goes on as what was origin[i]; −1 starts afresh."""
        fresh, known = self._fresh(len(origin)), origin >= 0
        for name, array in fresh.items():
            array[known] = self.arrays[name][origin[known]]
        self.arrays = fresh
