"""Where networks come from: maps of the literature, generated graphs, and files of the user's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import networkx as nx
import numpy as np

from twin.errors import TopologyError
from twin.network import Floats
from twin.topology import LAB_CAPACITY_BPS, ROUTE_FACTOR, Edge, Place, Topology, cable_km, fill_places
from twin.topology_maps import GBN, GBN_PLACES, GEANT2, NSFNET, NSFNET_PLACES, UNKNOWN_LENGTH_KM

__all__ = [
    "Edge",
    "Topology",
    "from_graphml",
    "gbn",
    "geant2",
    "nsfnet",
    "open_topology",
    "power_law",
    "ring",
]

DEGREE_EXPONENT = 0.4  # degree ∝ u^−0.4 for uniform u, so P(degree ≥ k) ∝ k^−2.5: see power_law
SIDE_KM = 2000.0  # generated networks fill a square the size of a continent
CANDIDATES = 4  # a new cable goes to the nearest of so many nodes: local, as real ones are


def nsfnet() -> Topology:
    """NSFNET T1 backbone of 1991: 14 nodes, 21 edges."""
    return _from_tables("nsfnet", ((a, b, km) for a, b, km in NSFNET), NSFNET_PLACES)


def geant2() -> Topology:
    """GÉANT2 as the RouteNet papers draw it: 24 nodes, 37 edges, places and lengths unknown."""
    return _from_tables("geant2", ((f"G{a:02d}", f"G{b:02d}", UNKNOWN_LENGTH_KM) for a, b in GEANT2), {})


def gbn() -> Topology:
    """German backbone network: 17 nodes, 26 edges."""
    return _from_tables("gbn", ((a, b, cable_km(GBN_PLACES[a], GBN_PLACES[b])) for a, b in GBN), GBN_PLACES)


def _from_tables(name: str, rows: Iterable[tuple[str, str, float]], places: Mapping[str, Place]) -> Topology:
    edges = tuple(Edge(a, b, km) for a, b, km in rows)
    return Topology(name, tuple(sorted({end for edge in edges for end in (edge.a, edge.b)})), edges, places)


MAPS: dict[str, Callable[[], Topology]] = {"nsfnet": nsfnet, "geant2": geant2, "gbn": gbn}


def open_topology(what: str, seed: int = 1) -> Topology:
    """``nsfnet``, ``geant2``, ``gbn``, ``power-law:NODES``, or the path of a GraphML file."""
    if what in MAPS:
        return MAPS[what]()
    if match := re.fullmatch(r"power-law:(\d+)", what):
        return power_law(int(match[1]), seed)
    if Path(what).is_file():
        return from_graphml(what)
    raise TopologyError(
        f"no topology {what!r}: give {', '.join(MAPS)}, power-law:NODES, or a GraphML file that exists"
    )


# --------------------------------------------------------------------------------------------- generated


def power_law(nodes: int, seed: int, *, mean_degree: float = 3.0) -> Topology:
    """A connected network with a power law of degrees, on random places; equal for equal arguments.

    The power-law out-degree algorithm (Palmer and Steffan, "Generating network topologies that obey power
    laws", GLOBECOM 2000): every node gets a credit of cables, scale · u^−a, and cables join nodes with credit
    left. Differs in two points: a spanning tree first, so that it is connected, and the nearest of a few
    candidates, so that cables stay short. The 184 networks of 20 nodes and more in the Internet Topology Zoo
    have P(degree ≥ 4) = 0.16 and P(degree ≥ 8) = 0.03, hence a = 0.4; their mean degree is 2.0 to 3.0 (10th
    to 90th percentile).
    """
    if nodes < 2:
        raise TopologyError(f"a network of {nodes} nodes has no path: ask for 2 or more")
    if not 1 <= mean_degree < nodes:
        raise TopologyError(
            f"mean degree {mean_degree} does not fit {nodes} nodes: give 1 or more, fewer than nodes"
        )
    random = np.random.default_rng([seed, nodes])
    at = random.random((nodes, 2))
    pairs = _wire(_credits(nodes, mean_degree, random), at, random)
    names = [f"n{i:0{len(str(nodes - 1))}d}" for i in range(nodes)]
    km = SIDE_KM * ROUTE_FACTOR
    edges = tuple(Edge(names[a], names[b], float(np.hypot(*(at[a] - at[b]))) * km) for a, b in pairs)
    layout = {name: (float(x), float(y)) for name, (x, y) in zip(names, at, strict=True)}
    return Topology(f"power-law-{nodes}", tuple(names), edges, layout=layout)


def ring(nodes: int) -> Topology:
    """Nodes on a circle, as metropolitan networks have them: the longest ways a network of its size has."""
    if nodes < 3:
        raise TopologyError(f"a ring of {nodes} nodes is none: ask for 3 or more")
    names = [f"n{i:0{len(str(nodes - 1))}d}" for i in range(nodes)]
    km = SIDE_KM * ROUTE_FACTOR / nodes
    pairs = [sorted((names[i], names[(i + 1) % nodes])) for i in range(nodes)]
    edges = tuple(Edge(a, b, km) for a, b in pairs)
    angles = 2 * np.pi * np.arange(nodes) / nodes
    places = zip(0.5 + 0.5 * np.cos(angles), 0.5 + 0.5 * np.sin(angles), strict=True)
    layout = {name: (float(x), float(y)) for name, (x, y) in zip(names, places, strict=True)}
    return Topology(f"ring-{nodes}", tuple(names), edges, layout=layout)


def _credits(nodes: int, mean_degree: float, random: np.random.Generator) -> list[int]:
    """Cables every node may have; whole numbers by random rounding, which keeps the mean."""
    scale = mean_degree * (1 - DEGREE_EXPONENT)
    wanted = scale * (1 - random.random(nodes)) ** -DEGREE_EXPONENT
    whole = np.floor(wanted + random.random(nodes)).astype(int)
    return [int(credit) for credit in np.clip(whole, 1, max(1, nodes // 2))]


def _wire(credits: list[int], at: Floats, random: np.random.Generator) -> list[tuple[int, int]]:
    """Cables: a tree from the richest node down, then pairs of nodes with credit left while there are any."""
    order = sorted(range(len(credits)), key=lambda node: (-credits[node], node))
    neighbours: list[set[int]] = [set() for _ in credits]
    pairs: list[tuple[int, int]] = []

    def join(node: int, others: list[int]) -> None:
        picked = random.choice(len(others), size=min(CANDIDATES, len(others)), replace=False)
        other = min((others[i] for i in picked), key=lambda i: float(((at[i] - at[node]) ** 2).sum()))
        pairs.append((min(node, other), max(node, other)))
        neighbours[node].add(other)
        neighbours[other].add(node)
        credits[node] -= 1
        credits[other] -= 1

    for k, node in enumerate(order[1:], start=1):
        join(node, [other for other in order[:k] if credits[other] > 0] or order[:k])
    waiting = {node for node in order if credits[node] > 0}
    while waiting:
        node = int(random.choice(sorted(waiting)))
        others = sorted(waiting - neighbours[node] - {node})
        if others:
            join(node, others)
        else:
            waiting.discard(node)
        waiting = {other for other in waiting if credits[other] > 0}
    return pairs


# ------------------------------------------------------------------------------------------------- files


def from_graphml(path: str | Path) -> Topology:
    """The largest connected part of a GraphML file in the manner of the Internet Topology Zoo.

    Read where present: ``label`` (names), ``Latitude`` and ``Longitude``, ``LinkSpeedRaw`` (bit/s). Cables
    have the great circle's length times the route factor; ``notes`` tell what was dropped or assumed.
    """
    try:
        read = nx.read_graphml(path)
    except (ParseError, nx.NetworkXError, KeyError, ValueError, AttributeError, OSError) as error:
        raise TopologyError(
            f"{path} is not a GraphML file that can be read ({error}): check the file"
        ) from None
    notes: list[str] = []
    graph = _largest_part(nx.MultiGraph(read), notes)
    names = _names(graph)
    places = {names[n]: place for n, data in graph.nodes(data=True) if (place := _place(data)) is not None}
    if places and len(places) < len(graph):
        notes.append(f"{len(graph) - len(places)} nodes without coordinates were put amid their neighbours")
    edges = _cables(graph, names, places)
    return Topology(Path(path).stem, tuple(sorted(names.values())), edges, places, notes=tuple(notes))


def _largest_part(graph: nx.MultiGraph[Any], notes: list[str]) -> nx.MultiGraph[Any]:
    loops = [(a, b, key) for a, b, key in graph.edges(keys=True) if a == b]
    for a, b, key in loops:
        graph.remove_edge(a, b, key)
    parts = sorted(nx.connected_components(graph), key=lambda part: (-len(part), min(map(str, part))))
    if not parts or len(parts[0]) < 2:
        raise TopologyError("the GraphML file joins no two nodes: a network needs at least one link")
    if loops:
        notes.append(f"{len(loops)} links from a node to itself were dropped")
    if len(parts) > 1:
        dropped = sum(map(len, parts[1:]))
        notes.append(f"{dropped} nodes in {len(parts) - 1} parts not connected to the largest were dropped")
    return graph.subgraph(parts[0])


def _names(graph: nx.MultiGraph[Any]) -> dict[Any, str]:
    """Labels made fit for device names; a label that occurs twice gets the node's id behind it."""
    labels = {
        node: re.sub(r"[^A-Za-z0-9._-]+", "-", str(data.get("label", node))).strip("-") or f"n{node}"
        for node, data in graph.nodes(data=True)
    }
    count: dict[str, int] = {}
    for label in labels.values():
        count[label] = count.get(label, 0) + 1
    names = {node: label if count[label] == 1 else f"{label}-{node}" for node, label in labels.items()}
    if len(set(names.values())) < len(names):
        raise TopologyError("the GraphML file's labels cannot be told apart: give every node its own label")
    return names


def _place(data: Mapping[str, Any]) -> Place | None:
    try:
        north, east = float(data["Latitude"]), float(data["Longitude"])
    except (KeyError, TypeError, ValueError):
        return None
    return (north, east) if abs(north) <= 90 and abs(east) <= 180 else None


def _cables(
    graph: nx.MultiGraph[Any], names: Mapping[Any, str], places: Mapping[str, Place]
) -> tuple[Edge, ...]:
    plain: nx.Graph[str] = nx.Graph((names[a], names[b]) for a, b in graph.edges())
    all_places = fill_places(places, plain) if places else {}
    rows = []
    for a, b, data in graph.edges(data=True):
        one, other = sorted((names[a], names[b]))
        km = cable_km(all_places[one], all_places[other]) if all_places else UNKNOWN_LENGTH_KM
        rows.append(Edge(one, other, km, _speed_bps(data)))
    return tuple(sorted(rows, key=lambda edge: (edge.a, edge.b, edge.capacity_bps)))


def _speed_bps(data: Mapping[str, Any]) -> float:
    try:
        speed_bps = float(data["LinkSpeedRaw"])
    except (KeyError, TypeError, ValueError):
        return LAB_CAPACITY_BPS
    return speed_bps if np.isfinite(speed_bps) and speed_bps > 0 else LAB_CAPACITY_BPS
