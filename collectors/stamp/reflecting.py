"""The reflector's service: sockets in front of the sans-IO reflector."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Sequence

from collectors.stamp import sockets
from collectors.stamp.clock import OwnClock
from collectors.stamp.reflector import UNKNOWN_TTL, Arrival, Reflector

MAX_DATAGRAMS = 256  # per wake-up and socket, so that all get their turn
Endpoint = tuple[str, int, str]  # address, port, network namespace


class ReflectorService:
    """Answers on any number of sockets, in any number of network namespaces."""

    def __init__(self, reflector: Reflector, clock: OwnClock) -> None:
        self.reflector = reflector
        self._clock = clock
        self._sockets: list[socket.socket] = []
        self.unsent = 0  # replies that the kernel did not take

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens."""
        return [one.getsockname()[:2] for one in self._sockets]

    def open(self, endpoints: Sequence[Endpoint]) -> None:
        """Bind; InventoryError when an address cannot be had."""
        for address, port, netns in endpoints:
            self._sockets.append(sockets.open_socket((address, port), netns=netns))

    async def run(self, stop: asyncio.Event) -> None:
        """Answer until ``stop`` is set; then let go of the sockets."""
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            for one in self._sockets:
                stack.callback(one.close)
                loop.add_reader(one.fileno(), self._drain, one)
                stack.callback(loop.remove_reader, one.fileno())
            await stop.wait()

    def _drain(self, one: socket.socket) -> None:
        for _ in range(MAX_DATAGRAMS):
            with contextlib.suppress(ConnectionError):  # an ICMP error about an earlier reply
                received = sockets.receive(one)
                if received is None:
                    return
                self._answer(one, received)

    def _answer(self, one: socket.socket, received: sockets.Received) -> None:
        clock = self._clock.estimate()
        arrival = Arrival(
            source=received.source,
            local=received.local,
            received_ns=received.received_ns,
            ttl=UNKNOWN_TTL if received.ttl is None else received.ttl,
            dscp=received.tos >> 2,
            ecn=received.tos & 3,
        )
        reply = self.reflector.reflect(received.payload, arrival, clock)
        if reply is not None:
            payload = reply.stamped(time.time_ns(), clock)
            self.unsent += not sockets.reply(one, payload, received, reply.dscp)
