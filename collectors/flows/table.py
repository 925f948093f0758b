"""Sums by key, as arrays: what is added is grouped at once, and merged with the rest when it has doubled."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from collectors.flows.batch import Floats, Integers
from collectors.flows.columns import Column, Groups

Value = Floats | float  # one number where all rows have the same
Reduce = Callable[[Groups, Value], Floats]
Keys = list[Integers]
Values = list[Floats]
_MERGE_ROWS = 8192


class Table:
    """Rows of integer keys, each with values that are summed or of which the extreme is kept."""

    def __init__(self, keys: int, reduce: Sequence[Reduce]) -> None:
        self._reduce = reduce
        self._keys: Keys = [np.zeros(0, dtype=np.int64) for _ in range(keys)]
        self._values: Values = [np.zeros(0) for _ in reduce]
        self._fresh: list[tuple[Keys, Values]] = []
        self._fresh_rows = 0

    def __len__(self) -> int:
        return len(self._keys[0]) + self._fresh_rows

    def add(self, keys: Sequence[Column], values: Sequence[Value], rows: int) -> None:
        """Rows, equal ones among them."""
        self._fresh.append(self._grouped(keys, values, rows))
        self._fresh_rows += len(self._fresh[-1][0][0])

    @property
    def should_merge(self) -> bool:
        """Whether there is so much unmerged that merging pays."""
        return self._fresh_rows > max(_MERGE_ROWS, len(self._keys[0]))

    def merged(self) -> tuple[Keys, Values]:
        """All rows, each key once, in the order of the keys."""
        if self._fresh:
            parts = [(self._keys, self._values), *self._fresh]
            keys = [np.concatenate(columns) for columns in zip(*(part[0] for part in parts), strict=True)]
            values = [np.concatenate(columns) for columns in zip(*(part[1] for part in parts), strict=True)]
            self.replace(keys, values)
        return self._keys, self._values

    def replace(self, keys: Keys, values: Values) -> None:
        """These rows instead of all there are."""
        self._keys, self._values = self._grouped(keys, values, len(keys[0]))
        self._fresh, self._fresh_rows = [], 0

    def take(self, newest: int) -> tuple[Keys, Values]:
        """Take out the rows whose first key is at most ``newest``."""
        keys, values = self.merged()
        end = int(np.searchsorted(keys[0], newest, side="right"))
        self._keys, self._values = [key[end:] for key in keys], [value[end:] for value in values]
        return [key[:end] for key in keys], [value[:end] for value in values]

    def _grouped(self, keys: Sequence[Column], values: Sequence[Value], rows: int) -> tuple[Keys, Values]:
        groups = Groups(keys, rows)
        return groups.distinct(), [
            reduce(groups, one) for reduce, one in zip(self._reduce, values, strict=True)
        ]


def runs(*columns: Integers) -> tuple[Integers, Integers]:
    """Where runs of equal rows start, and where the last one ends; the number of its run for every row."""
    changes = np.zeros(len(columns[0]), dtype=bool)
    changes[:1] = True
    for column in columns:
        changes[1:] |= column[1:] != column[:-1]
    starts = np.flatnonzero(changes)
    return np.append(starts, len(changes)), np.cumsum(changes) - 1
