"""Where nodes stand on the map."""

from __future__ import annotations

import itertools
import math

import pytest

from ndtwin.api import layout
from ndtwin.api.layout import positions
from twin.network import Network
from twin.topologies import gbn, geant2, nsfnet, power_law

NETWORKS = {
    "nsfnet": nsfnet,
    "gbn": gbn,
    "geant2": geant2,
    "power-law": lambda: power_law(60, seed=2),
}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Network:
    """Maps with places, and without."""
    return NETWORKS[request.param]().network()


def test_every_node_has_a_place_of_its_own(network: Network) -> None:
    """Inside the map, and no two so near that their labels cover each other."""
    places = positions(network)
    assert set(places) == set(network.nodes)
    assert all(0 <= x <= 1 and 0 <= y <= 1 for x, y in places.values())
    nearest = min(
        math.hypot(a[0] - b[0], 0.45 * (a[1] - b[1])) for a, b in itertools.combinations(places.values(), 2)
    )
    assert nearest > 0.3 / math.sqrt(60)


def test_the_same_network_looks_the_same_at_every_start(network: Network) -> None:
    """No chance is involved: a fresh computation gives the same places."""
    first = positions(network)
    layout._positions.cache_clear()
    assert positions(network) == first


def test_known_cities_keep_their_bearings() -> None:
    """Seattle is north-west of Houston, and New York east of both."""
    places = positions(nsfnet().network())
    assert places["WA"][0] < places["TX"][0] < places["NY"][0]
    assert places["WA"][1] < places["TX"][1]


def test_neighbours_stand_nearer_than_strangers() -> None:
    """Without places, distance on the map follows distance in hops."""
    network = power_law(60, seed=2).network()
    places, pairs = positions(network), {(k.source, k.target) for k in network.links}

    def mean_distance(chosen: list[tuple[str, str]]) -> float:
        return sum(math.dist(places[a], places[b]) for a, b in chosen) / len(chosen)

    strangers = [p for p in itertools.permutations(network.nodes, 2) if p not in pairs]
    assert mean_distance(list(pairs)) < 0.5 * mean_distance(strangers)
