"""What the pollers ask of an SNMP library, and the walk that no agent can make endless.

A walk ends when the agent leaves the subtree. An agent that returns an OID that is not greater than the one
before (RFC 3416 section 4.2.2 forbids it, real devices do it) would keep a naive walk going for ever, and
one that makes rows up would fill the memory: :class:`Walk` turns both into a DeviceError. Silence is a
builtin TimeoutError, nonsense or refusal a DeviceError, so that a poller can tell "silent" from "wrong
password".

Engines are asked for a subtree, usually one column, and give ``{index: value}``: the index is what follows
the subtree's OID, as numbers. Both libraries hand out OIDs as text; the suffixes that come again with every
poll (interface numbers) are looked up rather than parsed.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from collectors.inventory import Credentials
from twin.errors import DeviceError

Value = int | str | bytes | float | None  # OID and IpAddress as dotted str, OCTET STRING as bytes
Varbind = tuple[str, Value]
Index = tuple[int, ...]

VARBINDS_PER_GET = 32  # their answer fits one unfragmented datagram, long OIDs included
MAX_VARBINDS = 1_000_000  # no column of a router is that long: the agent is making rows up
LATELY_S = 1.0  # rows that came so long ago tell that the agent answers yet
_SHORT = 6  # characters of a suffix worth remembering: ifIndex, LldpPortNumber
_REMEMBERED = 1 << 16
_indices: dict[str, Index] = {}


class SnmpEngine(Protocol):
    """One device's SNMP: what both libraries can do."""

    async def get(self, oids: Sequence[str]) -> dict[str, Value]:
        """GET; what the agent lacks is left out. TimeoutError when silent, DeviceError when refused."""
        ...

    async def walk(self, root: str, rows: int = 0) -> dict[Index, Value]:
        """Everything under ``root`` by GETBULK (GETNEXT in version 1), in order.

        ``rows``: how many there are, where another column of the table told it; the walk ends with them.
        """
        ...

    def close(self) -> None:
        """Let go of the socket."""
        ...


@dataclass
class Traffic:
    """What the engines of one device, or of all, did on the wire."""

    requests: int = 0  # sent, repetitions of lost ones included
    retries: int = 0  # of these, sent again for want of an answer
    varbinds: int = 0  # received
    ignored: int = 0  # answers to no request of ours: late, doubled, forged
    malformed: int = 0  # datagrams that are no SNMP answer
    forged: int = 0  # answers of version 3 that nobody with the key signed


@dataclass(frozen=True)
class Endpoint:
    """Where an agent is, and how it is asked."""

    address: str
    port: int
    credentials: Credentials
    timeout_s: float  # of one attempt
    retries: int

    @property
    def varbinds_per_get(self) -> int:
        """One in version 1, where one unknown OID fails the whole GET."""
        return 1 if self.credentials.version == "1" else VARBINDS_PER_GET


class Endless(TimeoutError):
    """The agent answers, but a walk did not end within the deadline."""


class Walk:
    """One walk: takes pages as they come, knows what to ask next and when it is over. No I/O."""

    def __init__(self, root: str, rows: int = 0, limit: int = MAX_VARBINDS) -> None:
        self.root = root
        self.found: dict[Index, Value] = {}
        self.ended = False
        self.next_oid = root  # what to send with the next GETBULK
        self._rows = rows
        self._limit = limit
        self._last: Index = ()

    @property
    def wanted(self) -> int:
        """How many rows are still to come; 0: not known."""
        return max(self._rows - len(self.found), 0)

    def take(self, page: Sequence[Varbind | None]) -> None:
        """One answer's varbinds; None stands for one that lies outside the subtree."""
        prefix, found, last = self.root + ".", self.found, self._last
        start = len(prefix)
        for varbind in page:
            if varbind is None or not varbind[0].startswith(prefix):
                self.ended = True
                break
            suffix = varbind[0][start:]
            index = _indices.get(suffix) or _parse(suffix)
            if index <= last:
                raise DeviceError(
                    f"the agent walks in circles under {self.root}: {varbind[0]} does not increase; "
                    "update its software"
                )
            found[index] = varbind[1]
            last = index
        self._go_on(last, nothing=not page)

    def _go_on(self, last: Index, *, nothing: bool) -> None:
        if len(self.found) > self._limit:
            raise DeviceError(f"the walk of {self.root} has no end: stopped; look at the agent")
        if last != self._last:
            self._last = last
            self.next_oid = f"{self.root}.{'.'.join(map(str, last))}"
        self.ended |= nothing or 0 < self._rows <= len(self.found)


async def walk_to_the_end(
    walk: Walk, read: Callable[[Walk], Awaitable[Sequence[Varbind | None]]]
) -> dict[Index, Value]:
    """All that ``walk`` finds, page by page. What cuts it off while rows come raises :class:`Endless`: who
    calls knows whether that was the deadline."""
    came_at = -math.inf
    try:
        while not walk.ended:
            walk.take(await read(walk))
            came_at = time.monotonic()
    except asyncio.CancelledError as error:
        if time.monotonic() - came_at > LATELY_S:
            raise  # the agent has fallen silent
        raise Endless(
            f"the walk of {walk.root} does not end in time: the agent makes rows up, or is too slow for its "
            "table: look at it, or poll it less often"
        ) from error
    return walk.found


def _parse(suffix: str) -> Index:
    try:
        index = tuple(map(int, suffix.split(".")))
    except ValueError as error:
        raise DeviceError(f"the agent names a row {suffix!r}: no object identifier") from error
    if len(suffix) <= _SHORT and len(_indices) < _REMEMBERED:
        _indices[suffix] = index
    return index


async def get_in_parts(
    ask: Callable[[Sequence[str]], Awaitable[dict[str, Value]]], oids: Sequence[str], size: int
) -> dict[str, Value]:
    """GET in requests of at most ``size``. One that brings nothing is halved: its answer may be too big."""
    found: dict[str, Value] = {}
    for start in range(0, len(oids), size):
        part = oids[start : start + size]
        answer = await ask(part)
        if not answer and len(part) > 1:
            answer = await get_in_parts(ask, part, (len(part) + 1) // 2)
        found.update(answer)
    return found
