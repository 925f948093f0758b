"""Next hops from the devices' forwarding tables: ``next_link[i, j]``, the link node i uses towards node j.

Theory
------
A node is reached through the prefixes that end at it: its local routes, the widest first, because that is
where its customers' traffic goes (a loopback or a link address may well be routed otherwise); a node that
tells no local route is reached through its interface addresses. Node i's route towards j is the longest
match in i's table that covers the whole of j's first prefix for which i has any route. The route names an
interface, a next hop, or both; each leads to one of i's links:

1. the links on the route's interface; if there are several, the one whose far end owns the next hop;
2. without a link there, the link to the node that owns the next hop's address.

Routes of one prefix with the same, lowest metric are equal: the canonical first (next hop, interface) gives
``next_link``, and the others what they lead to besides. A row is recomputed when its device's table changed,
a column when its node's prefixes changed; nothing else is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from twin.graph_addresses import Prefix, PrefixTable, parse_prefix
from twin.graph_links import LinkKey
from twin.records import DeviceTopology, Route

NO_LINK = -1


def prefixes_of(topology: DeviceTopology) -> tuple[Prefix, ...]:
    """The prefixes that end at a device, the widest first; its addresses come after its local routes."""
    local = {p for route in topology.routes if route.local and (p := parse_prefix(route.prefix))}
    return (
        *sorted(local, key=lambda p: (p.length, p)),
        *(p for p in addresses_of(topology) if p not in local),
    )


def addresses_of(topology: DeviceTopology) -> dict[Prefix, str]:
    """Every interface address of a device as a host prefix → the interface that has it."""
    pairs = sorted((item.address, item.interface) for item in topology.addresses)
    return {p: interface for address, interface in pairs if (p := parse_prefix(address))}


EqualRoutes = tuple[Route, ...]  # of one prefix and metric, in canonical order


def forwarding_table(topology: DeviceTopology) -> PrefixTable[EqualRoutes]:
    """A device's routes that forward, for longest-prefix match: a prefix's of the lowest metric."""
    routes = sorted(
        (route for route in topology.routes if not route.local),
        key=lambda r: (r.prefix, r.metric, r.next_hop, r.interface),
    )
    best: dict[Prefix, list[Route]] = {}
    for route in routes:
        prefix = parse_prefix(route.prefix)
        if prefix is not None:
            equal = best.setdefault(prefix, [route])
            if route.metric == equal[0].metric and route is not equal[0]:
                equal.append(route)
    return PrefixTable((prefix, tuple(equal)) for prefix, equal in best.items())


def name_resolver(devices: Mapping[str, DeviceTopology]) -> Callable[[str], str]:
    """Names as neighbours tell them → nodes: the device itself, the address's owner, the name's host part.

    LLDP may tell ``WA.example.net`` where the inventory says ``WA``, or the reverse; OSPF tells a router id.
    """
    owners = {
        address: device
        for device in sorted(devices, reverse=True)
        for address in addresses_of(devices[device])
    }
    hosts = {
        device.partition(".")[0]: device
        for device in sorted(devices, reverse=True)
        if not parse_prefix(device)
    }

    def known_name(name: str) -> str:
        address = parse_prefix(name)
        if name in devices or address is not None:
            return name if name in devices else owners.get(address, name) if address else name
        host = name.partition(".")[0]
        return hosts.get(host, host)

    return known_name


class Routing:
    """The routes of all devices towards all nodes, kept row by row."""

    def __init__(self) -> None:
        self._tables: dict[str, PrefixTable[EqualRoutes]] = {}
        self._prefixes: dict[str, tuple[Prefix, ...]] = {}
        self._addresses: dict[str, dict[Prefix, str]] = {}
        self._rows: dict[str, dict[str, EqualRoutes]] = {}  # device → node → routes
        self._stale_rows: set[str] = set()
        self._stale_columns: set[str] = set()

    def set_device(self, device: str, topology: DeviceTopology) -> None:
        """Replace a device's table, prefixes and addresses."""
        self._tables[device] = forwarding_table(topology)
        self._addresses[device] = addresses_of(topology)
        prefixes = prefixes_of(topology)
        if prefixes != self._prefixes.get(device):
            self._stale_columns.add(device)
        self._prefixes[device] = prefixes
        self._stale_rows.add(device)

    def remove_device(self, device: str) -> None:
        """Forget a device: it forwards nothing and nothing is routed to it."""
        for table in (self._tables, self._prefixes, self._addresses, self._rows):
            table.pop(device, None)
        self._stale_rows.discard(device)
        self._stale_columns.add(device)

    def owners(self) -> PrefixTable[str]:
        """Which node a prefix ends at; one that ends at several belongs to the first by name."""
        return PrefixTable((p, node) for node in sorted(self._prefixes) for p in self._prefixes[node])

    def _refresh(self) -> None:
        for device in self._stale_rows:
            self._rows[device] = {}
            self._fill(device, self._prefixes.keys())
        for device in self._tables.keys() - self._stale_rows:
            self._fill(device, self._stale_columns)
        self._stale_rows, self._stale_columns = set(), set()

    def _fill(self, device: str, nodes: Iterable[str]) -> None:
        table, row = self._tables[device], self._rows[device]
        for node in nodes:
            row.pop(node, None)
            if node != device:
                found = (table.longest(prefix) for prefix in self._prefixes.get(node, ()))
                routes = next((one for one in found if one is not None), None)
                if routes is not None:
                    row[node] = routes

    def next_links(
        self, nodes: Sequence[str], links: Sequence[LinkKey]
    ) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
        """Next hops over the given canonical nodes and links: the first, int16[N, N], −1 where there is none;
        and what is as good, int16[E, 3] of (node, destination, link), in order."""
        self._refresh()
        index = {node: i for i, node in enumerate(nodes)}
        owners = {
            p: (node, port) for node in sorted(self._addresses) for p, port in self._addresses[node].items()
        }
        leaving: dict[str, list[int]] = {}
        for k, link in enumerate(links):
            leaving.setdefault(link.source, []).append(k)
        result = np.full((len(nodes), len(nodes)), NO_LINK, dtype=np.int16)
        equal: list[tuple[int, int, int]] = []
        for device, row in self._rows.items():
            candidates = [(k, links[k]) for k in leaving.get(device, ())]
            found: dict[EqualRoutes, list[int]] = {}
            for node, routes in row.items():
                if routes not in found:
                    found[routes] = _links_of(routes, candidates, owners)
                if node in index:
                    i, j, (first, *others) = index[device], index[node], found[routes]
                    result[i, j] = first
                    equal += [(i, j, link) for link in others]
        return result, np.array(sorted(equal), dtype=np.int16).reshape(-1, 3)


def _links_of(
    routes: EqualRoutes, candidates: list[tuple[int, LinkKey]], owners: Mapping[Prefix, tuple[str, str]]
) -> list[int]:
    """The links that equal routes lead to, each once; NO_LINK alone when they lead to none."""
    links = dict.fromkeys(_link_of(route, candidates, owners) for route in routes)
    return [link for link in links if link != NO_LINK] or [NO_LINK]


def _link_of(
    route: Route, candidates: list[tuple[int, LinkKey]], owners: Mapping[Prefix, tuple[str, str]]
) -> int:
    """Steps 1 and 2 of the theory; −1 when the route leads to none of the device's links."""
    hop = parse_prefix(route.next_hop) if route.next_hop else None
    owner, port = owners.get(hop, ("", "")) if hop else ("", "")
    on_interface = [
        (k, link) for k, link in candidates if route.interface and link.source_interface == route.interface
    ]
    to_owner = [(k, link) for k, link in on_interface or candidates if link.target == owner]
    exact = [(k, link) for k, link in to_owner if link.target_interface == port]
    best = exact or to_owner or on_interface
    return best[0][0] if best else NO_LINK
