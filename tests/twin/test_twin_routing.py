"""Shortest-path routing against networkx, and its promises: deterministic, loop-free, fast."""

from __future__ import annotations

import time
from dataclasses import replace
from math import inf, nan

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twin.errors import TopologyError
from twin.network import Link, Network
from twin.routing import ospf_weights, shortest_paths
from twin.topologies import nsfnet, power_law

SQUARE = ("A", "B", "C", "D")  # A to D over B (links 0, 1) or over C (links 2, 3)
SQUARE_LINKS = tuple(Link(*ends, capacity_bps=1e9) for ends in ("AB", "BD", "AC", "CD"))


@settings(deadline=None, max_examples=30)
@given(
    nodes=st.integers(2, 40),
    seed=st.integers(0, 1000),
    weight_kind=st.sampled_from(["hops", "whole", "real"]),
    down_share=st.floats(0, 0.4),
)
def test_paths_are_as_short_as_networkx_finds(
    nodes: int, seed: int, weight_kind: str, down_share: float
) -> None:
    """Any network and weights, some links down: all paths cost what networkx says, or neither has one."""
    random = np.random.default_rng(seed)
    topology = power_law(nodes, seed, mean_degree=min(3.0, nodes - 1))
    links = tuple(replace(link, up=bool(random.random() >= down_share)) for link in topology.links())
    weights = {
        "hops": np.ones(len(links)),
        "whole": random.integers(1, 10, len(links)).astype(float),
        "real": random.uniform(0.1, 3.0, len(links)),
    }[weight_kind]
    network = Network(topology.nodes, links, shortest_paths(topology.nodes, links, weights))
    graph: nx.MultiDiGraph[int] = nx.MultiDiGraph()
    graph.add_nodes_from(range(nodes))
    for index, link in enumerate(links):
        if link.up:
            graph.add_edge(network.source_index[index], network.target_index[index], weight=weights[index])
    shortest = dict(nx.all_pairs_dijkstra_path_length(graph))
    for path in range(network.path_count):
        source, destination = network.path_ends(path)
        hops = network.paths.of(path)
        if destination not in shortest[source]:
            assert len(hops) == 0
        else:
            assert weights[hops].sum() == pytest.approx(shortest[source][destination])


def test_equal_paths_are_decided_by_the_lowest_link() -> None:
    """Of two equally short ways the one over the link listed first wins, however the weights tie."""
    for weights in (None, [1, 1, 1, 1], [3, 1, 1, 3]):
        assert shortest_paths(SQUARE, SQUARE_LINKS, weights)[0, 3] == 0
    swapped = (*SQUARE_LINKS[2:], *SQUARE_LINKS[:2])
    assert swapped[shortest_paths(SQUARE, swapped)[0, 3]].target == "C"


def test_weights_steer_and_links_that_are_down_are_avoided() -> None:
    """A dearer or a dead link sends traffic the other way; without a way there is no next link."""
    assert shortest_paths(SQUARE, SQUARE_LINKS, [2, 1, 1, 1])[0, 3] == 2
    down = (replace(SQUARE_LINKS[0], up=False), *SQUARE_LINKS[1:])
    assert shortest_paths(SQUARE, down)[0, 3] == 2
    assert shortest_paths(SQUARE, down)[0, 1] == -1
    assert shortest_paths(SQUARE, SQUARE_LINKS)[3, 0] == -1
    assert (np.diag(shortest_paths(SQUARE, SQUARE_LINKS)) == -1).all()


def test_ospf_weights_are_reference_over_capacity() -> None:
    """Costs as RFC 2328 routers set them: 100 Mbit/s over the speed, at least 1."""
    links = [Link("A", "B", capacity_bps) for capacity_bps in (1e6, 10e6, 45e6, 100e6, 10e9)]
    assert list(ospf_weights(links)) == [100, 10, 2, 1, 1]


def test_three_hundred_nodes_are_routed_within_two_seconds() -> None:
    """All 89,700 paths of a network of 300 nodes, compiling left out."""
    topology = power_law(300, seed=1)
    links = topology.links()
    shortest_paths(SQUARE, SQUARE_LINKS)
    began = time.perf_counter()
    next_link = shortest_paths(topology.nodes, links)
    assert time.perf_counter() - began < 2.0
    assert (next_link >= 0).sum() == 300 * 299


@pytest.mark.parametrize("weights", [[1.0], [0.0] * 42, [-1.0] * 42, [nan] * 42, [inf] * 42])
def test_weights_that_cannot_be_are_refused(weights: list[float]) -> None:
    """Wrong number, zero, negative, NaN or infinite weights raise TopologyError."""
    topology = nsfnet()
    with pytest.raises(TopologyError):
        shortest_paths(topology.nodes, topology.links(), weights)


def test_links_to_unknown_nodes_are_refused() -> None:
    """A link whose end is not in the list of nodes raises TopologyError naming it."""
    with pytest.raises(TopologyError, match="'D'"):
        shortest_paths(SQUARE[:3], SQUARE_LINKS)
