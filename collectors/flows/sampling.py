"""How many packets one sampled packet stands for (RFC 5477, RFC 7270).

Exporters say it in option records, in one of five ways (nfdump #231, goflow2 #440), and a box may have
several samplers (akvorado #89): each is kept under its selectorId (302) or samplerId (48). A data record that
names its sampler gets that one's ratio; one that does not gets the ratio of its only sampler, and 1 where
there are none or several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from collectors.flows import elements as ie
from collectors.flows.batch import Floats, RecordBatch

_Row = Mapping[int, float]
_FORMULAE: tuple[tuple[tuple[int, ...], Callable[[_Row], float]], ...] = (
    (
        (ie.SAMPLING_PACKETS, ie.SAMPLING_SPACE),
        lambda row: (row[ie.SAMPLING_PACKETS] + row[ie.SAMPLING_SPACE]) / row[ie.SAMPLING_PACKETS],
    ),
    (
        (ie.SAMPLING_SIZE, ie.SAMPLING_POPULATION),
        lambda row: row[ie.SAMPLING_POPULATION] / row[ie.SAMPLING_SIZE],
    ),
    ((ie.SAMPLING_PROBABILITY,), lambda row: 1 / row[ie.SAMPLING_PROBABILITY]),
    ((ie.SAMPLER_INTERVAL,), lambda row: row[ie.SAMPLER_INTERVAL]),
    ((ie.SAMPLING_INTERVAL,), lambda row: row[ie.SAMPLING_INTERVAL]),
)
_NAMES = (ie.SELECTOR_ID, ie.SAMPLER_ID)
_MAX_SAMPLERS = 4096


class Samplers:
    """The samplers of one observation domain."""

    def __init__(self) -> None:
        self._ratios: dict[int | None, float] = {}

    def learn(self, options: RecordBatch) -> None:
        """Take the ratios from a batch of option records, if that is what they are about."""
        for needed, formula in _FORMULAE:
            columns = {id: _column(options, id) for id in needed}
            if all(column is not None for column in columns.values()):
                names = _first(options)
                for i in range(len(options)):
                    row = {id: float(column[i]) for id, column in columns.items() if column is not None}
                    self._keep(None if names is None else int(names[i]), row, formula)
                return

    def ratio(self, batch: RecordBatch) -> Floats | float:
        """Packets represented by one packet seen, for every record of a data batch or for all of them."""
        inline = batch.integers(ie.SAMPLING_INTERVAL)
        if inline is not None:
            return np.maximum(inline, 1).astype(np.float64)
        only = next(iter(self._ratios.values())) if len(self._ratios) == 1 else self._ratios.get(None, 1.0)
        names = _first(batch)
        if names is None or not self._ratios:
            return only
        return np.array([self._ratios.get(int(name), only) for name in names], dtype=np.float64)

    def _keep(self, name: int | None, row: _Row, formula: Callable[[_Row], float]) -> None:
        if any(value <= 0 for id, value in row.items() if id != ie.SAMPLING_SPACE):
            return  # "0" is how some exporters say "off"
        if name in self._ratios or len(self._ratios) < _MAX_SAMPLERS:
            self._ratios[name] = max(formula(row), 1.0)


def _column(batch: RecordBatch, id: int) -> Floats | None:
    if id == ie.SAMPLING_PROBABILITY:
        return batch.floats(id)
    whole = batch.integers(id)
    return None if whole is None else whole.astype(np.float64)


def _first(batch: RecordBatch) -> Floats | None:
    for id in _NAMES:
        column = _column(batch, id)
        if column is not None:
            return column
    return None
