"""Names, addresses and prefixes → nodes."""

from __future__ import annotations

import pytest
from strategies import Ring, customers, loopback, name

from stream.resolve import Resolver
from twin.graph import GraphState, network_of
from twin.network import Network

RING = Ring()


def ring_graph() -> GraphState:
    """The ring, refreshed."""
    graph = GraphState("ring")
    for i in range(4):
        graph.apply(RING.topology(i))
    graph.refresh(1)
    return graph


@pytest.mark.parametrize(
    ("token", "node"),
    [
        (name(2), 2),
        (customers(2), 2),
        (customers(2).replace(".0/24", ".77"), 2),  # a customer's host
        (customers(2).replace(".0/24", ".64/26"), 2),  # part of a prefix
        (loopback(3), 3),
        (f"{loopback(3)}/32", 3),
        ("10.0.0.0/8", -1),  # wider than any one node
        ("192.0.2.1", -1),
        ("nobody", -1),
        ("", -1),
    ],
)
def test_tokens_resolve_to_nodes(token: str, node: int) -> None:
    """Every way in which devices name a node leads to it, also when asked again; nowhere is −1."""
    resolver = Resolver(ring_graph())
    assert [resolver.node(token), resolver.node(token)] == [node, node]
    assert resolver.name(token) == (name(node) if node >= 0 else token)


def test_paths_are_in_the_canonical_order() -> None:
    """The resolver's path index is that of the network."""
    graph = ring_graph()
    resolver, network = Resolver(graph), network_of(graph.topology)
    assert isinstance(network, Network)
    assert resolver.path_count == network.path_count
    for path in range(network.path_count):
        assert resolver.path(*network.path_ends(path)) == path
