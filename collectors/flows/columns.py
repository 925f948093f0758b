"""What aggregation needs of a batch: prefixes, times and groups, as arrays of integers.

A prefix is three integers (*kind*, upper, lower half of the network address), where kind is its length, plus
256 for IPv6. So prefixes compare, group and travel as numbers, and only those that are reported become text.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from collectors.flows import elements as ie
from collectors.flows.batch import Floats, Integers, RecordBatch

_NS_PER_S, _NS_PER_MS, _NS_PER_US = 1_000_000_000, 1_000_000, 1_000
_V6 = 256
_ROOM = 2**62  # for combined keys
_SMALL = 64  # numbers so small are taken as they are
_DENSE = 4  # keys that reach to so many times their number are counted instead of sorted
_TIMES = (
    (ie.START_MS, ie.END_MS),
    (ie.START_NS, ie.END_NS),
    (ie.START_US, ie.END_US),
    (ie.START_S, ie.END_S),
)


@dataclass(frozen=True)
class Side:
    """Which elements say where a flow comes from, or where it goes."""

    ipv4: int
    length_v4: int
    ipv6: int
    length_v6: int


SOURCE = Side(ie.SOURCE_IPV4, ie.SOURCE_PREFIX_V4, ie.SOURCE_IPV6, ie.SOURCE_PREFIX_V6)
DESTINATION = Side(
    ie.DESTINATION_IPV4, ie.DESTINATION_PREFIX_V4, ie.DESTINATION_IPV6, ie.DESTINATION_PREFIX_V6
)


Column = Integers | int  # one number where all rows have the same
Rows = Integers | slice  # some rows of columns, or a range of them


@dataclass(frozen=True)
class Prefixes:
    """A column of prefixes."""

    kind: Column
    upper: Column
    lower: Integers


def prefixes(batch: RecordBatch, side: Side, longest_v4: int = 32, longest_v6: int = 128) -> Prefixes | None:
    """The addresses, masked with the exported prefix length (none told: a host), at most the longest."""
    whole = batch.ipv4(side.ipv4)
    if whole is not None:
        lengths = _lengths(batch, side.length_v4, 32, longest_v4)
        return Prefixes(lengths, 0, whole & -(1 << (32 - lengths)))
    halves = batch.halves(side.ipv6)
    if halves is None:
        return None
    each = np.broadcast_to(_lengths(batch, side.length_v6, 128, longest_v6), len(batch))
    return Prefixes(each + _V6, halves[0] & _mask(each), halves[1] & _mask(each - 64))


def _lengths(batch: RecordBatch, id: int, bits: int, longest: int) -> Column:
    """Prefix lengths; 0, which exporters send for "no route known", and nonsense count as host length."""
    one = batch.one_value(id)
    if one is not None:
        return min(one if 0 < one <= bits else bits, longest)
    lengths = batch.integers(id)
    if lengths is None:
        return longest
    return np.minimum(np.where((lengths > 0) & (lengths <= bits), lengths, bits), longest)


def picked(column: Column, rows: Rows) -> Column:
    """These rows of a column."""
    return column if isinstance(column, int) else column[rows]


def _mask(lengths: Integers) -> Integers:
    """So many leading ones of 64; a shift by 64 is none to numpy, so it is spelt out."""
    masks: Integers = np.where(lengths <= 0, 0, -1 << np.clip(64 - lengths, 0, 63))
    return masks


@lru_cache(maxsize=65_536)
def prefix_text(kind: int, upper: int, lower: int) -> str:
    """CIDR."""
    if kind < _V6:
        return f"{socket.inet_ntoa(lower.to_bytes(4, 'big'))}/{kind}"
    address = (upper % 2**64).to_bytes(8, "big") + (lower % 2**64).to_bytes(8, "big")
    return f"{socket.inet_ntop(socket.AF_INET6, address)}/{kind - _V6}"


def times(batch: RecordBatch) -> tuple[Integers, Integers]:
    """Flow start and end in nanoseconds; the export time where the record does not say."""
    for start, end in _TIMES:
        start_ns, end_ns = batch.times_ns(start), batch.times_ns(end)
        if start_ns is not None and end_ns is not None:
            return np.minimum(start_ns, end_ns), end_ns
    sent_ns = np.full(len(batch), batch.export_time_s, dtype=np.int64) * _NS_PER_S
    ages = _ages_ns(batch)
    if ages is None:
        return sent_ns, sent_ns
    return sent_ns - np.maximum(*ages), sent_ns - ages[1]


def _ages_ns(batch: RecordBatch) -> tuple[Integers, Integers] | None:
    """How long before the message was sent the flow started and ended, where the record tells it so.

    By system uptimes, which are 32 bits of milliseconds and start over after 49.7 days: a difference of less
    than half of that has only one meaning.
    """
    start, end = batch.integers(ie.START_DELTA_US), batch.integers(ie.END_DELTA_US)
    if start is not None and end is not None:
        return start * _NS_PER_US, end * _NS_PER_US
    start, end = batch.integers(ie.START_UPTIME), batch.integers(ie.END_UPTIME)
    uptime_ms = _uptime_ms(batch)
    if uptime_ms is None or start is None or end is None:
        return None
    return _less_ms(uptime_ms, start) * _NS_PER_MS, _less_ms(uptime_ms, end) * _NS_PER_MS


def _uptime_ms(batch: RecordBatch) -> Integers | int | None:
    boot_ns = batch.times_ns(ie.BOOT_MS)
    if boot_ns is not None:
        return batch.export_time_s * 1000 - boot_ns // _NS_PER_MS
    told = not isinstance(batch.uptime_ms, int) or batch.uptime_ms != -1
    return batch.uptime_ms if told else None


def _less_ms(uptime_ms: Integers | int, then_ms: Integers) -> Integers:
    return (uptime_ms - then_ms + 2**31) % 2**32 - 2**31


@dataclass(frozen=True)
class Shares:
    """Records spread over time bins: entry k is a share of record ``record[k]``, in bin ``bin[k]``."""

    record: Rows
    bin: Integers
    share: Floats | float


def spread(start_ns: Integers, end_ns: Integers, bin_ns: int, oldest: int = -(2**31)) -> Iterator[Shares]:
    """Spread every record over the bins it covers, in proportion to time; an instant lies in one bin.

    What a record covers before the oldest bin belongs to that. First come all records with their first bins,
    as they lie: most have no other; then what is left of those that have.
    """
    first = np.maximum(start_ns // bin_ns, oldest)
    last = (end_ns - 1) // bin_ns
    across = np.flatnonzero(last > first)
    if not len(across):
        yield Shares(slice(None), first, 1.0)
        return
    share, span = np.ones(len(first)), (end_ns - start_ns)[across]
    share[across] = ((first[across] + 1) * bin_ns - start_ns[across]) / span
    yield Shares(slice(None), first, share)
    others = (last - first)[across]
    which = np.repeat(np.arange(len(across)), others)
    record = across[which]
    bins = first[record] + 1 + np.arange(len(record)) - np.repeat(np.cumsum(others) - others, others)
    part = np.minimum(end_ns[record], (bins + 1) * bin_ns) - bins * bin_ns
    yield Shares(record, bins, part / span[which])


class Groups:
    """Rows grouped by integer columns: equal rows are one group.

    The columns become one integer key. Where the keys lie close together they are counted, else sorted.
    """

    def __init__(self, columns: Sequence[Column], rows: int) -> None:
        self._columns = columns
        key, size = _combined(columns, rows)
        self._key, self._size = (key, size) if size <= _DENSE * rows else _sorted(key)
        example = np.full(self._size, -1, dtype=np.int64)
        example[self._key] = np.arange(rows)
        self._taken = np.flatnonzero(example >= 0)
        self.examples = example[self._taken]  # a row of every group

    def __len__(self) -> int:
        return len(self.examples)

    @cached_property
    def of(self) -> Integers:
        """The group of every row."""
        if len(self) == self._size:
            return self._key
        number = np.zeros(self._size, dtype=np.int64)
        number[self._taken] = np.arange(len(self))
        return number[self._key]

    def distinct(self) -> list[Integers]:
        """The distinct rows, column by column, in order."""
        return [
            np.full(len(self), column) if isinstance(column, int) else column[self.examples]
            for column in self._columns
        ]

    def sums(self, values: Floats | float) -> Floats:
        """Of every group."""
        each = None if isinstance(values, float) else values
        summed = np.bincount(self._key, each, self._size)[self._taken].astype(np.float64, copy=False)
        return summed * values if isinstance(values, float) else summed

    def highest(self, values: Floats | float) -> Floats:
        """Of every group."""
        if isinstance(values, float):
            return np.full(len(self), values)
        most: Floats = np.full(len(self), -np.inf)
        np.maximum.at(most, self.of, values)
        return most

    def lowest(self, values: Floats | float) -> Floats:
        """Of every group."""
        return -self.highest(-values)


def _sorted(key: Integers) -> tuple[Integers, int]:
    """Keys without gaps, in the same order; how many."""
    order = np.argsort(key)
    in_order = key[order]
    first = np.ones(len(key), dtype=bool)
    np.not_equal(in_order[1:], in_order[:-1], out=first[1:])
    of = np.empty(len(key), dtype=np.int64)
    of[order] = np.cumsum(first) - 1
    return of, int(np.count_nonzero(first))


def _combined(columns: Sequence[Column], rows: int) -> tuple[Integers, int]:
    """One integer a row, equal exactly where the rows are: the columns as digits of mixed radix; the range.

    Bits that are zero in a whole column, as hosts' are in prefixes, are left out. Where the ranges have no
    room in 63 bits together, what there is so far, and then the column, is numbered first.
    """
    combined, size = np.zeros(rows, dtype=np.int64), 1
    for column in columns if rows else ():
        if isinstance(column, int):
            continue
        lowest, highest = int(column.min()), int(column.max())
        if lowest == highest:
            continue
        digits, span = _digits(column, lowest, highest)
        if span * size >= _ROOM and size > 1:
            combined, size = _numbered(combined)
        if span * size >= _ROOM:
            digits, span = _numbered(digits)
        if size > 1:
            combined *= span
            combined += digits
        else:
            combined = digits if digits is not column else column.copy()
        size *= span
    return combined, size


def _digits(column: Integers, lowest: int, highest: int) -> tuple[Integers, int]:
    """The column as numbers from 0 on, as far as that is worth a look at every row; their range."""
    if lowest >= 0 and highest < _SMALL:
        return column, highest + 1
    span = highest - lowest + 1
    if span >= _ROOM:
        return column, span
    digits = column - lowest
    if span < _SMALL:
        return digits, span
    zeros = _trailing_zeros(int(np.bitwise_or.reduce(digits)))
    return digits >> zeros, ((span - 1) >> zeros) + 1


def _trailing_zeros(bits: int) -> int:
    return (bits & -bits).bit_length() - 1


def _numbered(column: Integers) -> tuple[Integers, int]:
    unique, codes = np.unique(column, return_inverse=True)
    return codes.astype(np.int64), len(unique)
