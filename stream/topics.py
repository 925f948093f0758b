"""The one table of topics: name, key, record types, retention, compaction.

Every topic of a deployment has the same number of partitions, and a record goes to the partition of its
*network* (:func:`partition_of`), whatever its key. So all that concerns one network meets on one partition
and one worker, its order is kept per topic, no repartitioning hop is needed, and many networks spread over
many workers. Keys stay what an operator wants to read in kcat: the device, the exporter, the fingerprint.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from twin import records as r

DAY_MS = 86_400_000


@dataclass(frozen=True)
class Topic:
    """One row of the table."""

    name: str
    key: str  # which field of the record is the key
    records: tuple[type[r.Record], ...]
    retention_ms: int = 7 * DAY_MS
    compacted: bool = False
    archived: bool = True


TOPICS: tuple[Topic, ...] = (
    Topic("ndt.samples", "device", (r.DeviceSample,)),
    Topic("ndt.topology", "network", (r.DeviceTopology, r.LinkAnnotations)),
    Topic("ndt.flows", "device", (r.FlowReport,)),
    Topic("ndt.delays", "device", (r.DelayReport,)),
    Topic("ndt.events", "device", (r.NetworkEvent,)),
    Topic("ndt.state", "network", (r.StateUpdate,)),
    Topic("ndt.predictions", "network", (r.Prediction,)),
    Topic("ndt.alerts", "fingerprint", (r.Alert,), compacted=True),
    Topic("ndt.health", "component", (r.Heartbeat,), retention_ms=DAY_MS, archived=False),
    Topic("ndt.deadletter", "source", (r.DeadLetter,), retention_ms=30 * DAY_MS),
)
BY_NAME = {topic.name: topic for topic in TOPICS}
BY_RECORD = {record: topic for topic in TOPICS for record in topic.records}
INPUT_TOPICS = ("ndt.topology", "ndt.samples", "ndt.flows", "ndt.delays", "ndt.events")


def key_of(record: r.Record) -> bytes:
    """The Kafka key of a record, by the table."""
    return str(getattr(record, BY_RECORD[type(record)].key)).encode()


def partition_of(record: r.Record, partitions: int) -> int:
    """The partition of a record: that of its network; health and dead letters, which have none, go by key."""
    network = getattr(record, "network", None)
    return zlib.crc32(network.encode() if network is not None else key_of(record)) % partitions
