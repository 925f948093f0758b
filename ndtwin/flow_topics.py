"""Flow topics of other collectors (pmacct, goflow2) → our flow reports: Kafka in, Kafka out.

Nothing is lost over a restart, and little is counted twice:

1. Each topic has a consumer group (``ndtwin-flows.NETWORK.TOPIC``). Its very first reading begins at the end
   of the topic, and that place is committed at once; later ones go on where the group left.
2. What is read is summed by time bins. An offset is committed when every bin that the messages before it have
   traffic in has been reported, and when the broker has taken the reports.
3. When the collector is told to stop, it reports the bins it has begun, and commits all it has read.
4. When it is killed, its successor reads again from the last commit: what was reported and lies behind that
   counts twice, as a rule the last moment of a bin. Reports hold the place at which reading began, so that
   two halves of a bin that happen to be equal are not taken for one report that came twice.
5. What waited while nobody read is put where it belongs by the time at which it was written (the messages'
   time stamps), so a backlog becomes the reports that it would have become then.

What cannot be read, and what comes from an exporter that the inventory does not know, goes to the dead
letters, bounded per second as the listener's does.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from collectors.flows.aggregate import FlowAggregator, Granularity
from collectors.flows.foreign import read_foreign
from collectors.flows.settings import FlowTable
from collectors.inventory import Inventory
from collectors.listener import MAX_LETTERS_PER_S, TICK_S
from collectors.stats import CollectorStats
from ndtwin.config import FlowTopic, Settings
from stream import client
from stream.consumer import Message, Place, Reader, dead_letter
from twin.errors import DecodeError, PeerError
from twin.records import Record

RETRY_S = 5.0
_POLL_S, _POLL_MESSAGES = 0.2, 5_000
_WORKER = 1_000  # marks our reports as other than those of the listener's processes
_FOREVER_NS = 86_400 * 1_000_000_000
_TICK_NS = int(TICK_S * 1e9)

Offsets = dict[Place, int]
Emit = Callable[[Record], None]


class ForeignFlows:
    """Messages of one topic → reports, and how far they are reported. No I/O."""

    def __init__(
        self,
        topic: FlowTopic,
        inventory: Inventory,
        emit: Emit,
        stats: CollectorStats,
        bin_ns: int,
        starts: Offsets | None = None,
    ) -> None:
        table = inventory.ipfix or FlowTable()
        choice = Granularity(table.longest_prefix_v4, table.longest_prefix_v6, table.per_class)
        self._topic = topic
        self._devices = {device.address: device.name for device in inventory.devices}
        self._emit = emit
        self._stats = stats
        self._flows = FlowAggregator(
            inventory.network,
            self._devices,
            bin_ns=bin_ns,
            granularity=choice,
            worker=_WORKER + sum((starts or {}).values()),
        )
        self._letters: tuple[int, int] = (0, 0)  # (second, letters in it)
        self._read: Offsets = {}  # where what was read ends
        self._unreported: deque[tuple[int | None, Offsets]] = deque()  # newest bin of what lies before

    def take(self, message: Message, now_ns: int) -> None:
        """One message of the topic."""
        self._read[message.place] = message.offset + 1
        self._stats.datagrams += 1
        try:
            batches = read_foreign(self._topic.format, message.payload)
        except DecodeError as error:
            self._stats.undecoded_datagrams += 1
            self._dead_letter(message, str(error), now_ns)
            return
        for batch in batches:
            if batch.address not in self._devices:
                self._stats.unknown_datagrams += 1
                self._dead_letter(message, f"exporter {batch.address} is not in the inventory", now_ns)
                continue
            self._stats.flow_records += len(batch)
            self._flows.add(batch, now_ns)

    def tick(self, now_ns: int) -> Offsets:
        """Emit what is due; the offsets before which everything has been emitted, if there are new ones."""
        for record in self._flows.close(now_ns):
            self._emit(record)
        newest = self._flows.unreported_bin
        if self._unreported and self._unreported[-1][0] == newest:
            self._unreported.pop()
        self._unreported.append((newest, dict(self._read)))
        done: Offsets = {}
        while self._unreported and self._is_reported(self._unreported[0][0]):
            done = self._unreported.popleft()[1]
        return done

    def finish(self, now_ns: int) -> Offsets:
        """Emit all there is, though its bins be not over."""
        return self.tick(now_ns + _FOREVER_NS)

    def _is_reported(self, bin: int | None) -> bool:
        closed = self._flows.closed_bin
        return bin is None or (closed is not None and bin <= closed)

    def _dead_letter(self, message: Message, reason: str, now_ns: int) -> None:
        second = now_ns // 1_000_000_000
        used = self._letters[1] if self._letters[0] == second else 0
        self._letters = (second, used + 1)
        if used < MAX_LETTERS_PER_S:
            self._emit(dead_letter(message, reason))


class TopicReading:
    """One topic from where its group left: reads, sums, commits. Its calls wait, and for one another."""

    def __init__(
        self,
        topic: FlowTopic,
        settings: Settings,
        inventory: Inventory,
        emit: Emit,
        stats: CollectorStats,
        delivered: Callable[[], bool],
    ) -> None:
        bootstrap = topic.bootstrap or settings.bootstrap
        group = f"ndtwin-flows.{inventory.network}.{topic.topic}"
        starts = first_offsets(bootstrap, group, topic.topic)
        bin_ns = int(settings.pipeline.window_s / 2 * 1e9)
        self._fresh = partial(ForeignFlows, topic, inventory, emit, stats, bin_ns)
        self._flows = self._fresh(starts)
        self._reader = Reader(bootstrap, [topic.topic], group=group)
        self._epoch = self._reader.epoch
        self._delivered = delivered
        self._lock = threading.Lock()
        self._ticked_ns = 0
        self._written_ns: dict[Place, int] = {}  # when the last message of each partition was written
        self._done: Offsets = {}
        self._committed: Offsets = {}

    def step(self) -> None:
        """Read some messages, and do what is due."""
        with self._lock:
            live = self._reader.at_end()
            messages = self._reader.poll(_POLL_S, _POLL_MESSAGES)
            if self._reader.epoch != self._epoch:
                self._begin_again()
            for message in messages:
                self._take(message, live=live)
            if self._reader.at_end():
                self._tick(time.time_ns())

    def _begin_again(self) -> None:
        """The broker forgot its log: offsets mean nothing any more, what was read of it is reported."""
        self._flows.finish(time.time_ns())
        self._flows, self._epoch = self._fresh(), self._reader.epoch
        self._done, self._committed, self._written_ns = {}, {}, {}

    def _take(self, message: Message, *, live: bool) -> None:
        """What waited is taken as of when it was written; time is that of the partition furthest behind."""
        now_ns = time.time_ns()
        if live:
            self._tick(now_ns)
        else:
            now_ns = min(message.timestamp_ms * 1_000_000 or now_ns, now_ns)
            self._written_ns[message.place] = now_ns
            self._tick(min(self._written_ns.values()))
        self._flows.take(message, now_ns)

    def _tick(self, now_ns: int) -> None:
        if now_ns - self._ticked_ns < _TICK_NS:
            return
        self._ticked_ns = now_ns
        self._commit(self._flows.tick(now_ns))

    def _commit(self, done: Offsets) -> None:
        owned = self._reader.owned  # what went to another member is its to commit
        self._done = {place: offset for place, offset in (self._done | done).items() if place in owned}
        if self._done != self._committed and self._delivered() and self._reader.commit(self._done):
            self._committed = dict(self._done)

    def finish(self) -> None:
        """Report and commit everything that was read."""
        with self._lock:
            try:
                self._commit(self._flows.finish(time.time_ns()))
            finally:
                self._reader.close()

    def abandon(self) -> None:
        """After an error: what was not committed is read again."""
        with self._lock:
            self._reader.close()


def first_offsets(bootstrap: str, group: str, topic: str) -> Offsets:
    """Where reading begins; of partitions that the group never read, their end, which is committed."""
    consumer = Consumer(client.settings(bootstrap, group, **{"group.id": group, "enable.auto.commit": False}))
    try:
        known = consumer.list_topics(timeout=client.METADATA_TIMEOUT_S).topics
        if topic not in known or known[topic].error is not None:
            raise PeerError(f"the broker at {bootstrap} has no topic {topic}: correct collect.flow_topics")
        places = [TopicPartition(topic, partition) for partition in known[topic].partitions]
        starts, ends = {}, []
        for place in consumer.committed(places, timeout=client.METADATA_TIMEOUT_S):
            if place.offset < 0:
                _, place.offset = consumer.get_watermark_offsets(place, timeout=client.METADATA_TIMEOUT_S)
                ends.append(TopicPartition(topic, place.partition, place.offset))
            starts[topic, place.partition] = place.offset
        if ends:
            consumer.commit(offsets=ends, asynchronous=False)
        return starts
    except KafkaException as error:
        raise client.unavailable(bootstrap, error.args[0]) from error
    finally:
        consumer.close()


async def run_flow_topics(
    settings: Settings,
    inventory: Inventory,
    emit: Emit,
    stats: CollectorStats,
    delivered: Callable[[], bool] = lambda: True,
) -> None:
    """Every topic of the configuration, until cancelled.

    ``delivered``: waits a while, and says whether all that was emitted has arrived.
    """

    def opened(topic: FlowTopic) -> TopicReading:
        return TopicReading(topic, settings, inventory, emit, stats, delivered)

    topics = (_run(topic, opened) for topic in settings.collect.flow_topics)
    await asyncio.gather(asyncio.Event().wait(), *topics)


async def _run(topic: FlowTopic, opened: Callable[[FlowTopic], TopicReading]) -> None:
    complaint = ""
    while True:
        try:
            await _read(await asyncio.to_thread(opened, topic))
        except PeerError as error:
            if str(error) != complaint:
                complaint = str(error)
                log = structlog.get_logger("ndtwin.collect")
                log.warning("flow topic cannot be read", topic=topic.topic, reason=complaint)
        await asyncio.sleep(RETRY_S)


async def _read(reading: TopicReading) -> None:
    try:
        while True:
            await asyncio.to_thread(reading.step)
    except asyncio.CancelledError:
        await asyncio.shield(asyncio.to_thread(reading.finish))
        raise
    except PeerError:
        await asyncio.to_thread(reading.abandon)
        raise
