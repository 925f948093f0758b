"""What the SNMP engines of many devices share: pysnmp #402 (an engine a device is most of a core at 250)."""

from __future__ import annotations

import time

from collector_peers import inventory_of

from collectors.snmp.gufo_engine import GufoEngine
from collectors.snmp.open import Shared, open_engine
from collectors.snmp.pysnmp_engine import PysnmpEngine


def _inventory_of_many(engine: str, *sets: str) -> list[str]:
    access = '{{ credentials = "{}", engine = "' + engine + '" }}'
    return [
        f'name = "R{i}"\naddress = "10.0.{i // 250}.{i % 250}"\nsnmp = {access.format(sets[i % len(sets)])}'
        for i in range(500)
    ]


async def test_devices_of_one_credential_set_share_pysnmps_engine(shared: Shared) -> None:
    """Five hundred devices under two sets: two engines."""
    inventory = inventory_of(*_inventory_of_many("pysnmp", "v2c", "v3"))
    engines = [open_engine(inventory, device, shared, timeout_s=1.0) for device in inventory.devices]
    assert all(isinstance(one, PysnmpEngine) for one in engines)
    assert len({id(one._engine) for one in engines if isinstance(one, PysnmpEngine)}) == 2


async def test_a_credential_sets_keys_are_made_once(shared: Shared) -> None:
    """A master key hashes a megabyte (RFC 3414 section A.2): for five hundred devices that took a second."""
    inventory = inventory_of(*_inventory_of_many("gufo", "v3"))
    engines = [open_engine(inventory, device, shared, timeout_s=1.0) for device in inventory.devices]
    begin = time.process_time()
    users = {id(one._secrets()["user"]) for one in engines if isinstance(one, GufoEngine)}
    assert (len(engines), len(users)) == (500, 1)
    assert time.process_time() - begin < 0.5
