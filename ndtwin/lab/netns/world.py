"""The running network as faults see it, and the table of faults that a kernel can be given.

No fault tells the telemetry about itself: a queue that lost rate keeps its ifSpeed, hidden traffic is counted
by interfaces and by no flow record. There is no delay on command: the kernel's netem, which could, is not
everywhere.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import replace

from ndtwin.lab.fault_desk import Fault, Undo, fault_kind
from ndtwin.lab.fault_targets import (
    busiest_detour,
    busiest_link,
    busiest_node,
    detour,
    shortest_over,
    spare_link,
)
from ndtwin.lab.netns.daemons import AGENTS, Daemons
from ndtwin.lab.netns.plan import Plan, Port, Router
from ndtwin.lab.netns.spaces import shape
from ndtwin.lab.netns.tools import run
from ndtwin.lab.netns.traffic import Generator
from twin.errors import UsageError
from twin.network import Floats, Network
from twin.routing import shortest_paths


class RunningNetwork:
    """A plan that runs; implements :class:`ndtwin.lab.fault_targets.Breakable`."""

    def __init__(self, plan: Plan, daemons: Daemons, traffic: Generator) -> None:
        self.plan, self.daemons, self.traffic = plan, daemons, traffic
        self._routed = plan.network

    @property
    def network(self) -> Network:
        """As it was built."""
        return self.plan.network

    @property
    def routed(self) -> Network:
        """As OSPF routes it once it has converged, equal routes left out."""
        return self._routed

    @property
    def back(self) -> Sequence[int]:
        """For every link the one back over the same cable."""
        return self.plan.back

    def traffic_bps(self) -> Floats:
        """What customers offer on every path now, [P]."""
        return self.traffic.offered_bps()

    def port(self, link: int) -> tuple[Router, Port]:
        """Where a link leaves."""
        router = self.plan.routers[int(self.network.source_index[link])]
        return router, next(port for port in router.ports if port.link == link)

    def set_cable(self, link: int, up: bool) -> None:
        """Take one end down, so that the other loses its carrier; or bring it up again."""
        router, port = self.port(link)
        run("ip", "-n", router.space, "link", "set", port.name, "up" if up else "down")
        lost = {link, self.back[link]}
        links = tuple(replace(one, up=up) if i in lost else one for i, one in enumerate(self._routed.links))
        next_link = shortest_paths(self.network.nodes, links)
        self._routed = replace(self._routed, links=links, next_link=next_link)


# ------------------------------------------------------------------------------------------- the faults


def _link_down(world: RunningNetwork, link: int, _: float) -> Undo:
    world.set_cable(link, up=False)
    return lambda: world.set_cable(link, up=True)


def _link_capacity(world: RunningNetwork, link: int, share_lost: float) -> Undo:
    def set_share(share: float) -> None:
        router, port = world.port(link)
        run("tc", "-n", router.space, "qdisc", "change", *shape(port, world.plan, share).split())

    set_share(1 - share_lost)
    return lambda: set_share(1.0)


def _hidden_traffic(world: RunningNetwork, link: int, share: float) -> Undo:
    path = shortest_over(world, link)
    world.traffic.hide(path, share * world.network.links[link].capacity_bps)
    return lambda: world.traffic.hide(path, 0.0)


def _wrong_route(world: RunningNetwork, path: int, _: float) -> Undo:
    """A route in the kernel with a better metric than OSPF's."""
    link = detour(world, path)
    if link is None:
        raise UsageError(f"wrong-route: {world.network.path_name(path)} has no other way without a loop")
    router, port = world.port(link)
    there = world.port(world.back[link])[1]
    far = world.plan.routers[world.network.path_ends(path)[1]]
    routes = [
        ["route", "{}", prefix, "via", str(there.address.ip), "dev", port.name, "metric", "1"]
        for prefix in (str(far.receivers.network), f"{far.router_id}/32")
    ]

    def set_routes(verb: str, *, check: bool) -> None:
        for route in routes:
            run("ip", "-n", router.space, *(word.format(verb) for word in route), check=check)

    set_routes("add", check=True)
    return lambda: set_routes("del", check=False)  # they went by themselves if the link went


def _silent_device(world: RunningNetwork, node: int, _: float) -> Undo:
    """Stop its agents where they stand: connections are accepted and nothing is answered."""
    return _stand_still(world.daemons.pids(world.network.nodes[node], AGENTS))


def _stand_still(pids: Sequence[int]) -> Undo:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)

    def undo() -> None:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                continue  # it died meanwhile and another runs in its place

    return undo


def _silent_exporter(world: RunningNetwork, node: int, _: float) -> Undo:
    """Only its flow records stay away."""
    return _stand_still(world.daemons.pids(world.network.nodes[node], ("softflowd",)))


_ROWS: tuple[Fault[RunningNetwork], ...] = (
    Fault(
        fault_kind("link-capacity", "link", "part of a link's capacity is lost", (0.5, "share", 0.01, 0.99)),
        busiest_link,
        _link_capacity,
    ),
    Fault(
        fault_kind("link-down", "link", "both directions of a link go down"),
        spare_link,
        _link_down,
    ),
    Fault(
        fault_kind(
            "hidden-traffic",
            "link",
            "traffic that no flow record shows, as a share of the link's capacity",
            (0.3, "share", 0.01, 2.0),
        ),
        busiest_link,
        _hidden_traffic,
    ),
    Fault(
        fault_kind("wrong-route", "path", "the source of a path takes another next hop to its destination"),
        busiest_detour,
        _wrong_route,
    ),
    Fault(
        fault_kind("silent-device", "node", "a device answers nothing and exports nothing"),
        busiest_node,
        _silent_device,
    ),
    Fault(
        fault_kind("silent-exporter", "node", "a device exports no flow records"),
        busiest_node,
        _silent_exporter,
    ),
)
FAULTS = {row.kind.fault: row for row in _ROWS}
