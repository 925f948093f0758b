"""Online detectors behind one tiny interface: first ``score_one(x)``, then ``learn_one(x)``.

Theory
------
Every detector watches n series side by side (paths or links); x is float[n] and NaN means "nothing to see, or
nothing to be learnt" – that is how a caller freezes a series while an alert about it is open.

- ``score_one`` says how unusual each element is and changes nothing.
- ``learn_one`` moves the state. A single wild value moves it by a bounded step (Huber's ψ).
- The whole state lies in small arrays (float16, uint8): what is computed is rounded to what is stored, so a
  detector that was dumped and restored goes on to the very same bits.

Contracts, tested over all implementations: scores are finite where x is and 0 where it is NaN; scoring is
pure; learning is deterministic; dump and load round-trip; NaN leaves a series as it was.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from twin.errors import DecodeError
from twin.network import Floats, Ints

SETTLING = 3  # observations: one of them may be wild
HUBER = 2.5  # innovations beyond so many standard deviations count as this many


class Detector(Protocol):
    """n series, scored before they are learnt."""

    def score_one(self, x: Floats) -> Floats:
        """How unusual every element is; 0 where x is NaN."""
        ...

    def learn_one(self, x: Floats) -> None:
        """Take the elements in that are not NaN."""
        ...

    def follow(self, origin: Ints) -> None:
        """Renumber the series; −1 starts one afresh."""
        ...

    def dump(self) -> bytes:
        """All state."""
        ...

    def load(self, blob: bytes) -> None:
        """Become what :meth:`dump` described."""
        ...


class _Series:
    """State in named arrays of equal length, one element a series."""

    def __init__(self, size: int) -> None:
        self._arrays = self._fresh(size)

    def _fresh(self, size: int) -> dict[str, NDArray[np.generic]]:
        raise NotImplementedError

    def dump(self) -> bytes:
        """All arrays, one after the other."""
        return b"".join(array.tobytes() for array in self._arrays.values())

    def load(self, blob: bytes) -> None:
        """Inverse of :meth:`dump`; DecodeError when the state is of another number of series."""
        expected = sum(array.nbytes for array in self._arrays.values())
        if len(blob) != expected:
            raise DecodeError(
                f"detector state has {len(blob)} bytes, {expected} expected: it is of another network"
            )
        start = 0
        for name, array in self._arrays.items():
            self._arrays[name] = np.frombuffer(blob, array.dtype, len(array), start).copy()
            start += array.nbytes

    def follow(self, origin: Ints) -> None:
        """Renumber: series i goes on as what was origin[i]; −1 starts afresh."""
        fresh, known = self._fresh(len(origin)), origin >= 0
        for name, array in fresh.items():
            array[known] = self._arrays[name][origin[known]]
        self._arrays = fresh


class Baseline(_Series):
    """Level and spread of every series: a robust EWMA that starts fast and ends slow.

    With k observations behind it the gain is max(1/(k + 1), 1/memory): the first one sets the level, the
    next few refine it, then it drifts with the time constant. Never seen, a series has the wide prior
    ``first_width``.
    """

    def __init__(self, size: int, *, first_width: float, floor: float, memory: int) -> None:
        self._first_width, self._floor, self._memory = first_width, floor, memory
        super().__init__(size)

    def _fresh(self, size: int) -> dict[str, NDArray[np.generic]]:
        return {
            "level": np.zeros(size, dtype=np.float16),
            "spread": np.full(size, self._first_width / 8, dtype=np.float16),
            "seen": np.zeros(size, dtype=np.uint8),
        }

    @property
    def level(self) -> Floats:
        """What is normal, [n]."""
        return self._arrays["level"].astype(np.float64)

    @property
    def seen(self) -> Floats:
        """Observations behind every series, up to 255, [n]."""
        return self._arrays["seen"].astype(np.float64)

    @property
    def gain(self) -> Floats:
        """How far the next observation would pull the level, [n]."""
        return np.maximum(1.0 / (self.seen + 1.0), 1.0 / self._memory)

    @property
    def _spread(self) -> Floats:
        return np.maximum(self._arrays["spread"].astype(np.float64), self._floor)

    @property
    def width(self) -> Floats:
        """Standard deviation of the next observation about the level, [n]."""
        return np.where(self.seen == 0, self._first_width, self._spread * np.sqrt(1 + self.gain))

    def score_one(self, x: Floats) -> Floats:
        """Signed distance from the level in widths."""
        return np.nan_to_num((x - self.level) / self.width, nan=0.0, posinf=0.0, neginf=0.0)

    def learn_one(self, x: Floats) -> None:
        """Pull level and spread towards x; a wild x pulls as far as HUBER widths and no farther."""
        live, gain, first = np.isfinite(x), self.gain, self.seen == 0
        limit = HUBER * self.width
        step = np.where(live, x, 0.0) - self.level
        step = np.where(first, step, np.clip(step, -limit, limit))
        rate = np.maximum(1.0 / (self.seen + 2.0), 1.0 / self._memory)
        variance = self._spread**2 + np.where(first, 0.0, rate * (step**2 / (1 + gain) - self._spread**2))
        moved = {"level": np.clip(self.level + gain * step, -1e4, 1e4), "spread": np.sqrt(variance)}
        moved["seen"] = np.minimum(self.seen + 1, 255)
        for name, values in moved.items():
            self._arrays[name][live] = values[live].astype(self._arrays[name].dtype)


class SettledBaseline(Baseline):
    """A baseline that scores 0 until it has seen SETTLING observations, whose median is its first level.

    For series with a prior so narrow that one wild observation at the start would be held against all that
    follow.
    """

    def _fresh(self, size: int) -> dict[str, NDArray[np.generic]]:
        early = {f"early_{k}": np.zeros(size, dtype=np.float16) for k in range(SETTLING)}
        return super()._fresh(size) | early

    def score_one(self, x: Floats) -> Floats:
        """Signed distance from the level in widths; 0 while it settles."""
        return np.where(self.seen < SETTLING, 0.0, super().score_one(x))

    def learn_one(self, x: Floats) -> None:
        """Collect what comes first, then go on as a baseline."""
        young = np.isfinite(x) & (self.seen < SETTLING)
        super().learn_one(np.where(young, np.nan, x))
        for k in range(SETTLING):
            now = np.flatnonzero(young & (self.seen == k))
            self._arrays[f"early_{k}"][now] = np.clip(x[now], -1e4, 1e4).astype(np.float16)
            known = [self._arrays[f"early_{before}"][now] for before in range(k + 1)]
            self._arrays["level"][now] = np.median(np.array(known, dtype=np.float64), axis=0)
            self._arrays["seen"][now] = k + 1
            young[now] = False


class Spread(_Series):
    """How far series that should be near zero stray, as a multiple of what theory says: never below 1.

    x is already in standard deviations of the theory; the spread says by how much reality (bursts, model
    error) exceeds it, so score = x / spread. A series never seen starts at ``first`` and soon finds its own;
    later the spread rises faster than it falls, so it errs on the high side. It never exceeds ``ceiling``.
    """

    def __init__(self, size: int, *, memory: int, first: float = 2.0, ceiling: float = 12.0) -> None:
        self._memory, self._first, self._ceiling = memory, first, ceiling
        super().__init__(size)

    def _fresh(self, size: int) -> dict[str, NDArray[np.generic]]:
        square = np.full(size, self._first**2, dtype=np.float16)
        return {"square": square, "seen": np.zeros(size, dtype=np.uint8)}

    @property
    def factor(self) -> Floats:
        """[n], between 1 and the ceiling."""
        return np.sqrt(self._arrays["square"].astype(np.float64))

    def score_one(self, x: Floats) -> Floats:
        """x in spreads."""
        return np.nan_to_num(x / self.factor, nan=0.0, posinf=0.0, neginf=0.0)

    def learn_one(self, x: Floats) -> None:
        """Take x² in, bounded."""
        live, square = np.isfinite(x), self.factor**2
        bounded = np.minimum(np.where(live, x, 0.0) ** 2, HUBER**2 * square)
        seen = self._arrays["seen"].astype(np.float64)
        rate = np.maximum(1.0 / (seen + 4.0), np.where(bounded > square, 4.0, 1.0) / self._memory)
        moved = np.clip(square + rate * (bounded - square), 1.0, self._ceiling**2)
        self._arrays["square"][live] = moved[live].astype(np.float16)
        self._arrays["seen"][live] = np.minimum(seen + 1, 255)[live].astype(np.uint8)


class Cusum(_Series):
    """Page's one-sided cumulative sum: small rises that persist add up.

    S ← max(0, S + x − slack), with x in standard deviations; the score is S in units of ``limit``. S is held
    at twice the limit so that it comes down within a bounded time once the rise is over.
    """

    def __init__(self, size: int, *, slack: float, limit: float) -> None:
        self._slack, self._limit = slack, limit
        super().__init__(size)

    def _fresh(self, size: int) -> dict[str, NDArray[np.generic]]:
        return {"sum": np.zeros(size, dtype=np.float16)}

    def score_one(self, x: Floats) -> Floats:
        """The sum as it would stand after x, over the limit."""
        return np.where(np.isfinite(x), self._after(x), 0.0) / self._limit

    def learn_one(self, x: Floats) -> None:
        """Add x to the sum."""
        live = np.isfinite(x)
        self._arrays["sum"][live] = self._after(x)[live].astype(np.float16)

    def _after(self, x: Floats) -> Floats:
        step = np.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0) - self._slack
        return np.clip(self._arrays["sum"].astype(np.float64) + step, 0.0, 2 * self._limit)
