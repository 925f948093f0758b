"""Records → Kafka, by the table of topics, without losing one.

A message's Kafka timestamp is the time of its production (CreateTime = now), not the record's own time: the
log's clock (see :mod:`stream.processor`) runs on these timestamps, so they must rise with the log.
Event time travels inside the record.

Nothing accepted by :meth:`Publisher.publish` is dropped while the process lives: there is no message
time-out, and a full queue makes ``publish`` wait (back-pressure) until the broker takes messages again. What
the broker *refuses* for good (a message over its size limit) is counted and logged once per reason.

Idempotent production stays off: after the embedded broker has forgotten a producer, librdkafka's idempotent
state machine never delivers again (tried: stuck for good). One request in flight keeps the order instead, and
a duplicate after a retry is dropped by the processors, which know every record's identity.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaError, KafkaException, Producer

from stream import client
from stream.codec import encode
from stream.topics import BY_RECORD, key_of, partition_of
from twin.records import Record

_LOG = client.logger("publisher")
_WAIT_S = 0.1


@dataclass
class PublisherCounts:
    """What became of the records; ``accepted − delivered − refused`` are on their way."""

    accepted: int = 0
    delivered: int = 0
    refused: int = 0
    waits: int = 0  # times that publish had to wait for room


class Publisher:
    """A producer of records. Thread-safe; one per process is enough."""

    def __init__(
        self, bootstrap: str, partitions: int, *, client_id: str = "publisher", queue_messages: int = 100_000
    ) -> None:
        self.counts = PublisherCounts()
        self._partitions = partitions
        self._reasons: set[str] = set()
        self._bootstrap = bootstrap
        self._producer = Producer(
            client.settings(
                bootstrap,
                client_id,
                **{
                    "acks": "all",
                    "enable.idempotence": False,
                    "max.in.flight.requests.per.connection": 1,
                    "message.timeout.ms": 0,  # 0 = never give up
                    "message.max.bytes": 4 << 20,
                    "queue.buffering.max.messages": queue_messages,
                    "linger.ms": 5,
                    "compression.type": "gzip",  # aiokafka reads it without an extra library
                    "error_cb": self._on_error,
                },
            )
        )

    def publish(self, record: Record) -> None:
        """Accept one record for delivery; waits while the queue is full."""
        topic = BY_RECORD[type(record)].name
        self.send(topic, encode(record), key=key_of(record), partition=partition_of(record, self._partitions))

    def publish_all(self, records: Iterable[Record]) -> None:
        """Accept several records, in order."""
        for record in records:
            self.publish(record)

    def send(
        self,
        topic: str,
        payload: bytes,
        *,
        key: bytes | None,
        partition: int,
        timestamp_ms: int = 0,
        headers: dict[str, bytes] | None = None,
    ) -> None:
        """Accept raw bytes for one partition; ``timestamp_ms`` 0 means now."""
        while True:
            try:
                self._producer.produce(
                    topic,
                    payload,
                    key,
                    partition,
                    self._on_delivery,
                    timestamp=timestamp_ms,
                    headers=headers or {},
                )
                break
            except BufferError:
                self.counts.waits += 1
                self._producer.poll(_WAIT_S)
            except KafkaException as error:  # what librdkafka knows already that the broker would say
                self._log_once("message refused", error.args[0], topic=topic)
                if error.args[0].code() != KafkaError._UNKNOWN_TOPIC:
                    self.counts.refused += 1
                    break
                self._producer.poll(_WAIT_S)  # a broker that came back empty gets its topics in a moment
        self.counts.accepted += 1
        self._producer.poll(0)

    def flush(self, timeout_s: float = 10.0) -> int:
        """Wait for delivery; give how many messages are still on their way."""
        left: int = self._producer.flush(timeout_s)
        return left

    def close(self, timeout_s: float = 10.0) -> int:
        """Deliver what is queued; give (and log) how many could not be delivered in time."""
        left = self.flush(timeout_s)
        if left:
            _LOG.error(
                "messages not delivered when closing: the broker was away",
                messages=left,
                broker=self._bootstrap,
            )
        return left

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def _on_delivery(self, error: KafkaError | None, message: Any) -> None:
        if error is None:
            self.counts.delivered += 1
            return
        self.counts.refused += 1
        self._log_once("message refused by the broker", error, topic=message.topic())

    def _on_error(self, error: KafkaError) -> None:
        self._log_once("the broker has a problem; messages wait in the queue", error)

    def _log_once(self, event: str, error: KafkaError, **more: str) -> None:
        if error.name() in self._reasons:
            return
        self._reasons.add(error.name())
        _LOG.warning(event, reason=error.name(), detail=error.str(), broker=self._bootstrap, **more)
