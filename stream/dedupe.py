"""Duplicates: the same record again changes nothing.

A record is known again by a 64-bit BLAKE2 digest of its encoding. Digests are kept by the window of the
record's event time and forgotten a fixed time after that window closed, so memory is bounded by rate times
horizon. A duplicate that comes later than the horizon is no longer recognised; it is late then and goes the
way of what is late.
"""

from __future__ import annotations

import hashlib

import msgspec

from stream.codec import encode
from twin.records import Record

_DIGEST_BYTES = 8  # 2⁻⁶⁴ · n²/2: for the 10⁵ records of a horizon a clash has odds of 3·10⁻¹⁰


def digest_of(record: Record) -> bytes:
    """The identity of a record's content."""
    return hashlib.blake2b(encode(record), digest_size=_DIGEST_BYTES).digest()


class DeduperSnapshot(msgspec.Struct, array_like=True):
    """All state of :class:`Deduper`: bucket → its digests, sorted and joined."""

    buckets: dict[int, bytes] = {}


class Deduper:
    """Remembers what was seen for ``horizon_ns`` of event time."""

    def __init__(self, bucket_ns: int, horizon_ns: int) -> None:
        self._bucket_ns = bucket_ns
        self._horizon_ns = horizon_ns
        self._buckets: dict[int, set[bytes]] = {}

    def seen_before(self, digest: bytes, event_ns: int) -> bool:
        """True when this record came before; remembers it."""
        bucket = self._buckets.setdefault(event_ns // self._bucket_ns, set())
        if digest in bucket:
            return True
        bucket.add(digest)
        return False

    def forget_before(self, event_ns: int) -> None:
        """Drop what lies more than the horizon before ``event_ns``."""
        oldest = (event_ns - self._horizon_ns) // self._bucket_ns
        for bucket in [b for b in self._buckets if b < oldest]:
            del self._buckets[bucket]

    def snapshot(self) -> DeduperSnapshot:
        """All state, canonical."""
        return DeduperSnapshot({b: b"".join(sorted(self._buckets[b])) for b in sorted(self._buckets)})

    def restore(self, snapshot: DeduperSnapshot) -> None:
        """Become what :meth:`snapshot` described."""
        step = _DIGEST_BYTES
        self._buckets = {
            bucket: {joined[i : i + step] for i in range(0, len(joined), step)}
            for bucket, joined in snapshot.buckets.items()
        }
