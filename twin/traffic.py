"""How much travels from where to where, and how that breathes.

Gravity: the traffic from s to d is proportional to the masses of both (Zhang, Roughan, Duffield, Greenberg,
"Fast accurate computation of large-scale IP traffic matrices from link loads", SIGMETRICS 2003); masses are
lognormal, which fits measured matrices (Nucci, Sridharan, Taft, "The problem of synthetically generating IP
traffic matrices", CCR 35(3), 2005). The cycle over the day is a sine with its first harmonic, so the rise is
slower than the fall, as in the same measurements.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from twin.errors import TopologyError
from twin.network import Floats, Ints, Network, Traffic
from twin.topology import LAB_CAPACITY_BPS, Topology
from twin.workload import POISSON, Arrivals, Flow, PacketSizes, check_positive

MEAN_PACKET_BITS = 8000.0  # 1,000 octets: between the two modes of Internet traffic, 40 and 1,500
LAB_HOPS_PER_LINK_S = 1000.0  # packets a link carries a second on average: 8 Mbit/s
LAB_MOST_HOPS_PER_S = 600_000.0  # large networks stay within about a tenth of one core
LAB_UTILISATION = 0.45  # of the busiest link, at the mean of the cycle
# What providers sell and shapers enforce, in steps of at most 1.5: 10, 15, 20, … 80, 100, 150 Mbit/s and so
# on.
RATE_STEPS = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
SLOT_S = 90.0  # surges are drawn slot by slot; none lasts longer, so two slots tell all that goes on now
SURGE_S = (20.0, 90.0)
SURGE_RISE = 0.25  # share of a surge that it takes to rise, and again to fall


def gravity(
    nodes: int, total_bps: float, *, seed: int, spread: float = 0.6, packet_bits: float = 8000.0
) -> Traffic:
    """A traffic matrix of ``total_bps``; ``spread``: standard deviation of the logarithm of the masses."""
    check_positive("total traffic", total_bps, "bit/s")
    check_positive("mean packet size", packet_bits, "bit")
    if nodes < 2:
        raise TopologyError(f"{nodes} nodes exchange no traffic: give 2 or more")
    mass = np.random.default_rng(seed).lognormal(0.0, spread, nodes)
    pairs = np.outer(mass, mass)[
        ~np.eye(nodes, dtype=np.bool_)
    ]  # row-major without the diagonal: canonical paths
    bps = total_bps * pairs / pairs.sum()
    return Traffic(bps=bps, pps=bps / packet_bits)


def link_load_bps(network: Network, path_bps: Floats) -> Floats:
    """What every link is offered when every path sends ``path_bps`` [P] and nothing is lost, [L]."""
    paths = network.paths
    weights = np.asarray(path_bps, dtype=np.float64)[paths.hop_path]
    return np.bincount(paths.links, weights, minlength=len(network.links)).astype(np.float64)


def capacities_for(
    network: Network,
    traffic: Traffic,
    target_utilisation: float = LAB_UTILISATION,
    *,
    least_bps: float = LAB_CAPACITY_BPS,
) -> Floats:
    """A capacity for every link, [L]: the next usual rate at which its offered load stays below the target.

    The two directions of a cable get the same rate, that of the busier; none gets less than ``least_bps``.
    """
    check_positive("target utilisation", target_utilisation, "")
    load_bps = link_load_bps(network, traffic.bps)
    cables = [
        frozenset(((link.source, link.source_interface), (link.target, link.target_interface)))
        for link in network.links
    ]
    busier = dict.fromkeys(cables, 0.0)
    for cable, load in zip(cables, load_bps, strict=True):
        busier[cable] = max(busier[cable], float(load))
    return np.array([usual_rate(max(least_bps, busier[cable] / target_utilisation)) for cable in cables])


def path_flows(
    network: Network, traffic: Traffic, sizes: PacketSizes, arrivals: Arrivals = POISSON
) -> list[Flow]:
    """One flow for every path, in canonical order: flow k of the simulator is path k of the network."""
    return [Flow(*network.path_ends(k), float(pps), sizes, arrivals) for k, pps in enumerate(traffic.pps)]


def usual_rate(least_bps: float) -> float:
    """The smallest usual rate of at least ``least_bps``."""
    check_positive("rate", least_bps, "bit/s")
    decade = 10.0 ** np.floor(np.log10(least_bps))
    rates = [step * scale for scale in (decade, 10 * decade) for step in RATE_STEPS]
    return float(next(rate for rate in rates if rate >= least_bps * (1 - 1e-9)))


def lab_scenario(
    topology: Topology,
    *,
    seed: int,
    packet_hops_per_s: float | None = None,
    utilisation: float = LAB_UTILISATION,
) -> tuple[Network, Traffic]:
    """Network and mean traffic of a lab: gravity traffic worth so many packet-hops, capacities to match."""
    network = topology.network()
    wanted = packet_hops_per_s or min(LAB_HOPS_PER_LINK_S * len(network.links), LAB_MOST_HOPS_PER_S)
    shape = gravity(len(network.nodes), 1.0, seed=seed, packet_bits=MEAN_PACKET_BITS)
    hops_per_s = float((shape.pps * network.paths.lengths).sum())
    scale = wanted / hops_per_s
    traffic = Traffic(bps=shape.bps * scale, pps=shape.pps * scale)
    return topology.network(capacities=capacities_for(network, traffic, utilisation)), traffic


@dataclass(frozen=True)
class TrafficCycle:
    """A factor on every path's mean rate, a pure function of time: daily-like cycle, wander, and surges.

    Equal arguments give equal factors in any process: nothing is remembered between calls.
    """

    paths: int
    seed: int
    period_s: float = 1800.0  # a day in half an hour
    amplitude: float = 0.35
    phase_jitter: float = 0.06  # of a period, standard deviation over paths
    wander: float = 0.05  # a slow tide of its own for every path
    surge_share: float = 0.04  # of the paths start a surge within a slot
    surge_height: tuple[float, float] = (0.3, 1.2)  # added to the factor at the top

    def __post_init__(self) -> None:
        check_positive("period_s", self.period_s, "s")
        if not (0 <= self.amplitude + self.wander < 1 and 0 <= self.surge_share <= 1):
            raise TopologyError(
                "a traffic cycle needs amplitude + wander below 1 and a share of surges within 0 to 1"
            )

    def multipliers(self, time_s: float) -> Floats:
        """The factors of all paths, [P]."""
        phase, tide_s, tide_phase = _tides(self)
        day = 2 * np.pi * (time_s / self.period_s + phase)
        cycle = self.amplitude * (np.sin(day) + 0.2 * np.sin(2 * day)) / 1.1
        tide = self.wander * np.sin(2 * np.pi * (time_s / tide_s + tide_phase))
        return np.asarray(1.0 + cycle + tide + self._surges(time_s), dtype=np.float64)

    def multiplier(self, time_s: float, path: int) -> float:
        """The factor of one path."""
        return float(self.multipliers(time_s)[path])

    def _surges(self, time_s: float) -> Floats:
        added = np.zeros(self.paths)
        slot = int(time_s // SLOT_S)
        for number in (slot - 1, slot):
            who, start_s, lasts_s, height = _surges_of_slot(self, number)
            progress = (time_s - start_s) / lasts_s
            ramp = np.clip(np.minimum(progress, 1 - progress) / SURGE_RISE, 0.0, 1.0)
            np.add.at(added, who, height * ramp)
        return added


@lru_cache(maxsize=16)
def _tides(cycle: TrafficCycle) -> tuple[Floats, Floats, Floats]:
    """Per path: phase of the day (periods), period of its own tide (s), its phase."""
    random = np.random.default_rng([cycle.seed, 0])
    phase = random.normal(0.0, cycle.phase_jitter, cycle.paths)
    return phase, random.uniform(120.0, 600.0, cycle.paths), random.random(cycle.paths)


@lru_cache(maxsize=64)
def _surges_of_slot(cycle: TrafficCycle, slot: int) -> tuple[Ints, Floats, Floats, Floats]:
    """Paths that start a surge within a slot, when (s), for how long (s), how high."""
    random = np.random.default_rng([cycle.seed, 1, slot % 2**32])
    who = np.flatnonzero(random.random(cycle.paths) < cycle.surge_share)
    start_s = SLOT_S * (slot + random.random(len(who)))
    return who, start_s, random.uniform(*SURGE_S, len(who)), random.uniform(*cycle.surge_height, len(who))
