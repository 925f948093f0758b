"""The trap listener: a UDP socket before :class:`collectors.snmp.trap_receiver.TrapReceiver`.

Rules
-----
- Only devices of the inventory are heard: by their management address, and by the addresses that their last
  topology showed on their interfaces.
- A storm is bounded before anything is decoded: each device has an allowance, and all together have one.
  What is beyond it is dropped and counted, and told once as ``trap-storm``; an inform that is dropped so is
  sent again by its sender.
- Who is refused (wrong key, replayed time, unknown community) is told once for each reason until something
  of that device is accepted again.
- An accepted trap is an event at once. The poller of the device is told, so that the next poll does not say
  the same again, and its topology is read anew.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from collectors.inventory import Credentials
from collectors.snmp.trap_receiver import TrapReceiver
from collectors.snmp.traps import Allowance, Notification, Seen, interface_of, notification_of
from collectors.stats import CollectorStats
from twin.errors import InventoryError
from twin.records import NetworkEvent, Record

LOG = "ndtwin.collect"
PER_DEVICE = (5.0, 50.0)  # notifications a second, and at once
ALTOGETHER = (100.0, 500.0)  # about a quarter of a core
MAX_DATAGRAMS = 64  # per wake-up, so that polls get their turn
_MAX_OCTETS = 65535
_TICK_S = 1.0


class Watched(Protocol):
    """What the listener needs of a device's poller."""

    def name_of(self, if_index: int) -> str:
        """The ifName that the last poll saw."""
        ...

    def told(self, kind: str, interface: str) -> None:
        """A trap told this; the next poll need not."""
        ...

    @property
    def believed(self) -> bool:
        """Whether it is the device that answers at its address."""
        ...


def open_trap_socket(endpoint: tuple[str, int]) -> socket.socket:
    """The bound UDP socket, non-blocking; InventoryError when the address cannot be had."""
    sock = socket.socket(socket.AF_INET6 if ":" in endpoint[0] else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.bind(endpoint)
    except OSError as error:
        sock.close()
        raise InventoryError(
            f"traps.listen: {endpoint[0]}:{endpoint[1]} cannot be had ({error.strerror}): "
            "stop what uses it, change `listen`, or give the right to open ports below 1024"
        ) from error
    sock.setblocking(False)
    return sock


@dataclass
class _Sender:
    """What is remembered of one device."""

    device: str
    watched: Watched
    credentials: Credentials | None
    allowance: Allowance = field(default_factory=lambda: Allowance(*PER_DEVICE))
    complaints: set[str] = field(default_factory=set)


class TrapListener:
    """Receives, judges, acknowledges, emits."""

    def __init__(
        self,
        network: str,
        receiver: TrapReceiver,
        emit: Callable[[Record], None],
        stats: CollectorStats,
        clock: Callable[[], int],
    ) -> None:
        self._network = network
        self._receiver = receiver
        self._emit = emit
        self._stats = stats
        self._clock = clock
        self._senders: dict[str, _Sender] = {}  # by address
        self._seen = Seen()
        self._altogether = Allowance(*ALTOGETHER)
        self._unknown: set[str] = set()

    def watch(
        self, device: str, address: str, watched: Watched, credentials: Credentials | None = None
    ) -> None:
        """Hear a device at its management address, under its credential set (None: under any)."""
        self._senders[address] = _Sender(device, watched, credentials)

    def also(self, device: str, addresses: tuple[str, ...]) -> None:
        """Hear it at these addresses too, where nobody else is known."""
        known = next((one for one in self._senders.values() if one.device == device), None)
        for address in addresses if known is not None else ():
            self._senders.setdefault(address, known)  # type: ignore[arg-type]  # known is not None here

    async def run(self, endpoint: tuple[str, int]) -> None:
        """Listen until cancelled."""
        with open_trap_socket(endpoint) as sock:
            loop = asyncio.get_running_loop()
            loop.add_reader(sock.fileno(), self._drain, sock)
            try:
                while True:
                    await asyncio.sleep(_TICK_S)
                    self._receiver.tick(self._clock() / 1e9)
            finally:
                loop.remove_reader(sock.fileno())

    def _drain(self, sock: socket.socket) -> None:
        for _ in range(MAX_DATAGRAMS):
            try:
                datagram, source = sock.recvfrom(_MAX_OCTETS)
            except BlockingIOError:
                return
            response = self.receive(
                datagram, (source[0].removeprefix("::ffff:").partition("%")[0], source[1])
            )
            if response:
                self._send(sock, response, source)

    def _send(self, sock: socket.socket, response: bytes, source: Any) -> None:
        try:
            sock.sendto(response, source)
        except OSError as error:  # its way back is gone or full: it will send the inform again
            self._log().warning("trap not acknowledged", sender=source[0], reason=error.strerror)

    def receive(self, datagram: bytes, source: tuple[str, int]) -> bytes:
        """Take one datagram; what is to be sent back."""
        now_ns = self._clock()
        self._stats.traps += 1
        sender = self._senders.get(source[0])
        if sender is None:
            self._stranger(source[0])
            return b""
        if not sender.allowance.take(now_ns):
            self._storm(sender, now_ns, f"more than {PER_DEVICE[0]:g} a second")
            return b""
        if not self._altogether.take(now_ns):
            self._storm(sender, now_ns, f"more than {ALTOGETHER[0]:g} a second from all devices together")
            return b""
        found = self._receiver.receive(datagram, source, sender.credentials)
        if found.refused:
            self._refused(sender, found.refused, now_ns)
        elif found.bindings:
            sender.complaints.clear()
            self._accept(sender, notification_of(found.bindings), now_ns)
        return found.response

    def _accept(self, sender: _Sender, told: Notification, now_ns: int) -> None:
        if not told.kind or not sender.watched.believed or self._seen.again(sender.device, told):
            return
        interface = interface_of(told, sender.watched.name_of)
        uptime_s = None if told.uptime_ticks is None else told.uptime_ticks / 100
        detail = "trap" if uptime_s is None else f"trap at sysUpTime {uptime_s:.2f} s"
        self._tell(sender, told.kind, now_ns, detail, interface)
        sender.watched.told(told.kind, interface)

    def _refused(self, sender: _Sender, why: str, now_ns: int) -> None:
        self._stats.refused_traps += 1
        if why not in sender.complaints:
            sender.complaints.add(why)
            self._log().warning("trap refused", device=sender.device, reason=why)
            self._tell(sender, "trap-refused", now_ns, why)

    def _storm(self, sender: _Sender, now_ns: int, why: str) -> None:
        self._stats.dropped_traps += 1
        if "storm" not in sender.complaints:
            sender.complaints.add("storm")
            self._log().warning("traps dropped", device=sender.device, reason=why)
            self._tell(sender, "trap-storm", now_ns, f"{why}: some are dropped")

    def _stranger(self, address: str) -> None:
        self._stats.unknown_traps += 1
        if address not in self._unknown and len(self._unknown) < 1024:
            self._unknown.add(address)
            self._log().warning("trap of a stranger", sender=address, reason="no device has this address")

    def _tell(self, sender: _Sender, kind: str, now_ns: int, detail: str, interface: str = "") -> None:
        self._emit(
            NetworkEvent(
                network=self._network,
                device=sender.device,
                observed_at_ns=now_ns,
                kind=kind,
                interface=interface,
                detail=detail,
            )
        )

    @staticmethod
    def _log() -> Any:
        return structlog.get_logger(LOG)
