"""The loop without Kafka and devices: simulator → what the state would hold → twin → anomaly → alerts.

It stands in for the lab, so it keeps the lab's conditions: NSFNET, 10 Mbit/s links, 10 s windows, a
daily-like cycle with surges, 10 probes a second on every path, and the on-path delay of all packets as the
second method. What the collectors add (polling, SNMP jitter) is not here. Run it as a script for a sweep:

    python tests/anomaly/closed_loop.py --help
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from anomaly.processor import DivergenceProcessor
from stream.forecast import ForecastProcessor
from twin.calibration import CalibrationRules
from twin.models import DelayModel
from twin.network import Floats, Network, Traffic
from twin.packing import pack_integers, pack_magnitudes, unpack_magnitudes
from twin.queueing import MG1K
from twin.records import (
    Alert,
    DelayPlane,
    LinkRecord,
    Prediction,
    Record,
    StateUpdate,
    TopologyRecord,
)
from twin.scenarios import LAB_SIZES
from twin.simulator import Arrivals, Flow, PacketSizes, Poisson, Simulator
from twin.topologies import nsfnet
from twin.traffic import TrafficCycle, lab_scenario, path_flows

WINDOW_S = 10.0
WINDOW_NS = 10_000_000_000
FIRST_VERSION = 170_000_000
PROBE_PPS = 10.0
SIZES = LAB_SIZES
PROBE_BITS = float(round(SIZES.mean_bits / 8) * 8)  # the lab's probes are as large as its mean packet
POISSON = Poisson()

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
    mean: Traffic
    seed: int
    arrivals: Arrivals = POISSON
    window: int = 0
    simulator: Simulator = field(init=False)
    due: list[tuple[float, Act]] = field(default_factory=list)  # (simulated second, what happens)

    def __post_init__(self) -> None:
        flows = path_flows(self.network, self.mean, SIZES, self.arrivals)
        probes = [
            Flow(f.source, f.destination, PROBE_PPS, PacketSizes.fixed(PROBE_BITS), Poisson()) for f in flows
        ]
        hidden = [Flow(f.source, f.destination, 0.0, SIZES, Poisson()) for f in flows]
        self.simulator = Simulator(self.network, [*flows, *probes, *hidden], seed=self.seed)
        self.hidden_pps = np.zeros(len(flows))
        self.probe_scale = np.ones(len(flows))
        self.cycle = TrafficCycle(len(flows), self.seed)
        self._before = self._counters()

    def step(self) -> Reading:
        """Play one window, second by second, and read it."""
        for second in range(int(self.window * WINDOW_S), int((self.window + 1) * WINDOW_S)):
            self._act(second)
            pps = self.mean.pps * self.cycle.multipliers(float(second))
            self.simulator.set_rates(np.concatenate([pps, np.full(len(pps), PROBE_PPS), self.hidden_pps]))
            self.simulator.advance(second + 1.0)
        self.window += 1
        return self._read(len(self.mean.pps))

    def _act(self, second: int) -> None:
        for _, act in [one for one in self.due if one[0] <= second]:
            act(self)
        self.due = [one for one in self.due if one[0] > second]

    def _counters(self) -> tuple[Floats, ...]:
        s = self.simulator
        counters = (s.link_octets, s.link_packets, s.link_drops, s.sent_octets, s.sent_packets)
        return tuple(np.array(counter, dtype=np.float64) for counter in counters)

    def _read(self, paths: int) -> Reading:
        after = self._counters()
        rates = [(b - a) / WINDOW_S for a, b in zip(self._before, after, strict=True)]
        self._before = after
        octets, packets, drops, sent_octets, sent = rates
        # Flow records show customers and probes, not what is hidden; on-path delay is the customers'.
        known = (sent_octets[: 2 * paths].reshape(2, paths), sent[: 2 * paths].reshape(2, paths))
        traffic = Traffic(8 * known[0].sum(axis=0), known[1].sum(axis=0))
        seen = self.simulator.take_delays()
        planes = (
            _plane("ipfix-on-path", seen.mean_s[:paths], seen.count[:paths], None),
            _plane(
                "rttmon",
                self.probe_scale * seen.mean_s[paths : 2 * paths],
                seen.count[paths : 2 * paths],
                PROBE_BITS,
            ),
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


def _without_flows(reading: Reading, network: Network, node: int) -> Reading:
    other = np.arange(network.path_count) // (len(network.nodes) - 1) != node
    return replace(reading, traffic=Traffic(reading.traffic.bps * other, reading.traffic.pps * other))


def _of_links(reading: Reading, world: Network, told: Network) -> Reading:
    """The counters of the links that are told of."""
    kept = [world.link_names.index(name) for name in told.link_names]
    loads = (reading.load_bps[kept], reading.load_pps[kept], reading.drops_pps[kept])
    return Reading(reading.traffic, *loads, reading.delays)


def _error(reading: Reading, prediction: Record) -> float:
    assert isinstance(prediction, Prediction)
    measured, predicted = (unpack_magnitudes(one.mean_s) for one in (reading.delays[0], prediction))
    seen = measured > 0
    return float(np.median(np.abs(predicted[seen] / measured[seen] - 1)))


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
    topology_version: int = FIRST_VERSION,
) -> StateUpdate:
    """What the stream would say of a window; a keyframe every 6th version."""
    keyframe = version % 6 == 0 or version == topology_version
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


@dataclass
class Loop:
    """World, twin and detector, one window at a time; with ``rules`` the twin is calibrated.

    ``told`` is what the twin is told of the world's network, where that is not all true.
    """

    world: World
    model: DelayModel = field(default_factory=MG1K)
    processor: DivergenceProcessor = field(default_factory=DivergenceProcessor)
    rules: CalibrationRules | None = None
    told: Network | None = None
    topology_version: int = FIRST_VERSION
    forecast: ForecastProcessor = field(init=False)
    errors: list[float] = field(default_factory=list)  # median of |predicted ÷ measured − 1|, by window

    def __post_init__(self) -> None:
        self.forecast = ForecastProcessor(self.model, self.rules)

    @property
    def version(self) -> int:
        """Of the next window."""
        return FIRST_VERSION + self.world.window

    def window(self, *, quality: tuple[str, ...] = (), without_flows_of: str = "") -> list[Alert]:
        """Play a window; the alerts it gives. A silent exporter's flows can be left out."""
        version, network = self.version, self.told or self.world.network
        reading = _of_links(self.world.step(), self.world.network, network)
        if without_flows_of:
            reading = _without_flows(reading, network, network.node_index[without_flows_of])
        update = state_update(
            network, version, reading, quality=quality, topology_version=self.topology_version
        )
        [prediction] = self.forecast.on_record(update)
        self.errors.append(_error(reading, prediction))
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

    @property
    def passed(self) -> bool:
        """What the project promises: within 3 windows, first or second, resolved in 4, nothing else."""
        in_time = (self.windows_to_detect or 99) <= 3 and (self.windows_to_resolve or 99) <= 4
        return in_time and (self.rank or 99) <= 2 and self.other_alerts == 0


def drill(
    loop: Loop,
    target: str,
    fault: tuple[Act, Act],
    *,
    warm: int = 8,
    sick: int = 8,
    calm: int = 8,
    within_s: float = 0.0,
) -> Drill:
    """Quiet windows, a fault that starts and ends ``within_s`` into a window, and quiet again."""
    start_s = (loop.world.window + warm) * WINDOW_S + within_s
    loop.world.due = [(start_s, fault[0]), (start_s + sick * WINDOW_S, fault[1])]
    before = loop.windows(warm)
    during = [loop.window() for _ in range(sick)]
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


def slow_node(node: int, extra_s: float) -> tuple[Act, Act]:
    """(inject, clear) of a node that delays all it sends on."""
    return (
        lambda world: world.simulator.set_node_delay(node, extra_s),
        lambda world: world.simulator.set_node_delay(node, 0.0),
    )


def lying_probe(node: int, factor: float) -> tuple[Act, Act]:
    """(inject, clear) of a device that multiplies the delays its probes measure."""

    def set_factor(world: World, value: float) -> None:
        world.probe_scale[np.arange(len(world.mean.pps)) // (len(world.network.nodes) - 1) == node] = value

    return lambda world: set_factor(world, factor), lambda world: set_factor(world, 1.0)


def hidden_traffic(link: int, share: float) -> tuple[Act, Act]:
    """(inject, clear) of traffic no flow record shows, along the shortest path over a link."""

    def set_rate(world: World, factor: float) -> None:
        paths = world.network.paths
        using = paths.hop_path[paths.links == link]
        path = using[np.argmin(paths.lengths[using])]
        world.hidden_pps[path] = factor * world.network.capacity_bps[link] / SIZES.mean_bits

    return lambda world: set_rate(world, share), lambda world: set_rate(world, 0.0)


def wrong_route(network: Network, path: int) -> tuple[Act, Act]:
    """(inject, clear) of a source that sends towards one destination by another way that gets there."""
    s, d = network.path_ends(path)
    usual, other = int(network.next_link[s, d]), _detour(network, s, d)
    return (
        lambda world: world.simulator.set_next_link(s, d, other),
        lambda world: world.simulator.set_next_link(s, d, usual),
    )


def _detour(network: Network, s: int, d: int) -> int:
    for link in np.flatnonzero(network.source_index == s):
        node = int(network.target_index[link])
        onward = (
            [] if node == d else network.paths.of(network.path_index(network.nodes[node], network.nodes[d]))
        )
        if link != network.next_link[s, d] and s not in network.source_index[onward]:
            return int(link)
    raise ValueError(f"{network.nodes[s]} has one way to {network.nodes[d]} only")


def lab_world(seed: int, arrivals: Arrivals = POISSON) -> World:
    """The lab's default network and traffic."""
    network, mean = lab_scenario(nsfnet(), seed=seed)
    return World(network, mean, seed, arrivals)


FAULTS = {"link-delay": link_delay, "link-capacity": link_capacity, "hidden-traffic": hidden_traffic}


def sweep(
    kind: str, magnitude: float, links: list[int], seeds: list[int], arrivals: Arrivals
) -> Iterator[Drill]:
    """A drill on every link with every seed, started at another second of the window each time."""
    for seed in seeds:
        for link in links:
            loop = Loop(lab_world(seed, arrivals))
            name = loop.world.network.link_names[link]
            yield drill(loop, name, FAULTS[kind](link, magnitude), within_s=float((3 * link + seed) % 10))


def main() -> None:
    """A sweep on the command line: one line a drill, a summary a fault."""
    parser = argparse.ArgumentParser(description=sweep.__doc__)
    parser.add_argument("--every", type=int, default=5, help="every n-th link")
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    links = list(range(0, 42, options.every))
    for kind, magnitude in (
        ("link-delay", 0.01),
        ("link-delay", 0.003),
        ("link-capacity", 0.5),
        ("link-capacity", 0.4),
    ):
        drills = list(sweep(kind, magnitude, links, list(range(1, 1 + options.seeds)), POISSON))
        for one in drills:
            print(json.dumps({"fault": kind, "magnitude": magnitude, **asdict(one)}))
        passed = sum(one.passed for one in drills)
        print(json.dumps({"fault": kind, "magnitude": magnitude, "passed": passed, "of": len(drills)}))


if __name__ == "__main__":
    main()
