"""OIDs as data: which columns are read, and under which name.

A column table maps our name for a column to its OID; what was read is ``{name: {index: value}}``, which the
readers beside this module take: they never see an OID. The first column of a table is one that every row has:
it tells the rows.
"""

from __future__ import annotations

from collections.abc import Mapping

from collectors.snmp.engine import Index, Value

Columns = Mapping[str, Mapping[Index, Value]]
MutableColumns = dict[str, dict[Index, Value]]
ColumnTable = Mapping[str, str]  # name → OID

_IF = "1.3.6.1.2.1.2.2.1"  # ifEntry, RFC 2863
_IFX = "1.3.6.1.2.1.31.1.1.1"  # ifXEntry, RFC 2863
_LLDP = "1.0.8802.1.1.2.1"  # lldpObjects, IEEE 802.1AB-2005
_IP = "1.3.6.1.2.1.4"  # ip, RFC 4293
_CIDR = "1.3.6.1.2.1.4.24.7.1"  # inetCidrRouteEntry, RFC 4292
_RTT = "1.3.6.1.4.1.9.9.42.1"  # rttMonObjects, CISCO-RTTMON-MIB
_LLDP2 = "1.3.111.2.802.1.1.13.1"  # lldpV2Objects, IEEE 802.1AB-2009
_OSPF = "1.3.6.1.2.1.14"  # RFC 4750
_CIDR_OLD = "1.3.6.1.2.1.4.24.4.1"  # ipCidrRouteEntry, RFC 2096, deprecated by RFC 4292
_RPM = "1.3.6.1.4.1.2636.3.50.1"  # jnxRpmMib, JUNIPER-RPM-MIB
_QOS = "1.3.6.1.4.1.9.9.166.1"  # CISCO-CLASS-BASED-QOS-MIB
_PING = "1.3.6.1.2.1.80.1"  # pingObjects, RFC 4560

AUGMENTS = {_IFX: _IF}  # entry → the entry that it adds columns to

SYS_NAME = "1.3.6.1.2.1.1.5.0"
UPTIME = "1.3.6.1.2.1.1.3.0"
SYSTEM: ColumnTable = {
    "uptime": UPTIME,  # sysUpTime, RFC 3418
    "engine_boots": "1.3.6.1.6.3.10.2.1.2.0",  # snmpEngineBoots, RFC 3411
}
# Who answers: collectors.snmp.identity.
IDENTITY: ColumnTable = {
    "name": SYS_NAME,
    "model": "1.3.6.1.2.1.1.2.0",  # sysObjectID
    "engine_id": "1.3.6.1.6.3.10.2.1.1.0",  # snmpEngineID, RFC 3411
    "subtype": f"{_LLDP}.3.1.0",  # lldpLocChassisIdSubtype
    "chassis": f"{_LLDP}.3.2.0",
}
# When one of these moves, the device's topology is read again at once.
CHANGE_STAMPS: ColumnTable = {
    "interfaces": "1.3.6.1.2.1.31.1.5.0",  # ifTableLastChange
    "lldp": f"{_LLDP}.2.1.0",  # lldpStatsRemTablesLastChangeTime
    "lldp_v2": f"{_LLDP2}.2.1.0",  # lldpV2StatsRemTablesLastChangeTime
    "routes": f"{_IP}.24.6.0",  # inetCidrRouteNumber
    "ospf_originated": "1.3.6.1.2.1.14.1.9.0",  # ospfOriginateNewLsas, RFC 4750
    "ospf_received": "1.3.6.1.2.1.14.1.10.0",  # ospfRxNewLsas
}

INTERFACE_NAMES: ColumnTable = {
    "oper": f"{_IF}.8",
    "name": f"{_IFX}.1",
    "description": f"{_IF}.2",
}
# What changes rarely: read now and then, and whenever something hints at a change (collectors.snmp.poller).
INTERFACE_STATE: ColumnTable = {
    "name": f"{_IFX}.1",
    "description": f"{_IF}.2",
    "admin": f"{_IF}.7",
    "speed_bps": f"{_IF}.5",
    "speed_mbps": f"{_IFX}.15",
}
# Read in one go, so that one time stamp is true for all of them. Packets: unicast, as NETCONF counts too.
INTERFACE_COUNTERS: ColumnTable = {
    "oper": f"{_IF}.8",
    "discontinuity": f"{_IFX}.19",
    "in_octets": f"{_IFX}.6",
    "out_octets": f"{_IFX}.10",
    "in_packets": f"{_IFX}.7",
    "out_packets": f"{_IFX}.11",
    "in_discards": f"{_IF}.13",
    "out_discards": f"{_IF}.19",
    "in_errors": f"{_IF}.14",
    "out_errors": f"{_IF}.20",
}
# For interfaces without high-capacity counters, which a device may leave out at 20 Mbit/s and below.
INTERFACE_COUNTERS_32: ColumnTable = {
    "in_octets": f"{_IF}.10",
    "out_octets": f"{_IF}.16",
    "in_packets": f"{_IF}.11",
    "out_packets": f"{_IF}.17",
}

LLDP_LOCAL: ColumnTable = {"local_subtype": f"{_LLDP}.3.7.1.2", "local_port": f"{_LLDP}.3.7.1.3"}
LLDP_REMOTE: ColumnTable = {
    "port": f"{_LLDP}.4.1.1.7",
    "chassis_subtype": f"{_LLDP}.4.1.1.4",
    "chassis": f"{_LLDP}.4.1.1.5",
    "port_subtype": f"{_LLDP}.4.1.1.6",
    "port_description": f"{_LLDP}.4.1.1.8",
    "system_name": f"{_LLDP}.4.1.1.9",
}
LLDP2_LOCAL: ColumnTable = {"local_subtype": f"{_LLDP2}.3.7.1.2", "local_port": f"{_LLDP2}.3.7.1.3"}
LLDP2_REMOTE: ColumnTable = {
    "port": f"{_LLDP2}.4.1.1.8",
    "chassis_subtype": f"{_LLDP2}.4.1.1.5",
    "chassis": f"{_LLDP2}.4.1.1.6",
    "port_subtype": f"{_LLDP2}.4.1.1.7",
    "port_description": f"{_LLDP2}.4.1.1.9",
    "system_name": f"{_LLDP2}.4.1.1.10",
}
# lldpRemManAddrIfSubtype of both modules; the address itself stands in the index.
LLDP_MANAGEMENT = (f"{_LLDP}.4.2.1.3", f"{_LLDP2}.4.2.1.3")
OSPF_ROUTER_ID = f"{_OSPF}.1.1.0"
OSPF_NEIGHBOURS: ColumnTable = {"state": f"{_OSPF}.10.1.6", "router_id": f"{_OSPF}.10.1.3"}
ADDRESSES: ColumnTable = {  # ipAddressTable
    "interface": f"{_IP}.34.1.3",
    "kind": f"{_IP}.34.1.4",
    "prefix": f"{_IP}.34.1.5",
}
ADDRESSES_OLD: ColumnTable = {"interface": f"{_IP}.20.1.2", "mask": f"{_IP}.20.1.3"}  # ipAddrTable
ROUTES: ColumnTable = {"kind": f"{_CIDR}.8", "interface": f"{_CIDR}.7", "metric": f"{_CIDR}.12"}

ROUTES_OLD: ColumnTable = {
    "kind": f"{_CIDR_OLD}.6",
    "interface": f"{_CIDR_OLD}.5",
    "metric": f"{_CIDR_OLD}.11",
}

RTTMON_ADMIN: ColumnTable = {
    "kind": f"{_RTT}.2.1.1.4",
    "tag": f"{_RTT}.2.1.1.3",
    "frequency_s": f"{_RTT}.2.1.1.6",
    "target": f"{_RTT}.2.2.1.2",
    "request_size": f"{_RTT}.2.2.1.3",
    "packets": f"{_RTT}.2.2.1.18",  # rttMonEchoAdminNumPackets
    "precision": f"{_RTT}.2.2.1.37",
}
RTTMON_JITTER: ColumnTable = {
    "completed": f"{_RTT}.2.10.1.5",  # rttMonLatestRttOperTime: sysUpTime at completion
    "completion": f"{_RTT}.2.10.1.1",  # rttMonLatestRttOperCompletionTime
    "sense": f"{_RTT}.2.10.1.2",
    "rtt_count": f"{_RTT}.5.2.1.1",
    "rtt_sum": f"{_RTT}.5.2.1.2",
    "rtt_min": f"{_RTT}.5.2.1.4",
    "rtt_max": f"{_RTT}.5.2.1.5",
    "loss_sd": f"{_RTT}.5.2.1.26",
    "loss_ds": f"{_RTT}.5.2.1.27",
    "loss_mia": f"{_RTT}.5.2.1.29",
    "jitter_sense": f"{_RTT}.5.2.1.31",
    "sd_sum": f"{_RTT}.5.2.1.33",
    "sd_sum2": f"{_RTT}.5.2.1.34",
    "sd_min": f"{_RTT}.5.2.1.35",
    "sd_max": f"{_RTT}.5.2.1.36",
    "ow_count": f"{_RTT}.5.2.1.41",
    "ntp_state": f"{_RTT}.5.2.1.51",
    "rtt_sum_high": f"{_RTT}.5.2.1.53",
    "sd_sum_high": f"{_RTT}.5.2.1.55",
    "sd_sum2_high": f"{_RTT}.5.2.1.56",
}
PING: ColumnTable = {
    "sent": f"{_PING}.3.1.8",
    "target_kind": f"{_PING}.2.1.3",
    "target": f"{_PING}.2.1.4",
    "data_size": f"{_PING}.2.1.5",
    "frequency_s": f"{_PING}.2.1.10",
    "min_ms": f"{_PING}.3.1.4",
    "max_ms": f"{_PING}.3.1.5",
    "average_ms": f"{_PING}.3.1.6",
    "responses": f"{_PING}.3.1.7",
    "last_good": f"{_PING}.3.1.10",
}
RPM: ColumnTable = {
    "sent": f"{_RPM}.2.1.2",
    "date": f"{_RPM}.2.1.5",
    "samples": f"{_RPM}.3.1.2",
    "min_us": f"{_RPM}.3.1.3",
    "max_us": f"{_RPM}.3.1.4",
    "average_us": f"{_RPM}.3.1.5",
    "deviation_us": f"{_RPM}.3.1.7",
    "sum_us": f"{_RPM}.3.1.8",
    "time_stamps": f"{_RPM}.1.1.3",  # jnxRpmResSampleTsType
    "target": f"{_PING}.2.1.4",
    "data_size": f"{_PING}.2.1.5",
    "frequency_s": f"{_PING}.2.1.10",
}

QOS_POLICIES: ColumnTable = {"if_index": f"{_QOS}.1.1.1.4", "direction": f"{_QOS}.1.1.1.3"}
QOS_OBJECTS: ColumnTable = {
    "kind": f"{_QOS}.5.1.1.3",
    "config": f"{_QOS}.5.1.1.2",
    "parent": f"{_QOS}.5.1.1.4",
    "name": f"{_QOS}.7.1.1.1",
    "offered_octets": f"{_QOS}.15.1.1.6",
    "sent_octets": f"{_QOS}.15.1.1.10",
    "dropped_packets": f"{_QOS}.15.1.1.14",
    "dropped_octets": f"{_QOS}.15.1.1.17",
    "depth_octets": f"{_QOS}.18.1.1.1",
    "most_depth_octets": f"{_QOS}.18.1.1.2",
    "depth_packets": f"{_QOS}.18.1.1.9",
}
# Read where a class has a policer.
QOS_POLICERS: ColumnTable = {
    "conformed_packets": f"{_QOS}.17.1.1.3",
    "conformed_octets": f"{_QOS}.17.1.1.6",
    "exceeded_packets": f"{_QOS}.17.1.1.10",
    "exceeded_octets": f"{_QOS}.17.1.1.13",
    "violated_packets": f"{_QOS}.17.1.1.17",
    "violated_octets": f"{_QOS}.17.1.1.20",
    "conformed_action": f"{_QOS}.12.1.1.4",  # cbQosPoliceCfgConformAction, one action
    "exceeded_action": f"{_QOS}.12.1.1.6",
    "violated_action": f"{_QOS}.12.1.1.8",
    "conformed_actions": f"{_QOS}.21.1.1.2",  # cbQosPoliceActionCfgConform, one of several
    "exceeded_actions": f"{_QOS}.21.1.1.4",
    "violated_actions": f"{_QOS}.21.1.1.6",
}


def integer(value: Value) -> int | None:
    """An integer, or None for anything else: an agent's odd type must not stop the poll."""
    return value if isinstance(value, int) else None


def text(value: Value) -> str:
    """An octet string as text, trailing NULs and blanks removed; printable or nothing lost."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace").rstrip("\x00 ").strip()
    return value if isinstance(value, str) else ""
