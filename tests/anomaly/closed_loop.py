"""The loop without Kafka and devices: simulator → what the state would hold → twin → anomaly → alerts.

It stands in for the lab, so it keeps the lab's conditions: NSFNET, 10 Mbit/s links, 10 s windows, a daily-like cycle
with surges, 10 probes a second on every path, and the on-path delay of all packets as the second method. What
the collectors add (polling, SNMP jitter) is not here. Run it as a script for a sweep:

    python -m tests.anomaly.closed_loop --help
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from anomaly.processor import DetectorSettings, DivergenceProcessor
from twin.models import DelayModel
from twin.network import Floats, Network, Traffic
from twin.packing import pack_integers, pack_magnitudes
from twin.queueing import MG1K
from twin.records import Alert, DelayPlane, LinkRecord, Prediction, StateUpdate, TopologyRecord
from twin.simulator import Arrivals, Flow, PacketSizes, Poisson, Simulator
from twin.topologies import nsfnet

WINDOW_S = 10.0
WINDOW_NS = 10_000_000_000
FIRST_VERSION = 170_000_000
PROBE_PPS = 10.0
PROBE_BITS = 64 * 8.0
SIZES = PacketSizes.bimodal(4_000, 12_000, 0.5)  # mean 8 kbit
CAPACITY_BPS = 1e7

Act = Callable[["World"], None]


@dataclass(frozen=True)
class Reading:
    """What one window shows."""

    traffic: Traffic
    load_bps: Floats
    load_pps: Floats
    drops_pps: Floats
    delays: tuple[DelayPlane, ...]


@dataclass
class World:
    """A simulated network, in quiet days and sick ones, read window by window."""

    network: Network
    seed: int
    load: float = 0.5  # of the busiest link at the mean of the cycle
    arrivals: Arrivals = Poisson()
    day_windows: int = 60
    surge_chance: float = 0.2
    swing: float = 0.4
    window: int = 0
    simulator: Simulator = field(init=False)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.base_pps = gravity(self.network, self.load, self.random)
        ends = [self.network.path_ends(k) for k in range(self.network.path_count)]
        flows = [Flow(s, d, 1.0, SIZES, self.arrivals) for s, d in ends]
        probes = [Flow(s, d, PROBE_PPS, PacketSizes.fixed(PROBE_BITS), Poisson()) for s, d in ends]
        self.simulator = Simulator(self.network, flows + probes, seed=self.seed)
        self.surges: dict[int, tuple[float, int]] = {}  # path → factor, until window
        self._before = self._counters()

    def step(self) -> Reading:
        """Play one window and read it."""
        paths = self.network.path_count
        self.simulator.set_rates(np.concatenate([self._rates(), np.full(paths, PROBE_PPS)]))
        self.window += 1
        self.simulator.advance(self.window * WINDOW_S)
        return self._read(paths)

    def _rates(self) -> Floats:
        if self.random.random() < self.surge_chance:
            path = int(self.random.integers(self.network.path_count))
            until = self.window + int(self.random.integers(2, 8))
            self.surges[path] = (float(self.random.uniform(1.5, 4.0)), until)
        self.surges = {k: v for k, v in self.surges.items() if v[1] > self.window}
        pps = self.base_pps * (1 + self.swing * np.sin(2 * np.pi * self.window / self.day_windows))
        for path, (factor, _) in self.surges.items():
            pps[path] *= factor
        return pps

    def _counters(self) -> tuple[Floats, ...]:
        s = self.simulator
        counters = (s.link_octets, s.link_packets, s.link_drops, s.sent_octets, s.sent_packets)
        return tuple(np.array(counter, dtype=np.float64) for counter in counters)

    def _read(self, paths: int) -> Reading:
        after = self._counters()
        rates = [(b - a) / WINDOW_S for a, b in zip(self._before, after, strict=True)]
        self._before = after
        octets, packets, drops, sent_octets, sent = rates
        traffic = Traffic(8 * sent_octets.reshape(2, paths).sum(axis=0), sent.reshape(2, paths).sum(axis=0))
        seen = self.simulator.take_delays()
        count, mean = seen.count.reshape(2, paths), seen.mean_s.reshape(2, paths)
        everything = (count * mean).sum(axis=0) / np.maximum(count.sum(axis=0), 1)
        planes = (
            _plane("ipfix-on-path", everything, count.sum(axis=0), None),
            _plane("rttmon", mean[1], count[1], PROBE_BITS),
        )
        return Reading(traffic, 8 * octets, packets, drops, planes)


def _plane(method: str, mean_s: Floats, count: Floats, bits: float | None) -> DelayPlane:
    return DelayPlane(
        method=method,  # type: ignore[arg-type]  # one of the literals
        direction="one-way",
        mean_s=pack_magnitudes(mean_s),
        count=pack_magnitudes(count * 1.0),
        packet_bits=bits,
    )


def gravity(network: Network, load: float, random: np.random.Generator) -> Floats:
    """Packet rates [P] by a gravity law, scaled so that the busiest link carries ``load`` at the mean of the cycle."""
    mass = random.uniform(0.5, 2.0, len(network.nodes))
    pps = np.array([mass[s] * mass[d] for s, d in map(network.path_ends, range(network.path_count))])
    paths = network.paths
    carried = np.bincount(paths.links, weights=pps[paths.hop_path], minlength=len(network.links))
    scaled: Floats = pps * load / (carried * SIZES.mean_bits / network.capacity_bps).max()
    return scaled


def topology_record(network: Network) -> TopologyRecord:
    """The network as a keyframe carries it."""
    links = tuple(
        LinkRecord(
            source=link.source,
            source_interface=link.source_interface,
            target=link.target,
            target_interface=link.target_interface,
            capacity_bps=link.capacity_bps,
            propagation_delay_s=link.propagation_delay_s,
            buffer_packets=link.buffer_packets,
            up=link.up,
        )
        for link in network.links
    )
    return TopologyRecord(nodes=network.nodes, links=links, next_link=pack_integers(network.next_link))


def state_update(
    network: Network,
    version: int,
    reading: Reading,
    *,
    quality: tuple[str, ...] = (),
    topology_version: int = 1,
) -> StateUpdate:
    """What the stream would say of a window; a keyframe every 6th version."""
    keyframe = version % 6 == 0 or version == FIRST_VERSION or topology_version == version
    return StateUpdate(
        network="nsfnet",
        version=version,
        window_start_ns=(version - 1) * WINDOW_NS,
        window_end_ns=version * WINDOW_NS,
        keyframe=keyframe,
        topology_version=topology_version,
        topology=topology_record(network) if keyframe else None,
        link_load_bps=pack_magnitudes(reading.load_bps),
        link_load_pps=pack_magnitudes(reading.load_pps),
        link_drops_pps=pack_magnitudes(reading.drops_pps),
        link_measured=pack_integers(np.ones(len(network.links), dtype=np.int8), np.int8),
        traffic_bps=pack_magnitudes(reading.traffic.bps),
        traffic_pps=pack_magnitudes(reading.traffic.pps),
        delays=reading.delays,
        quality=quality,
    )


def prediction_of(network: Network, update: StateUpdate, reading: Reading, model: DelayModel) -> Prediction:
    """What the predictor would say of a window."""
    path = model.predict(network, reading.traffic)
    return Prediction(
        network=update.network,
        state_version=update.version,
        topology_version=update.topology_version,
        window_start_ns=update.window_start_ns,
        window_end_ns=update.window_end_ns,
        model=model.name,
        model_version=model.version,
        mean_s=pack_magnitudes(path.mean_s),
        log_width=pack_magnitudes(path.log_width),
        jitter_s=pack_magnitudes(path.jitter_s),
        loss=pack_magnitudes(path.loss),
        link_utilisation=pack_magnitudes(path.link_utilisation),
        out_of_range=path.out_of_range,
    )


@dataclass
class Loop:
    """World, twin and detector, one window at a time."""

    world: World
    model: DelayModel = field(default_factory=MG1K)
    processor: DivergenceProcessor = field(default_factory=DivergenceProcessor)

    @property
    def version(self) -> int:
        """Of the next window."""
        return FIRST_VERSION + self.world.window

    def window(self, *, quality: tuple[str, ...] = ()) -> list[Alert]:
        """Play a window; the alerts it gives."""
        version = self.version
        reading = self.world.step()
        update = state_update(self.world.network, version, reading, quality=quality)
        prediction = prediction_of(self.world.network, update, reading, self.model)
        records = [*self.processor.on_record(update), *self.processor.on_record(prediction)]
        return [record for record in records if isinstance(record, Alert)]

    def windows(self, count: int) -> list[Alert]:
        """Several windows."""
        return [alert for _ in range(count) for alert in self.window()]


@dataclass(frozen=True)
class Drill:
    """What came of one injected fault."""

    target: str
    windows_to_detect: int | None  # from the start of the fault to the firing alert
    rank: int | None  # of the target among the suspects of that alert, 1 = first
    hypothesis: str  # of the leading suspect
    windows_to_resolve: int | None
    other_alerts: int  # that fired and were not about the fault


def drill(
    loop: Loop, target: str, inject: Act, clear: Act, *, warm: int = 20, sick: int = 8, calm: int = 8
) -> Drill:
    """Quiet windows, a fault, and quiet again."""
    before = loop.windows(warm)
    inject(loop.world)
    during = [loop.window() for _ in range(sick)]
    clear(loop.world)
    after = [loop.window() for _ in range(calm)]
    fired = [(k, a) for k, alerts in enumerate(during + after) for a in alerts if a.state == "firing"]
    mine = [(k, a) for k, a in fired if target in _targets(a) and k < sick]
    others = {a.fingerprint for a in before if a.state == "firing"} | {
        a.fingerprint for _, a in fired if not mine or a.fingerprint != mine[0][1].fingerprint
    }
    if not mine:
        return Drill(target, None, None, "", None, len(others))
    first = mine[0][1]
    gone = [
        k
        for k, alerts in enumerate(after)
        for a in alerts
        if (a.fingerprint, a.state) == (first.fingerprint, "resolved")
    ]
    return Drill(
        target=target,
        windows_to_detect=mine[0][0] + 1,
        rank=_targets(first).index(target) + 1,
        hypothesis=first.suspects[0].hypothesis,
        windows_to_resolve=gone[0] + 1 if gone else None,
        other_alerts=len(others),
    )


def _targets(alert: Alert) -> list[str]:
    return [suspect.target for suspect in alert.suspects]


def link_delay(link: int, extra_s: float) -> tuple[Act, Act]:
    """(inject, clear) of an extra delay on one directed link."""
    return (
        lambda world: world.simulator.set_link(link, extra_delay_s=extra_s),
        lambda world: world.simulator.set_link(link, extra_delay_s=0.0),
    )


def link_capacity(link: int, share: float) -> tuple[Act, Act]:
    """(inject, clear) of a link that keeps only ``share`` of its capacity."""

    def set_capacity(world: World, factor: float) -> None:
        world.simulator.set_link(link, capacity_bps=factor * world.network.links[link].capacity_bps)

    return lambda world: set_capacity(world, share), lambda world: set_capacity(world, 1.0)


def lab_network() -> Network:
    """The lab's default."""
    return nsfnet().network(capacities=CAPACITY_BPS)


def sweep(
    links: list[int], seeds: list[int], kind: str, magnitude: float, load: float, arrivals: Arrivals
) -> list[Drill]:
    """A drill on every link with every seed."""
    faults = {"link-delay": link_delay, "link-capacity": link_capacity}
    network = lab_network()
    drills = []
    for seed in seeds:
        for link in links:
            loop = Loop(World(network, seed, load=load, arrivals=arrivals))
            inject, clear = faults[kind](link, magnitude)
            drills.append(drill(loop, network.link_names[link], inject, clear))
    return drills
