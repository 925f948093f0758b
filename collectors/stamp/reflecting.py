"""The reflector's service: sockets in front of the sans-IO reflector."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Sequence
from typing import Any

import structlog

from collectors.stamp import sockets
from collectors.stamp.clock import OwnClock
from collectors.stamp.reflector import UNKNOWN_TTL, Arrival, Reflector

MAX_DATAGRAMS = 256  # per wake-up and socket, so that all get their turn
LOOK_S, COMPLAIN_S = 1.0, 60.0
HELD_UP_NS = 200_000  # from reading the clock to a datagram ready; 0.02 ms are usual: then it is stamped anew
LOG = "ndtwin.stamp"
REFUSALS = {
    "unsigned": "no HMAC of our key: their sender has another key, or none",
    "too-short": "shorter than a reply: have the sender pad to 44 octets (112 with a key)",
    "over-rate": "more than --source-pps or --total-pps allow",
}
Endpoint = tuple[str, int, str]  # address, port, network namespace


class ReflectorService:
    """Answers on any number of sockets, in any number of network namespaces."""

    def __init__(self, reflector: Reflector, clock: OwnClock) -> None:
        self.reflector = reflector
        self._clock = clock
        self._sockets: list[socket.socket] = []
        self.unsent = 0  # replies that the kernel did not take
        self._told: dict[str, tuple[int, float]] = {}  # reason → (refusals told, when)
        self._newest = ""  # who was refused

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
            while not stop.is_set():
                self.complain(time.monotonic())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await stop.wait()

    def _drain(self, one: socket.socket) -> None:
        for _ in range(MAX_DATAGRAMS):
            with contextlib.suppress(ConnectionError):  # an ICMP error about an earlier reply
                received = sockets.receive(one)
                if received is None:
                    return
                self._answer(one, received)

    def complain(self, now_s: float) -> None:
        """One line for each reason of refusals in a while, with how many there were."""
        log: Any = structlog.get_logger(LOG)
        for reason, meaning in REFUSALS.items():
            told, at_s = self._told.get(reason, (0, -COMPLAIN_S))
            refused = self.reflector.counts[reason] - told
            if refused and now_s - at_s >= COMPLAIN_S:
                self._told[reason] = (told + refused, now_s)
                log.warning("test packets refused", reason=meaning, packets=refused, newest=self._newest)

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
            now_ns = time.time_ns()
            payload = reply.stamped(now_ns, clock)
            if time.time_ns() - now_ns > HELD_UP_NS:
                payload = reply.stamped(time.time_ns(), clock)
            self.unsent += not sockets.reply(one, payload, received, reply.dscp)
        else:
            self._newest = f"{received.source[0]}:{received.source[1]}"
