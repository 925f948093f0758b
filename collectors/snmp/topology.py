"""IP-MIB and IP-FORWARD-MIB columns → a device's addresses and routes.

Indices carry much of the information here:

- ipAddressTable: (type, length, address octets…); ipAddrTable: the four octets
- inetCidrRouteTable (RFC 4292): (destType, length, dest…, pfxLen, length, policy…, nhType, length, nh…).
  The policy is an OBJECT IDENTIFIER and so of any length: net-snmp numbers rows with it.
- ipCidrRouteTable (RFC 2096): the four octets each of destination and mask, TOS, the four octets of the
  next hop
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence

from collectors.snmp.engine import Index, Value
from collectors.snmp.tables import Columns, integer
from twin.records import InterfaceAddress, Route

_UNICAST = 1  # ipAddressType
_LOCAL, _REMOTE = 3, 4  # inetCidrRouteType
_ADDRESS_OCTETS = {1: 4, 2: 16}  # InetAddressType ipv4, ipv6 (RFC 4001); zoned addresses are link-local


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
    return _routes(table, names, _route_key)


def routes_old(table: Columns, names: Mapping[int, str]) -> tuple[Route, ...]:
    """ipCidrRouteTable (IPv4 only) → the same."""
    return _routes(table, names, _route_key_old)


def _routes(table: Columns, names: Mapping[int, str], key_of: KeyOf) -> tuple[Route, ...]:
    found = []
    for index, kind in table.get("kind", {}).items():
        key = key_of(index)
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
KeyOf = Callable[[Index], "tuple[Prefix, Address | None] | None"]


def _route_key_old(index: Index) -> tuple[Prefix, Address | None] | None:
    if len(index) != 13 or max(index) > 255:
        return None
    octets = bytes(index)
    try:
        length = _mask_length(octets[4:8])
        return ipaddress.ip_network((octets[:4], length), strict=False), ipaddress.IPv4Address(octets[9:])
    except ValueError:
        return None


def _mask_length(mask: bytes) -> int:
    return ipaddress.IPv4Network((0, str(ipaddress.IPv4Address(mask)))).prefixlen


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
