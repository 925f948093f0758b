"""What the publisher accepts arrives: in order, on its partition, through full queues and broker outages."""

from __future__ import annotations

import time

import pytest
from topics_seen import messages_in

from ndtwin.broker import EmbeddedBroker
from stream.admin import ensure_topics
from stream.consumer import Message, Reader, decode_message
from stream.publisher import Publisher
from stream.topics import partition_of
from twin.records import DeadLetter, DeviceSample, Heartbeat, NetworkEvent

pytestmark = pytest.mark.kafka


def event(number: int, network: str = "net", detail: str = "") -> NetworkEvent:
    return NetworkEvent(network=network, device="A", observed_at_ns=number, kind="link-down", detail=detail)


def events(messages: list[Message]) -> list[NetworkEvent]:
    records = [decode_message(message) for message in messages]
    return [record for record in records if isinstance(record, NetworkEvent)]


def test_records_arrive_in_order_with_key_partition_and_time_of_production(embedded: EmbeddedBroker) -> None:
    """Key by the table, partition by the network, timestamp by the clock and not by the record."""
    ensure_topics(embedded.bootstrap, 3)
    before_ms = time.time_ns() // 1_000_000
    with Publisher(embedded.bootstrap, 3) as publisher:
        publisher.publish_all(event(i, network) for i in range(100) for network in ("a", "b", "c"))
    messages = messages_in(embedded.bootstrap, "ndt.events")
    assert publisher.counts.delivered == 300
    for network in ("a", "b", "c"):
        records = [record for record in events(messages) if record.network == network]
        assert records == [event(i, network) for i in range(100)]
    for message in messages:
        assert message.key == b"A"
        assert message.partition == partition_of(decode_message(message), 3)
        assert before_ms <= message.timestamp_ms <= time.time_ns() // 1_000_000


def test_a_full_queue_makes_publish_wait_and_loses_nothing(kafka: str) -> None:
    """Ten places in the queue, two thousand records: publish waits for room and all arrive."""
    with Publisher(kafka, 1, queue_messages=10) as publisher:
        publisher.publish_all(event(i, "full") for i in range(2000))
    assert publisher.counts.waits > 0
    assert (publisher.counts.accepted, publisher.counts.delivered, publisher.counts.refused) == (
        2000,
        2000,
        0,
    )
    arrived = [record for record in events(messages_in(kafka, "ndt.events")) if record.network == "full"]
    assert arrived == [event(i, "full") for i in range(2000)]


def test_records_accepted_while_the_broker_is_away_arrive_when_it_is_back(embedded: EmbeddedBroker) -> None:
    """Publishing during an outage does not raise; the records come through after the restart."""
    ensure_topics(embedded.bootstrap, 1)
    with Publisher(embedded.bootstrap, 1) as publisher:
        publisher.publish(event(0))
        assert publisher.flush(5) == 0
        embedded.stop()
        publisher.publish_all(event(i) for i in range(1, 6))
        assert publisher.flush(0.5) == 5
        embedded.start()
        ensure_topics(embedded.bootstrap, 1)
        assert publisher.flush(10) == 0
    assert [decode_message(m) for m in messages_in(embedded.bootstrap, "ndt.events")] == [
        event(i) for i in range(1, 6)
    ]


def test_what_the_broker_refuses_is_counted(kafka: str) -> None:
    """A partition that does not exist refuses the record: one count, no exception, the rest goes on."""
    with Publisher(kafka, 1) as publisher:
        publisher.send("ndt.health", b"{}", key=None, partition=7)
        publisher.publish(Heartbeat(component="x", observed_at_ns=1, state="running"))
    assert (publisher.counts.refused, publisher.counts.delivered) == (1, 1)


def test_a_reader_rewinds_at_least_as_far_as_asked(embedded: EmbeddedBroker) -> None:
    """rewind=6 yields the last six messages (and perhaps a few before them), to the very end."""
    ensure_topics(embedded.bootstrap, 1)
    with Publisher(embedded.bootstrap, 1) as publisher:
        for number in range(40):
            publisher.publish(event(number))
            publisher.flush()
    with Reader(embedded.bootstrap, ["ndt.events"], rewind=6) as reader:
        assert [decode_message(m) for m in reader.iterate_to_end()] == [event(i) for i in range(34, 40)]


def test_a_group_continues_where_it_committed(embedded: EmbeddedBroker) -> None:
    """A second member of the group sees only what the first has not committed."""
    ensure_topics(embedded.bootstrap, 1)
    with Publisher(embedded.bootstrap, 1) as publisher:
        publisher.publish_all(event(i) for i in range(10))
    with Reader(embedded.bootstrap, ["ndt.events"], group="g") as reader:
        assert len(list(reader.iterate_to_end())) == 10
        reader.commit({("ndt.events", 0): 7})
    with Reader(embedded.bootstrap, ["ndt.events"], group="g") as reader:
        assert [m.offset for m in reader.iterate_to_end()] == [7, 8, 9]


def test_bytes_that_are_no_record_become_a_dead_letter_with_their_position(kafka: str) -> None:
    """Undecodable bytes keep topic, position, key, bytes and reason; so does a record of another topic."""
    sample = b'{"type":"DeviceSample","network":"n","device":"d","observed_at_ns":1,"source":"snmp"}'
    with Publisher(kafka, 1) as publisher:
        for payload in (b"\xff\x00", b"", sample):
            publisher.send("ndt.delays", payload, key=b"k", partition=0)
        publisher.send("ndt.samples", sample, key=b"d", partition=0)
    letters = [decode_message(m) for m in messages_in(kafka, "ndt.delays")][-3:]
    for letter, payload in zip(letters, (b"\xff\x00", b"", sample), strict=True):
        assert isinstance(letter, DeadLetter)
        assert (letter.source, letter.partition, letter.key, letter.payload) == (
            "ndt.delays",
            0,
            b"k",
            payload,
        )
        assert letter.offset >= 0
        assert "ndt.delays" in letter.reason
    assert isinstance(decode_message(messages_in(kafka, "ndt.samples")[-1]), DeviceSample)
