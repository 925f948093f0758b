"""One probe at work: its sessions and sockets (one of each per flow), its pace, its bins.

A socket is opened when its flow first sends, and again a second after it failed: an address, a route or a
network namespace may come later, go, and come back. Until then the flow's packets count as sent and lost,
because that is what they are for whoever measures the path; ``trouble`` says why.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from collectors.stamp import sockets
from collectors.stamp.bins import ProbeBins
from collectors.stamp.clock import OwnClock
from collectors.stamp.pace import Pace
from collectors.stamp.sender import SenderSession
from collectors.stamp.tables import Probe
from collectors.stamp.timestamps import NS_PER_S
from twin.errors import InventoryError

MAX_REPLIES = 64  # per wake-up and socket
REOPEN_NS = NS_PER_S
REJECTIONS = ("malformed", "late", "foreign", "duplicate", "implausible")
HELD_UP_NS = 2_000_000  # from a packet's timestamp until the kernel has it; 0.02 ms are usual


@dataclass
class _Wire:
    """The socket of one flow."""

    socket: socket.socket | None = None
    tried_ns: int = -REOPEN_NS


@dataclass
class Lane:
    """One probe."""

    probe: Probe
    sessions: Sequence[SenderSession]
    pace: Pace
    bins: ProbeBins
    clock: OwnClock
    trouble: str = ""  # why the newest packet could not be sent
    silent_bins: int = 0
    silent: bool = False
    synchronised: bool | None = None
    _wires: list[_Wire] = field(default_factory=list)
    _turn: int = 0
    _rejected: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._wires = [_Wire() for _ in self.sessions]

    def send(self) -> None:
        """One packet, by the flow whose turn it is."""
        flow = self._turn
        self._turn = (flow + 1) % len(self.sessions)
        wire = self._open(flow)
        clock = self.clock.estimate()
        now_ns = time.time_ns()
        payload = self.sessions[flow].send(now_ns, clock)
        if wire is None or not self._put(flow, wire, payload):
            self.sessions[flow].counts["unsent"] += 1
        if time.time_ns() - now_ns > HELD_UP_NS:
            self.sessions[flow].doubt()
        self.bins.sent(now_ns)

    def _put(self, flow: int, wire: socket.socket, payload: bytes) -> bool:
        for _ in range(2):
            try:
                wire.send(payload)
            except ConnectionRefusedError:  # about an earlier packet; this one was not sent
                self.bins.refused(time.time_ns())
                continue
            except BlockingIOError:
                self.trouble = "the socket's queue is full"
                return False
            except OSError as error:
                self.trouble = error.strerror or str(error)
                self._close(flow)
                return False
            self.trouble = ""
            return True
        return False

    def _open(self, flow: int) -> socket.socket | None:
        wire, now_ns = self._wires[flow], time.monotonic_ns()
        if wire.socket is None and now_ns - wire.tried_ns >= REOPEN_NS:
            wire.tried_ns = now_ns
            table = self.probe.table
            try:
                wire.socket = sockets.open_socket(
                    (table.source_address, 0),
                    remote=self.probe.address,
                    dscp=self.probe.traffic_class,
                    netns=table.netns,
                )
            except InventoryError as error:
                self.trouble = str(error)
            else:
                asyncio.get_running_loop().add_reader(wire.socket.fileno(), self._drain, flow, wire.socket)
        return wire.socket

    def _close(self, flow: int) -> None:
        wire = self._wires[flow]
        if wire.socket is not None:
            asyncio.get_running_loop().remove_reader(wire.socket.fileno())
            wire.socket.close()
            wire.socket = None

    def close(self) -> None:
        """Let go of the sockets."""
        for flow in range(len(self._wires)):
            self._close(flow)

    def _drain(self, flow: int, wire: socket.socket) -> None:
        for _ in range(MAX_REPLIES):
            try:
                received = sockets.receive(wire)
            except ConnectionRefusedError:
                self.bins.refused(time.time_ns())
                continue
            except OSError as error:  # another ICMP error about an earlier packet
                self.trouble = error.strerror or str(error)
                continue
            if received is None:
                return
            echo = self.sessions[flow].receive(received.payload, received.received_ns)
            if echo is not None:
                self.bins.echo(flow, echo)

    def rejected(self) -> dict[str, int]:
        """Replies that were not believed since the last call, by reason."""
        now = {why: self.count(why) for why in REJECTIONS}
        fresh = {why: now[why] - self._rejected.get(why, 0) for why in REJECTIONS}
        self._rejected = now
        return {why: number for why, number in fresh.items() if number}

    def count(self, name: str) -> int:
        """One of the sessions' counters, over all flows."""
        return sum(session.counts[name] for session in self.sessions)
