"""A small real device for the agents' tests: three interfaces, counters that a test sets, one operation."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from ndtwin.lab.device import (
    LOOPBACK,
    Device,
    Interface,
    Neighbour,
    OneWay,
    Operation,
    OperationResult,
    Route,
)
from ndtwin.lab.snmp_agent import SnmpAccess

NOW_NS = 1_800_000_000_000_000_000
ACCESS = SnmpAccess("s3cret", "watcher", "auth-key-of-lab", "privacy-key-of-lab")


class Clock:
    """A clock that a test sets."""

    def __init__(self, now_ns: int = NOW_NS) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns


def make_device(clock: Clock | None = None) -> Device:
    """Router WA with a link to CA1, a customer port and a loopback."""
    clock = clock or Clock()
    device = Device(
        "WA", 1, IPv4Address("10.255.0.1"), b"\x02\x00\x00\x00\x00\x01", clock, clock() - 90_000_000_000
    )
    device.interfaces = [
        Interface(
            1, "eth1", "to CA1", speed_bps=12.5e6, mac=b"\x02\x00\x00\x01\x00\x01",
            address=IPv4Interface("172.16.0.0/31"),
            neighbour=Neighbour("CA1", "eth2", b"\x02\x00\x00\x00\x00\x02"),
            counters={"in_octets": lambda: 2**40 + 7, "out_octets": lambda: 2**33 + 5,
                      "out_packets": lambda: 99, "in_packets": lambda: 98, "out_discards": lambda: 3},
            last_change_ns=clock() - 60_000_000_000,
        ),
        Interface(2, "cust0", "customers", speed_bps=1e10, mac=b"\x02\x00\x00\x01\x00\x02",
                  address=IPv4Interface("10.1.0.1/16")),
        Interface(3, "lo0", "router id", kind=LOOPBACK, address=IPv4Interface("10.255.0.1/32")),
    ]  # fmt: skip
    device.routes = (
        Route(IPv4Network("10.1.0.0/16"), 2),
        Route(IPv4Network("10.2.0.0/16"), 1, IPv4Address("172.16.0.1"), 10, learnt=True),
    )
    forward = OneWay(sent=50, received=48, mean_s=0.0123, min_s=0.01, max_s=0.02, std_s=0.001)
    backward = OneWay(sent=50, received=50, mean_s=0.0100, min_s=0.009, max_s=0.011, std_s=0.0005)
    operation = Operation(2, "CA1", device.router_id, IPv4Address("10.255.0.2"), 5, 50, 1000)
    operation.result = OperationResult(clock() - 1_000_000_000, forward, backward)
    device.operations = [operation]
    return device
