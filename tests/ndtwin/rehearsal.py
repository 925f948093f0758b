"""Plays the records of a live loop without one: NSFNET's states, predictions, alerts and heartbeats, window
by window.

The network's "truth" is the M/G/1/K model under a traffic matrix that moves; measurements are that truth as a
probe and as the flows see it, with noise; predictions are the same model, so a healthy network agrees with
its twin to within the noise. A fault is extra delay on one link in the truth that the twin does not know of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from twin.compare import comparable_mean_s
from twin.graph_view import MeasuredDelays
from twin.network import Floats, Network, Traffic
from twin.packing import pack_integers, pack_magnitudes
from twin.queueing import MG1K, sum_hops
from twin.records import (
    Alert,
    DelayPlane,
    Heartbeat,
    LinkRecord,
    NetworkEvent,
    Prediction,
    QueuePlane,
    Record,
    StateUpdate,
    Suspect,
    TopologyRecord,
)
from twin.topologies import nsfnet

WINDOW_NS = 10_000_000_000
PROBE_BITS = 800.0
COMPONENTS = ("broker", "lab", "collect", "stream", "twin", "detect", "archive", "serve")


@dataclass
class Rehearsal:
    """One network's loop, played."""

    network: Network = field(default_factory=lambda: nsfnet().network())
    name: str = "nsfnet"
    seed: int = 7
    start_ns: int = 1_790_000_000 * 1_000_000_000
    mean_load: float = 0.38
    extra_delay_s: Mapping[str, float] = field(
        default_factory=dict
    )  # link name → seconds the twin knows nothing of
    keyframe_every: int = 6

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)
        self._model = MG1K()
        self._windows = 0
        n = len(self.network.nodes)
        mass = self._rng.lognormal(0, 0.5, n)
        demand = np.outer(mass, mass)[~np.eye(n, dtype=bool)]
        load = np.bincount(
            self.network.paths.links, demand[self.network.paths.hop_path], len(self.network.links)
        )
        self._demand_bps = demand * self.mean_load / float((load / self.network.capacity_bps).mean())

    @property
    def first_version(self) -> int:
        """The version of the first window."""
        return self.start_ns // WINDOW_NS + 1

    def windows(self, count: int) -> Iterator[tuple[StateUpdate, Prediction]]:
        """The next windows."""
        for _ in range(count):
            yield self.window()

    def window(self) -> tuple[StateUpdate, Prediction]:
        """The next window: its state and the prediction for it."""
        version = self.first_version + self._windows
        traffic = self._traffic(self._windows)
        predicted = self._model.predict(self.network, traffic)
        truth_s = predicted.mean_s + self._hidden_s()
        load = predicted.link_utilisation * self._rng.lognormal(0, 0.02, len(self.network.links))
        state = StateUpdate(
            network=self.name,
            version=version,
            window_start_ns=(version - 1) * WINDOW_NS,
            window_end_ns=version * WINDOW_NS,
            keyframe=self._windows % self.keyframe_every == 0,
            topology_version=self.first_version,
            topology=topology_record(self.network) if self._windows % self.keyframe_every == 0 else None,
            link_load_bps=pack_magnitudes(load * self.network.capacity_bps),
            link_load_pps=pack_magnitudes(load * self.network.capacity_bps / 8000),
            link_drops_pps=pack_magnitudes(np.zeros(len(self.network.links))),
            link_measured=pack_integers(np.ones(len(self.network.links), dtype=np.int8), np.int8),
            traffic_bps=pack_magnitudes(traffic.bps),
            traffic_pps=pack_magnitudes(traffic.pps),
            delays=self._planes(traffic, truth_s),
        )
        prediction = Prediction(
            network=self.name,
            state_version=version,
            topology_version=self.first_version,
            window_start_ns=state.window_start_ns,
            window_end_ns=state.window_end_ns,
            model="mg1k",
            model_version=self._model.version,
            mean_s=pack_magnitudes(predicted.mean_s),
            log_width=pack_magnitudes(np.full(self.network.path_count, 0.08)),
            jitter_s=pack_magnitudes(predicted.jitter_s),
            loss=pack_magnitudes(predicted.loss),
            link_utilisation=pack_magnitudes(predicted.link_utilisation),
        )
        self._windows += 1
        return state, prediction

    def _traffic(self, window: int) -> Traffic:
        breath = 1 + 0.22 * np.sin(window / 17)
        bps = self._demand_bps * breath * self._rng.lognormal(0, 0.12, len(self._demand_bps))
        return Traffic(bps=bps, pps=bps / 8000)

    def _hidden_s(self) -> Floats:
        extra = np.array([self.extra_delay_s.get(name, 0.0) for name in self.network.link_names])
        return sum_hops(self.network.paths, extra[self.network.paths.links])

    def _planes(self, traffic: Traffic, truth_s: Floats) -> tuple[DelayPlane, ...]:
        return (
            self._plane("ipfix-on-path", None, 400, 0.012, traffic=traffic, truth_s=truth_s),
            self._plane("rttmon", PROBE_BITS, 20, 0.03, traffic=traffic, truth_s=truth_s),
        )

    def _plane(self, method, packet_bits, count, noise, *, traffic, truth_s) -> DelayPlane:
        shape = np.zeros_like(truth_s)
        asked = MeasuredDelays("one-way", shape, shape, packet_bits)
        seen = comparable_mean_s(self.network, traffic, truth_s, asked)
        noisy = seen * self._rng.lognormal(0, noise, len(seen))
        return DelayPlane(
            method=method,
            direction="one-way",
            mean_s=pack_magnitudes(noisy),
            count=pack_magnitudes(np.full(len(noisy), float(count))),
            packet_bits=packet_bits,
        )


def topology_record(network: Network) -> TopologyRecord:
    """A network as a keyframe carries it."""
    fields = LinkRecord.__struct_fields__
    links = tuple(LinkRecord(**{name: getattr(link, name) for name in fields}) for link in network.links)
    return TopologyRecord(nodes=network.nodes, links=links, next_link=pack_integers(network.next_link))


def heartbeats(now_ns: int, *, pid: int = 100, state: str = "running", names=COMPONENTS) -> list[Heartbeat]:
    """One beat of every component."""
    return [
        Heartbeat(component=name, observed_at_ns=now_ns, state=state, pid=pid + i)
        for i, name in enumerate(names)
    ]


def link_alert(state: str, at_ns: int, *, starts_at_ns: int, link: str = "CA1->UT") -> Alert:
    """A delay alert whose prime suspect is a link."""
    return Alert(
        network="nsfnet",
        fingerprint="a1b2c3d4",
        state=state,
        kind="delay-divergence",
        severity="critical",
        summary="12 paths are slower than their twin by 3.1 ms in the median",
        starts_at_ns=starts_at_ns,
        updated_at_ns=at_ns,
        ends_at_ns=at_ns if state == "resolved" else None,
        first_version=1,
        last_version=2,
        suspects=(
            Suspect(
                kind="link",
                target=link,
                hypothesis="extra-delay",
                probability=0.86,
                evidence="all 12 paths over it are late by 3.0 to 3.2 ms, no other path is",
            ),
            Suspect(
                kind="link",
                target="UT->CO",
                hypothesis="capacity-lost",
                probability=0.09,
                evidence="9 of 31 paths fit",
            ),
            Suspect(
                kind="node",
                target="UT",
                hypothesis="slow-node",
                probability=0.05,
                evidence="14 paths through it are on time",
            ),
        ),
        paths=("CA1->UT", "CA1->CO", "WA->UT", "CA1->NE", "CA2->UT", "WA->CO"),
    )


def event(
    at_ns: int, *, kind: str = "link-down", device: str = "MI", interface: str = "eth2"
) -> NetworkEvent:
    """Something that happened at a device."""
    return NetworkEvent(network="nsfnet", device=device, observed_at_ns=at_ns, kind=kind, interface=interface)


def with_link_down(network: Network, link: str) -> Network:
    """The same network with one link down."""
    links = tuple(replace(k, up=k.up and k.name != link) for k in network.links)
    return replace(network, links=links)


def with_queues(
    state: StateUpdate,
    network: Network,
    told: Mapping[str, Mapping[str, tuple[float, float, float]]],
) -> StateUpdate:
    """The same window where devices tell of class queues: link → class → (sent bit/s, drops/s, octets)."""
    classes = tuple(sorted({name for queues in told.values() for name in queues}))
    rows = sorted(
        (network.link_names.index(link), classes.index(name), *figures)
        for link, queues in told.items()
        for name, figures in queues.items()
    )
    link, name, sent, drops, depth = np.array(rows).T
    plane = QueuePlane(
        classes=classes,
        link=pack_integers(link.astype(np.int16)),
        name=pack_integers(name.astype(np.int16)),
        sent_bps=pack_magnitudes(sent),
        drops_pps=pack_magnitudes(drops),
        depth_octets=pack_magnitudes(depth),
    )
    return msgspec.structs.replace(state, queues=plane)


def feed(store, records: list[Record] | Iterator[Record], *, timestamp_ms: int | None = None) -> None:
    """Hand records to a store."""
    for record in records:
        store.apply(record, timestamp_ms=timestamp_ms)
