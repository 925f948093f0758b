"""Duplicates are known again, for as long as is said, in bounded memory."""

from __future__ import annotations

import msgspec
from strategies import T0, Ring, S

from stream.dedupe import Deduper, digest_of


def test_equal_records_have_equal_digests_and_others_not() -> None:
    """A record's digest is that of its content."""
    sample = Ring().sample(0, T0)
    assert digest_of(sample) == digest_of(Ring().sample(0, T0))
    assert digest_of(sample) != digest_of(msgspec.structs.replace(sample, observed_at_ns=T0 + 1))


def test_a_duplicate_is_seen_until_the_horizon_and_not_longer() -> None:
    """What was seen is known while its window is within the horizon; then it is forgotten."""
    deduper = Deduper(10 * S, 60 * S)
    assert not deduper.seen_before(b"x" * 8, T0 + 5 * S)
    assert deduper.seen_before(b"x" * 8, T0 + 5 * S)
    deduper.forget_before(T0 + 69 * S)
    assert deduper.seen_before(b"x" * 8, T0 + 5 * S)
    deduper.forget_before(T0 + 70 * S)
    assert not deduper.seen_before(b"x" * 8, T0 + 5 * S)


def test_memory_is_bounded_by_the_horizon() -> None:
    """After an hour of one record a second, a minute's worth and the newest window are remembered."""
    deduper = Deduper(10 * S, 60 * S)
    for second in range(3600):
        deduper.seen_before(second.to_bytes(8, "big"), T0 + second * S)
        deduper.forget_before(T0 + second * S)
    assert sum(len(joined) // 8 for joined in deduper.snapshot().buckets.values()) <= 70


def test_a_snapshot_remembers() -> None:
    """A deduper restored from its snapshot knows what the first one knew."""
    deduper, again = Deduper(10 * S, 60 * S), Deduper(10 * S, 60 * S)
    for i in range(20):
        deduper.seen_before(i.to_bytes(8, "big"), T0 + i * S)
    again.restore(deduper.snapshot())
    assert again.snapshot() == deduper.snapshot()
    assert all(again.seen_before(i.to_bytes(8, "big"), T0 + i * S) for i in range(20))
