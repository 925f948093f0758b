"""Our packet simulator beside ns-3: what both are given, and that they say the same."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from ndtwin.bench_ns3 import (
    KINDS,
    LEAST_OCTETS,
    WAYS,
    Packets,
    draw_packets,
    ns3_installed,
    play_ns3,
    play_ours,
    scenario_lines,
    stressed_network,
)
from ndtwin.cli import app
from twin.network import Link, Network

with_ns3 = pytest.mark.skipif(not ns3_installed(), reason="ns3 is not installed: pip install 'ndtwin[ns3]'")


@pytest.mark.parametrize("kind", KINDS)
def test_flows_send_what_the_traffic_says(kind: str) -> None:
    """Packets a second and bits a second of all flows together, and no packet shorter than its headers."""
    _, traffic = stressed_network()
    packets = draw_packets(traffic, KINDS[kind], 400)
    pps = sum(len(own.time_s) / own.time_s[-1] for own in packets)
    bps = sum(8 * own.octets.sum() / own.time_s[-1] for own in packets)
    assert pps == pytest.approx(traffic.pps.sum(), rel=0.02)
    assert bps == pytest.approx(traffic.bps.sum(), rel=0.02)
    assert all((np.diff(own.time_s) > 0).all() and own.octets.min() >= LEAST_OCTETS for own in packets)


def test_every_packet_of_ours_is_accounted_for() -> None:
    """What entered after the warm-up arrived or was lost, some was lost, and no delay is below light's."""
    network, traffic = stressed_network()
    played = play_ours(network, draw_packets(traffic, KINDS["poisson-bimodal"], 100))
    assert ((played.arrived > 0) & (played.arrived <= played.sent)).all()
    assert 0 < played.loss.mean() < 0.1
    propagation_s = np.bincount(
        network.paths.hop_path, network.propagation_delay_s[network.paths.links], network.path_count
    )
    assert (played.mean_s > propagation_s).all()
    assert played.hops > played.arrived.sum()


def test_the_scenario_is_told_in_full() -> None:
    """Counts, links, routes, flows and packets, as the C++ side reads them."""
    links = (Link("A", "B", 1e6, 0.001, buffer_packets=7), Link("B", "A", 2e6, 0.001))
    network = Network(("A", "B"), links, np.array([[-1, 0], [1, -1]], dtype=np.int16))
    packets = [Packets(np.array([1.5, 2.5]), np.array([100, 200])), Packets(np.array([2.5]), np.array([300]))]
    assert list(scenario_lines(network, packets, "internet")) == [
        "2 2 2 1 0.25",
        "0 1000000.0 0.001 7",
        "1 2000000.0 0.001 100",
        "-1 0",
        "1 -1",
        "0 1 2",
        "1.5 100 2.5 200",
        "1 0 1",
        "2.5 300",
    ]


@with_ns3
@pytest.mark.parametrize("way", WAYS)
def test_ns3_and_we_say_the_same(way: str) -> None:
    """The same packets have the same delays and the same are lost, where queues are long and drop."""
    network, traffic = stressed_network()
    packets = draw_packets(traffic, KINDS["poisson-bimodal"], 60)
    ours, theirs = play_ours(network, packets), play_ns3(network, packets, way)
    assert ours.loss.mean() > 0
    np.testing.assert_array_equal(theirs.sent, ours.sent)
    assert np.abs(ours.loss - theirs.loss).mean() < 1e-3
    assert np.abs(ours.mean_s / theirs.mean_s - 1).mean() < 1e-3


@pytest.mark.skipif(ns3_installed(), reason="ns3 is installed")
def test_without_ns3_its_figures_are_left_out() -> None:
    """The bench says how to install it, and no key of ns-3 is there, not even as null."""
    done = CliRunner().invoke(app, ["bench", "simulator", "--seconds", "0.1", "--json"])
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["packet_hops_per_s"] > 0
    assert not [name for name in figures if name.startswith("ns3")]
    assert "pip install 'ndtwin[ns3]'" in done.stderr
