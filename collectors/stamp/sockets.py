"""UDP sockets that say when a datagram arrived, how, and where it was sent to (Linux).

The kernel stamps what it receives (SO_TIMESTAMPNS): the time that a datagram waits for this program is not
taken for delay. TTL 255 and the class of service are set on what is sent (RFC 8762 section 4.2.1, RFC 5357).
A reflector on a wildcard address answers from the address it was asked at, or its peer would not know it.

A socket belongs for ever to the network namespace in which it was made: :func:`within` goes into another one
for as long as that takes, so that one process can measure from many.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from twin.errors import InventoryError

TTL = 255
_SO_TIMESTAMPNS = 35  # asm-generic/socket.h; Python has no name for these four
_IP_PKTINFO, _IP_RECVTTL, _IP_RECVTOS, _IP_TTL_MESSAGE = 8, 12, 13, 2  # linux/in.h
_CLONE_NEWNET = 0x40000000
_BUFFER_OCTETS = 1 << 20
_LONGEST = 9216  # a jumbo frame; what is longer is cut and fails its checks
_ANCILLARY = 256
_TIME = struct.Struct("@qq")
_INT = struct.Struct("@i")
_PKTINFO4 = struct.Struct("@i4s4s")
_PKTINFO6 = struct.Struct("@16sI")
_NETNS = Path("/run/netns")


@dataclass(frozen=True)
class Received:
    """One datagram."""

    payload: bytes
    source: tuple[str, int]
    received_ns: int
    local: str = ""
    ttl: int | None = None
    tos: int = 0


@contextlib.contextmanager
def within(netns: str) -> Iterator[None]:
    """Inside a named network namespace (``ip netns``); an empty name: where we are."""
    if not netns:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            here = stack.enter_context(open("/proc/thread-self/ns/net", "rb"))
            there = stack.enter_context(open(_NETNS / netns, "rb"))
        except OSError as error:
            raise InventoryError(
                f"network namespace {netns!r} cannot be entered ({error.strerror}): see `ip netns list`"
            ) from error
        _enter(there.fileno(), netns)
        try:
            yield
        finally:
            _enter(here.fileno(), "our own")


def _enter(fd: int, name: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, _CLONE_NEWNET) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise InventoryError(f"network namespace {name!r} cannot be entered ({reason}): this needs root")


def open_socket(
    local: tuple[str, int], *, remote: tuple[str, int] | None = None, dscp: int = 0, netns: str = ""
) -> socket.socket:
    """A bound (and connected) UDP socket, non-blocking; InventoryError when that cannot be."""
    address = remote[0] if remote is not None else local[0]
    six = ":" in address
    made: socket.socket | None = None
    try:
        with within(netns):
            made = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
        _prepare(made, six)
        _set_class(made, six, dscp)
        made.bind((local[0] or ("::" if six else "0.0.0.0"), local[1]))
        if remote is not None:
            made.connect(remote)
        made.setblocking(False)
    except OSError as error:
        if made is not None:
            made.close()
        where = f"{local[0]}:{local[1]}" + (f" to {remote[0]}:{remote[1]}" if remote else "")
        raise InventoryError(
            f"UDP {where} cannot be had ({error.strerror}): check addresses and what else uses the port"
        ) from error
    return made


def _prepare(made: socket.socket, six: bool) -> None:
    made.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_OCTETS)
    if six:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has its own socket
        for option in (socket.IPV6_RECVPKTINFO, socket.IPV6_RECVHOPLIMIT, socket.IPV6_RECVTCLASS):
            made.setsockopt(socket.IPPROTO_IPV6, option, 1)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, TTL)
    else:
        for option in (_IP_PKTINFO, _IP_RECVTTL, _IP_RECVTOS):
            made.setsockopt(socket.IPPROTO_IP, option, 1)
        made.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, TTL)


def _set_class(made: socket.socket, six: bool, dscp: int) -> None:
    if dscp:
        level, option = (
            (socket.IPPROTO_IPV6, socket.IPV6_TCLASS) if six else (socket.IPPROTO_IP, socket.IP_TOS)
        )
        made.setsockopt(level, option, dscp << 2)


def receive(receiver: socket.socket) -> Received | None:
    """The next datagram, None when there is none. ConnectionRefusedError: nobody listens at the far end."""
    try:
        payload, ancillary, _, source = receiver.recvmsg(_LONGEST, _ANCILLARY)
    except BlockingIOError:
        return None
    told: dict[str, int | str] = {}
    for level, kind, data in ancillary:
        if (level, kind) in _MESSAGES:
            name, read = _MESSAGES[level, kind]
            told[name] = read(data)
    ttl = told.get("ttl")
    return Received(
        payload=payload,
        source=(source[0], source[1]),
        received_ns=int(told.get("time", 0)) or time.time_ns(),
        local=str(told.get("local", "")),
        ttl=None if ttl is None else int(ttl),
        tos=int(told.get("tos", 0)),
    )


def reply(sender: socket.socket, payload: bytes, to: Received, dscp: int) -> bool:
    """Send from the address that ``to`` was sent to, in a class; whether the kernel took it."""
    ancillary: list[tuple[int, int, bytes]] = []
    if sender.family == socket.AF_INET6:
        ancillary.append((socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _INT.pack(dscp << 2)))
        if to.local:
            packed = socket.inet_pton(socket.AF_INET6, to.local)
            ancillary.append((socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _PKTINFO6.pack(packed, 0)))
    else:
        ancillary.append((socket.IPPROTO_IP, socket.IP_TOS, _INT.pack(dscp << 2)))
        if to.local:
            packed = socket.inet_aton(to.local)
            ancillary.append((socket.IPPROTO_IP, _IP_PKTINFO, _PKTINFO4.pack(0, packed, b"\0" * 4)))
    try:
        sender.sendmsg([payload], ancillary, 0, to.source)
    except OSError:  # a full queue, or no way back to whoever it claims to be from: its sender counts it lost
        return False
    return True


def _read_time(data: bytes) -> int:
    seconds, ns = _TIME.unpack_from(data)
    return int(seconds) * 1_000_000_000 + int(ns)


def _read_int(data: bytes) -> int:
    return data[0] if len(data) == 1 else int(_INT.unpack_from(data)[0])


def _read_pktinfo4(data: bytes) -> str:
    return socket.inet_ntoa(_PKTINFO4.unpack_from(data)[1])


def _read_pktinfo6(data: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET6, _PKTINFO6.unpack_from(data)[0])


# (level, kind) → what it tells, and how it is read
_MESSAGES: dict[tuple[int, int], tuple[str, Callable[[bytes], int | str]]] = {
    (socket.SOL_SOCKET, _SO_TIMESTAMPNS): ("time", _read_time),
    (socket.IPPROTO_IP, _IP_TTL_MESSAGE): ("ttl", _read_int),
    (socket.IPPROTO_IP, socket.IP_TOS): ("tos", _read_int),
    (socket.IPPROTO_IP, _IP_PKTINFO): ("local", _read_pktinfo4),
    (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT): ("ttl", _read_int),
    (socket.IPPROTO_IPV6, socket.IPV6_TCLASS): ("tos", _read_int),
    (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO): ("local", _read_pktinfo6),
}
