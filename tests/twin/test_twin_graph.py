"""The graph state: links from neighbours, next hops from routes, versions from changes; and its view."""

from __future__ import annotations

import random

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import T0, Ring, S, loopback, name

from twin.errors import DecodeError
from twin.graph import (
    DEFAULT_BUFFER_PACKETS,
    DEFAULT_CAPACITY_BPS,
    GraphState,
    InterfaceRates,
    InterfaceStatus,
    Measurements,
    QueueRates,
    StateView,
    network_of,
)
from twin.graph_addresses import PrefixTable, parse_prefix
from twin.graph_links import LinkKey, links_of_pair
from twin.network import Network
from twin.packing import pack_integers
from twin.records import (
    DeviceTopology,
    InterfaceAddress,
    LinkAnnotation,
    LinkAnnotations,
    Neighbour,
    Route,
    StateUpdate,
)

RING = Ring()


def graph_of(*reports: DeviceTopology, annotations: LinkAnnotations | None = None) -> GraphState:
    """A refreshed graph of some reports."""
    graph = GraphState("ring")
    for report in reports:
        graph.apply(report)
    if annotations is not None:
        graph.apply(annotations)
    graph.refresh(1)
    return graph


def ring_graph() -> GraphState:
    """The ring, all devices known."""
    return graph_of(*(RING.topology(i) for i in range(4)), annotations=RING.annotations())


def network_in(graph: GraphState) -> Network:
    """The network as a consumer sees it."""
    return network_of(graph.topology)


def device(
    who: str,
    neighbours: list[tuple[str, str, str]],
    routes: tuple[Route, ...] = (),
    addresses: tuple[InterfaceAddress, ...] = (),
) -> DeviceTopology:
    """A report: neighbours as (own interface, far device, far interface as heard)."""
    return DeviceTopology(
        network="ring",
        device=who,
        observed_at_ns=T0,
        source="snmp",
        neighbours=tuple(
            Neighbour(local_interface=a, remote_device=b, remote_interface=c) for a, b, c in neighbours
        ),
        routes=routes,
        addresses=addresses,
    )


def close(graph: GraphState, version: int, measured: Measurements | None = None) -> StateUpdate:
    """Refresh and close one window."""
    graph.refresh(version)
    return graph.close(version, 0, 10 * S, measured or Measurements())


# ---------------------------------------------------------------------------------------------------- links


@pytest.mark.parametrize(
    ("from_a", "from_b", "wires"),
    [
        ({"a1": "b1"}, {"b1": "a1"}, {("a1", "b1")}),  # both tell both
        ({"a1": "b1"}, {}, {("a1", "b1")}),  # one side suffices
        ({}, {"b1": "a1"}, {("a1", "b1")}),
        ({"a1": "00:11:22"}, {"b1": "33:44:55"}, {("a1", "b1")}),  # ports heard as MAC addresses
        ({"a1": ""}, {"b1": ""}, {("a1", "b1")}),  # OSPF tells no port
        ({"a1": "b1", "a2": "b2"}, {"b1": "a1", "b2": "a2"}, {("a1", "b1"), ("a2", "b2")}),  # parallel links
        (
            {"a1": "?", "a2": "b2"},
            {"b1": "?", "b2": "?"},
            {("a1", "b1"), ("a2", "b2")},
        ),  # by exclusion
        ({"a1": "?", "a2": "?"}, {"b1": "a2"}, {("a2", "b1"), ("a1", "?")}),  # heard from one side only
    ],
)
def test_both_ends_claims_make_wires(
    from_a: dict[str, str], from_b: dict[str, str], wires: set[tuple[str, str]]
) -> None:
    """The claims of two devices about each other give these wires, each as two directed links."""
    expected = {key for a, b in wires for key in (LinkKey("A", "B", a, b), LinkKey("B", "A", b, a))}
    found = links_of_pair("A", "B", from_a, from_b)
    assert set(found) == expected
    assert list(found) == sorted(expected)


def test_a_neighbour_that_never_reports_is_a_node() -> None:
    """One report names its neighbours: they are nodes, with links both ways and no routes of their own."""
    network = network_in(graph_of(RING.topology(0)))
    assert network.nodes == ("R000", "R001", "R003")
    assert len(network.links) == 4
    assert network.paths.lengths.sum() == 0


@pytest.mark.parametrize("told", ["R001", "R001.example.net", loopback(1)])
def test_neighbours_are_known_by_name_host_name_and_address(told: str) -> None:
    """LLDP may tell a full name and OSPF a router id: whichever came first, it is one node and one wire."""
    heard = device("R000", [("eth0", told, "eth1")])
    for reports in ((heard, RING.topology(1)), (RING.topology(1), heard)):
        network = network_in(graph_of(*reports))
        assert [link.target for link in network.links if link.source == "R000"] == ["R001"]
        assert told == "R001" or told not in network.nodes


def test_what_nobody_tells_is_assumed_and_counted() -> None:
    """Without speed and annotations, defaults hold, and the state says how many capacities are unknown."""
    graph = graph_of(RING.topology(0))
    link = network_in(graph).links[0]
    assert (link.capacity_bps, link.propagation_delay_s, link.buffer_packets) == (
        DEFAULT_CAPACITY_BPS,
        0.0,
        DEFAULT_BUFFER_PACKETS,
    )
    assert close(graph, 2).quality == ("capacity-unknown:4",)


def test_an_annotated_capacity_beats_the_interface_speed() -> None:
    """The operator's figure is taken where there is one, the interface's speed elsewhere."""
    graph = ring_graph()
    for i in range(4):
        graph.set_interface(name(i), "eth0", InterfaceStatus(T0, speed_bps=2e8))
    note = LinkAnnotation(source="R000", target="R001", capacity_bps=5e7, source_interface="eth0")
    other = LinkAnnotation(source="R000", target="R001", capacity_bps=9e9)
    graph.apply(LinkAnnotations(network="ring", observed_at_ns=T0 + 1, links=(other, note)))
    graph.refresh(2)
    capacity = {link.name: link.capacity_bps for link in network_in(graph).links}
    assert capacity["R000->R001"] == 5e7  # the one that names the interface
    assert capacity["R001->R002"] == 2e8
    assert capacity["R002->R001"] == 2e8  # its own end's speed is unknown: the far end's


def test_an_annotated_line_rate_reaches_the_network() -> None:
    """What the operator says of a shaped link's port; elsewhere the capacity, as from older records."""
    graph = ring_graph()
    note = LinkAnnotation(source="R000", target="R001", capacity_bps=5e7, line_rate_bps=1e9)
    odd = LinkAnnotation(source="R001", target="R002", line_rate_bps=float("nan"))
    graph.apply(LinkAnnotations(network="ring", observed_at_ns=T0 + 1, links=(note, odd)))
    graph.refresh(2)
    told = {link.name: link.line_rate_bps for link in network_in(graph).links}
    assert told.pop("R000->R001") == 1e9
    assert set(told.values()) == {None}


@pytest.mark.parametrize(("delay", "buffer"), [(-1.0, 0), (float("nan"), -5), (float("inf"), 0)])
def test_facts_of_a_link_that_cannot_be_are_as_if_not_told(delay: float, buffer: int) -> None:
    """An annotation out of range, as any program may write one, leaves the defaults, and a network."""
    graph = ring_graph()
    note = LinkAnnotation(source="R000", target="R001", propagation_delay_s=delay, buffer_packets=buffer)
    graph.apply(LinkAnnotations(network="ring", observed_at_ns=T0 + 1, links=(note,)))
    graph.refresh(2)
    link = next(link for link in network_in(graph).links if link.name == "R000->R001")
    assert (link.propagation_delay_s, link.buffer_packets) == (0.0, DEFAULT_BUFFER_PACKETS)


# --------------------------------------------------------------------------------------------------- routes


def test_the_longest_prefix_decides() -> None:
    """Of several routes that cover a node's prefix, the longest is used; a longer one inside it is not."""
    routes = (
        Route(prefix="0.0.0.0/0", interface="eth1"),
        Route(prefix="10.1.0.0/16", interface="eth0"),
        Route(prefix="10.1.2.128/25", interface="eth1"),
    )
    a = device("A", [("eth0", "B", "x"), ("eth1", "C", "y")], routes=routes)
    b = device("B", [], routes=(Route(prefix="10.1.2.0/24", local=True),))
    c = device("C", [], routes=(Route(prefix="10.9.0.0/16", local=True),))
    network = network_in(graph_of(a, b, c))
    row = [network.links[k].target if k >= 0 else None for k in network.next_link[0]]
    assert row == [None, "B", "C"]


@pytest.mark.parametrize(
    ("route", "target"),
    [
        (Route(prefix="10.9.0.0/16", interface="eth1"), "C"),
        (Route(prefix="10.9.0.0/16", next_hop="192.0.2.2"), "C"),  # the owner of the next hop's address
        (
            Route(prefix="10.9.0.0/16", next_hop="192.0.2.2", interface="Gi0/1"),
            "C",
        ),  # by another name
        (Route(prefix="10.9.0.0/16", next_hop="203.0.113.9"), None),  # a next hop that nobody owns
        (Route(prefix="10.9.0.0/16", interface="eth7"), None),
        (Route(prefix="10.8.0.0/16", interface="eth1"), None),  # of somebody else
    ],
)
def test_a_route_leads_to_a_link(route: Route, target: str | None) -> None:
    """By interface, else by next hop, a route leads to one link, or to none."""
    a = device("A", [("eth0", "B", "x"), ("eth1", "C", "y")], routes=(route,))
    address = InterfaceAddress(interface="y", address="192.0.2.2", prefix="192.0.2.0/30")
    c = device("C", [], routes=(Route(prefix="10.9.0.0/16", local=True),), addresses=(address,))
    network = network_in(graph_of(a, c))
    link = network.next_link[0, network.node_index["C"]]
    assert (network.links[link].target if link >= 0 else None) == target


def test_on_a_shared_segment_the_next_hop_chooses() -> None:
    """Two neighbours on one interface are told apart by who owns the next hop."""
    routes = (Route(prefix="10.9.0.0/16", next_hop="192.0.2.3", interface="eth0"),)
    a = device("A", [("eth0", "B", "x"), ("eth0", "C", "y")], routes=routes)
    address = InterfaceAddress(interface="y", address="192.0.2.3", prefix="192.0.2.0/24")
    c = device("C", [], routes=(Route(prefix="10.9.0.0/16", local=True),), addresses=(address,))
    network = network_in(graph_of(a, c))
    assert network.links[network.next_link[0, 2]].target == "C"


def test_a_changed_route_changes_its_row_alone() -> None:
    """When one device sends a prefix the other way, only that entry of the next hops changes."""
    graph = ring_graph()
    before = network_in(graph).next_link.copy()
    report = RING.topology(0, T0 + S)
    routes = tuple(
        msgspec.structs.replace(r, interface="eth1", next_hop=loopback(3)) if r.next_hop == loopback(1) else r
        for r in report.routes
        if not r.prefix.startswith("10.255.0.3/")
    )
    graph.apply(msgspec.structs.replace(report, routes=routes))
    assert graph.refresh(2)
    changed = np.argwhere(network_in(graph).next_link != before)
    assert {int(row) for row, _ in changed} == {0}


def test_prefixes_match_in_both_versions() -> None:
    """Longest match works for IPv4 and IPv6, and what is no address is none."""
    table = PrefixTable(
        (p, text)
        for text in ("10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32", "::/0")
        if (p := parse_prefix(text))
    )
    wanted = ["10.1.2.3", "10.2.0.0/16", "11.0.0.1", "2001:db8:1::/48", "2a00::1", "10.0.0.0/7"]
    found = [table.longest(p) for text in wanted if (p := parse_prefix(text))]
    assert found == ["10.1.0.0/16", "10.0.0.0/8", None, "2001:db8::/32", "::/0", None]
    assert parse_prefix("R000") is None


# ------------------------------------------------------------------------------------------ versions, expiry


def test_only_a_real_change_moves_the_topology_version() -> None:
    """The same report again, in another order and later, changes nothing; another one does."""
    graph = ring_graph()
    report = RING.topology(0, T0 + S)
    again = msgspec.structs.replace(
        report, routes=report.routes[::-1], neighbours=report.neighbours[::-1], quality=("slow",)
    )
    graph.apply(again)
    assert not graph.refresh(2)
    graph.apply(msgspec.structs.replace(report, observed_at_ns=T0 + 2 * S, neighbours=report.neighbours[:1]))
    graph.apply(msgspec.structs.replace(RING.topology(3, T0 + 2 * S), neighbours=()))
    assert graph.refresh(3)
    assert graph.topology_version == 3
    assert len(graph.topology.links) == 6


def test_an_older_report_is_ignored() -> None:
    """A report that comes after a newer one of the same device changes nothing."""
    graph = ring_graph()
    graph.apply(msgspec.structs.replace(RING.topology(0, T0 - S), neighbours=(), routes=()))
    assert not graph.refresh(2)


def test_devices_go_when_nothing_is_heard_and_nobody_names_them() -> None:
    """A device long unheard stays while neighbours name it, and goes with the last of them."""
    graph = ring_graph()
    for i in (0, 1, 2):
        graph.heard(name(i), T0 + 3600 * S)
    graph.expire(T0 + 3600 * S)
    graph.refresh(2)
    assert "R003" in graph.nodes  # R000 and R002 still name it
    graph.expire(T0 + 2 * 3600 * S)
    assert graph.refresh(3)
    assert graph.nodes == ()


@given(st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_state_does_not_depend_on_the_order_of_reports(rnd: random.Random) -> None:
    """Reports, annotations and statuses in any order, with refreshes in between, give the same bytes."""
    statuses = [
        (name(i), InterfaceStatus(T0 + at, up=up, speed_bps=1e9))
        for i, up, at in ((0, True, 0), (0, False, 1), (1, True, 0))
    ]
    told: list[object] = [*(RING.topology(i) for i in range(4)), RING.annotations(), *statuses]
    assert _graph_told(rnd.sample(told, len(told)), rnd).topology == _graph_told(told, rnd).topology


def _graph_told(told: list[object], rnd: random.Random) -> GraphState:
    graph = GraphState("ring")
    for one in told:
        if isinstance(one, DeviceTopology | LinkAnnotations):
            graph.apply(one)
        elif isinstance(one, tuple):
            graph.set_interface(one[0], "eth0", one[1])
        if rnd.random() < 0.3:
            graph.refresh(1)
    graph.refresh(1)
    return graph


def test_a_snapshot_restores_the_same_graph() -> None:
    """Restored, the graph has the same topology, version and snapshot, and sees no change."""
    graph = ring_graph()
    graph.set_interface("R000", "eth0", InterfaceStatus(T0, up=False, speed_bps=1e8, if_index=7))
    graph.refresh(5)
    again = GraphState("ring")
    again.restore(graph.snapshot())
    assert again.snapshot() == graph.snapshot()
    assert again.topology == graph.topology
    assert again.inner_if_indices("R000") == {7}
    assert not again.refresh(6)
    assert again.topology_version == 5


# ------------------------------------------------------------------------------------------------- the view


def test_loads_come_from_the_sending_end_else_from_the_receiving_one() -> None:
    """A link is measured at its source interface; without that, by what its target interface received."""
    graph, view = ring_graph(), StateView()
    rates = {
        ("R000", "eth0"): InterfaceRates(out_bps=1e6, out_pps=100, drops_pps=5),
        ("R002", "eth1"): InterfaceRates(in_bps=2e6, in_pps=200),
    }
    view.apply(close(graph, 6, Measurements(interfaces=rates)))
    index = {link: k for k, link in enumerate(view.network.link_names)}
    assert view.link_measured[index["R000->R001"]] == 1
    assert view.link_load_bps[index["R000->R001"]] == pytest.approx(1e6, rel=1e-3)
    assert view.link_drops_pps[index["R000->R001"]] == pytest.approx(5, rel=1e-3)
    assert view.link_measured[index["R001->R002"]] == 2
    assert view.link_load_pps[index["R001->R002"]] == pytest.approx(200, rel=1e-3)
    assert view.link_measured[index["R003->R000"]] == 0


def test_a_delta_needs_its_keyframe() -> None:
    """A view refuses a delta to an unseen topology, stays as it was, and takes it after the keyframe."""
    graph, view = ring_graph(), StateView()
    updates = [close(graph, version) for version in range(5, 8)]
    assert [update.keyframe for update in updates] == [False, True, False]
    with pytest.raises(DecodeError, match="wait for the next keyframe"):
        view.apply(updates[0])
    assert view.version == -1
    view.apply(updates[1])
    network = view.network
    view.apply(updates[2])
    assert view.version == 7
    assert view.network is network  # not rebuilt: what models cache on it stays
    other = msgspec.structs.replace(updates[2], topology_version=3)
    with pytest.raises(DecodeError):
        view.apply(other)
    assert view.version == 7


def test_a_damaged_update_changes_nothing() -> None:
    """Arrays of the wrong size, and next hops to links that are not there, are refused as a whole."""
    graph, view = ring_graph(), StateView()
    good = close(graph, 6)
    view.apply(good)
    assert good.topology is not None
    short = msgspec.structs.replace(good, version=9, traffic_bps=good.link_load_bps)
    wrong = msgspec.structs.replace(good.topology, links=good.topology.links[:2])
    for bad in (short, msgspec.structs.replace(good, version=9, topology=wrong)):
        with pytest.raises(DecodeError, match="damaged"):
            view.apply(bad)
    assert view.version == 6


def test_class_queues_come_with_their_links() -> None:
    """By link and name; their drops are the link's where the interface tells fewer; others have none."""
    graph, view = ring_graph(), StateView()
    view.apply(close(graph, 6))
    assert view.queues.of(0) == []
    queues = (QueueRates("bulk", 8e5, 30.0, 6_000.0), QueueRates("voice", 1e5, 2.0))
    rates = {
        ("R000", "eth0"): InterfaceRates(out_bps=1e6, drops_pps=5, queues=queues),
        ("R001", "eth0"): InterfaceRates(out_bps=1e6, drops_pps=50, queues=queues[1:]),
    }
    update = close(graph, 7, Measurements(interfaces=rates))
    view.apply(update)
    first, second = (view.network.link_names.index(name) for name in ("R000->R001", "R001->R002"))
    assert [name for name, *_ in view.queues.of(first)] == ["bulk", "voice"]
    assert view.queues.of(first)[0][1:] == pytest.approx((8e5, 30.0, 6_000.0), rel=1e-3)
    assert [name for name, *_ in view.queues.of(second)] == ["voice"]
    assert sum(len(view.queues.of(k)) for k in range(len(view.network.links))) == 3
    assert view.link_drops_pps[[first, second]] == pytest.approx([32, 50], rel=1e-3)
    assert update.queues is not None
    disordered, beyond = (pack_integers(np.array(links, np.int16)) for links in ([2, 0, 0], [0, 0, 99]))
    for wrong in (
        {"classes": ("bulk",)}, {"link": disordered}, {"link": beyond}, {"sent_bps": update.link_load_bps}
    ):  # fmt: skip
        damaged = msgspec.structs.replace(update, queues=msgspec.structs.replace(update.queues, **wrong))
        with pytest.raises(DecodeError, match="damaged"):
            StateView().apply(msgspec.structs.replace(damaged, topology=graph.topology))
