"""Records of one template as columns: as many as were gathered, from as many messages and exporters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.flows.elements import Kind, kind_of
from collectors.flows.template import Template

Buffer = bytes | memoryview
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

_NTP_EPOCH_S = 2_208_988_800  # 1900-01-01 to 1970-01-01
_NS_PER_S = 1_000_000_000
_ADDRESS_OCTETS = 16
_MOST = 2**63 - 1


@dataclass(frozen=True, eq=False)
class RecordBatch:
    """Records of one template, and where they come from."""

    address: str  # of the exporter; of the first one where batches of several are joined
    domain: int
    export_time_s: Integers | int  # of the message: per record, or of all
    template: Template
    fixed: tuple[
        Buffer, ...
    ]  # the fixed-length fields of all records, back to back, in the pieces they came in
    count: int
    variable: Mapping[str, list[bytes]]
    ratio: Floats | float = 1.0  # packets represented by one packet seen: per record, or for all
    uptime_ms: Integers | int = -1  # the exporter's when the message was sent; −1: not told

    def __len__(self) -> int:
        return self.count

    @cached_property
    def records(self) -> NDArray[np.void]:
        """The fixed-length fields as one structured array."""
        if not self.template.columns:
            return np.zeros(self.count, self.template.dtype)
        octets = self.fixed[0] if len(self.fixed) == 1 else b"".join(self.fixed)
        return np.frombuffer(octets, self.template.dtype, self.count)

    @property
    def is_options(self) -> bool:
        """The records describe the exporter, not traffic."""
        return self.template.scope_count > 0

    def has(self, id: int, enterprise: int = 0) -> bool:
        """Whether the template has the element."""
        return _key(id, enterprise) in self.template.names

    def integers(self, id: int, most: int = _MOST) -> Integers | None:
        """An unsigned element as int64, ``most`` where it is more; None where the template lacks it."""
        column = self._column(id)
        if column is None:
            return None
        if column.dtype.kind == "V":
            column = _widen(column)
        whole = column.astype(np.uint64)
        if column.dtype.itemsize == 8 or most < _MOST:
            np.minimum(whole, np.uint64(most), out=whole)
        return whole.view(np.int64)

    def one_value(self, id: int) -> int | None:
        """What an unsigned element is in all records, where it is the same; else None."""
        column = self._column(id)
        if column is None or column.dtype.kind != "u" or not len(column):
            return None
        first = column[0]
        return int(first) if (column == first).all() else None

    def counter(self, delta: int, total: int) -> Floats | None:
        """A flow's count: since the record before, or of its whole life where that is what is told."""
        for id in (delta, total):
            column = self._column(id)
            if column is not None:
                return (_widen(column) if column.dtype.kind == "V" else column).astype(np.float64)
        return None

    def or_zero(self, id: int) -> Integers:
        """An unsigned element, 0 where the template lacks it."""
        column = self.integers(id)
        return np.zeros(self.count, dtype=np.int64) if column is None else column

    def floats(self, id: int) -> Floats | None:
        """A float element, or None."""
        column = self._column(id)
        return None if column is None or column.dtype.kind != "f" else column.astype(np.float64)

    def ipv4(self, id: int) -> Integers | None:
        """A 4-octet element as a number, or None: an address of any other size is none."""
        column = self._column(id)
        return None if column is None or column.dtype.itemsize != 4 else self.integers(id)

    def halves(self, id: int) -> tuple[Integers, Integers] | None:
        """A 16-octet element as its upper and lower 64 bits, or None."""
        column = self._column(id)
        if column is None or column.dtype.itemsize != _ADDRESS_OCTETS:
            return None
        both = np.frombuffer(column.tobytes(), ">i8").reshape(-1, 2).astype(np.int64)
        return both[:, 0], both[:, 1]

    def octets(self, id: int, enterprise: int = 0) -> list[bytes] | None:
        """An element as it was sent, or None."""
        key = _key(id, enterprise)
        if key in self.variable:
            return self.variable[key]
        if key not in self.template.columns:
            return None
        column = self.records[key]
        sent, size = (
            column.tobytes(),
            column.dtype.itemsize,
        )  # as a whole: single values lose their byte order
        return [sent[at : at + size] for at in range(0, len(sent), size)] if size else [b""] * self.count

    def times_ns(self, id: int) -> Integers | None:
        """A time element as nanoseconds since the Unix epoch, or None."""
        match kind_of(0, id):
            case Kind.SECONDS:
                return _times(self.integers(id, 2**33), _NS_PER_S)
            case Kind.MILLISECONDS:
                return _times(self.integers(id, 2**43), 1_000_000)
            case Kind.NTP:
                return _ntp_ns(self._column(id))
        return None

    def _column(self, id: int) -> NDArray[np.generic] | None:
        return self.records[str(id)] if str(id) in self.template.columns else None


def join(batches: Sequence[RecordBatch]) -> RecordBatch:
    """Batches of one template as one."""
    first = batches[0]
    if len(batches) == 1:
        return first
    counts = [batch.count for batch in batches]
    return replace(
        first,
        export_time_s=per_record([batch.export_time_s for batch in batches], counts, np.int64),
        fixed=tuple(piece for batch in batches for piece in batch.fixed),
        count=sum(counts),
        variable={name: [v for b in batches for v in b.variable[name]] for name in first.variable},
        ratio=per_record([batch.ratio for batch in batches], counts, np.float64),
        uptime_ms=per_record([batch.uptime_ms for batch in batches], counts, np.int64),
    )


def per_record(values: Sequence[Any], counts: Sequence[int], kind: type) -> Any:
    """Scalars and arrays per record, joined; one scalar where they are all the same."""
    scalar = [not isinstance(value, np.ndarray) for value in values]
    if all(scalar) and len(set(values)) == 1:
        return values[0]
    if all(scalar):
        return np.repeat(np.array(values, dtype=kind), counts)
    return np.concatenate(
        [np.broadcast_to(np.asarray(value, dtype=kind), n) for value, n in zip(values, counts, strict=True)]
    )


def _key(id: int, enterprise: int) -> str:
    return f"{enterprise}/{id}" if enterprise else str(id)


def _times(values: Integers | None, factor: int) -> Integers | None:
    """In place: these are columns of a burst's length."""
    if values is not None:
        values *= factor
    return values


def _widen(column: NDArray[np.generic]) -> NDArray[np.uint64]:
    """Big-endian octets of any size → uint64; the low 8 octets of what is longer."""
    size = column.dtype.itemsize
    if size == 0:
        return np.zeros(len(column), np.uint64)  # legal, and empty
    wide = np.zeros((len(column), 8), np.uint8)
    octets = np.frombuffer(column.tobytes(), np.uint8).reshape(len(column), size)[:, -8:]
    wide[:, 8 - octets.shape[1] :] = octets
    return wide.view(">u8").ravel().astype(np.uint64)


def _ntp_ns(column: NDArray[np.generic] | None) -> Integers | None:
    """64-bit NTP time stamps: seconds since 1900, and a fraction of 2^32 (RFC 7011 section 6.1.9)."""
    if column is None or column.dtype.kind != "u" or column.dtype.itemsize != 8:
        return None
    stamps = column.astype(np.uint64)
    seconds = (stamps >> np.uint64(32)).astype(np.int64) - _NTP_EPOCH_S
    fraction = ((stamps & np.uint64(0xFFFFFFFF)) * np.uint64(_NS_PER_S)) >> np.uint64(32)
    return seconds * _NS_PER_S + fraction.astype(np.int64)
