"""Training data: random networks under random traffic, played by the packet simulator, window by window.

A *scenario* is drawn from one seed: topology, capacities, buffers, an arrival process, and a flow per ordered
pair of nodes. It is simulated for a warm-up and then ``windows`` windows;
every window is one *sample*: the traffic matrix as telemetry would report it (packets and octets sent in it)
with the delays that the packets really had. Windows are as long as live ones (10 s by default), so a model
learns how much burstiness a window hides, which depends on its length. Propagation is left out: it is known.

A data set is a folder with one ``.npz`` per scenario, named by its seed: generation resumes where it was
stopped, and the same conditions and seed give the same samples on any machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np
from rich.progress import Progress

from twin.features import POISSON, Burstiness
from twin.network import Floats, Ints, Link, Network, Traffic
from twin.simulator import Simulator
from twin.topologies import gbn, geant2, nsfnet, power_law
from twin.topology import Topology
from twin.traffic import MEAN_PACKET_BITS, TrafficCycle, lab_scenario, link_load_bps
from twin.workload import Arrivals, Cbr, Flow, Modulated, OnOff, PacketSizes, Poisson

# Acknowledgements and full frames that average MEAN_PACKET_BITS.
LAB_SIZES = PacketSizes.bimodal(640, 12_000, small_share=4_000 / 11_360)
MIN_PACKETS = 30  # a path with fewer in a window has no label


@dataclass(frozen=True)
class Conditions:
    """What scenarios are drawn from; ranges are uniform."""

    topologies: tuple[str, ...] = ("power-law",)  # names in TOPOLOGIES
    nodes: tuple[int, int] = (10, 16)  # where the topology is generated
    draw: str = "random"  # name in DRAWS
    worst_load: tuple[float, float] = (0.3, 1.2)  # of the busiest link
    capacity_bps: float = 20e6  # typical; the lab draw chooses its own
    buffers: tuple[int, ...] = (32, 64, 128)
    arrivals: tuple[tuple[str, float], ...] = (("poisson", 0.5), ("modulated", 0.3), ("on-off", 0.2))
    window_s: float = 10.0
    windows: int = 4
    warm_up_s: float = 5.0


@dataclass(frozen=True)
class Sample:
    """One window: what a model is given, and what it should say."""

    network: Network
    traffic: Traffic
    mean_s: Floats  # [P] measured; 0 where fewer than MIN_PACKETS arrived
    std_s: Floats  # [P]
    count: Ints  # [P] packets the figures rest on
    loss: Floats  # [P]
    burstiness: Burstiness  # of every path


def _modulated(rng: np.random.Generator) -> Arrivals:
    return Modulated(sigma=float(rng.uniform(0.1, 0.6)), mean_s=_burst_s(rng))


def _on_off(rng: np.random.Generator) -> Arrivals:
    on_s = _burst_s(rng)
    return OnOff(mean_on_s=on_s, mean_off_s=on_s * float(rng.uniform(0.1, 1.0)))


def _burst_s(rng: np.random.Generator) -> float:
    """From the time a buffer takes to fill to a good part of a window: 0.03 to 2 s, even on a log scale."""
    return float(np.exp(rng.uniform(np.log(0.03), np.log(2.0))))


ARRIVALS: dict[str, Callable[[np.random.Generator], Arrivals]] = {
    "poisson": lambda _: Poisson(),
    "cbr": lambda _: Cbr(),
    "modulated": _modulated,
    "on-off": _on_off,
}
TOPOLOGIES: dict[str, Callable[[int, int], Topology]] = {
    "power-law": power_law,
    "nsfnet": lambda _nodes, _seed: nsfnet(),
    "geant2": lambda _nodes, _seed: geant2(),
    "gbn": lambda _nodes, _seed: gbn(),
}


def generate(
    folder: Path, conditions: Conditions, seeds: Sequence[int], progress: Progress | None = None
) -> None:
    """Simulate the scenarios of ``seeds`` that ``folder`` does not hold yet."""
    folder.mkdir(parents=True, exist_ok=True)
    task = None if progress is None else progress.add_task(f"simulate {folder.name}", total=len(seeds))
    for seed in seeds:
        path = folder / f"{seed:06d}.npz"
        if not path.exists():
            _write(path, simulate(conditions, seed))
        if progress is not None and task is not None:
            progress.advance(task)


def load_samples(folder: Path, seeds: Sequence[int]) -> list[Sample]:
    """All windows of the scenarios of ``seeds``."""
    return [sample for seed in seeds for sample in _read(folder / f"{seed:06d}.npz")]


def simulate(conditions: Conditions, seed: int) -> list[Sample]:
    """Draw the scenario of one seed and play it."""
    rng = np.random.default_rng(seed)
    nodes = int(rng.integers(conditions.nodes[0], conditions.nodes[1] + 1))
    topology = TOPOLOGIES[str(rng.choice(conditions.topologies))](nodes, seed)
    network, rates, sizes = DRAWS[conditions.draw](topology, conditions, rng)
    names, shares = zip(*conditions.arrivals, strict=True)
    arrivals = ARRIVALS[str(rng.choice(names, p=shares))](rng)
    flows = [
        Flow(*network.path_ends(path), float(rates[path]), sizes[path], arrivals)
        for path in range(network.path_count)
    ]
    return list(_play(network, flows, conditions, seed))


def burstiness_of(arrivals: Arrivals) -> Burstiness:
    """Variance of the level and how fast its autocovariance, an exponential for all laws here, dies away."""
    law = arrivals.modulation
    if law.kind == 0:
        return POISSON
    if law.sigma:
        return Burstiness(rate_scv=float(np.expm1(law.sigma**2)), time_s=law.stays_s[0])
    first, second = law.stays_s
    time_s = first * second / (first + second)
    apart = law.levels[0] - law.levels[1]
    return Burstiness(rate_scv=apart**2 * time_s / (first + second), time_s=time_s)


Drawn = tuple[Network, Floats, list[PacketSizes]]  # and packets/s of every path


def _lab_network(topology: Topology, conditions: Conditions, rng: np.random.Generator) -> Drawn:
    """What the lab runs, at some hour of its day, scaled so that the busiest link has the load drawn."""
    seed = int(rng.integers(2**31))
    network, traffic = lab_scenario(topology, seed=seed)
    pps = traffic.pps * TrafficCycle(network.path_count, seed).multipliers(float(rng.uniform(0, 3600)))
    load = link_load_bps(network, pps * MEAN_PACKET_BITS) / network.capacity_bps
    buffer = int(rng.choice(conditions.buffers))
    links = tuple(replace(link, propagation_delay_s=0.0, buffer_packets=buffer) for link in network.links)
    scale = rng.uniform(*conditions.worst_load) / load.max()
    return replace(network, links=links), scale * pps, [LAB_SIZES] * network.path_count


def _random_network(topology: Topology, conditions: Conditions, rng: np.random.Generator) -> Drawn:
    """Gravity traffic with scatter and a packet size per path; the busiest link has the load drawn."""
    network = topology.network(buffer_packets=int(rng.choice(conditions.buffers)), propagation_scale=0.0)
    sizes = [_draw_sizes(rng) for _ in range(network.path_count)]
    bits = np.array([size.mean_bits for size in sizes])
    weight = rng.exponential(size=len(network.nodes))
    source, destination = network.ends
    bps = weight[source] * weight[destination] * rng.lognormal(0.0, 0.5, network.path_count)
    offered = link_load_bps(network, bps)
    capacity = _draw_capacity(conditions, rng, offered)
    scale = rng.uniform(*conditions.worst_load) / (offered / capacity).max()
    links = topology.links(capacity, network.links[0].buffer_packets, 0.0)
    return replace(network, links=links), scale * bps / bits, sizes


DRAWS: dict[str, Callable[[Topology, Conditions, np.random.Generator], Drawn]] = {
    "lab": _lab_network,
    "random": _random_network,
}


def _draw_capacity(conditions: Conditions, rng: np.random.Generator, offered: Floats) -> Floats:
    """Half the networks have links of one speed; in the others speed follows what is offered."""
    if rng.random() < 0.5:
        return np.full(len(offered), conditions.capacity_bps)
    wanted = np.maximum(offered, 0.05 * offered.mean()) / rng.uniform(0.1, 1.0, len(offered))
    capacity: Floats = np.clip(wanted / np.median(wanted), 0.25, 4.0) * conditions.capacity_bps
    return capacity


def _draw_sizes(rng: np.random.Generator) -> PacketSizes:
    """Acknowledgements and full frames, 8,000 bit on average over flows."""
    return PacketSizes.bimodal(640, 12_000, small_share=float(rng.uniform(0.15, 0.55)))


def _play(network: Network, flows: list[Flow], conditions: Conditions, seed: int) -> Iterator[Sample]:
    simulator = Simulator(network, flows, seed=seed)
    simulator.advance(conditions.warm_up_s)
    simulator.take_delays()
    before = _counters(simulator)
    for window in range(conditions.windows):
        simulator.advance(conditions.warm_up_s + (window + 1) * conditions.window_s)
        after = _counters(simulator)
        sent, octets, lost, delivered = after - before
        before = after
        delays = simulator.take_delays()
        labelled = delays.count >= MIN_PACKETS
        yield Sample(
            network=network,
            traffic=Traffic(bps=8 * octets / conditions.window_s, pps=sent / conditions.window_s),
            mean_s=np.where(labelled, delays.mean_s, 0.0),
            std_s=np.where(labelled, delays.std_s, 0.0),
            count=np.where(labelled, delays.count, 0),
            loss=lost / np.maximum(lost + delivered, 1.0),
            burstiness=burstiness_of(flows[0].arrivals),
        )


def _counters(simulator: Simulator) -> Floats:
    """Cumulative packets sent, octets sent, packets lost, packets delivered: [4, P]."""
    columns = (
        simulator.sent_packets,
        simulator.sent_octets,
        simulator.lost_packets,
        simulator.delivered_packets,
    )
    return np.array(columns, dtype=np.float64)


def _write(path: Path, samples: list[Sample]) -> None:
    """One file per scenario; written beside, then renamed."""
    network = samples[0].network
    arrays = {name: np.array([getattr(sample, name) for sample in samples]) for name in _LABELS}
    arrays |= {name: np.array([getattr(sample.traffic, name) for sample in samples]) for name in _TRAFFIC}
    arrays |= {name: getattr(network, name) for name in _NETWORK}
    arrays["burstiness"] = np.array(astuple(samples[0].burstiness))
    beside = path.with_suffix(".part.npz")
    np.savez_compressed(beside, allow_pickle=False, nodes=np.array(len(network.nodes)), **arrays)
    os.replace(beside, path)


_NETWORK = (
    "source_index",
    "target_index",
    "capacity_bps",
    "propagation_delay_s",
    "buffer_packets",
    "next_link",
)
_TRAFFIC = ("bps", "pps")
_LABELS = ("mean_s", "std_s", "count", "loss")


def _read(path: Path) -> list[Sample]:
    with np.load(path) as stored:
        arrays = dict(stored)
    names = tuple(f"n{i:04d}" for i in range(int(arrays["nodes"])))
    columns = (arrays[name] for name in _NETWORK[:-1])
    links = tuple(
        Link(names[source], names[target], float(capacity), float(propagation), int(buffer))
        for source, target, capacity, propagation, buffer in zip(*columns, strict=True)
    )
    network = Network(names, links, arrays["next_link"])
    return [
        Sample(
            network=network,
            traffic=Traffic(bps=arrays["bps"][window], pps=arrays["pps"][window]),
            burstiness=Burstiness(*arrays["burstiness"].tolist()),
            **{name: arrays[name][window] for name in _LABELS},
        )
        for window in range(len(arrays["bps"]))
    ]
