"""The one shape of every stateful step, and what drives it.

A processor has four verbs and no clock, no socket and no thread of its own. Three drivers run the same
processors: Faust (:mod:`stream.app`), replay (:mod:`stream.replay`) and the tests. Time is an argument: it is
the log's own clock (the newest Kafka record timestamp seen), so a replay sees the same times as the live run.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from twin.records import Record


class Processor(Protocol):
    """A deterministic state machine over records."""

    def on_record(self, record: Record) -> Iterable[Record]:
        """Take one record in; give what follows from it."""
        ...

    def on_time(self, now_ns: int) -> Iterable[Record]:
        """The log's clock has reached ``now_ns``; give what follows from that (closed windows, time-outs)."""
        ...

    def snapshot(self) -> bytes:
        """All state, as bytes. Equal states give equal bytes."""
        ...

    def restore(self, blob: bytes) -> None:
        """Become what :meth:`snapshot` described."""
        ...
