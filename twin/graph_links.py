"""Directed links from what neighbours say about each other.

Theory
------
A device names its own interface surely, the far end's only as well as its protocol allows: LLDP may send a
MAC address or a description for a port, OSPF sends no port at all. So a claim is ``(own interface, far
device, far port as heard)``, and the claims of both ends of one pair are matched:

1. claims that name each other's own interface, from either side;
2. when exactly one claim is left on each side, these two (the port was heard in another spelling);
3. what is left stands alone: a link confirmed by one side, with the far port as heard.

Every match gives two directed links. A device that reports nothing keeps its neighbours' claims about it, so
it stays a node. Work is per pair of devices: a changed report touches only the pairs it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from twin.records import Neighbour

_TRUST = {"lldp": 0, "ospf": 1, "static": 2}  # which protocol's claim is kept for one interface


class LinkKey(NamedTuple):
    """A directed link's identity; its sort order is the canonical order of links."""

    source: str
    target: str
    source_interface: str
    target_interface: str

    @property
    def reverse(self) -> LinkKey:
        """The same wire, the other way."""
        return LinkKey(self.target, self.source, self.target_interface, self.source_interface)


Claims = dict[str, dict[str, str]]  # far device → own interface → far port as heard


def claims_of(device: str, neighbours: tuple[Neighbour, ...]) -> Claims:
    """A device's claims, one per own interface and far device: the most trusted, a named port first."""
    claims: Claims = {}
    ranked = sorted(
        neighbours,
        key=lambda n: (n.remote_interface == "", _TRUST[n.protocol], n.local_interface, n.remote_interface),
    )
    for one in ranked:
        if one.remote_device not in ("", device):
            claims.setdefault(one.remote_device, {}).setdefault(one.local_interface, one.remote_interface)
    return claims


def links_of_pair(
    a: str, b: str, from_a: Mapping[str, str], from_b: Mapping[str, str]
) -> tuple[LinkKey, ...]:
    """All directed links between two devices from the claims of both."""
    left_a, left_b = dict(sorted(from_a.items())), dict(sorted(from_b.items()))
    wires = _named_matches(left_a, left_b)
    if len(left_a) == len(left_b) == 1:
        wires.append((left_a.popitem()[0], left_b.popitem()[0]))
    wires += list(left_a.items())
    wires += [(far, own) for own, far in left_b.items()]
    keys = [LinkKey(a, b, port_a, port_b) for port_a, port_b in wires]
    return tuple(sorted(key for forward in keys for key in (forward, forward.reverse)))


def _named_matches(left_a: dict[str, str], left_b: dict[str, str]) -> list[tuple[str, str]]:
    """Step 1: take out and return the pairs in which at least one side names the other's own interface."""
    wires = []
    for port_a, heard_b in list(left_a.items()):
        port_b = (
            heard_b
            if heard_b in left_b
            else next((b for b, heard in left_b.items() if heard == port_a), None)
        )
        if port_b is not None:
            wires.append((port_a, port_b))
            del left_a[port_a], left_b[port_b]
    return wires


class Adjacencies:
    """The links of a whole network, kept pair by pair."""

    def __init__(self) -> None:
        self._claims: dict[str, Claims] = {}
        self._pairs: dict[tuple[str, str], tuple[LinkKey, ...]] = {}

    def set_device(self, device: str, neighbours: tuple[Neighbour, ...]) -> bool:
        """Replace a device's claims; True when some link changed."""
        before = self._claims.get(device, {})
        after = claims_of(device, neighbours)
        self._claims[device] = after
        far_devices = [far for far in before.keys() | after.keys() if before.get(far) != after.get(far)]
        changed = [self._match(device, far) for far in far_devices]
        return any(changed)

    def remove_device(self, device: str) -> None:
        """Forget a device's own claims; what its neighbours say of it stays."""
        self.set_device(device, ())
        del self._claims[device]

    def _match(self, one: str, other: str) -> bool:
        a, b = sorted((one, other))
        links = links_of_pair(a, b, self._claims.get(a, {}).get(b, {}), self._claims.get(b, {}).get(a, {}))
        before = self._pairs.pop((a, b), ())
        if links:
            self._pairs[a, b] = links
        return links != before

    def links(self) -> tuple[LinkKey, ...]:
        """All directed links in canonical order."""
        return tuple(sorted(key for keys in self._pairs.values() for key in keys))
