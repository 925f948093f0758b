"""Our packet simulator beside ns-3: the same packets over the same network, their delays and what it took.

NSFNET with drop-tail queues of 16 packets, a flow for every pair of nodes, the busiest link offered nine
tenths of what it carries, so that queues are long and packets are lost. Time and size of every packet are
drawn beforehand and both simulators are given the same, so whatever differs between their delays is their
doing, not chance. Three kinds of traffic (:data:`KINDS`), each played by ns-3 in two ways
(``ns3_network.cc``): ``bare`` devices, the least that ns-3 can do, and UDP over IPv4, ``internet``, as it is
ordinarily used.

Timed is the playing alone, of both on one core by the wall clock: not start, compilation or reading.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from twin.errors import PeerError
from twin.network import Floats, Ints, Network, Traffic
from twin.simulator import Flow, PacketSizes, Simulator, Trace
from twin.topologies import nsfnet
from twin.traffic import lab_scenario

UTILISATION = 0.9  # of the busiest link
BUFFER_PACKETS = 16
MEAN_OCTETS = 1000
LEAST_OCTETS = 42  # headers of PPP, IPv4 and UDP, and what tells flow and time
WARM_UP = 0.1  # of the time in which packets are sent
DRAIN_S = 60.0  # the last packet has long arrived
RUNS = 3  # of ours; one of ns-3 takes longer than all of them
WAYS = ("bare", "internet")

Generator = np.random.Generator


@dataclass(frozen=True)
class Kind:
    """Traffic: the gaps of a flow, in mean gaps, and the sizes of its packets in octets; so many of each."""

    gaps: Callable[[Generator, int], Floats]
    octets: Callable[[Generator, int], Floats]


def _equal_gaps(rng: Generator, packets: int) -> Floats:
    """From a random phase."""
    return np.concatenate([rng.random(1), np.ones(packets - 1)])


def _poisson_gaps(rng: Generator, packets: int) -> Floats:
    return rng.exponential(size=packets)


KINDS = {
    "poisson-bimodal": Kind(_poisson_gaps, lambda rng, packets: rng.choice([300.0, 1700.0], packets)),
    "poisson-exponential": Kind(
        _poisson_gaps,
        lambda rng, packets: np.maximum(LEAST_OCTETS, rng.exponential(MEAN_OCTETS, packets).round()),
    ),
    "cbr-fixed": Kind(_equal_gaps, lambda _, packets: np.full(packets, float(MEAN_OCTETS))),
}


@dataclass(frozen=True)
class Packets:
    """All that one flow sends."""

    time_s: Floats
    octets: Ints


@dataclass(frozen=True)
class Played:
    """What a simulator says: of packets that entered after the warm-up, [F] each."""

    wall_s: float
    hops: int  # packets that got across a link, the warm-up included
    sent: Floats
    arrived: Floats
    mean_s: Floats

    @property
    def loss(self) -> Floats:
        """Share of packets, [F]."""
        return 1 - self.arrived / np.maximum(self.sent, 1)


def ns3_installed() -> bool:
    """Whether the optional extra ``ns3`` is there."""
    return find_spec("ns3") is not None and find_spec("cppyy") is not None


def bench_ns3(
    packets_per_flow: float = 500.0,
    ways: tuple[str, ...] = WAYS,
    watch: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """The figures, over all kinds of traffic; ``ns3_cases`` has them one by one.

    ``ns3_ratio``: wall clock a packet-hop of ns-3 (``internet``) ÷ ours; ``ns3_bare_ratio`` the same of
    ``bare``. ``ns3_mean_delay_diff``: mean over flows of |our mean delay ÷ theirs − 1|; ``ns3_loss_diff``:
    of |our share of lost packets − theirs|.
    """
    network, traffic = stressed_network()
    cases = {}
    for name, kind in KINDS.items():
        packets = draw_packets(traffic, kind, packets_per_flow)
        ours = play_ours(network, packets)
        for way in ways:
            watch(f"ns-3, {name}, {way}")
            cases[f"{name}, {way}"] = _compare(ours, play_ns3(network, packets, way))
    ratios = {way: _mean(cases, "ratio", way) for way in ways}
    named = {"bare": "ns3_bare_ratio", "internet": "ns3_ratio"}
    return {
        **{named[way]: ratio for way, ratio in ratios.items()},
        "ns3_mean_delay_diff": _mean(cases, "mean_delay_diff"),
        "ns3_loss_diff": _mean(cases, "loss_diff"),
        "ns3_version": version("ns3"),
        "ns3_cases": cases,
    }


def _mean(cases: dict[str, dict[str, float]], figure: str, way: str = "") -> float:
    return float(np.mean([case[figure] for name, case in cases.items() if name.endswith(way)]))


def _compare(ours: Played, theirs: Played) -> dict[str, float]:
    return {
        "ratio": (theirs.wall_s / theirs.hops) / (ours.wall_s / ours.hops),
        "ns3_packet_hops_per_s": theirs.hops / theirs.wall_s,
        "mean_delay_diff": float(np.abs(ours.mean_s / theirs.mean_s - 1).mean()),
        "loss_diff": float(np.abs(ours.loss - theirs.loss).mean()),
        "loss": float(ours.loss.mean()),
    }


def stressed_network() -> tuple[Network, Traffic]:
    """NSFNET with little room."""
    network, traffic = lab_scenario(nsfnet(), seed=1, utilisation=UTILISATION)
    links = tuple(replace(link, buffer_packets=BUFFER_PACKETS) for link in network.links)
    return replace(network, links=links), traffic


def draw_packets(traffic: Traffic, kind: Kind, packets_per_flow: float, seed: int = 1) -> list[Packets]:
    """What every flow sends while a flow sends so many packets on average; one packet at the least."""
    rng = np.random.default_rng(seed)
    duration_s = packets_per_flow / traffic.pps.mean()
    drawn = []
    for pps in traffic.pps:
        count = max(1, round(pps * duration_s))
        octets = kind.octets(rng, count).astype(np.int64)
        drawn.append(Packets(np.cumsum(kind.gaps(rng, count)) / pps, octets))
    return drawn


def _warm_up_s(packets: list[Packets]) -> float:
    return WARM_UP * float(np.median([own.time_s[-1] for own in packets]))


def play_ours(network: Network, packets: list[Packets]) -> Played:
    """Ours; the time is the median of a few runs."""
    flows = [_flow(network, path, own) for path, own in enumerate(packets)]
    end_s = max(own.time_s[-1] for own in packets) + DRAIN_S
    Simulator(network, flows, seed=1).advance(min(own.time_s[0] for own in packets))  # compiles at need
    walls = []
    for _ in range(RUNS):
        simulator = Simulator(network, flows, seed=1)
        began = time.perf_counter()
        simulator.advance(_warm_up_s(packets))
        simulator.forget()
        before = simulator.sent_packets.copy()
        simulator.advance(end_s)
        walls.append(time.perf_counter() - began)
    delays = simulator.take_delays()
    sent, arrived = simulator.sent_packets - before, delays.count
    return Played(
        median(walls), simulator.packet_hops, sent.astype(float), arrived.astype(float), delays.mean_s
    )


def _flow(network: Network, path: int, own: Packets) -> Flow:
    trace = Trace(tuple(np.diff(own.time_s, prepend=0.0).tolist()), repeat=False)
    sizes = PacketSizes.sequence((8.0 * own.octets).tolist())
    return Flow(*network.path_ends(path), trace.pps, sizes, trace)


def play_ns3(network: Network, packets: list[Packets], way: str) -> Played:
    """ns-3's, in a process of its own; PeerError when it does not come to an end."""
    with TemporaryDirectory() as folder:
        scenario = Path(folder) / "scenario.txt"
        scenario.write_text("\n".join(scenario_lines(network, packets, way)))
        argv = (sys.executable, "-m", "ndtwin.ns3_play", str(scenario))
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise PeerError(f"ns-3 ended with {done.returncode}: {why}")
    first, *rows = done.stdout.splitlines()
    wall_s, hops = first.split()
    sent, arrived, total_s = np.array([row.split() for row in rows], dtype=np.float64).T
    return Played(float(wall_s), int(hops), sent, arrived, total_s / np.maximum(arrived, 1))


def scenario_lines(network: Network, packets: list[Packets], way: str) -> Iterator[str]:
    """The text that ``ns3_network.cc`` reads."""
    head = (len(network.nodes), len(network.links), len(packets), int(way == "internet"))
    yield " ".join(map(str, (*head, _warm_up_s(packets))))
    for link, source in zip(network.links, network.source_index, strict=True):
        yield f"{source} {link.capacity_bps} {link.propagation_delay_s} {link.buffer_packets}"
    for row in network.next_link:
        yield " ".join(map(str, row.tolist()))
    for path, own in enumerate(packets):
        source, destination = network.path_ends(path)
        yield f"{source} {destination} {len(own.octets)}"
        yield " ".join(
            f"{at} {octets}" for at, octets in zip(own.time_s.tolist(), own.octets.tolist(), strict=True)
        )
