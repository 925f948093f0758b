"""Sums by key, as arrays: what is added is grouped at once, and merged with the rest when it has doubled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.flows.batch import Floats, Integers
from collectors.flows.columns import Column, Groups

Value = Floats | float  # one number where all rows have the same
Reduce = Callable[[Groups, Value], Floats]
Keys = list[Integers]
Values = list[Floats]
_MERGE_ROWS = 8192
_NONE = 2**62  # more than any first key


class Table:
    """Rows of integer keys, each with values that are summed or of which the extreme is kept."""

    def __init__(self, keys: int, reduce: Sequence[Reduce]) -> None:
        self._reduce = reduce
        self._keys: Keys = [np.zeros(0, dtype=np.int64) for _ in range(keys)]
        self._values: Values = [np.zeros(0) for _ in reduce]
        self._fresh: list[tuple[Keys, Values]] = []
        self._fresh_rows = 0
        self._lowest = _NONE  # of the first keys

    def __len__(self) -> int:
        return len(self._keys[0]) + self._fresh_rows

    def add(self, keys: Sequence[Column], values: Sequence[Value], rows: int) -> None:
        """Rows, equal ones among them."""
        if rows:
            self._fresh.append(self.grouped(keys, values, rows))
            self._fresh_rows += len(self._fresh[-1][0][0])
            self._lowest = min(self._lowest, int(self._fresh[-1][0][0].min()))

    @property
    def highest(self) -> int | None:
        """Of the first keys; None where there are no rows."""
        return max((int(keys[0].max()) for keys, _ in self._parts()), default=None)

    @property
    def should_merge(self) -> bool:
        """Whether there is so much unmerged that merging pays."""
        return self._fresh_rows > max(_MERGE_ROWS, len(self._keys[0]))

    def merged(self) -> tuple[Keys, Values]:
        """All rows, each key once, in the order of the keys."""
        if self._fresh:
            keys, values = _concatenated(self._parts())
            self.replace(*self.grouped(keys, values, len(keys[0])))
        return self._keys, self._values

    def replace(self, keys: Keys, values: Values) -> None:
        """These rows, each key once and in order, instead of all there are."""
        self._keys, self._values = keys, values
        self._fresh, self._fresh_rows = [], 0

    def take(self, newest: int) -> tuple[Keys, Values]:
        """Take out the rows whose first key is at most ``newest``, and leave the others as they lie."""
        if self._lowest > newest:
            return [key[:0] for key in self._keys], [value[:0] for value in self._values]
        end = int(np.searchsorted(self._keys[0], newest, side="right"))
        taken = [([key[:end] for key in self._keys], [value[:end] for value in self._values])]
        self._keys, self._values = [key[end:] for key in self._keys], [v[end:] for v in self._values]
        fresh, self._fresh, self._fresh_rows = self._fresh, [], 0
        for keys, values in fresh:
            due = keys[0] <= newest
            taken.append(([key[due] for key in keys], [value[due] for value in values]))
            if not due.all():
                self._fresh.append(([key[~due] for key in keys], [value[~due] for value in values]))
                self._fresh_rows += len(self._fresh[-1][0][0])
        self._lowest = min((int(keys[0].min()) for keys, _ in self._parts()), default=_NONE)
        keys, values = _concatenated(taken)
        return self.grouped(keys, values, len(keys[0]))

    def _parts(self) -> list[tuple[Keys, Values]]:
        settled = [(self._keys, self._values)] if len(self._keys[0]) else []
        return [*settled, *self._fresh]

    def grouped(self, keys: Sequence[Column], values: Sequence[Value], rows: int) -> tuple[Keys, Values]:
        """Equal rows as one, in the order of the keys."""
        groups = Groups(keys, rows)
        return groups.distinct(), [
            reduce(groups, one) for reduce, one in zip(self._reduce, values, strict=True)
        ]


def _concatenated(parts: Sequence[tuple[Keys, Values]]) -> tuple[Keys, Values]:
    keys = [np.concatenate(columns) for columns in zip(*(keys for keys, _ in parts), strict=True)]
    return keys, [np.concatenate(columns) for columns in zip(*(values for _, values in parts), strict=True)]


def bounds(*columns: NDArray[Any]) -> Integers:
    """Where runs of equal rows start, and where the last one ends."""
    changes = np.zeros(len(columns[0]) + 1, dtype=bool)
    changes[0] = changes[-1] = True
    for column in columns:
        changes[1:-1] |= column[1:] != column[:-1]
    return np.flatnonzero(changes)


def runs(*columns: NDArray[Any]) -> tuple[Integers, Integers]:
    """The bounds of runs, and the number of its run for every row."""
    found = bounds(*columns)
    return found, np.repeat(np.arange(len(found) - 1), np.diff(found))
