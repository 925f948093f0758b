"""One socket of gufo-snmp on the event loop, without what makes its own asyncio session slow.

gufo's session registers and removes a reader and arms ``wait_for`` for every request, and hands walks out one
row at a time: three quarters of what a poll cost. This one keeps its reader registered, uses one timer a
request and gives whole pages. It needs the names ``_sock``, ``_fd``, ``_timeout``, ``_send`` and ``_recv`` of
gufo-snmp (0.13); the packaging therefore bounds its version, and the tests walk real agents with it.

What comes in when nothing is asked, or with another request's id, is read, counted and dropped, so that a
late or forged answer neither fills the socket nor is taken for the next one. The socket is connected:
datagrams from other addresses do not reach it. In version 3 gufo checks no answer's tag: what is not
authentic (:mod:`collectors.snmp.authentic`) is taken off the socket before gufo reads it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, TypeVar

from gufo.snmp import NoSuchInstance, SnmpDecodeError
from gufo.snmp._fast import GetIter
from gufo.snmp.aio import SnmpSession

from collectors.snmp.authentic import Seal
from collectors.snmp.engine import Traffic, Value, Varbind

T = TypeVar("T")
Page = list[Varbind | None]
_MOST_OCTETS = 65_535


class Session(SnmpSession):  # type: ignore[misc]  # gufo is imported without types: mypy would need its Rust
    """gufo's session with its own way of waiting."""

    def __init__(self, traffic: Traffic, seal: Seal | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._traffic, self._seal = traffic, seal
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[Any] | None = None
        self._receiver: Callable[[], Any] = self._sock.recv_get_many
        self._loop.add_reader(self._fd, self._readable)

    def end(self) -> None:
        """Stop reading; the socket closes with the object."""
        self._loop.remove_reader(self._fd)

    async def get_many(self, oids: list[str]) -> dict[str, Value]:
        """GET; what the agent lacks is left out."""
        try:
            await self._send(lambda: self._sock.send_get_many(oids))
            answer: dict[str, Value] = await self._recv(self._sock.recv_get_many)
        except NoSuchInstance:
            return {}
        return answer

    async def page(self, root: str, after: str, repetitions: int) -> Page:
        """One GETBULK: rows after ``after``; None where ``root`` ends; empty at the end of the view."""
        await self._send(lambda: self._sock.send_get_bulk(GetIter(after, repetitions)))
        inside = GetIter(root)
        return await self._rows(lambda: self._sock.recv_get_bulk(inside))

    async def next_row(self, root: str, after: str) -> Page:
        """One GETNEXT, as a page: what version 1 has."""
        await self._send(lambda: self._sock.send_get_next(GetIter(after)))
        inside = GetIter(root)
        return await self._rows(lambda: [self._sock.recv_get_next(inside)])

    async def _rows(self, receiver: Callable[[], Page]) -> Page:
        try:
            return await self._recv(receiver)
        except StopAsyncIteration:
            return []

    async def _recv(self, receiver: Callable[[], T]) -> T:
        """The answer to what was just sent."""
        waiter: asyncio.Future[T] = self._loop.create_future()
        self._waiter, self._receiver = waiter, receiver
        self._traffic.requests += 1
        timer = self._loop.call_later(self._timeout, _expire, waiter)
        try:
            return await waiter
        finally:
            timer.cancel()
            self._waiter, self._receiver = None, self._sock.recv_get_many

    def _readable(self) -> None:
        waiter = self._waiter
        try:
            self._drop_forged()
            answer = self._receiver()
        except BlockingIOError:  # what there was answered another request, or was forged
            self._traffic.ignored += 1
        except BaseException as error:  # Rust's panics are no Exception; the one who waits gets all of them
            self._traffic.malformed += isinstance(error, SnmpDecodeError)
            if waiter is not None and not waiter.done():
                waiter.set_exception(error)
        else:
            if waiter is not None and not waiter.done():
                waiter.set_result(answer)
            else:
                self._traffic.ignored += 1

    def _drop_forged(self) -> None:
        """Take what is not authentic off the socket; BlockingIOError where nothing else is there."""
        if self._seal is None:
            return
        raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, fileno=self._fd)
        try:
            while not self._seal.fits(raw.recv(_MOST_OCTETS, socket.MSG_PEEK | socket.MSG_DONTWAIT)):
                raw.recv(1, socket.MSG_DONTWAIT)
                self._traffic.forged += 1
        finally:
            raw.detach()  # the socket is gufo's


def _expire(waiter: asyncio.Future[Any]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())
