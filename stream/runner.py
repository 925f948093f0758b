"""Drives one processor over the input topics of one partition: order, clock, offsets, checkpoints. No I/O.

Theory
------
Topics have no common order, so the runner makes one: records are merged by their Kafka timestamps. A record
is released when every other topic either has a later record waiting or is at its end; live, records younger
than a short grace wait for what was stamped in the same moment. So a processor sees the same sequence live,
after a restart and in a replay, however far one topic was read ahead of another.

The clock is the newest timestamp released. ``processor.on_time(clock)`` precedes every record, so extra
calls in between with an earlier time change nothing. That is used for liveness: when nothing is left to
read, the clock follows the wall clock at a short distance, and windows close although all collectors are
dead.

A checkpoint is (clock, next offset of every topic, snapshot). What was fed but not released is not in it
and is fed again after a restart; what it holds is recognised by its offset. So redelivery changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from stream.consumer import Message, decode_message
from stream.processor import Processor
from twin.errors import DecodeError
from twin.records import DeadLetter, Record

GRACE_NS = 200_000_000  # producers batch for some milliseconds; this covers them many times over
IDLE_DISTANCE_NS = 1_000_000_000  # of the clock from the wall clock when there is nothing to read
STALL_NS = (
    2_000_000_000  # a topic that is said not to be at its end but gives nothing is waited for this long
)
FUTURE_NS = 60_000_000_000  # a timestamp further ahead of the wall clock than this is not believed
MAX_HELD = 50_000  # records waiting for a topic that lags; beyond, the oldest go
_FORMAT = 1


class _Waiting(NamedTuple):
    """A message in its place in the order."""

    timestamp_ns: int
    topic: str
    message: Message


class _Checkpoint(msgspec.Struct, array_like=True):
    format: int
    clock_ns: int
    offsets: dict[str, int]
    timestamps_ns: dict[str, int]
    snapshot: bytes


class PartitionRunner:
    """One processor, one partition."""

    def __init__(self, processor: Processor, topics: Iterable[str], partition: int) -> None:
        self.processor = processor
        self.partition = partition
        self.clock_ns = 0
        self.offsets = dict.fromkeys(topics, 0)  # next offset to process
        self.metrics: dict[str, float] = {"consumed": 0, "dead_letters": 0}
        self._timestamps_ns = dict.fromkeys(self.offsets, 0)  # newest processed
        self._read = dict(self.offsets)  # next offset to be fed
        self._newest_ns = dict(self._timestamps_ns)  # newest fed
        self._waiting: dict[str, deque[_Waiting]] = {topic: deque() for topic in self.offsets}
        self._fed_at_ns = 0

    def feed(self, message: Message, wall_ns: int | None = None) -> bool:
        """Take a message in, in the order of its topic; False when it was fed before."""
        topic = message.topic
        if message.offset < self._read[topic]:
            return False
        timestamp_ns = message.timestamp_ms * 1_000_000
        if wall_ns is not None:
            timestamp_ns = min(timestamp_ns, wall_ns + FUTURE_NS)
            self._fed_at_ns = wall_ns
        self._newest_ns[topic] = max(timestamp_ns, self._newest_ns[topic])  # offsets decide within a topic
        self._waiting[topic].append(_Waiting(self._newest_ns[topic], topic, message))
        self._read[topic] = message.offset + 1
        return True

    def step(self, at_end: Callable[[str, int], bool], wall_ns: int | None = None) -> list[Record]:
        """Release what may be released; ``at_end(topic, next_offset)`` tells that a topic has no more.

        Without a wall clock (a replay) there is no grace, no stall and no idle time.
        """
        outputs: list[Record] = []
        while (waiting := self._next(at_end, wall_ns)) is not None:
            outputs += self._process(waiting)
        if wall_ns is not None and self._drained(at_end):
            outputs += self._tick(wall_ns - IDLE_DISTANCE_NS)
        return outputs

    def advance(self, clock_ns: int) -> list[Record]:
        """Move the clock by hand: the end of a replay."""
        return self._tick(clock_ns)

    @property
    def held(self) -> int:
        """Messages fed and not yet released."""
        return sum(len(waiting) for waiting in self._waiting.values())

    def _next(self, at_end: Callable[[str, int], bool], wall_ns: int | None) -> _Waiting | None:
        heads = [waiting[0] for waiting in self._waiting.values() if waiting]
        if not heads:
            return None
        first = min(heads, key=lambda head: head[:2])
        if self.held > MAX_HELD:
            return self._waiting[first.topic].popleft()
        if wall_ns is not None and first.timestamp_ns > wall_ns - GRACE_NS:
            return None
        stalled = wall_ns is not None and wall_ns - self._fed_at_ns > STALL_NS
        lagging = [t for t, waiting in self._waiting.items() if not waiting and not at_end(t, self._read[t])]
        return self._waiting[first.topic].popleft() if stalled or not lagging else None

    def _drained(self, at_end: Callable[[str, int], bool]) -> bool:
        return self.held == 0 and all(at_end(topic, read) for topic, read in self._read.items())

    def _process(self, waiting: _Waiting) -> list[Record]:
        outputs = self._tick(waiting.timestamp_ns)
        record = decode_message(waiting.message)
        self.metrics["consumed"] += 1
        if isinstance(record, DeadLetter):
            self.metrics["dead_letters"] += 1
            outputs.append(record)
        else:
            outputs += self.processor.on_record(record)
        self.offsets[waiting.topic] = waiting.message.offset + 1
        self._timestamps_ns[waiting.topic] = waiting.timestamp_ns
        return outputs

    def _tick(self, clock_ns: int) -> list[Record]:
        self.clock_ns = max(clock_ns, self.clock_ns)
        return list(self.processor.on_time(self.clock_ns))

    def checkpoint(self) -> bytes:
        """All state and what it has seen."""
        state = _Checkpoint(
            format=_FORMAT,
            clock_ns=self.clock_ns,
            offsets=dict(sorted(self.offsets.items())),
            timestamps_ns=dict(sorted(self._timestamps_ns.items())),
            snapshot=self.processor.snapshot(),
        )
        return msgspec.msgpack.encode(state)

    def restore(self, blob: bytes) -> None:
        """Become what :meth:`checkpoint` described; DecodeError when it is damaged or of another release."""
        state = _decode(blob)
        if state.format != _FORMAT or state.offsets.keys() - self.offsets.keys():
            raise DecodeError("checkpoint is of another release or of other topics")
        self.processor.restore(state.snapshot)
        self.clock_ns = state.clock_ns
        self.offsets |= state.offsets
        self._timestamps_ns |= state.timestamps_ns
        self._read, self._newest_ns = dict(self.offsets), dict(self._timestamps_ns)


def checkpoint_offsets(blob: bytes) -> dict[str, int]:
    """What a checkpoint has seen: topic → next offset."""
    return _decode(blob).offsets


def with_offsets(blob: bytes, offsets: dict[str, int]) -> bytes:
    """The same checkpoint in another log, where what it has seen ends at other offsets."""
    state = _decode(blob)
    state.offsets = dict(sorted(offsets.items()))
    return msgspec.msgpack.encode(state)


def _decode(blob: bytes) -> _Checkpoint:
    try:
        return msgspec.msgpack.decode(blob, type=_Checkpoint)
    except msgspec.MsgspecError as error:
        raise DecodeError(f"checkpoint is damaged: {error}") from error
