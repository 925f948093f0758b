"""What-if answers from a copy and says what would change."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from twin.errors import TopologyError
from twin.network import Network, Traffic
from twin.queueing import MG1K
from twin.routing import shortest_paths
from twin.topologies import nsfnet
from twin.whatif import what_if

MODEL = MG1K()


@pytest.fixture(scope="module")
def network() -> Network:
    """NSFNET, routed by hops."""
    return nsfnet().network()


@pytest.fixture(scope="module")
def traffic(network: Network) -> Traffic:
    """The same small flow everywhere: the busiest link is at about 0.6."""
    bps = np.full(network.path_count, 3e5)
    return Traffic(bps=bps, pps=bps / 8e3)


def test_nothing_changed_means_no_difference(network: Network, traffic: Traffic) -> None:
    """Without changes before and after are the same, exactly."""
    result = what_if(network, traffic, MODEL)
    assert (result.before.mean_s == result.after.mean_s).all()
    assert not result.delta_s.any()
    assert (result.unreachable, result.rerouted, result.notes) == ((), (), ())


def test_a_link_down_moves_its_paths_and_no_others(network: Network, traffic: Traffic) -> None:
    """Exactly the paths over the cut are rerouted, they avoid it, and none gets shorter."""
    cut = network.link_names[0]
    source, target = cut.split("->")
    result = what_if(network, traffic, MODEL, links_down=[f"{source}<->{target}"])
    over = {
        network.path_name(path)
        for path in range(network.path_count)
        if {0, 1} & set(network.paths.of(path).tolist())
    }
    assert set(result.rerouted) == over
    assert result.unreachable == ()
    assert not set(result.network.paths.links.tolist()) & {0, 1}
    assert (result.network.paths.lengths >= network.paths.lengths).all()
    assert result.after.link_utilisation[0] == 0
    assert result.worst_link_after.utilisation >= result.worst_link_before.utilisation


def test_a_node_cut_off_is_unreachable(network: Network, traffic: Traffic) -> None:
    """With all links of a node down, all 26 paths from and to it are reported, with zero delay."""
    lonely = network.nodes[0]
    cuts = [name for name in network.link_names if lonely in name.split("->")]
    result = what_if(network, traffic, MODEL, links_down=cuts)
    assert set(result.unreachable) == {
        n for i in range(182) if lonely in (n := network.path_name(i)).split("->")
    }
    gone = network.path_index(lonely, network.nodes[1])
    assert result.after.mean_s[gone] == 0
    assert result.delta_s[gone] == 0


def test_a_heavier_weight_pushes_traffic_away(network: Network, traffic: Traffic) -> None:
    """Raising the weight of the busiest link lowers its load and leaves everything reachable."""
    busiest = what_if(network, traffic, MODEL).worst_link_before
    result = what_if(network, traffic, MODEL, weights={busiest.name: 5})
    index = network.link_names.index(busiest.name)
    assert result.after.link_utilisation[index] < busiest.utilisation
    assert result.rerouted
    assert result.unreachable == ()


def test_equal_cost_ties_do_not_move(network: Network, traffic: Traffic) -> None:
    """A routing that breaks ties its own way is kept: only paths over the changed link move."""
    rng = np.random.default_rng(0)
    jitter = 1 + 1e-3 * rng.random(len(network.links))
    other = Network(network.nodes, network.links, shortest_paths(network.nodes, network.links, jitter))
    assert (other.next_link != network.next_link).any()
    result = what_if(other, traffic, MODEL, links_down=[network.link_names[0]])
    over = {other.path_name(i) for i in range(182) if 0 in other.paths.of(i)}
    assert set(result.rerouted) == over
    assert result.notes == ()


def test_a_routing_that_is_not_shortest_is_noted(network: Network, traffic: Traffic) -> None:
    """When the routes in force do not follow from the weights assumed, the result says so."""
    weights = np.ones(len(network.links))
    weights[:2] = 10
    other = Network(network.nodes, network.links, shortest_paths(network.nodes, network.links, weights))
    assert "not the shortest" in what_if(other, traffic, MODEL, links_down=[network.link_names[4]]).notes[0]
    given = what_if(other, traffic, MODEL, links_down=[network.link_names[4]], base_weights=weights.tolist())
    assert given.notes == ()


def test_capacity_and_traffic_scale(network: Network, traffic: Traffic) -> None:
    """Twice the traffic on twice the capacity everywhere halves the queueing and keeps the loads."""
    doubled = {
        name: 2 * link.capacity_bps for name, link in zip(network.link_names, network.links, strict=True)
    }
    result = what_if(network, traffic, MODEL, capacities=doubled, traffic_scale=2.0)
    np.testing.assert_allclose(result.after.link_utilisation, result.before.link_utilisation)
    assert (result.delta_s < 0).all()
    assert (what_if(network, traffic, MODEL, traffic_scale=1.3).delta_s > 0).all()


def test_inputs_are_left_alone(network: Network, traffic: Traffic) -> None:
    """Links, routes and rates that were given are the same afterwards, bit for bit."""
    links, routes, bps = network.links, network.next_link.copy(), copy.copy(traffic.bps)
    name = network.link_names[3]
    what_if(
        network, traffic, MODEL, links_down=[name], weights={name: 3}, capacities={name: 1e6}, traffic_scale=2
    )
    assert network.links == links
    assert (network.next_link == routes).all()
    assert (traffic.bps == bps).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"links_down": ["XX->YY"]}, "no link 'XX->YY' in this network: links are named like"),
        ({"weights": {"XX<->YY": 1}}, "no link 'XX<->YY'"),
        ({"capacities": {"XX->YY": 1e6}}, "no link 'XX->YY'"),
        ({"traffic_scale": -1}, "traffic_scale is -1: give a positive number"),
        ({"traffic_scale": float("nan")}, "traffic_scale is nan"),
    ],
)
def test_wrong_questions_are_refused(
    network: Network, traffic: Traffic, change: dict[str, object], message: str
) -> None:
    """A link that is not there and a number that cannot be are named in one line."""
    with pytest.raises(TopologyError, match=message.replace("(", r"\(")):
        what_if(network, traffic, MODEL, **change)  # type: ignore[arg-type]  # the table mixes types


@pytest.mark.parametrize(("what", "value"), [("weights", 0), ("weights", -1), ("capacities", 0)])
def test_weights_and_capacities_are_positive(
    network: Network, traffic: Traffic, what: str, value: float
) -> None:
    """Zero or negative weights and capacities are refused."""
    with pytest.raises(TopologyError, match="give a positive number"):
        what_if(network, traffic, MODEL, **{what: {network.link_names[0]: value}})  # type: ignore[arg-type]  # as above
