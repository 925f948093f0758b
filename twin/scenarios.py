"""Random networks under random traffic: what training, calibration and tests are drawn from.

A scenario follows from its conditions and one seed: topology, routing, capacities, buffers, schedulers, and a
flow for every ordered pair of nodes with its rate, class of service, packet sizes and arrival process.
Propagation is left out: it is known, and would only hide errors.

Three draws: ``lab`` is what the lab runs at some hour of its day; ``random`` has gravity traffic of one kind
between routers of one kind (FIFO); ``mixed`` has everything at once, as the RouteNet data sets have
(arXiv 2212.12070, section VI): every node its scheduler and buffer, every flow its class, sizes and arrivals,
link speeds that follow what is offered, in steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from twin.network import Floats, Ints, Link, Network, Paths, Traffic, Variability
from twin.routing import shortest_paths
from twin.scheduling import FIFO, Scheduling, by_class
from twin.topologies import gbn, geant2, nsfnet, power_law, ring
from twin.topology import Topology
from twin.traffic import MEAN_PACKET_BITS, TrafficCycle, lab_scenario, link_load_bps
from twin.workload import Arrivals, Autocorrelated, Cbr, Flow, Modulated, OnOff, PacketSizes, Poisson

# Acknowledgements and full frames that average MEAN_PACKET_BITS.
LAB_SIZES = PacketSizes.bimodal(640, 12_000, small_share=4_000 / 11_360)
Generator = np.random.Generator


@dataclass(frozen=True)
class Conditions:
    """What scenarios are drawn from; ranges are uniform, shares are probabilities."""

    topologies: tuple[str, ...] = ("power-law",)  # names in TOPOLOGIES
    nodes: tuple[int, int] = (10, 16)  # where the topology is generated
    draw: str = "random"  # name in DRAWS
    worst_load: tuple[float, float] = (0.3, 1.2)  # of the busiest link; mean of the links' targets when mixed
    capacity_bps: float = 20e6  # typical; lab and mixed choose their own
    buffers: tuple[int, ...] = (32, 64, 128)  # packets
    arrivals: tuple[tuple[str, float], ...] = (("poisson", 0.5), ("modulated", 0.3), ("on-off", 0.2))
    scheduled: float = 0.75  # mixed: share of nodes with a multi-queue scheduler
    active: tuple[float, float] = (1.0, 1.0)  # mixed: share of the pairs of nodes that exchange anything
    farthest: tuple[float, float] = (1.0, 1.0)  # mixed: share of the pairs, the farthest, that these are of
    window_s: float = 10.0
    ways: int = 1  # mixed: sets of link weights; every pair of nodes follows one of them, drawn
    windows: int = 4  # 0: one sample of the steady state
    warm_up_s: float = 5.0  # windows only; the steady state warms up a tenth of its time
    packets: float = 600.0  # steady state: packets a flow, on average


@dataclass(frozen=True)
class Scenario:
    """A network and the flows that run over it."""

    network: Network
    flows: list[Flow]


def draw(conditions: Conditions, seed: int) -> Scenario:
    """The scenario of one seed."""
    rng = np.random.default_rng(seed)
    nodes = int(rng.integers(conditions.nodes[0], conditions.nodes[1] + 1))
    topology = TOPOLOGIES[str(rng.choice(conditions.topologies))](nodes, seed)
    return DRAWS[conditions.draw](topology, conditions, rng)


def traffic_of(
    network: Network, flows: list[Flow], bps: Floats, pps: Floats, observed_s: float | None = None
) -> Traffic:
    """The traffic matrix of flows that were seen to send so much; their other properties are known."""
    source, destination = (
        np.array([getattr(flow, end) for flow in flows]) for end in ("source", "destination")
    )
    path = source * (len(network.nodes) - 1) + destination - (destination > source)
    kinds = [variability_of(flow) for flow in flows]
    return Traffic(
        bps=bps,
        pps=pps,
        path=path,
        service_class=np.array([flow.service_class for flow in flows]),
        size_scv=np.array([flow.sizes.squared_variation for flow in flows]),
        variability=Variability(*np.array(kinds, dtype=np.float64).reshape(-1, 3).T),
        observed_s=observed_s,
    )


def variability_of(flow: Flow) -> tuple[float, float, float]:
    """Squared variation of gaps and of the rate, and how long the rate remembers (s).

    The autocovariance of every law's level is an exponential. Gaps with lag-1 correlation a and a geometric
    memory have the long-run index of dispersion (1 + a)/(1 − a) (Sriram and Whitt, IEEE JSAC 4, 1986), which
    a rate of variation a that remembers 1/(1 − a) gaps has too."""
    arrivals = flow.arrivals
    gaps = 0.0 if arrivals.gaps.kind == 1 else 1.0
    if isinstance(arrivals, Autocorrelated):
        a = max(arrivals.correlation, 0.0)
        return gaps, a, 1 / (max(flow.pps, 1e-12) * (1 - a))
    law = arrivals.modulation
    if law.kind == 0:
        return gaps, 0.0, 0.0
    if law.sigma:
        return gaps, float(np.expm1(law.sigma**2)), law.stays_s[0]
    first, second = law.stays_s
    time_s = first * second / (first + second)
    apart = law.levels[0] - law.levels[1]
    return gaps, apart**2 * time_s / (first + second), time_s


# --------------------------------------------------------------------------------------- arrival laws


def _modulated(rng: Generator) -> Arrivals:
    return Modulated(sigma=float(rng.uniform(0.1, 0.6)), mean_s=_burst_s(rng))


def _on_off(rng: Generator) -> Arrivals:
    on_s = _burst_s(rng)
    return OnOff(mean_on_s=on_s, mean_off_s=on_s * float(rng.uniform(0.1, 1.0)))


def _burst_s(rng: Generator) -> float:
    """From the time a buffer takes to fill to a good part of a window: 0.03 to 2 s, even on a log scale."""
    return float(np.exp(rng.uniform(np.log(0.03), np.log(2.0))))


def _slow_on_off(rng: Generator) -> Arrivals:
    """Packets in bursts of some ten mean gaps, as in the RouteNet data sets; a mean gap is a second."""
    on_s = float(np.exp(rng.uniform(np.log(2.0), np.log(10.0))))
    off_s = on_s * float(np.exp(rng.uniform(np.log(0.5), np.log(2.0))))
    regular = bool(rng.random() < 0.7)
    return OnOff(mean_on_s=on_s, mean_off_s=off_s, regular=regular, opening=regular)


ARRIVALS: dict[str, Callable[[Generator], Arrivals]] = {
    "poisson": lambda _: Poisson(),
    "cbr": lambda _: Cbr(),
    "modulated": _modulated,
    "on-off": _on_off,
    "slow-on-off": _slow_on_off,
    "steady-on-off": lambda _: OnOff(mean_on_s=5.0, mean_off_s=5.0, regular=True, opening=True),
    "autocorrelated": lambda rng: Autocorrelated(float(rng.uniform(0.1, 0.7))),
}
TOPOLOGIES: dict[str, Callable[[int, int], Topology]] = {
    "power-law": power_law,
    "sparse": lambda nodes, seed: power_law(nodes, seed, mean_degree=2.2),  # long ways
    "ring": lambda nodes, _seed: ring(nodes),
    "nsfnet": lambda _nodes, _seed: nsfnet(),
    "geant2": lambda _nodes, _seed: geant2(),
    "gbn": lambda _nodes, _seed: gbn(),
}


def _one_of(arrivals: tuple[tuple[str, float], ...], rng: Generator) -> str:
    names, shares = zip(*arrivals, strict=True)
    return str(rng.choice(names, p=shares))


# ----------------------------------------------------------------------------------- lab and random


def _lab(topology: Topology, conditions: Conditions, rng: Generator) -> Scenario:
    """What the lab runs, at some hour of its day, scaled so that the busiest link has the load drawn."""
    seed = int(rng.integers(2**31))
    network, traffic = lab_scenario(topology, seed=seed)
    pps = traffic.pps * TrafficCycle(network.path_count, seed).multipliers(float(rng.uniform(0, 3600)))
    load = link_load_bps(network, pps * MEAN_PACKET_BITS) / network.capacity_bps
    buffer = int(rng.choice(conditions.buffers))
    links = tuple(replace(link, propagation_delay_s=0.0, buffer_packets=buffer) for link in network.links)
    scale = rng.uniform(*conditions.worst_load) / load.max()
    sizes = [LAB_SIZES] * network.path_count
    return _one_kind(replace(network, links=links), scale * pps, sizes, conditions, rng)


def _random(topology: Topology, conditions: Conditions, rng: Generator) -> Scenario:
    """Gravity traffic with scatter and a packet size per path; the busiest link has the load drawn."""
    network = topology.network(buffer_packets=int(rng.choice(conditions.buffers)), propagation_scale=0.0)
    sizes = [_draw_sizes(rng) for _ in range(network.path_count)]
    bits = np.array([size.mean_bits for size in sizes])
    bps = _gravity(network, rng)
    offered = link_load_bps(network, bps)
    capacity = _draw_capacity(conditions, rng, offered)
    scale = rng.uniform(*conditions.worst_load) / (offered / capacity).max()
    links = topology.links(capacity, network.links[0].buffer_packets, 0.0)
    return _one_kind(replace(network, links=links), scale * bps / bits, sizes, conditions, rng)


def _one_kind(
    network: Network, pps: Floats, sizes: list[PacketSizes], conditions: Conditions, rng: Generator
) -> Scenario:
    """One flow a path, all with the same arrival process."""
    arrivals = ARRIVALS[_one_of(conditions.arrivals, rng)](rng)
    flows = [
        Flow(*network.path_ends(path), float(pps[path]), sizes[path], arrivals)
        for path in range(network.path_count)
    ]
    return Scenario(network, flows)


def _gravity(network: Network, rng: Generator) -> Floats:
    weight = rng.exponential(size=len(network.nodes))
    source, destination = network.ends
    bps: Floats = weight[source] * weight[destination] * rng.lognormal(0.0, 0.5, network.path_count)
    return bps


def _draw_capacity(conditions: Conditions, rng: Generator, offered: Floats) -> Floats:
    """Half the networks have links of one speed; in the others speed follows what is offered."""
    if rng.random() < 0.5:
        return np.full(len(offered), conditions.capacity_bps)
    wanted = np.maximum(offered, 0.05 * offered.mean()) / rng.uniform(0.1, 1.0, len(offered))
    capacity: Floats = np.clip(wanted / np.median(wanted), 0.25, 4.0) * conditions.capacity_bps
    return capacity


def _draw_sizes(rng: Generator) -> PacketSizes:
    """Acknowledgements and full frames, 8,000 bit on average over flows."""
    return PacketSizes.bimodal(640, 12_000, small_share=float(rng.uniform(0.15, 0.55)))


# --------------------------------------------------------------------------------------------- mixed

SPEED_STEPS = (1.0, 2.5, 4.0)  # of a decade: 10, 25, 40, 100, 250 kbit/s and so on, as links are sold
GENERIC_BITS = (500.0, 750.0, 1000.0, 1250.0, 1500.0)
CLASS_SHARES = (0.1, 0.3, 0.6)  # of flows, from the highest class down
WEIGHTS = ((90, 5, 5), (80, 10, 10), (70, 25, 5), (60, 30, 10), (50, 40, 10), (100, 100, 100))
BUFFER_BITS = (8_000, 16_000, 32_000, 64_000)
MEAN_BITS = 1000.0


def _mixed(topology: Topology, conditions: Conditions, rng: Generator) -> Scenario:
    """Everything at once; a flow sends a packet a second or so, and links are as fast as that asks for."""
    network = topology.network(propagation_scale=0.0)
    weights = rng.integers(1, int(rng.integers(2, 5)), len(network.links)).astype(np.float64)
    network = replace(network, next_link=shortest_paths(network.nodes, network.links, weights))
    if conditions.ways > 1:
        network = replace(network, routes=_wander(network, conditions.ways, rng))
    sizes, pps = _mixed_flows(network, rng)
    pps = pps * (rng.random(len(pps)) < rng.uniform(*conditions.active))
    if conditions.farthest[0] < 1:
        hops = network.paths.lengths
        pps = pps * (hops >= np.quantile(hops, 1 - rng.uniform(*conditions.farthest)))
    bps = pps * np.array([size.mean_bits for size in sizes])
    offered = link_load_bps(network, bps)
    network = replace(network, links=_mixed_links(network, offered, conditions, rng))
    kinds = _mixed_kinds(conditions, rng)
    classes = rng.choice(len(CLASS_SHARES), size=len(pps), p=CLASS_SHARES)
    flows = [
        Flow(
            *network.path_ends(k),
            float(pps[k]),
            sizes[k],
            ARRIVALS[_one_of(kinds, rng)](rng),
            int(classes[k]),
        )
        for k in np.flatnonzero(pps).tolist()
    ]
    return Scenario(network, flows)


def _wander(network: Network, ways: int, rng: Generator) -> Paths:
    """A route for each pair: the shortest one by one of several sets of weights, which differ widely."""
    sets = rng.lognormal(0.0, rng.uniform(0.1, 1.2), (ways, len(network.links)))
    found = [
        replace(network, next_link=shortest_paths(network.nodes, network.links, weights)).paths
        for weights in sets
    ]
    chosen = [
        found[way].links[found[way].offsets[path] : found[way].offsets[path + 1]]
        for path, way in enumerate(rng.integers(ways, size=network.path_count).tolist())
    ]
    return Paths(np.concatenate(chosen), np.cumsum([0, *map(len, chosen)]))


def _mixed_flows(network: Network, rng: Generator) -> tuple[list[PacketSizes], Floats]:
    """Sizes and packets/s of every path: even rates or gravity, one table of sizes for all or one a flow."""
    paths = network.path_count
    tables = [_generic_sizes(rng) for _ in range(5)]
    if rng.random() < 0.25:
        tables = [PacketSizes.bimodal(300, 1700)]
    elif rng.random() < 0.1:
        tables = [PacketSizes.fixed(MEAN_BITS), PacketSizes.of_mean(MEAN_BITS)]
    sizes = [tables[i] for i in rng.integers(len(tables), size=paths)]
    bps = rng.uniform(0.1, 1.0, paths) if rng.random() < 0.75 else _gravity(network, rng)
    bits = np.array([size.mean_bits for size in sizes])
    return sizes, bps / bps.mean() * MEAN_BITS / bits


def _generic_sizes(rng: Generator) -> PacketSizes:
    shares = rng.dirichlet(np.full(len(GENERIC_BITS), 1.5))
    return PacketSizes.discrete(GENERIC_BITS, (shares / shares.sum()).tolist())


def _mixed_kinds(conditions: Conditions, rng: Generator) -> tuple[tuple[str, float], ...]:
    """Half the networks carry all kinds of arrivals, the others one kind only."""
    if rng.random() < 0.5:
        return conditions.arrivals
    return ((_one_of(conditions.arrivals, rng), 1.0),)


def _mixed_links(
    network: Network, offered: Floats, conditions: Conditions, rng: Generator
) -> tuple[Link, ...]:
    """Speeds for the loads drawn, and at every node a scheduler and a buffer for all links that leave it."""
    target = rng.uniform(*conditions.worst_load)
    load = np.clip(rng.normal(target, target / 2, len(offered)), 0.1, 2.0)
    speed = np.array([_step_near(bps) for bps in np.maximum(offered, 0.05 * offered.mean()) / load])
    scheduling = [_draw_scheduling(conditions, rng) for _ in network.nodes]
    in_bits = rng.random() < 0.75
    packets = rng.choice(conditions.buffers, size=len(network.nodes))
    bits = rng.choice(BUFFER_BITS, size=len(network.nodes))
    sources: Ints = network.source_index
    return tuple(
        replace(
            link,
            capacity_bps=float(speed[k]),
            scheduling=scheduling[node],
            buffer_packets=int(packets[node]),
            buffer_bits=float(bits[node]) if in_bits else 0.0,
        )
        for k, (link, node) in enumerate(zip(network.links, sources, strict=True))
    )


def _draw_scheduling(conditions: Conditions, rng: Generator) -> Scheduling:
    if rng.random() >= conditions.scheduled:
        return FIFO
    policy = str(rng.choice(("SP", "WFQ", "DRR")))
    if policy == "SP":
        return by_class("SP")
    return by_class(policy, tuple(float(w) for w in WEIGHTS[rng.integers(len(WEIGHTS))]))


def _step_near(bps: float) -> float:
    """The usual speed nearest to ``bps`` on a log scale."""
    decade = 10.0 ** np.floor(np.log10(bps))
    steps = [step * scale for scale in (decade, 10 * decade) for step in SPEED_STEPS]
    return float(min(steps, key=lambda step: abs(np.log(step / bps))))


DRAWS: dict[str, Callable[[Topology, Conditions, Generator], Scenario]] = {
    "lab": _lab,
    "random": _random,
    "mixed": _mixed,
}
