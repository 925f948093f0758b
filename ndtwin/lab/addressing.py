"""Who has which address.

| what | addresses |
| --- | --- |
| management address of device i (from 1) | ``base`` + i: 127.20.0.1, … (all of 127/8 is local) |
| router id of device i | 10.255.0.0 + i |
| customer prefix of device i | 10.i.0.0/16 up to 250 devices, else the i-th /20 of 10/8 |
| cable k (two directed links) | the k-th /31 of 172.16.0.0/12 (RFC 3021) |
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from twin.errors import TopologyError

MOST_DEVICES = 4000
DEFAULT_BASE = IPv4Address("127.20.0.0")
_ROUTER_IDS = IPv4Address("10.255.0.0")
_CUSTOMERS = IPv4Address("10.0.0.0")
_CABLES = IPv4Address("172.16.0.0")


@dataclass(frozen=True)
class Addressing:
    """The plan for a network of so many devices."""

    devices: int
    base: IPv4Address = DEFAULT_BASE

    def __post_init__(self) -> None:
        if self.devices > MOST_DEVICES:
            raise TopologyError(f"{self.devices} devices: the lab has addresses for {MOST_DEVICES}")
        if not (self.base.is_loopback and (self.base + self.devices + 1).is_loopback):
            raise TopologyError(
                f"{self.base} is no loopback block with {self.devices} addresses: use 127.20.0.0"
            )

    @property
    def customer_prefix_length(self) -> int:
        """Of every customer prefix."""
        return 16 if self.devices <= 250 else 20

    def management(self, device: int) -> str:
        """Where the agents of device i (from 1) listen and what its exporter sends from."""
        return str(self.base + device)

    def router_id(self, device: int) -> IPv4Address:
        """Loopback address of device i."""
        return _ROUTER_IDS + device

    def customers(self, device: int) -> IPv4Network:
        """Customer prefix of device i."""
        length = self.customer_prefix_length
        return IPv4Network((_CUSTOMERS + (device << (32 - length)), length))

    def gateway(self, device: int) -> IPv4Interface:
        """The address of cust0 of device i: the first of its prefix."""
        prefix = self.customers(device)
        return IPv4Interface((prefix.network_address + 1, prefix.prefixlen))

    @staticmethod
    def cable(cable: int) -> tuple[IPv4Interface, IPv4Interface]:
        """Both ends of cable k."""
        first = _CABLES + 2 * cable
        return IPv4Interface((first, 31)), IPv4Interface((first + 1, 31))


def mac(device: int, interface: int = 0) -> bytes:
    """A locally administered MAC address (IEEE 802 bit 1 of the first octet); interface 0 is the chassis."""
    return b"\x02\x00" + device.to_bytes(2, "big") + interface.to_bytes(2, "big")
