"""Whose address this is: what all devices of a collector said of themselves, and the inventory."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from twin.records import InterfaceAddress


class Places:
    """Addresses and router ids → devices. What two devices claim (anycast) belongs to none."""

    def __init__(self) -> None:
        self._addresses: dict[str, dict[str, str]] = {}  # address → device → interface
        self._routers: dict[str, set[str]] = {}
        self._of: dict[str, set[str]] = {}  # device → its addresses, to take them back
        self.learnt = (
            0  # how often something new was learnt: whom a device did not know then, it may know now
        )

    def settle(self, device: str, addresses: Iterable[str]) -> None:
        """A device's addresses as the inventory knows them; for good."""
        for address in addresses:
            self._addresses.setdefault(address, {}).setdefault(device, "")

    def learn(self, device: str, addresses: Iterable[InterfaceAddress], router_id: str) -> None:
        """What a device says now; replaces what it said before."""
        now = {one.address: one.interface for one in addresses if not _is_private_to_host(one.address)}
        before = self._of.get(device, set())
        new_id = router_id not in ("", "0.0.0.0") and device not in self._routers.get(router_id, set())
        self.learnt += new_id or before != set(now)
        for gone in before - set(now):
            self._addresses[gone].pop(device, None)
        for address, interface in now.items():
            self._addresses.setdefault(address, {})[device] = interface
        self._of[device] = set(now)
        if router_id not in ("", "0.0.0.0"):
            self._routers.setdefault(router_id, set()).add(device)

    def at(self, address: str) -> tuple[str, str]:
        """(device, interface) of an address; empty where unknown or claimed twice."""
        claims = self._addresses.get(address, {})
        return next(iter(claims.items())) if len(claims) == 1 else ("", "")

    def router(self, router_id: str) -> str:
        """The device of an OSPF router id; a router id is often one of its addresses."""
        claims = self._routers.get(router_id, set())
        return next(iter(claims)) if len(claims) == 1 else self.at(router_id)[0]


def _is_private_to_host(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified
