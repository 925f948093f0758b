"""NetFlow 9 and 5 messages for tests, built octet by octet (RFC 3954; Cisco's layout of version 5)."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from ipfix_bytes import any_set

SENT_S, UPTIME_MS = 1_000_000_000, 500_000
V5_RECORD = struct.Struct(">4s4s4sHHIIIIHHBBBBHHBBH")


def v9(
    *sets: bytes, sequence: int = 0, domain: int = 7, sent_s: int = SENT_S, uptime_ms: int = UPTIME_MS
) -> bytes:
    """A version 9 message; its count is not looked at by anybody."""
    return struct.pack(">HHIIII", 9, len(sets), uptime_ms, sent_s, sequence, domain) + b"".join(sets)


def v9_template(template_id: int, fields: Sequence[tuple[int, ...]]) -> bytes:
    """A template FlowSet with one template."""
    body = struct.pack(">HH", template_id, len(fields)) + _pairs(fields)
    return any_set(0, body)


def v9_options_template(
    template_id: int, scopes: Sequence[tuple[int, ...]], options: Sequence[tuple[int, ...]], padding: int = 0
) -> bytes:
    """An options template FlowSet with one template: lengths in octets, not numbers of fields."""
    body = struct.pack(">HHH", template_id, 4 * len(scopes), 4 * len(options))
    return any_set(1, body + _pairs(scopes) + _pairs(options) + bytes(padding))


def _pairs(fields: Sequence[tuple[int, ...]]) -> bytes:
    return b"".join(struct.pack(">HH", *field) for field in fields)


def v5(*records: bytes, sequence: int = 0, sampling: int = 0, engine: int = 3, sent_ns: int = 0) -> bytes:
    """A version 5 message."""
    header = (5, len(records), UPTIME_MS, SENT_S, sent_ns, sequence, 0, engine, sampling)
    return struct.pack(">HHIIIIBBH", *header) + b"".join(records)


def v5_record(
    source: bytes,
    destination: bytes,
    *,
    packets: int,
    octets: int,
    first_ms: int,
    last_ms: int,
    ingress: int = 4,
) -> bytes:
    """A version 5 record: 48 octets, prefix lengths 24 and 16, DSCP 46."""
    return V5_RECORD.pack(
        source, destination, bytes(4), ingress, 9, packets, octets, first_ms, last_ms,
        1024, 443, 0, 0x1B, 6, 46 << 2, 64500, 64501, 24, 16, 0,
    )  # fmt: skip
