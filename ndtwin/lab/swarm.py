"""Many cheap SNMP agents in one process: what a collector meets that watches a thousand devices.

They all show the tables of one device and differ in their addresses only. Whatever they are asked, they are
asked by everybody, so an answer is encoded once a second (counters go on) and sent with each request's own
id; between those, an agent costs a look-up and two system calls. Version 2c only. Some stay silent: they
take requests and answer none.

    python -m ndtwin.lab.swarm BASE PORT DEVICES SILENT INTERFACES

answers at the addresses that follow BASE until its standard input closes, and says ``ready`` when it begins.
"""

from __future__ import annotations

import contextlib
import resource
import select
import socket
import sys
import time
from ipaddress import IPv4Address

from pyasn1.codec.ber import decoder
from pysnmp.proto.api import v2c

from ndtwin.lab import ber
from ndtwin.lab.device import Device, Interface
from ndtwin.lab.mib import Mib
from ndtwin.lab.mib_tables import standard_cells
from ndtwin.lab.snmp_agent import HEADROOM_OCTETS, OPERATIONS

COMMUNITY = "swarm"
VERSION_2C = 1
RESPONSE = 0xA2  # GetResponse-PDU, RFC 3416 section 3
MAX_OCTETS = 65507
_FRESH_S = 1.0
_RATE_BPS = 4e8  # what every interface carries


class Swarm:
    """The answers of all agents: datagram in, datagram out."""

    def __init__(self, device: Device) -> None:
        self._mib = Mib(standard_cells(device, b"\x80\x00\x7e\xd9\x05swarm", 1))
        self._start = ber.integer(VERSION_2C) + ber.octets(COMMUNITY)
        self._answers: dict[bytes, bytes] = {}  # what follows the request's id → what follows the response's
        self._fresh_until = 0.0

    def answer(self, datagram: bytes, now_s: float) -> bytes | None:
        """What an agent sends back; None to another community."""
        if now_s > self._fresh_until:
            self._answers.clear()
            self._fresh_until = now_s + _FRESH_S
        _, start = _length(datagram, 0)
        if not datagram.startswith(self._start, start):
            return None
        pdu = start + len(self._start)
        _, begin = _length(datagram, pdu)
        size, value = _length(datagram, begin)
        asked = datagram[pdu : pdu + 1] + datagram[value + size :]
        rest = self._answers.get(asked) or self._read(asked, datagram)
        response = ber.tlv(RESPONSE, datagram[begin : value + size] + rest)
        return ber.tlv(ber.SEQUENCE, self._start + response)

    def _read(self, asked: bytes, datagram: bytes) -> bytes:
        message, _ = decoder.decode(datagram, asn1Spec=v2c.Message())
        request = v2c.apiMessage.get_pdu(message)
        status, bindings = OPERATIONS[request.tagSet](self._mib, request, MAX_OCTETS - HEADROOM_OCTETS)
        rest = ber.integer(status) + ber.integer(0) + ber.tlv(ber.SEQUENCE, bindings)
        self._answers[asked] = rest
        return rest


def _length(data: bytes, at: int) -> tuple[int, int]:
    """Of the element at ``at``: its length, and where its contents begin (X.690 section 8.1.3)."""
    first = data[at + 1]
    if first < 0x80:
        return first, at + 2
    end = at + 2 + (first & 0x7F)
    return int.from_bytes(data[at + 2 : end], "big"), end


def swarm_device(interfaces: int) -> Device:
    """A router whose interfaces all count."""
    started_ns = time.time_ns() - 3600 * 10**9
    device = Device("swarm", 1, IPv4Address("10.255.0.1"), b"\x02\0\0\0\0\1", time.time_ns, started_ns)

    def octets() -> int:
        return 2**40 + int((time.time_ns() - started_ns) * _RATE_BPS / 8e9)

    counters = {f"{way}_{what}": octets for way in ("in", "out") for what in ("octets", "packets")}
    device.interfaces = [
        Interface(i, f"ge-0/0/{i}", f"link {i}", speed_bps=1e9, mac=b"\x02\0\0\0\0\1", counters=counters)
        for i in range(1, interfaces + 1)
    ]
    return device


def addresses(base: str, count: int) -> list[str]:
    """The addresses that follow the base."""
    return [str(IPv4Address(base) + i) for i in range(1, count + 1)]


def serve(base: str, port: int, devices: int, silent: int, interfaces: int) -> None:
    """Answer until standard input closes; the first ``silent`` agents never do."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    swarm, waiting = Swarm(swarm_device(interfaces)), select.epoll()
    with contextlib.ExitStack() as stack:
        sockets = {}
        for i, address in enumerate(addresses(base, devices)):
            one = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            one.bind((address, port))
            one.setblocking(False)
            if i >= silent:
                sockets[one.fileno()] = one
                waiting.register(one, select.EPOLLIN)
        waiting.register(sys.stdin, select.EPOLLIN | select.EPOLLHUP)
        print("ready", flush=True)
        while _serve_once(swarm, waiting, sockets):
            pass


def _serve_once(swarm: Swarm, waiting: select.epoll, sockets: dict[int, socket.socket]) -> bool:
    ready = waiting.poll()
    now_s = time.monotonic()
    for number, _ in ready:
        if number not in sockets:
            return False  # standard input: whoever started us has gone
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            datagram, source = sockets[number].recvfrom(MAX_OCTETS)
            answer = swarm.answer(datagram, now_s)
            if answer is not None:
                sockets[number].sendto(answer, source)
    return True


if __name__ == "__main__":
    serve(sys.argv[1], *map(int, sys.argv[2:6]))
