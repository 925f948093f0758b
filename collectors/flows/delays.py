"""On-path delay records (RFC 9951) → delay reports per time bin.

The delay is told by the router where the traffic leaves, and the record knows the source only as an address:
so a report's ``device`` is the source's prefix, its destination is the exporter, and DelayReport.device and
PathDelay.destination may each be a node name, an address or a prefix, which the stream resolves. A record's
delay belongs to the bin in which it ends. What comes late is reported again with the new totals, which
replace the old; so totals are kept for ``KEEP_BINS``. A source that was heard of lately and is not in a bin
gets an empty report of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from collectors.flows import elements as ie
from collectors.flows.batch import Floats, Integers, RecordBatch
from collectors.flows.columns import SOURCE, Column, Groups, picked, prefix_text, prefixes
from twin.records import DelayReport, PathDelay

KEEP_BINS = 24
MAX_BIN_PATHS = 4_000  # per exporter and bin; what is beyond is left out and counted


@dataclass
class _Delay:
    """One path in one bin."""

    count: int = 0
    sum_us: float = 0.0
    min_us: float = 2.0**62
    max_us: float = 0.0


class DelayAggregator:
    """The delays of all exporters."""

    def __init__(self, network: str, names: Sequence[str], *, bin_ns: int) -> None:
        self.left_out = 0
        self._network = network
        self._names = names
        self._bin_ns = bin_ns
        self._delays: dict[tuple[int, str], dict[str, _Delay]] = {}  # (bin, source) → destination
        self._paths: Counter[tuple[int, int]] = Counter()  # (bin, device) → paths in _delays
        self._touched: set[tuple[int, str]] = set()  # of _delays, since the last report
        self._sources: dict[str, tuple[int, int]] = {}  # source → oldest and newest bin it was seen in
        self._closed_bin: int | None = None

    def add(self, batch: RecordBatch, device: Column, bins: Integers) -> None:
        """Records, the exporter of each, and the bin in which it ended."""
        source, count = prefixes(batch, SOURCE), batch.counter(ie.PACKETS, ie.PACKETS_TOTAL)
        if source is None or count is None:
            return
        mean_us = _column(batch, ie.DELAY_MEAN_US)
        total_us = mean_us * count if not batch.has(ie.DELAY_SUM_US) else _column(batch, ie.DELAY_SUM_US)
        low_us = _column(batch, ie.DELAY_MIN_US) if batch.has(ie.DELAY_MIN_US) else mean_us
        high_us = _column(batch, ie.DELAY_MAX_US) if batch.has(ie.DELAY_MAX_US) else mean_us
        measured = np.flatnonzero(count > 0)
        keys = [
            picked(column, measured) for column in (bins, device, source.kind, source.upper, source.lower)
        ]
        groups = Groups(keys, len(measured))
        sums = (
            groups.sums(count[measured]),
            groups.sums(total_us[measured]),
            groups.lowest(low_us[measured]),
            groups.highest(high_us[measured]),
        )
        for row in zip(*(column.tolist() for column in (*groups.distinct(), *sums)), strict=True):
            self._merge(row[0], row[1], prefix_text(*row[2:5]), *row[5:])

    def _merge(
        self, bin: int, device: int, source: str, count: float, sum_us: float, low_us: float, high_us: float
    ) -> None:
        key, destination = (bin, source), self._names[device]
        path = self._delays.get(key, {}).get(destination)
        if path is None:
            if self._paths[bin, device] >= MAX_BIN_PATHS:
                self.left_out += 1
                return
            self._paths[bin, device] += 1
            path = self._delays.setdefault(key, {})[destination] = _Delay()
        self._touched.add(key)
        oldest, newest = self._sources.get(source, (bin, bin))
        self._sources[source] = min(bin, oldest), max(bin, newest)
        path.count += int(count)
        path.sum_us += sum_us
        path.min_us, path.max_us = min(path.min_us, low_us), max(path.max_us, high_us)

    def close(self, newest: int, now_ns: int) -> Iterator[DelayReport]:
        """What is due up to this bin, and then what is too old is forgotten."""
        due = {key for key in self._touched if key[0] <= newest}
        self._touched -= due
        first = newest if self._closed_bin is None else self._closed_bin + 1
        known = (source for source, seen in self._sources.items() if seen[0] <= newest)
        quiet = {(newest, source) for source in known} if newest >= first else set()
        for bin, source in sorted(due | quiet):
            delays = self._delays.get((bin, source), {})
            yield DelayReport(
                network=self._network,
                device=source,
                observed_at_ns=max(now_ns, (bin + 1) * self._bin_ns),
                method="ipfix-on-path",
                direction="one-way",
                delays=tuple(self._path_delay(name, bin, delays[name]) for name in sorted(delays)),
            )
        self._forget(newest)

    def _path_delay(self, destination: str, bin: int, delay: _Delay) -> PathDelay:
        return PathDelay(
            destination=destination,
            start_ns=bin * self._bin_ns,
            end_ns=(bin + 1) * self._bin_ns,
            count=delay.count,
            mean_s=delay.sum_us / delay.count * 1e-6,
            min_s=delay.min_us * 1e-6,
            max_s=delay.max_us * 1e-6,
            error_s=1e-6,
        )

    def _forget(self, newest: int) -> None:
        self._closed_bin = max(newest, self._closed_bin or newest)
        oldest = self._closed_bin - KEEP_BINS
        self._delays = {key: one for key, one in self._delays.items() if key[0] >= oldest}
        self._paths = Counter({key: paths for key, paths in self._paths.items() if key[0] >= oldest})
        self._sources = {source: seen for source, seen in self._sources.items() if seen[1] >= oldest}


def _column(batch: RecordBatch, id: int) -> Floats:
    return batch.or_zero(id).astype(np.float64)
