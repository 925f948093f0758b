"""A MIB as a sorted list: the rows of all tables in lexicographic order, each with a reader for its value.

GET is a look-up, GETNEXT a bisection, GETBULK a bisection and a walk along the list. Names are encoded
once, when the rows are laid out; values are read and encoded at the moment they are sent, so nothing in an
answer is stale.

A cell is (object type, instance, reader); a reader takes nothing and gives the value's BER encoding.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence

from ndtwin.lab import ber

Oid = tuple[int, ...]
Reader = Callable[[], bytes]
Cell = tuple[Oid, Oid, Reader]
Binding = tuple[Oid, bytes]  # name, encoded variable binding


def fixed(value: bytes) -> Reader:
    """A reader of what never changes while the row exists."""
    return lambda: value


class Mib:
    """The cells in order."""

    def __init__(self, cells: Iterable[Cell]) -> None:
        rows = sorted(
            ((kind + instance, kind, reader) for kind, instance, reader in cells), key=lambda row: row[0]
        )
        self._oids = [oid for oid, _, _ in rows]
        self._readers = [reader for _, _, reader in rows]
        self._names = [ber.oid(oid) for oid in self._oids]
        self._index = {oid: i for i, oid in enumerate(self._oids)}
        self._kinds = {kind for _, kind, _ in rows}

    def __len__(self) -> int:
        return len(self._oids)

    def get(self, oid: Oid) -> Binding:
        """The cell of that very name, or why there is none (RFC 3416 section 4.2.1)."""
        i = self._index.get(oid)
        return self._binding(i) if i is not None else (oid, _bind(ber.oid(oid), self._exception(oid)))

    def successor(self, oid: Oid) -> Binding:
        """The next cell in order, or endOfMibView under the name asked for (RFC 3416 section 4.2.2)."""
        i = bisect_right(self._oids, oid)
        return self._binding(i) if i < len(self._oids) else self._past_end(oid)

    def bulk(self, oids: Sequence[Oid], repetitions: int) -> Iterator[Binding]:
        """Repeated successors of several names, repetition by repetition (RFC 3416 section 4.2.3).

        Stops after the first repetition in which every name is at the end of the view.
        """
        end = len(self._oids)
        starts = [bisect_right(self._oids, oid) for oid in oids]
        tails = [
            self._past_end(oid if start == end else self._oids[-1])
            for oid, start in zip(oids, starts, strict=True)
        ]
        for repetition in range(repetitions):
            for start, tail in zip(starts, tails, strict=True):
                yield self._binding(start + repetition) if start + repetition < end else tail
            if min(starts, default=end) + repetition >= end:
                return

    def _binding(self, i: int) -> Binding:
        return self._oids[i], _bind(self._names[i], self._readers[i]())

    @staticmethod
    def _past_end(oid: Oid) -> Binding:
        return oid, _bind(ber.oid(oid), ber.END_OF_MIB_VIEW)

    def _exception(self, oid: Oid) -> bytes:
        """noSuchInstance when the object type exists on this device, noSuchObject when it does not."""
        known = any(oid[:k] in self._kinds for k in range(2, len(oid) + 1))
        return ber.NO_SUCH_INSTANCE if known else ber.NO_SUCH_OBJECT


def _bind(name: bytes, value: bytes) -> bytes:
    return ber.tlv(ber.SEQUENCE, name + value)
