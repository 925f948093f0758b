"""Who is called what and has which address: everything that follows from the topology, nothing that runs.

| what | where |
| --- | --- |
| router i (from 1) of slot s | namespace ``ndtwin{s}-NAME`` |
| its customers | namespace ``ndtwin{s}-NAME.h`` behind cust0: 10.i.0.10 sends, 100.64.i.10 receives |
| management of router i | a cable of its own, 198.18.s.2i (here) and .2i+1 (mgmt0): RFC 2544 |
| router id of router i | 10.255.0.i on lo |
| cable k | the k-th /31 of 172.16.0.0/12, interfaces eth1, eth2, … |

A slot is what tells labs of one machine apart: nobody else has its names and addresses. The collector's end
is the management address of router 1; all routers reach it over their own cable.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import numpy as np

from ndtwin.lab.addressing import Addressing
from ndtwin.lab.netns.settings import LEAST_ROUTERS, MOST_ROUTERS, NetnsSettings
from ndtwin.lab.settings import LabSettings
from ndtwin.lab.world import reverse_links
from twin.errors import TopologyError
from twin.network import Network, Traffic
from twin.topologies import open_topology
from twin.topology import Topology
from twin.traffic import capacities_for, gravity
from twin.workload import PacketSizes

PREFIX = "ndtwin"
SLOTS = 16
MANAGEMENT = "mgmt0"
CUSTOMERS = "cust0"
# All packets are of one size, also those that probe. A token bucket (tbf) lets a packet go as soon as it has
# tokens for it, that is, when its transmission would begin: small probes would overtake the backlog of a full
# bucket. So what is measured is the wait in the queues alone: the inventory tells the twin by line_rate_bps.
MTU = 500
FRAME_OCTETS = MTU + 14  # with the Ethernet header, as tc counts
SIZES = PacketSizes.fixed(8 * MTU)
NETCONF_PORT, SNMP_PORT, STAMP_PORT, DISCARD_PORT, STREAM_PORT = 830, 161, 862, 9009, 9010
_RECEIVERS = IPv4Address("100.64.0.0")  # RFC 6598: above all of 10/8
_MANAGEMENT_BASE = IPv4Address("198.18.0.0")


@dataclass(frozen=True)
class Port:
    """One end of a cable."""

    name: str
    address: IPv4Interface
    link: int  # the directed link that leaves here
    peer: str  # namespace
    peer_port: str
    capacity_bps: float


@dataclass(frozen=True)
class Router:
    """One router."""

    name: str
    index: int  # from 1
    space: str
    outside: str  # name of the management cable's end in our own namespace
    management: IPv4Interface
    gateway: IPv4Interface  # the other end of the management cable
    router_id: IPv4Address
    customers: IPv4Interface  # of cust0, towards those who send
    receivers: IPv4Interface  # of cust0, towards those who receive
    ports: tuple[Port, ...]

    @property
    def host_space(self) -> str:
        """Namespace of its customers."""
        return f"{self.space}.h"

    @property
    def host(self) -> IPv4Interface:
        """A customer who sends."""
        return IPv4Interface((self.prefix.network_address + 10, self.prefix.prefixlen))

    @property
    def sink(self) -> IPv4Interface:
        """A customer who receives.

        softflowd tells a flow from a higher to a lower address as one that leaves (flowDirection 1), wherever
        it saw it; so whoever receives has the higher address.
        """
        return IPv4Interface((self.receivers.ip + 9, self.receivers.network.prefixlen))

    @property
    def prefix(self) -> IPv4Network:
        """Of its customers."""
        return self.customers.network


@dataclass(frozen=True)
class Plan:
    """A network, its traffic, and its routers in the order of the nodes."""

    slot: int
    name: str
    network: Network
    traffic: Traffic
    back: tuple[int, ...]  # for every link the one back
    routers: tuple[Router, ...]

    @property
    def collector(self) -> str:
        """The address that routers export to."""
        return str(self.routers[0].gateway.ip)

    @property
    def spaces(self) -> tuple[str, ...]:
        """All namespaces."""
        return tuple(space for router in self.routers for space in (router.space, router.host_space))


def space_prefix(slot: int) -> str:
    """What the namespaces of a slot begin with; those of others never do."""
    return f"{PREFIX}{slot}-"


def make_plan(settings: LabSettings, netns: NetnsSettings, slot: int) -> Plan:
    """TopologyError when the settings make no lab."""
    settings.check()
    topology = open_topology(settings.topology, settings.seed)
    _check(topology)
    network, traffic = _scenario(topology, settings, netns)
    back = tuple(reverse_links(network))
    name = settings.network or topology.name
    return Plan(slot, name, network, traffic, back, _routers(network, back, slot))


def _check(topology: Topology) -> None:
    if not LEAST_ROUTERS <= len(topology.nodes) <= MOST_ROUTERS:
        raise TopologyError(
            f"{topology.name} has {len(topology.nodes)} routers: a lab in namespaces has "
            f"{LEAST_ROUTERS} to {MOST_ROUTERS}, for each runs eight programs"
        )
    for node in topology.nodes:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", node):
            raise TopologyError(f"{node!r} makes no name of a namespace: use letters, digits, - and _")


def _scenario(topology: Topology, settings: LabSettings, netns: NetnsSettings) -> tuple[Network, Traffic]:
    """Gravity traffic worth so many packets a second on the mean link, and capacities to match."""
    flat = topology.network(buffer_packets=netns.buffer_packets, propagation_scale=0.0)
    shape = gravity(len(flat.nodes), 1.0, seed=settings.seed, packet_bits=SIZES.mean_bits)
    hops_per_s = float((shape.pps * flat.paths.lengths).sum())
    scale = netns.packets_per_link_s * len(flat.links) / hops_per_s
    traffic = Traffic(bps=shape.bps * scale, pps=shape.pps * scale)
    capacities = capacities_for(flat, traffic, settings.utilisation, least_bps=netns.least_bps)
    network = topology.network(
        capacities=capacities, buffer_packets=netns.buffer_packets, propagation_scale=0.0
    )
    return network, traffic


def _routers(network: Network, back: tuple[int, ...], slot: int) -> tuple[Router, ...]:
    addressing = Addressing(len(network.nodes))
    ports = _ports(network, back, slot)
    made = []
    for i, name in enumerate(network.nodes, 1):
        management = _MANAGEMENT_BASE + 256 * slot + 2 * i
        made.append(
            Router(
                name=name,
                index=i,
                space=space_prefix(slot) + name,
                outside=f"{PREFIX}{slot}m{i}",
                management=IPv4Interface((management + 1, 31)),
                gateway=IPv4Interface((management, 31)),
                router_id=addressing.router_id(i),
                customers=addressing.gateway(i),
                receivers=IPv4Interface((_RECEIVERS + 256 * i + 1, 24)),
                ports=tuple(ports[int(link)] for link in np.flatnonzero(network.source_index == i - 1)),
            )
        )
    return tuple(made)


def _ports(network: Network, back: tuple[int, ...], slot: int) -> dict[int, Port]:
    """By the directed link that leaves there."""
    found: dict[int, Port] = {}
    cables = [i for i, other in enumerate(back) if i < other]
    for k, one in enumerate(cables):
        addresses = Addressing.cable(k)
        for link, address in zip((one, back[one]), addresses, strict=True):
            row = network.links[link]
            peer = space_prefix(slot) + row.target
            found[link] = Port(
                row.source_interface, address, link, peer, row.target_interface, row.capacity_bps
            )
    return found
