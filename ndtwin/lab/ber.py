"""Encoding SNMP values by the Basic Encoding Rules (X.690), as much as an agent answers with.

Definite lengths only, primitive types only (RFC 3417 section 8). Tags: RFC 2578 section 7.1 for the
application types, RFC 3416 section 3 for the exceptions.
"""

from __future__ import annotations

from collections.abc import Sequence

INTEGER, OCTETS, NULL, OID, SEQUENCE = 0x02, 0x04, 0x05, 0x06, 0x30
IP_ADDRESS, COUNTER32, GAUGE32, TIME_TICKS, COUNTER64 = 0x40, 0x41, 0x42, 0x43, 0x46
NO_SUCH_OBJECT = b"\x80\x00"
NO_SUCH_INSTANCE = b"\x81\x00"
END_OF_MIB_VIEW = b"\x82\x00"


def tlv(tag: int, body: bytes) -> bytes:
    """Tag, length, value."""
    size = len(body)
    if size < 0x80:
        return bytes((tag, size)) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + body


def integer(value: int, tag: int = INTEGER) -> bytes:
    """A two's complement integer in as few octets as hold it; unsigned types pass their tag."""
    size = value.bit_length() // 8 + 1
    return bytes((tag, size)) + value.to_bytes(size, "big", signed=True)


def counter32(value: int) -> bytes:
    """Wraps at 2³²."""
    return integer(value & 0xFFFFFFFF, COUNTER32)


def counter64(value: int) -> bytes:
    """Wraps at 2⁶⁴."""
    return integer(value & 0xFFFFFFFFFFFFFFFF, COUNTER64)


def gauge32(value: float) -> bytes:
    """Stays at 2³² − 1 when there is more to tell (RFC 2578 section 7.1.7)."""
    return integer(min(max(round(value), 0), 0xFFFFFFFF), GAUGE32)


def time_ticks(value: int) -> bytes:
    """Hundredths of a second."""
    return integer(value & 0xFFFFFFFF, TIME_TICKS)


def octets(value: bytes | str) -> bytes:
    """An octet string; text goes as UTF-8."""
    return tlv(OCTETS, value.encode() if isinstance(value, str) else value)


def oid(parts: Sequence[int]) -> bytes:
    """An object identifier."""
    body = bytearray()
    for part in (parts[0] * 40 + parts[1], *parts[2:]):
        body += _base128(part)
    return tlv(OID, bytes(body))


def _base128(part: int) -> bytes:
    if part < 0x80:
        return bytes((part,))
    digits = [part & 0x7F]
    while part := part >> 7:
        digits.append(0x80 | part & 0x7F)
    return bytes(reversed(digits))
