"""The MIB modules a device of the lab implements, as tables of columns: object → how to read it.

| module | objects |
| --- | --- |
| SNMPv2-MIB (RFC 3418) | system group |
| SNMP-FRAMEWORK-MIB (RFC 3411) | snmpEngine group |
| IF-MIB (RFC 2863) | ifTable, ifXTable, ifNumber, ifTableLastChange |
| IP-MIB (RFC 4293) | ipAddressTable, ipAddressPrefixTable, ipAddrTable |
| IP-FORWARD-MIB (RFC 4292) | inetCidrRouteTable, inetCidrRouteNumber |
| OSPF-MIB (RFC 4750) | router id, version, ospfOriginateNewLsas, ospfRxNewLsas |
| LLDP-MIB (IEEE 802.1AB-2005) | local system, lldpLocPortTable, lldpRemTable, lldpRemManAddrTable |

CISCO-RTTMON-MIB is in :mod:`ndtwin.lab.mib_rttmon`. A table is a dictionary from column number to a
function that makes the reader of one row; what cannot change while the row exists is encoded once
(``fixed``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from ipaddress import IPv4Address, IPv4Network

from ndtwin.lab import ber
from ndtwin.lab.device import ETHERNET, Device, Interface, Route
from ndtwin.lab.mib import Cell, Oid, Reader, fixed

MIB_2: Oid = (1, 3, 6, 1, 2, 1)
LLDP: Oid = (1, 0, 8802, 1, 1, 2, 1)
SNMP_ENGINE: Oid = (1, 3, 6, 1, 6, 3, 10, 2, 1)
# Experimental arc of RFC 5612's documentation enterprise number: this product has none of its own.
PRODUCT: Oid = (1, 3, 6, 1, 4, 1, 32473, 1)

UP, DOWN = 1, 2
TRUE, FALSE = 1, 2
IPV4 = 1  # InetAddressType
ORIGIN_MANUAL = 2  # IpAddressOriginTC, IpAddressPrefixOriginTC
PROTO_LOCAL, PROTO_OSPF = 2, 13  # IANAipRouteProtocol
ROUTE_LOCAL, ROUTE_REMOTE = 3, 4  # inetCidrRouteType
ACTIVE = 1  # RowStatus
CHASSIS_MAC, PORT_NAME = 4, 5  # LldpChassisIdSubtype macAddress, LldpPortIdSubtype interfaceName

InterfaceColumn = Callable[[Device, Interface], Reader]


def number(value: int) -> Reader:
    """A constant INTEGER."""
    return fixed(ber.integer(value))


def text(value: bytes | str) -> Reader:
    """A constant octet string."""
    return fixed(ber.octets(value))


def scalars(group: Oid, objects: Mapping[int, Reader]) -> Iterator[Cell]:
    """Objects with the instance .0."""
    return (((*group, column), (0,), reader) for column, reader in objects.items())


# ------------------------------------------------------------------------------------------ SNMPv2-MIB


def system_group(device: Device) -> Iterator[Cell]:
    """Who this is and since when."""
    objects = {
        1: text("ndtwin lab router"),
        2: fixed(ber.oid(PRODUCT)),
        3: lambda: ber.time_ticks(device.uptime_ticks()),
        4: text(""),
        5: text(device.name),
        6: text("ndtwin lab"),
        7: number(6),  # layers 2 and 3: a router
    }
    return scalars((*MIB_2, 1), objects)


def engine_group(device: Device, engine_id: bytes, engine_boots: int) -> Iterator[Cell]:
    """snmpEngineID, snmpEngineBoots, snmpEngineTime, snmpEngineMaxMessageSize."""
    objects: dict[int, Reader] = {
        1: text(engine_id),
        2: number(engine_boots),
        3: lambda: ber.integer(device.uptime_ticks() // 100),
        4: number(65507),
    }
    return scalars(SNMP_ENGINE, objects)


# ---------------------------------------------------------------------------------------------- IF-MIB


def _counter(encode: Callable[[int], bytes], name: str, _device: Device, interface: Interface) -> Reader:
    read = interface.counters.get(name)
    return (lambda: encode(read())) if read is not None else fixed(encode(0))


_c32 = partial(partial, _counter, ber.counter32)
_c64 = partial(partial, _counter, ber.counter64)

IF_TABLE: dict[int, InterfaceColumn] = {
    1: lambda d, i: number(i.index),
    2: lambda d, i: text(i.name),
    3: lambda d, i: number(i.kind),
    4: lambda d, i: number(i.mtu),
    5: lambda d, i: fixed(ber.gauge32(i.speed_bps)),
    6: lambda d, i: text(i.mac),
    7: lambda d, i: number(UP),
    8: lambda d, i: lambda: ber.integer(UP if i.oper_up else DOWN),
    9: lambda d, i: lambda: ber.time_ticks(d.ticks(i.last_change_ns)),
    10: _c32("in_octets"),
    11: _c32("in_packets"),
    13: _c32("in_discards"),
    14: _c32("in_errors"),
    16: _c32("out_octets"),
    17: _c32("out_packets"),
    19: _c32("out_discards"),
    20: _c32("out_errors"),
}
IF_X_TABLE: dict[int, InterfaceColumn] = {
    1: lambda d, i: text(i.name),
    6: _c64("in_octets"),
    7: _c64("in_packets"),
    10: _c64("out_octets"),
    11: _c64("out_packets"),
    15: lambda d, i: fixed(ber.gauge32(i.speed_bps / 1e6)),
    16: lambda d, i: number(FALSE),
    17: lambda d, i: number(TRUE if i.kind == ETHERNET else FALSE),
    18: lambda d, i: text(i.alias),
    19: lambda d, i: fixed(ber.time_ticks(0)),  # counters run on since the agent started
}


def interface_tables(device: Device) -> Iterator[Cell]:
    """ifNumber, ifTable, ifXTable, ifTableLastChange."""
    yield from scalars((*MIB_2, 2), {1: number(len(device.interfaces))})
    yield from scalars((*MIB_2, 31, 1), {5: lambda: ber.time_ticks(device.ticks(device.table_changed_ns))})
    for entry, columns in (((*MIB_2, 2, 2, 1), IF_TABLE), ((*MIB_2, 31, 1, 1, 1), IF_X_TABLE)):
        for column, make in columns.items():
            for interface in device.interfaces:
                yield (*entry, column), (interface.index,), make(device, interface)


# ---------------------------------------------------------------------------------------------- IP-MIB


def address_index(address: IPv4Address) -> Oid:
    """InetAddressType.InetAddress: the type, the length, the octets (RFC 4001 section 4.1)."""
    return (IPV4, 4, *address.packed)


def address_tables(device: Device) -> Iterator[Cell]:
    """ipAddressTable, the prefixes it points to, and the deprecated ipAddrTable that pollers still read."""
    for interface in device.interfaces:
        if interface.address is None:
            continue
        address, network = interface.address.ip, interface.address.network
        prefix = (
            *MIB_2,
            4,
            32,
            1,
            5,
            interface.index,
            *address_index(network.network_address),
            network.prefixlen,
        )
        yield prefix[:10], prefix[10:], number(ORIGIN_MANUAL)
        yield from _row((*MIB_2, 4, 34, 1), address_index(address), _address_columns(interface, prefix))
        yield from _row(
            (*MIB_2, 4, 20, 1), tuple(address.packed), _legacy_columns(interface, address, network)
        )


def _address_columns(interface: Interface, prefix: Oid) -> dict[int, Reader]:
    unicast, preferred = 1, 1
    return {
        3: number(interface.index),
        4: number(unicast),
        5: fixed(ber.oid(prefix)),
        6: number(ORIGIN_MANUAL),
        7: number(preferred),
        10: number(ACTIVE),
    }


def _legacy_columns(interface: Interface, address: IPv4Address, network: IPv4Network) -> dict[int, Reader]:
    return {
        1: fixed(ber.tlv(ber.IP_ADDRESS, address.packed)),
        2: number(interface.index),
        3: fixed(ber.tlv(ber.IP_ADDRESS, network.netmask.packed)),
    }


def _row(entry: Oid, instance: Oid, columns: Mapping[int, Reader]) -> Iterator[Cell]:
    return (((*entry, column), instance, reader) for column, reader in columns.items())


# --------------------------------------------------------------------------------------- IP-FORWARD-MIB


def route_table(device: Device) -> Iterator[Cell]:
    """inetCidrRouteNumber and inetCidrRouteTable."""
    yield from scalars((*MIB_2, 4, 24), {6: fixed(ber.gauge32(len(device.routes)))})
    for route in device.routes:
        yield from _row((*MIB_2, 4, 24, 7, 1), route_index(route), _route_columns(route))


def route_index(route: Route) -> Oid:
    """destType.dest.pfxLen.policy.nhType.nextHop: policy zeroDotZero; no next hop: unknown(0), empty."""
    hop = address_index(route.next_hop) if route.next_hop is not None else (0, 0)
    return (*address_index(route.prefix.network_address), route.prefix.prefixlen, 2, 0, 0, *hop)


def _route_columns(route: Route) -> dict[int, Reader]:
    unused_metrics = {column: number(-1) for column in (13, 14, 15, 16)}
    return unused_metrics | {
        7: number(route.if_index),
        8: number(ROUTE_LOCAL if route.next_hop is None else ROUTE_REMOTE),
        9: number(PROTO_OSPF if route.learnt else PROTO_LOCAL),
        10: fixed(ber.gauge32(0)),
        11: fixed(ber.gauge32(0)),
        12: number(route.metric),
        17: number(ACTIVE),
    }


def ospf_group(device: Device) -> Iterator[Cell]:
    """The part of OSPF-MIB's general group that tells when routing moved."""
    objects: dict[int, Reader] = {
        1: fixed(ber.tlv(ber.IP_ADDRESS, device.router_id.packed)),
        2: number(1),  # ospfAdminStat enabled
        3: number(2),  # ospfVersionNumber
        9: lambda: ber.integer(device.lsas_originated, ber.COUNTER32),
        10: lambda: ber.integer(device.lsas_received, ber.COUNTER32),
    }
    return scalars((*MIB_2, 14, 1), objects)


# -------------------------------------------------------------------------------------------- LLDP-MIB


def lldp_tables(device: Device) -> Iterator[Cell]:
    """The local system, its ports, and what it hears; a port that is down hears nothing."""
    local = {
        1: number(CHASSIS_MAC),
        2: text(device.chassis),
        3: text(device.name),
        4: text("ndtwin lab router"),
    }
    yield from scalars((*LLDP, 3), local)
    yield from scalars((*LLDP, 2), {1: lambda: ber.time_ticks(device.ticks(device.neighbours_changed_ns))})
    for interface in device.interfaces:
        if interface.kind == ETHERNET:
            yield from _row((*LLDP, 3, 7, 1), (interface.index,), _port_columns(interface))
        if interface.neighbour is not None and interface.oper_up:
            instance = (device.ticks(interface.last_change_ns), interface.index, 1)
            yield from _row((*LLDP, 4, 1, 1), instance, _remote_columns(interface))
            managed = interface.neighbour.address
            if managed is not None:
                where = (*instance, *address_index(managed))
                yield from _row((*LLDP, 4, 2, 1), where, _management_columns())


def _port_columns(interface: Interface) -> dict[int, Reader]:
    return {2: number(PORT_NAME), 3: text(interface.name), 4: text(interface.alias)}


def _remote_columns(interface: Interface) -> dict[int, Reader]:
    neighbour = interface.neighbour
    assert neighbour is not None  # the caller looked
    return {
        4: number(CHASSIS_MAC),
        5: text(neighbour.chassis),
        6: number(PORT_NAME),
        7: text(neighbour.interface),
        8: text(f"{neighbour.device} {neighbour.interface}"),
        9: text(neighbour.device),
        10: text("ndtwin lab router"),
    }


def _management_columns() -> dict[int, Reader]:
    """The address stands in the index; the port behind it is not known."""
    unknown = 1
    return {3: number(unknown), 4: number(0), 5: fixed(ber.oid((0, 0)))}


def standard_cells(device: Device, engine_id: bytes, engine_boots: int) -> Iterable[Cell]:
    """All of the above."""
    yield from system_group(device)
    yield from engine_group(device, engine_id, engine_boots)
    for table in (interface_tables, address_tables, route_table, ospf_group, lldp_tables):
        yield from table(device)
