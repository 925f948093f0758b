"""Discovery composed: a file of credential sets in, an inventory out."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from collectors.inventory import Inventory, check_secrets, parse_inventory
from collectors.snmp.discovery import Bounds, Discovery, FoundDevice, Network
from twin.errors import DeviceError, InventoryError, UsageError


@dataclass(frozen=True)
class Plan:
    """What the operator asked for."""

    seed: str
    credentials: Path
    within: tuple[str, ...]
    out: Path
    network: str
    port: int = 161
    most: int = 1000
    at_once: int = 8


def run_discovery(plan: Plan, watch: Callable[[str], None]) -> dict[str, Any]:
    """Discover, write the inventory, tell what was found."""
    if plan.out.exists():
        raise UsageError(f"{plan.out} exists: give another --out, or move it away")
    bounds = Bounds(_prefixes(plan.within), plan.port, plan.most, plan.at_once)
    if not _is_address(plan.seed) or not bounds.allows(plan.seed):
        raise UsageError(f"{plan.seed} is no address within {', '.join(plan.within)}: correct one of them")
    raw, sets = _credential_sets(plan)
    discovery = Discovery(sets.credentials, bounds)
    asyncio.run(discovery.run(plan.seed, lambda device: watch(f"{device.name} at {device.address}")))
    if not discovery.found:
        raise DeviceError(f"{plan.seed} does not answer under any of the credential sets: check both")
    _write(plan, raw, discovery.found)
    return {
        "devices": [device.name for device in discovery.found],
        "silent": sorted(discovery.silent),
        "outside": sorted(discovery.outside),
        "inventory": str(plan.out),
    }


def _prefixes(texts: tuple[str, ...]) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as error:
        raise UsageError(f"--within: {error}: write such as 192.0.2.0/24") from error


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _credential_sets(plan: Plan) -> tuple[dict[str, Any], Inventory]:
    """The file's tables as they are, and checked: every set must do for SNMP, and its secrets be readable."""
    path = plan.credentials
    try:
        raw = tomllib.loads(path.read_text()).get("credentials")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InventoryError(
            f"{path}: cannot be read ({error}): give a file with [credentials.NAME]"
        ) from error
    if not isinstance(raw, dict) or not raw:
        raise InventoryError(f"{path}: has no [credentials.NAME]: add one for each set to be tried")
    content = _content(plan, raw, [FoundDevice(name, f"192.0.2.{i}", name) for i, name in enumerate(raw, 1)])
    checked = parse_inventory(tomli_w.dumps(content), origin=str(path), base=path.parent)
    check_secrets(checked, origin=str(path))
    return raw, checked


def _content(plan: Plan, raw: dict[str, Any], found: list[FoundDevice]) -> dict[str, Any]:
    used = {device.credentials for device in found}
    return {
        "network": plan.network,
        "credentials": {name: table for name, table in raw.items() if name in used},
        "devices": [
            {
                "name": device.name,
                "address": device.address,
                "snmp": {"port": plan.port, "credentials": device.credentials},
            }
            for device in found
        ],
    }


def _write(plan: Plan, raw: dict[str, Any], found: list[FoundDevice]) -> None:
    """The inventory, references to secrets as they were but for the directory they start from."""
    moved = {name: _moved(table, plan) for name, table in raw.items()}
    text = tomli_w.dumps(_content(plan, moved, found))
    parse_inventory(text, origin=str(plan.out), base=plan.out.parent)
    with plan.out.open("x") as file:
        file.write(
            "# Written by `ndtwin discover`: add links, flows and probes where you have them.\n" + text
        )


def _moved(table: dict[str, Any], plan: Plan) -> dict[str, Any]:
    start, base = plan.out.resolve().parent, plan.credentials.resolve().parent
    return {
        key: f"file:{os.path.relpath(base / value.removeprefix('file:'), start)}"
        if isinstance(value, str) and value.startswith("file:")
        else value
        for key, value in table.items()
    }
