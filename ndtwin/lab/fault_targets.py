"""Which link, node or path a fault takes when none is named: where it matters most and is still fair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from twin.errors import UsageError
from twin.network import Floats, Network
from twin.routing import shortest_paths
from twin.traffic import link_load_bps

WELL_LOADED = 0.7  # utilisation up to which a link counts as reasonably loaded


class Breakable(Protocol):
    """A network that runs and can be broken."""

    @property
    def network(self) -> Network:
        """As it was built."""
        ...

    @property
    def routed(self) -> Network:
        """As it is routed now."""
        ...

    @property
    def back(self) -> Sequence[int]:
        """For every link the one back over the same cable."""
        ...

    def traffic_bps(self) -> Floats:
        """What customers offer on every path now, [P]."""
        ...


def utilisation(world: Breakable) -> Floats:
    """Offered load over capacity of every link, [L]."""
    return link_load_bps(world.routed, world.traffic_bps()) / world.network.capacity_bps


def busiest_link(world: Breakable) -> int:
    """The link with the highest utilisation that is still reasonable; of all, when none is."""
    used = utilisation(world)
    fair = np.where(used <= WELL_LOADED, used, -used)
    return int(np.argmax(fair))


def spare_link(world: Breakable) -> int:
    """The busiest link without which every node is still reached."""
    for link in np.argsort(-utilisation(world), kind="stable"):
        if _still_connected(world, int(link)):
            return int(link)
    raise UsageError("link-down: every link of this network is a bridge: name the target to cut it in two")


def _still_connected(world: Breakable, link: int) -> bool:
    lost = {link, world.back[link]}
    kept = [one for i, one in enumerate(world.routed.links) if i not in lost]
    next_link = shortest_paths(world.network.nodes, kept)
    return bool((next_link >= 0).sum() == len(world.network.nodes) * (len(world.network.nodes) - 1))


def busiest_node(world: Breakable) -> int:
    """The node that sends most."""
    load = link_load_bps(world.routed, world.traffic_bps())
    return int(np.argmax(np.bincount(world.network.source_index, load, minlength=len(world.network.nodes))))


def busiest_detour(world: Breakable) -> int:
    """The path with most traffic that has another way out without a loop."""
    for path in np.argsort(-world.traffic_bps(), kind="stable"):
        if detour(world, int(path)) is not None:
            return int(path)
    raise UsageError(
        "wrong-route: no node of this network has a second way to anywhere: use another topology"
    )


def detour(world: Breakable, path: int) -> int | None:
    """Another link out of the path's source from which its destination is reached without coming back."""
    network = world.routed
    source, destination = network.path_ends(path)
    current = network.next_link[source, destination]
    for link in np.flatnonzero(network.source_index == source):
        if link != current and network.links[link].up and _reaches(world, int(link), source, destination):
            return int(link)
    return None


def _reaches(world: Breakable, first: int, source: int, destination: int) -> bool:
    network, node = world.routed, int(world.network.target_index[first])
    for _ in network.nodes:
        if node in (source, destination):
            break
        link = network.next_link[node, destination]
        if link < 0:
            return False
        node = int(network.target_index[link])
    return node == destination


def shortest_over(world: Breakable, link: int) -> int:
    """The shortest path that uses a link; its own traffic then runs over few others."""
    paths = world.routed.paths
    using = paths.hop_path[paths.links == link]
    if not using.size:
        name = world.network.link_names[link]
        raise UsageError(f"hidden-traffic: no path runs over {name} now: choose another link")
    return int(using[np.argmin(paths.lengths[using])])
