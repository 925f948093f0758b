"""The configuration files of a router's programs, as text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ndtwin.lab.netns.plan import CUSTOMERS, NETCONF_PORT, SNMP_PORT, Router
from ndtwin.lab.snmp_agent import SnmpAccess, engine_id_of


@dataclass(frozen=True)
class Place:
    """Where a router's files lie: ``state`` for sockets (short names), ``host_key`` and so on elsewhere."""

    state: Path
    host_key: Path
    authorised_keys: Path

    def __truediv__(self, name: str) -> Path:
        return self.state / name


FRR_USER = "frr"  # of the Debian package; its group may use the vty
CACHES = "1.3.6.1.4.1.8072.1.5.3.1.2"  # nsCacheTimeout (NET-SNMP-AGENT-MIB), indexed by a table's OID
CACHE_S = {  # snmpd answers from caches of 3 s (interfaces) to 60 s (routes): the latter hides what OSPF does
    "1.3.6.1.2.1.2.2": 1,
    "1.3.6.1.2.1.4.24.7": 5,
    "1.3.6.1.2.1.4.34": 5,
}


def snmpd_conf(router: Router, place: Place, access: SnmpAccess, writer: str) -> str:
    """v1, v2c and v3; the speed of links is that of their queues, which no driver knows.

    ``writer`` may set how long snmpd keeps what it has read, and nothing else.
    """
    lines = [
        f"agentaddress udp:{router.management.ip}:{SNMP_PORT}",
        f"rocommunity {access.community} {router.gateway.ip}",
        f"view caches included .{CACHES}",
        f"rwcommunity {writer} {router.gateway.ip} -V caches",
        f"createUser {access.user} SHA-256 {access.auth_key} AES {access.privacy_key}",
        f"rouser {access.user} authpriv",
        f"sysName {router.name}",
        f"exactEngineID 0x{engine_id_of(router.router_id).hex()}",
        "sysServices 4",
        "master agentx",
        f"agentXSocket {place / 'agentx'}",
        # FRR's daemons have given root away before they connect.
        f"agentXPerms 0660 0755 root {FRR_USER}",
        *(f"interface {port.name} 6 {port.capacity_bps:.0f}" for port in router.ports),
    ]
    return _text(lines)


def writer_conf(writer: str) -> str:
    """For ``snmpset``: the community stands in no command line."""
    return _text([f"defCommunity {writer}", "defVersion 2c"])


def agentx_conf(place: Place) -> str:
    """Where subagents find snmpd."""
    return _text([f"agentXSocket {place / 'agentx'}"])


def frr_conf(router: Router) -> str:
    """OSPF, point to point and with short timers, so that it converges in seconds."""
    lines = [f"hostname {router.name}", "agentx"]
    for port in router.ports:
        lines += [
            f"interface {port.name}",
            " ip ospf network point-to-point",
            " ip ospf area 0",
            " ip ospf cost 10",
            " ip ospf hello-interval 1",
            " ip ospf dead-interval 4",
        ]
    for name in ("lo", CUSTOMERS):
        lines += [f"interface {name}", " ip ospf area 0", " ip ospf passive"]
    lines += ["router ospf", f" ospf router-id {router.router_id}", " timers throttle spf 10 50 500"]
    # One route each: net-snmp reads the routes from where Linux shows one next hop of several.
    lines += [" timers throttle lsa all 100", " maximum-paths 1"]
    return _text(lines)


def lldpd_conf(router: Router) -> str:
    """LLDP by the names that SNMP tells."""
    return _text(
        [
            f"configure system hostname {router.name}",
            "configure lldp portidsubtype ifname",
            "configure lldp tx-interval 2",
        ]
    )


def sshd_conf(router: Router, place: Place, subsystem: str) -> str:
    """NETCONF and nothing else, with the lab's own key."""
    return _text(
        [
            f"Port {NETCONF_PORT}",
            f"ListenAddress {router.management.ip}",
            f"HostKey {place.host_key}",
            f"AuthorizedKeysFile {place.authorised_keys}",
            "StrictModes no",
            "UsePAM no",
            "PermitRootLogin prohibit-password",
            "PasswordAuthentication no",
            "PidFile none",
            f"Subsystem netconf {subsystem}",
            f"ForceCommand {subsystem}",
        ]
    )


def address_helper() -> str:
    """``get-interface-ipv4``: netconfd's module for interfaces ends netconfd when there is none."""
    return '#!/bin/sh\nexec ip -4 -o addr show dev "$1"\n'


def flow_filter(router: Router) -> str:
    """What softflowd counts: what customers send into the network."""
    return f"src net {router.prefix}"


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"
