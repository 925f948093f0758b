"""What every confluent-kafka client of ndtwin has in common: settings, logging, the check for a broker."""

from __future__ import annotations

import logging
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException

from twin.errors import BrokerUnavailable

METADATA_TIMEOUT_S = 3.0

# librdkafka's own words go to this logger; a broker that is away is reported by us, once, in one line.
_LIBRDKAFKA = logging.getLogger("ndtwin.librdkafka")
_LIBRDKAFKA.addHandler(logging.NullHandler())
_LIBRDKAFKA.propagate = False


def settings(bootstrap: str, client_id: str, **more: Any) -> dict[str, Any]:
    """The configuration of one client: the common part, then its own."""
    return {
        "bootstrap.servers": bootstrap,
        "client.id": f"ndtwin-{client_id}",
        # Topics are made by stream.admin alone: what a broker makes by itself has the wrong partition count.
        "allow.auto.create.topics": False,
        "reconnect.backoff.max.ms": 1000,  # a broker that comes back is found within a second
        "logger": _LIBRDKAFKA,
        **more,
    }


def cluster_id(client: Any, bootstrap: str, timeout_s: float = METADATA_TIMEOUT_S) -> str:
    """The identity of the cluster behind any client; BrokerUnavailable when nobody answers.

    A broker that keeps its log keeps its identity. The embedded broker forgets its log with every start and
    takes a new identity, so (cluster id, topic, partition, offset) names one message for ever: the cluster id
    is what ndtwin calls the *epoch*.
    """
    try:
        return client.list_topics(timeout=timeout_s).cluster_id or "unknown"
    except KafkaException as error:
        raise unavailable(bootstrap, error.args[0]) from error


def unavailable(bootstrap: str, error: KafkaError) -> BrokerUnavailable:
    """The one line an operator sees when there is no broker."""
    return BrokerUnavailable(
        f"no Kafka broker answers at {bootstrap} ({error.str()}): "
        "start it, run `ndtwin up`, or set NDTWIN_KAFKA"
    )


def logger(component: str) -> structlog.stdlib.BoundLogger:
    """The structured logger of a component, named ``ndtwin.<component>``."""
    bound: structlog.stdlib.BoundLogger = structlog.get_logger(f"ndtwin.{component}")
    return bound
