"""Links with several queues: theory of priorities and shares, a naive scheduler beside ours, conservation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twin.errors import TopologyError
from twin.network import Link, Network
from twin.routing import shortest_paths
from twin.scheduling import CLASSES, Scheduling, by_class
from twin.simulator import Arrivals, Cbr, Flow, OnOff, PacketSizes, Poisson, Simulator, Trace
from twin.topologies import nsfnet
from twin.traffic import lab_scenario, path_flows

CAPACITY_BPS = 1e6
PACKET_BITS = 10_000
SERVICE_S = PACKET_BITS / CAPACITY_BPS
FIXED = PacketSizes.fixed(PACKET_BITS)
EXPONENTIAL = PacketSizes.of_mean(PACKET_BITS)
BIMODAL = PacketSizes.bimodal(2000, 18_000)
ROUND_S = 4 * SERVICE_S  # of DRR
POLICIES = ("SP", "WFQ", "DRR")


def wire(scheduling: Scheduling, **link: Any) -> Network:
    """Two nodes, a link each way."""
    nodes = ("A", "B")
    links = tuple(
        replace(Link(a, b, CAPACITY_BPS, buffer_packets=10**6, scheduling=scheduling), **link)
        for a, b in (("A", "B"), ("B", "A"))
    )
    return Network(nodes, links, shortest_paths(nodes, links))


def three_classes(
    scheduling: Scheduling,
    loads: Sequence[float],
    sizes: PacketSizes,
    *,
    packets: float = 1e6,
    drr_round_s: float = ROUND_S,
    **link: Any,
) -> Simulator:
    """A flow of every class with its load, its delays measured over about so many packets of them all."""
    pps = [load * CAPACITY_BPS / sizes.mean_bits for load in loads]
    flows = [Flow(0, 1, rate, sizes, service_class=k) for k, rate in enumerate(pps)]
    simulator = Simulator(wire(scheduling, **link), flows, seed=3, drr_round_s=drr_round_s)
    simulator.advance(0.05 * packets / sum(pps))
    simulator.forget()
    simulator.advance(simulator.now_s + packets / sum(pps))
    return simulator


# ------------------------------------------------------------------------------------------ against theory


@pytest.mark.parametrize("sizes", [FIXED, EXPONENTIAL, BIMODAL], ids=["M/D/1", "M/M/1", "M/G/1"])
def test_strict_priority_waits_are_those_of_cobham(sizes: PacketSizes) -> None:
    """Non-preemptive priority: W_k = W_0 / ((1 − σ_(k−1))(1 − σ_k)) within 3 % for each of three classes."""
    loads = [0.2, 0.3, 0.3]
    waits = three_classes(by_class("SP"), loads, sizes).take_delays().mean_s - SERVICE_S
    residual = sum(loads) * (1 + sizes.squared_variation) / 2 * SERVICE_S
    above = [0.0, *accumulate(loads)]
    theory = [residual / ((1 - above[k]) * (1 - above[k + 1])) for k in range(CLASSES)]
    assert waits == pytest.approx(theory, rel=0.03)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("loads", [(0.1, 0.1, 0.2), (0.1, 0.4, 0.2)])
def test_what_one_class_gains_another_loses(policy: str, loads: tuple[float, ...]) -> None:
    """Kleinrock's conservation law: Σ ρ_k W_k = ρ W_0 / (1 − ρ) within 3 %, packets being of one size."""
    simulator = three_classes(by_class(policy, (60, 30, 10)), loads, FIXED, packets=2e6)
    waits = simulator.take_delays().mean_s - SERVICE_S
    load = sum(loads)
    fifo_s = load / 2 / (1 - load) * SERVICE_S
    assert np.array(loads) @ waits == pytest.approx(load * fifo_s, rel=0.03)


@pytest.mark.parametrize("policy", ["WFQ", "DRR"])
@pytest.mark.parametrize("weights", [(60.0, 30.0, 10.0), (1.0, 1.0, 1.0), (90.0, 5.0, 5.0)])
@pytest.mark.parametrize("sizes", [FIXED, BIMODAL], ids=["fixed", "bimodal"])
def test_shares_of_a_busy_link_follow_the_weights(
    policy: str, weights: tuple[float, ...], sizes: PacketSizes
) -> None:
    """Offered twice the link by every class, queues get its capacity by their weights within 1 %."""
    simulator = three_classes(by_class(policy, weights), (2, 2, 2), sizes, packets=4e5, buffer_packets=50)
    got = simulator.queue_totals().bits[:CLASSES] / (CAPACITY_BPS * simulator.now_s)
    assert got == pytest.approx(np.array(weights) / sum(weights), rel=0.01)


def test_packet_sizes_do_not_change_shares() -> None:
    """Large packets in one queue, small ones in another, equal weights: both get half within 1 %."""
    flows = [
        Flow(0, 1, 2000.0, PacketSizes.fixed(bits), service_class=k) for k, bits in enumerate((1000, 15_000))
    ]
    for policy in ("WFQ", "DRR"):
        simulator = Simulator(
            wire(Scheduling(policy, (0, 1, 1), (1, 1)), buffer_packets=50), flows, seed=1, drr_round_s=ROUND_S
        )
        simulator.advance(100.0)
        assert simulator.queue_totals().bits[:2] == pytest.approx([50e6, 50e6], rel=0.01)


def test_priority_starves_and_fair_queueing_protects() -> None:
    """Class 0 takes the whole link: SP leaves class 2 nothing; WFQ and DRR give it its share without loss."""
    for policy, kept in (("SP", 0.0), ("WFQ", 1.0), ("DRR", 1.0)):
        simulator = three_classes(
            by_class(policy, (60, 20, 20)), (2.0, 0.0, 0.1), FIXED, packets=2e5, buffer_packets=20
        )
        assert simulator.delivered_packets[2] / simulator.sent_packets[2] == pytest.approx(kept, abs=0.01)


@pytest.mark.parametrize(("load", "room"), [(0.8, 5), (1.5, 8)])
def test_a_lone_class_sees_mm1k(load: float, room: int) -> None:
    """One class of an SP link, K packets room, the one in service included: loss of M/M/1/K within 2 %."""
    simulator = three_classes(by_class("SP"), (0, load, 0), EXPONENTIAL, buffer_packets=room)
    shares = load ** np.arange(room + 1)
    loss = shares[-1] / shares.sum()
    assert simulator.lost_packets[1] / simulator.sent_packets[1] == pytest.approx(loss, rel=0.02)


@pytest.mark.parametrize("policy", ["FIFO", *POLICIES])
def test_queues_hold_what_little_says(policy: str) -> None:
    """Mean packets in every queue = rate · mean delay, mean bits likewise, utilisation = load: within 1 %."""
    scheduling = Scheduling() if policy == "FIFO" else by_class(policy, (60, 30, 10))
    loads = (0.3, 0.2, 0.2)
    simulator = three_classes(scheduling, loads, FIXED)
    seen, delays = simulator.queue_totals(), simulator.take_delays()
    queues = 1 if policy == "FIFO" else CLASSES
    held = np.array(loads) / SERVICE_S * delays.mean_s
    expected = [held.sum()] if policy == "FIFO" else held
    assert seen.packet_seconds[:queues] / simulator.now_s == pytest.approx(expected, rel=0.02)
    assert seen.bit_seconds == pytest.approx(PACKET_BITS * seen.packet_seconds)
    assert seen.bits.sum() / (CAPACITY_BPS * simulator.now_s) == pytest.approx(sum(loads), rel=0.01)


# -------------------------------------------------------------------------------- beside a naive scheduler

Arrival = tuple[float, int, int]  # when, class, bits


def naive(
    policy: str, weights: Sequence[float], room_bits: float, arrivals: Sequence[Arrival]
) -> list[float]:
    """Delay of every packet in order of arrival, −1 where lost: one link, one queue a class, step by step."""
    queues: list[list[int]] = [[] for _ in weights]
    shares = [weight / sum(weights) for weight in weights]
    finish, saved = [0.0] * len(weights), [0.0] * len(weights)
    stamps: dict[int, float] = {}
    delays = [-1.0] * len(arrivals)
    turn, granted, free_at, serving, coming = 0, False, 0.0, -1, 0

    def choose() -> int:
        nonlocal turn, granted
        if policy == "SP":
            return next(k for k, queue in enumerate(queues) if queue)
        if policy == "WFQ":
            return min((k for k in range(len(queues)) if queues[k]), key=lambda k: (stamps[queues[k][0]], k))
        while True:
            if queues[turn]:
                saved[turn] += 0.0 if granted else shares[turn] * ROUND_S
                granted = True
                needed = arrivals[queues[turn][0]][2] / CAPACITY_BPS
                if needed <= saved[turn]:
                    saved[turn] -= needed
                    return turn
            else:
                saved[turn] = 0.0
            turn, granted = (turn + 1) % len(queues), False

    while coming < len(arrivals) or any(queues):
        if any(queues) and (coming == len(arrivals) or free_at <= arrivals[coming][0]):
            k = choose()
            number = queues[k].pop(0)
            serving, free_at = number, free_at + arrivals[number][2] / CAPACITY_BPS
            delays[number] = free_at - arrivals[number][0]
            continue
        now, k, bits = arrivals[coming]
        inside = [
            *queues[k],
            *([serving] if serving >= 0 and free_at > now and arrivals[serving][1] == k else []),
        ]
        if sum(arrivals[i][2] for i in inside) + bits <= room_bits:
            finish[k] = max(now, finish[k]) + bits / CAPACITY_BPS / shares[k]
            stamps[coming] = finish[k]
            queues[k].append(coming)
            if free_at <= now and sum(map(len, queues)) == 1:
                saved[turn], granted, turn = 0.0, True, k
                needed = bits / CAPACITY_BPS
                saved[k] = -(-needed // (shares[k] * ROUND_S)) * shares[k] * ROUND_S
                free_at = now
        coming += 1
    return delays


traces = st.lists(
    st.tuples(st.floats(0.0, 0.04), st.sampled_from((500, 3000, 10_000, 18_000))), min_size=1, max_size=60
)


@settings(deadline=None, max_examples=60)
@given(
    policy=st.sampled_from(POLICIES),
    weights=st.sampled_from(((60, 30, 10), (1, 1, 1), (90, 5, 5))),
    room_bits=st.sampled_from((20_000, 60_000, 10**6)),
    tracks=st.lists(traces, min_size=CLASSES, max_size=CLASSES),
)
def test_every_packet_leaves_when_a_naive_scheduler_says(
    policy: str, weights: tuple[float, ...], room_bits: int, tracks: list[list[tuple[float, int]]]
) -> None:
    """Random traces of three classes: losses, mean and largest delay of each are those of the naive one."""
    flows, arrivals = [], []
    for k, track in enumerate(tracks):
        gaps = [gap + 1e-6 * (k + 1) + 1e-9 * i for i, (gap, _) in enumerate(track)]  # no two at once
        bits = [size for _, size in track]
        law = Trace(tuple(gaps), repeat=False)
        flows.append(Flow(0, 1, law.pps, PacketSizes.sequence(bits), law, k))
        arrivals += [(at, k, size) for at, size in zip(accumulate(gaps), bits, strict=True)]
    arrivals.sort()
    expected = naive(policy, weights, room_bits, arrivals)
    network = wire(by_class(policy, weights), buffer_bits=room_bits)
    simulator = Simulator(network, flows, seed=1, drr_round_s=ROUND_S)
    simulator.advance(100.0)
    delays = simulator.take_delays()
    for k in range(CLASSES):
        own = [delay for delay, arrival in zip(expected, arrivals, strict=True) if arrival[1] == k]
        passed = [delay for delay in own if delay >= 0]
        assert (delays.count[k], simulator.lost_packets[k]) == (len(passed), len(own) - len(passed))
        assert delays.mean_s[k] == pytest.approx(np.mean(passed), abs=1e-9)
        assert delays.max_s[k] == pytest.approx(max(passed), abs=1e-9)


# ------------------------------------------------------------------------------- buffers, steps, steering


@pytest.mark.parametrize("policy", ["FIFO", *POLICIES])
def test_a_buffer_in_bits_is_one_in_packets_of_one_size(policy: str) -> None:
    """Packets of one size: room for ten of them in bits, or for ten packets, loses the same ones."""
    scheduling = Scheduling() if policy == "FIFO" else by_class(policy)
    lost = [
        list(three_classes(scheduling, (0.4, 0.5, 0.4), FIXED, packets=1e5, **room).lost_packets)
        for room in ({"buffer_packets": 10}, {"buffer_bits": 10 * PACKET_BITS, "buffer_packets": 1})
    ]
    assert lost[0] == lost[1]
    assert sum(lost[0]) > 1000


@pytest.mark.parametrize("policy", ["FIFO", *POLICIES])
def test_a_nearly_full_buffer_takes_small_packets_only(policy: str) -> None:
    """A buffer in bits loses far more of the large packets than of the small ones, and never overflows."""
    scheduling = Scheduling() if policy == "FIFO" else by_class(policy)
    flows = [Flow(0, 1, 60.0, PacketSizes.fixed(bits)) for bits in (5000, 15_000)]
    simulator = Simulator(wire(scheduling, buffer_bits=40_000), flows, seed=1)
    simulator.advance(1000.0)
    share = simulator.lost_packets / simulator.sent_packets
    assert share[1] > 3 * share[0] > 0
    assert simulator.queue_totals().bit_seconds[0] / simulator.now_s < 40_000


ARRIVALS: tuple[Arrivals, ...] = (Poisson(), Cbr(), OnOff(0.02, 0.03, regular=True, opening=True))


def mixed_nsfnet(seed: int) -> Simulator:
    """NSFNET at high load with all policies, classes, kinds of buffers and several kinds of arrivals."""
    network, traffic = lab_scenario(nsfnet(), seed=2, utilisation=1.1)
    schedulings = (
        Scheduling(),
        by_class("SP"),
        by_class("WFQ", (60, 30, 10)),
        Scheduling("DRR", (0, 1, 1), (2, 1)),
    )
    links = tuple(
        replace(link, scheduling=schedulings[i % 4], buffer_packets=20, buffer_bits=120_000 * (i % 3 == 0))
        for i, link in enumerate(network.links)
    )
    flows = [
        replace(flow, arrivals=ARRIVALS[k % len(ARRIVALS)], service_class=k % CLASSES)
        for k, flow in enumerate(path_flows(network, traffic, BIMODAL))
    ]
    return Simulator(replace(network, links=links), flows, seed=seed, drr_round_s=0.01)


def everything(simulator: Simulator) -> list[bytes]:
    """All counters, totals and delays as bytes."""
    delays, totals = simulator.take_delays(), simulator.queue_totals()
    arrays = [
        *(simulator.link_octets, simulator.link_drops, simulator.sent_packets, simulator.lost_packets),
        *(totals.arrivals, totals.drops, totals.bits, totals.packet_seconds, totals.bit_seconds),
        *(delays.count, delays.mean_s, delays.min_s, delays.max_s, delays.std_s),
    ]
    return [np.ascontiguousarray(array).tobytes() for array in arrays]


@settings(deadline=None, max_examples=10)
@given(cuts=st.lists(st.floats(0.0, 0.5), max_size=12))
def test_steps_of_the_clock_change_nothing(cuts: list[float]) -> None:
    """However the way to 0.5 s is cut, every counter, delay and total of a mixed network is the same."""
    whole, cut = mixed_nsfnet(7), mixed_nsfnet(7)
    whole.advance(0.5)
    for until_s in sorted(cuts):
        cut.advance(until_s)
    cut.advance(0.5)
    assert everything(whole) == everything(cut)


Action = Callable[[Simulator, np.random.Generator], None]
ACTIONS: Sequence[Action] = (
    lambda s, r: s.set_rates(r.uniform(0, 500, 182)),
    lambda s, r: s.set_link(int(r.integers(42)), capacity_bps=float(r.uniform(1e6, 1e8))),
    lambda s, r: s.set_link(int(r.integers(42)), extra_delay_s=float(r.uniform(0, 0.05))),
    lambda s, r: s.set_link(int(r.integers(42)), up=bool(r.integers(2))),
    lambda s, r: s.set_node_delay(int(r.integers(14)), float(r.uniform(0, 0.01))),
    lambda s, r: s.set_next_link(int(r.integers(14)), int(r.integers(14)), -1),
)


@settings(deadline=None, max_examples=25)
@given(
    actions=st.lists(st.tuples(st.sampled_from(ACTIONS), st.floats(0, 0.2)), max_size=15),
    seed=st.integers(0, 10_000),
)
def test_no_packet_appears_or_vanishes(actions: list[tuple[Action, float]], seed: int) -> None:
    """Whatever is done to a mixed network: sent = delivered + lost + on the way, and queues end empty."""
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
    before = simulator.queue_totals()
    simulator.advance(simulator.now_s + 1.0)
    assert np.abs(simulator.queue_totals().since(before).packet_seconds).max() < 1e-6


def backlog(policy: str, packets_each: int) -> Simulator:
    """So many packets of each class at once before an idle link, just after the first began."""
    law = Trace((1e-10,) * packets_each, repeat=False)
    flows = [Flow(0, 1, law.pps, FIXED, law, service_class=k) for k in range(CLASSES)]
    simulator = Simulator(wire(by_class(policy), propagation_delay_s=0.1), flows, seed=1, drr_round_s=ROUND_S)
    simulator.advance(1e-6)
    return simulator


@pytest.mark.parametrize("policy", POLICIES)
def test_halved_capacity_makes_the_backlog_last_twice_as_long(policy: str) -> None:
    """Of 60 packets one leaves, then the capacity halves: the others take 2 services each."""
    simulator = backlog(policy, 20)
    simulator.advance(SERVICE_S + 1e-6)
    simulator.set_link(0, capacity_bps=CAPACITY_BPS / 2)
    simulator.advance(SERVICE_S + 59 * 2 * SERVICE_S + 0.1 - SERVICE_S)
    assert simulator.in_flight_packets.sum() == 1
    simulator.advance(SERVICE_S + 59 * 2 * SERVICE_S + 0.1 + 1e-5)
    assert simulator.in_flight_packets.sum() == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_link_down_loses_queues_and_wire_and_recovers(policy: str) -> None:
    """A cut loses all 60 packets, queued, in service and on the wire; once up again, packets pass."""
    simulator = backlog(policy, 20)
    simulator.advance(5.5 * SERVICE_S)
    simulator.set_link(0, up=False)
    assert simulator.lost_packets.sum() == simulator.link_drops[0] == 60
    assert simulator.queue_totals().packet_seconds.sum() == pytest.approx(
        sum(60 - k for k in range(5)) * SERVICE_S + 55 * SERVICE_S / 2, rel=1e-3
    )
    simulator.set_link(0, up=True)
    simulator.advance(10.0)
    assert simulator.delivered_packets.sum() == 0
    again = Simulator(wire(by_class(policy)), [Flow(0, 1, 50.0, FIXED, Cbr())], seed=1)
    again.set_link(0, up=False)
    again.advance(1.0)
    again.set_link(0, up=True)
    again.advance(3.0)
    assert again.delivered_packets[0] == pytest.approx(100, abs=2)


@pytest.mark.parametrize("policy", POLICIES)
def test_one_class_alone_makes_a_fifo_queue(policy: str) -> None:
    """All packets of one class: any policy gives the delays that FIFO gives."""
    runs = []
    for scheduling in (Scheduling(), by_class(policy)):
        flows = [Flow(0, 1, 40.0, BIMODAL), Flow(0, 1, 45.0, EXPONENTIAL, OnOff(0.1, 0.1))]
        simulator = Simulator(wire(scheduling, buffer_packets=15), flows, seed=2, drr_round_s=ROUND_S)
        simulator.advance(200.0)
        runs.append((*simulator.take_delays().mean_s, *simulator.lost_packets))
    assert runs[0] == pytest.approx(runs[1], rel=1e-9)
    assert runs[0][-1] > 0


def test_more_packets_than_any_ring_wait_in_every_queue() -> None:
    """Rings of queues grow: 3 · 5,000 packets wait at once, and all arrive."""
    simulator = backlog("WFQ", 5000)
    assert simulator.in_flight_packets.sum() == 15_000
    simulator.advance(200.0)
    assert list(simulator.delivered_packets) == [5000] * CLASSES


# ----------------------------------------------------------------------------------------------- the rest


@pytest.mark.parametrize(
    "make",
    [
        lambda: Flow(0, 1, 1.0, FIXED, service_class=CLASSES),
        lambda: Flow(0, 1, 1.0, FIXED, service_class=-1),
        lambda: Simulator(wire(by_class("DRR")), [], seed=1, drr_round_s=0.0),
        lambda: Simulator(wire(by_class("SP")), [], seed=1).percentiles_s([50]),
    ],
)
def test_what_cannot_be_simulated_is_refused(make: Callable[[], object]) -> None:
    """Unknown classes, a round of no time, percentiles not kept: TopologyError."""
    with pytest.raises(TopologyError):
        make()
