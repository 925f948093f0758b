"""A graph and a routing of the OMNeT++ format as a network.

Nodes are numbered in the files; here they are called ``n0000``, ``n0001``, … so that their order stays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from twin.network import Link, Network, Paths
from twin.samples import BadRecord
from twin.scheduling import CLASSES, POLICIES, Scheduling

_BLOCK = re.compile(r"\b(node|edge)\s*\[(.*?)\]", re.DOTALL)
_ATTRIBUTE = re.compile(r"""(\w+)\s+(?:"([^"]*)"|(\S+))""")

Attributes = Mapping[str, str]
Ports = dict[tuple[int, int], int]  # (node, output port) → link


def network_of(graph: str, routing: str) -> Network:
    """BadRecord when the graph or the routing cannot be."""
    nodes, edges = _blocks(graph)
    names = tuple(f"n{node:04d}" for node in range(len(nodes)))
    ends = [(_integer(edge, "source"), _integer(edge, "target")) for edge in edges]
    if any(not 0 <= node < len(nodes) for pair in ends for node in pair):
        raise BadRecord("truncated", "an edge of the graph joins a node that is not there")
    joined = list(zip(ends, edges, strict=True))
    ports = {(pair[0], _integer(edge, "port")): index for index, (pair, edge) in enumerate(joined)}
    links = tuple(_link(names, pair, nodes[pair[0]], edge) for pair, edge in joined)
    rows = _rows(routing)
    if len(rows) == len(nodes) and all(len(row) == len(nodes) for row in rows):
        return Network(names, links, _next_links(rows, ports))
    none = np.full((len(nodes), len(nodes)), -1, dtype=np.int16)
    return Network(names, links, none, _routes(rows, ends, len(nodes)))


def _blocks(graph: str) -> tuple[list[Attributes], list[Attributes]]:
    """Attributes of the nodes, in the order of their ids, and of the edges."""
    found: dict[str, list[Attributes]] = {"node": [], "edge": []}
    for kind, body in _BLOCK.findall(graph):
        found[kind].append({name: quoted or plain for name, quoted, plain in _ATTRIBUTE.findall(body)})
    nodes = sorted(found["node"], key=lambda node: _integer(node, "id"))
    if not nodes or [_integer(node, "id") for node in nodes] != list(range(len(nodes))):
        raise BadRecord("truncated", "the graph's nodes are not numbered from 0 without a gap")
    if not graph.rstrip().endswith("]") or not found["edge"]:
        raise BadRecord("truncated", "the graph ends early")
    return nodes, found["edge"]


def _link(names: Sequence[str], ends: tuple[int, int], node: Attributes, edge: Attributes) -> Link:
    capacity = _number(edge, "bandwidth")
    if not (np.isfinite(capacity) and capacity > 0):
        raise BadRecord("capacity", f"link {ends[0]}->{ends[1]} has bandwidth {capacity} bit/s")
    scheduling = _scheduling(node)
    packets, bits = _buffer(node)
    return Link(
        names[ends[0]],
        names[ends[1]],
        capacity,
        buffer_packets=packets,
        buffer_bits=bits,
        source_interface=edge["port"],
        scheduling=scheduling,
    )


def _scheduling(node: Attributes) -> Scheduling:
    """``tosToQoSqueue`` lists the classes of every queue: ``0;1;2`` three queues, ``0,1,2`` one."""
    policy = node.get("schedulingPolicy", "")
    if policy not in POLICIES:
        raise BadRecord("scheduler", f"node {node['id']} has the unknown scheduler {policy!r}")
    if "tosToQoSqueue" not in node:
        if policy == "FIFO":
            return Scheduling()
        raise BadRecord("scheduler", f"node {node['id']} ({policy}) does not say which class goes where")
    queues = [_list(queue) for queue in node["tosToQoSqueue"].split(";")]
    queue_of_class = {one: queue for queue, classes in enumerate(queues) for one in classes}
    if sorted(queue_of_class) != list(range(CLASSES)):
        raise BadRecord("scheduler", f"node {node['id']} has queues for {node['tosToQoSqueue']!r}")
    weights = node.get("schedulingWeights", "-")
    return Scheduling(
        policy,
        tuple(queue_of_class[one] for one in range(CLASSES)),
        (1.0,) * len(queues) if weights == "-" else tuple(_list(weights)),
    )


def _buffer(node: Attributes) -> tuple[int, float]:
    """(packets, bits) of every queue, one of which counts."""
    sizes = _list(node.get("bufferSizes", node.get("queueSizes", "")))
    if len(set(sizes)) != 1 or not (np.isfinite(sizes[0]) and sizes[0] >= 1):
        raise BadRecord(
            "buffer", f"node {node['id']} has buffers {sizes}: one size for all its queues is known"
        )
    return (100, sizes[0]) if "bufferSizes" in node else (int(sizes[0]), 0.0)


# ------------------------------------------------------------------------------------------ routing


def _rows(routing: str) -> list[list[int]]:
    separator = ";" if ";" in routing else ","
    try:
        return [
            [int(word) for word in line.strip(" ,;").split(separator)]
            for line in routing.split("\n")
            if line.strip()
        ]
    except ValueError as error:
        raise BadRecord("routes", f"the routing holds no number: {error}") from None


def _next_links(rows: list[list[int]], ports: Ports) -> NDArray[np.int16]:
    """From output ports, row = node, column = destination, −1 = none."""
    next_link = np.full((len(rows), len(rows)), -1, dtype=np.int16)
    for node, row in enumerate(rows):
        for destination, port in enumerate(row):
            if port >= 0 and node != destination:
                if (node, port) not in ports:
                    raise BadRecord("routes", f"node {node} has no port {port}, its way to {destination}")
                next_link[node, destination] = ports[node, port]
    return next_link


def _routes(rows: list[list[int]], ends: Sequence[tuple[int, int]], nodes: int) -> Paths:
    """From lines ``source;…;destination``, in the canonical order of paths; empty where no line is."""
    link_of = {pair: index for index, pair in enumerate(ends)}
    if len(link_of) < len(ends):
        raise BadRecord("routes", "paths are told by nodes, but two links join the same two nodes")
    routes: dict[int, list[int]] = {}
    for row in rows:
        if len(set(row)) < len(row) or len(row) < 2:
            raise BadRecord("routes", f"the path {row} meets a node twice")
        hops = [link_of.get(pair, -1) for pair in pairwise(row)]
        if -1 in hops:
            raise BadRecord("routes", f"the path {row} uses a link that is not there")
        source, destination = row[0], row[-1]
        routes[source * (nodes - 1) + destination - (destination > source)] = hops
    lengths = [len(routes.get(path, ())) for path in range(nodes * (nodes - 1))]
    links = [link for path in sorted(routes) for link in routes[path]]
    return Paths(np.array(links, dtype=np.int64), np.cumsum([0, *lengths], dtype=np.int64))


# ------------------------------------------------------------------------------------------ words


def _list(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise BadRecord("numbers", f"{text!r} is no list of numbers") from None


def _number(block: Attributes, name: str) -> float:
    try:
        return float(block[name])
    except (KeyError, ValueError):
        raise BadRecord("truncated", f"the graph tells no number {name} in {dict(block)}") from None


def _integer(block: Attributes, name: str) -> int:
    value = _number(block, name)
    if not float(value).is_integer():
        raise BadRecord("numbers", f"{name} is {value} in the graph")
    return int(value)
