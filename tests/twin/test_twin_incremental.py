"""Predicting what a change touches: as good as predicting all, whatever changes, however often."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest
from routenet_examples import STATES, State, checkpoint_of, lab, mixed

from twin.checkpoint import RouteNetConfig, SafeRange, read_checkpoint
from twin.errors import TopologyError, UsageError
from twin.features_ways import Ways
from twin.incremental import Incremental
from twin.incremental_core import Crossings
from twin.incremental_prior import OfferMemory, changed_flows
from twin.inference import RouteNet, load
from twin.inference import shipped as weights_of
from twin.models import PathPrediction
from twin.network import Network, Traffic
from twin.queueing import MG1K, LinkQueues
from twin.topologies import power_law
from twin.traffic import lab_scenario
from twin.whatif import reroute

PROMISED = 1e-4  # of every delay and jitter
LOSS = 2e-6  # absolute
Change = Callable[[State, np.random.Generator], State]


@cache
def shipped(name: str = "routenet") -> RouteNet:
    """A model that has learnt, as large changes matter as much as they do in use."""
    return load(name=name, threads=1)


@cache
def loaded(nodes: int, load: float, seed: int = 1) -> State:
    """A power law of FIFO links whose busiest has about this load."""
    network, traffic = lab_scenario(power_law(nodes, seed=seed), seed=seed)
    busiest = MG1K().solve(network, traffic).link_load.max()
    return network, traffic.scaled(load / busiest)


def hold(said: PathPrediction, state: State, model: RouteNet) -> None:
    """An update says what a prediction of all flows does."""
    whole, routed = model.predict(*state), state[1].hops(state[0]).lengths > 0
    for name in ("mean_s", "jitter_s"):
        np.testing.assert_allclose(
            getattr(said, name)[routed], getattr(whole, name)[routed], rtol=PROMISED, err_msg=name
        )
    np.testing.assert_allclose(said.loss, whole.loss, atol=LOSS)
    np.testing.assert_allclose(said.link_utilisation, whole.link_utilisation, rtol=1e-9)
    np.testing.assert_allclose(said.log_width, whole.log_width, rtol=0.1, atol=1e-3)
    assert said.out_of_range == whole.out_of_range
    assert not said.mean_s[~routed].any()


# ------------------------------------------------------------------------------------- what may change


def _times(traffic: Traffic, flows: np.ndarray[tuple[int], np.dtype[np.int64]], factor: float) -> Traffic:
    factors = np.ones(len(traffic.bps))
    factors[flows] = factor
    return replace(traffic, bps=traffic.bps * factors, pps=traffic.pps * factors)


def flow_grows(state: State, rng: np.random.Generator) -> State:
    """One flow sends up to four times as much."""
    network, traffic = state
    return network, _times(traffic, rng.integers(len(traffic.bps), size=1), rng.uniform(1, 4))


def flow_ends(state: State, rng: np.random.Generator) -> State:
    """One flow sends nothing any more."""
    network, traffic = state
    return network, _times(traffic, rng.integers(len(traffic.bps), size=1), 0.0)


def link_fills(state: State, rng: np.random.Generator) -> State:
    """All flows over one link send a fifth more or less."""
    network, traffic = state
    hops = traffic.hops(network)
    flows = hops.hop_path[hops.links == rng.integers(len(network.links))]
    return network, _times(traffic, flows, rng.choice([0.8, 1.2]))


def _with_link(state: State, link: int, **changes: float) -> State:
    network, traffic = state
    links = list(network.links)
    links[link] = replace(links[link], **changes)  # type: ignore[arg-type]
    return replace(network, links=tuple(links)), traffic


def capacity_changes(state: State, rng: np.random.Generator) -> State:
    """One link gets faster or slower by a quarter."""
    link = int(rng.integers(len(state[0].links)))
    return _with_link(state, link, capacity_bps=state[0].links[link].capacity_bps * rng.uniform(0.8, 1.25))


def cable_grows(state: State, rng: np.random.Generator) -> State:
    """One link gets longer by two milliseconds."""
    link = int(rng.integers(len(state[0].links)))
    longer = state[0].links[link].propagation_delay_s + 2e-3
    return _with_link(state, link, propagation_delay_s=longer)


def buffer_shrinks(state: State, rng: np.random.Generator) -> State:
    """One link gets a buffer of nine packets."""
    return _with_link(state, int(rng.integers(len(state[0].links))), buffer_packets=9, buffer_bits=0.0)


CHANGES: dict[str, Change] = {
    change.__name__: change
    for change in (flow_grows, flow_ends, link_fills, capacity_changes, cable_grows, buffer_shrinks)
}
NETWORKS: dict[str, Callable[[], State]] = {
    **STATES,
    "light": lambda: loaded(30, 0.3),
    "busy": lambda: loaded(30, 0.8),
    "overloaded": lambda: loaded(30, 1.1),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", NETWORKS)
def test_an_update_is_as_good_as_a_prediction_of_all_flows(name: str, change: str) -> None:
    """Every delay and jitter within 1e-4 and every loss within 2e-6, whatever one thing changes."""
    rng, model = np.random.default_rng(5), shipped()
    incremental, state = Incremental(model), NETWORKS[name]()
    incremental.predict(*state)
    for _ in range(3):
        state = CHANGES[change](state, rng)
        hold(incremental.update(*state), state, model)
        assert incremental.rerun.flows <= len(state[1].pps)


@pytest.mark.parametrize(("nodes", "load"), [(30, 1.1), (60, 0.6)])
def test_fifty_changes_do_not_drift(nodes: int, load: float) -> None:
    """After fifty changes of all kinds, one on top of the other, the promise still holds."""
    rng, model = np.random.default_rng(7), shipped()
    incremental, state = Incremental(model), loaded(nodes, load)
    incremental.predict(*state)
    for number in range(50):
        state = list(CHANGES.values())[rng.integers(len(CHANGES))](state, rng)
        said = incremental.update(*state)
        if number % 10 == 9:
            hold(said, state, model)


@pytest.mark.parametrize("name", ["rnn", "one head", "four iterations"])
def test_other_models_are_followed_too(name: str) -> None:
    """An RNN, which tells queues nothing, and other shapes: with random weights, which exaggerate."""
    configs = {
        "one head": RouteNetConfig(heads=1, iterations=2, limit=1.0),
        "four iterations": RouteNetConfig(iterations=4, limit=1.0),
    }
    model = RouteNet(checkpoint_of(configs[name]), threads=1) if name in configs else shipped(name)
    rng, incremental, state = np.random.default_rng(3), Incremental(model), loaded(50, 0.9)
    incremental.predict(*state)
    for change in (flow_grows, capacity_changes, link_fills, *CHANGES.values()):
        state = change(state, rng)
        hold(incremental.update(*state), state, model)


def test_a_flow_owes_for_what_its_state_takes_to_the_next_sweep() -> None:
    """A queue that is little of a path's wait moves the flow's state, and so all hops read out later."""
    model, (network, traffic) = shipped(), loaded(100, 0.3, seed=6)
    incremental = Incremental(model)
    incremental.predict(network, traffic)
    links = np.random.default_rng(6).permutation(len(network.links))
    ends = [network.path_index(network.links[link].source, network.links[link].target) for link in links]
    direct = [path for path in ends if len(network.paths.of(path)) == 1]
    for path in direct[:12]:
        (link,) = network.paths.of(path)
        over = traffic.bps[network.paths.hop_path[network.paths.links == link]].sum()
        traffic = _times(traffic, np.array([path]), 1 + 0.1 * over / traffic.bps[path])
        hold(incremental.update(network, traffic), (network, traffic), model)
    assert incremental.rerun.flows < 0.5 * len(traffic.pps)


def test_a_flow_owes_for_what_it_tells_queues_where_it_does_not_wait() -> None:
    """Weights that lean on shares of inlets: many flows that tell a queue a little else move it together."""
    checkpoint = replace(read_checkpoint(weights_of("testbed")), safe_range=SafeRange({}))
    model, state = RouteNet(checkpoint, threads=1), loaded(100, 0.5, seed=2)
    incremental, rng = Incremental(model), np.random.default_rng(2)
    incremental.predict(*state)
    for _ in range(12):
        state = flow_grows(state, rng)
        hold(incremental.update(*state), state, model)
    assert incremental.rerun.flows < 0.9 * len(state[1].pps)


def test_small_changes_add_up() -> None:
    """Two hundred changes, each too small for most flows to be run again, are seen together."""
    model, state = shipped(), loaded(30, 0.6)
    incremental = Incremental(model)
    first = incremental.predict(*state)
    network, traffic = state
    path = int(network.paths.lengths.argmax())
    runs = []
    for _ in range(200):
        traffic = _times(traffic, np.array([path]), 1.0005)
        said = incremental.update(network, traffic)
        runs.append(incremental.rerun.flows)
    hold(said, (network, traffic), model)
    assert np.median(runs) < 0.3 * len(traffic.pps)
    others = np.arange(len(traffic.pps)) != path
    assert np.abs(said.mean_s[others] / first.mean_s[others] - 1).max() > 3 * PROMISED


# ------------------------------------------------------------------------------------- how much is run


def test_nothing_changed_runs_nothing() -> None:
    """The same state again, in other objects: no flow is run, and the prediction is the same to the byte."""
    incremental = Incremental(shipped())
    network, traffic = loaded(30, 0.8)
    before = incremental.predict(network, traffic)
    again = incremental.update(replace(network), traffic.scaled(1.0))
    assert (incremental.rerun.flows, incremental.rerun.whole) == (0, "")
    for field in fields(PathPrediction):
        assert np.array_equal(getattr(again, field.name), getattr(before, field.name)), field.name


def test_a_prediction_of_all_flows_is_the_models() -> None:
    """What is remembered changes nothing in what is said first."""
    for state in (mixed(), loaded(30, 1.1)):
        said, models = Incremental(shipped()).predict(*state), shipped().predict(*state)
        np.testing.assert_allclose(said.mean_s, models.mean_s, rtol=1e-6)
        np.testing.assert_allclose(said.log_width, models.log_width, rtol=1e-5, atol=1e-7)


def test_one_links_load_runs_few_flows() -> None:
    """In a network of 90 nodes, a little more traffic on one link makes less than half of all flows run."""
    state = loaded(90, 0.4)
    network, traffic = state
    incremental, runs = Incremental(shipped()), []
    incremental.predict(*state)
    for link in network.links[:60:10]:
        path = network.path_index(link.source, link.target)
        more = 1 + 0.02 * link.capacity_bps / traffic.bps[path]
        traffic = _times(traffic, np.array([path]), more)
        incremental.update(network, traffic)
        runs.append(incremental.rerun.flows)
    assert 0 < np.median(runs) < 0.5 * len(traffic.pps)


def test_earlier_predictions_stay_as_they_are() -> None:
    """An update writes into nothing that was handed out."""
    incremental, state = Incremental(shipped()), loaded(30, 0.8)
    before = incremental.predict(*state)
    kept = before.mean_s.copy(), before.log_width.copy()
    after = incremental.update(*link_fills(state, np.random.default_rng(1)))
    assert np.array_equal(before.mean_s, kept[0])
    assert np.array_equal(before.log_width, kept[1])
    assert not np.array_equal(after.mean_s, before.mean_s)


def test_an_update_changes_nothing_it_is_given() -> None:
    """Network and traffic are those of the caller, who may come back to them."""
    incremental, state = Incremental(shipped()), loaded(30, 0.8)
    traffic = state[1]
    copies = traffic.bps.copy(), traffic.pps.copy()
    incremental.predict(*state)
    incremental.update(
        *capacity_changes(flow_grows(state, np.random.default_rng(1)), np.random.default_rng(2))
    )
    hold(incremental.update(*state), state, shipped())
    assert np.array_equal(traffic.bps, copies[0])
    assert np.array_equal(traffic.pps, copies[1])


def test_the_number_of_threads_does_not_matter() -> None:
    """More than 5,000 flows: the same bytes on one thread and two, and as many flows run again."""
    state = loaded(75, 0.7)
    said, runs = [], []
    for threads in (1, 2):
        incremental = Incremental(load(threads=threads))
        incremental.predict(*state)
        said.append(incremental.update(*link_fills(state, np.random.default_rng(2))))
        runs.append(incremental.rerun)
    assert runs[0] == runs[1]
    for name in ("mean_s", "jitter_s", "loss", "log_width"):
        assert getattr(said[0], name).tobytes() == getattr(said[1], name).tobytes(), name


def test_a_network_without_links_has_nothing_to_run() -> None:
    """Two nodes that nothing joins: zeros, before and after."""
    network = Network(("A", "B"), (), np.full((2, 2), -1, np.int16))
    incremental = Incremental(shipped())
    for rate in (0.0, 1e3):
        traffic = Traffic(bps=np.full(2, 8 * rate), pps=np.full(2, rate))
        said = incremental.update(network, traffic)
        assert not said.mean_s.any()
        assert not said.loss.any()


# ------------------------------------------------------------------------------------- what is not followed


def link_fails(state: State) -> State:
    """One link is down, and traffic finds other ways."""
    network, traffic = state
    links = (replace(network.links[0], up=False), *network.links[1:])
    down = replace(network, links=links)
    return replace(down, next_link=reroute(down, np.ones(len(links)))), traffic


def one_flow_less(state: State) -> State:
    """The last flow is gone, so that flows are named by their paths."""
    network, traffic = state
    kept = np.arange(len(traffic.pps) - 1)
    return network, Traffic(bps=traffic.bps[kept], pps=traffic.pps[kept], path=kept)


def other_buffers(state: State) -> State:
    """All flows change."""
    network, traffic = state
    return network, traffic.scaled(1.3)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (link_fails, "another topology, routing or scheduling"),
        (one_flow_less, "other flows"),
        (other_buffers, "the change touches most flows"),
    ],
)
def test_what_is_not_followed_is_predicted_whole(change: Callable[[State], State], why: str) -> None:
    """Another topology, other flows, a change that touches most of them: all are run, and it says why."""
    model, state = shipped(), lab()
    incremental = Incremental(model)
    incremental.predict(*state)
    after = change(state)
    said = incremental.update(*after)
    assert incremental.rerun.whole == why
    assert incremental.rerun.flows == len(after[1].pps)
    hold(said, after, model)
    back = incremental.update(*state)
    hold(back, state, model)


def test_a_state_beyond_what_the_model_has_seen_is_predicted_whole() -> None:
    """What a step is worth there cannot be told: all flows are run, and it says why."""
    model, state = shipped("testbed"), loaded(50, 0.5)
    incremental = Incremental(model)
    incremental.predict(*state)
    after = flow_grows(state, np.random.default_rng(1))
    hold(incremental.update(*after), after, model)
    assert incremental.rerun.whole == "outside of what the model has seen"


def test_the_first_update_is_a_prediction() -> None:
    """Where nothing is remembered, all is predicted."""
    incremental = Incremental(shipped())
    hold(incremental.update(*lab()), lab(), shipped())
    assert incremental.rerun.whole == "nothing is remembered"


def test_traffic_that_cannot_be_is_refused_and_forgotten() -> None:
    """A rate that is no number raises what a prediction raises; the state before is still remembered."""
    incremental, state = Incremental(shipped()), lab()
    network, traffic = state
    incremental.predict(network, traffic)
    wrong = traffic.bps.copy()
    wrong[3] = np.nan
    with pytest.raises(TopologyError, match="bps of flow 3 is nan"):
        incremental.update(network, replace(traffic, bps=wrong))
    after = flow_grows(state, np.random.default_rng(1))
    hold(incremental.update(*after), after, shipped())
    assert not incremental.rerun.whole


def test_only_the_cpus_kernel_is_followed() -> None:
    """A model that torch runs is refused in words that say what to do."""
    model = RouteNet(checkpoint_of(RouteNetConfig(state=8)))
    with pytest.raises(UsageError, match="load it for cpu"):
        Incremental(model)


# ------------------------------------------------------------------------------------- the queueing model


@pytest.mark.parametrize("name", ["mixed", "busy", "overloaded"])
def test_the_fixed_point_is_followed_exactly(name: str) -> None:
    """With the answers of the passes before, the queueing model ends where it ends without them."""
    state, rng, prior = NETWORKS[name](), np.random.default_rng(4), MG1K()
    ways = Ways.of(*state)
    crossings = Crossings.of(ways.hops.links, ways.queues, ways.hops.offsets, len(state[0].links))
    memory = OfferMemory(ways, crossings)
    prior.solve(*state, offers=memory)
    for change in (flow_grows, link_fills, capacity_changes, flow_ends, buffer_shrinks):
        after = change(state, rng)
        memory.begin(changed_flows(state[1], after[1]))
        followed, whole = prior.solve(*after, offers=memory), prior.solve(*after)
        for field in fields(LinkQueues):
            np.testing.assert_allclose(
                getattr(followed, field.name), getattr(whole, field.name), rtol=1e-9, atol=1e-15
            )
        state = after
