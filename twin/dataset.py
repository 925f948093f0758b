"""Training data: random networks under random traffic, played by the packet simulator, window by window.

A *scenario* is drawn from one seed: topology, capacities, buffers, and one flow per ordered pair of nodes
with its own packet sizes and arrival process. It is simulated for a warm-up and then ``windows`` windows;
every window is one *sample*: the traffic matrix as telemetry would report it (packets and octets sent in it)
with the delays that the packets really had. Windows are as long as live ones (10 s by default), so a model
learns how much burstiness a window hides, which depends on its length. Propagation is left out: it is known.

A data set is a folder with one ``.npz`` per scenario, named by its seed: generation resumes where it was
stopped, and the same conditions and seed give the same samples on any machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.progress import Progress

from twin.network import Floats, Ints, Link, Network, Traffic
from twin.simulator import Simulator
from twin.topologies import Topology, gbn, geant2, nsfnet, power_law
from twin.workload import Arrivals, Cbr, Flow, Modulated, OnOff, PacketSizes, Poisson

MIN_PACKETS = 30  # a path with fewer in a window has no label


@dataclass(frozen=True)
class Conditions:
    """What scenarios are drawn from; ranges are uniform."""

    topologies: tuple[str, ...] = ("power-law",)  # names in TOPOLOGIES
    nodes: tuple[int, int] = (10, 16)  # where the topology is generated
    worst_load: tuple[float, float] = (0.3, 1.2)  # of the busiest link
    mean_capacity_bps: float = 10e6
    buffers: tuple[int, ...] = (32, 64, 128)
    arrivals: tuple[tuple[str, float], ...] = (("modulated", 0.6), ("on-off", 0.2), ("poisson", 0.2))
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


def _modulated(rng: np.random.Generator) -> Arrivals:
    return Modulated(sigma=float(rng.uniform(0.2, 0.6)), mean_s=float(rng.uniform(0.2, 2.0)))


def _on_off(rng: np.random.Generator) -> Arrivals:
    return OnOff(mean_on_s=float(rng.uniform(0.1, 1.0)), mean_off_s=float(rng.uniform(0.05, 0.5)))


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
    network, rates, sizes = _draw_network(conditions, rng, seed)
    flows = [
        Flow(*network.path_ends(path), float(rates[path]), sizes[path], _draw_arrivals(conditions, rng))
        for path in range(network.path_count)
    ]
    return list(_play(network, flows, conditions, seed))


def _draw_network(
    conditions: Conditions, rng: np.random.Generator, seed: int
) -> tuple[Network, Floats, list[PacketSizes]]:
    """Topology, packets/s of every path and their sizes; the busiest link has the load that was drawn."""
    nodes = int(rng.integers(conditions.nodes[0], conditions.nodes[1] + 1))
    topology = TOPOLOGIES[str(rng.choice(conditions.topologies))](nodes, seed)
    network = topology.network(buffer_packets=int(rng.choice(conditions.buffers)), propagation_scale=0.0)
    sizes = [_draw_sizes(rng) for _ in range(network.path_count)]
    bits = np.array([size.mean_bits for size in sizes])
    weight = rng.exponential(size=len(network.nodes))
    ends = np.array([network.path_ends(path) for path in range(network.path_count)])
    bps = weight[ends[:, 0]] * weight[ends[:, 1]] * rng.lognormal(0.0, 0.5, network.path_count)
    offered = np.zeros(len(network.links))
    np.add.at(offered, network.paths.links, bps[network.paths.hop_path])
    capacity = _draw_capacity(conditions, rng, offered)
    scale = rng.uniform(*conditions.worst_load) / (offered / capacity).max()
    links = topology.links(capacity, network.links[0].buffer_packets, 0.0)
    return replace(network, links=links), scale * bps / bits, sizes


def _draw_capacity(conditions: Conditions, rng: np.random.Generator, offered: Floats) -> Floats:
    """Half the networks have links of one speed; in the others speed follows what is offered."""
    if rng.random() < 0.5:
        return np.full(len(offered), conditions.mean_capacity_bps)
    wanted = np.maximum(offered, 0.05 * offered.mean()) / rng.uniform(0.1, 1.0, len(offered))
    capacity: Floats = np.clip(wanted / np.median(wanted), 0.25, 4.0) * conditions.mean_capacity_bps
    return capacity


def _draw_sizes(rng: np.random.Generator) -> PacketSizes:
    """Acknowledgements and full frames, 8,000 bit on average over flows."""
    return PacketSizes.bimodal(640, 12_000, small_share=float(rng.uniform(0.15, 0.55)))


def _draw_arrivals(conditions: Conditions, rng: np.random.Generator) -> Arrivals:
    names, shares = zip(*conditions.arrivals, strict=True)
    return ARRIVALS[str(rng.choice(names, p=shares))](rng)


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
            **{name: arrays[name][window] for name in _LABELS},
        )
        for window in range(len(arrays["bps"]))
    ]
