"""Maps of the literature, generated networks, and GraphML files as users have them."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twin.errors import TopologyError
from twin.topologies import from_graphml, gbn, geant2, nsfnet, open_topology, power_law
from twin.topology import Edge, Topology, cable_km

MAPS = {"nsfnet": (nsfnet, 14, 21), "geant2": (geant2, 24, 37), "gbn": (gbn, 17, 26)}

ZOO_LIKE = """<?xml version="1.0" encoding="utf-8"?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
  <key attr.name="label" attr.type="string" for="node" id="l"/>
  <key attr.name="Latitude" attr.type="double" for="node" id="y"/>
  <key attr.name="Longitude" attr.type="double" for="node" id="x"/>
  <key attr.name="LinkSpeedRaw" attr.type="double" for="edge" id="s"/>
  <graph edgedefault="undirected">
    <node id="0"><data key="l">New York, NY</data><data key="y">40.71</data><data key="x">-74.0</data></node>
    <node id="1"><data key="l">Boston</data><data key="y">42.36</data><data key="x">-71.06</data></node>
    <node id="2"><data key="l">None</data></node>
    <node id="3"><data key="l">None</data><data key="y">34.05</data><data key="x">-118.24</data></node>
    <node id="4"><data key="l">Lonely</data></node>
    <edge source="0" target="1"><data key="s">1000000000.0</data></edge>
    <edge source="1" target="2"/>
    <edge source="2" target="3"/>
    <edge source="1" target="1"/>
  </graph>
</graphml>
"""


@pytest.mark.parametrize("name", MAPS)
def test_maps_have_the_size_of_the_literature_and_reach_everywhere(name: str) -> None:
    """Nodes and edges as published; every pair of nodes has a route; interfaces are unique at each node."""
    make, nodes, edges = MAPS[name]
    topology = make()
    assert (len(topology.nodes), len(topology.edges)) == (nodes, edges)
    network = topology.network()
    assert (network.paths.lengths > 0).all()
    interfaces = {(link.source, link.source_interface) for link in network.links}
    assert len(interfaces) == len(network.links) == 2 * edges
    back = {(link.target, link.target_interface) for link in network.links}
    assert interfaces == back
    assert open_topology(name) == topology


def test_nsfnet_lies_as_america_does() -> None:
    """Washington is west of New York and north of California; all positions are inside the unit square."""
    at = nsfnet().positions
    assert at["WA"][0] < at["NY"][0]
    assert at["WA"][1] > at["CA1"][1] > at["CA2"][1]
    assert all(0 <= coordinate <= 1 for place in at.values() for coordinate in place)


def test_propagation_is_light_in_fibre_scaled() -> None:
    """WA to CA1 is 1,050 km of fibre: 5.25 ms in truth, a tenth of it in the lab."""
    topology = nsfnet()
    for scale, delay_s in ((1.0, 0.00525), (0.1, 0.000525)):
        link = topology.network(propagation_scale=scale).links[0]
        assert (link.source, link.target) == ("WA", "CA1")
        assert link.propagation_delay_s == pytest.approx(delay_s)


def test_capacities_are_given_one_for_all_or_one_for_each() -> None:
    """A number fills all links, a list goes link by link, another length is refused."""
    topology = gbn()
    assert (topology.network(capacities=5e6).capacity_bps == 5e6).all()
    each = np.arange(1.0, 53.0) * 1e6
    assert (topology.network(capacities=each).capacity_bps == each).all()
    with pytest.raises(TopologyError, match="52 directed links"):
        topology.network(capacities=[1e6, 2e6])


def test_great_circle_is_right_for_a_known_pair() -> None:
    """Berlin to Munich is 504 km as the crow flies; a cable takes 1.3 times that."""
    assert cable_km((52.52, 13.405), (48.137, 11.575)) == pytest.approx(504 * 1.3, rel=0.01)


@settings(deadline=None, max_examples=30)
@given(nodes=st.integers(2, 120), seed=st.integers(0, 2**31), mean_degree=st.floats(1.0, 5.0))
def test_generated_networks_are_connected_simple_and_repeatable(
    nodes: int, seed: int, mean_degree: float
) -> None:
    """Any size, seed and density: connected, no double cable, no loop, the same when made again."""
    mean_degree = min(mean_degree, nodes - 1)
    topology = power_law(nodes, seed, mean_degree=mean_degree)
    assert nx.is_connected(topology.graph())
    assert topology.graph().number_of_edges() == len(topology.edges)
    assert list(topology.nodes) == sorted(topology.nodes)
    assert all(edge.length_km > 0 for edge in topology.edges)
    assert topology == power_law(nodes, seed, mean_degree=mean_degree)


def test_generated_degrees_have_a_heavy_tail() -> None:
    """A thousand nodes: mean degree near 3, a hub of 12 or more, and most nodes of degree 1 or 2."""
    degrees = np.array([degree for _, degree in power_law(1000, seed=1).graph().degree])
    assert degrees.mean() == pytest.approx(3.0, rel=0.1)
    assert degrees.max() >= 12
    assert (degrees <= 2).mean() > 0.5


@pytest.mark.parametrize(
    ("nodes", "mean_degree"), [(0, 1.0), (1, 1.0), (5, 0.5), (5, 5.0), (5, float("nan"))]
)
def test_generated_networks_that_cannot_be_are_refused(nodes: int, mean_degree: float) -> None:
    """Too few nodes or a degree that does not fit raise TopologyError."""
    with pytest.raises(TopologyError):
        power_law(nodes, seed=1, mean_degree=mean_degree)


def test_graphml_is_read_and_what_was_dropped_is_told(tmp_path: Path) -> None:
    """Labels become names, coordinates lengths, speeds capacities; what is dropped leaves a note."""
    file = tmp_path / "zoo.graphml"
    file.write_text(ZOO_LIKE)
    topology = from_graphml(file)
    assert topology.name == "zoo"
    assert topology.nodes == ("Boston", "New-York-NY", "None-2", "None-3")
    assert [(edge.a, edge.b) for edge in topology.edges] == [
        ("Boston", "New-York-NY"),
        ("Boston", "None-2"),
        ("None-2", "None-3"),
    ]
    assert topology.edges[0].capacity_bps == 1e9
    assert topology.edges[0].length_km == pytest.approx(306 * 1.3, rel=0.01)
    assert len(topology.notes) == 3
    assert set(topology.positions) == set(topology.nodes)
    assert (topology.network().paths.lengths > 0).all()
    assert open_topology(str(file)) == topology


def test_graphml_without_coordinates_still_has_positions_and_lengths(tmp_path: Path) -> None:
    """A plain ring as networkx writes it: positions from a layout, one usual length for all cables."""
    file = tmp_path / "ring.graphml"
    nx.write_graphml(nx.cycle_graph(6), file)
    topology = from_graphml(file)
    assert len(set(topology.positions.values())) == 6
    assert len({edge.length_km for edge in topology.edges}) == 1
    assert topology.edges[0].length_km > 0


@pytest.mark.parametrize("kind", ["directed", "parallel"])
def test_graphml_of_other_kinds_is_read(tmp_path: Path, kind: str) -> None:
    """A directed file becomes cables; parallel edges stay parallel cables with interfaces of their own."""
    graph: nx.Graph[str] = nx.DiGraph([("a", "b"), ("b", "c")])
    if kind == "parallel":
        graph = nx.MultiGraph([("a", "b"), ("a", "b"), ("b", "c")])
    file = tmp_path / "graph.graphml"
    nx.write_graphml(graph, file)
    network = from_graphml(file).network()
    assert len(network.links) == 2 * graph.number_of_edges()
    assert len(set(network.link_names)) == len(network.links)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "<html><body>404</body></html>",
        '<?xml version="1.0"?><graphml xmlns="http://graphml.graphdrawing.org/xmlns"></graphml>',
        ZOO_LIKE[:700],
        ZOO_LIKE.replace(' id="y"/>', ' id="z"/>'),
        ZOO_LIKE.replace("40.71", "north"),
        "\x00\x01\x02",
    ],
    ids=["empty", "text", "html", "no graph", "torn", "unknown key", "bad number", "binary"],
)
def test_what_is_not_graphml_is_refused_with_one_line(tmp_path: Path, text: str) -> None:
    """Any other file raises TopologyError with one line that names it."""
    file = tmp_path / "wrong.graphml"
    file.write_text(text)
    with pytest.raises(TopologyError, match=r"wrong\.graphml") as caught:
        from_graphml(file)
    assert "\n" not in str(caught.value)


def test_graph_without_links_is_refused(tmp_path: Path) -> None:
    """A GraphML file whose nodes are not joined is no network."""
    file = tmp_path / "dust.graphml"
    nx.write_graphml(nx.empty_graph(3), file)
    with pytest.raises(TopologyError, match="at least one link"):
        from_graphml(file)


@pytest.mark.parametrize("what", ["arpanet", "power-law:x", "missing.graphml", ""])
def test_unknown_topologies_are_refused_with_the_choices(what: str) -> None:
    """A name that is neither a map nor a file raises TopologyError listing what there is."""
    with pytest.raises(TopologyError, match=r"nsfnet.*power-law"):
        open_topology(what)


def test_power_law_by_name() -> None:
    """``power-law:30`` opens a generated network of 30 nodes."""
    assert open_topology("power-law:30", seed=4) == power_law(30, seed=4)


def test_layout_of_a_bare_topology_fills_the_square() -> None:
    """Without places the springs decide: all nodes apart, within the unit square."""
    topology = Topology("bare", ("a", "b", "c"), (Edge("a", "b"), Edge("b", "c")))
    places = list(topology.positions.values())
    assert len(set(places)) == 3
    assert all(0 <= coordinate <= 1 for place in places for coordinate in place)


@pytest.mark.data
def test_every_network_of_the_topology_zoo_is_read(tmp_path: Path) -> None:
    """All 276 files of the Internet Topology Zoo become networks in which every pair has a route."""
    beside = Path(__file__).parents[3] / "shared" / "data"  # beside a developer's checkout
    archive = Path(os.environ.get("NDTWIN_DATA", beside)) / "topology-zoo" / "graphml.tar.gz"
    if not archive.is_file():
        pytest.skip(f"{archive} is not there: set NDTWIN_DATA to the folder of the public data sets")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    files = sorted(tmp_path.rglob("*.graphml"))
    assert len(files) == 276
    for file in files:
        topology = from_graphml(file)
        routes = topology.network().next_link
        assert (routes >= 0).sum() == len(topology.nodes) * (len(topology.nodes) - 1)
