"""Sums by key: however rows come and whenever they are taken out, every row counts once."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.flows import table as module
from collectors.flows.columns import Groups
from collectors.flows.table import Keys, Table, Values

_ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(1, 9)), max_size=12)
_STEPS = st.lists(st.tuples(_ROWS, st.integers(-1, 5)), max_size=8)
Sums = dict[tuple[int, int], tuple[float, float]]


def _seen(keys: Keys, values: Values) -> Sums:
    rows = zip(*(column.tolist() for column in (*keys, *values)), strict=True)
    return {(first, second): (total, most) for first, second, total, most in rows}


@given(_STEPS, st.sampled_from([0, 3, 8192]))
def test_what_is_taken_is_what_was_added(
    steps: list[tuple[list[tuple[int, int, int]], int]], merge: int
) -> None:
    """Sums and highest values of the rows up to a first key, in order; the rest stays for later."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MERGE_ROWS", merge)
        table = Table(2, (Groups.sums, Groups.highest))
        waiting: dict[tuple[int, int], list[int]] = defaultdict(list)
        for rows, newest in steps:
            _add(table, rows)
            for first, second, value in rows:
                waiting[first, second].append(value)
            if table.should_merge:
                table.replace(*table.merged())
            keys, values = table.take(newest)
            due = sorted(key for key in waiting if key[0] <= newest)
            assert list(zip(*(column.tolist() for column in keys), strict=True)) == due
            assert _seen(keys, values) == {key: (sum(waiting[key]), max(waiting[key])) for key in due}
            for key in due:
                del waiting[key]
        assert len(table) >= len(waiting)


def _add(table: Table, rows: list[tuple[int, int, int]]) -> None:
    first, second, value = (np.array([row[i] for row in rows], dtype=np.int64) for i in range(3))
    table.add([first, second], [value.astype(np.float64)] * 2, len(rows))
