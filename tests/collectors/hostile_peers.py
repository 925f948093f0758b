"""Peers that mean harm, as far as several tests share them: SNMP by a function, NETCONF that lets all in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import asyncssh

Address = tuple[str, int]
Answer = Callable[[bytes], list[bytes]]
HELLO = (
    '<hello xmlns="urn:ietf:params:xml:ns:netconf:base:1.0"><capabilities>'
    "<capability>urn:ietf:params:netconf:base:1.0</capability></capabilities>"
    "<session-id>1</session-id></hello>]]>]]>"
)


class Scripted(asyncio.DatagramProtocol):
    """Sends back what a function makes of a request: nothing, one datagram, or several."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        for datagram in self._answer(data):
            self._transport.sendto(datagram, addr)


class Anybody(asyncssh.SSHServer):  # type: ignore[misc]  # asyncssh is untyped here
    """Lets everybody in."""

    def begin_auth(self, username: str) -> bool:
        """Nothing is asked for."""
        return False
