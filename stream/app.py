"""The Faust application: the live driver of processors. The only module that knows Faust.

Theory
------
One agent reads the input topics as raw bytes; every partition has a :class:`stream.runner.PartitionRunner`
with its own processor. Faust brings group membership, assignment, and a table whose changelog holds the
checkpoints. Its windows and its commit on read are not used: they go by wall clock, and a crash would lose
what was read.

Every turn of a partition, on each batch of events and on a timer, takes these steps:

1. release what the runner may release; outputs are the processor's answers and dead letters;
2. produce the outputs and wait until the broker has them;
3. when something was concluded (an output other than a dead letter), or 10 s after the last time, write the
   checkpoint to the table and wait until its changelog has it;
4. acknowledge the events that the checkpoint contains; Faust commits their offsets.

After a crash anywhere, the events after the last checkpoint come again, and the offsets inside the
checkpoint tell which of the others do. A crash between 2 and 3 produces the same bytes twice under the same
key: consumers are idempotent by version. Table and log are never out of step, because the offsets are
inside the table.

Time. The clock is the log's: the newest timestamp read. When every topic of a partition is read to its end,
the clock follows the wall clock, so that windows close (flagged) even when all collectors are dead. This
does not break replay: such a turn has the same effect as the next record's, see the theory of the runner.

The embedded broker tells a high watermark of "base offset of the last batch + 1"; checkpoints are written
one message a batch and each awaited, so that Faust recovers the table to its true end.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faust
from mode.supervisors import CrashingSupervisor

from stream.admin import MAX_MESSAGE_BYTES, ensure_topics
from stream.checkpoints import TABLE, changelog_topic, checkpoint_messages, read_checkpoint
from stream.client import logger
from stream.codec import encode
from stream.consumer import Message
from stream.processor import Processor
from stream.runner import PartitionRunner
from stream.topics import BY_RECORD, TOPICS, key_of, partition_of
from twin.errors import DecodeError
from twin.records import DeadLetter, Record

CHECKPOINT_EVERY_S = 10.0
TURN_EVERY_S = 0.25
STATUS_EVERY_S = 2.0
_LOG = logger("stream")

OnStatus = Callable[[dict[str, float]], None]
MakeProcessor = Callable[[], Processor]


class CheckpointTable:
    """Checkpoints in a Faust table, in the form of :mod:`stream.checkpoints`."""

    def __init__(self, table: Any) -> None:
        self._table = table

    async def write(self, partition: int, blob: bytes) -> None:
        """Each message acknowledged before the next is sent."""
        for key, value in checkpoint_messages(partition, blob, self._table.data):
            sent = await self._table.changelog_topic.send(
                key=key, value=value, partition=partition, key_serializer="raw", value_serializer="raw"
            )
            await sent
            self._table.data[key] = value

    def read(self, partition: int) -> bytes | None:
        """The newest whole checkpoint of a partition; DecodeError when its pieces do not fit."""
        return read_checkpoint(self._table.data, partition)


def _message(message: Any) -> Message:
    """Faust's message as ours; a tombstone, which no topic of ours has, as an empty one."""
    timestamp_ms = round(message.timestamp * 1000)
    return Message(
        message.topic, message.partition, message.offset, timestamp_ms, message.key, message.value or b""
    )


@dataclass
class _Turns:
    """One partition at work: its runner, and the events that wait for a checkpoint."""

    runner: PartitionRunner
    unacknowledged: dict[str, deque[Any]] = field(default_factory=dict)
    checkpoint_at_s: float = 0.0

    def keep(self, event: Any) -> None:
        self.unacknowledged.setdefault(event.message.topic, deque()).append(event)

    def acknowledge(self) -> None:
        """Step 4."""
        for topic, events in self.unacknowledged.items():
            while events and events[0].message.offset < self.runner.offsets[topic]:
                events.popleft().ack()


class StreamApp:
    """A Faust app that runs one kind of processor over partitions of its input topics."""

    def __init__(
        self,
        app: Any,
        topics: tuple[str, ...],
        make_processor: MakeProcessor,
        *,
        partitions: int,
        on_status: OnStatus | None,
    ) -> None:
        self.app = app
        self._topics = topics
        self._make_processor = make_processor
        self._partitions = partitions
        self._on_status = on_status
        self._turns: dict[int, _Turns] = {}
        self._metrics: dict[str, float] = {"outputs": 0, "checkpoints": 0, "checkpoint_bytes": 0}
        raw = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
        self._outputs = {topic.name: app.topic(topic.name, **raw) for topic in TOPICS}
        table = app.Table(TABLE, key_type=bytes, value_type=bytes, partitions=partitions)
        self._checkpoints = CheckpointTable(table)
        app.agent(app.topic(*topics, **raw), name="turns", concurrency=1)(self._agent)
        app.timer(TURN_EVERY_S)(self._turn_all)
        app.timer(STATUS_EVERY_S)(self._tell_status)
        app.on_partitions_revoked.connect(self._on_revoked)

    async def _agent(self, stream: Any) -> None:
        async for event in stream.noack().events():
            turns = self._turns_of(event.message.partition)
            turns.keep(event)
            turns.runner.feed(_message(event.message), time.time_ns())

    def _turns_of(self, partition: int) -> _Turns:
        """The partition's work, restored from its checkpoint when it has just come to this worker."""
        turns = self._turns.get(partition)
        if turns is None:
            turns = self._turns[partition] = _Turns(
                self._restored(partition), checkpoint_at_s=time.monotonic()
            )
        return turns

    def _restored(self, partition: int) -> PartitionRunner:
        runner = PartitionRunner(self._make_processor(), self._topics, partition)
        try:
            blob = self._checkpoints.read(partition)
            if blob is not None:
                runner.restore(blob)
        except DecodeError as error:
            _LOG.warning("starts afresh", partition=partition, reason=str(error))
            return PartitionRunner(self._make_processor(), self._topics, partition)
        _LOG.info(
            "partition assigned", partition=partition, restored=blob is not None, clock_ns=runner.clock_ns
        )
        return runner

    async def _on_revoked(self, _app: Any, _revoked: Any, **_: Any) -> None:
        """Partitions may go to another worker: all are taken up again from their checkpoints."""
        self._turns = {}

    async def _turn_all(self) -> None:
        if self.app.rebalancing or not self.app.tables.recovery.completed.is_set():
            return
        assigned = {tp.partition for tp in self.app.consumer.assignment() if tp.topic in self._topics}
        for partition in sorted(assigned):
            await self._turn(self._turns_of(partition))

    async def _turn(self, turns: _Turns) -> None:
        """Steps 1 to 4 of the module's docstring."""
        runner = turns.runner
        outputs = runner.step(
            lambda topic, offset: self._at_end(topic, runner.partition, offset), time.time_ns()
        )  # 1
        if outputs:
            await self._produce(outputs)  # 2
        concluded = any(not isinstance(record, DeadLetter) for record in outputs)
        due = time.monotonic() - turns.checkpoint_at_s >= CHECKPOINT_EVERY_S
        if turns is not self._turns.get(runner.partition) or not (concluded or due):
            return
        blob = runner.checkpoint()  # 3
        await self._checkpoints.write(runner.partition, blob)
        turns.checkpoint_at_s = time.monotonic()
        self._metrics["checkpoints"] += 1
        self._metrics["checkpoint_bytes"] = len(blob)
        turns.acknowledge()  # 4

    def _at_end(self, topic: str, partition: int, next_offset: int) -> bool:
        highwater = self.app.consumer.highwater(faust.types.TP(topic, partition))
        return highwater is not None and next_offset >= highwater

    async def _produce(self, records: Iterable[Record]) -> None:
        sent: list[Awaitable[Any]] = []
        for record in records:
            topic = self._outputs[BY_RECORD[type(record)].name]
            partition = partition_of(record, self._partitions)
            sent.append(await topic.send(key=key_of(record), value=encode(record), partition=partition))
            self._metrics["outputs"] += 1
        await asyncio.gather(*sent)

    async def _tell_status(self) -> None:
        if self._on_status is None:
            return
        metrics = dict(self._metrics, partitions=len(self._turns), held=0, clock_lag_s=0.0)
        for turns in self._turns.values():
            runner = turns.runner
            metrics["held"] += runner.held
            metrics["clock_lag_s"] = max(metrics["clock_lag_s"], (time.time_ns() - runner.clock_ns) * 1e-9)
            for name, value in {**runner.metrics, **getattr(runner.processor, "metrics", {})}.items():
                metrics[name] = metrics.get(name, 0) + value
        self._on_status(metrics)


def _faust_app(name: str, bootstrap: str, partitions: int, data_dir: Path) -> Any:
    """A Faust app with the settings that the theory and the embedded broker ask for."""
    return faust.App(
        name,
        broker=f"kafka://{bootstrap}",
        store="memory://",  # one value a partition; recovered from the changelog
        datadir=str(data_dir),
        web_enabled=False,
        topic_partitions=partitions,
        topic_allow_declare=False,  # stream.admin makes topics: what Faust makes differs from the table
        topic_disable_leader=True,
        table_standby_replicas=0,
        agent_supervisor=CrashingSupervisor,  # a fault of ours ends the process; `ndtwin up` restarts it
        # A worker that is killed holds the group until its session ends; the broker's defaults are minutes.
        broker_session_timeout=10,
        broker_rebalance_timeout=10,
        broker_request_timeout=20,
        broker_heartbeat_interval=2,
        consumer_max_fetch_size=MAX_MESSAGE_BYTES,
        producer_max_request_size=MAX_MESSAGE_BYTES,
        broker_commit_interval=2,
        stream_wait_empty=False,  # else stopping waits for events that the next checkpoint acknowledges
    )


def run_app(
    name: str,
    bootstrap: str,
    topics: Iterable[str],
    make_processor: MakeProcessor,
    *,
    partitions: int = 1,
    on_status: OnStatus | None = None,
    data_dir: Path | None = None,
) -> None:
    """Run ``make_processor()`` over all partitions of the topics until SIGTERM or SIGINT. Blocks; own loop.

    ``name`` is the consumer group and the prefix of the checkpoint topic; missing topics are made.
    Raises BrokerUnavailable when no broker answers, and what crashed the app when something did.
    """
    ensure_topics(bootstrap, partitions, topics=(*TOPICS, changelog_topic(name)))
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    app = _faust_app(name, bootstrap, partitions, data_dir or Path("run") / name)
    StreamApp(app, tuple(topics), make_processor, partitions=partitions, on_status=on_status)
    for noisy in ("faust", "mode", "aiokafka"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    worker = faust.Worker(app, loop=loop, quiet=True, override_logging=False, redirect_stdouts=False)
    worker.spinner = None  # it would write to our terminal
    try:
        worker.execute_from_commandline()
    except SystemExit as stop:
        if stop.code:
            raise
