"""Flow records → reports per time bin.

Rules
-----
- *Traffic* is counted where it enters: records with flowDirection 0, or without a direction, and all of an
  exporter whose directions are not believed; how many are left out is told (``directions``). Octets and
  packets, times the sampling ratio, are spread over the bins that the flow's start and end cover, in
  proportion to time, and summed per (destination prefix, DSCP, ingress interface). How fine the prefixes are
  and whether classes are told apart is the operator's choice (:class:`Granularity`).
- *On-path delay* (RFC 9951) is told by the router where the traffic leaves (:mod:`collectors.flows.delays`).
- A bin is reported once the clock has passed its end by the grace. What comes later is never lost: traffic is
  reported again as a *supplement* to be added, numbered so that no two are equal. What lies further back than
  ``KEEP_BINS`` is added to the oldest bin kept.
- An exporter that was heard during a bin and brought no traffic gets an empty report: it measured nothing,
  which is not the same as being silent.
- An exporter has at most ``MAX_BIN_CELLS`` cells a bin; what is beyond goes into one without a destination,
  flagged ``cells-folded``.

Records are summed when many are together, those of all exporters with one template at once: cost is by the
record then, a tenth of a microsecond, and not by the message or the exporter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from collectors.flows import elements as ie
from collectors.flows.batch import Floats, Integers, RecordBatch, join, per_record
from collectors.flows.columns import (
    DESTINATION,
    Column,
    Groups,
    Rows,
    Shares,
    picked,
    prefix_text,
    prefixes,
    spread,
    times,
)
from collectors.flows.delays import DelayAggregator
from collectors.flows.table import Keys, Table, Values, runs
from collectors.flows.template import Template
from twin.records import FlowCell, FlowReport, Record

MAX_PENDING = 65_536  # records gathered before they are summed: some 10 ms of work
MAX_ROWS = 262_144  # records times bins that are worked on at once
MAX_CELLS = 4_000  # per report: keeps a message well under 1 MB
MAX_BIN_CELLS = 20_000  # per exporter and bin
MAX_SPAN_BINS = 1_000  # a flow that claims to be longer has a broken clock
KEEP_BINS = 24  # how far back late traffic is put where it belongs
_FUTURE_NS = 60_000_000_000


@dataclass(frozen=True)
class Granularity:
    """How finely traffic is told apart: more is exact, and costs messages and memory."""

    longest_v4: int = 32  # longest prefixes of destinations; hosts where exporters tell no lengths
    longest_v6: int = 128
    per_class: bool = True


@dataclass
class _Pending:
    """Batches of one template that wait to be summed."""

    since_ns: int
    devices: list[int] = field(default_factory=list)
    batches: list[RecordBatch] = field(default_factory=list)


@dataclass(frozen=True)
class _Cells:
    """What a batch says of traffic, record by record."""

    keys: tuple[Column, ...]
    octets: Floats  # scaled by the sampling ratio, as packets are
    packets: Floats
    ratio: Floats | float
    odd: Floats | float  # 1 where a flow's times cannot be
    start_ns: Integers
    end_ns: Integers

    def picked(self, rows: Rows) -> _Cells:
        """Some of them."""
        return _Cells(
            tuple(picked(column, rows) for column in self.keys),
            self.octets[rows],
            self.packets[rows],
            _values(self.ratio, rows),
            _values(self.odd, rows),
            self.start_ns[rows],
            self.end_ns[rows],
        )


class FlowAggregator:
    """Gathers the batches of all exporters; ``close`` gives what is due."""

    def __init__(
        self,
        network: str,
        devices: Mapping[str, str],
        *,
        bin_ns: int,
        grace_ns: int = 1_000_000_000,
        granularity: Granularity | None = None,
        worker: int = 0,
        undirected: Collection[str] = (),
    ) -> None:
        self._network = network
        self._bin_ns = bin_ns
        self._grace_ns = grace_ns
        self._granularity = granularity or Granularity()
        self._worker = worker  # of several processes that share a port
        self._names = sorted(set(devices.values()))
        index = {name: i for i, name in enumerate(self._names)}
        self._devices = {address: index[name] for address, name in devices.items()}
        self._undirected = np.array([name in undirected for name in self._names], dtype=bool)
        # Of every device: records that told a direction, and those of them that were not counted for it.
        self._told, self._left_out = np.zeros(len(index), np.int64), np.zeros(len(index), np.int64)
        self._pending: dict[Template, _Pending] = {}
        self._pending_records = 0
        # bin, device, prefix (3), DSCP, ingress → octets, packets, ratio, odd times, folded
        self._traffic = Table(7, (Groups.sums, Groups.sums, Groups.highest, Groups.highest, Groups.highest))
        self._heard: set[tuple[int, int]] = set()  # (bin, device)
        self._delays = DelayAggregator(network, self._names, bin_ns=bin_ns)
        self._supplements: Counter[tuple[int, int]] = Counter()
        self._lost: Counter[int] = Counter()
        self._flaws: dict[tuple[int, int], set[str]] = {}  # (bin, device) → flags of its report
        self._closed_bin: int | None = None  # the newest bin that was reported

    def add(self, batch: RecordBatch, now_ns: int) -> None:
        """Take a batch of an exporter of the inventory."""
        device = self._devices[batch.address]
        self._heard.add((self._bin_at(now_ns), device))  # a report is due, if empty
        if batch.is_options:
            return
        pending = self._pending.get(batch.template)
        if pending is not None and abs(now_ns - pending.since_ns) > self._bin_ns:
            self._sum()  # what is read late is judged by the time it came, not by that of what came before
            pending = None
        if pending is None:
            pending = self._pending[batch.template] = _Pending(now_ns)
        pending.devices.append(device)
        pending.batches.append(batch)
        self._pending_records += len(batch)
        if self._pending_records >= MAX_PENDING:
            self._sum()

    def lost(self, address: str, records: int) -> None:
        """Records of an exporter that a sequence gap shows as lost: told in its next report."""
        self._lost[self._devices[address]] += records

    def flawed(self, address: str, flag: str, now_ns: int) -> None:
        """Something of an exporter could not be read: its report of this bin is flagged, if there is one.

        (Where nothing could be read there is none, and its flows are missing.)"""
        self._flaws.setdefault((self._bin_at(now_ns), self._devices[address]), set()).add(flag)

    def _bin_at(self, now_ns: int) -> int:
        return (now_ns - self._grace_ns) // self._bin_ns

    def directions(self) -> Iterator[tuple[str, int, int]]:
        """Device, records that told a direction so far, those of them that were not counted."""
        for i in np.flatnonzero(self._told).tolist():
            yield self._names[i], int(self._told[i]), int(self._left_out[i])

    @property
    def unreported_bin(self) -> int | None:
        """The newest bin that has traffic which was not reported, after ``close``; None: all was."""
        return self._traffic.highest

    @property
    def closed_bin(self) -> int | None:
        """The newest bin that was reported."""
        return self._closed_bin

    def close(self, now_ns: int) -> list[Record]:
        """Reports of every bin that is over, and supplements to those reported before."""
        self._sum()
        newest = self._bin_at(now_ns) - 1
        reports: list[Record] = list(self._flow_reports(newest))
        reports += self._delays.close(newest, now_ns)
        self._closed_bin = max(newest, self._closed_bin or newest)
        for key in [key for key in self._supplements if key[0] < self._closed_bin - MAX_SPAN_BINS]:
            del self._supplements[key]
        return reports

    # -------------------------------------------------------------------------------------- summing up

    def _sum(self) -> None:
        pending, self._pending, self._pending_records = self._pending, {}, 0
        for gathered in pending.values():
            batch = join(gathered.batches)
            device = per_record(gathered.devices, [len(one) for one in gathered.batches], np.int64)
            start_ns, end_ns, odd = self._times(batch, gathered.since_ns)
            oldest = gathered.since_ns // self._bin_ns - KEEP_BINS
            if batch.has(ie.DELAY_SUM_US) or batch.has(ie.DELAY_MEAN_US):
                self._delays.add(batch, device, np.maximum((end_ns - 1) // self._bin_ns, oldest))
            cells = self._cells_of(batch, device, start_ns, end_ns, odd)
            if cells is not None:
                self._add_traffic(self._entering(batch, device, cells), oldest)

    def _times(self, batch: RecordBatch, now_ns: int) -> tuple[Integers, Integers, Floats | float]:
        """Start, end, and 1 where a flow has times that cannot be: it is taken as an instant, now."""
        start_ns, end_ns = times(batch)
        oldest_ns = now_ns - MAX_SPAN_BINS * self._bin_ns
        if not len(batch) or (int(end_ns.max()) <= now_ns + _FUTURE_NS and int(start_ns.min()) >= oldest_ns):
            return start_ns, end_ns, 0.0
        odd = (end_ns > now_ns + _FUTURE_NS) | (start_ns < oldest_ns)
        return np.where(odd, now_ns, start_ns), np.where(odd, now_ns, end_ns), odd.astype(np.float64)

    def _cells_of(
        self, batch: RecordBatch, device: Column, start_ns: Integers, end_ns: Integers, odd: Floats | float
    ) -> _Cells | None:
        """What a batch says of traffic: None if it says nothing."""
        choice = self._granularity
        destination = prefixes(batch, DESTINATION, choice.longest_v4, choice.longest_v6)
        octets = batch.counter(ie.OCTETS, ie.OCTETS_TOTAL)
        if destination is None or octets is None:
            return None
        packets = batch.counter(ie.PACKETS, ie.PACKETS_TOTAL)
        return _Cells(
            keys=(device, destination.kind, destination.upper, destination.lower,
                  self._class(batch), _ingress(batch)),
            octets=_scaled(octets, batch.ratio),
            packets=np.zeros(len(batch)) if packets is None else _scaled(packets, batch.ratio),
            ratio=batch.ratio,
            odd=odd,
            start_ns=start_ns,
            end_ns=end_ns,
        )  # fmt: skip

    def _entering(self, batch: RecordBatch, device: Column, cells: _Cells) -> _Cells:
        """The records that count."""
        if not batch.has(ie.DIRECTION):
            return cells
        self._told += self._of_devices(device, len(batch))
        direction = None if batch.one_value(ie.DIRECTION) == 0 else batch.integers(ie.DIRECTION)
        if direction is None:
            return cells
        leaves = np.flatnonzero((direction != 0) & ~self._undirected[device])
        if not len(leaves):
            return cells
        self._left_out += self._of_devices(picked(device, leaves), len(leaves))
        enters = np.ones(len(batch), dtype=bool)
        enters[leaves] = False
        return cells.picked(np.flatnonzero(enters))

    def _of_devices(self, device: Column, rows: int) -> Integers:
        """How many rows each device has."""
        if isinstance(device, int):
            return np.where(np.arange(len(self._names)) == device, rows, 0)
        return np.bincount(device, minlength=len(self._names))

    def _add_traffic(self, cells: _Cells, oldest: int) -> None:
        for some in _parts(cells, self._bin_ns):
            part = cells.picked(some)
            for shares in spread(part.start_ns, part.end_ns, self._bin_ns, oldest):
                self._add_shares(part, shares)
            if self._traffic.should_merge:
                self._traffic.replace(*self._folded(*self._traffic.merged()))

    def _add_shares(self, cells: _Cells, shares: Shares) -> None:
        keys = [shares.bin, *(picked(column, shares.record) for column in cells.keys)]
        values = (
            _scaled(cells.octets[shares.record], shares.share),
            _scaled(cells.packets[shares.record], shares.share),
            _values(cells.ratio, shares.record),
            _values(cells.odd, shares.record),
            0.0,
        )
        self._traffic.add(keys, values, len(shares.bin))

    def _class(self, batch: RecordBatch) -> Column:
        """The class: ipDiffServCodePoint, else the upper six bits of ipClassOfService."""
        if not self._granularity.per_class:
            return 0
        dscp = batch.integers(ie.DSCP)
        return batch.or_zero(ie.TOS) >> 2 if dscp is None else dscp

    def _folded(self, keys: Keys, values: Values) -> tuple[Keys, Values]:
        """Rows in order, with what an exporter has beyond its cells of a bin folded into one."""
        starts, run = runs(keys[0], keys[1])
        if not len(keys[0]) or int(np.diff(starts).max()) <= MAX_BIN_CELLS:
            return keys, values
        beyond = np.arange(len(run)) - starts[run] >= MAX_BIN_CELLS
        folded = [*keys[:2], *(np.where(beyond, 0, key) for key in keys[2:])]  # 0.0.0.0/0
        return self._traffic.grouped(folded, [*values[:-1], np.maximum(values[-1], beyond)], len(run))

    # --------------------------------------------------------------------------------------- reporting

    def _flow_reports(self, newest: int) -> Iterator[FlowReport]:
        keys, values = self._folded(*self._traffic.take(newest))
        bounds, _ = runs(keys[0], keys[1])
        found = {
            (int(keys[0][start]), int(keys[1][start])): slice(start, end)
            for start, end in pairwise(bounds.tolist())
        }
        due = {key for key in self._heard if key[0] <= newest}
        self._heard -= due
        for key in sorted(found.keys() | due):
            rows = found.get(key, slice(0, 0))
            yield from self._reports(key, [column[rows] for column in keys], [v[rows] for v in values])
        for key in [key for key in self._flaws if key[0] <= newest]:
            del self._flaws[key]

    def _reports(self, key: tuple[int, int], keys: Keys, values: Values) -> Iterator[FlowReport]:
        """One exporter's bin, in as many reports as its cells need."""
        bin, device = key
        keys, values = _with_traffic(keys, values)
        late = self._closed_bin is not None and bin <= self._closed_bin
        if late and not len(keys[0]):
            return
        flags = [
            name for name, told in zip(("flow-times", "cells-folded"), values[3:], strict=True) if told.any()
        ]
        flags += sorted(self._flaws.get(key, ()))
        for start in range(0, max(len(keys[0]), 1), MAX_CELLS):
            rows = slice(start, start + MAX_CELLS)
            part = self._supplements[key]
            self._supplements[key] += 1
            yield FlowReport(
                network=self._network,
                device=self._names[device],
                start_ns=bin * self._bin_ns,
                end_ns=(bin + 1) * self._bin_ns,
                cells=tuple(_cells([column[rows] for column in keys], [value[rows] for value in values])),
                sampling_ratio=float(values[2].max(initial=1.0)),
                lost_records=max(self._lost.pop(device, 0), 0),
                quality=(*self._numbering(part, late=late), *flags),
            )

    def _numbering(self, part: int, *, late: bool) -> list[str]:
        """What makes the reports of one bin differ from one another."""
        numbers = ["supplement"] if late or part else []
        numbers += [f"supplement-{part}"] if part else []
        return numbers + ([f"supplement-worker-{self._worker}"] if self._worker else [])


def _with_traffic(keys: Keys, values: Values) -> tuple[Keys, Values]:
    """Without cells of nothing: padding longer than a record is read as records (nfdump #56)."""
    some = (values[0] > 0) | (values[1] > 0)
    if some.all():
        return keys, values
    return [column[some] for column in keys], [value[some] for value in values]


def _cells(keys: Keys, values: Values) -> Iterator[FlowCell]:
    columns = [column.tolist() for column in (*keys[2:], *values[:2])]
    for kind, upper, lower, traffic_class, ingress, octets, packets in zip(*columns, strict=True):
        yield FlowCell(
            destination=prefix_text(kind, upper, lower),
            octets=octets,
            packets=packets,
            traffic_class=traffic_class,
            ingress_interface=ingress,
        )


def _ingress(batch: RecordBatch) -> Integers:
    """ingressInterface, or, where an exporter tells that instead, the physical one (goflow2 #105)."""
    logical = batch.or_zero(ie.INGRESS)
    if not batch.has(ie.PHYSICAL_INGRESS):
        return logical
    return np.where(logical == 0, batch.or_zero(ie.PHYSICAL_INGRESS), logical)


def _parts(cells: _Cells, bin_ns: int) -> Iterator[slice]:
    """The records in parts, so that those times their bins are never too many at once."""
    rows, step = len(cells.octets), MAX_ROWS
    if rows and int((cells.end_ns - cells.start_ns).max()) > bin_ns:
        step //= KEEP_BINS + 1 + _FUTURE_NS // bin_ns
    for start in range(0, rows, max(step, 1)):
        yield slice(start, start + step)


def _scaled(values: Floats, factor: Floats | float) -> Floats:
    return values if isinstance(factor, float) and factor == 1.0 else values * factor


def _values(column: Floats | float, rows: Rows) -> Floats | float:
    return column if isinstance(column, float) else column[rows]
