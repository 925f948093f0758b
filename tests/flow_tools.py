"""Real peers for the flow decoder: softflowd, which exports; nfcapd and nfdump, which decode and print."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from random import Random

import numpy as np

from collectors.flows import elements as ie
from collectors.flows.batch import RecordBatch
from collectors.flows.columns import times

Row = tuple[str, str, int, int, int, int, int, int, int, int]
COLUMNS = "%sa,%da,%sp,%dp,%pr,%tos,%pkt,%byt,%ts,%te"


def write_pcap(
    path: Path, packets: int = 300, seed: int = 1, *, flows: int = 20, two_way: bool = False
) -> int:
    """UDP packets of flows, every fourth of them IPv6, of three types of service; their octets from IP on."""
    octets = 0
    random, at_s = Random(seed), 1_800_000_000.0
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for number in range(packets):
            at_s += 0.01
            frame = _frame(
                random.randrange(flows), random.randrange(10, 1000), back=two_way and number % 2 == 1
            )
            octets += len(frame) - 14
            whole_s = int(at_s)
            file.write(struct.pack("<IIII", whole_s, int((at_s - whole_s) * 1e6), len(frame), len(frame)))
            file.write(frame)
    return octets


def _frame(flow: int, length: int, *, back: bool = False) -> bytes:
    ports = (53, 1000 + flow) if back else (1000 + flow, 53)
    udp = struct.pack(">HHHH", *ports, 8 + length, 0) + bytes(length)
    if flow % 4 == 0:
        ends = [IPv6Address("2001:db8::1").packed, IPv6Address(f"2001:db8:1::{flow + 1:x}").packed]
        head = b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, len(udp), 17, 64)
        return bytes(12) + head + b"".join(reversed(ends) if back else ends) + udp
    ends = [ip_address(f"10.1.0.{flow}").packed, ip_address(f"10.2.{flow}.9").packed]
    head = struct.pack(">BBHHHBBH", 0x45, (flow % 3) << 5, 20 + len(udp), 0, 0, 64, 17, 0)
    return bytes(12) + b"\x08\x00" + head + b"".join(reversed(ends) if back else ends) + udp


def export_by_softflowd(softflowd: str, pcap: Path, version: int, *options: str) -> list[bytes]:
    """The datagrams that softflowd makes of a capture."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as collector:
        collector.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{collector.getsockname()[1]}"
        command = [softflowd, "-r", str(pcap), "-n", target, "-v", str(version), "-d", "-c", "none"]
        command += options
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        collector.setblocking(False)
        datagrams = []
        while True:
            try:
                datagrams.append(collector.recv(65535))
            except BlockingIOError:
                return datagrams


def read_by_nfdump(nfcapd: str, nfdump: str, directory: Path, datagrams: Iterable[bytes]) -> list[Row]:
    """What nfcapd and nfdump make of datagrams."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        port = sender.getsockname()[1]  # free as a UDP port on another address too
        command = [nfcapd, "-b", "127.0.0.2", "-p", str(port), "-w", str(directory), "-B", "4000000"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        _wait_until_it_listens(process, "127.0.0.2", port)
        for datagram in datagrams:
            sender.sendto(datagram, ("127.0.0.2", port))
        _wait_until_read(port)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    command = [nfdump, "-R", str(directory), "-q", "-N", "-6", "-o", f"fmt:{COLUMNS}"]
    text = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "TZ": "UTC"}
    ).stdout
    return sorted(_row(line.split(",")) for line in text.splitlines() if line.count(",") == 9)


def _wait_until_it_listens(process: subprocess.Popen[bytes], address: str, port: int) -> None:
    until_s = time.monotonic() + 20
    while not _waiting(port, address):
        assert process.poll() is None, "nfcapd ended"
        assert time.monotonic() < until_s, "nfcapd did not listen within 20 s"
        time.sleep(0.02)


def _wait_until_read(port: int) -> None:
    until_s = time.monotonic() + 20
    while any(octets for octets in _waiting(port, "127.0.0.2")):
        assert time.monotonic() < until_s, "nfcapd did not read within 20 s"
        time.sleep(0.02)


def _waiting(port: int, address: str) -> list[int]:
    """Octets in the receive queue of every UDP socket bound there (proc(5), /proc/net/udp)."""
    bound = f"{int.from_bytes(ip_address(address).packed, 'little'):08X}:{port:04X}"
    lines = [line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
    return [int(fields[4].split(":")[1], 16) for fields in lines if fields[1] == bound]


def _row(fields: list[str]) -> Row:
    source, destination, *numbers = (field.strip() for field in fields)
    whole = [int(number) for number in numbers[:6]]
    start, end = (int(np.datetime64(stamp.replace(" ", "T"), "ms").astype(np.int64)) for stamp in numbers[6:])
    return (source, destination, *whole, start, end)  # type: ignore[return-value]  # six numbers between


def rows_of(batches: Iterable[RecordBatch]) -> list[Row]:
    """What our decoder makes of the same, in the same form."""
    rows: list[Row] = []
    for batch in batches:
        if batch.is_options:
            continue
        ends = [_addresses(batch, ie.SOURCE_IPV4, ie.SOURCE_IPV6)]
        ends.append(_addresses(batch, ie.DESTINATION_IPV4, ie.DESTINATION_IPV6))
        ids = (ie.SOURCE_PORT, ie.DESTINATION_PORT, ie.PROTOCOL, ie.TOS, ie.PACKETS, ie.OCTETS)
        numbers = [batch.or_zero(id).tolist() for id in ids]
        stamps = [(column // 1_000_000).tolist() for column in times(batch)]
        rows += zip(*ends, *numbers, *stamps, strict=True)
    return sorted(rows)


def _addresses(batch: RecordBatch, ipv4: int, ipv6: int) -> list[str]:
    octets = batch.octets(ipv4) or batch.octets(ipv6) or []
    return [str(ip_address(one)) for one in octets]
