"""LLDP-MIB, LLDP-V2-MIB and OSPF-MIB columns → adjacencies.

Indices:

- lldpRemTable (IEEE 802.1AB-2005): (TimeMark, LocalPortNum, RemIndex)
- lldpV2RemTable (IEEE 802.1AB-2009): (TimeMark, LocalIfIndex, LocalDestMACAddress, RemIndex)
- ospfNbrTable (RFC 4750): the four octets of the neighbour's address, and its addressless index, which is the
  ifIndex where a link has no addresses, else 0

OSPF names nobody: it knows a router id and an address. Who that is, :mod:`collectors.snmp.places` knows
from what the devices themselves said; a neighbour that nobody has claimed yet is left out and said so.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from collectors.snmp.engine import Index, Value
from collectors.snmp.places import Places
from collectors.snmp.tables import Columns, text
from twin.records import InterfaceAddress, Neighbour

_NAMING_PORT_SUBTYPES = {1, 5, 7}  # interfaceAlias, interfaceName, local: text that names the port
_MAC_SUBTYPES = {"chassis": 4, "port": 3}  # LldpChassisIdSubtype, LldpPortIdSubtype: macAddress
_INDEX_LENGTHS = (3, 4)  # version 1, version 2; the local port comes second in both
_FULL = 8  # ospfNbrState


def lldp_neighbours(lldp: Columns, names: Mapping[int, str]) -> tuple[Neighbour, ...]:
    """lldpRemTable or lldpV2RemTable → adjacencies, in order."""
    found = set()
    for index in lldp.get("port", {}):
        if len(index) not in _INDEX_LENGTHS:
            continue
        remote = text(lldp.get("system_name", {}).get(index)) or _identity(lldp, "chassis", index)
        if remote:
            port = _identity(lldp, "port", index)
            found.add((_local_port(lldp, names, index), remote, port))
    return tuple(
        Neighbour(local_interface=local, remote_device=remote, remote_interface=port)
        for local, remote, port in sorted(found)
    )


def ospf_neighbours(
    table: Columns, names: Mapping[int, str], addresses: tuple[InterfaceAddress, ...], places: Places
) -> tuple[tuple[Neighbour, ...], int]:
    """ospfNbrTable → full adjacencies with known devices, and how many there are with unknown ones."""
    networks = [(ipaddress.ip_network(one.prefix), one.interface) for one in addresses]
    found, unknown = [], 0
    for index, state in sorted(table.get("state", {}).items()):
        if state != _FULL or len(index) != 5 or max(index[:4]) > 255:
            continue
        address = ipaddress.IPv4Address(bytes(index[:4]))
        on_link = [(net.prefixlen, name) for net, name in networks if address in net]
        local = names.get(index[4], "") if index[4] else max(on_link, default=(0, ""))[1]
        device, interface = places.at(str(address))
        device = places.router(text(table.get("router_id", {}).get(index))) or device
        if not device or not local:
            unknown += 1
            continue
        found.append(
            Neighbour(
                local_interface=local, remote_device=device, remote_interface=interface, protocol="ospf"
            )
        )
    return tuple(found), unknown


def _local_port(lldp: Columns, names: Mapping[int, str], index: Index) -> str:
    """In version 2 the ifIndex; else lldpLocPortId where it names the port; else the number as ifIndex."""
    number = index[1]
    if len(index) == _INDEX_LENGTHS[1] and number in names:
        return names[number]
    subtype = lldp.get("local_subtype", {}).get((number,))
    name = text(lldp.get("local_port", {}).get((number,)))
    if name and subtype in _NAMING_PORT_SUBTYPES:
        return name
    return names.get(number, name or f"port{number}")


def _identity(lldp: Columns, what: str, index: Index) -> str:
    """A chassis or port identifier as text; a MAC as aa:bb:…, but a port's description before that."""
    value: Value = lldp.get(what, {}).get(index)
    if lldp.get(f"{what}_subtype", {}).get(index) != _MAC_SUBTYPES[what]:
        return text(value)
    described = text(lldp.get("port_description", {}).get(index)) if what == "port" else ""
    return described or (value.hex(":") if isinstance(value, bytes) else text(value))
