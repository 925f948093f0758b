"""What a lab can be told: the table ``lab`` of the configuration file."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address
from typing import Literal

import msgspec

from ndtwin.lab.addressing import Addressing
from twin.errors import ConfigError


class LabSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Defaults make the NSFNET lab on 127.20.0.1 to 127.20.0.14."""

    topology: str = "nsfnet"  # nsfnet, geant2, gbn, power-law:NODES, or the path of a GraphML file
    network: str = ""  # the network's name in all records; empty: the topology's
    seed: int = 1
    packet_hops_per_s: float | None = None  # how much traffic; None: what suits the topology
    utilisation: float = 0.45  # of the busiest link at the mean of the cycle
    base_address: str = "127.20.0.0"
    snmp_port: int = 1161
    snmp_version: Literal["1", "2c", "3"] = (
        "2c"  # which credentials the inventory names; agents speak all three
    )
    netconf_port: int = 8830
    netconf: bool = True  # name NETCONF in the inventory; the servers run in any case
    ipfix_port: int = 4739  # of the collector, on 127.0.0.1
    sampling_ratio: int = 1  # one packet in so many is seen by the exporters
    probe_pps: float = 10.0  # per ordered pair of devices
    probe_period_s: int = 5
    probe_octets: int = 1000  # as the traffic's mean packet, so that probes do not change the mix on a link

    def addressing(self, devices: int) -> Addressing:
        """The address plan; ConfigError when the base is no IPv4 address."""
        try:
            base = IPv4Address(self.base_address)
        except AddressValueError as error:
            raise ConfigError(f"lab.base_address: {error}: give one such as 127.20.0.0") from None
        return Addressing(devices, base)

    def check(self) -> None:
        """ConfigError for values that make no lab."""
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigError(f"lab.{name} is {value}: give {low:g} to {high:g}")


_RANGES: tuple[tuple[str, float, float], ...] = (
    ("seed", 0, 2**63),
    ("packet_hops_per_s", 100, 1e8),
    ("utilisation", 0.01, 2.0),
    ("snmp_port", 1, 65535),
    ("netconf_port", 1, 65535),
    ("ipfix_port", 1, 65535),
    ("sampling_ratio", 1, 65535),
    ("probe_pps", 0.2, 1000),
    ("probe_period_s", 1, 3600),
    ("probe_octets", 44, 9000),
)
