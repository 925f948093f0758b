"""The inventory's tables of active delay: who reflects, and which probes are sent.

    [[devices]]
    stamp = { port = 862, credentials = "probes", stateful = true }      # it reflects

    [[probes]]
    source = "WA"              # the device at which the sender stands: paths are measured from it
    target = "CA1"             # a device that reflects, or "*": all of them but the source
    classes = [0, 46]          # DSCP
    packets_per_s = 5.0        # to each target, in each class
    flows = 4                  # with so many source ports, to see equal-cost paths

Bounds, so that a probe is never a flood: packets a second and bit/s per target, packets a second per sender.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from collectors.stamp.clock import ClockState
from collectors.stamp.pace import Stream
from collectors.stamp.packets import PLAIN_OCTETS, SIGNED_OCTETS
from collectors.stamp.timestamps import TimestampFormat

if TYPE_CHECKING:
    from collectors.inventory import Inventory

EVERYONE = "*"
PORT = 862  # RFC 8762 section 4.1
MOST_PPS, MOST_BPS = 100.0, 1e6  # of one class to one target
MOST_SENDER_PPS = 5000.0
MOST_FLOWS, LONGEST_PACKET, LONGEST_TIMEOUT_S = 16, 9000, 10.0
_HEADERS_V4, _HEADERS_V6 = 28, 48  # IP and UDP
Problems = Iterable[tuple[str, str]]  # (place, what is wrong and what to do)


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the tables."""


class StampAccess(_Table, frozen=True):
    """How a device reflects."""

    address: str = ""  # empty: the device's own
    port: int = PORT
    credentials: str = ""  # a set with auth_key: authenticated mode
    stateful: bool | None = None  # None: to be found out


class ProbeTable(_Table, frozen=True):
    """Packets from one device to another, or to all others."""

    source: str
    target: str
    classes: tuple[int, ...] = (0,)
    packets_per_s: float = 5.0
    packet_octets: int = 128  # with IP and UDP headers
    flows: int = 1
    stream: Stream = "poisson"
    timeout_s: float = 1.0
    timestamps: TimestampFormat = "ntp"
    clock: ClockState = "kernel"
    clock_error_s: float = 0.0
    source_address: str = ""  # to send from; empty: the kernel's choice
    netns: str = ""  # the network namespace to send from
    remote: bool = (
        False  # true: `ndtwin stamp send --source` runs it beside the device; false: `ndtwin collect`
    )


class Probe(_Table, frozen=True):
    """One probe, ready to run: one class from one device to one target."""

    source: str
    target: str
    address: tuple[str, int]
    traffic_class: int
    table: ProbeTable
    credentials: str = ""
    stateful: bool | None = None

    @property
    def header_octets(self) -> int:
        """IP and UDP."""
        return _HEADERS_V6 if ":" in self.address[0] else _HEADERS_V4

    @property
    def payload_octets(self) -> int:
        """Of UDP."""
        least = SIGNED_OCTETS if self.credentials else PLAIN_OCTETS
        return max(self.table.packet_octets - self.header_octets, least)

    @property
    def packet_bits(self) -> float:
        """On the wire, IP included."""
        return 8.0 * (self.payload_octets + self.header_octets)


def probes_of(inventory: Inventory) -> tuple[Probe, ...]:
    """Every probe, target by target and class by class."""
    reflecting = {device.name: device for device in inventory.devices if device.stamp is not None}
    found = []
    for table in inventory.probes:
        names = [name for name in reflecting if name != table.source]
        for name in names if table.target == EVERYONE else [table.target]:
            device = reflecting[name]
            access = device.stamp or StampAccess()
            found += [
                Probe(
                    source=table.source,
                    target=name,
                    address=(access.address or device.address, access.port),
                    traffic_class=dscp,
                    table=table,
                    credentials=access.credentials,
                    stateful=access.stateful,
                )
                for dscp in table.classes
            ]
    return tuple(found)


# ------------------------------------------------------------------------------------------- the checks


def check_reflectors(inventory: Inventory) -> Problems:
    """The devices' ``stamp`` tables."""
    for i, device in enumerate(inventory.devices):
        if device.stamp is None:
            continue
        place = f"devices[{i}] ({device.name}).stamp"
        if not 1 <= device.stamp.port <= 65535:
            yield f"{place}.port", f"{device.stamp.port} is no port: use 1 to 65535"
        if device.stamp.address and not is_address(device.stamp.address):
            yield f"{place}.address", f"{device.stamp.address!r} is not an IP address"
        name = device.stamp.credentials
        credentials = inventory.credentials.get(name)
        if name and credentials is None:
            yield f"{place}.credentials", f"no set {name!r}: add it"
        elif credentials is not None and credentials.auth_key is None:
            yield f"credentials.{name}", f'STAMP needs auth_key = "env:NAME" (needed by {device.name}.stamp)'


def check_probes(inventory: Inventory) -> Problems:
    """The ``probes`` tables."""
    reflecting = {device.name for device in inventory.devices if device.stamp is not None}
    names = {device.name for device in inventory.devices}
    for i, probe in enumerate(inventory.probes):
        place = f"probes[{i}] ({probe.source}->{probe.target})"
        if probe.source not in names:
            yield f"{place}.source", f"no device {probe.source!r}: correct it or add the device"
        if probe.target not in (reflecting | {EVERYONE}) or probe.target == probe.source:
            yield f"{place}.target", f"{probe.target!r} does not reflect: give that device a `stamp` table"
        yield from ((f"{place}.{name}", problem) for name, problem in _range_problems(probe))


def check_rates(inventory: Inventory) -> Problems:
    """What each sender sends in all; after the other checks."""
    totals: dict[str, float] = {}
    for one in probes_of(inventory):
        totals[one.source] = totals.get(one.source, 0.0) + one.table.packets_per_s
    for source, pps in totals.items():
        if pps > MOST_SENDER_PPS:
            yield "probes", f"{source} sends {pps:g} packets/s in all: {MOST_SENDER_PPS:g} are the most"


def _range_problems(probe: ProbeTable) -> Problems:
    bps = 8 * probe.packet_octets * probe.packets_per_s
    checks = (
        ("packets_per_s", probe.packets_per_s, 0.01, MOST_PPS),
        ("packet_octets", probe.packet_octets, 1, LONGEST_PACKET),
        ("flows", probe.flows, 1, MOST_FLOWS),
        ("timeout_s", probe.timeout_s, 0.01, LONGEST_TIMEOUT_S),
        ("clock_error_s", probe.clock_error_s, 0.0, 1.0),
    )
    for name, value, least, most in checks:
        if not least <= value <= most:
            yield name, f"{value:g} is out of range: use {least:g} to {most:g}"
    if bps > MOST_BPS:
        yield "packets_per_s", f"{bps:g} bit/s to one target: {MOST_BPS:g} are the most"
    if not probe.classes or not all(0 <= dscp <= 63 for dscp in probe.classes):
        yield "classes", "are DSCPs from 0 to 63, at least one"
    if probe.source_address and not is_address(probe.source_address):
        yield "source_address", f"{probe.source_address!r} is not an IP address"


def is_address(text: str) -> bool:
    """Whether a text is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
