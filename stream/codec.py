"""Records ↔ the bytes that travel: one JSON object a message, tagged with its record's name."""

from __future__ import annotations

import msgspec

from stream.topics import TOPICS
from twin.errors import DecodeError
from twin.records import Record

_ENCODER = msgspec.json.Encoder(order="deterministic")
_DECODERS = {
    topic.name: msgspec.json.Decoder(
        topic.records[0] if len(topic.records) == 1 else topic.records[0] | topic.records[1]
    )
    for topic in TOPICS
}


def encode(record: Record) -> bytes:
    """Encode; equal records give equal bytes."""
    return _ENCODER.encode(record)


def decode(topic: str, payload: bytes) -> Record:
    """Decode a message of a topic; DecodeError says what is wrong with the bytes."""
    try:
        record: Record = _DECODERS[topic].decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DecodeError(f"{topic}: not a record of this topic: {error}") from error
    return record
