"""The packet simulator against queueing theory, conservation, and what is done to it in its run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from math import inf, isclose, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twin.errors import TopologyError
from twin.network import Link, Network, Paths
from twin.routing import shortest_paths
from twin.simulator import (
    Arrivals,
    Cbr,
    Flow,
    Mmpp,
    Modulated,
    OnOff,
    PacketSizes,
    Poisson,
    Simulator,
)
from twin.topologies import nsfnet
from twin.traffic import lab_scenario, path_flows

CAPACITY_BPS = 1e9
PACKET_BITS = 10_000
SERVICE_S = PACKET_BITS / CAPACITY_BPS
EXPONENTIAL = PacketSizes.of_mean(PACKET_BITS)
FIXED = PacketSizes.fixed(PACKET_BITS)
BIMODAL = PacketSizes.bimodal(2000, 18_000)
ARRIVALS: dict[str, Arrivals] = {
    "poisson": Poisson(),
    "cbr": Cbr(),
    "on-off": OnOff(mean_on_s=0.02, mean_off_s=0.03),
    "mmpp": Mmpp(ratio=5, mean_high_s=0.02, mean_low_s=0.05),
    "modulated": Modulated(sigma=0.7, mean_s=0.03),
}


def line(hops: int = 1, *, buffer_packets: int = 10**6, propagation_delay_s: float = 0.0) -> Network:
    """Nodes A, B, C, … in a row, links both ways: 2k forward, 2k + 1 back."""
    nodes = tuple(chr(ord("A") + i) for i in range(hops + 1))
    links = tuple(
        Link(a, b, CAPACITY_BPS, propagation_delay_s, buffer_packets)
        for left, right in pairwise(nodes)
        for a, b in ((left, right), (right, left))
    )
    return Network(nodes, links, shortest_paths(nodes, links))


def one_queue(
    load: float, sizes: PacketSizes, *, buffer_packets: int = 10**6, packets: float = 4e6
) -> Simulator:
    """A single queue in its steady state, its delays measured over about so many packets."""
    pps = load * CAPACITY_BPS / sizes.mean_bits
    simulator = Simulator(line(buffer_packets=buffer_packets), [Flow(0, 1, pps, sizes)], seed=3)
    simulator.advance(0.05 * packets / pps)
    simulator.take_delays()
    simulator.advance(simulator.now_s + packets / pps)
    return simulator


# ------------------------------------------------------------------------------------------ against theory


@pytest.mark.parametrize("load", [0.2, 0.5, 0.7, 0.8])
def test_mean_delay_of_mm1_is_that_of_theory(load: float) -> None:
    """Exponential sizes, endless buffer: mean delay = service / (1 − ρ) within 2 %."""
    mean_s = one_queue(load, EXPONENTIAL).take_delays().mean_s[0]
    assert mean_s == pytest.approx(SERVICE_S / (1 - load), rel=0.02)


@pytest.mark.parametrize("load", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("sizes", [FIXED, BIMODAL], ids=["M/D/1", "M/G/1"])
def test_mean_delay_of_mg1_follows_pollaczek_and_khinchine(load: float, sizes: PacketSizes) -> None:
    """Any sizes: mean wait = ρ (1 + cs²) / (2 (1 − ρ)) services within 2 %."""
    mean_s = one_queue(load, sizes).take_delays().mean_s[0]
    wait = load * (1 + sizes.squared_variation) / (2 * (1 - load))
    assert mean_s == pytest.approx(SERVICE_S * (1 + wait), rel=0.02)


@pytest.mark.parametrize(("load", "room"), [(0.7, 5), (0.95, 10), (1.5, 8)])
def test_loss_and_delay_of_mm1k_are_those_of_theory(load: float, room: int) -> None:
    """A queue of K packets, the one in service included: loss and mean delay of M/M/1/K within 2 %."""
    simulator = one_queue(load, EXPONENTIAL, buffer_packets=room)
    weights = load ** np.arange(room + 1)
    shares = weights / weights.sum()
    loss = shares[-1]
    mean_s = float(np.arange(room + 1) @ shares) / (load * (1 - loss)) * SERVICE_S  # Little's law
    assert simulator.lost_packets[0] / simulator.sent_packets[0] == pytest.approx(loss, rel=0.02)
    assert simulator.take_delays().mean_s[0] == pytest.approx(mean_s, rel=0.02)


def test_standard_deviation_of_mm1_delay_is_its_mean() -> None:
    """The sojourn time of M/M/1 is exponential: standard deviation = mean within 3 %."""
    delays = one_queue(0.6, EXPONENTIAL).take_delays()
    assert delays.std_s[0] == pytest.approx(delays.mean_s[0], rel=0.03)


@pytest.mark.parametrize("name", ARRIVALS)
def test_every_arrival_process_keeps_its_mean_rate(name: str) -> None:
    """Bursts change when packets come, not how many: the mean rate is the one asked for within 2 %."""
    simulator = Simulator(line(), [Flow(0, 1, 1000.0, FIXED, ARRIVALS[name])], seed=5)
    simulator.advance(1000.0)
    assert simulator.sent_packets[0] == pytest.approx(1_000_000, rel=0.02)


@pytest.mark.parametrize("name", ["on-off", "mmpp"])
def test_two_state_traffic_is_as_bursty_as_the_mmpp_formula_says(name: str) -> None:
    """Counts in long windows have the index of dispersion of the two-state MMPP within 10 %."""
    pps, window_s = 1000.0, 2.0
    arrivals = ARRIVALS[name]
    simulator = Simulator(line(), [Flow(0, 1, pps, FIXED, arrivals)], seed=5)
    counts = []
    for window in range(4000):
        before = int(simulator.sent_packets[0])
        simulator.advance((window + 1) * window_s)
        counts.append(simulator.sent_packets[0] - before)
    (high, low), (high_s, low_s) = arrivals.modulation.levels, arrivals.modulation.stays_s
    leave_high, leave_low = 1 / high_s, 1 / low_s
    between = leave_high * leave_low * (pps * (high - low)) ** 2
    total = leave_high + leave_low
    dispersion = 1 + 2 * between / (total**2 * pps * (high * leave_low + low * leave_high))
    assert np.var(counts) / np.mean(counts) == pytest.approx(dispersion, rel=0.1)


def test_sizes_come_in_the_shares_asked_for() -> None:
    """A table of three sizes: octets a packet average to the table's mean within 1 %."""
    sizes = PacketSizes.discrete([512, 4096, 12_000], [0.5, 0.2, 0.3])
    simulator = Simulator(line(), [Flow(0, 1, 10_000.0, sizes)], seed=5)
    simulator.advance(50.0)
    assert simulator.sent_octets[0] / simulator.sent_packets[0] == pytest.approx(
        sizes.mean_bits / 8, rel=0.01
    )


# -------------------------------------------------------------------------------------------- exact answers


def test_lone_packets_take_transmission_plus_propagation() -> None:
    """A slow CBR flow meets no queue: each delay is exactly hops · (bits / C + propagation)."""
    simulator = Simulator(line(3, propagation_delay_s=0.002), [Flow(0, 3, 10.0, FIXED, Cbr())], seed=1)
    simulator.advance(10.0)
    delays = simulator.take_delays()
    assert delays.count[0] == simulator.delivered_packets[0] >= 99
    for figure in (delays.mean_s[0], delays.min_s[0], delays.max_s[0]):
        assert figure == pytest.approx(3 * (SERVICE_S + 0.002), abs=1e-12)
    assert delays.std_s[0] == pytest.approx(0.0, abs=1e-9)


def test_counters_tell_octets_and_packets_of_every_link() -> None:
    """What was delivered over two hops was counted on both links, in whole octets, and on no other link."""
    simulator = Simulator(line(2), [Flow(0, 2, 50.0, PacketSizes.fixed(1001), Cbr())], seed=1)
    simulator.advance(9.9999)
    delivered = int(simulator.delivered_packets[0])
    assert delivered == simulator.sent_packets[0] == 500
    assert list(simulator.link_packets) == [delivered, 0, delivered, 0]
    assert list(simulator.link_octets) == [126 * delivered, 0, 126 * delivered, 0]
    assert simulator.delivered_octets[0] == simulator.sent_octets[0] == 126 * delivered


def test_delays_are_zero_where_nothing_was_delivered() -> None:
    """A silent flow has count 0 and figures 0, never NaN; taking delays twice empties them."""
    simulator = Simulator(line(), [Flow(0, 1, 0.0, FIXED), Flow(0, 1, 100.0, FIXED)], seed=1)
    simulator.advance(5.0)
    first, second = simulator.take_delays(), simulator.take_delays()
    assert first.count[0] == 0
    assert first.count[1] > 0
    for delays, flow in ((first, 0), (second, 0), (second, 1)):
        figures = (delays.mean_s, delays.min_s, delays.max_s, delays.std_s)
        assert [figure[flow] for figure in figures] == [0.0, 0.0, 0.0, 0.0]


def test_wire_longer_than_any_ring_loses_nothing() -> None:
    """50,000 packets on one long wire at once: rings grow, and all arrive after exactly the delay."""
    network = line(propagation_delay_s=5.0)
    simulator = Simulator(network, [Flow(0, 1, 10_000.0, FIXED, Cbr())], seed=1)
    simulator.advance(5.0)
    assert simulator.in_flight_packets[0] == simulator.sent_packets[0] == 50_000
    simulator.advance(10.0)
    delays = simulator.take_delays()
    assert simulator.lost_packets[0] == 0
    assert delays.mean_s[0] == pytest.approx(5.0 + SERVICE_S, abs=1e-9)


def test_clock_stays_exact_for_weeks() -> None:
    """After 12 days of simulated time a lone packet's delay is right to a nanosecond."""
    simulator = Simulator(line(2), [Flow(0, 2, 0.01, FIXED, Cbr())], seed=1)
    simulator.advance(1e6)
    simulator.take_delays()
    simulator.advance(1.01e6)
    delays = simulator.take_delays()
    assert delays.count[0] == 100
    assert max(abs(delays.max_s[0] - 2 * SERVICE_S), abs(delays.min_s[0] - 2 * SERVICE_S)) < 1e-9


# --------------------------------------------------------------------------------------------- determinism


def everything(simulator: Simulator) -> list[bytes]:
    """All counters and delays as bytes."""
    delays = simulator.take_delays()
    arrays = [
        *(simulator.link_octets, simulator.link_packets, simulator.link_drops, simulator.link_drop_octets),
        *(simulator.sent_packets, simulator.delivered_octets, simulator.lost_packets, simulator.node_drops),
        *(delays.count, delays.mean_s, delays.min_s, delays.max_s, delays.std_s),
    ]
    return [np.ascontiguousarray(array).tobytes() for array in arrays]


def mixed_nsfnet(seed: int) -> Simulator:
    """NSFNET in the lab's load with all kinds of arrivals and small buffers."""
    network, traffic = lab_scenario(nsfnet(), seed=2, utilisation=0.9)
    kinds = list(ARRIVALS.values())
    flows = [
        Flow(f.source, f.destination, f.pps, BIMODAL, kinds[k % len(kinds)])
        for k, f in enumerate(path_flows(network, traffic, BIMODAL))
    ]
    return Simulator(network, flows, seed=seed)


@settings(deadline=None, max_examples=15)
@given(cuts=st.lists(st.floats(0.0, 0.5), max_size=12))
def test_steps_of_the_clock_change_nothing(cuts: list[float]) -> None:
    """However the way to 0.5 s is cut into calls, every counter and delay is the same to the bit."""
    whole, cut = mixed_nsfnet(7), mixed_nsfnet(7)
    whole.advance(0.5)
    for until_s in sorted(cuts):
        cut.advance(until_s)
    cut.advance(0.5)
    assert everything(whole) == everything(cut)


def test_seed_decides() -> None:
    """The same seed gives the same run, another seed another."""
    runs = []
    for seed in (1, 1, 2):
        simulator = mixed_nsfnet(seed)
        simulator.advance(0.5)
        runs.append(everything(simulator))
    assert runs[0] == runs[1] != runs[2]


def test_flows_draw_from_their_own_generators() -> None:
    """The rate of one flow leaves the packets of another untouched (common random numbers)."""
    sent = []
    for other_pps in (10.0, 5000.0):
        flows = [Flow(0, 1, 1000.0, BIMODAL), Flow(0, 1, other_pps, BIMODAL)]
        simulator = Simulator(line(), flows, seed=4)
        simulator.advance(20.0)
        sent.append((int(simulator.sent_packets[0]), int(simulator.sent_octets[0])))
    assert sent[0] == sent[1]


def test_other_threads_run_while_it_works() -> None:
    """``advance`` lets go of the GIL: another thread keeps counting during one long call."""
    simulator = mixed_nsfnet(1)
    simulator.advance(0.1)
    worker = threading.Thread(target=simulator.advance, args=(40.0,))
    worker.start()
    turns = 0
    while worker.is_alive():
        turns += 1
        time.sleep(0.001)
    assert turns > 10
    assert simulator.now_s == 40.0


# -------------------------------------------------------------------------------------------- conservation


def reroute(simulator: Simulator, link: int, destination: int) -> None:
    """Send what is for a destination over any link, loops included."""
    simulator.set_next_link(int(simulator.network.source_index[link]), destination, link)


Action = Callable[[Simulator, np.random.Generator], None]
ACTIONS: Sequence[Action] = (
    lambda s, r: s.set_rate(int(r.integers(182)), float(r.uniform(0, 3000))),
    lambda s, r: s.set_rates(r.uniform(0, 500, 182)),
    lambda s, r: s.set_link(int(r.integers(42)), capacity_bps=float(r.uniform(1e6, 1e8))),
    lambda s, r: s.set_link(int(r.integers(42)), extra_delay_s=float(r.uniform(0, 0.05))),
    lambda s, r: s.set_link(int(r.integers(42)), up=bool(r.integers(2))),
    lambda s, r: s.set_node_delay(int(r.integers(14)), float(r.uniform(0, 0.01))),
    lambda s, r: reroute(s, int(r.integers(42)), int(r.integers(14))),
    lambda s, r: s.set_next_link(int(r.integers(14)), int(r.integers(14)), -1),
)


@settings(deadline=None, max_examples=25)
@given(
    actions=st.lists(st.tuples(st.sampled_from(ACTIONS), st.floats(0, 0.2)), max_size=15),
    seed=st.integers(0, 10_000),
)
def test_no_packet_appears_or_vanishes(actions: list[tuple[Action, float]], seed: int) -> None:
    """Whatever is done: sent = delivered + lost + on the way, and drops add up to losses."""
    random = np.random.default_rng(seed)
    simulator = mixed_nsfnet(seed)
    for action, pause_s in actions:
        simulator.advance(simulator.now_s + pause_s)
        action(simulator, random)
        assert (simulator.in_flight_packets >= 0).all()
        assert simulator.lost_packets.sum() == simulator.link_drops.sum() + simulator.node_drops.sum()
    simulator.set_rates(np.zeros(182))
    simulator.advance(simulator.now_s + 120.0)
    assert (simulator.sent_packets == simulator.delivered_packets + simulator.lost_packets).all()


def test_a_link_never_carries_more_than_its_capacity() -> None:
    """Offered three times its capacity, a link carries its capacity and not a bit more in any window."""
    simulator = Simulator(
        line(buffer_packets=50), [Flow(0, 1, 3 * CAPACITY_BPS / PACKET_BITS, FIXED)], seed=1
    )
    before = 0
    for window in range(1, 101):
        simulator.advance(0.01 * window)
        carried, before = int(simulator.link_octets[0]) - before, int(simulator.link_octets[0])
        assert carried * 8 <= 0.01 * CAPACITY_BPS + PACKET_BITS
    assert 8 * before / simulator.now_s == pytest.approx(CAPACITY_BPS, rel=0.001)


# ------------------------------------------------------------------------------------------------- steering


def test_new_rate_holds_at_once() -> None:
    """A CBR flow set from 10 to 1,000 packets/s sends 1,000 in the next second; 0 silences it; it resumes."""
    simulator = Simulator(line(), [Flow(0, 1, 10.0, FIXED, Cbr())], seed=1)
    sent = [0]
    for pps in (10.0, 1000.0, 0.0, 100.0):
        simulator.set_rate(0, pps)
        simulator.advance(simulator.now_s + 1.0)
        sent.append(int(simulator.sent_packets[0]))
    assert np.abs(np.diff(sent) - [10, 1000, 0, 100]).max() <= 1


def test_setting_the_same_rate_every_second_changes_nothing() -> None:
    """The lab sets all rates each second: an unchanged rate leaves the run bit for bit as it was."""
    left, steered = mixed_nsfnet(3), mixed_nsfnet(3)
    rates = np.array([flow["pps"] for flow in steered._state.flows])
    left.advance(1.0)
    for step in range(10):
        steered.set_rates(rates)
        steered.advance((step + 1) / 10)
    assert everything(left) == everything(steered)


def test_halved_capacity_makes_the_backlog_last_twice_as_long() -> None:
    """Of 101 packets in a queue one leaves, then the capacity halves: the rest takes 200 services."""
    simulator = Simulator(line(), [Flow(0, 1, 1e12, FIXED, Cbr())], seed=1)
    simulator.advance(101e-12)
    simulator.set_rate(0, 0.0)
    sent = int(simulator.sent_packets[0])
    start_s = simulator.now_s
    simulator.advance(start_s + SERVICE_S)
    left = sent - int(simulator.delivered_packets[0])
    simulator.set_link(0, capacity_bps=CAPACITY_BPS / 2)
    simulator.advance(start_s + SERVICE_S + 2 * SERVICE_S * (left - 0.6))
    assert simulator.in_flight_packets[0] == 1
    simulator.advance(start_s + SERVICE_S + 2 * SERVICE_S * (left + 0.1))
    assert simulator.in_flight_packets[0] == 0


def test_extra_delay_shifts_the_mean_by_itself_and_goes_away() -> None:
    """Extra delay on one of two links adds exactly itself to the path's delay, and nothing once removed."""
    simulator = Simulator(line(2), [Flow(0, 2, 100.0, FIXED, Cbr())], seed=1)
    means = []
    for extra_delay_s in (0.0, 0.005, 0.0):
        simulator.set_link(2, extra_delay_s=extra_delay_s)
        simulator.advance(simulator.now_s + 0.1)
        simulator.take_delays()
        simulator.advance(simulator.now_s + 1.0)
        means.append(simulator.take_delays().mean_s[0])
    assert means[1] - means[0] == pytest.approx(0.005, abs=1e-12)
    assert means[2] == pytest.approx(means[0], abs=1e-12)


def test_slow_node_delays_what_it_sends_and_not_what_ends_there() -> None:
    """A slow middle node delays what it forwards and originates; packets for it arrive as before."""
    flows = [Flow(0, 2, 10.0, FIXED, Cbr()), Flow(1, 2, 10.0, FIXED, Cbr()), Flow(0, 1, 10.0, FIXED, Cbr())]
    simulator = Simulator(line(2), flows, seed=1)
    simulator.set_node_delay(1, 0.003)
    simulator.advance(10.0)
    assert simulator.take_delays().min_s == pytest.approx(
        [2 * SERVICE_S + 0.003, SERVICE_S + 0.003, SERVICE_S]
    )


def test_link_down_loses_what_is_on_it_and_recovers() -> None:
    """A cut link loses what is on its wire and what is sent to it; once up, packets pass again."""
    simulator = Simulator(line(propagation_delay_s=0.1), [Flow(0, 1, 1000.0, FIXED, Cbr())], seed=1)
    simulator.advance(1.0)
    simulator.set_link(0, up=False)
    assert simulator.in_flight_packets[0] == 0
    assert simulator.lost_packets[0] == simulator.link_drops[0] == pytest.approx(100, abs=1)
    simulator.advance(2.0)
    delivered = int(simulator.delivered_packets[0])
    assert simulator.link_drops[0] == pytest.approx(1100, abs=1)
    simulator.set_link(0, up=True)
    simulator.advance(3.0)
    assert simulator.delivered_packets[0] - delivered == pytest.approx(900, abs=1)


def test_link_that_starts_down_carries_nothing() -> None:
    """A network in which a link is down drops what its routing still sends there."""
    network = line()
    down = Network(
        network.nodes, (Link("A", "B", CAPACITY_BPS, up=False), network.links[1]), network.next_link
    )
    simulator = Simulator(down, [Flow(0, 1, 100.0, FIXED, Cbr())], seed=1)
    simulator.advance(1.0)
    assert simulator.delivered_packets[0] == 0
    assert simulator.link_drops[0] == simulator.sent_packets[0] == 100


def test_packets_in_a_loop_die_at_the_hop_limit() -> None:
    """A wrong route that sends packets back kills each after 64 hops, which both links of the loop carry."""
    network = line(2)
    simulator = Simulator(network, [Flow(0, 2, 10.0, FIXED, Cbr())], seed=1)
    simulator.set_next_link(1, 2, 1)  # B sends what is for C back to A
    simulator.advance(9.99)
    assert simulator.delivered_packets[0] == 0
    assert simulator.lost_packets[0] == simulator.node_drops.sum() == 100
    assert list(simulator.link_packets) == [3200, 3200, 0, 0]


def test_new_route_holds_for_packets_on_their_way() -> None:
    """Each hop asks the route of the moment: without a route at B, what left A is dropped at B."""
    simulator = Simulator(line(2, propagation_delay_s=0.5), [Flow(0, 2, 10.0, FIXED, Cbr())], seed=1)
    simulator.advance(0.45)
    simulator.set_next_link(1, 2, -1)
    simulator.advance(0.96)
    assert simulator.lost_packets[0] == simulator.node_drops[1] >= 4


# --------------------------------------------------------------------------------------------- given routes


def ring_of_four(routes: dict[tuple[int, int], list[int]]) -> Network:
    """A, B, C, D: link k goes from node k to the next, link 4 + k back; routes where they are told."""
    nodes = tuple("ABCD")
    links = tuple(
        Link(nodes[a], nodes[b], CAPACITY_BPS, 0.0, 64)
        for step in (1, -1)
        for a, b in ((k, (k + 1) % 4) if step == 1 else ((k + 1) % 4, k) for k in range(4))
    )
    network = Network(nodes, links, shortest_paths(nodes, links))
    paths = [routes.get(network.path_ends(path), []) for path in range(network.path_count)]
    given = Paths(
        np.array([link for path in paths for link in path], dtype=np.int64),
        np.cumsum([0, *(len(path) for path in paths)]),
    )
    return replace(network, routes=given)


def test_flows_follow_the_routes_that_the_network_brings() -> None:
    """Two flows to one node part where both pass: the routes decide, not the destination."""
    network = ring_of_four({(0, 2): [0, 1], (1, 2): [4, 7, 6]})
    flows = [Flow(0, 2, 100.0, FIXED, Cbr()), Flow(1, 2, 50.0, FIXED, Cbr()), Flow(3, 2, 10.0, FIXED, Cbr())]
    simulator = Simulator(network, flows, seed=1)
    simulator.advance(9.995)
    sent = simulator.sent_packets
    assert sent.tolist() == [*simulator.delivered_packets.tolist()[:2], sent[2]]
    assert list(simulator.link_packets) == [sent[0], sent[0], 0, 0, sent[1], 0, sent[1], sent[1]]
    assert simulator.lost_packets[2] == simulator.node_drops[3] == sent[2]  # no route is told from D
    with pytest.raises(TopologyError, match="they do not change"):
        simulator.set_next_link(0, 2, 0)


def test_routes_that_cannot_be_followed_are_refused() -> None:
    """A route that meets a node twice, and another number of routes than pairs."""
    twice = ring_of_four({(0, 2): [0, 4, 0, 1]})
    with pytest.raises(TopologyError, match="the route of A->C meets a node twice"):
        Simulator(twice, [Flow(0, 2, 1.0, FIXED)], seed=1)
    few = replace(twice, routes=Paths(np.array([0, 1]), np.array([0, 2])))
    with pytest.raises(TopologyError, match="1 routes and 1 flows: give a route for each"):
        Simulator(few, [Flow(0, 2, 1.0, FIXED)], seed=1)


# ------------------------------------------------------------------------------------------------ bad input


def test_counters_cannot_be_written() -> None:
    """Counters are views for reading."""
    simulator = Simulator(line(), [Flow(0, 1, 1.0, FIXED)], seed=1)
    with pytest.raises(ValueError, match="read-only"):
        simulator.link_octets[0] = 5


MISUSE: dict[str, Callable[[Simulator], None]] = {
    "negative rate": lambda s: s.set_rate(0, -1.0),
    "NaN rate": lambda s: s.set_rate(0, nan),
    "infinite rate": lambda s: s.set_rate(0, inf),
    "unknown flow": lambda s: s.set_rate(1, 1.0),
    "rates for other flows": lambda s: s.set_rates(np.ones(3)),
    "unknown link": lambda s: s.set_link(4, up=False),
    "negative link": lambda s: s.set_link(-1, up=False),
    "zero capacity": lambda s: s.set_link(0, capacity_bps=0.0),
    "NaN capacity": lambda s: s.set_link(0, capacity_bps=nan),
    "negative delay": lambda s: s.set_link(0, extra_delay_s=-0.1),
    "one good, one bad": lambda s: s.set_link(0, capacity_bps=1e3, extra_delay_s=-0.1),
    "unknown node": lambda s: s.set_node_delay(3, 0.1),
    "NaN node delay": lambda s: s.set_node_delay(0, nan),
    "route over a link elsewhere": lambda s: s.set_next_link(0, 2, 2),
    "route over no link": lambda s: s.set_next_link(0, 2, 9),
    "back in time": lambda s: s.advance(0.5),
    "NaN time": lambda s: s.advance(nan),
}


@pytest.mark.parametrize("what", MISUSE)
def test_misuse_is_refused_and_leaves_the_run_as_it_was(what: str) -> None:
    """Every bad argument raises TopologyError, and the run goes on as if it had not been given."""
    runs = []
    for misuse in (False, True):
        simulator = Simulator(line(2), [Flow(0, 2, 1000.0, BIMODAL)], seed=1)
        simulator.advance(1.0)
        if misuse:
            with pytest.raises(TopologyError):
                MISUSE[what](simulator)
        simulator.advance(2.0)
        runs.append(everything(simulator))
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Flow(0, 0, 1.0, FIXED),
        lambda: Flow(0, 1, -1.0, FIXED),
        lambda: Flow(0, 1, nan, FIXED),
        lambda: PacketSizes.fixed(0),
        lambda: PacketSizes.fixed(nan),
        lambda: PacketSizes.discrete([], []),
        lambda: PacketSizes.discrete([100, 200], [0.5, 0.6]),
        lambda: PacketSizes.discrete([100, 200], [1.5, -0.5]),
        lambda: PacketSizes.fixed(1e9),
        lambda: OnOff(mean_on_s=0, mean_off_s=1),
        lambda: Mmpp(ratio=-1, mean_high_s=1, mean_low_s=1),
        lambda: Modulated(sigma=nan, mean_s=1),
        lambda: Simulator(line(), [Flow(0, 7, 1.0, FIXED)], seed=1),
        lambda: Simulator(line(), [], seed=-1),
        lambda: Simulator(line(buffer_packets=0), [], seed=1),
        lambda: Simulator(line(propagation_delay_s=nan), [], seed=1),
        lambda: Simulator(Network(("A", "B"), line().links, np.full((2, 2), 1, np.int16)), [], seed=1),
        lambda: Simulator(Network(("A", "B"), line().links, np.full((2, 2), 5, np.int16)), [], seed=1),
    ],
)
def test_impossible_flows_and_networks_are_refused(make: Callable[[], object]) -> None:
    """What cannot be sent or simulated raises TopologyError when it is made."""
    with pytest.raises(TopologyError):
        make()


def test_nothing_to_simulate_is_fine() -> None:
    """No flow at all: time passes."""
    simulator = Simulator(line(), [], seed=1)
    simulator.advance(10.0)
    assert isclose(simulator.now_s, 10.0)
    assert simulator.packet_hops == 0
