"""Kafka → messages: one small reader for everybody who is not a Faust app.

Two ways to own partitions: with a ``group`` the broker shares the partitions among the members, so a second
worker takes over; without one the reader takes every partition for itself (an API replica wants all).

Ways to begin: ``rewind=None`` continues at the group's committed offsets (the beginning where there are
none); ``rewind=N`` begins N messages per partition before the end, whatever was committed (the beginning
where there are fewer); with ``resume=True`` the N count from the committed offset instead. Places named in
``starts`` begin there in any case.

Facts about the embedded broker that shape this file
----------------------------------------------------
- Its high watermark says "base offset of the newest batch + 1": never more than the true end, so a rewind
  computed from it begins early, never late. The end of a partition is taken from the end-of-partition event
  of a fetch, which is right.
- It forgets its log when it restarts, and a fetch from beyond the end is answered with nothing at all. So
  the reader compares the cluster's identity every two seconds (:func:`stream.client.cluster_id`); when it
  changed, it drops what it has buffered and begins again at the start of every partition, under a new
  ``epoch``.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from stream import client
from stream.codec import decode
from twin.errors import DecodeError, PeerError
from twin.records import DeadLetter, Record

_LOG = client.logger("consumer")
_EPOCH_CHECK_S = 2.0
CARRIED_HEADER = "ndtwin-carried"  # on what was carried over from an earlier life of the embedded broker
Place = tuple[str, int]  # topic, partition


@dataclass(frozen=True)
class Message:
    """One message as it lies in the log."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    payload: bytes
    carried: bool = False

    @property
    def place(self) -> Place:
        """Its (topic, partition)."""
        return self.topic, self.partition


def decode_message(message: Message) -> Record | DeadLetter:
    """The record a message carries, or the dead letter that explains why it carries none."""
    try:
        return decode(message.topic, message.payload)
    except DecodeError as error:
        return dead_letter(message, str(error))


def dead_letter(message: Message, reason: str) -> DeadLetter:
    """The message itself, its position and what is wrong with it."""
    return DeadLetter(
        source=message.topic,
        payload=message.payload,
        reason=reason,
        observed_at_ns=message.timestamp_ms * 1_000_000,
        partition=message.partition,
        offset=message.offset,
        key=message.key,
    )


class Reader:
    """Reads topics of one cluster; ``epoch`` names the life of the log that its offsets belong to."""

    def __init__(
        self,
        bootstrap: str,
        topics: Iterable[str],
        *,
        group: str | None = None,
        rewind: int | None = None,
        resume: bool = False,
        starts: Mapping[Place, int] | None = None,
    ) -> None:
        self._bootstrap = bootstrap
        self._topics = tuple(topics)
        self._group = group
        self._rewind = rewind
        self._resume = resume
        self._starts = starts or {}
        self._ends: set[Place] = set()
        self._owned: set[Place] = set()
        self._consumer = Consumer(_settings(bootstrap, group))
        self.epoch = client.cluster_id(self._consumer, bootstrap)
        self._checked_s = time.monotonic()
        self._begin()

    def poll(self, timeout_s: float = 0.2, limit: int = 500) -> list[Message]:
        """The next messages, at most ``limit``; empty when nothing came within ``timeout_s``."""
        self._check_epoch()
        try:
            batch = self._consumer.consume(limit, timeout_s)
        except KafkaException as error:
            raise client.unavailable(self._bootstrap, error.args[0]) from error
        return [self._message(raw) for raw in batch if self._is_message(raw)]

    def at_end(self) -> bool:
        """Whether every partition owned has been read to its end. False while none is owned."""
        return bool(self._owned) and self._owned <= self._ends

    def iterate_to_end(self, timeout_s: float = 60.0) -> Iterator[Message]:
        """Everything from here to the present end of every partition; PeerError when that takes too long."""
        deadline = time.monotonic() + timeout_s
        while not self.at_end():
            if time.monotonic() > deadline:
                raise PeerError(f"{', '.join(self._topics)}: end not reached within {timeout_s:g} s")
            yield from self.poll()

    def commit(self, next_offsets: dict[Place, int]) -> bool:
        """Store where the group goes on; False when the broker did not take it: duplicates may follow."""
        offsets = [TopicPartition(*place, offset) for place, offset in next_offsets.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            reason = error.args[0].str()
            _LOG.warning("offsets not committed: duplicates may follow", group=self._group, reason=reason)
            return False
        return True

    @property
    def owned(self) -> frozenset[Place]:
        """The partitions that are this reader's now."""
        return frozenset(self._owned)

    def close(self) -> None:
        """Leave the group and the broker."""
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------ partitions

    def _begin(self) -> None:
        if self._group is not None:
            self._consumer.subscribe(list(self._topics), on_assign=self._on_assign, on_revoke=self._on_revoke)
            return
        self._on_assign(self._consumer, self._all_partitions())

    def _all_partitions(self) -> list[TopicPartition]:
        known = self._consumer.list_topics(timeout=client.METADATA_TIMEOUT_S).topics
        absent = [topic for topic in self._topics if topic not in known]
        if absent:
            raise PeerError(
                f"the broker at {self._bootstrap} has no topic {', '.join(absent)}: run `ndtwin up`"
            )
        return [
            TopicPartition(topic, partition)
            for topic in self._topics
            for partition in known[topic].partitions
        ]

    def _on_assign(self, consumer: Any, partitions: Sequence[Any]) -> None:
        self._owned = {(p.topic, p.partition) for p in partitions}
        self._ends.clear()
        consumer.assign([self._start_of(consumer, p) for p in partitions])

    def _on_revoke(self, consumer: Any, partitions: Sequence[Any]) -> None:
        self._owned -= {(p.topic, p.partition) for p in partitions}
        consumer.unassign()

    def _start_of(self, consumer: Any, partition: Any) -> TopicPartition:
        place = (partition.topic, partition.partition)
        if place in self._starts:
            return TopicPartition(*place, self._starts[place])
        if self._rewind is not None:
            low, high = consumer.get_watermark_offsets(partition, timeout=client.METADATA_TIMEOUT_S)
            if self._resume:
                [committed] = consumer.committed([partition], timeout=client.METADATA_TIMEOUT_S)
                high = committed.offset if committed.offset >= 0 else low
            return TopicPartition(*place, max(low, high - self._rewind))
        start = OFFSET_BEGINNING if self._group is None else OFFSET_INVALID  # INVALID: as committed
        return TopicPartition(*place, start)

    def _check_epoch(self) -> None:
        now_s = time.monotonic()
        if now_s - self._checked_s < _EPOCH_CHECK_S:
            return
        self._checked_s = now_s
        try:
            epoch = client.cluster_id(self._consumer, self._bootstrap, timeout_s=1.0)
        except PeerError:
            return  # away for now; librdkafka reconnects, and the service's heartbeat stops telling "running"
        if epoch == self.epoch:
            return
        _LOG.warning("the broker came back empty: reading from its beginning", before=self.epoch, now=epoch)
        self.epoch = epoch
        self._rewind, self._starts = None, {}  # in the new log everything is news
        self._ends.clear()
        self._consumer.assign([TopicPartition(*place, OFFSET_BEGINNING) for place in self._owned])

    # ------------------------------------------------------------------ messages

    def _is_message(self, raw: Any) -> bool:
        error = raw.error()
        if error is None:
            self._ends.discard((raw.topic(), raw.partition()))
            return True
        if error.code() == KafkaError._PARTITION_EOF:
            self._ends.add((raw.topic(), raw.partition()))
        elif not error.retriable():
            _LOG.warning("the broker reports", reason=error.name(), detail=error.str(), topic=raw.topic())
        return False

    @staticmethod
    def _message(raw: Any) -> Message:
        return Message(
            topic=raw.topic(),
            partition=raw.partition(),
            offset=raw.offset(),
            timestamp_ms=raw.timestamp()[1],
            key=raw.key(),
            payload=raw.value() or b"",
            carried=any(name == CARRIED_HEADER for name, _ in raw.headers() or ()),
        )


def _settings(bootstrap: str, group: str | None) -> dict[str, Any]:
    return client.settings(
        bootstrap,
        group or "reader",
        **{
            "group.id": group
            or "ndtwin-reader",  # required by librdkafka; without `group` nothing is committed
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 50,  # the embedded broker wakes no waiting fetch: 12 ms, not 120 ms
            "session.timeout.ms": 6_000,  # so long a killed member holds its partitions; the least allowed
            "fetch.message.max.bytes": 4 << 20,
        },
    )


def committed_offsets(bootstrap: str, group: str, topics: Iterable[str]) -> dict[Place, int]:
    """Where a group goes on; places it never committed are left out."""
    with Reader(bootstrap, topics) as every:
        places = [TopicPartition(*place) for place in every.owned]
    consumer = Consumer(_settings(bootstrap, group))
    try:
        found = consumer.committed(places, timeout=client.METADATA_TIMEOUT_S)
    except KafkaException as error:
        raise client.unavailable(bootstrap, error.args[0]) from error
    finally:
        consumer.close()
    return {(one.topic, one.partition): one.offset for one in found if one.offset >= 0}
