"""The IPFIX listener: a socket that is never in the way, in front of the sans-IO decoder and aggregator.

Flow export is UDP and nobody asks twice, so the receive buffer is as large as the kernel lets it be, and
every wake-up of the event loop empties it up to a bound. What cannot be decoded goes to the dead letters with
its bytes, bounded per second: a broken exporter must not drown the topic.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from collectors.flows.aggregate import FlowAggregator
from collectors.flows.decoder import FlowSession
from collectors.stats import CollectorStats
from twin.errors import DecodeError, InventoryError
from twin.records import DeadLetter, NetworkEvent, Record

BUFFER_OCTETS = 16 * 1024 * 1024  # about a second of a hundred thousand records; the kernel may grant less
MAX_DATAGRAMS = 256  # per wake-up, so that polls get their turn
MAX_LETTERS_PER_S = 20
MAX_COMPLAINTS = 1024  # exporters whose troubles are remembered, to tell each once
TICK_S = 0.25
_SO_RCVBUFFORCE = 33  # Linux; needs CAP_NET_ADMIN
LOG = "ndtwin.collect"


class IpfixListener:
    """Receives, decodes, aggregates, emits."""

    def __init__(
        self,
        network: str,
        devices: Mapping[str, str],
        emit: Callable[[Record], None],
        stats: CollectorStats,
        *,
        bin_ns: int,
        clock: Callable[[], int],
    ) -> None:
        self._network = network
        self._devices = devices  # exporter address → device
        self._emit = emit
        self._stats = stats
        self._clock = clock
        self._session = FlowSession()
        self._flows = FlowAggregator(network, devices, bin_ns=bin_ns)
        self._lost_before: Counter[str] = Counter()
        self._letters: tuple[int, int] = (0, 0)  # (second, letters in it)
        self._complaints: set[tuple[str, str]] = set()

    async def run(self, endpoint: tuple[str, int]) -> None:
        """Listen until cancelled."""
        with open_socket(endpoint) as receiver:
            loop = asyncio.get_running_loop()
            loop.add_reader(receiver.fileno(), self._drain, receiver)
            try:
                while True:
                    await asyncio.sleep(TICK_S)
                    self.tick()
            finally:
                loop.remove_reader(receiver.fileno())

    def _drain(self, receiver: socket.socket) -> None:
        for _ in range(MAX_DATAGRAMS):
            try:
                datagram, sender = receiver.recvfrom(65535)
            except BlockingIOError:
                return
            self.receive(datagram, (plain_address(sender[0]), sender[1]))

    def receive(self, datagram: bytes, sender: tuple[str, int]) -> None:
        """Take one datagram."""
        now_ns = self._clock()
        self._stats.datagrams += 1
        if sender[0] not in self._devices:
            self._stats.unknown_datagrams += 1
            self._complain(sender, "no device with ipfix = true has its address: add it to the inventory")
            self._dead_letter(datagram, sender, "exporter is not in the inventory", now_ns)
            return
        try:
            batches = self._session.decode(datagram, sender)
        except DecodeError as error:
            self._stats.undecoded_datagrams += 1
            self._complain(sender, f"sends what cannot be decoded, kept as dead letters: {error}")
            self._dead_letter(datagram, sender, str(error), now_ns)
            return
        for batch in batches:
            self._stats.flow_records += len(batch)
            self._flows.add(batch, now_ns)

    def tick(self) -> None:
        """Tell losses, and emit what is due."""
        now_ns = self._clock()
        for address, lost in self._session.lost_records.items():
            more = lost - self._lost_before[address]
            if more:
                self._lost_before[address] = lost
                self._flows.lost(address, more)
                self._stats.lost_flow_records += more
            if more > 0:
                self._emit(self._gap_event(address, more, now_ns))
        for record in self._flows.close(now_ns):
            self._emit(record)

    def _gap_event(self, address: str, lost: int, now_ns: int) -> NetworkEvent:
        return NetworkEvent(
            network=self._network,
            device=self._devices[address],
            observed_at_ns=now_ns,
            kind="sequence-gap",
            detail=f"{lost} flow records lost on the way",
        )

    def _dead_letter(self, datagram: bytes, sender: tuple[str, int], reason: str, now_ns: int) -> None:
        second = now_ns // 1_000_000_000
        used = self._letters[1] if self._letters[0] == second else 0
        self._letters = (second, used + 1)
        if used < MAX_LETTERS_PER_S:
            source = f"udp:{sender[0]}:{sender[1]}"
            self._emit(DeadLetter(source=source, payload=datagram, reason=reason, observed_at_ns=now_ns))

    def _complain(self, sender: tuple[str, int], complaint: str) -> None:
        """One line per exporter and reason."""
        key = (sender[0], complaint)
        if key not in self._complaints and len(self._complaints) < MAX_COMPLAINTS:
            self._complaints.add(key)
            log: Any = structlog.get_logger(LOG)
            log.warning("exporter", exporter=f"{sender[0]}:{sender[1]}", problem=complaint)


def plain_address(address: str) -> str:
    """An IPv4 address that came in over an IPv6 socket, as IPv4; no zone."""
    return address.removeprefix("::ffff:").partition("%")[0]


def open_socket(endpoint: tuple[str, int]) -> socket.socket:
    """The bound UDP socket, non-blocking; InventoryError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in endpoint[0] else socket.AF_INET
    receiver = socket.socket(family, socket.SOCK_DGRAM)
    try:
        _enlarge(receiver)
        receiver.bind(endpoint)
    except OSError as error:
        receiver.close()
        raise InventoryError(
            f"ipfix.listen: {endpoint[0]}:{endpoint[1]} cannot be had ({error.strerror}): "
            "stop what uses it or change `listen`"
        ) from error
    receiver.setblocking(False)
    return receiver


def _enlarge(receiver: socket.socket) -> None:
    try:
        receiver.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER_OCTETS)
    except OSError:  # not privileged: as much as net.core.rmem_max grants
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_OCTETS)
