"""The test packets of STAMP (RFC 8762) with what RFC 8972 adds, and of TWAMP Light. Bytes in, bytes out.

Layouts
-------
Session-Sender, unauthenticated, 44 octets (RFC 8762 section 4.2.1; SSID: RFC 8972 section 3):

    0  Sequence Number 4 | 4  Timestamp 8 | 12 Error Estimate 2 | 14 SSID 2 | 16 zero 28

Session-Reflector, unauthenticated, 44 octets (RFC 8762 section 4.3.1):

    0  Sequence Number 4 | 4  Timestamp 8 | 12 Error Estimate 2 | 14 SSID 2 | 16 Receive Timestamp 8
    24 Session-Sender Sequence Number 4 | 28 Session-Sender Timestamp 8
    36 Session-Sender Error Estimate 2 | 38 zero 2 | 40 Session-Sender TTL 1 | 41 zero 3

Authenticated, both 112 octets (sections 4.2.2 and 4.3.2): the same fields, each on a block of 16 octets, and
in the last block an HMAC-SHA-256 over the first 96 octets, truncated to 16 (section 4.4):

    sender      0 Seq 4 | 16 Timestamp 8 | 24 Error 2 | 26 SSID 2 | 96 HMAC 16
    reflector   0 Seq 4 | 16 Timestamp 8 | 24 Error 2 | 26 SSID 2 | 32 Receive 8 | 48 Sender Seq 4
                64 Sender Timestamp 8 | 72 Sender Error 2 | 80 Sender TTL 1 | 96 HMAC 16

TWAMP Light (RFC 5357 appendix I) without authentication is the same but for its end: its sender's packet is
14 octets and padding (RFC 4656 section 4.1.2), its reflector's 41 and padding (RFC 5357 section 4.2.1).
What is zero here may be anything there, so it is never looked at. TWAMP's authenticated mode encrypts its
first block with AES and signs with SHA-1: that is another protocol, and not spoken.

What follows the base packet are TLVs (:mod:`collectors.stamp.tlv`) or a TWAMP peer's padding.
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass

from twin.errors import DecodeError

PLAIN_OCTETS = 44
SIGNED_OCTETS = 112
TWAMP_SENDER_OCTETS = 14
TWAMP_REPLY_OCTETS = 41
_HMAC_AT, _HMAC_OCTETS = 96, 16

_PLAIN_TEST = struct.Struct("!IQHH")
_SIGNED_TEST = struct.Struct("!I12xQHH")
_PLAIN_REPLY = struct.Struct("!IQHHQIQH2xB")
_SIGNED_REPLY = struct.Struct("!I12xQHH4xQ8xI12xQH6xB")


@dataclass(frozen=True)
class TestPacket:
    """What a Session-Sender sends. Timestamp and error estimate are as on the wire."""

    __test__ = False  # no test case, whatever pytest makes of the name

    sequence: int
    timestamp: int
    error: int
    ssid: int = 0
    extra: bytes = b""  # TLVs, or padding


@dataclass(frozen=True)
class ReplyPacket:
    """What a Session-Reflector sends back."""

    sequence: int
    timestamp: int
    error: int
    ssid: int
    receive_timestamp: int
    sender_sequence: int
    sender_timestamp: int
    sender_error: int
    sender_ttl: int
    extra: bytes = b""


def encode_test(packet: TestPacket, key: bytes = b"") -> bytes:
    """A test packet's bytes; authenticated with a key."""
    fields = (packet.sequence, packet.timestamp, packet.error, packet.ssid)
    if key:
        return _signed(_SIGNED_TEST.pack(*fields), key) + packet.extra
    return _PLAIN_TEST.pack(*fields).ljust(PLAIN_OCTETS, b"\0") + packet.extra


def decode_test(datagram: bytes, key: bytes = b"") -> TestPacket:
    """A test packet, from a STAMP or TWAMP Light sender; DecodeError says what is wrong."""
    if key:
        _check_signed(datagram, key)
        fields, extra = _SIGNED_TEST.unpack_from(datagram), datagram[SIGNED_OCTETS:]
    elif len(datagram) < TWAMP_SENDER_OCTETS:
        raise DecodeError(f"test packet of {len(datagram)} octets: {TWAMP_SENDER_OCTETS} are the least")
    else:
        fields, extra = _PLAIN_TEST.unpack_from(datagram.ljust(16, b"\0")), datagram[PLAIN_OCTETS:]
    sequence, timestamp, error, ssid = fields
    return TestPacket(sequence, timestamp, error, ssid, extra)


def encode_reply(reply: ReplyPacket, key: bytes = b"") -> bytes:
    """A reply's bytes; authenticated with a key."""
    fields = (
        reply.sequence,
        reply.timestamp,
        reply.error,
        reply.ssid,
        reply.receive_timestamp,
        reply.sender_sequence,
        reply.sender_timestamp,
        reply.sender_error,
        reply.sender_ttl,
    )
    if key:
        return _signed(_SIGNED_REPLY.pack(*fields), key) + reply.extra
    return _PLAIN_REPLY.pack(*fields).ljust(PLAIN_OCTETS, b"\0") + reply.extra


def decode_reply(datagram: bytes, key: bytes = b"") -> ReplyPacket:
    """A reply, from a STAMP or TWAMP Light reflector; DecodeError says what is wrong."""
    if key:
        _check_signed(datagram, key)
        fields, extra = _SIGNED_REPLY.unpack_from(datagram), datagram[SIGNED_OCTETS:]
    elif len(datagram) < TWAMP_REPLY_OCTETS:
        raise DecodeError(f"reply of {len(datagram)} octets: {TWAMP_REPLY_OCTETS} are the least")
    else:
        fields, extra = _PLAIN_REPLY.unpack_from(datagram), datagram[PLAIN_OCTETS:]
    sequence, timestamp, error, ssid, received, *sender = fields
    sender_sequence, sender_timestamp, sender_error, sender_ttl = sender
    return ReplyPacket(
        sequence,
        timestamp,
        error,
        ssid,
        received,
        sender_sequence,
        sender_timestamp,
        sender_error,
        sender_ttl,
        extra,
    )


def _signed(fields: bytes, key: bytes) -> bytes:
    covered = fields.ljust(_HMAC_AT, b"\0")
    return covered + tag(covered, key)


def _check_signed(datagram: bytes, key: bytes) -> None:
    if len(datagram) < SIGNED_OCTETS:
        raise DecodeError(f"packet of {len(datagram)} octets: {SIGNED_OCTETS} are the least with a key")
    if not hmac.compare_digest(tag(datagram[:_HMAC_AT], key), datagram[_HMAC_AT:SIGNED_OCTETS]):
        raise DecodeError("HMAC does not fit: the peer has another key, or none")


def tag(covered: bytes, key: bytes) -> bytes:
    """HMAC-SHA-256, truncated to 16 octets."""
    return hmac.digest(key, covered, "sha256")[:_HMAC_OCTETS]
