"""Flow records → reports per time bin.

Rules
-----
- *Traffic* is counted where it enters: records with flowDirection 0, or without a direction. Their octets and
  packets, times the sampling ratio, are spread over the bins that the flow's start and end cover, in
  proportion to time, and summed per (destination prefix, DSCP, ingress interface).
- *On-path delay* (RFC 9951) is told by the router where the traffic leaves. The record knows the source only
  as an address: so a report's ``device`` is the source's prefix, its destination is the exporter, and
  DelayReport.device and PathDelay.destination may each be a node name, an address or a prefix, which the
  stream resolves. A record's delay belongs to the bin in which it ends.
- A bin is reported once the clock has passed its end by the grace. What comes later is never lost: traffic is
  reported again as a *supplement* to be added, numbered so that no two are equal; delay is reported again
  with the new totals, which replace the old.
- An exporter that was heard during a bin and brought no traffic gets an empty report: it measured nothing,
  which is not the same as being silent. Likewise sources of delay that were heard of lately.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from collectors.flows import elements as ie
from collectors.flows.batch import Floats, Integers, RecordBatch, join
from collectors.flows.columns import DESTINATION, SOURCE, group, prefixes, spread, times
from collectors.flows.template import Template
from twin.records import DelayReport, FlowCell, FlowReport, PathDelay, Record

MAX_PENDING = 20_000  # records gathered before they are summed: enough for numpy, too few to stall
MAX_CELLS = 4_000  # per report: keeps a message well under 1 MB
MAX_SPAN_BINS = 1_000  # a flow that claims to be longer has a broken clock
KEEP_BINS = 24  # closed bins whose delay totals are kept for late records
_FUTURE_NS = 60_000_000_000

CellKey = tuple[str, int, int]  # destination, DSCP, ingress interface


@dataclass
class _Pending:
    """Batches of one exporter and template that wait to be summed."""

    since_ns: int
    batches: list[RecordBatch] = field(default_factory=list)


@dataclass
class _Traffic:
    """One exporter in one bin."""

    cells: dict[CellKey, list[float]] = field(default_factory=dict)  # [octets, packets]
    odd_times: bool = False
    ratio: float = 1.0


@dataclass
class _Delay:
    """One path in one bin."""

    count: int = 0
    sum_us: float = 0.0
    min_us: int = 2**62
    max_us: int = 0


class FlowAggregator:
    """Gathers the batches of all exporters; ``close`` gives what is due."""

    def __init__(
        self, network: str, devices: Mapping[str, str], *, bin_ns: int, grace_ns: int = 1_000_000_000
    ) -> None:
        self._network = network
        self._devices = devices  # exporter address → device
        self._bin_ns = bin_ns
        self._grace_ns = grace_ns
        self._pending: dict[tuple[str, Template], _Pending] = {}
        self._pending_records = 0
        self._traffic: dict[tuple[int, str], _Traffic] = {}  # (bin, device)
        self._delays: dict[tuple[int, str], dict[str, _Delay]] = {}  # (bin, source) → destination
        self._touched: set[tuple[int, str]] = set()  # of _delays, since the last report
        self._sources: dict[str, tuple[int, int]] = {}  # source → oldest and newest bin it was seen in
        self._supplements: Counter[tuple[int, str]] = Counter()
        self._lost: Counter[str] = Counter()
        self._closed_bin: int | None = None  # the newest bin that was reported

    def add(self, batch: RecordBatch, now_ns: int) -> None:
        """Take a batch of an exporter of the inventory."""
        device = self._devices[batch.address]
        self._bin((now_ns - self._grace_ns) // self._bin_ns, device)  # heard: a report is due, if empty
        if batch.is_options:
            return
        self._pending.setdefault((device, batch.template), _Pending(now_ns)).batches.append(batch)
        self._pending_records += len(batch)
        if self._pending_records >= MAX_PENDING:
            self._sum()

    def lost(self, address: str, records: int) -> None:
        """Records of an exporter that a sequence gap shows as lost: told in its next report."""
        self._lost[self._devices[address]] += records

    def close(self, now_ns: int) -> list[Record]:
        """Reports of every bin that is over, and supplements to those reported before."""
        self._sum()
        newest = (now_ns - self._grace_ns) // self._bin_ns - 1
        due = sorted(key for key in self._traffic if key[0] <= newest)
        reports: list[Record] = []
        for key in due:
            reports += self._flow_reports(key, self._traffic.pop(key))
        reports += self._delay_reports(newest, now_ns)
        self._forget(newest)
        return reports

    # -------------------------------------------------------------------------------------- summing up

    def _sum(self) -> None:
        pending, self._pending, self._pending_records = self._pending, {}, 0
        for (device, _), gathered in pending.items():
            batch = join(gathered.batches)
            start_ns, end_ns, odd = self._times(batch, gathered.since_ns)
            if batch.has(ie.DELAY_SUM_US) or batch.has(ie.DELAY_MEAN_US):
                self._add_delays(device, batch, end_ns)
            if batch.has(ie.OCTETS):
                self._add_traffic(device, batch, start_ns, end_ns, odd=odd)

    def _times(self, batch: RecordBatch, now_ns: int) -> tuple[Integers, Integers, bool]:
        """Start and end; a flow with times that cannot be is taken as an instant, now."""
        start_ns, end_ns = times(batch)
        oldest_ns = now_ns - MAX_SPAN_BINS * self._bin_ns
        odd = (end_ns > now_ns + _FUTURE_NS) | (start_ns < oldest_ns)
        return np.where(odd, now_ns, start_ns), np.where(odd, now_ns, end_ns), bool(odd.any())

    def _add_traffic(
        self, device: str, batch: RecordBatch, start_ns: Integers, end_ns: Integers, *, odd: bool
    ) -> None:
        destination = prefixes(batch, DESTINATION)
        octets = batch.integers(ie.OCTETS)
        if destination is None or octets is None:
            return
        entering = _or_zero(batch, ie.DIRECTION) == 0
        scale = np.where(entering, np.asarray(batch.ratio, dtype=np.float64), 0.0)
        shares = spread(start_ns, end_ns, self._bin_ns)
        shares_entering = entering[shares.record]
        record, bins = shares.record[shares_entering], shares.bin[shares_entering]
        weight = shares.share[shares_entering] * scale[record]
        columns = (bins, destination.codes[record], _dscp(batch)[record], _or_zero(batch, ie.INGRESS)[record])
        rows, of = group(*columns)
        octets_sum = np.bincount(of, octets[record] * weight, len(rows[0]))
        packets_sum = np.bincount(of, _or_zero(batch, ie.PACKETS)[record] * weight, len(rows[0]))
        ratio = float(np.max(batch.ratio)) if len(batch) else 1.0
        for bin, code, dscp, ingress, octet, packet in _rows(*rows, octets_sum, packets_sum):
            into = self._bin(bin, device)
            into.odd_times |= odd
            into.ratio = max(into.ratio, ratio)
            cell = into.cells.setdefault((destination.values[code], dscp, ingress), [0.0, 0.0])
            cell[0] += octet
            cell[1] += packet

    def _add_delays(self, device: str, batch: RecordBatch, end_ns: Integers) -> None:
        source, count = prefixes(batch, SOURCE), batch.integers(ie.PACKETS)
        if source is None or count is None:
            return
        mean_us = _or_zero(batch, ie.DELAY_MEAN_US)
        total = batch.integers(ie.DELAY_SUM_US)
        total_us: Integers | Floats = total if total is not None else mean_us * count
        low = batch.integers(ie.DELAY_MIN_US)
        high = batch.integers(ie.DELAY_MAX_US)
        bins = (end_ns - 1) // self._bin_ns
        for bin, code, packets, sum_us, min_us, max_us in _rows(
            bins,
            source.codes,
            count,
            total_us,
            mean_us if low is None else low,
            mean_us if high is None else high,
        ):
            if packets <= 0:
                continue
            key = (bin, source.values[code])
            self._touched.add(key)
            oldest, newest = self._sources.get(key[1], (bin, bin))
            self._sources[key[1]] = min(bin, oldest), max(bin, newest)
            into = self._delays.setdefault(key, {}).setdefault(device, _Delay())
            into.count += packets
            into.sum_us += sum_us
            into.min_us, into.max_us = min(into.min_us, min_us), max(into.max_us, max_us)

    def _bin(self, bin: int, device: str) -> _Traffic:
        return self._traffic.setdefault((bin, device), _Traffic())

    # --------------------------------------------------------------------------------------- reporting

    def _flow_reports(self, key: tuple[int, str], traffic: _Traffic) -> Iterator[FlowReport]:
        bin, device = key
        cells = [
            FlowCell(destination=d, traffic_class=c, ingress_interface=i, octets=octets, packets=packets)
            for (d, c, i), (octets, packets) in sorted(traffic.cells.items())
        ]
        late = self._closed_bin is not None and bin <= self._closed_bin
        if late and not cells:
            return
        for start in range(0, max(len(cells), 1), MAX_CELLS):
            part = self._supplements[key]
            self._supplements[key] += 1
            yield FlowReport(
                network=self._network,
                device=device,
                start_ns=bin * self._bin_ns,
                end_ns=(bin + 1) * self._bin_ns,
                cells=tuple(cells[start : start + MAX_CELLS]),
                sampling_ratio=traffic.ratio,
                lost_records=max(self._lost.pop(device, 0), 0),
                quality=_quality(traffic, part, late=late),
            )

    def _delay_reports(self, newest: int, now_ns: int) -> Iterator[DelayReport]:
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
                delays=tuple(
                    self._path_delay(destination, bin, delays[destination]) for destination in sorted(delays)
                ),
            )

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
        self._sources = {source: seen for source, seen in self._sources.items() if seen[1] >= oldest}
        for key in [key for key in self._supplements if key[0] < self._closed_bin - MAX_SPAN_BINS]:
            del self._supplements[key]


def _quality(traffic: _Traffic, part: int, *, late: bool) -> tuple[str, ...]:
    flags = [f"supplement-{part}"] if part else []
    if late or part:
        flags.insert(0, "supplement")
    if traffic.odd_times:
        flags.append("flow-times")
    return tuple(flags)


def _or_zero(batch: RecordBatch, id: int) -> Integers:
    column = batch.integers(id)
    return np.zeros(len(batch), dtype=np.int64) if column is None else column


def _dscp(batch: RecordBatch) -> Integers:
    """The class: ipDiffServCodePoint, else the upper six bits of ipClassOfService."""
    dscp = batch.integers(ie.DSCP)
    return _or_zero(batch, ie.TOS) >> 2 if dscp is None else dscp


def _rows(*columns: Integers | Floats) -> Iterable[tuple[int, ...]]:
    """Columns → rows of plain Python numbers."""
    return zip(*(column.tolist() for column in columns), strict=True)
