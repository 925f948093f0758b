"""Arrivals that are more regular, smoother or burstier than Poisson: simulation, algebra and limits."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from measured_data import public_data
from numpy.typing import NDArray

from twin.evaluation import evaluate
from twin.network import Link, Network, Traffic, Variability
from twin.omnet import read_omnet
from twin.queueing import MG1K, MM1B
from twin.queueing_arrivals import LEVELS, SOURCES, in_environment

Floats = NDArray[np.float64]
CAPACITY_BPS = 1e6
PACKET_BITS = 1_000.0


def star(leaves: int, *, buffer: int = 64) -> Network:
    """Sources s0 … s{n − 1}, each with a link to the hub, and one link on from the hub to the end."""
    names = tuple(sorted(["hub", "zend", *(f"s{i}" for i in range(leaves))]))
    ends = [(f"s{i}", "hub") for i in range(leaves)] + [("hub", "zend")]
    links = tuple(Link(a, b, CAPACITY_BPS, buffer_packets=buffer) for a, b in ends)
    next_link = np.full((len(names), len(names)), -1, dtype=np.int16)
    for i in range(leaves):
        next_link[names.index(f"s{i}"), [names.index("hub"), names.index("zend")]] = i
    next_link[names.index("hub"), names.index("zend")] = leaves
    return Network(names, links, next_link)


def flows(network: Network, start: str, count: int, load: float, vary: tuple[float, float, float]) -> Traffic:
    """So many equal flows of fixed packets from ``start`` to the end, ``load`` together."""
    bps = np.full(count, load * CAPACITY_BPS / count)
    return Traffic(
        bps=bps,
        pps=bps / PACKET_BITS,
        path=np.full(count, network.path_index(start, "zend")),
        size_scv=np.zeros(count),
        variability=Variability(*(np.full(count, value) for value in vary)),
    )


def periodic_wait(count: int, load: float, *, replicas: int = 2_000) -> float:
    """Mean wait, in service times, of ``count`` constant flows at random phases (ΣD/D/1), by Lindley."""
    period = count / load
    phases = np.sort(np.random.default_rng(1).uniform(0, period, (replicas, count)), axis=1)
    gaps = np.diff(np.concatenate([phases, phases[:, :1] + period], axis=1), axis=1)
    wait, waits = np.zeros(replicas), []
    for step in range(3 * count):
        if step >= 2 * count:
            waits.append(wait.mean())
        wait = np.maximum(wait + 1 - gaps[:, step % count], 0)
    return float(np.mean(waits))


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7, 0.8])
@pytest.mark.parametrize("count", [20, 60, 200])
def test_constant_flows_wait_like_their_superposition(count: int, load: float) -> None:
    """Constant flows at random phases wait as simulated, within 8 % of what Poisson flows would."""
    network = star(1)
    queues = MG1K().solve(network, flows(network, "hub", count, load, (0.0, 0.0, 0.0)))
    poisson = load / (1 - load) / 2
    assert queues.wait_s[1] / queues.service_s[1] == pytest.approx(
        periodic_wait(count, load), abs=0.08 * poisson
    )


def test_many_constant_flows_look_poisson() -> None:
    """The more flows share a load, the less their regularity shows; burstier gaps wait longer."""
    network = star(1)

    def wait(count: int, gap_scv: float) -> float:
        return float(MG1K().solve(network, flows(network, "hub", count, 0.7, (gap_scv, 0, 0))).wait_s[1])

    waits = [wait(count, 0.0) for count in (5, 20, 100, 1_000, 100_000)]
    assert (np.diff(waits) > 0).all()
    assert waits[-1] == pytest.approx(wait(10, 1.0), rel=1e-3)
    assert wait(20, 4.0) > wait(20, 1.0)


def test_packets_of_one_inlet_do_not_meet() -> None:
    """The fewer links the packets of a queue come by, the shorter they wait; fresh packets wait longest."""
    load, waits = 0.7, []
    for leaves in (1, 2, 8):
        network = star(leaves)
        bps = np.zeros(network.path_count)
        for i in range(leaves):
            bps[network.path_index(f"s{i}", "zend")] = load * CAPACITY_BPS / leaves
        queues = MG1K(size_scv=0.1).solve(network, Traffic(bps, bps / PACKET_BITS))
        waits.append(queues.wait_s[leaves])
    fresh = np.zeros(network.path_count)
    fresh[network.path_index("hub", "zend")] = load * CAPACITY_BPS
    waits.append(MG1K(size_scv=0.1).solve(network, Traffic(fresh, fresh / PACKET_BITS)).wait_s[leaves])
    assert (np.diff(waits) > 0).all()
    assert waits[0] < 0.7 * waits[-1]


def dense_environment(load: float, wavers: float, time: float, levels: int) -> tuple[float, float]:
    """The same queue as one large Markov chain: (environment, packets) states, solved as linear equations."""
    states = SOURCES + 1
    on = min(0.5, 1 / (1 + SOURCES * wavers))
    swing = load * np.sqrt(wavers / (SOURCES * on * (1 - on)))
    rates = load + swing * (np.arange(states) - SOURCES * on)
    size = states * (levels + 1)
    Q = np.zeros((size, size))
    for level in range(levels + 1):
        for m in range(states):
            at = level * states + m
            if level < levels:
                Q[at, at + states] = rates[m]
            if level > 0:
                Q[at, at - states] = 1
            if m < SOURCES:
                Q[at, at + 1] = (SOURCES - m) * on / time
            if m > 0:
                Q[at, at - 1] = m * (1 - on) / time
    np.fill_diagonal(Q, -Q.sum(axis=1))
    Q[:, 0] = 1
    p = np.linalg.solve(Q.T, np.eye(size)[0]).reshape(levels + 1, states)
    lost = float(p[-1] @ rates / load)
    return float(p.sum(axis=1) @ np.arange(levels + 1) / (load * (1 - lost)) - 1), lost


@pytest.mark.parametrize("load", [0.4, 0.9, 1.0, 1.4])
@pytest.mark.parametrize(("wavers", "time"), [(0.01, 10.0), (0.2, 1.0), (0.2, 1e3), (1.5, 30.0)])
@pytest.mark.parametrize("levels", [1, 7, 24])
def test_the_queue_in_a_random_environment_is_exact(
    load: float, wavers: float, time: float, levels: int
) -> None:
    """Level by level or as one large Markov chain: the same wait and the same loss."""
    work = np.empty((LEVELS + 2, SOURCES + 1, SOURCES + 1))
    wait, lost = in_environment(load, wavers, time, float(levels), work)
    expected = dense_environment(load, wavers, time, levels)
    assert wait == pytest.approx(expected[0], rel=1e-6, abs=1e-9)
    assert lost == pytest.approx(expected[1], rel=1e-6, abs=1e-12)


def test_bursts_cost_by_size_and_by_length() -> None:
    """Larger and longer bursts mean longer waits and more loss, short ones none; the buffer bounds all."""
    network = star(1)

    def solve(rate_scv: float, rate_time_s: float) -> tuple[float, float]:
        queues = MG1K().solve(network, flows(network, "hub", 4, 0.7, (1.0, rate_scv, rate_time_s)))
        return float(queues.wait_s[1] / queues.service_s[1]), float(queues.blocking[1])

    calm = solve(0.0, 0.0)
    by_size = np.array([calm, *(solve(scv, 0.1) for scv in (0.1, 0.3, 1.0))])
    by_length = np.array([solve(0.3, time) for time in (1e-6, 1e-3, 1e-2, 0.1, 10.0)])
    assert (np.diff(by_size, axis=0) > 0).all()
    assert (np.diff(by_length, axis=0) > 0).all()
    assert by_length[0] == pytest.approx(calm, rel=1e-2, abs=1e-9)
    assert solve(20.0, 1e6)[0] <= 64


def test_long_bursts_are_a_mix_of_steady_loads() -> None:
    """Where the rate outlasts what the queue remembers, the wait is that of its levels, mixed."""
    network = star(1, buffer=400)
    spread = 0.15 / np.sqrt(2)  # relative: the levels of two sources are 1 − 0.15, 1 and 1 + 0.15
    load = 0.6
    queues = MG1K().solve(network, flows(network, "hub", 1, load, (1.0, spread**2, 1e5)))
    levels = load * np.array([0.85, 1.0, 1.15])
    packets = np.array([0.25, 0.5, 0.25]) * levels / load
    expected = (packets * levels / (1 - levels)).sum() / (load / (1 - load)) * load / (1 - load) / 2
    assert queues.wait_s[1] / queues.service_s[1] == pytest.approx(expected, rel=0.01)


def test_what_is_not_known_is_poisson() -> None:
    """Traffic that tells no variability is solved as Poisson flows are."""
    network = star(3)
    bps = np.random.default_rng(3).exponential(1e5, network.path_count)
    plain = Traffic(bps, bps / PACKET_BITS)
    told = replace(plain, variability=Variability.poisson(len(bps)))
    one, other = MG1K().solve(network, plain), MG1K().solve(network, told)
    for name, values in vars(one).items():
        np.testing.assert_allclose(vars(other)[name], values, rtol=1e-9, atol=1e-15, err_msg=name)


def test_names_of_nodes_do_not_matter() -> None:
    """Renaming nodes moves the predictions with them and changes none."""
    network = star(4)
    order = np.random.default_rng(5).permutation(len(network.nodes))  # new index of every node
    names = network.nodes
    links = tuple(
        replace(
            link,
            source=names[order[names.index(link.source)]],
            target=names[order[names.index(link.target)]],
        )
        for link in network.links
    )
    next_link = np.full_like(network.next_link, -1)
    next_link[np.ix_(order, order)] = network.next_link
    renamed = Network(names, links, next_link)
    bps = np.random.default_rng(6).exponential(1e5, network.path_count)
    source, target = network.ends
    moved = np.empty_like(bps)
    image = [
        renamed.path_index(names[order[s]], names[order[d]]) for s, d in zip(source, target, strict=True)
    ]
    moved[image] = bps
    before = MG1K().predict(network, Traffic(bps, bps / PACKET_BITS))
    after = MG1K().predict(renamed, Traffic(moved, moved / PACKET_BITS))
    np.testing.assert_allclose(after.mean_s[image], before.mean_s, rtol=1e-9)


@pytest.mark.data
def test_the_strong_model_is_strong_on_networks_that_others_simulated() -> None:
    """With all schedulers and traffic of OMNeT++ runs its mean error is below 5 %, M/M/1/b's above 15."""
    samples = list(islice(read_omnet(public_data("routenet-omnet-2022", "75.tar.gz")), 2))
    strong, weak = MG1K(), MM1B()
    models = {
        model.name: lambda sample, model=model: model.predict(sample.network, sample.traffic)
        for model in (strong, weak)
    }
    said = evaluate(models, samples)["models"]
    assert said["mg1k"]["mape"] < 5
    assert said["mm1b"]["mape"] > 15
