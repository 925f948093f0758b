"""What aggregation needs of a batch: prefixes, times and groups, as arrays."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collectors.flows import elements as ie
from collectors.flows.batch import Floats, Integers, RecordBatch

_NS_PER_MS = 1_000_000
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


@dataclass(frozen=True)
class Coded:
    """A column of few different values: the value of record i is ``values[codes[i]]``."""

    codes: Integers
    values: tuple[str, ...]


def prefixes(batch: RecordBatch, side: Side) -> Coded | None:
    """The address, masked with the exported prefix length (host length where none is told), as CIDR."""
    whole = batch.integers(side.ipv4)
    if whole is not None:
        return _prefixes_v4(whole, batch.integers(side.length_v4))
    octets = batch.octets(side.ipv6)
    if octets is not None:
        return _prefixes_v6(octets, batch.integers(side.length_v6))
    return None


def _prefixes_v4(addresses: Integers, lengths: Integers | None) -> Coded:
    lengths = _lengths(lengths, len(addresses), 32)
    masked = (addresses >> (32 - lengths)) << (32 - lengths)
    unique, codes = np.unique(masked | lengths << 32, return_inverse=True)
    names = tuple(f"{ipaddress.IPv4Address(int(u) & 0xFFFFFFFF)}/{int(u) >> 32}" for u in unique)
    return Coded(codes.astype(np.int64), names)


def _prefixes_v6(addresses: list[bytes], lengths: Integers | None) -> Coded:
    lengths = _lengths(lengths, len(addresses), 128)
    known: dict[tuple[bytes, int], int] = {}
    codes = [
        known.setdefault((address[:16].ljust(16, b"\0"), int(length)), len(known))
        for address, length in zip(addresses, lengths, strict=True)
    ]
    names = tuple(str(ipaddress.ip_network(key, strict=False)) for key in known)
    return Coded(np.array(codes, dtype=np.int64), names)


def _lengths(lengths: Integers | None, count: int, longest: int) -> Integers:
    """Prefix lengths; 0, which exporters send for "no route known", and nonsense count as host length."""
    if lengths is None:
        return np.full(count, longest, dtype=np.int64)
    return np.where((lengths > 0) & (lengths <= longest), lengths, longest)


def times(batch: RecordBatch) -> tuple[Integers, Integers]:
    """Flow start and end in nanoseconds; the export time where the record does not say."""
    for start, end in _TIMES:
        start_ns, end_ns = batch.times_ns(start), batch.times_ns(end)
        if start_ns is not None and end_ns is not None:
            return np.minimum(start_ns, end_ns), end_ns
    sent_ns = np.full(len(batch), batch.export_time_s * 1_000_000_000, dtype=np.int64)
    boot_ns = batch.times_ns(ie.BOOT_MS)
    start_ms, end_ms = batch.integers(ie.START_UPTIME), batch.integers(ie.END_UPTIME)
    if boot_ns is None or start_ms is None or end_ms is None:
        return sent_ns, sent_ns
    return boot_ns + np.minimum(start_ms, end_ms) * _NS_PER_MS, boot_ns + end_ms * _NS_PER_MS


@dataclass(frozen=True)
class Shares:
    """Records spread over time bins: entry k is ``share[k]`` of record ``record[k]``, in bin ``bin[k]``."""

    record: Integers
    bin: Integers
    share: Floats


def spread(start_ns: Integers, end_ns: Integers, bin_ns: int) -> Shares:
    """Spread every record over the bins it covers, in proportion to time; an instant lies in one bin."""
    first = start_ns // bin_ns
    last = np.maximum(first, (end_ns - 1) // bin_ns)
    bins_each = last - first + 1
    record = np.repeat(np.arange(len(start_ns)), bins_each)
    offset = np.arange(len(record)) - np.repeat(np.cumsum(bins_each) - bins_each, bins_each)
    bins = first[record] + offset
    upper = np.minimum(end_ns[record], (bins + 1) * bin_ns)
    overlap = upper - np.maximum(start_ns[record], bins * bin_ns)
    duration = (end_ns - start_ns)[record]
    share = np.divide(overlap, duration, out=np.ones(len(record)), where=duration > 0)
    return Shares(record, bins, share)


def group(*columns: Integers) -> tuple[list[Integers], Integers]:
    """Group rows by integer columns: (the distinct rows, column by column; the group of every row)."""
    combined = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        unique, codes = np.unique(column, return_inverse=True)
        _, combined = np.unique(combined * len(unique) + codes, return_inverse=True)
    count = int(combined.max(initial=-1)) + 1
    example: NDArray[np.int64] = np.zeros(count, dtype=np.int64)
    example[combined] = np.arange(len(combined))
    return [column[example] for column in columns], combined
