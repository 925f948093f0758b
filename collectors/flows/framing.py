"""IPFIX over TCP (RFC 7011 section 10.4): a stream of bytes → messages, by the length in each header.

The length field has 16 bits, so no peer can make us wait for more than 64 KiB, whatever it announces. A
header that is none means that we no longer know where messages begin: the stream is of no use then.
"""

from __future__ import annotations

from collections.abc import Iterator

from collectors.flows.message import HEADER, IPFIX
from twin.errors import DecodeError


class Framer:
    """The bytes of one connection that are not yet a whole message."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages that these bytes complete; DecodeError where no message can begin."""
        self._bytes += data
        at = 0
        try:
            while len(self._bytes) - at >= HEADER.size:
                version, length = self._bytes[at] << 8 | self._bytes[at + 1], self._length(at)
                if version != IPFIX or length < HEADER.size:
                    raise DecodeError(f"version {version}, length {length}: no IPFIX message begins here")
                if len(self._bytes) - at < length:
                    break
                yield bytes(self._bytes[at : at + length])
                at += length
        finally:
            del self._bytes[:at]

    def _length(self, at: int) -> int:
        return self._bytes[at + 2] << 8 | self._bytes[at + 3]
