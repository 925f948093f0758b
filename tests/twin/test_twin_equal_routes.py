"""Equal-cost routes: found in forwarding tables, taken apart for models, put together for the rest."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from anomaly.residuals import Expectation, observations, residual
from stream.calibration import readings_of
from stream.predictor import load_model
from twin.compare import comparable_mean_s
from twin.equal_routes import (
    MOST_ROUTES,
    crossings,
    equal_routes,
    predict_paths,
    spread,
)
from twin.errors import DecodeError
from twin.graph import GraphState
from twin.graph_view import MeasuredDelays, StateView, network_of
from twin.network import Link, Network, Traffic
from twin.packing import pack_integers, unpack_integers
from twin.queueing import MG1K
from twin.records import DeviceTopology, InterfaceAddress, Neighbour, Route
from twin.traffic import link_load_bps
from twin.whatif import what_if

# A diamond: A reaches D over B or over C.   A -> B (0), B -> D (1), A -> C (2), C -> D (3), and back.
WAYS = ("AB", "BD", "AC", "CD", "BA", "DB", "CA", "DC")
NODES = ("A", "B", "C", "D")


def diamond(*, equal: bool = True, slow_s: float = 0.004) -> Network:
    """Over C it takes ``slow_s`` more each hop. D's way back is over B alone."""
    links = tuple(Link(a, b, 1e7, 0.001 + (slow_s if "C" in (a, b) else 0.0), 64) for a, b in WAYS)
    number = {way: k for k, way in enumerate(WAYS)}
    next_link = np.full((4, 4), -1, dtype=np.int16)
    for way in WAYS:
        next_link[NODES.index(way[0]), NODES.index(way[1])] = number[way]
    next_link[0, 3], next_link[3, 0] = number["AB"], number["DB"]
    next_link[1, 2], next_link[2, 1] = number["BA"], number["CA"]
    more = np.array([[0, 3, number["AC"]]], dtype=np.int16)
    return Network(NODES, links, next_link, equal_links=more if equal else None)


def traffic(network: Network, bps: float = 6e6) -> Traffic:
    """Only A sends to D."""
    rates = np.zeros(network.path_count)
    rates[network.path_index("A", "D")] = bps
    return Traffic(bps=rates, pps=rates / 8000.0, observed_s=10.0)


def several_routes(network: Network) -> list[bool]:
    """Which paths use more than one route."""
    routes = equal_routes(network)
    counts = np.ones(network.path_count) if routes is None else np.bincount(routes.path)
    return (counts > 1).tolist()


def test_a_path_is_taken_apart_into_its_routes() -> None:
    """Half the packets over each next hop; paths with one route are left alone."""
    network = diamond()
    found = equal_routes(network)
    assert found is not None
    path = network.path_index("A", "D")
    mine = np.flatnonzero(found.path == path)
    assert [found.routes.of(int(r)).tolist() for r in mine] == [[0, 1], [2, 3]]
    assert found.share[mine].tolist() == [0.5, 0.5]
    assert len(found.path) == network.path_count + 1
    assert np.flatnonzero(several_routes(network)).tolist() == [path]
    links, share = crossings(network)
    assert links.of(path).tolist() == [0, 1, 2, 3]
    assert share[links.offsets[path] : links.offsets[path + 1]].tolist() == [0.5] * 4


def test_where_every_path_has_one_route_nothing_changes() -> None:
    """The very same network, paths and prediction."""
    network = diamond(equal=False)
    demand = traffic(network)
    assert equal_routes(network) is None
    assert spread(network, demand) == (network, demand)
    assert crossings(network)[0] is network.paths
    before, after = MG1K().predict(network, demand), predict_paths(MG1K(), network, demand)
    assert before.mean_s.tolist() == after.mean_s.tolist()


@pytest.mark.parametrize("name", ["mg1k", "routenet"])
def test_prediction_is_the_mean_over_the_routes(name: str) -> None:
    """Each route carries half: its own delay, its own load; the spread between them is jitter."""
    model, _ = load_model(name)
    network = diamond()
    demand = traffic(network)
    said = predict_paths(model, network, demand)
    path = network.path_index("A", "D")
    half = predict_paths(model, diamond(equal=False), traffic(network, 3e6))
    over_b = half.mean_s[path]
    assert said.mean_s[path] == pytest.approx(over_b + 0.004, rel=0.02)  # 8 ms more over C, for half of them
    assert said.jitter_s[path] >= 0.0039
    assert said.link_utilisation[:4] == pytest.approx([0.3] * 4, abs=0.01)
    assert said.mean_s.shape == (network.path_count,)
    assert said.link_utilisation.shape == (8,)


def test_load_follows_the_routes() -> None:
    """What the models are given puts half the traffic on each way, and keeps the sum."""
    network = diamond()
    apart, flows = spread(network, traffic(network))
    assert link_load_bps(apart, flows.bps)[:4].tolist() == [3e6] * 4
    assert flows.bps.sum() == pytest.approx(6e6)


def test_probes_and_round_trips_are_compared_over_all_routes() -> None:
    """There over two ways, back over one; a smaller probe is transmitted faster on both."""
    network = diamond()
    demand = traffic(network)
    mean = predict_paths(MG1K(), network, demand).mean_s
    there, back = network.path_index("A", "D"), network.path_index("D", "A")
    trip = MeasuredDelays("round-trip", mean, np.ones_like(mean), None)
    assert comparable_mean_s(network, demand, mean, trip)[there] == pytest.approx(mean[there] + mean[back])
    small = replace(trip, direction="one-way", packet_bits=1000.0)
    expected = mean[there] - 7000.0 * 2 / 1e7
    assert comparable_mean_s(network, demand, mean, small)[there] == pytest.approx(expected)


def test_tomography_gives_each_link_its_share_of_a_row() -> None:
    """A rise on one of two ways is half seen in the mean over both."""
    network = diamond()
    demand = traffic(network)
    said = predict_paths(MG1K(), network, demand)
    count = np.full(network.path_count, 100.0)
    measured = MeasuredDelays("one-way", said.mean_s + 0.001, count, None)
    expected = Expectation(said.mean_s, said.log_width, said.jitter_s)
    distrusted = np.zeros(network.path_count, dtype=np.bool_)
    part = residual(network, demand, expected, "stamp", measured, distrusted=distrusted)
    zeros = np.zeros(network.path_count)
    rows = observations(network, part, 0, zeros, zeros + 0.1)
    mine = rows.row == np.flatnonzero(rows.path == network.path_index("A", "D"))[0]
    assert rows.links[mine].tolist() == [0, 1, 2, 3]
    assert rows.share[mine].tolist() == [0.5] * 4


def test_routes_beyond_the_bound_are_left_out_and_shares_still_add_up() -> None:
    """Six stages of two ways make 64 routes; 16 of them stand for all."""
    stages = 6
    nodes = tuple(
        sorted([f"H{i}" for i in range(stages + 1)] + [f"M{i}{w}" for i in range(stages) for w in "ab"])
    )
    index = {name: i for i, name in enumerate(nodes)}
    links, equal = [], []
    next_link = np.full((len(nodes), len(nodes)), -1, dtype=np.int16)
    last = index[f"H{stages}"]
    for i in range(stages):
        for w in "ab":
            links.append(Link(f"H{i}", f"M{i}{w}", 1e7))
            links.append(Link(f"M{i}{w}", f"H{i + 1}", 1e7))
            next_link[index[f"M{i}{w}"], last] = len(links) - 1
        next_link[index[f"H{i}"], last] = 4 * i
        equal.append((index[f"H{i}"], last, 4 * i + 2))
    network = Network(nodes, tuple(links), next_link, equal_links=np.array(equal, dtype=np.int16))
    found = equal_routes(network)
    assert found is not None
    mine = found.path == network.path_index("H0", f"H{stages}")
    assert mine.sum() == MOST_ROUTES
    assert found.share[mine].sum() == pytest.approx(1.0)
    assert set(found.routes.lengths[mine].tolist()) == {2 * stages}


def test_equal_next_hops_that_run_in_circles_forward_nothing() -> None:
    """A loop among the alternatives is left out; what arrives is what counts."""
    network = diamond()
    back = np.array([[0, 3, 2], [2, 3, 6]], dtype=np.int16)  # C may send D's packets back to A
    found = equal_routes(replace(network, equal_links=back))
    assert found is not None
    mine = found.path == network.path_index("A", "D")
    assert found.share[mine].sum() == pytest.approx(1.0)
    assert found.routes.lengths[mine].max() <= 4


def test_a_network_that_spreads_does_so_after_a_change() -> None:
    """What if: one of two ways down or dearer leaves the other; where both stay as good, both are used."""
    network = diamond(slow_s=0.0)
    demand = traffic(network)
    path = network.path_index("A", "D")
    down = what_if(network, demand, MG1K(), links_down=["A->C"])
    assert not several_routes(down.network)[path]
    assert down.after.link_utilisation[:4] == pytest.approx([0.6, 0.6, 0.0, 0.0], abs=0.01)
    assert down.before.link_utilisation[:4] == pytest.approx([0.3] * 4, abs=0.01)
    same = what_if(network, demand, MG1K(), weights={"B->A": 1.0})
    assert several_routes(same.network)[path]
    assert same.after.mean_s[path] == pytest.approx(same.before.mean_s[path])
    dearer = what_if(network, demand, MG1K(), weights={"A->C": 5.0})
    assert not several_routes(dearer.network)[path]


# ------------------------------------------------------------------------------- from forwarding tables


def _device(name: str, neighbours: dict[str, str], routes: list[tuple[str, str, int]]) -> DeviceTopology:
    """Port ``e<peer>`` leads to a peer; router i is 10.255.0.i."""
    own = f"10.255.0.{NODES.index(name) + 1}"
    return DeviceTopology(
        network="net",
        device=name,
        observed_at_ns=1,
        source="snmp",
        neighbours=tuple(
            Neighbour(local_interface=f"e{peer}", remote_device=peer, remote_interface=f"e{name}")
            for peer in neighbours
        ),
        addresses=(InterfaceAddress(interface="lo", address=own, prefix=f"{own}/32"),),
        routes=tuple(
            Route(prefix=f"10.255.0.{NODES.index(to) + 1}/32", interface=f"e{via}", metric=metric)
            for to, via, metric in routes
        ),
    )


def _graph(metric_over_c: int = 20) -> GraphState:
    graph = GraphState("net")
    graph.apply(_device("A", {"B": "", "C": ""}, [("D", "C", metric_over_c), ("D", "B", 20), ("B", "B", 10)]))
    graph.apply(_device("B", {"A": "", "D": ""}, [("D", "D", 10), ("A", "A", 10)]))
    graph.apply(_device("C", {"A": "", "D": ""}, [("D", "D", 10), ("A", "A", 10)]))
    graph.apply(_device("D", {"B": "", "C": ""}, [("A", "B", 20)]))
    graph.refresh(1)
    return graph


def test_equal_routes_of_a_forwarding_table_are_equal_next_hops() -> None:
    """Two rows of one prefix and metric: the first is the next hop as ever, the other is told beside it."""
    topology = _graph().topology
    network = network_of(topology)
    rows = unpack_integers(topology.equal_links, np.int16).reshape(-1, 3)
    names = [(topology.nodes[i], topology.nodes[j], network.link_names[k]) for i, j, k in rows]
    assert names == [("A", "D", "A->C")]
    assert network.paths.of(network.path_index("A", "D")).tolist() == [
        network.link_names.index("A->B"),
        network.link_names.index("B->D"),
    ]
    assert sum(several_routes(network)) == 1


def test_a_dearer_route_is_not_equal() -> None:
    """Another metric, another matter."""
    assert _graph(metric_over_c=30).topology.equal_links == b""


@pytest.mark.parametrize("rows", [[0, 1], [0, 9, 0], [0, 1, 99], [-1, 0, 0]])
def test_a_damaged_record_is_refused(rows: list[int]) -> None:
    """Wrong length, unknown nodes, unknown links."""
    good = _graph().topology
    bad = msgspec.structs.replace(good, equal_links=pack_integers(np.array(rows, dtype=np.int16)))
    with pytest.raises(DecodeError, match="topology record is damaged"):
        network_of(bad)


def test_what_puts_one_of_a_paths_routes_in_doubt_puts_the_path_in_doubt() -> None:
    """Calibration trusts a mean over two ways, but not where the traffic on the second one is not known."""
    network = diamond()
    path = network.path_index("A", "D")
    view = StateView()
    view.network = network
    count = np.full(network.path_count, 100.0)
    view.delays = {"stamp": MeasuredDelays("one-way", count / 1e4, count, None)}
    for view.quality, trusted in (((), True), (("flows-missing:C",), False)):
        (reading,) = readings_of(view)
        assert reading.trusted is not None
        assert reading.trusted[path] == trusted
