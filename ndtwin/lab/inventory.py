"""What a lab leaves in the run directory for the collectors: the inventory and the secrets it refers to.

Secrets are made once and kept (mode 0600, directory 0700), so a restarted lab keeps its credentials and
host keys. The inventory is written last, when all agents listen, and in one piece: who sees it can use it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import tomli_w

from ndtwin.lab.addressing import Addressing
from ndtwin.lab.netconf_server import make_host_key
from ndtwin.lab.settings import LabSettings
from ndtwin.lab.snmp_agent import SnmpAccess
from twin.network import Network

SNMP_USER = NETCONF_USER = "ndtwin"
INVENTORY_NAME = "inventory.toml"


class RunDirectory:
    """The files of one lab."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._secrets = path / "secrets"
        path.mkdir(parents=True, exist_ok=True)
        self._secrets.mkdir(mode=0o700, exist_ok=True)

    def secret(self, name: str) -> str:
        """The secret of a name; made at random the first time."""
        file = self._secrets / name
        if not file.exists():
            _write_private(file, secrets.token_urlsafe(24) + "\n")
        return file.read_text().strip()

    def snmp_access(self) -> SnmpAccess:
        """Who may read by SNMP."""
        keys = (self.secret(name) for name in ("snmp-community", "snmp-auth-key", "snmp-privacy-key"))
        community, auth_key, privacy_key = keys
        return SnmpAccess(community, SNMP_USER, auth_key, privacy_key)

    def host_key(self, device: str) -> tuple[Path, str]:
        """(private key file, public key) of a device's NETCONF server."""
        file = self._secrets / "host-keys" / device.replace("/", "_")
        return file, make_host_key(file)

    def write_known_hosts(self, keys: Mapping[str, str], port: int) -> None:
        """Host keys by address, as SSH clients read them."""
        lines = [f"[{address}]:{port} {key}\n" for address, key in keys.items()]
        (self._secrets / "known_hosts").write_text("".join(lines))

    def next_boot(self) -> int:
        """snmpEngineBoots: how often this lab has started (RFC 3414 section 2.2.2)."""
        file = self._secrets / "engine-boots"
        boots = (int(file.read_text()) if file.exists() else 0) + 1
        _write_private(file, f"{boots}\n")
        return boots

    def write_inventory(
        self, network: Network, settings: LabSettings, addressing: Addressing, name: str
    ) -> Path:
        """The file the collectors read."""
        return self.write(inventory_of(network, settings, addressing, name))

    def write(self, content: Mapping[str, object]) -> Path:
        """Write the inventory in one piece."""
        file = self.path / INVENTORY_NAME
        draft = file.with_suffix(".toml.new")
        draft.write_bytes(
            b"# Written by the lab; it is replaced whenever the lab starts.\n"
            + tomli_w.dumps(content).encode()
        )
        draft.replace(file)
        return file


def _write_private(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(text)


def inventory_of(
    network: Network, settings: LabSettings, addressing: Addressing, name: str
) -> dict[str, object]:
    """The inventory as TOML tables. Paths of secrets are relative to it."""
    return {
        "network": name,
        "credentials": {"lab": snmp_credentials(settings.snmp_version), "lab-netconf": _NETCONF_CREDENTIALS},
        "ipfix": {"listen": f"127.0.0.1:{settings.ipfix_port}"},
        "devices": [
            _device(node, addressing.management(i), settings) for i, node in enumerate(network.nodes, 1)
        ],
        "links": [
            {
                "source": link.source,
                "target": link.target,
                "source_interface": link.source_interface,
                "propagation_delay_s": link.propagation_delay_s,
                "buffer_packets": link.buffer_packets,
            }
            for link in network.links
        ],
    }


_NETCONF_CREDENTIALS = {
    "username": NETCONF_USER,
    "password": "file:secrets/netconf-password",
    "host_key_file": "secrets/known_hosts",
}


def snmp_credentials(version: str) -> dict[str, str]:
    """The credential set of a lab's devices."""
    if version != "3":
        return {"version": version, "community": "file:secrets/snmp-community"}
    return {
        "version": "3",
        "user": SNMP_USER,
        "auth_protocol": "SHA256",
        "auth_key": "file:secrets/snmp-auth-key",
        "privacy_protocol": "AES",
        "privacy_key": "file:secrets/snmp-privacy-key",
    }


def _device(node: str, address: str, settings: LabSettings) -> dict[str, object]:
    device: dict[str, object] = {
        "name": node,
        "address": address,
        "snmp": {"port": settings.snmp_port, "credentials": "lab"},
        "ipfix": True,
    }
    if settings.netconf:
        device["netconf"] = {"port": settings.netconf_port, "credentials": "lab-netconf"}
    return device
