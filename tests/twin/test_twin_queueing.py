"""The queueing models against exact chains, against each other, and against what any network must obey."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from numpy.typing import NDArray

from twin.errors import TopologyError
from twin.network import Link, Network, Traffic
from twin.queueing import MG1K, MM1B, smith_blocking

Floats = NDArray[np.float64]
PACKET_BITS = 8_000.0
CAPACITY_BPS = 10e6


def line(
    hops: int, *, buffer: int = 32, propagation_s: float = 0.0, capacity_bps: float = CAPACITY_BPS
) -> Network:
    """Nodes n0 … n{hops} in a row, forward links only."""
    nodes = tuple(f"n{i}" for i in range(hops + 1))
    links = tuple(
        Link(nodes[i], nodes[i + 1], capacity_bps, propagation_delay_s=propagation_s, buffer_packets=buffer)
        for i in range(hops)
    )
    next_link = np.full((hops + 1, hops + 1), -1, dtype=np.int16)
    for source in range(hops):
        next_link[source, source + 1 :] = source
    return Network(nodes=nodes, links=links, next_link=next_link)


def end_to_end(network: Network, load: float) -> Traffic:
    """Traffic from the first node to the last alone."""
    bps = np.zeros(network.path_count)
    bps[network.path_index(network.nodes[0], network.nodes[-1])] = load * CAPACITY_BPS
    return Traffic(bps=bps, pps=bps / PACKET_BITS)


def exact_wait(load: float, arrivals: Floats, buffer: int) -> tuple[float, float]:
    """Blocking and mean wait (in service times) of M/G/1/K from its embedded chain.

    ``arrivals[k]`` = P(k arrivals in one service) = a_k. Level crossing gives
    π_{j+1} = (π_0 T_j + Σ π_i T_{j−i+1})/a_0 with T_k = P(more than k), all terms positive.
    """
    tail = 1 - np.cumsum(arrivals)
    pi = np.zeros(buffer)
    pi[0] = 1.0
    for j in range(buffer - 1):
        flow = pi[0] * tail[j] + sum(pi[i] * tail[j - i + 1] for i in range(1, j + 1))
        pi[j + 1] = flow / arrivals[0]
    pi /= pi.sum()
    blocking = 1 - 1 / (pi[0] + load)
    number = (np.arange(buffer) * pi).sum() / (pi[0] + load) + buffer * blocking
    return blocking, number / (load * (1 - blocking)) - 1


def mixed_sizes(load: float, sizes: tuple[float, ...], shares: tuple[float, ...], buffer: int) -> Floats:
    """P(k Poisson arrivals during one service) when sizes (mean one) come with the given shares."""
    k = np.arange(buffer + 1)
    factorial = np.array([math.lgamma(i + 1) for i in k])
    each = [np.exp(-load * size + k * math.log(load * size) - factorial) for size in sizes]
    mixed: Floats = np.tensordot(np.array(shares), np.array(each), axes=1)
    return mixed


LOADS = (0.1, 0.4, 0.7, 0.9, 0.99, 1.0, 1.1, 1.3)


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("buffer", [1, 2, 8, 64])
def test_mm1b_is_the_textbook_queue(load: float, buffer: int) -> None:
    """One M/M/1/b queue has exactly the blocking and the wait of the textbook."""
    network = line(1, buffer=buffer)
    queues = MM1B().solve(network, end_to_end(network, load))
    states = load ** np.arange(buffer + 1)
    states /= states.sum()
    wait = (np.arange(buffer + 1) * states).sum() / (load * (1 - states[-1])) - 1
    assert queues.blocking[0] == pytest.approx(states[-1], rel=1e-6)
    assert queues.wait_s[0] / queues.service_s[0] == pytest.approx(wait, rel=1e-6, abs=1e-9)
    seen = states[:-1] / states[:-1].sum()  # an admitted packet waits Erlang(n)
    n = np.arange(buffer)
    variance = (seen * (n + n**2)).sum() - (seen * n).sum() ** 2
    assert queues.wait_std_s[0] / queues.service_s[0] == pytest.approx(
        math.sqrt(variance), rel=1e-5, abs=1e-6
    )


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("buffer", [32, 64])
@pytest.mark.parametrize(
    ("sizes", "shares"),
    [((1.0,), (1.0,)), ((0.3, 1.35), (1 / 3, 2 / 3)), ((0.1, 1.9), (0.5, 0.5))],
    ids=["fixed", "bimodal", "wide"],
)
def test_mg1k_meets_the_exact_chain(
    load: float, buffer: int, sizes: tuple[float, ...], shares: tuple[float, ...]
) -> None:
    """The mean wait of M/G/1/K is within 1 % of the embedded Markov chain for fixed and for mixed sizes."""
    scv = float(np.dot(shares, np.square(sizes)) / np.dot(shares, sizes) ** 2 - 1)
    network = line(1, buffer=buffer)
    queues = MG1K(size_scv=scv).solve(network, end_to_end(network, load))
    blocking, wait = exact_wait(load, mixed_sizes(load, sizes, shares, buffer), buffer)
    assert queues.wait_s[0] / queues.service_s[0] == pytest.approx(wait, rel=0.01)
    if blocking > 1e-2:
        assert queues.blocking[0] == pytest.approx(blocking, rel=0.02)


def test_blocking_is_smooth_through_saturation() -> None:
    """Blocking rises steadily from an idle to a drowned queue, without a seam at load one."""
    loads = np.concatenate([np.linspace(1e-6, 3, 3001), 1 + np.linspace(-1e-6, 1e-6, 201)])
    loads.sort()
    for scv in (0.0, 0.5, 1.0, 4.0):
        blocking = smith_blocking(loads, np.full(len(loads), scv), np.full(len(loads), 64))
        assert (np.diff(blocking) >= -1e-9).all()
        assert blocking[0] < 1e-12
        assert blocking[-1] == pytest.approx(2 / 3, rel=1e-3)


def test_a_path_is_the_sum_of_its_hops() -> None:
    """Delay = waits + the path's own transmissions + propagation, for paths without traffic too."""
    network = line(3, propagation_s=0.005)
    traffic = end_to_end(network, 0.5)
    model = MG1K(size_scv=0.0)
    queues = model.solve(network, traffic)
    prediction = model.predict(network, traffic)
    whole = network.path_index("n0", "n3")
    transmission = PACKET_BITS / CAPACITY_BPS
    assert prediction.mean_s[whole] == pytest.approx(queues.wait_s.sum() + 3 * transmission + 3 * 0.005)
    assert prediction.mean_s[network.path_index("n1", "n2")] == pytest.approx(
        queues.wait_s[1] + transmission + 0.005
    )
    assert prediction.mean_s[network.path_index("n3", "n0")] == 0
    assert prediction.link_utilisation == pytest.approx(np.full(3, 0.5))


def test_losses_upstream_thin_what_arrives_downstream() -> None:
    """Behind a saturated link the next one sees at most the carried load."""
    network = line(2, buffer=16)
    queues = MG1K().solve(network, end_to_end(network, 1.5))
    assert queues.load[0] == pytest.approx(1.5)
    assert queues.load[1] == pytest.approx(1.5 * (1 - queues.blocking[0]), rel=1e-4)
    assert queues.load[1] <= 1.0


def test_mixed_means_on_a_link_add_variance() -> None:
    """Two paths of different mean packet size make a link burstier in service than either alone."""
    network = line(2)
    bps, sizes = np.zeros(6), np.full(6, PACKET_BITS)
    bps[network.path_index("n0", "n1")] = 2e6
    bps[network.path_index("n0", "n2")] = 2e6
    sizes[network.path_index("n0", "n2")] = PACKET_BITS / 8
    queues = MG1K(size_scv=0.1).solve(network, Traffic(bps=bps, pps=bps / sizes))
    share = 8 / 9  # of packets are the small ones
    second = (share / 64 + (1 - share)) * 1.1
    assert queues.service_scv[0] == pytest.approx(second / (share / 8 + 1 - share) ** 2 - 1)
    assert queues.service_scv[1] == pytest.approx(0.1)


@pytest.mark.parametrize("model", [MM1B(), MG1K()], ids=["mm1b", "mg1k"])
def test_delay_grows_with_load_and_stays_finite(model: MG1K) -> None:
    """More traffic never means less delay or less loss, from idle to ten times capacity; nothing is NaN."""
    network = line(3)
    predictions = [model.predict(network, end_to_end(network, load)) for load in (0, 0.2, 0.8, 1, 1.2, 3, 10)]
    delays = np.array([p.mean_s[network.path_index("n0", "n3")] for p in predictions])
    losses = np.array([p.loss[network.path_index("n0", "n3")] for p in predictions])
    assert (np.diff(delays[:5]) > 0).all()
    assert (np.diff(losses) >= 0).all()
    for p in predictions:
        for values in (p.mean_s, p.jitter_s, p.loss, p.log_width, p.link_utilisation):
            assert np.isfinite(values).all()
            assert (values >= 0).all()


def test_units_do_not_matter() -> None:
    """A network ten times as fast with ten times the packets has a tenth of the delay."""
    slow, fast = line(3), line(3, capacity_bps=10 * CAPACITY_BPS)
    traffic = end_to_end(slow, 0.7)
    scaled = Traffic(bps=10 * traffic.bps, pps=10 * traffic.pps)
    np.testing.assert_allclose(
        MG1K().predict(fast, scaled).mean_s * 10, MG1K().predict(slow, traffic).mean_s, rtol=1e-9
    )


def test_bad_traffic_is_refused_in_one_line() -> None:
    """A matrix of the wrong size, or with a negative or missing rate, is named for what it is."""
    network = line(2)
    with pytest.raises(TopologyError, match="6 flows are needed"):
        MG1K().predict(network, Traffic(bps=np.zeros(5), pps=np.zeros(5)))
    for bad in (-1.0, np.nan):
        with pytest.raises(TopologyError, match=r"bps of flow 0 is .*: give zero or a positive number"):
            MG1K().predict(network, Traffic(bps=np.full(6, bad), pps=np.zeros(6)))


def test_paths_without_traffic_get_the_mean_packet() -> None:
    """Where nothing flows the size of all traffic stands in, and 8,000 bit where nothing flows at all."""
    traffic = Traffic(bps=np.array([8e3, 8e3, 0.0]), pps=np.array([1.0, 3.0, 0.0]))
    assert traffic.packet_bits[2] == pytest.approx(4_000)
    assert Traffic(bps=np.zeros(2), pps=np.zeros(2)).packet_bits == pytest.approx([8_000, 8_000])


def random_network(nodes: int, seed: int) -> Network:
    """A ring with chords, routed by hop count: a stand-in of any size."""
    rng = np.random.default_rng(seed)
    pairs = {(i, (i + 1) % nodes) for i in range(nodes)}
    pairs |= {(int(a), int(b)) for a, b in rng.integers(nodes, size=(nodes, 2)) if a != b}
    ends = sorted({(a, b) for a, b in pairs} | {(b, a) for a, b in pairs})
    names = tuple(f"n{i:04d}" for i in range(nodes))
    links = tuple(Link(names[a], names[b], CAPACITY_BPS, 0.001, 64) for a, b in ends)
    distance = np.full((nodes, nodes), 1e9)
    np.fill_diagonal(distance, 0)
    source, target = np.array(ends).T
    for _ in range(nodes):
        improved = distance.copy()
        np.minimum.at(improved, source, 1 + distance[target])
        if (improved == distance).all():
            break
        distance = improved
    next_link = np.full((nodes, nodes), -1, dtype=np.int16)
    for index, (a, b) in enumerate(ends):
        closer = distance[b] + 1 == distance[a]
        next_link[a, closer & (next_link[a] < 0)] = index
    np.fill_diagonal(next_link, -1)
    return Network(nodes=names, links=links, next_link=next_link)


def test_three_hundred_nodes_in_a_tenth_of_a_second() -> None:
    """All 89,700 paths of a 300-node network take at most 0.10 s of processor time once warm."""
    network = random_network(300, seed=1)
    rng = np.random.default_rng(2)
    bps = rng.exponential(size=network.path_count)
    hops = network.paths.links
    load = np.bincount(hops, weights=bps[network.paths.hop_path], minlength=len(network.links))
    bps *= 1.1 * CAPACITY_BPS / load.max()
    traffic = Traffic(bps=bps, pps=bps / PACKET_BITS)
    model = MG1K()
    model.predict(network, traffic)
    spent = []
    for _ in range(5):
        start = time.process_time()
        prediction = model.predict(network, traffic)
        spent.append(time.process_time() - start)
    assert min(spent) <= 0.10
    assert np.isfinite(prediction.mean_s).all()
