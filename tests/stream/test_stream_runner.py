"""The runner: one order out of many topics, the log's clock, and what a wall clock may add."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from strategies import T0, Ring, S

from stream import runner as module
from stream.codec import encode
from stream.consumer import Message
from stream.runner import GRACE_NS, IDLE_DISTANCE_NS, STALL_NS, PartitionRunner
from stream.topics import BY_RECORD
from twin.errors import DecodeError
from twin.records import DeadLetter, Record

RING = Ring()
A, B = "ndt.samples", "ndt.delays"


class Listener:
    """A processor that writes down what it is told; its state is that list."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def on_record(self, record: Record) -> Iterable[Record]:
        self.told.append(f"{BY_RECORD[type(record)].name} {getattr(record, 'observed_at_ns', 0) - T0}")
        return []

    def on_time(self, now_ns: int) -> Iterable[Record]:
        self.told.append(f"time {now_ns - T0}")
        return []

    def snapshot(self) -> bytes:
        return "\n".join(self.told).encode()

    def restore(self, blob: bytes) -> None:
        self.told = blob.decode().split("\n")

    @property
    def records(self) -> list[str]:
        """Without the ticks."""
        return [line for line in self.told if not line.startswith("time")]


def runner_of_two() -> tuple[PartitionRunner, Listener]:
    """A runner of two topics and its processor."""
    listener = Listener()
    return PartitionRunner(listener, (A, B), 0), listener


def message(topic: str, offset: int, at_s: float) -> Message:
    """A message of a topic, stamped at a second after T0."""
    at_ns = T0 + int(at_s * S)
    record = RING.sample(0, at_ns) if topic == A else RING.delays(0, at_ns)
    return Message(topic, 0, offset, at_ns // 1_000_000, b"R000", encode(record))


def never(topic: str, offset: int) -> bool:
    """No topic is at its end."""
    return False


def always(topic: str, offset: int) -> bool:
    """Every topic is at its end."""
    return True


def test_topics_are_merged_by_time_however_far_one_is_read_ahead() -> None:
    """A record waits until every other topic has something later or is at its end."""
    runner, listener = runner_of_two()
    for offset in range(3):
        runner.feed(message(A, offset, offset))
    assert runner.step(never) == []
    assert listener.records == []
    runner.feed(message(B, 0, 1.5))
    runner.step(never)
    assert listener.records == [f"{A} 0", f"{A} {S}", f"{B} {3 * S // 2}"]
    runner.step(always)
    assert listener.records[3:] == [f"{A} {2 * S}"]


def test_time_is_told_before_every_record_and_never_goes_back() -> None:
    """The clock is the newest timestamp released; one stamped earlier in its topic does not turn it back."""
    runner, listener = runner_of_two()
    for offset, at_s in enumerate((1, 3, 2)):
        runner.feed(message(A, offset, at_s))
    runner.step(always)
    assert listener.told == [
        f"time {S}", f"{A} {S}", f"time {3 * S}", f"{A} {3 * S}", f"time {3 * S}", f"{A} {2 * S}",
    ]  # fmt: skip
    assert runner.clock_ns == T0 + 3 * S


def test_live_records_wait_for_what_was_stamped_in_the_same_moment() -> None:
    """With a wall clock, a record is held for the grace although all topics are at their ends."""
    runner, listener = runner_of_two()
    runner.feed(message(A, 0, 10), T0 + 10 * S)
    runner.step(always, T0 + 10 * S + GRACE_NS - 1)
    assert listener.records == []
    runner.step(always, T0 + 10 * S + GRACE_NS)
    assert listener.records == [f"{A} {10 * S}"]


def test_a_topic_that_gives_nothing_is_not_waited_for_for_ever() -> None:
    """When a lagging topic stays silent for the stall time, the others go on without it."""
    runner, listener = runner_of_two()
    runner.feed(message(A, 0, 10), T0 + 10 * S)
    runner.step(never, T0 + 10 * S + STALL_NS)
    assert listener.records == []
    runner.step(never, T0 + 10 * S + STALL_NS + 1)
    assert listener.records == [f"{A} {10 * S}"]


def test_the_clock_follows_the_wall_when_all_is_read() -> None:
    """At the end of all topics the clock follows the wall clock at a distance; before that it does not."""
    runner, _ = runner_of_two()
    runner.step(never, T0 + 60 * S)
    assert runner.clock_ns == 0
    runner.step(always, T0 + 60 * S)
    assert runner.clock_ns == T0 + 60 * S - IDLE_DISTANCE_NS


def test_a_timestamp_far_ahead_of_the_wall_is_not_believed() -> None:
    """A producer whose clock is a day ahead moves the log's clock by the tolerance at most."""
    runner, _ = runner_of_two()
    runner.feed(message(A, 0, 86_400), T0)
    runner.step(always, T0 + 120 * S)
    assert runner.clock_ns == T0 + 120 * S - IDLE_DISTANCE_NS


def test_memory_is_bounded_when_a_topic_lags(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the most that may be held, the oldest records go although a topic lags."""
    monkeypatch.setattr(module, "MAX_HELD", 5)
    runner, listener = runner_of_two()
    for offset in range(8):
        runner.feed(message(A, offset, offset))
    runner.step(never)
    assert (runner.held, len(listener.records)) == (5, 3)


def test_what_was_fed_before_is_known_by_its_offset() -> None:
    """A message fed twice, or contained in the checkpoint, is not taken again; what follows is."""
    runner, _ = runner_of_two()
    assert runner.feed(message(A, 0, 0))
    assert not runner.feed(message(A, 0, 0))
    runner.step(always)
    runner.feed(message(A, 1, 1))  # fed, not released: not in the checkpoint
    again, listener = runner_of_two()
    again.restore(runner.checkpoint())
    assert again.offsets == {A: 1, B: 0}
    assert not again.feed(message(A, 0, 0))
    assert again.feed(message(A, 1, 1))
    again.step(always)
    assert listener.records == [f"{A} 0", f"{A} {S}"]


def test_nonsense_becomes_a_dead_letter_in_its_place() -> None:
    """A message that cannot be decoded comes out with its bytes and position, and its offset is done."""
    runner, listener = runner_of_two()
    runner.feed(Message(A, 0, 7, T0 // 1_000_000, b"k", b"{"))
    out = runner.step(always)
    assert [(type(one), one.offset, one.payload) for one in out if isinstance(one, DeadLetter)] == [
        (DeadLetter, 7, b"{")
    ]
    assert listener.records == []
    assert runner.offsets[A] == 8


def test_a_foreign_checkpoint_is_refused() -> None:
    """A damaged checkpoint, or one of other topics, is refused with a reason."""
    runner, _ = runner_of_two()
    with pytest.raises(DecodeError, match="damaged"):
        runner.restore(b"nonsense")
    other = PartitionRunner(Listener(), ("ndt.state",), 0)
    with pytest.raises(DecodeError, match="other topics"):
        other.restore(runner.checkpoint())
