"""Make the topics of the table exist as the table says. Deletes nothing, ever."""

from __future__ import annotations

from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from stream import client
from stream.topics import TOPICS, Topic
from twin.errors import BrokerUnavailable, ConfigError

MAX_MESSAGE_BYTES = 4 << 20  # head room over the 1 MB that a record may take, for batches
_TIMEOUT_S = 10.0


def topic_config(topic: Topic) -> dict[str, str]:
    """The broker-side configuration of one row. A compacted topic keeps the newest record of every key."""
    cleanup = {"cleanup.policy": "compact"} if topic.compacted else {"retention.ms": str(topic.retention_ms)}
    return {**cleanup, "max.message.bytes": str(MAX_MESSAGE_BYTES)}


def ensure_topics(
    bootstrap: str, partitions: int, *, topics: tuple[Topic, ...] = TOPICS, replication: int = -1
) -> list[str]:
    """Create what is missing; give the names of what was created. Running it again changes nothing.

    ``replication`` −1 leaves the count to the broker's default. A topic that exists with another number of
    partitions is a ConfigError: records of one network would part.
    """
    admin = AdminClient(client.settings(bootstrap, "admin"))
    existing = _partition_counts(admin, bootstrap)
    _refuse_mismatch(
        {topic.name: existing[topic.name] for topic in topics if topic.name in existing}, partitions
    )
    missing = [topic for topic in topics if topic.name not in existing]
    if not missing:
        return []
    new = [NewTopic(t.name, partitions, replication, config=topic_config(t)) for t in missing]
    futures = admin.create_topics(new, operation_timeout=_TIMEOUT_S)
    return [name for name, future in futures.items() if _created(name, future)]


def _partition_counts(admin: Any, bootstrap: str) -> dict[str, int]:
    try:
        topics = admin.list_topics(timeout=client.METADATA_TIMEOUT_S).topics
    except KafkaException as error:
        raise client.unavailable(bootstrap, error.args[0]) from error
    return {name: len(topic.partitions) for name, topic in topics.items()}


def _refuse_mismatch(existing: dict[str, int], partitions: int) -> None:
    wrong = {name: count for name, count in existing.items() if count != partitions}
    if wrong:
        listed = ", ".join(f"{name} has {count}" for name, count in sorted(wrong.items()))
        raise ConfigError(
            f"topics exist with another number of partitions than the {partitions} configured ({listed}): "
            "configure that number, or delete the topics"
        )


def _created(name: str, future: Any) -> bool:
    try:
        future.result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:  # somebody else was faster: as good
            return False
        raise BrokerUnavailable(f"topic {name} cannot be created: {error.args[0].str()}") from error
    return True
