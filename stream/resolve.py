"""Names, addresses and prefixes, as devices tell them → nodes of the graph.

A token is first taken as a node's name, then as an address or prefix for the longest match among all prefixes
that end at some node. Answers are remembered until the graph's topology changes.
"""

from __future__ import annotations

from twin.graph import GraphState
from twin.graph_addresses import parse_prefix


class Resolver:
    """Resolves tokens on one state of the graph's topology."""

    def __init__(self, graph: GraphState) -> None:
        self._owners = graph.owners
        self._nodes = graph.nodes
        self._index = {node: i for i, node in enumerate(graph.nodes)}
        self._known: dict[str, int] = {}

    @property
    def node_count(self) -> int:
        """N."""
        return len(self._index)

    @property
    def path_count(self) -> int:
        """N·(N − 1)."""
        return len(self._index) * (len(self._index) - 1)

    def node(self, token: str) -> int:
        """The index of the node a name, address or prefix belongs to; −1 when it belongs to none."""
        index = self._known.get(token)
        if index is None:
            index = self._known[token] = self._look_up(token)
        return index

    def name(self, token: str) -> str:
        """The node a token belongs to, else the token itself."""
        index = self.node(token)
        return self._nodes[index] if index >= 0 else token

    def _look_up(self, token: str) -> int:
        if token in self._index:
            return self._index[token]
        prefix = parse_prefix(token)
        owner = self._owners.longest(prefix) if prefix is not None else None
        return self._index.get(owner, -1) if owner is not None else -1

    def path(self, source: int, destination: int) -> int:
        """The canonical index of the path between two different nodes."""
        return source * (len(self._index) - 1) + destination - (destination > source)
