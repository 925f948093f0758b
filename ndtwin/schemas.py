"""JSON Schemas and an AsyncAPI document, generated from the records and the table of topics.

Nobody edits ``docs/schemas`` by hand: `ndtwin schemas` writes it and a test compares.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from stream.topics import TOPICS, Topic
from twin.records import Record

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def record_schema(record: type[Record]) -> dict[str, Any]:
    """The JSON Schema of one record, self-contained."""
    (root,), components = msgspec.json.schema_components([record], ref_template="#/$defs/{name}")
    return {"$schema": _DIALECT, "title": record.__name__, **root, "$defs": components}


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document: a channel for each topic, a message for each record."""
    records = [record for topic in TOPICS for record in topic.records]
    _, components = msgspec.json.schema_components(records, ref_template="#/components/schemas/{name}")
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "ndtwin topics",
            "version": version("ndtwin"),
            "description": "One JSON object a message.",
        },
        "defaultContentType": "application/json",
        "channels": {topic.name: _channel(topic) for topic in TOPICS},
        "operations": {f"on {topic.name}": _operation(topic) for topic in TOPICS},
        "components": {
            "messages": {record.__name__: _message(record) for record in records},
            "schemas": components,
        },
    }


def _channel(topic: Topic) -> dict[str, Any]:
    return {
        "address": topic.name,
        "description": f"Keyed by {topic.key}; {'compacted' if topic.compacted else 'kept for a time'}.",
        "messages": {r.__name__: {"$ref": f"#/components/messages/{r.__name__}"} for r in topic.records},
        "bindings": {
            "kafka": {
                "topicConfiguration": {
                    "cleanup.policy": ["compact" if topic.compacted else "delete"],
                    "retention.ms": topic.retention_ms,
                }
            }
        },
    }


def _operation(topic: Topic) -> dict[str, Any]:
    return {"action": "receive", "channel": {"$ref": f"#/channels/{topic.name.replace('/', '~1')}"}}


def _message(record: type[Record]) -> dict[str, Any]:
    summary = (record.__doc__ or "").strip().splitlines()[0]
    return {
        "name": record.__name__,
        "summary": summary,
        "payload": {"$ref": f"#/components/schemas/{record.__name__}"},
    }


def documents() -> dict[str, str]:
    """File name → text of everything in ``docs/schemas``."""
    files = {f"{record.__name__}.json": record_schema(record) for topic in TOPICS for record in topic.records}
    files["asyncapi.json"] = asyncapi()
    return {
        name: json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        for name, body in files.items()
    }


def write_documents(directory: Path) -> list[Path]:
    """Write them all; the files written."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in documents().items():
        (directory / name).write_text(text)
        written.append(directory / name)
    return written
