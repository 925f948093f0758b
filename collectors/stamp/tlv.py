"""Optional extensions behind the base packet (RFC 8972 section 4): type, length, value.

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |U|M|I|R|R|R|R|R|     Type      |           Length              |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    ~                            Value                              ~

A sender sets U; a reflector clears it in what it understands. M: malformed, and everything from there on is
copied as it came. I: the HMAC TLV did not fit. A reply is always as long as its request.

Understood are Extra Padding (1, any content), Class of Service (4) and HMAC (8). Class of Service (section
4.4, erratum 8199), length 4:

    | DSCP1 6 | DSCP2 6 | ECN 2 | RP 2 | reserved 16 |

DSCP1: the class the sender wants for the reply. DSCP2 and ECN: what the reflector saw arrive. RP: 0 the reply
has DSCP1, 1 it has not, by policy. HMAC (section 4.8), length 16: over the Sequence Number of the base packet
and all TLVs before it; with the session's key. All other types are unknown here: copied, with U set.

A TWAMP peer's padding may look like anything. Zeros are type 0, which is reserved: that is padding.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from collectors.stamp.packets import tag

UNRECOGNISED, MALFORMED, INTEGRITY = 0x80, 0x40, 0x20
EXTRA_PADDING, CLASS_OF_SERVICE, HMAC = 1, 4, 8
HEADER_OCTETS = 4
_LENGTHS = {CLASS_OF_SERVICE: 4, HMAC: 16}
_HEADER = struct.Struct("!BBH")
_MOST = 64  # TLVs looked at in one packet; a datagram could hold 16,000 empty ones


@dataclass(frozen=True)
class Tlv:
    """One TLV, and where in the extra octets it stands."""

    at: int
    flags: int
    kind: int
    value: bytes

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.at + HEADER_OCTETS + len(self.value)


@dataclass(frozen=True)
class ClassOfService:
    """The Class of Service TLV's fields."""

    wanted_dscp: int  # DSCP1
    arrived_dscp: int = 0  # DSCP2
    arrived_ecn: int = 0
    refused: int = 0  # RP

    def to_value(self) -> bytes:
        """Four octets."""
        bits = self.wanted_dscp << 10 | self.arrived_dscp << 4 | self.arrived_ecn << 2 | self.refused
        return struct.pack("!HH", bits, 0)

    @classmethod
    def from_value(cls, value: bytes) -> ClassOfService:
        """Four octets → the fields."""
        (bits, _) = struct.unpack("!HH", value)
        return cls(bits >> 10, bits >> 4 & 0x3F, bits >> 2 & 3, bits & 3)


@dataclass
class Reading:
    """The TLVs of one packet, as far as they are well formed."""

    found: list[Tlv] = field(default_factory=list)
    malformed_at: int | None = None  # where reading stopped

    def first(self, kind: int) -> Tlv | None:
        """The first of a kind."""
        return next((one for one in self.found if one.kind == kind), None)


def encode(kind: int, value: bytes) -> bytes:
    """One TLV, as a sender sends it."""
    return _HEADER.pack(UNRECOGNISED, kind, len(value)) + value


def padding(octets: int) -> bytes:
    """An Extra Padding TLV of so many octets in all; empty where no TLV is that short."""
    return encode(EXTRA_PADDING, bytes(octets - HEADER_OCTETS)) if octets >= HEADER_OCTETS else b""


def seal(sequence: int, extra: bytes, key: bytes) -> bytes:
    """The TLVs with an HMAC TLV behind them."""
    return extra + encode(HMAC, tag(sequence.to_bytes(4, "big") + extra, key))


def intact(sequence: int, extra: bytes, reading: Reading, key: bytes) -> bool:
    """With a key: an HMAC TLV fits (a lone Extra Padding needs none). Without one: nothing to check."""
    seal_tlv = reading.first(HMAC)
    if not key or not reading.found:
        return True
    if seal_tlv is None:
        return [one.kind for one in reading.found] == [EXTRA_PADDING]
    expected = tag(sequence.to_bytes(4, "big") + extra[: seal_tlv.at], key)
    return hmac.compare_digest(expected, seal_tlv.value)


def read(extra: bytes) -> Reading:
    """Every TLV; reading stops at padding, at what is malformed, and after the most that is looked at."""
    reading = Reading()
    for one in _walk(extra):
        if isinstance(one, int):
            reading.malformed_at = one
        else:
            reading.found.append(one)
    return reading


def _walk(extra: bytes) -> Iterator[Tlv | int]:
    at = 0
    for _ in range(_MOST):
        if len(extra) - at < HEADER_OCTETS:
            return  # nothing left, or padding too short to be a TLV
        flags, kind, length = _HEADER.unpack_from(extra, at)
        if kind == 0:
            return
        value = extra[at + HEADER_OCTETS : at + HEADER_OCTETS + length]
        if len(value) < length or length != _LENGTHS.get(kind, length):
            yield at
            return
        yield Tlv(at, flags, kind, value)
        at += HEADER_OCTETS + length


@dataclass(frozen=True)
class Answer:
    """What a reflector makes of the extra octets."""

    extra: bytes
    reply_dscp: int | None = None  # None: the class in which the packet came


def answer(
    sequence: int, reply_sequence: int, extra: bytes, *, dscp: int, ecn: int, key: bytes = b""
) -> Answer:
    """The extra octets of the reply: as many, the flags set, what is asked for filled in."""
    reading = read(extra)
    reply = bytearray(extra)
    sound = intact(sequence, extra, reading, key)
    for one in reading.found:
        known = one.kind in (EXTRA_PADDING, *_LENGTHS)
        reply[one.at] = (0 if known else UNRECOGNISED) | (0 if sound else INTEGRITY)
    if reading.malformed_at is not None:
        reply[reading.malformed_at] = MALFORMED
    wanted = reading.first(CLASS_OF_SERVICE)
    dscp_wanted = None
    if wanted is not None and sound:
        dscp_wanted = ClassOfService.from_value(wanted.value).wanted_dscp
        told = ClassOfService(dscp_wanted, arrived_dscp=dscp, arrived_ecn=ecn)
        reply[wanted.at + HEADER_OCTETS : wanted.end] = told.to_value()
    seal_tlv = reading.first(HMAC)
    if key and seal_tlv is not None and sound:
        covered = reply_sequence.to_bytes(4, "big") + bytes(reply[: seal_tlv.at])
        reply[seal_tlv.at + HEADER_OCTETS : seal_tlv.end] = tag(covered, key)
    return Answer(bytes(reply), dscp_wanted)
