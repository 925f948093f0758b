"""What the collectors are told of the lab in namespaces: the same file that an operator would write."""

from __future__ import annotations

from pathlib import Path

from ndtwin.lab.inventory import snmp_credentials
from ndtwin.lab.netns.plan import NETCONF_PORT, SNMP_PORT, STAMP_PORT, Plan, Router
from ndtwin.lab.netns.settings import NetnsSettings
from ndtwin.lab.settings import LabSettings

LINE_RATE_BPS = 10e9  # of a veth, as its driver says
NETCONF_USER = "root"  # sshd forces the NETCONF subsystem upon whoever logs in with the lab's key


def inventory_of(
    plan: Plan, settings: LabSettings, netns: NetnsSettings, client_key: Path
) -> dict[str, object]:
    """The inventory as TOML tables."""
    netconf = {
        "username": NETCONF_USER,
        "key_file": str(client_key),
        "host_key_file": "secrets/known_hosts",
    }
    return {
        "network": plan.name,
        "credentials": {"lab": snmp_credentials(settings.snmp_version), "lab-netconf": netconf},
        "ipfix": {"listen": f"{plan.collector}:{settings.ipfix_port}"},
        "devices": [_device(router, settings) for router in plan.routers],
        "links": [
            {
                "source": link.source,
                "target": link.target,
                "source_interface": link.source_interface,
                "propagation_delay_s": 0.0,
                "buffer_packets": link.buffer_packets,
                # SNMP tells it too, NETCONF what the driver says: 10 Gbit/s.
                "capacity_bps": link.capacity_bps,
                # A token bucket on a cable of that speed: what may leave is there at once.
                "line_rate_bps": LINE_RATE_BPS,
            }
            for link in plan.network.links
        ],
        "probes": [_probe(router, netns) for router in plan.routers],
    }


def _device(router: Router, settings: LabSettings) -> dict[str, object]:
    device: dict[str, object] = {
        "name": router.name,
        "address": str(router.management.ip),
        "snmp": {"port": SNMP_PORT, "credentials": "lab"},
        "ipfix": True,
        "flow_direction": "ignore",  # softflowd tells directions by addresses, and counts what enters only
        "stamp": {"address": str(router.router_id), "port": STAMP_PORT, "stateful": True},
    }
    if settings.netconf:
        device["netconf"] = {"port": NETCONF_PORT, "credentials": "lab-netconf"}
    return device


def _probe(router: Router, netns: NetnsSettings) -> dict[str, object]:
    return {
        "source": router.name,
        "target": "*",
        "netns": router.space,
        "source_address": str(router.router_id),
        "packets_per_s": netns.probe_pps,
        "packet_octets": netns.probe_octets,
        "flows": 1,  # there is one route each
        "clock": "synchronised",
    }
