"""What a consumer of the state topic knows: rebuilt from keyframes and deltas, nothing else needed.

A keyframe carries the topology; a delta names the version at which its topology last changed. A consumer
that starts in the middle rewinds by the keyframe distance (6 messages) and skips deltas until the first
keyframe.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from twin.errors import DecodeError, TopologyError
from twin.network import Floats, Ints, Link, Network, Traffic
from twin.packing import unpack_integers, unpack_magnitudes
from twin.records import DelayMethod, DelayPlane, Direction, QueuePlane, StateUpdate, TopologyRecord

Ints16 = NDArray[np.int16]


@dataclass(frozen=True)
class MeasuredDelays:
    """Measured mean delays of all paths by one method in one direction."""

    direction: Direction
    mean_s: Floats  # [P]
    count: Floats  # [P] weight; 0 = not measured
    packet_bits: float | None = None  # probe size; None: the traffic itself


@dataclass(frozen=True)
class MeasuredQueues:
    """The class queues that devices told of in one window."""

    classes: tuple[str, ...] = ()
    link: Ints = field(default_factory=lambda: np.zeros(0, np.int64))  # [Q] ascending
    name: Ints = field(default_factory=lambda: np.zeros(0, np.int64))  # [Q] index into classes
    sent_bps: Floats = field(default_factory=lambda: np.zeros(0))  # [Q]
    drops_pps: Floats = field(default_factory=lambda: np.zeros(0))  # [Q]
    depth_octets: Floats = field(default_factory=lambda: np.zeros(0))  # [Q]

    def of(self, link: int) -> list[tuple[str, float, float, float]]:
        """(class, sent bit/s, drops/s, octets waiting) of the queues of one link."""
        first, end = np.searchsorted(self.link, (link, link + 1))
        figures = (self.sent_bps, self.drops_pps, self.depth_octets)
        return [
            (self.classes[self.name[q]], *(float(figure[q]) for figure in figures))
            for q in range(int(first), int(end))
        ]


class StateView:
    """The newest state of one network. Attributes are valid after the first successful :meth:`apply`."""

    network: Network
    traffic: Traffic
    link_load_bps: Floats  # [L]
    link_load_pps: Floats  # [L]
    link_drops_pps: Floats  # [L]
    link_measured: Ints  # [L] 0 not measured, 1 on the sending interface, 2 on the receiving one
    delays: dict[str, MeasuredDelays]  # by label_of
    queues: MeasuredQueues
    version: int = -1
    topology_version: int = -1
    window_start_ns: int = 0
    window_end_ns: int = 0
    quality: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._topology: TopologyRecord | None = None
        self.delays = {}
        self.queues = MeasuredQueues()

    def apply(self, update: StateUpdate) -> None:
        """Become the state after ``update``; DecodeError when it is damaged or refers to an unseen topology.

        Nothing is changed unless everything fits.
        """
        topology, network = self._topology_of(update)
        n = len(network.nodes)
        paths, links = n * (n - 1), len(network.links)
        traffic = Traffic(
            bps=_sized(update.traffic_bps, paths),
            pps=_sized(update.traffic_pps, paths),
            observed_s=(update.window_end_ns - update.window_start_ns) * 1e-9,
        )
        loads = [
            _sized(b, links) for b in (update.link_load_bps, update.link_load_pps, update.link_drops_pps)
        ]
        measured = unpack_integers(update.link_measured, np.int8).astype(np.int64)
        delays, queues = _delays(update.delays, paths), _queues(update.queues, links)
        self._topology, self.network, self.traffic, self.delays = topology, network, traffic, delays
        self.link_load_bps, self.link_load_pps, self.link_drops_pps = loads
        self.link_measured, self.queues = measured, queues
        self.version, self.topology_version = update.version, update.topology_version
        self.window_start_ns, self.window_end_ns = update.window_start_ns, update.window_end_ns
        self.quality = update.quality

    def _topology_of(self, update: StateUpdate) -> tuple[TopologyRecord, Network]:
        if update.topology is not None and update.topology != self._topology:
            return update.topology, network_of(update.topology)
        if self._topology is None or (
            update.topology is None and update.topology_version != self.topology_version
        ):
            raise DecodeError(
                f"state {update.version} of {update.network} refers to topology {update.topology_version}, "
                "which was not seen: wait for the next keyframe"
            )
        return self._topology, self.network


def network_of(topology: TopologyRecord) -> Network:
    """The Network a TopologyRecord describes; DecodeError when its parts do not fit together."""
    n = len(topology.nodes)
    next_link = unpack_integers(topology.next_link, np.int16)
    if len(next_link) != n * n or (n and next_link.max(initial=-1) >= len(topology.links)):
        raise DecodeError(f"topology record is damaged: {len(next_link)} next hops for {n} nodes")
    try:
        return Network(
            nodes=topology.nodes,
            links=tuple(
                Link(
                    source=link.source,
                    target=link.target,
                    capacity_bps=link.capacity_bps,
                    propagation_delay_s=link.propagation_delay_s,
                    buffer_packets=link.buffer_packets,
                    source_interface=link.source_interface,
                    target_interface=link.target_interface,
                    up=link.up,
                    line_rate_bps=link.line_rate_bps,
                )
                for link in topology.links
            ),
            next_link=next_link.reshape(n, n).astype(np.int16),
            equal_links=_equal_links(topology, n),
        )
    except TopologyError as error:
        raise DecodeError(f"topology record is damaged: {error}") from error


def _equal_links(topology: TopologyRecord, nodes: int) -> Ints16 | None:
    if not topology.equal_links:
        return None
    told = unpack_integers(topology.equal_links, np.int16)
    if len(told) % 3:
        raise DecodeError(f"topology record is damaged: {len(told)} numbers of equal next hops")
    rows = told.reshape(-1, 3)
    if rows.min(initial=0) < 0 or (rows >= (nodes, nodes, len(topology.links))).any():
        raise DecodeError("topology record is damaged: an equal next hop names what is not there")
    return rows.astype(np.int16)


def label_of(method: DelayMethod, direction: Direction) -> str:
    """What consumers call one kind of measurement: what is learnt of one says nothing about another.

    A method that measures one-way where clocks allow it and round trips elsewhere is two kinds.
    """
    return f"{method}-{direction}" if (method, direction) in _SECOND_KINDS else method


_SECOND_KINDS = {("stamp", "round-trip"), ("rttmon", "round-trip"), ("juniper-rpm", "one-way")}


def _delays(planes: tuple[DelayPlane, ...], paths: int) -> dict[str, MeasuredDelays]:
    return {
        label_of(plane.method, plane.direction): MeasuredDelays(
            direction=plane.direction,
            mean_s=_sized(plane.mean_s, paths),
            count=_sized(plane.count, paths),
            packet_bits=plane.packet_bits,
        )
        for plane in planes
    }


def _queues(plane: QueuePlane | None, links: int) -> MeasuredQueues:
    if plane is None:
        return MeasuredQueues()
    link, name = (unpack_integers(blob, np.int16).astype(np.int64) for blob in (plane.link, plane.name))
    bounds = ((link, links), (name, len(plane.classes)))
    if (
        any(len(one) != len(link) or (one < 0).any() or (one >= most).any() for one, most in bounds)
        or (np.diff(link) < 0).any()
    ):
        raise DecodeError("state update is damaged: a queue names a link or a class that is not there")
    figures = (_sized(blob, len(link)) for blob in (plane.sent_bps, plane.drops_pps, plane.depth_octets))
    return MeasuredQueues(plane.classes, link, name, *figures)


def _sized(blob: bytes, size: int) -> Floats:
    values = unpack_magnitudes(blob)
    if len(values) != size:
        raise DecodeError(f"state update is damaged: an array has {len(values)} values where {size} belong")
    return values
