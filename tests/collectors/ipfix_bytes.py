"""IPFIX messages for tests, built octet by octet (RFC 7011 section 3), independent of the decoder."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

VARIABLE = 65535
Fields = list[tuple[int, ...]]  # (element, length) or (element, length, enterprise)


def message(*sets: bytes, sequence: int = 0, domain: int = 7, time_s: int = 1_000_000_000) -> bytes:
    """A whole message."""
    body = b"".join(sets)
    return struct.pack(">HHIII", 10, 16 + len(body), time_s, sequence, domain) + body


def any_set(set_id: int, body: bytes) -> bytes:
    """A set with its header."""
    return struct.pack(">HH", set_id, 4 + len(body)) + body


def _specifiers(fields: Fields) -> bytes:
    parts = []
    for element, length, *enterprise in fields:
        flag = 0x8000 if enterprise else 0
        parts.append(struct.pack(">HH", element | flag, length))
        parts.append(struct.pack(">I", enterprise[0]) if enterprise else b"")
    return b"".join(parts)


def template(template_id: int, fields: Fields) -> bytes:
    """A template set with one template."""
    return any_set(2, struct.pack(">HH", template_id, len(fields)) + _specifiers(fields))


def options_template(template_id: int, scopes: int, fields: Fields) -> bytes:
    """An options template set with one options template."""
    return any_set(3, struct.pack(">HHH", template_id, len(fields), scopes) + _specifiers(fields))


def withdrawal(set_id: int, template_id: int) -> bytes:
    """A template withdrawal."""
    return any_set(set_id, struct.pack(">HH", template_id, 0))


def ipv4(text: str) -> bytes:
    """An address, four octets."""
    return IPv4Address(text).packed


# The template and the three records of the example in RFC 7011 appendix A.
EXAMPLE_FIELDS: Fields = [(8, 4), (12, 4), (15, 4), (2, 4), (1, 4)]
EXAMPLE_ROWS = (
    ("192.0.2.12", "198.51.100.254", "192.0.2.1", 5009, 5344385),
    ("192.0.2.27", "198.51.100.23", "192.0.2.2", 748, 388934),
    ("192.0.2.56", "203.0.113.2", "192.0.2.3", 5, 6534),
)
EXAMPLE_DATA = b"".join(
    ipv4(source) + ipv4(destination) + ipv4(hop) + struct.pack(">II", packets, octets)
    for source, destination, hop, packets, octets in EXAMPLE_ROWS
)
EXAMPLE_TEMPLATE = template(256, EXAMPLE_FIELDS)
EXAMPLE_DATA_SET = any_set(256, EXAMPLE_DATA)
EXAMPLE = message(EXAMPLE_TEMPLATE, EXAMPLE_DATA_SET)
