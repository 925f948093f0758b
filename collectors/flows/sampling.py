"""How many packets one sampled packet stands for (RFC 5477, RFC 7270, RFC 3954).

Exporters say it in option records, in one of several ways (nfdump #231, goflow2 #440), in the records
themselves, or, NetFlow 5, in the header. A box may have several samplers (akvorado #89): each is kept under
its selectorId (302), its samplerId (48) or the interface that its scope names (10). A data record that names
its sampler gets that one's ratio; one that does not gets the ratio of its ingress interface, else that of
the domain's only sampler, and 1 where there are none or several.

Where a record tells in several ways the first that makes sense counts: exporters fill what they do not use
with zeros. selectorAlgorithm (304) 5 is filtering: what it leaves out is not traffic that was missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from collectors.flows import elements as ie
from collectors.flows.batch import Floats, RecordBatch

_Columns = Mapping[int, Floats]
_FILTERING = 5  # property match (IANA psamp-parameters)
_MAX_SAMPLERS = 4096
_MAX_RATIO = 1e9  # beyond it a field is damaged


def _of_space(taken: int, left_out: int) -> Callable[[_Columns], Floats]:
    return lambda columns: (columns[taken] + columns[left_out]) / columns[taken]


_FORMULAE: tuple[tuple[tuple[int, ...], Callable[[_Columns], Floats]], ...] = (
    ((ie.SAMPLING_PACKETS, ie.SAMPLING_SPACE), _of_space(ie.SAMPLING_PACKETS, ie.SAMPLING_SPACE)),
    (
        (ie.SAMPLING_SIZE, ie.SAMPLING_POPULATION),
        lambda columns: columns[ie.SAMPLING_POPULATION] / columns[ie.SAMPLING_SIZE],
    ),
    ((ie.SAMPLING_PROBABILITY,), lambda columns: 1 / columns[ie.SAMPLING_PROBABILITY]),
    ((ie.SAMPLING_TIME, ie.SAMPLING_TIME_SPACE), _of_space(ie.SAMPLING_TIME, ie.SAMPLING_TIME_SPACE)),
    ((ie.SAMPLER_INTERVAL,), lambda columns: columns[ie.SAMPLER_INTERVAL]),
    ((ie.SAMPLING_INTERVAL,), lambda columns: columns[ie.SAMPLING_INTERVAL]),
)
_NAMES = (ie.SELECTOR_ID, ie.SAMPLER_ID)
_SPEAKS_OF_SAMPLING = frozenset(str(id) for needed, _ in _FORMULAE for id in needed)

Name = tuple[int, int] | None  # (element that names the sampler, its value); None: the domain's


class Samplers:
    """The samplers of one observation domain."""

    def __init__(self, ratios: Mapping[Name, float] | None = None) -> None:
        self.ratios: dict[Name, float] = dict(ratios or {})

    def learn(self, options: RecordBatch) -> bool:
        """Take the ratios from a batch of option records; whether that changed any."""
        told = _told(options)
        if told is None:
            return False
        changed = False
        for name, ratio in zip(_names_of(options), told.tolist(), strict=True):
            if ratio > 0:  # "0" is how some exporters say "off": they told nothing
                changed |= self.keep(name, ratio)
        return changed

    def keep(self, name: Name, ratio: float) -> bool:
        """One sampler's ratio; whether it is news."""
        if self.ratios.get(name) == ratio or (name not in self.ratios and len(self.ratios) >= _MAX_SAMPLERS):
            return False
        self.ratios[name] = ratio
        return True

    def ratio(self, batch: RecordBatch) -> Floats | float:
        """Packets represented by one packet seen, for every record of a data batch or for all of them."""
        if not _SPEAKS_OF_SAMPLING.isdisjoint(batch.template.columns):
            inline = _told(batch)
            if inline is not None:
                return np.maximum(inline, 1.0)
        if not self.ratios:
            return 1.0
        only = next(iter(self.ratios.values())) if len(self.ratios) == 1 else self._common()
        for element in (*_NAMES, ie.INGRESS):
            if any(name is not None and name[0] == element for name in self.ratios):
                names = batch.integers(element)
                if names is not None:
                    return self._by_name(element, names, only)
        return only

    def _common(self) -> float:
        """What holds for records that name none of several: what was told of interface 0, or of no name."""
        return self.ratios.get(None, self.ratios.get((ie.INGRESS, 0), 1.0))

    def _by_name(self, element: int, names: np.ndarray, otherwise: float) -> Floats:
        unique, of = np.unique(names, return_inverse=True)
        ratios = [self.ratios.get((element, int(name)), otherwise) for name in unique]
        return np.array(ratios, dtype=np.float64)[of]


def _told(batch: RecordBatch) -> Floats | None:
    """The ratio that each record tells, at least 1; 0 where it tells none. None: they are not about that."""
    ratio, speaks = np.zeros(len(batch)), False
    for needed, formula in _FORMULAE:
        columns = {id: column for id in needed if (column := _column(batch, id)) is not None}
        if len(columns) == len(needed):
            speaks = True
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                told = formula(columns)
            sane = np.isfinite(told) & (told > 0) & (told <= _MAX_RATIO)
            ratio = np.where((ratio == 0) & sane, np.maximum(told, 1.0), ratio)
    algorithm = batch.integers(ie.SELECTOR_ALGORITHM)
    if algorithm is not None:
        ratio = np.where(algorithm == _FILTERING, 1.0, ratio)
    return ratio if speaks else None


def _names_of(options: RecordBatch) -> Iterator[Name]:
    for element in _NAMES:
        values = options.integers(element)
        if values is not None:
            return ((element, int(value)) for value in values)
    scope = options.template.fields[: options.template.scope_count]
    interfaces = options.integers(ie.INGRESS) if any(field.id == ie.INGRESS for field in scope) else None
    if interfaces is not None:
        return ((ie.INGRESS, int(value)) for value in interfaces)
    return (None for _ in range(len(options)))


def _column(batch: RecordBatch, id: int) -> Floats | None:
    if id == ie.SAMPLING_PROBABILITY:
        return batch.floats(id)
    whole = batch.integers(id)
    return None if whole is None else whole.astype(np.float64)
