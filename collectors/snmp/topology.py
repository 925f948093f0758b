"""LLDP-MIB, IP-MIB and IP-FORWARD-MIB columns → a device's place in the network.

Indices carry much of the information here:

- lldpRemTable: (TimeMark, LocalPortNum, RemIndex)
- ipAddressTable: (type, length, address octets…); ipAddrTable: the four octets
- inetCidrRouteTable (RFC 4292): (destType, length, dest…, pfxLen, length, policy…, nhType, length, nh…).
  The policy is an OBJECT IDENTIFIER and so of any length: net-snmp numbers rows with it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence

from collectors.snmp.engine import Index, Value
from collectors.snmp.tables import Columns, integer, text
from twin.records import InterfaceAddress, Neighbour, Route

_NAMING_PORT_SUBTYPES = {1, 5, 7}  # interfaceAlias, interfaceName, local: text that names the port
_MAC_SUBTYPES = {"chassis": 4, "port": 3}  # LldpChassisIdSubtype, LldpPortIdSubtype: macAddress
_UNICAST = 1  # ipAddressType
_LOCAL, _REMOTE = 3, 4  # inetCidrRouteType
_ADDRESS_OCTETS = {1: 4, 2: 16}  # InetAddressType ipv4, ipv6 (RFC 4001); zoned addresses are link-local


def neighbours(lldp: Columns, names: Mapping[int, str]) -> tuple[Neighbour, ...]:
    """lldpRemTable → adjacencies, in order."""
    found = set()
    for index in lldp.get("port", {}):
        if len(index) != 3:
            continue
        remote = text(lldp.get("system_name", {}).get(index)) or _identity(lldp, "chassis", index)
        if remote:
            port = _identity(lldp, "port", index)
            found.add((_local_port(lldp, names, index[1]), remote, port))
    return tuple(
        Neighbour(local_interface=local, remote_device=remote, remote_interface=port)
        for local, remote, port in sorted(found)
    )


def addresses(table: Columns, names: Mapping[int, str]) -> tuple[InterfaceAddress, ...]:
    """ipAddressTable → unicast addresses with their prefix."""
    found = []
    for index, row in table.get("interface", {}).items():
        parsed = _address(iter(index))
        pointer = table.get("prefix", {}).get(index)
        interface = names.get(integer(row) or 0)
        if parsed is None or interface is None or table.get("kind", {}).get(index, _UNICAST) != _UNICAST:
            continue
        length = _pointer_length(pointer, parsed.max_prefixlen)
        found.append(_interface_address(interface, parsed, length))
    return tuple(sorted(found, key=_order))


def addresses_old(table: Columns, names: Mapping[int, str]) -> tuple[InterfaceAddress, ...]:
    """ipAddrTable (IPv4 only, deprecated by RFC 4293 and still everywhere) → addresses."""
    found = []
    for index, row in table.get("interface", {}).items():
        mask = table.get("mask", {}).get(index)
        interface = names.get(integer(row) or 0)
        if interface is None or len(index) != 4 or not isinstance(mask, str) or max(index) > 255:
            continue
        length = sum(int(octet).bit_count() for octet in mask.split("."))
        found.append(_interface_address(interface, ipaddress.IPv4Address(bytes(index)), length))
    return tuple(sorted(found, key=_order))


def routes(table: Columns, names: Mapping[int, str]) -> tuple[Route, ...]:
    """inetCidrRouteTable → the rows that forward or end here; reject and black hole rows are left out."""
    found = []
    for index, kind in table.get("kind", {}).items():
        key = _route_key(index)
        if key is None or kind not in (_LOCAL, _REMOTE):
            continue
        prefix, hop = key
        found.append(
            Route(
                prefix=str(prefix),
                next_hop="" if hop is None or hop.is_unspecified else str(hop),
                interface=names.get(integer(table.get("interface", {}).get(index)) or 0, ""),
                metric=max(integer(table.get("metric", {}).get(index)) or 0, 0),
                local=kind == _LOCAL,
            )
        )
    return tuple(sorted(found, key=lambda route: (route.prefix, route.next_hop, route.interface)))


Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Prefix = ipaddress.IPv4Network | ipaddress.IPv6Network


def _route_key(index: Index) -> tuple[Prefix, Address | None] | None:
    """The index of a route row → (prefix, next hop or None); None for what is no IP route."""
    numbers = iter(index)
    try:
        destination = _address(numbers)
        length = next(numbers)
        _take(numbers, next(numbers))  # the policy
        hop = _address(numbers)
        if destination is None:
            return None
        return ipaddress.ip_network((destination, length), strict=False), hop
    except (StopIteration, ValueError):
        return None


def _address(numbers: Iterator[int]) -> Address | None:
    """(type, length, octets…) → an address; None where it is none (length 0, or another kind of address)."""
    kind, length = next(numbers, 0), next(numbers, 0)
    octets = _take(numbers, length)
    if _ADDRESS_OCTETS.get(kind) != length or len(octets) != length or max(octets) > 255:
        return None
    return ipaddress.ip_address(bytes(octets))


def _take(numbers: Iterator[int], count: int) -> Sequence[int]:
    return [number for _, number in zip(range(count), numbers, strict=False)]


def _pointer_length(pointer: Value, longest: int) -> int:
    """ipAddressPrefix points at a row of ipAddressPrefixTable, whose index ends with the prefix length."""
    last = pointer.rpartition(".")[2] if isinstance(pointer, str) else ""
    length = int(last) if last.isdecimal() else 0
    return length if 0 < length <= longest else longest  # 0.0: the device does not say


def _interface_address(interface: str, address: Address, length: int) -> InterfaceAddress:
    network = ipaddress.ip_network((address, length), strict=False)
    return InterfaceAddress(interface=interface, address=str(address), prefix=str(network))


def _order(address: InterfaceAddress) -> tuple[str, str]:
    return address.interface, address.address


def _local_port(lldp: Columns, names: Mapping[int, str], number: int) -> str:
    """lldpLocPortId where it names the port, else the interface whose ifIndex is the port number."""
    subtype = lldp.get("local_subtype", {}).get((number,))
    name = text(lldp.get("local_port", {}).get((number,)))
    if name and subtype in _NAMING_PORT_SUBTYPES:
        return name
    return names.get(number, name or f"port{number}")


def _identity(lldp: Columns, what: str, index: Index) -> str:
    """A chassis or port identifier as text; a MAC as aa:bb:…, but a port's description before that."""
    value = lldp.get(what, {}).get(index)
    if lldp.get(f"{what}_subtype", {}).get(index) != _MAC_SUBTYPES[what]:
        return text(value)
    described = text(lldp.get("port_description", {}).get(index)) if what == "port" else ""
    return described or (value.hex(":") if isinstance(value, bytes) else text(value))
