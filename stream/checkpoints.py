"""How a checkpoint lies in a changelog topic: in pieces that fit into messages, whole or not at all.

The pieces come first and the head last, so that the head names only what is whole. Generations alternate: a
new checkpoint never overwrites the one it replaces. Keys: ``PARTITION`` for the head,
``PARTITION/GENERATION/PIECE`` for a piece.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import msgspec

from stream.topics import DAY_MS, Topic
from twin.errors import DecodeError

TABLE = "checkpoints"
CHANGELOG_SUFFIX = f"-{TABLE}-changelog"
_PIECE_BYTES = 900_000


class _Head(msgspec.Struct, array_like=True):
    generation: int
    pieces: int
    crc32: int


def changelog_topic(name: str) -> Topic:
    """The topic that holds the checkpoints of an app."""
    return Topic(name + CHANGELOG_SUFFIX, "partition", (), DAY_MS, compacted=True, archived=False)


def checkpoint_messages(
    partition: int, blob: bytes, table: Mapping[bytes, bytes]
) -> list[tuple[bytes, bytes]]:
    """The (key, value) messages that make ``blob`` a partition's checkpoint, to be written in this order."""
    head = _head(table, partition)
    generation = 1 - head.generation if head is not None else 0
    pieces = [blob[i : i + _PIECE_BYTES] for i in range(0, len(blob), _PIECE_BYTES)]
    messages = [(_piece_key(partition, generation, i), piece) for i, piece in enumerate(pieces)]
    new = _Head(generation, len(pieces), zlib.crc32(blob))
    return [*messages, (_head_key(partition), msgspec.msgpack.encode(new))]


def read_checkpoint(table: Mapping[bytes, bytes], partition: int) -> bytes | None:
    """The newest whole checkpoint of a partition; DecodeError when its pieces do not fit."""
    head = _head(table, partition)
    if head is None:
        return None
    keys = (_piece_key(partition, head.generation, i) for i in range(head.pieces))
    blob = b"".join(table.get(key) or b"" for key in keys)
    if zlib.crc32(blob) != head.crc32:
        raise DecodeError(f"checkpoint of partition {partition} is damaged")
    return blob


def _head(table: Mapping[bytes, bytes], partition: int) -> _Head | None:
    value = table.get(_head_key(partition))
    return msgspec.msgpack.decode(value, type=_Head) if value is not None else None


def _head_key(partition: int) -> bytes:
    return b"%d" % partition


def _piece_key(partition: int, generation: int, piece: int) -> bytes:
    return b"%d/%d/%d" % (partition, generation, piece)
