"""Shaped links, token buckets on faster ports: queues wait as at the capacity, packets leave at line rate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from routenet_examples import STATES, arrays, checkpoint_of

from twin.calibration_state import told_otherwise
from twin.compare import comparable_mean_s
from twin.graph_view import MeasuredDelays
from twin.incremental_prior import changed_wires
from twin.inference import RouteNet
from twin.models import DelayModel
from twin.network import Link, Network, Traffic
from twin.queueing import MG1K, MM1B
from twin.scheduling import by_class
from twin.simulator import Flow, PacketSizes, Simulator

MODELS: dict[str, DelayModel] = {
    "mg1k": MG1K(),
    "mm1b": MM1B(),
    "routenet": RouteNet(checkpoint_of(), threads=1),
}


def with_line_rate(network: Network, factor: float) -> Network:
    """Every link on a port so many times as fast as its capacity."""
    links = tuple(replace(link, line_rate_bps=factor * link.capacity_bps) for link in network.links)
    return replace(network, links=links)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_a_line_rate_of_the_capacity_or_less_changes_no_bit(model: str, state: str, factor: float) -> None:
    """Predictions are bit for bit those of links that were told no line rate."""
    network, traffic = STATES[state]()
    plain = arrays(MODELS[model].predict(network, traffic))
    told = arrays(MODELS[model].predict(with_line_rate(network, factor), traffic))
    for name, values in plain.items():
        assert values.tobytes() == told[name].tobytes(), name


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("state", STATES)
def test_a_faster_port_takes_off_transmission_and_nothing_else(model: str, state: str) -> None:
    """Mean delays fall by bits · Σ (1/C − 1/line); jitter and loss stay."""
    network, traffic = STATES[state]()
    shaped = with_line_rate(network, 100.0)
    plain, told = (MODELS[model].predict(one, traffic) for one in (network, shaped))
    hops = traffic.hops(network)
    per_bit = np.bincount(hops.hop_path, 0.99 / network.capacity_bps[hops.links], len(hops.lengths))
    routed = hops.lengths > 0
    saved = traffic.packet_bits * per_bit
    np.testing.assert_allclose((plain.mean_s - told.mean_s)[routed], saved[routed], rtol=1e-6, atol=1e-12)
    np.testing.assert_array_equal(told.jitter_s, plain.jitter_s)
    np.testing.assert_array_equal(told.loss, plain.loss)
    assert (told.mean_s[routed] > 0).all()


def one_link(line_rate_bps: float) -> Network:
    """Two nodes, one way, 1 Mbit/s."""
    link = Link("a", "b", 1e6, buffer_packets=1000, line_rate_bps=line_rate_bps)
    return Network(("a", "b"), (link,), np.array([[-1, 0], [-1, -1]], np.int16))


def test_a_token_bucket_of_one_packet_is_what_is_modelled() -> None:
    """Lindley's recursion of a bucket on a fast port: who finds tokens passes, others wait for them."""
    rng, bits, load = np.random.default_rng(4), 4000.0, 0.6
    gaps, service = rng.exponential(bits / (load * 1e6), 400_000), bits / 1e6
    wait, waits = 0.0, np.empty(len(gaps))
    for k, gap in enumerate(gaps):
        wait = max(wait + service - gap, 0.0)
        waits[k] = wait
    traffic = Traffic(np.array([load * 1e6, 0.0]), np.array([load * 1e6 / bits, 0.0]))
    said = MG1K(size_scv=0.0).predict(one_link(1e10), traffic)
    assert said.mean_s[0] == pytest.approx(waits.mean() + bits / 1e10, rel=0.03)


def simulated(network: Network, pps: float, bits: int, seconds: float) -> float:
    """Mean delay of Poisson packets of one size from a to b."""
    simulator = Simulator(network, [Flow(0, 1, pps, sizes=PacketSizes.fixed(bits))], seed=3)
    simulator.advance(seconds)
    return float(simulator.take_delays().mean_s[0])


@pytest.mark.parametrize("load", [1e-2, 0.6, 0.9])
def test_the_simulator_waits_at_the_capacity_and_sends_at_the_line_rate(load: float) -> None:
    """What is saved of the delay is the same at every load, and the wait is that of M/D/1."""
    bits, capacity = 4000, 1e6
    pps, seconds = load * capacity / bits, 2e4 if load < 0.1 else 4000.0
    plain, shaped = (simulated(one_link(rate), pps, bits, seconds) for rate in (capacity, 10 * capacity))
    assert plain - shaped == pytest.approx(0.9 * bits / capacity, rel=1e-3)
    wait = bits / capacity * load / (2 * (1 - load))
    assert shaped == pytest.approx(wait + bits / capacity / 10, rel=0.03)


def test_the_simulator_shapes_links_with_classes_and_links_that_change() -> None:
    """Behind priorities all packets of a size are ahead by the same; at another capacity by what is left."""
    link = replace(one_link(1e6).links[0], scheduling=by_class("SP"))
    delays = {}
    for rate in (1e6, 1e9):
        network = replace(one_link(1e6), links=(replace(link, line_rate_bps=rate),))
        flows = [Flow(0, 1, 70.0, sizes=PacketSizes.fixed(4000), service_class=one) for one in (0, 1, 2)]
        simulator = Simulator(network, flows, seed=5)
        simulator.advance(500.0)
        first = simulator.take_delays().mean_s
        simulator.set_link(0, capacity_bps=2e6)
        simulator.advance(501.0)
        simulator.forget()
        simulator.advance(1000.0)
        delays[rate] = np.stack([first, simulator.take_delays().mean_s])
    saved = delays[1e6] - delays[1e9]
    np.testing.assert_allclose(saved[0], 4000 * (1e-6 - 1e-9), rtol=1e-3)
    np.testing.assert_allclose(saved[1], 4000 * (0.5e-6 - 1e-9), rtol=1e-3)


def test_probes_of_another_size_differ_by_the_line_rate() -> None:
    """Behind a fast port a probe's size hardly matters."""
    traffic = Traffic(np.array([5e5, 0.0]), np.array([125.0, 0.0]))
    probe = MeasuredDelays("one-way", np.zeros(2), np.zeros(2), packet_bits=1000.0)
    mean = np.array([0.01, 0.0])
    assert comparable_mean_s(one_link(1e6), traffic, mean, probe)[0] == pytest.approx(0.01 - 3e-3)
    assert comparable_mean_s(one_link(1e9), traffic, mean, probe)[0] == pytest.approx(0.01 - 3e-6)


def test_another_line_rate_is_another_wire() -> None:
    """What follows changes, and what calibration learnt of the link, take notice."""
    before, after = one_link(1e9), one_link(1e10)
    assert changed_wires(before, after).tolist() == [0]
    assert told_otherwise(before, after).tolist() == [True]
