"""Many datagrams by one system call: recvmmsg(2) into one block of slots, lengths and senders in arrays.

Receiving datagrams one by one costs Python more than decoding what is in them: for each a call, a tuple, a
string. Here the kernel writes a burst of them into memory that was laid out once, and what comes of it is
columns: a slot, a length and a sender for every datagram, where senders are numbers into the few exporters
that the burst is from. No object is made for a datagram.

The layout is that of ``struct mmsghdr`` as Linux' C libraries have it. Elsewhere recvfrom(2) fills the same
slots one by one.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import socket
import sys
from typing import Any, Protocol

import numpy as np

from collectors.flows.burst import Burst, Slots
from collectors.flows.columns import Groups
from collectors.flows.decoder import Exporter
from twin.errors import InventoryError

BUFFER_OCTETS = 16 * 1024 * 1024  # about a second of a hundred thousand records; the kernel may grant less
SLOTS = 1024  # datagrams that are looked at together
# Room for a datagram of one Ethernet frame, so that a burst fits into a core's cache; an odd number of cache
# lines, because slots a power of two apart would share a few. What is longer goes on in a second place.
SLOT_OCTETS = 31 * 64
MAX_OCTETS = 65_536
_SO_RCVBUFFORCE = 33  # Linux; needs CAP_NET_ADMIN
_MAX_PEERS = 65_536
_ADDRESS_OCTETS = 32  # sockaddr_in6 has 28; whole words compare quicker
_NOTHING_THERE = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR)

# recvmmsg(2): a msghdr and how long the datagram was; iovec: where it goes.
_MESSAGE = np.dtype(
    [
        ("name", np.uintp), ("name_octets", np.uint32), ("vector", np.uintp), ("vectors", np.uintp),
        ("control", np.uintp), ("control_octets", np.uintp), ("flags", np.int32),
    ],
    align=True,
)  # fmt: skip
_MESSAGES = np.dtype([("message", _MESSAGE), ("octets", np.uint32)], align=True)
_VECTOR = np.dtype([("base", np.uintp), ("octets", np.uintp)], align=True)


class Receiver(Protocol):
    """A socket whose datagrams come in bursts."""

    def receive(self, most: int = SLOTS) -> Burst:
        """What waits, at most so many datagrams: valid until the next call."""
        ...


def receiver_of(sock: socket.socket) -> Receiver:
    """The quickest there is for a non-blocking UDP socket."""
    function = _recvmmsg()
    return OneByOne(sock) if function is None else Together(sock, function)


def _recvmmsg() -> Any:
    """The C library's function, or None."""
    if not sys.platform.startswith("linux"):
        return None
    function = getattr(ctypes.CDLL(None, use_errno=True), "recvmmsg", None)
    if function is not None:
        function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]
        function.restype = ctypes.c_int
    return function


class Together:
    """By recvmmsg(2)."""

    def __init__(self, sock: socket.socket, function: Any) -> None:
        self._file = sock.fileno()
        self._function = function
        self._slots, self._rest = _rows(SLOT_OCTETS), _rows(MAX_OCTETS - SLOT_OCTETS)
        self._names = np.zeros((SLOTS, _ADDRESS_OCTETS), np.uint8)
        self._vectors = np.zeros((SLOTS, 2), _VECTOR)
        for i, place in enumerate((self._slots, self._rest)):
            self._vectors["base"][:, i], self._vectors["octets"][:, i] = _places(place), place.shape[1]
        self._messages = np.zeros(SLOTS, _MESSAGES)
        heads = self._messages["message"]
        heads["name"], heads["name_octets"] = _places(self._names), _ADDRESS_OCTETS
        heads["vector"], heads["vectors"] = _places(self._vectors), 2
        self._peers: dict[bytes, Exporter] = {}  # a socket's address → who that is

    def receive(self, most: int = SLOTS) -> Burst:
        """What waits, by one call."""
        count = self._function(self._file, self._messages.ctypes.data, most, socket.MSG_DONTWAIT, None)
        if count < 0:
            error = ctypes.get_errno()
            if error not in _NOTHING_THERE:
                raise OSError(error, os.strerror(error))
            count = 0
        names = self._names[:count]
        words = names.view(np.int64)
        groups = Groups([words[:, i] for i in range(words.shape[1])], count)
        exporters = [self._peers.get(name) or self._meet(name) for name in map(bytes, names[groups.examples])]
        sizes = self._messages["octets"][:count].astype(np.int64)
        return Burst(self._slots[:count], sizes, groups.of, exporters, self._rest)

    def _meet(self, name: bytes) -> Exporter:
        if len(self._peers) >= _MAX_PEERS:
            self._peers.clear()
        exporter = self._peers[name] = exporter_of(name)
        return exporter


def _rows(octets: int) -> Slots:
    """A row of so many octets for every slot; pages that nobody writes to cost nothing."""
    memory = mmap.mmap(-1, SLOTS * octets)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)  # one octet would take 2 MiB
    return np.frombuffer(memory, np.uint8).reshape(SLOTS, octets)


def _places(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uintp]]:
    """The address of every row."""
    return rows.ctypes.data + np.arange(len(rows), dtype=np.uintp) * np.uintp(rows.strides[0])


def exporter_of(name: bytes) -> Exporter:
    """Address and port of a ``struct sockaddr_in`` or ``sockaddr_in6``."""
    family, port = int.from_bytes(name[:2], sys.byteorder), int.from_bytes(name[2:4], "big")
    six = family == socket.AF_INET6
    text = socket.inet_ntop(family, name[8:24] if six else name[4:8])
    return plain_address(text), port


class OneByOne:
    """By recvfrom(2), where there is nothing better."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._slots = _rows(MAX_OCTETS)
        self._views = [row.data for row in self._slots]

    def receive(self, most: int = SLOTS) -> Burst:
        """What waits, by a call for each."""
        sizes: list[int] = []
        senders: list[int] = []
        numbers: dict[Any, int] = {}
        with contextlib.suppress(BlockingIOError):
            for view in self._views[:most]:
                size, sender = self._socket.recvfrom_into(view)
                sizes.append(size)
                senders.append(numbers.setdefault(sender, len(numbers)))
        exporters: list[Exporter] = [(plain_address(sender[0]), sender[1]) for sender in numbers]
        return Burst(
            self._slots[: len(sizes)],
            np.array(sizes, dtype=np.int64),
            np.array(senders, dtype=np.int64),
            exporters,
        )


def plain_address(address: str) -> str:
    """An IPv4 address that came in over an IPv6 socket, as IPv4; no zone."""
    return address.removeprefix("::ffff:").partition("%")[0]


def open_socket(endpoint: tuple[str, int], *, shared: bool = False) -> socket.socket:
    """The bound UDP socket, non-blocking; InventoryError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in endpoint[0] else socket.AF_INET
    receiver = socket.socket(family, socket.SOCK_DGRAM)
    try:
        _enlarge(receiver)
        if shared:
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        receiver.bind(endpoint)
    except OSError as error:
        receiver.close()
        raise taken(endpoint, error) from error
    receiver.setblocking(False)
    return receiver


def taken(endpoint: tuple[str, int], error: OSError, protocol: str = "") -> InventoryError:
    """Why nobody can listen there."""
    return InventoryError(
        f"ipfix.listen: {protocol}{endpoint[0]}:{endpoint[1]} cannot be had ({error.strerror}): "
        "stop what uses it or change `listen`"
    )


def _enlarge(receiver: socket.socket) -> None:
    try:
        receiver.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER_OCTETS)
    except OSError:  # not privileged: as much as net.core.rmem_max grants
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_OCTETS)
