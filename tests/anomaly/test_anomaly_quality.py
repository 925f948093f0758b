"""Quality flags, residuals and wander: what is believed, and on which scale it is judged."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from anomaly.quality import EFFECTS, INFORMATIVE, distrust, telemetry_findings
from anomaly.residuals import Expectation, observations, residual
from anomaly.wander import link_wander_s
from stream.network import LINK_EVENTS, SILENCE_EVENTS
from twin.compare import reverse_paths
from twin.graph_view import MeasuredDelays
from twin.network import Link, Network, Traffic
from twin.queueing import MG1K
from twin.records import DelayMethod, Direction
from twin.simulator import Flow, PacketSizes, Simulator
from twin.topologies import nsfnet
from twin.traffic import lab_scenario


@pytest.fixture(scope="module")
def scene() -> tuple[Network, Traffic]:
    """The lab's network and mean traffic."""
    return lab_scenario(nsfnet(), seed=1)


def _expected(network: Network, traffic: Traffic) -> Expectation:
    said = MG1K().predict(network, traffic)
    return Expectation(said.mean_s, said.log_width, said.jitter_s)


def test_missing_flows_put_every_link_they_cross_in_doubt(scene: tuple[Network, Traffic]) -> None:
    """All links on paths from the node, and no other."""
    network, _ = scene
    doubt = distrust(network, ("flows-missing:WA", "late:3", "unheard-of:WA", "silent:nowhere"))
    crossed = {
        int(link)
        for path in range(network.path_count)
        if network.path_ends(path)[0] == network.node_index["WA"]
        for link in network.paths.of(path)
    }
    assert set(np.flatnonzero(doubt.links)) == crossed
    assert not doubt.delays("stamp", "one-way").any()
    assert not doubt.counters.any()


def test_a_clock_that_is_off_spoils_one_way_delays_from_and_to_it(scene: tuple[Network, Traffic]) -> None:
    """Both directions, and nothing else; round trips are not touched by it."""
    network, _ = scene
    doubt = distrust(network, ("clock-unsynchronised:NE",))
    for method in ("stamp", "ipfix-on-path"):
        ends = [network.path_ends(path) for path in np.flatnonzero(doubt.delays(method, "one-way"))]
        assert len(ends) == 2 * (len(network.nodes) - 1)
        assert all(network.node_index["NE"] in end for end in ends)
    assert not doubt.delays("stamp-round-trip", "round-trip").any()


def test_a_prober_that_was_held_up_spoils_what_it_measured(scene: tuple[Network, Traffic]) -> None:
    """Its one-way delays there and back, and its round trips; not the traffic's own, nor others' trips."""
    network, _ = scene
    doubt, node = distrust(network, ("probe-gap:NE",)), network.node_index["NE"]
    ends = [network.path_ends(path) for path in np.flatnonzero(doubt.delays("stamp", "one-way"))]
    assert len(ends) == 2 * (len(network.nodes) - 1)
    trips = [network.path_ends(path) for path in np.flatnonzero(doubt.delays("stamp", "round-trip"))]
    assert len(trips) == len(network.nodes) - 1
    assert {source for source, _ in trips} == {node}
    assert not doubt.delays("ipfix-on-path", "one-way").any()
    assert not doubt.links.any()
    assert not doubt.counters.any()


@pytest.mark.parametrize("kind", ["gap", "renumbered", "reset", "stale", "warm-start"])
def test_counters_at_both_ends_of_the_links_are_in_doubt(kind: str, scene: tuple[Network, Traffic]) -> None:
    """Of the node that a poll is missing of, that numbered its interfaces anew or restarted; of no other."""
    network, _ = scene
    doubted = {network.link_names[k] for k in np.flatnonzero(distrust(network, (f"{kind}:NE",)).counters)}
    assert doubted == {link.name for link in network.links if "NE" in (link.source, link.target)}
    assert telemetry_findings(network, (f"{kind}:NE",)) == []


@pytest.mark.parametrize(
    "kind",
    ["renumbered", "flows-lost", "sequence-gap", "flows-without-template", "flow-times", "cells-folded"],
)
def test_flows_that_are_not_all_there_put_their_links_in_doubt(
    kind: str, scene: tuple[Network, Traffic]
) -> None:
    """Whatever the reason."""
    network, _ = scene
    assert distrust(network, (f"{kind}:WA",)).links.any()
    assert (distrust(network, (f"{kind}:WA",)).links == distrust(network, ("flows-missing:WA",)).links).all()


def test_an_incomplete_topology_is_told(scene: tuple[Network, Traffic]) -> None:
    """Links may be missing: nothing measured is doubted for it."""
    network, _ = scene
    (finding,) = telemetry_findings(network, ("neighbours-unknown:WA",))
    assert "WA has OSPF neighbours that no known device is" in finding.summary
    doubt = distrust(network, ("neighbours-unknown:WA",))
    assert not any(flags.any() for flags in (doubt.links, doubt.clocks, doubt.round_trips, doubt.counters))


def test_what_is_said_of_every_device_is_said_once(scene: tuple[Network, Traffic]) -> None:
    """Clocks, or flows that nobody sends: one finding about the collectors, which does not claim silence."""
    network, _ = scene
    for kind in ("clock-unsynchronised", "flows-missing"):
        (finding,) = telemetry_findings(network, tuple(f"{kind}:{node}" for node in network.nodes))
        assert finding.suspects[0].hypothesis == kind
        assert finding.summary == f"the collectors find that every device {EFFECTS[kind].told}"
    mixed = [f"{('clock-step', 'flow-times')[k % 2]}:{node}" for k, node in enumerate(network.nodes)]
    assert len(telemetry_findings(network, tuple(mixed))) == len(network.nodes)


CODE = Path(__file__).parents[2]
# Hyphenated words in the modules that raise flags, which are none.
OTHER_WORDS = {
    *get_args(Direction), *get_args(DelayMethod), *LINK_EVENTS, *SILENCE_EVENTS,
    "netconf-no-notifications", "netconf-config-change", "netconf-capability-change",
    "added-capability", "deleted-capability", "if-name",
}  # fmt: skip


def _raised(path: Path) -> Iterator[str]:
    """Every word in a module that may be a kind of flag.

    Hyphenated ones wherever they are; single ones where a flag is made: ``f"late:{…}"``, ``quality=(…)``,
    the keys of a function called quality, and what functions of the counters' module return.
    """
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(word)) if re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+:?", word):
                yield word
            case ast.JoinedStr(values=[ast.Constant(value=str(word)), *_]) if re.fullmatch(
                r"[a-z0-9]+:", word
            ):
                yield word
            case ast.keyword(
                arg="quality", value=ast.Tuple(elts=words) | ast.IfExp(body=ast.Tuple(elts=words))
            ):
                yield from (word.value for word in words if isinstance(word, ast.Constant))
            case ast.FunctionDef(name="quality" | "_quality"):
                for inner in ast.walk(node):
                    if isinstance(inner, ast.Dict):
                        yield from (key.value for key in inner.keys if isinstance(key, ast.Constant))
            case ast.Return(value=ast.expr() as value) if path.name == "rates.py":
                words = [w.value for w in ast.walk(value) if isinstance(w, ast.Constant)]
                yield from (word for word in words if isinstance(word, str) and word.strip(":"))


def test_every_kind_that_is_raised_is_known() -> None:
    """Whoever raises a new kind says here what must not be believed then, or why nothing suffers."""
    modules = [*(CODE / "collectors").rglob("*.py"), *(CODE / "stream").glob("*.py"), CODE / "twin/graph.py"]
    raising = [path for path in modules if re.search(r"quality|NetworkEvent|KINDS|_tell\(", path.read_text())]
    raised = {word.removesuffix(":") for path in raising for word in _raised(path)} - OTHER_WORDS
    assert {
        "gap",
        "late",
        "silent",
        "implausible",
        "flow-times",
        "trap-storm",
        "probe-gap",
    } <= raised  # it sees
    assert raised - EFFECTS.keys() - INFORMATIVE.keys() == set()
    assert EFFECTS.keys() & INFORMATIVE.keys() == set()
    assert (
        EFFECTS.keys() | INFORMATIVE.keys()
    ) - raised == set()  # and nothing is described that is not raised


def test_every_told_effect_names_the_device(scene: tuple[Network, Traffic]) -> None:
    """One finding per device, with all its reasons; flags that are only effects tell nothing."""
    network, _ = scene
    told = [kind for kind, effect in EFFECTS.items() if effect.told]
    findings = telemetry_findings(network, tuple(f"{kind}:GA" for kind in EFFECTS))
    assert len(findings) == 1
    assert (findings[0].suspects[0].kind, findings[0].suspects[0].target) == ("device", "GA")
    assert all(EFFECTS[kind].told in findings[0].summary for kind in told)
    assert telemetry_findings(network, ("flows-lost:GA", "late:4", "capacity-unknown:2")) == []


def test_a_whole_network_that_falls_silent_is_the_collectors_fault(scene: tuple[Network, Traffic]) -> None:
    """One finding about the collectors, not one for every device; a single device that talks changes that."""
    network, _ = scene
    silent = tuple(f"silent:{node}" for node in network.nodes)
    (finding,) = telemetry_findings(network, silent)
    assert finding.suspects[0].hypothesis == "no-telemetry"
    assert len(telemetry_findings(network, silent[1:])) == len(network.nodes) - 1


def test_the_residual_is_nan_where_nothing_can_be_compared(scene: tuple[Network, Traffic]) -> None:
    """Too few packets, no measurement, or distrust: NaN; elsewhere ln(measured / comparable)."""
    network, traffic = scene
    expected = _expected(network, traffic)
    count = np.full(network.path_count, 100.0)
    count[:3] = [0, 4, 5]
    distrusted = np.zeros(network.path_count, dtype=np.bool_)
    distrusted[7] = True
    measured = MeasuredDelays("one-way", 1.1 * expected.mean_s, count, None)
    part = residual(network, traffic, expected, "rttmon", measured, distrusted=distrusted)
    assert set(np.flatnonzero(~part.comparable)) == {0, 1, 7}
    np.testing.assert_allclose(part.log_ratio[part.comparable], np.log(1.1))


def test_the_excess_is_what_the_bias_does_not_explain(scene: tuple[Network, Traffic]) -> None:
    """measured − comparable·exp(bias), in seconds."""
    network, traffic = scene
    expected, count = _expected(network, traffic), np.full(network.path_count, 100.0)
    measured = MeasuredDelays("one-way", 1.2 * expected.mean_s + 0.003, count, None)
    none = np.zeros(network.path_count, dtype=np.bool_)
    part = residual(network, traffic, expected, "rttmon", measured, distrusted=none)
    np.testing.assert_allclose(part.excess_s(np.full(network.path_count, np.log(1.2))), 0.003)


def test_a_round_trip_crosses_the_links_there_and_back(scene: tuple[Network, Traffic]) -> None:
    """The rows of a round-trip method list both ways' links."""
    network, traffic = scene
    expected, count = _expected(network, traffic), np.full(network.path_count, 100.0)
    back = reverse_paths(len(network.nodes))
    both_s = expected.mean_s + expected.mean_s[back]
    none = np.zeros(network.path_count, dtype=np.bool_)
    measured = MeasuredDelays("round-trip", both_s, count, None)
    part = residual(network, traffic, expected, "disman-ping", measured, distrusted=none)
    rows = observations(network, part, 0, np.zeros(network.path_count), np.full(network.path_count, 0.01))
    for path in (0, 57, 181):
        crossed = rows.links[rows.offsets[path] : rows.offsets[path + 1]]
        assert list(crossed) == [*network.paths.of(path), *network.paths.of(int(back[path]))]


def test_fewer_packets_make_wider_rows(scene: tuple[Network, Traffic]) -> None:
    """The variance of a row falls with the packets behind its mean, down to the learnt width."""
    network, traffic = scene
    expected, none = _expected(network, traffic), np.zeros(network.path_count, dtype=np.bool_)
    variances = []
    for packets in (10.0, 100.0, 1e9):
        measured = MeasuredDelays("one-way", expected.mean_s, np.full(network.path_count, packets), None)
        part = residual(network, traffic, expected, "rttmon", measured, distrusted=none)
        rows = observations(network, part, 0, np.zeros(network.path_count), np.full(network.path_count, 0.01))
        variances.append(rows.variance)
    assert (variances[0] > variances[1]).all()
    assert (variances[1] > variances[2]).all()
    np.testing.assert_allclose(np.sqrt(variances[2]), 0.01 * expected.mean_s, rtol=1e-3)


def test_busier_links_wander_more(scene: tuple[Network, Traffic]) -> None:
    """The natural wander grows with load on every link, and never reaches zero."""
    network, traffic = scene
    wander = [
        link_wander_s(MG1K().solve(network, Traffic(scale * traffic.bps, scale * traffic.pps)), 10.0)
        for scale in (0.0, 0.5, 1.0, 1.5)
    ]
    assert (wander[0] > 0).all()
    assert all((more > less).all() for less, more in pairwise(wander))


def test_the_wander_of_a_poisson_queue_is_that_of_the_simulator() -> None:
    """At ρ = 0.7 the mean wait over 10 s strays as much as theory says, within 40 %."""
    link = Link("A", "B", 1e7, 0.0, 1000)
    network = Network(("A", "B"), (link,), np.array([[-1, 0], [-1, -1]], dtype=np.int16))
    sizes = PacketSizes.of_mean(8000)
    simulator = Simulator(network, [Flow(0, 1, 875.0, sizes)], seed=3)
    means = []
    for window in range(1, 301):
        simulator.advance(10.0 * window)
        means.append(simulator.take_delays().mean_s[0])
    queues = MG1K(size_scv=1.0).solve(network, Traffic(np.array([7e6, 0.0]), np.array([875.0, 0.0])))
    correlation = 2 * 1.7 / (1.3 * 0.3**2) * queues.service_s[0] / 10.0
    assert queues.wait_std_s[0] * np.sqrt(correlation) == pytest.approx(np.std(means), rel=0.4)
    assert link_wander_s(queues, 10.0)[0] > np.std(means)
