"""Measurement faults, recognised before the network is blamed: the state's quality flags, by a table.

A flag is ``kind:detail``; for most kinds the detail names a node. The table says, per kind, whether
operators are told ("telemetry-stale", with the device as suspect) and which figures are then not to be
believed:

    traffic   the flows of the node are not all there, or not when they were: the twin predicts wrongly on
              every link they cross
    clock     one-way delays, which need the node's clock
    prober    whatever the node's own probes measured in this window, one-way or there and back
    counters  interface counters of the node

Every kind that collectors or the stream raise is in :data:`EFFECTS` or in :data:`INFORMATIVE`; a test reads
the code for them. Flags of unknown kind are ignored: they may be newer than this reader.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomaly.findings import Finding
from twin.equal_routes import crossings
from twin.network import Network
from twin.records import Direction, Suspect

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Effect:
    """One row of the table."""

    told: str = ""  # what operators are told; empty = nothing
    missing: bool = (
        False  # the node's telemetry does not come: of all nodes at once, whoever asks is to blame
    )
    traffic: bool = False
    clock: bool = False
    prober: bool = False
    counters: bool = False


EFFECTS: dict[str, Effect] = {
    # what does not come
    "silent": Effect("does not answer", missing=True, counters=True),
    "wrong-device": Effect(
        "is not who answers at its address: the event wrong-device says who, and what to do",
        missing=True,
        counters=True,
        traffic=True,  # flow records are known by their sender's address too
    ),
    "flows-missing": Effect("sends no flow records", missing=True, traffic=True),
    "delays-stale": Effect("tells results of delay probes that are not new: see whether they still run"),
    "delays-missing": Effect("measures no delays any more", missing=True),
    "probes-unanswered": Effect("exchanges probes with nobody", missing=True),
    # counters
    "reset": Effect(counters=True),
    "cold-start": Effect(counters=True),
    "warm-start": Effect(counters=True),
    "gap": Effect(counters=True),  # a poll is missing: a mean over more than the window
    "stale": Effect(counters=True),  # an answer from the agent's cache; likewise
    "counters-stale": Effect(
        "tells interface counters that are older than they seem: the event counters-stale says what to do",
        counters=True,
    ),
    "renumbered": Effect(counters=True, traffic=True),  # flow records name interfaces by number
    # flows
    "flows-lost": Effect(traffic=True),
    "sequence-gap": Effect(traffic=True),
    "flows-without-template": Effect(traffic=True),
    "flows-undecoded": Effect(traffic=True),
    "flow-times": Effect("sends flow records of times that cannot be: set its clock", traffic=True),
    "cells-folded": Effect(
        "sends flows to more destinations than are told apart: choose a coarser granularity", traffic=True
    ),
    # delays
    "clock-unsynchronised": Effect("has a clock that is not synchronised", clock=True),
    "clock-step": Effect("had its clock set", clock=True),
    "probe-gap": Effect(prober=True),  # not its fault but the collector's, whose heartbeat says so
    # topology
    "neighbours-unknown": Effect("has OSPF neighbours that no known device is: `ndtwin discover` finds them"),
}

# Kinds that put no node's figures in doubt, and why.
INFORMATIVE: dict[str, str] = {
    # What could not be had is left out, and counts as not measured.
    "ambiguous-counters": "the interface counts as not measured, the others do not suffer",
    "implausible": "the interface counts as not measured, the others do not suffer",
    "counters-32bit": "wraps are told apart, or the interval is ambiguous",
    "flows-unresolved": "flows from or to addresses of no node cross no path",
    "delays-unresolved": "probes from or to addresses of no node measure no path",
    "late": "records that came too late were left out",
    "capacity-unknown": "1 Gbit/s is assumed until the inventory says better",
    "warming-up": "of no node: by :data:`WARMING_UP` no link's traffic is known in the first window",
    "flows-egress": "what leaves was counted where it entered; the event says what to set where it was not",
    # Of single probes; the window's figures are told without what they spoil.
    "sender-held-up": "those packets' times were left out",
    "reflector-reset": "loss is not told by direction",
    "class-remarked": "the class that was asked for is not the one that was met",
    "reordered": "delays are right whatever the order",
    "no-listener": "told as probes-unanswered when nobody answers",
    "probe-silent": "told as probes-unanswered when nobody answers",
    "probe-back": "",
    # Events in the life of devices and collectors.
    "device-refuses": "told as silent when it lasts",
    "counters-fresh": "",
    "device-renamed": "the same device: the event says what to rename",
    "device-replaced": "its counters began anew: told as reset",
    "collector-late": "missing polls are gaps; the collector's own heartbeat is degraded",
    "trap-refused": "polls tell the same, later",
    "trap-storm": "polls tell the same, later",
    "authentication-failure": "somebody else asked the device in vain",
    "configuration-changed": "what follows from it is seen in the topology",
    "capabilities-changed": "",
}


COLLECTORS = "the collectors"
WARMING_UP = "warming-up"  # the network's first window: it began before its sources were known


_PASSIVE = frozenset(["ipfix-on-path"])  # measures the traffic itself: nothing is sent, so nothing is missed


@dataclass(frozen=True)
class Distrust:
    """What not to believe in this window."""

    links: Flags  # [L] the traffic over them is not known
    clocks: Flags  # [P] one-way delays measured with a clock that is off
    probed: Flags  # [P] one-way delays by a prober that did not keep its times
    round_trips: Flags  # [P] round trips by such a prober
    counters: Flags  # [L] measured loads

    def delays(self, method: str, direction: Direction) -> Flags:
        """[P] the paths on which this kind of measurement is not to be believed."""
        if direction == "round-trip":
            return self.round_trips
        return self.clocks if method in _PASSIVE else self.clocks | self.probed


def distrust(network: Network, quality: tuple[str, ...]) -> Distrust:
    """Which links and paths the flags put in doubt."""
    sorts = ("traffic", "clock", "prober", "counters")
    nodes = {name: np.zeros(len(network.nodes), dtype=np.bool_) for name in sorts}
    for effect, node in _flagged(network, quality):
        for name, marks in nodes.items():
            marks[network.node_index[node]] |= getattr(effect, name)
    source, destination = network.ends
    paths, _ = crossings(network)
    links = np.full(len(network.links), WARMING_UP in quality)
    links[paths.links[nodes["traffic"][source][paths.hop_path]]] = True
    return Distrust(
        links=links,
        clocks=nodes["clock"][source] | nodes["clock"][destination],
        # A two-way probe tells of the way back too, in the name of its source.
        probed=nodes["prober"][source] | nodes["prober"][destination],
        round_trips=nodes["prober"][source],
        counters=nodes["counters"][network.source_index] | nodes["counters"][network.target_index],
    )


def telemetry_findings(network: Network, quality: tuple[str, ...]) -> list[Finding]:
    """One finding per device about whose telemetry operators are to be told."""
    told: dict[str, dict[str, str]] = {}  # node → kind → words
    for flag in quality:
        kind, _, node = flag.partition(":")
        if kind in EFFECTS and EFFECTS[kind].told and node in network.node_index:
            told.setdefault(node, {})[kind] = EFFECTS[kind].told
    if len(told) == len(network.nodes) > 1 and (shared := _shared(list(told.values()))):
        return [_finding(COLLECTORS, shared)]
    return [_finding(node, reasons) for node, reasons in sorted(told.items())]


def _shared(told: list[dict[str, str]]) -> dict[str, str]:
    """What is said of every device. They do not all fail at once; whoever asks them does."""
    kinds = [kind for kind in told[0] if all(kind in reasons for reasons in told)]
    nothing = all(any(EFFECTS[kind].missing for kind in reasons) for reasons in told)
    if "silent" in kinds or (nothing and not kinds):
        return {"no-telemetry": "bring nothing from any device"}
    return {kind: f"find that every device {EFFECTS[kind].told}" for kind in kinds}


def _finding(node: str, reasons: dict[str, str]) -> Finding:
    evidence = "; ".join(reasons.values())
    hypothesis = next(iter(reasons))
    suspect = Suspect(kind="device", target=node, hypothesis=hypothesis, probability=1.0, evidence=evidence)
    return Finding("telemetry-stale", frozenset([f"device:{node}"]), (suspect,), f"{node} {evidence}")


def _flagged(network: Network, quality: tuple[str, ...]) -> list[tuple[Effect, str]]:
    split = [flag.partition(":") for flag in quality]
    return [
        (EFFECTS[kind], node) for kind, _, node in split if kind in EFFECTS and node in network.node_index
    ]
