"""Protocol Buffers' wire format, as far as flat messages need it: field numbers → numbers or octets.

A message is a row of (number of the field · 8 + wire type, value). Wire types: 0 a varint, 1 eight octets, 2
a length and octets, 5 four octets. Where a field comes twice the last one counts. Groups (3, 4) were given up
long ago. What does not fit is a ValueError.
"""

from __future__ import annotations

from collections.abc import Iterator

Value = int | bytes
_VARINT_OCTETS = 10  # 64 bits in groups of seven
_FIXED = {1: 8, 5: 4}


def delimited(payload: bytes) -> Iterator[bytes]:
    """Messages that each have their length before them."""
    at = 0
    while at < len(payload):
        length, at = _varint(payload, at)
        yield _octets(payload, at, length)
        at += length


def fields(message: bytes) -> dict[int, Value]:
    """All fields of one message."""
    found: dict[int, Value] = {}
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            found[number], at = _varint(message, at)
            continue
        if kind == 2:
            length, at = _varint(message, at)
        elif kind in _FIXED:
            length = _FIXED[kind]
        else:
            raise ValueError(f"field {number} has wire type {kind}")
        found[number] = _octets(message, at, length)
        at += length
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins there, and where it ends."""
    value = 0
    for i, octet in enumerate(data[at : at + _VARINT_OCTETS]):
        value |= (octet & 0x7F) << 7 * i
        if octet < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at + i + 1
    raise ValueError("a number does not end")


def _octets(data: bytes, at: int, length: int) -> bytes:
    if at + length > len(data):
        raise ValueError(f"{length} octets are announced, {len(data) - at} are left")
    return data[at : at + length]
