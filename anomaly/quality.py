"""Measurement faults, recognised before the network is blamed: the state's quality flags, by a table.

A flag is ``kind:detail``; for most kinds the detail names a node. The table says, per kind, whether
operators are told ("telemetry-stale", with the device as suspect) and which figures are then not to be
believed:

    traffic   the flows of the node are missing: the twin predicts too little on every link they cross
    probes    delays measured by methods that need the node's clock
    counters  interface counters of the node

Flags of unknown kind are ignored: they may be newer than this reader.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomaly.findings import Finding
from twin.equal_routes import crossings
from twin.network import Network
from twin.records import Suspect

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Effect:
    """One row of the table."""

    told: str = ""  # what operators are told; empty = nothing
    traffic: bool = False
    probes: bool = False
    counters: bool = False


EFFECTS: dict[str, Effect] = {
    "silent": Effect("does not answer", counters=True),
    "flows-missing": Effect("sends no flow records", traffic=True),
    "delays-missing": Effect("measures no delays any more"),
    "probes-unanswered": Effect("exchanges probes with nobody"),
    "clock-unsynchronised": Effect("has a clock that is not synchronised", probes=True),
    "clock-step": Effect("had its clock set", probes=True),
    "flows-lost": Effect(traffic=True),
    "reset": Effect(counters=True),
    "cold-start": Effect(counters=True),
}


COLLECTORS = "the collectors"
WARMING_UP = "warming-up"  # the network's first window: it began before its sources were known


@dataclass(frozen=True)
class Distrust:
    """What not to believe in this window."""

    links: Flags  # [L] the traffic over them is not known
    paths: Flags  # [P] one-way delays measured with a clock that is off
    counters: Flags  # [L] measured loads


def distrust(network: Network, quality: tuple[str, ...]) -> Distrust:
    """Which links and paths the flags put in doubt."""
    nodes = {name: np.zeros(len(network.nodes), dtype=np.bool_) for name in ("traffic", "probes", "counters")}
    for effect, node in _flagged(network, quality):
        for name, marks in nodes.items():
            marks[network.node_index[node]] |= getattr(effect, name)
    source, destination = network.ends
    paths, _ = crossings(network)
    links = np.full(len(network.links), WARMING_UP in quality)
    links[paths.links[nodes["traffic"][source][paths.hop_path]]] = True
    return Distrust(
        links=links,
        paths=nodes["probes"][source] | nodes["probes"][destination],
        counters=nodes["counters"][network.source_index] | nodes["counters"][network.target_index],
    )


def telemetry_findings(network: Network, quality: tuple[str, ...]) -> list[Finding]:
    """One finding per device about whose telemetry operators are to be told."""
    told: dict[str, list[tuple[str, str]]] = {}
    for flag in quality:
        kind, _, node = flag.partition(":")
        if kind in EFFECTS and EFFECTS[kind].told and node in network.node_index:
            told.setdefault(node, []).append((kind, EFFECTS[kind].told))
    if len(told) == len(network.nodes) > 1:  # devices do not all fail at once; whoever asks them does
        return [_finding(COLLECTORS, [("no-telemetry", "bring nothing from any device")])]
    return [_finding(node, reasons) for node, reasons in sorted(told.items())]


def _finding(node: str, reasons: list[tuple[str, str]]) -> Finding:
    evidence = "; ".join(text for _, text in reasons)
    suspect = Suspect(
        kind="device", target=node, hypothesis=reasons[0][0], probability=1.0, evidence=evidence
    )
    return Finding("telemetry-stale", frozenset([f"device:{node}"]), (suspect,), f"{node} {evidence}")


def _flagged(network: Network, quality: tuple[str, ...]) -> list[tuple[Effect, str]]:
    split = [flag.partition(":") for flag in quality]
    return [
        (EFFECTS[kind], node) for kind, _, node in split if kind in EFFECTS and node in network.node_index
    ]
