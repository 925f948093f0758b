"""What the pollers ask of an SNMP library, and the guard that no agent can walk us in circles.

A walk ends when the agent leaves the subtree. An agent that returns an OID that is not greater than the one
before (RFC 3416 section 4.2.2 forbids it, real devices do it) would keep a naive walk going for ever: the
guard turns that into a DeviceError. Silence is a builtin TimeoutError, nonsense or refusal a DeviceError, so
that a poller can tell "silent" from "wrong password".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from collectors.inventory import Credentials
from twin.errors import DeviceError

Value = int | str | bytes | float | None  # OID and IpAddress as dotted str, OCTET STRING as bytes
Varbind = tuple[str, Value]

MAX_REPETITIONS = 25  # their answers fit one unfragmented datagram, long OIDs included
VARBINDS_PER_GET = 32  # likewise
MAX_VARBINDS = 1_000_000  # no table of a router is that long: the agent is making rows up


class SnmpEngine(Protocol):
    """One device's SNMP: what both libraries can do."""

    async def get(self, oids: Sequence[str]) -> dict[str, Value]:
        """GET; what the agent lacks is left out. TimeoutError when silent, DeviceError when refused."""
        ...

    async def walk(self, root: str, repetitions: int = MAX_REPETITIONS) -> list[Varbind]:
        """Everything under ``root`` by GETBULK (GETNEXT in version 1), in order."""
        ...

    def close(self) -> None:
        """Let go of the socket."""
        ...


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


class WalkGuard:
    """Checks the OIDs of one walk as they come."""

    def __init__(self, root: str, limit: int = MAX_VARBINDS) -> None:
        self._root = root
        self._last: tuple[int, ...] = ()
        self._left = limit

    def check(self, oid: str) -> None:
        """DeviceError when ``oid`` does not go forward, or when the walk has no end."""
        key = tuple(map(int, oid.split(".")))
        if key <= self._last:
            raise DeviceError(
                f"the agent walks in circles under {self._root}: {oid} does not increase; update its software"
            )
        self._last = key
        self._left -= 1
        if self._left < 0:
            raise DeviceError(f"the walk of {self._root} has no end: stopped; look at the agent")


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
