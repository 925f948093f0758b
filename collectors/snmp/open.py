"""Which engine polls a device: the inventory says it."""

from __future__ import annotations

from collectors.inventory import Device, Inventory
from collectors.snmp.engine import Endpoint, SnmpEngine, Traffic
from collectors.snmp.gufo_engine import GufoEngine, GufoKeys, community_of
from collectors.snmp.pysnmp_engine import PysnmpEngine, PysnmpEngines

RETRIES = 2  # a lost datagram or two is no silence


class Shared:
    """What all SNMP engines of a collector share: keys, pysnmp's machinery, and the counters."""

    def __init__(self, traffic: Traffic | None = None) -> None:
        self.pysnmp = PysnmpEngines()
        self.keys = GufoKeys()
        self.traffic = traffic if traffic is not None else Traffic()

    async def close(self) -> None:
        """Close what is shared; the engines are closed before."""
        await self.pysnmp.close()


def open_engine(
    inventory: Inventory, device: Device, shared: Shared, *, timeout_s: float, retries: int = RETRIES
) -> SnmpEngine:
    """The engine for one device that has ``snmp``."""
    access = device.snmp
    assert access is not None, "callers pass devices with snmp"
    name, credentials = access.credentials, inventory.credentials[access.credentials]
    endpoint = Endpoint(device.address, access.port, credentials, timeout_s, retries)
    if inventory.engine_of(device) == "pysnmp":
        return PysnmpEngine(shared.pysnmp.of(name), endpoint, shared.traffic)
    if credentials.version == "3":
        return GufoEngine(endpoint, lambda: {"user": shared.keys.of(name, credentials)}, shared.traffic)
    return GufoEngine(endpoint, lambda: community_of(credentials), shared.traffic)
