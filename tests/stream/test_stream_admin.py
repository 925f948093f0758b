"""Topics come into being as the table says, once, and never by accident."""

from __future__ import annotations

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from ndtwin.broker import EmbeddedBroker
from stream.admin import ensure_topics, topic_config
from stream.topics import BY_NAME, TOPICS
from twin.errors import BrokerUnavailable, ConfigError

pytestmark = pytest.mark.kafka


def test_topics_are_created_with_the_configuration_of_the_table(embedded: EmbeddedBroker) -> None:
    """Every row exists with its partitions, retention or compaction."""
    assert sorted(ensure_topics(embedded.bootstrap, 3)) == sorted(BY_NAME)
    admin = AdminClient({"bootstrap.servers": embedded.bootstrap})
    found = admin.list_topics(timeout=5).topics
    assert {name: len(topic.partitions) for name, topic in found.items()} == dict.fromkeys(BY_NAME, 3)
    for topic in TOPICS:
        [future] = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic.name)]).values()
        assert {name: entry.value for name, entry in future.result(5).items()} == topic_config(topic)


def test_the_alerts_topic_is_compacted_and_no_other() -> None:
    """Compaction is for alerts, whose newest record is the truth; measurements expire instead."""
    compacted = {topic.name for topic in TOPICS if topic_config(topic).get("cleanup.policy") == "compact"}
    assert compacted == {"ndt.alerts"}


def test_ensuring_twice_changes_nothing(embedded: EmbeddedBroker) -> None:
    """The second call creates nothing."""
    ensure_topics(embedded.bootstrap, 1)
    assert ensure_topics(embedded.bootstrap, 1) == []


def test_another_partition_count_is_refused(embedded: EmbeddedBroker) -> None:
    """Existing topics with other partitions are named; nothing is deleted or changed."""
    ensure_topics(embedded.bootstrap, 2)
    with pytest.raises(ConfigError, match=r"than the 1 configured .*ndt\.state has 2"):
        ensure_topics(embedded.bootstrap, 1)


def test_no_broker_is_one_clear_line(port: int) -> None:
    """Nobody listening: the address and what to do."""
    with pytest.raises(BrokerUnavailable, match=f"no Kafka broker answers at 127.0.0.1:{port} .*start it"):
        ensure_topics(f"127.0.0.1:{port}", 1)
