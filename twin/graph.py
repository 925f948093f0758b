"""The graph state of one network, updated by what changed, and the view a consumer rebuilds from its updates.

Invariants
----------
- The state is a function of the newest report of every device, the newest annotations and the newest status
  of every interface, never of the order in which they came. Equal states encode to equal bytes.
- Work follows change: a report equal to the one before costs a comparison; a changed one touches its device's
  links, its row of next hops and, if its prefixes changed, its column.
- Nodes are the devices that report and those their neighbours name. A silent device keeps its last report; it
  goes when its neighbours stop naming it and nothing was heard of it for ``expire_after_ns``.
- ``topology_version`` moves only when the resulting TopologyRecord differs from the one before.

What no device tells, and the inventory does not say, is assumed: capacity 1 Gbit/s (counted in the quality
flag ``capacity-unknown:N``), no propagation delay, buffers of 100 packets.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from twin.graph_addresses import PrefixTable
from twin.graph_links import Adjacencies, LinkKey
from twin.graph_routes import Routing, name_resolver
from twin.graph_view import MeasuredDelays, StateView, network_of
from twin.network import Floats, Traffic
from twin.packing import pack_integers, pack_magnitudes
from twin.records import (
    DelayMethod,
    DelayPlane,
    DeviceTopology,
    Direction,
    LinkAnnotation,
    LinkAnnotations,
    LinkRecord,
    QueuePlane,
    StateUpdate,
    TopologyRecord,
)

__all__ = [
    "DelayMeasurement",
    "GraphSnapshot",
    "GraphState",
    "InterfaceRates",
    "InterfaceStatus",
    "MeasuredDelays",
    "Measurements",
    "StateView",
    "network_of",
]

DEFAULT_CAPACITY_BPS = 1e9
DEFAULT_PROPAGATION_S = 0.0
DEFAULT_BUFFER_PACKETS = 100
MEASURED, MEASURED_AT_FAR_END = 1, 2  # values of ``StateUpdate.link_measured``; 0 = not measured
# Of packed arrays, so that a full mesh of 300 nodes fits into 1 MB whatever its figures:
_TRAFFIC_COARSENESS = 4  # to within 0.16 %
_WEIGHT_COARSENESS = 64  # to within 2.6 %


class InterfaceStatus(msgspec.Struct, frozen=True, array_like=True):
    """What was last said of an interface besides its counters."""

    observed_at_ns: int
    up: bool = True
    speed_bps: float | None = None
    if_index: int = 0


@dataclass(frozen=True)
class QueueRates:
    """What one class queue of an interface sent and dropped, and how long it was when last polled."""

    name: str
    sent_bps: float = 0.0
    drops_pps: float = 0.0
    depth_octets: float = 0.0


@dataclass(frozen=True)
class InterfaceRates:
    """Mean rates of one interface over the covered part of a window."""

    out_bps: float = 0.0
    out_pps: float = 0.0
    drops_pps: float = 0.0
    in_bps: float = 0.0
    in_pps: float = 0.0
    queues: tuple[QueueRates, ...] = ()  # outgoing, by name

    @property
    def dropped_pps(self) -> float:
        """The interface's discards or its queues' drops: some devices count both together, some apart."""
        return max(self.drops_pps, sum(queue.drops_pps for queue in self.queues))


@dataclass(frozen=True)
class DelayMeasurement:
    """The merged mean delays of all paths by one method in one window; zero count = not measured."""

    method: DelayMethod
    direction: Direction
    mean_s: Floats  # [P]
    count: Floats  # [P]
    packet_bits: float | None = None


@dataclass(frozen=True)
class Measurements:
    """What was measured in one window, on the nodes of the refreshed state."""

    interfaces: dict[tuple[str, str], InterfaceRates] = field(default_factory=dict)  # (device, interface)
    traffic: Traffic | None = None
    delays: tuple[DelayMeasurement, ...] = ()
    quality: frozenset[str] = frozenset()


class GraphSnapshot(msgspec.Struct, array_like=True):
    """All that a :class:`GraphState` cannot derive again."""

    devices: dict[str, bytes]  # device → its newest report, packed
    reported_ns: dict[str, int]
    annotations: bytes
    status: dict[str, dict[str, InterfaceStatus]]
    heard_ns: dict[str, int]
    topology_version: int
    topology_digest: bytes


class GraphState:
    """Topology, routing, capacities of one network; :meth:`close` joins them with a window's measurements."""

    def __init__(
        self, network: str, *, expire_after_ns: int = 1_800_000_000_000, keyframe_every: int = 6
    ) -> None:
        self.network = network
        self._expire_after_ns = expire_after_ns
        self._keyframe_every = keyframe_every
        # What cannot be derived:
        self._devices: dict[str, DeviceTopology] = {}  # canonical: sorted, without its time
        self._reported_ns: dict[str, int] = {}
        self._annotations: LinkAnnotations | None = None
        self._status: dict[str, dict[str, InterfaceStatus]] = {}
        self._heard_ns: dict[str, int] = {}
        self._digest = b""
        self.topology_version = 0
        # What is derived, and which of it is stale:
        self._adjacencies = Adjacencies()
        self._routing = Routing()
        self._notes: dict[tuple[str, str], list[LinkAnnotation]] = {}
        self._stale_devices: set[str] = set()
        self._names_stale = self._links_stale = False
        self._keys: tuple[LinkKey, ...] = ()
        self._packed_routes, self._packed_equal_links = pack_integers(np.zeros(0, np.int16)), b""
        self._blobs: dict[str, bytes] = {}
        self.owners: PrefixTable[str] = PrefixTable(())  # which node every prefix ends at
        self.topology = TopologyRecord(nodes=(), links=(), next_link=self._packed_routes)
        self._unknown_capacities = 0

    # ------------------------------------------------------------------ what comes in

    def apply(self, record: DeviceTopology | LinkAnnotations) -> None:
        """Take a report or the annotations, unless something newer is known."""
        if isinstance(record, LinkAnnotations):
            self._apply_annotations(record)
        else:
            self._apply_device(record)

    def _apply_annotations(self, record: LinkAnnotations) -> None:
        if self._annotations is not None and record.observed_at_ns < self._annotations.observed_at_ns:
            return
        self._annotations = record
        self._notes = {}
        for note in sorted(record.links, key=lambda n: n.source_interface, reverse=True):
            self._notes.setdefault((note.source, note.target), []).append(note)
        self._links_stale = True

    def _apply_device(self, record: DeviceTopology) -> None:
        if record.observed_at_ns < self._reported_ns.get(record.device, 0):
            return
        self.heard(record.device, record.observed_at_ns)
        self._reported_ns[record.device] = record.observed_at_ns
        before, after = self._devices.get(record.device), _canonical(record)
        if before != after:
            self._devices[record.device] = after
            self._stale_devices.add(record.device)
            self._names_stale |= before is None or before.addresses != after.addresses
            self._blobs.pop(record.device, None)

    def set_interface(self, device: str, interface: str, status: InterfaceStatus) -> None:
        """Take an interface's status; speed and index not told keep what was told before."""
        known = self._status.setdefault(device, {})
        before = known.get(interface)
        if before is not None:
            if status.observed_at_ns < before.observed_at_ns:
                return
            status = InterfaceStatus(
                observed_at_ns=status.observed_at_ns,
                up=status.up,
                speed_bps=status.speed_bps or before.speed_bps,
                if_index=status.if_index or before.if_index,
            )
        known[interface] = status
        if before is None or (before.up, before.speed_bps) != (status.up, status.speed_bps):
            self._links_stale = True

    def heard(self, device: str, at_ns: int) -> None:
        """A device gave a sign of life."""
        self._heard_ns[device] = max(at_ns, self._heard_ns.get(device, 0))

    def expire(self, now_ns: int) -> None:
        """Forget devices of which nothing was heard for ``expire_after_ns``."""
        for device in [d for d, at_ns in self._heard_ns.items() if now_ns - at_ns > self._expire_after_ns]:
            del self._heard_ns[device]
            self._status.pop(device, None)
            if self._devices.pop(device, None) is not None:
                self._reported_ns.pop(device)
                self._blobs.pop(device, None)
                self._adjacencies.remove_device(device)
                self._routing.remove_device(device)
                self._stale_devices.discard(device)
                self._names_stale = True

    # ------------------------------------------------------------------ what follows from it

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes of the refreshed state, sorted."""
        return self.topology.nodes

    def refresh(self, version: int) -> bool:
        """Bring the topology up to date; True (and ``topology_version = version``) when it changed."""
        routes_stale = bool(self._stale_devices) or self._names_stale
        if not (self._links_stale or routes_stale):
            return False
        if routes_stale:
            self._refresh_routes()
        links = tuple(self._link_record(key) for key in self._keys)
        self._unknown_capacities = sum(self._told_capacity(key) is None for key in self._keys)
        self.topology = TopologyRecord(
            nodes=self._node_names(),
            links=links,
            next_link=self._packed_routes,
            equal_links=self._packed_equal_links,
        )
        self._links_stale = False
        return self._note_change(version)

    def _refresh_routes(self) -> None:
        known_name = name_resolver(self._devices)
        for device in sorted(self._devices if self._names_stale else self._stale_devices):
            claimed = self._devices[device].neighbours
            named = tuple(
                msgspec.structs.replace(n, remote_device=known_name(n.remote_device)) for n in claimed
            )
            self._adjacencies.set_device(device, named)
        for device in sorted(self._stale_devices):
            self._routing.set_device(device, self._devices[device])
        self._stale_devices, self._names_stale = set(), False
        self._keys = self._adjacencies.links()
        next_link, equal_links = self._routing.next_links(self._node_names(), self._keys)
        self._packed_routes = pack_integers(next_link)
        self._packed_equal_links = pack_integers(equal_links) if len(equal_links) else b""
        self.owners = self._routing.owners()

    def _node_names(self) -> tuple[str, ...]:
        return tuple(sorted(self._devices.keys() | {key.source for key in self._keys}))

    def inner_if_indices(self, device: str) -> frozenset[int]:
        """The ifIndex of every interface of a device that leads to another node."""
        status = self._status.get(device, {})
        ports = {key.source_interface for key in self._keys if key.source == device}
        return frozenset(status[port].if_index for port in ports if port in status and status[port].if_index)

    def _note_change(self, version: int) -> bool:
        digest = hashlib.blake2b(msgspec.msgpack.encode(self.topology), digest_size=16).digest()
        changed = digest != self._digest
        if changed:
            self._digest, self.topology_version = digest, version
        return changed

    def _link_record(self, key: LinkKey) -> LinkRecord:
        note = self._annotation(key)
        ends = (self._status.get(device, {}).get(port) for device, port in _ends(key))
        return LinkRecord(
            source=key.source,
            source_interface=key.source_interface,
            target=key.target,
            target_interface=key.target_interface,
            capacity_bps=self._told_capacity(key) or DEFAULT_CAPACITY_BPS,
            propagation_delay_s=_told_propagation_s(note),
            buffer_packets=_told_buffer(note),
            up=all(status.up for status in ends if status is not None),
            line_rate_bps=_told_line_rate(note),
        )

    def _told_capacity(self, key: LinkKey) -> float | None:
        """The annotated capacity, else the sending interface's speed, else the receiving one's. Devices that
        tell nothing tell 0, and some less."""
        note = self._annotation(key)
        if note is not None and note.capacity_bps and note.capacity_bps > 0:
            return note.capacity_bps
        for device, port in _ends(key):
            status = self._status.get(device, {}).get(port)
            if status is not None and status.speed_bps and status.speed_bps > 0:
                return status.speed_bps
        return None

    def _annotation(self, key: LinkKey) -> LinkAnnotation | None:
        """The annotation that names the link's interface, else the one for any link between the two."""
        notes = self._notes.get((key.source, key.target), ())
        return next((n for n in notes if n.source_interface in ("", key.source_interface)), None)

    def close(self, version: int, start_ns: int, end_ns: int, measured: Measurements) -> StateUpdate:
        """The state at the end of one window. Call :meth:`refresh` first: measurements lie on its nodes."""
        keyframe = self.topology_version == version or version % self._keyframe_every == 0
        loads = self._link_arrays(measured.interfaces)
        quality = set(measured.quality)
        if self._unknown_capacities:
            quality.add(f"capacity-unknown:{self._unknown_capacities}")
        paths = len(self.nodes) * (len(self.nodes) - 1)
        traffic = measured.traffic or Traffic(bps=np.zeros(paths), pps=np.zeros(paths))
        return StateUpdate(
            network=self.network,
            version=version,
            window_start_ns=start_ns,
            window_end_ns=end_ns,
            keyframe=keyframe,
            topology_version=self.topology_version,
            topology=self.topology if keyframe else None,
            link_load_bps=pack_magnitudes(loads[0]),
            link_load_pps=pack_magnitudes(loads[1]),
            link_drops_pps=pack_magnitudes(loads[2]),
            link_measured=pack_integers(loads[3], np.int8),
            traffic_bps=pack_magnitudes(traffic.bps, _TRAFFIC_COARSENESS),
            traffic_pps=pack_magnitudes(traffic.pps, _TRAFFIC_COARSENESS),
            delays=tuple(_plane(one) for one in measured.delays),
            quality=tuple(sorted(quality)),
            queues=self._queue_plane(measured.interfaces),
        )

    def _link_arrays(self, interfaces: dict[tuple[str, str], InterfaceRates]) -> tuple[NDArray, ...]:  # type: ignore[type-arg]  # three of floats, one of integers
        """Load bit/s and packets/s, drops/s, mark of every link: its own end's, else the far end's."""
        rows = np.zeros((3, len(self._keys)))
        measured = np.zeros(len(self._keys), dtype=np.int8)
        for k, key in enumerate(self._keys):
            near, far = (interfaces.get(end) for end in _ends(key))
            if near is not None:
                rows[:, k], measured[k] = (near.out_bps, near.out_pps, near.dropped_pps), MEASURED
            elif far is not None:
                rows[:, k], measured[k] = (far.in_bps, far.in_pps, 0.0), MEASURED_AT_FAR_END
        return (*rows, measured)

    def _queue_plane(self, interfaces: dict[tuple[str, str], InterfaceRates]) -> QueuePlane | None:
        """The queues at the links' sending ends, link by link, by name."""
        found = [
            (k, queue)
            for k, key in enumerate(self._keys)
            if (near := interfaces.get(_ends(key)[0])) is not None
            for queue in near.queues
        ]
        if not found:
            return None
        classes = tuple(sorted({queue.name for _, queue in found}))
        figures = ("sent_bps", "drops_pps", "depth_octets")
        return QueuePlane(
            classes=classes,
            link=pack_integers(np.array([k for k, _ in found], np.int16)),
            name=pack_integers(np.array([classes.index(queue.name) for _, queue in found], np.int16)),
            **{name: pack_magnitudes(np.array([getattr(q, name) for _, q in found])) for name in figures},
        )

    # ------------------------------------------------------------------ to bytes and back

    def snapshot(self) -> GraphSnapshot:
        """All state that cannot be derived again; reports are packed once, not at every snapshot."""
        for device in self._devices.keys() - self._blobs.keys():
            self._blobs[device] = _pack_report(self._devices[device])
        return GraphSnapshot(
            devices=dict(sorted(self._blobs.items())),
            reported_ns=dict(sorted(self._reported_ns.items())),
            annotations=msgspec.msgpack.encode(self._annotations),
            status={device: dict(sorted(self._status[device].items())) for device in sorted(self._status)},
            heard_ns=dict(sorted(self._heard_ns.items())),
            topology_version=self.topology_version,
            topology_digest=self._digest,
        )

    def restore(self, snapshot: GraphSnapshot) -> None:
        """Become what :meth:`snapshot` described. The graph must be new."""
        annotations = msgspec.msgpack.decode(snapshot.annotations, type=LinkAnnotations | None)
        if annotations is not None:
            self._apply_annotations(annotations)
        self._status = {device: dict(ports) for device, ports in snapshot.status.items()}
        self._heard_ns, self._reported_ns = dict(snapshot.heard_ns), dict(snapshot.reported_ns)
        self._blobs = dict(snapshot.devices)
        self._devices = {device: _unpack_report(blob) for device, blob in snapshot.devices.items()}
        self._stale_devices, self._names_stale = set(self._devices), True
        self.refresh(snapshot.topology_version)
        self.topology_version, self._digest = snapshot.topology_version, snapshot.topology_digest


def _told_propagation_s(note: LinkAnnotation | None) -> float:
    """The annotated delay where it is one."""
    told = None if note is None else note.propagation_delay_s
    return told if told is not None and 0 <= told < float("inf") else DEFAULT_PROPAGATION_S


def _told_buffer(note: LinkAnnotation | None) -> int:
    """The annotated buffer where there is room for a packet."""
    told = None if note is None else note.buffer_packets
    return told if told is not None and told > 0 else DEFAULT_BUFFER_PACKETS


def _told_line_rate(note: LinkAnnotation | None) -> float | None:
    """The annotated speed where it is one."""
    told = None if note is None else note.line_rate_bps
    return told if told is not None and 0 < told < float("inf") else None


def _ends(key: LinkKey) -> tuple[tuple[str, str], tuple[str, str]]:
    """(device, interface) of the sending and of the receiving end."""
    return (key.source, key.source_interface), (key.target, key.target_interface)


def _canonical(record: DeviceTopology) -> DeviceTopology:
    """The report without its time, its lists sorted: two reports that say the same are equal."""
    return msgspec.structs.replace(
        record,
        observed_at_ns=0,
        quality=(),
        neighbours=tuple(sorted(record.neighbours, key=msgspec.structs.astuple)),
        addresses=tuple(sorted(record.addresses, key=msgspec.structs.astuple)),
        routes=tuple(sorted(record.routes, key=msgspec.structs.astuple)),
    )


def _pack_report(record: DeviceTopology) -> bytes:
    return zlib.compress(msgspec.msgpack.encode(record), 6)


def _unpack_report(blob: bytes) -> DeviceTopology:
    return msgspec.msgpack.decode(zlib.decompress(blob), type=DeviceTopology)


def _plane(one: DelayMeasurement) -> DelayPlane:
    return DelayPlane(
        method=one.method,
        direction=one.direction,
        mean_s=pack_magnitudes(one.mean_s),
        count=pack_magnitudes(one.count, _WEIGHT_COARSENESS),
        packet_bits=one.packet_bits,
    )
