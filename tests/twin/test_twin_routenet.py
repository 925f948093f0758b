"""RouteNet as a delay model: its prior, its symmetries, its limits, and what it says of itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from routenet_examples import (
    SIZE_SCV,
    STATES,
    arrays,
    checkpoint_of,
    features_of,
    hastened,
    lab,
    mixed,
    routed,
)

from twin.checkpoint import RouteNetConfig
from twin.errors import TopologyError
from twin.inference import RouteNet
from twin.network import Ints, Network, Traffic
from twin.queueing import MG1K
from twin.topologies import power_law
from twin.traffic import gravity

every_state = pytest.mark.parametrize("name", STATES)


@pytest.fixture(scope="module")
def scrambled() -> RouteNet:
    """A network with random weights, the last layers' too: symmetries must hold for any weights."""
    return RouteNet(checkpoint_of(seen=[features_of(make()) for make in STATES.values()]), threads=1)


@pytest.fixture(scope="module")
def scrambled_rnn() -> RouteNet:
    """The same as an RNN over the path, without a queueing model."""
    return RouteNet(checkpoint_of(RouteNetConfig("rnn", "unqueued", iterations=1, limit=1.0)), threads=1)


# ---------------------------------------------------------------------------------------- the prior


@every_state
def test_untrained_is_the_queueing_model(name: str) -> None:
    """With last layers of zeros the network says what M/G/1/K says, of every scheduler and route."""
    state = STATES[name]()
    said = RouteNet(checkpoint_of(RouteNetConfig(), spread=0.0), threads=1).predict(*state)
    prior = MG1K(size_scv=SIZE_SCV).predict(*state)
    np.testing.assert_allclose(said.mean_s, prior.mean_s, rtol=1e-6)
    np.testing.assert_allclose(said.jitter_s, prior.jitter_s, rtol=1e-6)
    np.testing.assert_allclose(said.loss, prior.loss, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(said.link_utilisation, prior.link_utilisation, rtol=1e-12)


def test_an_untrained_rnn_waits_for_one_packet_a_hop() -> None:
    """Every hop costs a transmission and the wait for one packet; nothing is lost."""
    network, traffic = lab()
    model = RouteNet(checkpoint_of(RouteNetConfig("rnn", "unqueued", iterations=1), spread=0.0), threads=1)
    said = model.predict(network, traffic)
    paths, bits = network.paths, traffic.packet_bits
    per_hop = bits[paths.hop_path] / network.capacity_bps[paths.links]  # all packets are as long here
    hops_s = 2 * per_hop + network.propagation_delay_s[paths.links]
    np.testing.assert_allclose(said.mean_s, np.bincount(paths.hop_path, hops_s), rtol=1e-6)
    assert said.loss.max() < 1e-6
    assert model.name == "rnn"


# --------------------------------------------------------------------------------------- symmetries


def relabelled(network: Network, seed: int) -> tuple[Network, Ints]:
    """Nodes under other names and links in another order, their queues with them; old path → new path."""
    rng = np.random.default_rng(seed)
    order, shuffled = rng.permutation(len(network.nodes)), rng.permutation(len(network.links))  # new → old
    new, place = np.argsort(order), np.append(np.argsort(shuffled), -1)  # old → new; −1 stays
    names = tuple(f"x{i:02d}" for i in range(len(order)))
    ends = ((names[new[s]], names[new[t]]) for s, t in zip(*ends_of(network), strict=True))
    renamed = [
        replace(link, source=source, target=target)
        for link, (source, target) in zip(network.links, ends, strict=True)
    ]
    other = Network(
        names,
        tuple(renamed[old] for old in shuffled),
        place[network.next_link[np.ix_(order, order)]].astype(np.int16),
    )
    forward = [
        other.path_index(*(names[new[end]] for end in network.path_ends(path)))
        for path in range(network.path_count)
    ]
    return other, np.array(forward)


def ends_of(network: Network) -> tuple[list[int], list[int]]:
    """Source and target node of every link."""
    return network.source_index.tolist(), network.target_index.tolist()


@pytest.mark.parametrize("name", ["lab", "mixed"])
def test_names_of_nodes_and_the_order_of_links_and_queues_do_not_matter(
    scrambled: RouteNet, name: str
) -> None:
    """Other names reorder nodes, links, queues and paths, and change no prediction."""
    network, traffic = STATES[name]()
    other, forward = relabelled(network, seed=5)
    path = np.arange(network.path_count) if traffic.path is None else traffic.path
    said = scrambled.predict(other, replace(traffic, path=forward[path]))
    for what, expected in arrays(scrambled.predict(network, traffic)).items():
        np.testing.assert_allclose(getattr(said, what), expected, rtol=2e-5, atol=1e-6, err_msg=what)


def some_flows(traffic: Traffic, chosen: Ints) -> Traffic:
    """The flows ``chosen``, in that order."""
    assert traffic.path is not None
    assert traffic.service_class is not None
    assert traffic.size_scv is not None
    assert traffic.variability is not None
    vary = traffic.variability
    return Traffic(
        bps=traffic.bps[chosen],
        pps=traffic.pps[chosen],
        path=traffic.path[chosen],
        service_class=traffic.service_class[chosen],
        size_scv=traffic.size_scv[chosen],
        variability=replace(
            vary,
            gap_scv=vary.gap_scv[chosen],
            rate_scv=vary.rate_scv[chosen],
            rate_time_s=vary.rate_time_s[chosen],
        ),
    )


@pytest.mark.parametrize("name", ["mixed", "explicit routes"])
def test_the_order_of_flows_does_not_matter(scrambled: RouteNet, name: str) -> None:
    """Flows told in another order get the same figures, each its own."""
    network, traffic = STATES[name]()
    order = np.random.default_rng(6).permutation(len(traffic.pps))
    said = scrambled.predict(network, some_flows(traffic, order))
    for what, expected in arrays(scrambled.predict(network, traffic)).items():
        np.testing.assert_allclose(getattr(said, what), expected[order], rtol=2e-5, atol=1e-6, err_msg=what)


@every_state
def test_units_do_not_matter(scrambled: RouteNet, name: str) -> None:
    """A thousand times the speed and the packets has a thousandth of delay and jitter and the same loss."""
    slow = scrambled.predict(*hastened(STATES[name](), 1.0))
    fast = scrambled.predict(*hastened(STATES[name](), 1e3))
    np.testing.assert_allclose(1e3 * fast.mean_s, slow.mean_s, rtol=1e-4)
    np.testing.assert_allclose(1e3 * fast.jitter_s, slow.jitter_s, rtol=1e-4)
    np.testing.assert_allclose(fast.loss, slow.loss, rtol=1e-3, atol=1e-6)


@every_state
def test_predictions_repeat_to_the_bit(scrambled: RouteNet, name: str) -> None:
    """The same state gives the same bytes twice, and nothing it was given has changed."""
    network, traffic = STATES[name]()
    bps, pps = traffic.bps.copy(), traffic.pps.copy()
    first, second = (arrays(scrambled.predict(network, traffic)) for _ in range(2))
    assert all(first[what].tobytes() == second[what].tobytes() for what in first)
    assert (traffic.bps == bps).all()
    assert (traffic.pps == pps).all()


# ------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize("load", [0.0, 1e-9, 1.0, 2.0, 50.0])
@every_state
def test_never_nan(scrambled: RouteNet, scrambled_rnn: RouteNet, name: str, load: float) -> None:
    """Idle, nearly idle, normal and drowned networks give finite, non-negative numbers, loss at most one."""
    network, traffic = STATES[name]()
    for model in (scrambled, scrambled_rnn):
        said = model.predict(network, traffic.scaled(load))
        for what, values in arrays(said).items():
            assert np.isfinite(values).all(), what
            assert (values >= 0).all(), what
        assert (said.loss <= 1).all()
        assert (said.mean_s > 0).all()


def test_no_route_is_zero(scrambled: RouteNet) -> None:
    """Paths without a route hold zeros while the others are predicted; without any route all is zero."""
    network, traffic = lab()
    cut = network.next_link.copy()
    cut[:, 0] = -1
    said = scrambled.predict(replace(network, next_link=cut), traffic)
    to_first = np.array([network.path_ends(path)[1] == 0 for path in range(network.path_count)])
    assert not any(values[to_first].any() for values in arrays(said).values())
    assert (said.mean_s[~to_first] > 0).all()
    nothing = scrambled.predict(replace(network, next_link=np.full_like(cut, -1)), traffic)
    assert not any(values.any() for values in arrays(nothing).values())


def test_links_that_are_down_carry_nothing(scrambled: RouteNet) -> None:
    """Flows over a cut link hold zeros, as if they had no route."""
    network, traffic = mixed()
    links = tuple(replace(link, up=i != 0) for i, link in enumerate(network.links))
    said = scrambled.predict(replace(network, links=links), traffic)
    hops = traffic.hops(network)
    over = np.bincount(hops.hop_path, hops.links == 0, len(traffic.pps)) > 0
    assert over.any()
    assert ((said.mean_s > 0) == ~over).all()


def test_no_flows_and_no_links_are_no_error(scrambled: RouteNet) -> None:
    """A network in which nothing can flow, or nothing does, gives as many predictions as it has flows."""
    alone = Network(("a",), (), np.full((1, 1), -1, dtype=np.int16))
    apart = Network(("a", "b"), (), np.full((2, 2), -1, dtype=np.int16))
    nothing = Traffic(bps=np.zeros(0), pps=np.zeros(0))
    assert scrambled.predict(alone, nothing).mean_s.shape == (0,)
    assert scrambled.predict(apart, Traffic(bps=np.ones(2), pps=np.ones(2))).mean_s.tolist() == [0.0, 0.0]
    quiet = replace(nothing, path=np.zeros(0, dtype=np.int64))
    said = scrambled.predict(lab()[0], quiet)
    assert said.mean_s.shape == (0,)
    assert not said.link_utilisation.any()


@pytest.mark.parametrize("wrong", [np.nan, -1.0, np.inf])
def test_traffic_that_cannot_be_is_refused(scrambled: RouteNet, wrong: float) -> None:
    """NaN, negative and infinite rates are an error that names the flow, with both priors; never a NaN."""
    network, traffic = lab()
    bps = traffic.bps.copy()
    bps[7] = wrong
    with pytest.raises(TopologyError, match="bps of flow 7"):
        scrambled.predict(network, replace(traffic, bps=bps))


# -------------------------------------------------------------------------- what it says of itself


@every_state
def test_intervals_leave_propagation_alone(scrambled: RouteNet, name: str) -> None:
    """The interval is that of the queueing part: propagation makes it narrower on the log scale."""
    network, traffic = STATES[name]()

    def with_propagation(delay_s: float) -> Network:
        return replace(network, links=tuple(replace(x, propagation_delay_s=delay_s) for x in network.links))

    features = features_of((network, traffic))
    _, scale, _ = scrambled.expect(features)
    still = scrambled.predict(with_propagation(0.0), traffic)
    np.testing.assert_allclose(still.log_width, np.minimum(2.0 * scale, 5.0), rtol=1e-9)
    far = scrambled.predict(with_propagation(1e3 * still.mean_s.max()), traffic)
    assert (far.log_width < 0.02).all()
    upper_s = still.mean_s * np.exp(still.log_width) - still.mean_s
    np.testing.assert_allclose(far.mean_s * np.expm1(far.log_width), upper_s, rtol=1e-6)


def test_heads_that_disagree_widen_the_interval() -> None:
    """What the ensemble's heads are apart adds to the error that the network expects of itself."""
    checkpoint = checkpoint_of(spread=0.0)
    apart = {name: array.copy() for name, array in checkpoint.weights.items()}
    apart["correct.bias"][:3] = (-0.2, 0.0, 0.2)
    features = features_of(lab())
    (_, agreed, _), (_, torn, _) = (
        RouteNet(replace(checkpoint, weights=weights), threads=1).expect(features)
        for weights in (checkpoint.weights, apart)
    )
    np.testing.assert_allclose(agreed, np.exp(-3.0), rtol=1e-4)  # the configuration's: 5 %
    assert (torn > agreed).all()


def test_out_of_range_is_said(scrambled: RouteNet) -> None:
    """A state beyond the range the model was checked in says what is beyond, and by how much."""
    network, traffic = lab()
    assert scrambled.predict(network, traffic).out_of_range == ()
    deep = replace(network, links=tuple(replace(link, buffer_packets=500) for link in network.links))
    said = scrambled.predict(deep, traffic.scaled(4)).out_of_range
    assert [sentence.split()[0] for sentence in said] == ["load", "buffer"]
    assert said[1] == "buffer packets 500 above 128 seen"
    shallow = replace(network, links=tuple(replace(link, buffer_packets=2) for link in network.links))
    assert scrambled.predict(shallow, traffic).out_of_range == ("buffer packets 2 below 8 seen",)
    large = power_law(30, 1).network()
    assert scrambled.predict(large, gravity(30, 1e7, seed=1)).out_of_range[0] == "nodes 30 above 20 seen"


def test_a_scheduler_never_seen_is_said(scrambled: RouteNet) -> None:
    """A model trained on FIFO alone says so where it meets another policy that carries traffic."""
    checkpoint = scrambled.checkpoint
    limits = checkpoint.safe_range.limits | {
        f"{name} scheduling": (0.0, 0.0) for name in ("SP", "WFQ", "DRR")
    }
    narrow = RouteNet(
        replace(checkpoint, safe_range=replace(checkpoint.safe_range, limits=limits)), threads=1
    )
    assert narrow.predict(*lab()).out_of_range == ()
    said = narrow.predict(*routed()).out_of_range
    assert {sentence.split()[0] for sentence in said if "scheduling" in sentence} == {"SP", "WFQ", "DRR"}
