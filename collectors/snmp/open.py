"""Which engine polls a device: the inventory says it."""

from __future__ import annotations

from collectors.inventory import Device, Inventory
from collectors.snmp.engine import Endpoint, SnmpEngine
from collectors.snmp.gufo_engine import GufoEngine
from collectors.snmp.pysnmp_engine import PysnmpEngine, PysnmpEngines

RETRIES = 2  # a lost datagram or two is no silence


def open_engine(
    inventory: Inventory, device: Device, shared: PysnmpEngines, *, timeout_s: float, retries: int = RETRIES
) -> SnmpEngine:
    """The engine for one device that has ``snmp``."""
    access = device.snmp
    assert access is not None, "callers pass devices with snmp"
    credentials = inventory.credentials[access.credentials]
    endpoint = Endpoint(device.address, access.port, credentials, timeout_s, retries)
    if inventory.engine_of(device) == "pysnmp":
        return PysnmpEngine(shared.of(access.credentials), endpoint)
    return GufoEngine(endpoint)
