"""What a device of the lab knows about itself: the one thing the SNMP, NETCONF and IPFIX agents read.

The simulator driver owns the devices and fills them; the agents only read, at the moment they are asked,
so an answer is never older than the simulator's last step. Invariants:

- Counters are read through callables and only ever grow while the lab runs.
- Whatever changes the *rows* a device shows (a link that goes down takes its LLDP neighbour along, new
  routes) calls :meth:`Device.changed`; agents rebuild their tables when ``revision`` moved and never
  otherwise.
- All times are wall-clock nanoseconds; sysUpTime follows from them and ``started_ns``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

TICK_NS = 10_000_000  # TimeTicks: hundredths of a second (RFC 2578 section 7.1.8)
COUNTER_NAMES = (
    "in_octets",
    "in_packets",
    "in_discards",
    "in_errors",
    "out_octets",
    "out_packets",
    "out_discards",
    "out_errors",
)
ETHERNET, LOOPBACK = 6, 24  # IANAifType: ethernetCsmacd, softwareLoopback


def never() -> int:
    """A counter that nothing ever counts."""
    return 0


@dataclass(frozen=True)
class Neighbour:
    """What LLDP hears on an interface."""

    device: str
    interface: str
    chassis: bytes  # MAC address
    address: IPv4Address | None = None  # where it is managed


@dataclass
class Interface:
    """One row of ifTable. ``counters`` maps every name of COUNTER_NAMES that counts to its reader."""

    index: int
    name: str
    alias: str = ""
    kind: int = ETHERNET
    speed_bps: float = 0.0
    mac: bytes = b""
    mtu: int = 1500
    address: IPv4Interface | None = None
    neighbour: Neighbour | None = None
    counters: dict[str, Callable[[], int]] = field(default_factory=dict)
    oper_up: bool = True
    last_change_ns: int = 0

    def counter(self, name: str) -> int:
        """The counter's value now."""
        return self.counters.get(name, never)()


@dataclass(frozen=True)
class Route:
    """One row of inetCidrRouteTable; no next hop: directly attached."""

    prefix: IPv4Network
    if_index: int
    next_hop: IPv4Address | None = None
    metric: int = 0
    learnt: bool = False  # by OSPF


@dataclass(frozen=True)
class OneWay:
    """One direction of one finished operation."""

    sent: int
    received: int
    mean_s: float = 0.0
    min_s: float = 0.0
    max_s: float = 0.0
    std_s: float = 0.0

    @property
    def lost(self) -> int:
        """Packets that did not arrive."""
        return max(0, self.sent - self.received)


@dataclass(frozen=True)
class OperationResult:
    """What an operation measured in its last period."""

    completed_ns: int
    forward: OneWay  # source to destination
    backward: OneWay


@dataclass
class Operation:
    """A jitter operation (CISCO-RTTMON-MIB) from this device to another."""

    index: int
    target: str
    source_address: IPv4Address
    target_address: IPv4Address
    frequency_s: int
    packets: int
    packet_octets: int
    result: OperationResult | None = None


@dataclass
class Device:
    """A router as its agents show it."""

    name: str
    index: int  # from 1: the last octets of its addresses
    router_id: IPv4Address
    chassis: bytes  # MAC address
    clock: Callable[[], int]  # wall clock, nanoseconds
    started_ns: int
    interfaces: list[Interface] = field(default_factory=list)
    routes: tuple[Route, ...] = ()
    operations: list[Operation] = field(default_factory=list)
    revision: int = 0
    silent: bool = False  # fault: answers nothing
    table_changed_ns: int = 0  # ifTableLastChange
    neighbours_changed_ns: int = 0  # lldpStatsRemTablesLastChangeTime
    lsas_originated: int = 1
    lsas_received: int = 0

    def changed(self) -> None:
        """Rows came or went: agents rebuild their tables."""
        self.revision += 1

    def ticks(self, at_ns: int) -> int:
        """A moment as TimeStamp: sysUpTime when it happened; 0 for what was so before the agent started."""
        return max(0, at_ns - self.started_ns) // TICK_NS % 2**32

    def uptime_ticks(self) -> int:
        """sysUpTime."""
        return self.ticks(self.clock())

    def interface(self, name: str) -> Interface:
        """The interface of a name."""
        return next(interface for interface in self.interfaces if interface.name == name)

    def set_oper(self, interface: Interface, up: bool) -> None:
        """Bring an interface up or down as the line protocol sees it."""
        if interface.oper_up != up:
            interface.oper_up = up
            interface.last_change_ns = self.neighbours_changed_ns = self.clock()
            self.changed()
