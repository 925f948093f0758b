"""From one address to a network: who answers, who are its neighbours, who answers there.

Candidates are the management addresses that LLDP's neighbours send (IEEE 802.1AB, lldpRemManAddrTable) and
the addresses of OSPF's neighbours. Bounds: only addresses within the given prefixes are asked, each once, at
most so many devices and so many at a time, one request after the other to each. A device is known by its
sysName and its addresses, so that one that is reached by several of them is one device; where two devices
have one name, the later gets a number.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from collectors.inventory import Credentials
from collectors.snmp import tables as t
from collectors.snmp.engine import Endpoint, Index, SnmpEngine, Traffic, Value
from collectors.snmp.gufo_engine import GufoEngine, GufoKeys, community_of
from collectors.snmp.poller import SnmpPoller
from collectors.snmp.tables import text
from twin.errors import DeviceError
from twin.records import DeviceTopology

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_FAMILIES = {1: 4, 2: 16}  # AddressFamilyNumbers (IANA) → octets
_OSPF_ADDRESS = 4  # octets of ospfNbrIpAddr, first in the index


@dataclass(frozen=True)
class Bounds:
    """Who may be asked, and how."""

    within: tuple[Network, ...]
    port: int = 161
    most_devices: int = 1000
    at_once: int = 8
    timeout_s: float = 1.0

    def allows(self, address: str) -> bool:
        """Whether an address lies within the prefixes."""
        parsed = ipaddress.ip_address(address)
        return any(parsed in net for net in self.within if net.version == parsed.version)


@dataclass(frozen=True)
class FoundDevice:
    """A device that answered."""

    name: str
    address: str
    credentials: str
    addresses: frozenset[str] = frozenset()  # all of its own
    candidates: tuple[str, ...] = ()  # where its neighbours may answer


@dataclass
class Discovery:
    """One walk through a network."""

    credentials: Mapping[str, Credentials]  # tried in this order, but what worked last comes first
    bounds: Bounds
    found: list[FoundDevice] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)  # asked, and nobody answered
    outside: set[str] = field(default_factory=set)  # heard of, not within the prefixes
    _asked: set[str] = field(default_factory=set)
    _last: str = ""
    _keys: GufoKeys = field(default_factory=GufoKeys)
    _traffic: Traffic = field(default_factory=Traffic)

    async def run(self, seed: str, told: Callable[[FoundDevice], None] = lambda device: None) -> None:
        """Ask the seed, then whom it knows, and so on: generation by generation."""
        generation = [seed]
        while generation and len(self.found) < self.bounds.most_devices:
            generation = self._permitted(generation)
            turns = asyncio.Semaphore(self.bounds.at_once)
            answers = await asyncio.gather(*(self._ask(address, turns) for address in generation))
            following: list[str] = []
            for address, device in zip(generation, answers, strict=True):
                if device is None:
                    self.silent.append(address)
                elif (new := self._keep(device)) is not None:
                    told(new)
                    following += new.candidates
            generation = following

    def _permitted(self, addresses: Sequence[str]) -> list[str]:
        """Those not asked yet and within the prefixes, each once; they count as asked from now on."""
        permitted = []
        for address in addresses:
            if address in self._asked:
                continue
            if self.bounds.allows(address):
                self._asked.add(address)
                permitted.append(address)
            else:
                self.outside.add(address)
        return permitted[: self.bounds.most_devices - len(self.found)]

    def _keep(self, device: FoundDevice) -> FoundDevice | None:
        """Add a device; None for one that is there already."""
        self._asked |= device.addresses
        same_name = [one for one in self.found if one.name.partition("#")[0] == device.name]
        if any(one.addresses & device.addresses for one in same_name):
            return None
        if same_name:
            device = _renamed(device, f"{device.name}#{len(same_name) + 1}")
        self.found.append(device)
        return device

    async def _ask(self, address: str, turns: asyncio.Semaphore) -> FoundDevice | None:
        async with turns:
            for name in sorted(self.credentials, key=lambda name: name != self._last):
                engine = self._open(address, name, self.credentials[name])
                try:
                    device = await self._read(engine, address, name)
                    self._last = name
                    return device
                except TimeoutError:
                    continue  # silence: a wrong community is met with it too
                except DeviceError as error:
                    structlog.get_logger("ndtwin.discover").info(
                        "refused", address=address, credentials=name, reason=str(error)
                    )
                finally:
                    engine.close()
        return None

    def _open(self, address: str, name: str, credentials: Credentials) -> GufoEngine:
        endpoint = Endpoint(address, self.bounds.port, credentials, self.bounds.timeout_s, retries=1)

        def secrets() -> dict[str, object]:
            if credentials.version == "3":
                return {"user": self._keys.of(name, credentials)}
            return community_of(credentials)

        return GufoEngine(endpoint, secrets, self._traffic)

    async def _read(self, engine: SnmpEngine, address: str, credentials: str) -> FoundDevice:
        system = await engine.get([t.SYS_NAME, t.UPTIME])
        topology = await SnmpPoller("", "", engine, engine, time.time_ns).topology()
        managed = [await engine.walk(column) for column in t.LLDP_MANAGEMENT]
        ospf = await engine.walk(t.OSPF_NEIGHBOURS["state"])
        return FoundDevice(
            name=text(system.get(t.SYS_NAME)) or address,
            address=address,
            credentials=credentials,
            addresses=frozenset({address} | _own(topology)),
            candidates=candidates(managed, ospf),
        )


def candidates(managed: Sequence[Mapping[Index, Value]], ospf: Mapping[Index, Value]) -> tuple[str, ...]:
    """Where neighbours may answer: LLDP's management addresses first, then OSPF's, each once."""
    found: dict[str, None] = {}
    for rows, skip in zip(managed, (3, 4), strict=True):  # TimeMark, port, (destination,) index come first
        for index in rows:
            if address := _address(index[skip:]):
                found[address] = None
    for index in ospf:
        if (
            len(index) == _OSPF_ADDRESS + 1
            and max(index[:_OSPF_ADDRESS]) < 256
            and any(index[:_OSPF_ADDRESS])
        ):
            found[str(ipaddress.ip_address(bytes(index[:_OSPF_ADDRESS])))] = None
    return tuple(found)


def _address(numbers: Index) -> str:
    """(family, length, octets…) → an address; empty for other families, MAC addresses for one."""
    if len(numbers) < 2 or _FAMILIES.get(numbers[0]) != numbers[1] or len(numbers) != 2 + numbers[1]:
        return ""
    octets = numbers[2:]
    return str(ipaddress.ip_address(bytes(octets))) if max(octets) < 256 else ""


def _own(topology: DeviceTopology) -> set[str]:
    return {one.address for one in topology.addresses if not ipaddress.ip_address(one.address).is_loopback}


def _renamed(device: FoundDevice, name: str) -> FoundDevice:
    return FoundDevice(name, device.address, device.credentials, device.addresses, device.candidates)
