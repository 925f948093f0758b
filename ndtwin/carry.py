"""What goes from one life of the embedded broker into the next, so that its restart loses nothing.

The services are stopped; the old broker still runs. Steps of :func:`carry_over`:

1. read the checkpoints of the stream apps, and from them what each has processed of every partition;
2. read what somebody has not taken yet: messages behind the checkpoints, and behind the archive's offsets;
3. read the newest messages of every identity that late comers need (:data:`CARRIED`);
4. rewrite the checkpoints: in the fresh log, "processed" ends after as many messages as were carried for a
   partition from before the old mark.

Steps of :meth:`Carry.write`, into the fresh broker, whose topics exist: messages in their old order, with
their old timestamps, marked as carried where the archive has them; then the checkpoints, one message at a
time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from confluent_kafka.admin import AdminClient

from stream import client
from stream.admin import ensure_topics
from stream.archive import ARCHIVED, GROUP
from stream.checkpoints import CHANGELOG_SUFFIX, changelog_topic, checkpoint_messages, read_checkpoint
from stream.consumer import CARRIED_HEADER, Message, Place, Reader, committed_offsets
from stream.newest import newest_of_each
from stream.publisher import Publisher
from stream.runner import checkpoint_offsets, with_offsets
from twin.errors import DecodeError

# Topic → how many of the newest messages of every identity are carried, whoever has seen them. An alert's
# newest record is the alert; every device describes itself completely in its newest topology record; seven
# states hold a keyframe for certain (one in six is), so that readers can rebuild the graph.
CARRIED = {"ndt.alerts": 1, "ndt.state": 7, "ndt.predictions": 1, "ndt.topology": 1}
_LOG = client.logger("broker")


@dataclass(frozen=True)
class AppCheckpoint:
    """The checkpoint of one partition of a stream app."""

    app: str
    partition: int
    blob: bytes

    @property
    def seen(self) -> dict[Place, int]:
        """Place → next offset that the app has not processed."""
        offsets = checkpoint_offsets(self.blob)
        return {(topic, self.partition): offset for topic, offset in offsets.items()}


@dataclass
class Carry:
    """Messages and checkpoints on their way from one life of the broker to the next."""

    messages: list[Message] = field(default_factory=list)  # ``carried`` where the archive has them already
    checkpoints: list[AppCheckpoint] = field(default_factory=list)  # with the offsets of the next life
    partitions: int = 1

    def write(self, bootstrap: str) -> int:
        """Put everything into the fresh broker; give how many messages, without checkpoints, were written."""
        apps = {checkpoint.app for checkpoint in self.checkpoints}
        ensure_topics(bootstrap, self.partitions, topics=tuple(changelog_topic(app) for app in sorted(apps)))
        with Publisher(bootstrap, self.partitions, client_id="carry") as publisher:
            for message in self.messages:
                _send(publisher, message)
            publisher.flush()
            delivered = publisher.counts.delivered
            for checkpoint in self.checkpoints:
                _write_checkpoint(publisher, checkpoint)
        return delivered


def _send(publisher: Publisher, message: Message) -> None:
    publisher.send(
        message.topic,
        message.payload,
        key=message.key,
        partition=message.partition,
        timestamp_ms=message.timestamp_ms,
        headers={CARRIED_HEADER: b"1"} if message.carried else None,
    )


def _write_checkpoint(publisher: Publisher, checkpoint: AppCheckpoint) -> None:
    """One message a batch: Faust recovers a table to the high watermark, which here is right only then."""
    topic = changelog_topic(checkpoint.app).name
    for key, value in checkpoint_messages(checkpoint.partition, checkpoint.blob, {}):
        publisher.send(topic, value, key=key, partition=checkpoint.partition)
        publisher.flush()


def carry_over(bootstrap: str) -> Carry:
    """Read what the next life needs; the numbered steps are in the module's docstring."""
    partitions = _partition_counts(bootstrap)
    checkpoints = _checkpoints(bootstrap, partitions)  # 1
    unprocessed = _earliest(checkpoint.seen for checkpoint in checkpoints)
    archived = _archived(bootstrap, partitions)
    found = {**_from(bootstrap, unprocessed), **_from(bootstrap, archived)}  # 2
    with Reader(bootstrap, CARRIED) as reader:  # 3
        found.update(_by_offset(newest_of_each(reader.iterate_to_end(), CARRIED)))
    messages = [
        replace(message, carried=message.carried or message.offset < archived.get(message.place, 1 << 62))
        for _, message in sorted(found.items())
    ]
    return Carry(
        messages=messages,
        checkpoints=[_moved(checkpoint, messages) for checkpoint in checkpoints],  # 4
        partitions=partitions.get("ndt.state", 1),
    )


def _partition_counts(bootstrap: str) -> dict[str, int]:
    admin = AdminClient(client.settings(bootstrap, "carry"))
    topics = admin.list_topics(timeout=client.METADATA_TIMEOUT_S).topics
    return {name: len(topic.partitions) for name, topic in topics.items()}


def _archived(bootstrap: str, partitions: Mapping[str, int]) -> dict[Place, int]:
    """Place → next offset that the archive has not; empty when no archive runs here at all."""
    committed = committed_offsets(bootstrap, GROUP, ARCHIVED)
    if not committed:
        return {}
    places = ((topic, partition) for topic in ARCHIVED for partition in range(partitions[topic]))
    return {place: committed.get(place, 0) for place in places}


def _checkpoints(bootstrap: str, partitions: Mapping[str, int]) -> list[AppCheckpoint]:
    found = []
    for topic in sorted(name for name in partitions if name.endswith(CHANGELOG_SUFFIX)):
        tables: dict[int, dict[bytes, bytes]] = {}
        with Reader(bootstrap, [topic]) as reader:
            for message in reader.iterate_to_end():
                tables.setdefault(message.partition, {})[message.key or b""] = message.payload
        for partition, table in sorted(tables.items()):
            found += _whole(topic, partition, table)
    return found


def _whole(topic: str, partition: int, table: dict[bytes, bytes]) -> list[AppCheckpoint]:
    """The checkpoint of one partition; a damaged one is told and left behind: its app starts afresh."""
    try:
        blob = read_checkpoint(table, partition)
        found = [AppCheckpoint(topic.removesuffix(CHANGELOG_SUFFIX), partition, blob)] if blob else []
        for checkpoint in found:
            checkpoint_offsets(checkpoint.blob)
    except DecodeError as error:
        _LOG.warning("checkpoint left behind", topic=topic, reason=str(error))
        return []
    return found


def _earliest(seen: Iterable[Mapping[Place, int]]) -> dict[Place, int]:
    earliest: dict[Place, int] = {}
    for offsets in seen:
        for place, offset in offsets.items():
            earliest[place] = min(offset, earliest.get(place, offset))
    return earliest


def _from(bootstrap: str, starts: Mapping[Place, int]) -> dict[tuple[Place, int], Message]:
    """Everything from the given offsets on."""
    if not starts:
        return {}
    with Reader(bootstrap, sorted({topic for topic, _ in starts}), starts=starts) as reader:
        messages = [m for m in reader.iterate_to_end() if m.place in starts]
    return _by_offset(messages)


def _by_offset(messages: Iterable[Message]) -> dict[tuple[Place, int], Message]:
    return {(message.place, message.offset): message for message in messages}


def _moved(checkpoint: AppCheckpoint, messages: list[Message]) -> AppCheckpoint:
    """The checkpoint with offsets of the fresh log: the number of carried messages that it had processed."""
    offsets = {
        topic: sum(m.place == (topic, partition) and m.offset < offset for m in messages)
        for (topic, partition), offset in checkpoint.seen.items()
    }
    return replace(checkpoint, blob=with_offsets(checkpoint.blob, offsets))
