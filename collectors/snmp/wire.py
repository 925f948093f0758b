"""The outer layers of an SNMP message, read without decoding the rest: whose it is.

Layouts (BER, definite lengths; RFC 3417 section 8):

    versions 1, 2c (RFC 1901)  SEQUENCE { INTEGER version, OCTET STRING community, [n] { INTEGER request-id …
    version 3 (RFC 3412 § 6)   SEQUENCE { INTEGER version, SEQUENCE { INTEGER msgID …

In version 3 an OCTET STRING with the USM's parameters (RFC 3414 section 2.4) follows the header:

    SEQUENCE { OCTET STRING engine id, INTEGER boots, INTEGER time, OCTET STRING user …

Pure; anything else is None, never an exception.
"""

from __future__ import annotations

from typing import NamedTuple

_SEQUENCE, _INTEGER, _OCTETS = 0x30, 0x02, 0x04
_PDU = 0xA0  # context-specific and constructed: GetRequest-PDU and its kin
_VERSION_3 = 3


def message_id(message: bytes) -> int | None:
    """The msgID of version 3, the request-id of the others; None where there is none."""
    try:
        start = _enter(message, 0, _SEQUENCE)
        version, after = _integer(message, start)
        if version == _VERSION_3:
            return _integer(message, _enter(message, after, _SEQUENCE))[0]
        start, size = _element(message, after, _OCTETS)
        return _integer(message, _enter(message, start + size, _PDU))[0]
    except (IndexError, ValueError):
        return None


class Sender(NamedTuple):
    """Whose keys and whose time a message of version 3 claims."""

    engine_id: bytes
    boots: int
    time_s: int
    user: str


def sender_of(message: bytes) -> Sender | None:
    """The security parameters of a message of version 3; None of the others."""
    try:
        version, after = _integer(message, _enter(message, 0, _SEQUENCE))
        if version != _VERSION_3:
            return None
        header, size = _element(message, after, _SEQUENCE)
        at = _enter(message, _enter(message, header + size, _OCTETS), _SEQUENCE)
        engine_id, at = _octets(message, at)
        boots, at = _integer(message, at)
        time_s, at = _integer(message, at)
        user, _ = _octets(message, at)
        return Sender(engine_id, boots, time_s, user.decode())
    except (IndexError, ValueError):
        return None


class Secured(NamedTuple):
    """What a message of version 3 says of its own security, and where its tag is."""

    flags: int  # msgFlags: 1 authenticated, 2 encrypted
    engine_id: bytes
    tag_at: int
    tag_octets: int
    pdu: int  # the tag of its PDU where it is plain text, else 0


def secured(message: bytes) -> Secured | None:
    """The security of a message of version 3; None of others, and of what does not fill the datagram."""
    try:
        whole, size = _element(message, 0, _SEQUENCE)
        version, after = _integer(message, whole)
        if version != _VERSION_3 or whole + size != len(message):
            return None
        header, size = _element(message, after, _SEQUENCE)
        _, at = _integer(message, header)
        _, at = _integer(message, at)
        flags, _ = _octets(message, at)
        parameters, octets = _element(message, header + size, _OCTETS)
        engine_id, at = _octets(message, _enter(message, parameters, _SEQUENCE))
        _, at = _integer(message, at)
        _, at = _integer(message, at)
        _, at = _octets(message, at)
        tag_at, tag_octets = _element(message, at, _OCTETS)
        return Secured(flags[0], engine_id, tag_at, tag_octets, _pdu(message, parameters + octets))
    except (IndexError, ValueError):
        return None


def _pdu(message: bytes, at: int) -> int:
    """The tag of a plain scoped PDU (RFC 3412 section 6.8); 0 of an encrypted one."""
    if message[at] != _SEQUENCE:
        return 0
    _, at = _octets(message, _enter(message, at, _SEQUENCE))
    _, at = _octets(message, at)
    return message[at]


def _octets(data: bytes, at: int) -> tuple[bytes, int]:
    """An octet string, and where the next element begins."""
    start, size = _element(data, at, _OCTETS)
    if start + size > len(data):
        raise ValueError("cut off")
    return data[start : start + size], start + size


def _element(data: bytes, at: int, tag: int) -> tuple[int, int]:
    """Of the element at ``at``: where its contents begin, and their length (X.690 section 8.1.3)."""
    found, first = data[at], data[at + 1]
    if found != tag and not (tag == _PDU and found & 0xE0 == _PDU):
        raise ValueError("another tag")
    if first < 0x80:
        return at + 2, first
    start = at + 2 + (first & 0x7F)
    return start, int.from_bytes(data[at + 2 : start], "big")


def _enter(data: bytes, at: int, tag: int) -> int:
    return _element(data, at, tag)[0]


def _integer(data: bytes, at: int) -> tuple[int, int]:
    """The value, and where the next element begins."""
    start, size = _element(data, at, _INTEGER)
    contents = data[start : start + size]
    if not 0 < len(contents) == size <= 8:
        raise ValueError("no integer")
    return int.from_bytes(contents, "big", signed=True), start + size
