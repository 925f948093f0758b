"""Message framing of NETCONF over SSH (RFC 6242), without sockets: bytes in, messages out.

Version 1.0 ends a message with ``]]>]]>``; both sides' hellos always do (section 4.3). Once both have told
``:base:1.1`` messages travel in chunks: ``LF # size LF octets``, ended by ``LF ## LF`` (section 4.2). A
chunk-size has no leading zero and is at most 4294967295. What breaks these rules ends the session:
FramingError.

The decoder keeps what it has not understood yet, so bytes may arrive cut anywhere; what follows a message
that changes the framing is read in the new framing, since :meth:`Decoder.next` gives one message at a
time.
"""

from __future__ import annotations

import re

from twin.errors import DecodeError

END_OF_MESSAGE = b"]]>]]>"
MAX_MESSAGE_OCTETS = (
    16 * 2**20
)  # a request of a management session is small; more is an attack or an accident
_HEADER = re.compile(rb"\n#(?:(#)|([1-9][0-9]{0,9}))\n")
_LONGEST_HEADER = len(b"\n#4294967295\n")


class FramingError(DecodeError):
    """The peer breaks the framing: the session cannot go on (RFC 6242 section 4.2)."""


def encode(message: bytes, *, chunked: bool) -> bytes:
    """Frame one message."""
    if chunked:
        return b"\n#%d\n%b\n##\n" % (len(message), message)
    return message + END_OF_MESSAGE


class Decoder:
    """Collects bytes and cuts them into messages."""

    def __init__(self) -> None:
        self.chunked = False
        self._buffer = bytearray()
        self._chunks = bytearray()

    def feed(self, data: bytes) -> None:
        """Take in what has arrived."""
        self._buffer += data
        if len(self._buffer) + len(self._chunks) > MAX_MESSAGE_OCTETS:
            raise FramingError(f"a message of more than {MAX_MESSAGE_OCTETS} octets: the session ends")

    def next(self) -> bytes | None:
        """The next whole message, or None until more has arrived."""
        return self._next_chunked() if self.chunked else self._next_delimited()

    def _next_delimited(self) -> bytes | None:
        head, mark, rest = self._buffer.partition(END_OF_MESSAGE)
        if not mark:
            return None
        self._buffer = rest
        return bytes(head).strip()

    def _next_chunked(self) -> bytes | None:
        while (header := self._header()) is not None:
            start = header.end()
            if header[1]:
                del self._buffer[:start]
                return self._take_chunks()
            size = int(header[2])
            if len(self._buffer) < start + size:
                return None
            self._chunks += self._buffer[start : start + size]
            del self._buffer[: start + size]
        return None

    def _header(self) -> re.Match[bytes] | None:
        """The chunk header at the front; None while it may still become one."""
        header = _HEADER.match(self._buffer)
        if header is None and not _may_become_header(bytes(self._buffer[:_LONGEST_HEADER])):
            raise FramingError(f"not a chunk header: {bytes(self._buffer[:20])!r}")
        if header is not None and header[2] and int(header[2]) > MAX_MESSAGE_OCTETS:
            raise FramingError(f"a chunk of {int(header[2])} octets: the session ends")
        return header

    def _take_chunks(self) -> bytes:
        if not self._chunks:
            raise FramingError("end of chunks before any chunk")
        message = bytes(self._chunks)
        self._chunks.clear()
        return message


def _may_become_header(start: bytes) -> bool:
    return len(start) < _LONGEST_HEADER and re.fullmatch(rb"(\n(#(#|[1-9][0-9]{0,9})?)?)?", start) is not None
