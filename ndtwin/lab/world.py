"""From a simulated network to its devices: interfaces, neighbours, addresses, routes, operations.

Every directed link is an output queue of its source's interface; the link back is what the same interface
takes in. So interface counters are the simulator's link counters, seen from the two ends; a link without a
way back is refused. ``cust0`` is where a node's customers enter and leave; ``lo0`` carries the router id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from ipaddress import IPv4Address, IPv4Interface

import numpy as np

from ndtwin.lab.addressing import Addressing, mac
from ndtwin.lab.device import LOOPBACK, Device, Interface, Neighbour, Operation, Route
from ndtwin.lab.flows import FlowPlan
from twin.errors import TopologyError
from twin.network import Ints, Link, Network
from twin.simulator import Simulator

CUSTOMER_SPEED_BPS = 10e9
METRIC_PER_HOP = 10


def reverse_links(network: Network) -> list[int]:
    """For every link the link back over the same two interfaces."""
    index = {(link.source, link.source_interface): i for i, link in enumerate(network.links)}
    try:
        return [index[link.target, link.target_interface] for link in network.links]
    except KeyError as error:
        raise TopologyError(
            f"no link leads back from interface {error}: the lab needs both directions"
        ) from None


class World:
    """All devices of a network, and where a link's ends are on them."""

    def __init__(
        self,
        network: Network,
        simulator: Simulator,
        plan: FlowPlan,
        addressing: Addressing,
        clock: Callable[[], int],
    ) -> None:
        self.network = network
        self.addressing = addressing
        self.back = reverse_links(network)
        self._simulator = simulator
        self._plan = plan
        started_ns = clock()
        self.devices = [self._bare_device(i, clock, started_ns) for i in range(len(network.nodes))]
        self.source_interfaces = self._add_links()
        for node in range(len(self.devices)):
            self._add_local_interfaces(node)
        self._prefixes = [(addressing.customers(d.index), _host(d.router_id).network) for d in self.devices]
        self.set_routes(network, range(len(self.devices)))

    # ------------------------------------------------------------------ building

    def _bare_device(self, node: int, clock: Callable[[], int], started_ns: int) -> Device:
        i = node + 1
        name = self.network.nodes[node]
        return Device(
            name, i, self.addressing.router_id(i), mac(i), clock, started_ns, table_changed_ns=started_ns
        )

    def _add_links(self) -> list[Interface]:
        """One interface for every directed link at its source; [L]."""
        interfaces = [self._link_interface(i, link) for i, link in enumerate(self.network.links)]
        for i, link in enumerate(self.network.links):
            far = self.devices[self.network.target_index[i]]
            managed = IPv4Address(self.addressing.management(far.index))
            interfaces[i].neighbour = Neighbour(far.name, link.target_interface, far.chassis, managed)
        cables = [i for i, back in enumerate(self.back) if i < back]
        for k, i in enumerate(cables):
            interfaces[i].address, interfaces[self.back[i]].address = self.addressing.cable(k)
        return interfaces

    def _link_interface(self, i: int, link: Link) -> Interface:
        device = self.devices[self.network.source_index[i]]
        index = len(device.interfaces) + 1
        interface = Interface(
            index,
            link.source_interface,
            alias=f"to {link.target} {link.target_interface}",
            speed_bps=link.capacity_bps,
            mac=mac(device.index, index),
            counters=self._link_counters(i),
        )
        device.interfaces.append(interface)
        return interface

    def _link_counters(self, i: int) -> dict[str, Callable[[], int]]:
        sim, back = self._simulator, self.back[i]
        return {
            "out_octets": partial(_at, sim.link_octets, i),
            "out_packets": partial(_at, sim.link_packets, i),
            "out_discards": partial(_at, sim.link_drops, i),
            "in_octets": partial(_at, sim.link_octets, back),
            "in_packets": partial(_at, sim.link_packets, back),
        }

    def _add_local_interfaces(self, node: int) -> None:
        device = self.devices[node]
        index = len(device.interfaces) + 1
        customers = Interface(
            index,
            "cust0",
            alias="customers",
            speed_bps=CUSTOMER_SPEED_BPS,
            mac=mac(device.index, index),
            address=self.addressing.gateway(device.index),
            counters=self._customer_counters(node),
        )
        router_id = self.addressing.router_id(device.index)
        loopback = Interface(index + 1, "lo0", alias="router id", kind=LOOPBACK, mtu=65535)
        loopback.address = _host(router_id)
        device.interfaces += [customers, loopback]

    def _customer_counters(self, node: int) -> dict[str, Callable[[], int]]:
        """Traffic and hidden traffic; probes begin and end at the router itself."""
        sim, (source, destination) = self._simulator, self._plan.ends()
        entering = _with_hidden(np.flatnonzero(source == node), self._plan)
        leaving = _with_hidden(np.flatnonzero(destination == node), self._plan)
        return {
            "in_octets": partial(_total, sim.sent_octets, entering),
            "in_packets": partial(_total, sim.sent_packets, entering),
            "out_octets": partial(_total, sim.delivered_octets, leaving),
            "out_packets": partial(_total, sim.delivered_packets, leaving),
        }

    def add_operations(self, *, frequency_s: int, packets: int, packet_octets: int) -> None:
        """A jitter operation from every device to every other; its index is the target's."""
        for device in self.devices:
            device.operations = [
                Operation(t.index, t.name, device.router_id, t.router_id, frequency_s, packets, packet_octets)
                for t in self.devices
                if t is not device
            ]
            device.changed()

    # ------------------------------------------------------------------ routing

    def set_routes(self, routed: Network, nodes: Iterable[int]) -> None:
        """Show the next hops of ``routed`` in the route tables of some nodes."""
        lengths = routed.paths.lengths
        for node in nodes:
            device = self.devices[node]
            device.routes = (*self._connected(device), *self._learnt(node, routed, lengths))
            device.changed()

    @staticmethod
    def _connected(device: Device) -> list[Route]:
        return [
            Route(i.address.network, i.index)
            for i in device.interfaces
            if i.address is not None and i.oper_up
        ]

    def _learnt(self, node: int, routed: Network, lengths: Ints) -> list[Route]:
        routes = []
        for destination in range(len(self.devices)):
            link = int(routed.next_link[node, destination]) if destination != node else -1
            if link < 0:
                continue
            out, there = self.source_interfaces[link], self.source_interfaces[self.back[link]].address
            assert there is not None  # every link's interface got an address
            path = node * (len(self.devices) - 1) + destination - (destination > node)
            metric = METRIC_PER_HOP * int(lengths[path])
            for prefix in self._prefixes[destination]:
                routes.append(Route(prefix, out.index, there.ip, metric, learnt=True))
        return routes


def _host(address: IPv4Address) -> IPv4Interface:
    return IPv4Interface((address, 32))


def _at(values: Ints, index: int) -> int:
    return int(values[index])


def _total(values: Ints, indices: Ints) -> int:
    return int(values[indices].sum())


def _with_hidden(paths: Ints, plan: FlowPlan) -> Ints:
    return np.concatenate([paths, paths + plan.hidden(0)])
