"""Real peers for the collectors' tests: credential sets, inventories, and a lab device."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from collectors.inventory import Inventory, parse_inventory
from ndtwin.lab.device import Device, Interface, Neighbour, OneWay, Operation, OperationResult, Route

SECRETS = {
    "T_COMMUNITY": "lab-community",
    "T_WRONG": "wrong-secret-1",
    "T_AUTH": "auth-secret-1",
    "T_PRIVACY": "privacy-secret-1",
    "T_PASSWORD": "netconf-secret",
}
CREDENTIALS = """
network = "net"
[credentials.v1]
version = "1"
community = "env:T_COMMUNITY"
[credentials.v2c]
community = "env:T_COMMUNITY"
[credentials.v2c-wrong]
community = "env:T_WRONG"
[credentials.v3]
version = "3"
user = "ndtwin"
auth_protocol = "SHA256"
auth_key = "env:T_AUTH"
privacy_protocol = "AES"
privacy_key = "env:T_PRIVACY"
[credentials.v3-wrong]
version = "3"
user = "ndtwin"
auth_protocol = "SHA256"
auth_key = "env:T_WRONG"
privacy_protocol = "AES"
privacy_key = "env:T_PRIVACY"
[credentials.netconf]
username = "ndtwin"
password = "env:T_PASSWORD"
host_key_file = "known_hosts"
[credentials.netconf-wrong]
username = "ndtwin"
password = "env:T_WRONG"
host_key_file = "known_hosts"
"""


def inventory_of(*devices: str, base: Path = Path(), more: str = "") -> Inventory:
    """An inventory with the credential sets above; a device is the body of its table."""
    tables = "".join(f"[[devices]]\n{device}\n" for device in devices)
    return parse_inventory(CREDENTIALS + more + tables, base=base)


def free_udp_port(address: str = "127.0.0.1") -> int:
    """A UDP port that nobody has now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


async def eventually(condition: Callable[[], object], within_s: float = 10.0) -> None:
    """Wait until a condition holds; the test fails if it never does."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s"
        await asyncio.sleep(0.02)


@contextmanager
def running_snmpd(
    program: str, directory: Path, more: str = "", endpoint: tuple[str, int] = ("127.0.0.1", 0)
) -> Iterator[int]:
    """net-snmp's snmpd on a loopback port (0: of its own), ``more`` in its configuration; gives the port."""
    config, log, port = directory / "snmpd.conf", directory / "log", endpoint[1] or free_udp_port()
    log.unlink(missing_ok=True)
    config.write_text(
        f"agentaddress udp:{endpoint[0]}:{port}\n"
        f"rocommunity {SECRETS['T_COMMUNITY']} 127.0.0.1\n"
        f"createUser ndtwin SHA-256 {SECRETS['T_AUTH']} AES {SECRETS['T_PRIVACY']}\n"
        f"rouser ndtwin authpriv\n{more}"
    )
    environment = {**os.environ, "SNMP_PERSISTENT_DIR": str(directory), "MIBS": ""}
    command = [program, "-C", "-c", str(config), "-f", "-Lf", str(log), "-I", "-smux"]
    process = subprocess.Popen(command, env=environment, cwd=directory)
    try:
        deadline = time.monotonic() + 10
        while "NET-SNMP version" not in (said := log.read_text() if log.exists() else ""):
            assert process.poll() is None, said
            assert time.monotonic() < deadline, "snmpd did not start within 10 s"
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def lab_device() -> Device:
    """A router with two interfaces, three routes and two jitter operations, of which one has finished."""
    started_ns = time.time_ns() - 3600 * 1_000_000_000
    octets = {"in_octets": lambda: 5_000_000_000, "out_octets": lambda: 7_000, "out_discards": lambda: 3}
    core = Interface(
        index=1,
        name="ge-0/0/0",
        speed_bps=10e6,
        mac=bytes.fromhex("02005e000001"),
        address=IPv4Interface("172.16.0.0/31"),
        neighbour=Neighbour("CA1", "ge-0/0/7", bytes.fromhex("02005e000007")),
        counters={**octets, "in_packets": lambda: 6_000_000, "out_packets": lambda: 10},
    )
    customers = Interface(index=2, name="cust0", speed_bps=10e9, address=IPv4Interface("10.1.0.1/16"))
    device = Device(
        name="WA",
        index=1,
        router_id=IPv4Address("10.255.0.1"),
        chassis=bytes.fromhex("02005e000000"),
        clock=time.time_ns,
        started_ns=started_ns,
        interfaces=[core, customers],
        routes=(
            Route(IPv4Network("10.1.0.0/16"), 2),
            Route(IPv4Network("172.16.0.0/31"), 1),
            Route(IPv4Network("10.2.0.0/16"), 1, IPv4Address("172.16.0.1"), metric=20, learnt=True),
        ),
    )
    device.operations = [_operation(1, "CA1", 2), _operation(2, "CA2", 3)]
    device.operations[0].result = OperationResult(
        completed_ns=time.time_ns() - 2_000_000_000,
        forward=OneWay(sent=10, received=9, mean_s=0.0123, min_s=0.012, max_s=0.014, std_s=0.0005),
        backward=OneWay(sent=9, received=9, mean_s=0.02, min_s=0.02, max_s=0.02),
    )
    return device


def _operation(index: int, target: str, number: int) -> Operation:
    return Operation(
        index=index,
        target=target,
        source_address=IPv4Address("10.255.0.1"),
        target_address=IPv4Address(f"10.255.0.{number}"),
        frequency_s=5,
        packets=10,
        packet_octets=100,
    )


@dataclass
class LabAgents:
    """A lab device that answers on loopback."""

    device: Device
    snmp_port: int
    netconf_port: int
    directory: Path  # holds known_hosts
