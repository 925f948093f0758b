"""The vocabulary: every record that crosses a topic, in one module.

Invariants
----------
- Records are frozen and tagged; on the wire they are JSON objects whose ``type`` names the record.
- Units stand in the names. Times are integers, nanoseconds since the Unix epoch (``_ns``); delays are
  seconds (``_s``); rates are bit/s (``_bps``) or packets/s (``_pps``); counters are octets or packets.
- A record evolves only by gaining fields with defaults: an old reader skips them, a new reader fills them.
- Arrays over links or paths are packed (:mod:`twin.packing`) in the canonical order of
  :class:`twin.network.Network`: links as listed in the keyframe; paths by (source, destination), row-major
  over the sorted node names, the diagonal left out.
- This module imports neither torch nor numpy: a collector can use it alone.
"""

from __future__ import annotations

from typing import Literal

import msgspec

DelayMethod = Literal["rttmon", "ipfix-on-path", "disman-ping", "juniper-rpm", "stamp", "openconfig-probes"]
Direction = Literal["one-way", "round-trip"]
AlertState = Literal["pending", "firing", "acknowledged", "resolved"]
ComponentState = Literal["starting", "running", "degraded", "stopped"]


class Record(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Base of all records."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what records are made of."""


# --------------------------------------------------------------------------- ndt.samples (key: device)


class InterfaceCounters(Part, frozen=True, kw_only=True):
    """One interface at one instant: IF-MIB (RFC 2863) or ietf-interfaces (RFC 8343) counters, as read."""

    name: str  # ifName: the key that survives renumbering
    if_index: int
    in_octets: int | None = None
    out_octets: int | None = None
    in_packets: int | None = None
    out_packets: int | None = None
    in_discards: int | None = None
    out_discards: int | None = None
    in_errors: int | None = None
    out_errors: int | None = None
    speed_bps: float | None = None
    admin_up: bool = True
    oper_up: bool = True
    discontinuity_at_ns: int | None = None  # ifCounterDiscontinuityTime as device uptime, in nanoseconds
    counter_bits: int = 64
    stale: bool = False  # counters stand though they should move: an answer from a cache


class QueueCounters(Part, frozen=True, kw_only=True):
    """One class of traffic at one interface: what its queue was offered, sent and dropped, as read."""

    interface: str
    direction: Literal["in", "out"]
    name: str  # the class's name on the device
    offered_octets: int | None = None
    sent_octets: int | None = None
    dropped_packets: int | None = None
    dropped_octets: int | None = None
    depth_packets: int | None = None  # now
    depth_octets: int | None = None
    most_depth_octets: int | None = None  # since the counters began
    stale: bool = False


class DeviceSample(Record, frozen=True, kw_only=True):
    """One poll of one device: all its interfaces at ``observed_at_ns``."""

    network: str
    device: str
    observed_at_ns: int
    source: Literal["snmp", "netconf"]
    uptime_ns: int | None = None  # sysUpTime
    engine_boots: int | None = None  # snmpEngineBoots, where SNMPv3 tells it
    poll_duration_s: float = 0.0
    interfaces: tuple[InterfaceCounters, ...] = ()
    queues: tuple[QueueCounters, ...] = ()
    quality: tuple[str, ...] = ()


# ------------------------------------------------------------------------ ndt.topology (key: network)


class Neighbour(Part, frozen=True, kw_only=True):
    """One adjacency as a device reports it (LLDP-MIB lldpRemTable)."""

    local_interface: str
    remote_device: str  # lldpRemSysName
    remote_interface: str  # lldpRemPortId
    protocol: Literal["lldp", "ospf", "static"] = "lldp"


class InterfaceAddress(Part, frozen=True, kw_only=True):
    """An address with its prefix on an interface."""

    interface: str
    address: str
    prefix: str  # CIDR


class Route(Part, frozen=True, kw_only=True):
    """One row of inetCidrRouteTable (RFC 4292) that forwards: equal prefixes with several hops are ECMP."""

    prefix: str  # CIDR
    next_hop: str = ""  # empty: directly attached
    interface: str = ""
    metric: int = 0
    local: bool = False  # the prefix ends at this device


class DeviceTopology(Record, frozen=True, kw_only=True):
    """Everything one device says about its place in the network; replaces what it said before."""

    network: str
    device: str
    observed_at_ns: int
    source: Literal["snmp", "netconf", "static"]
    neighbours: tuple[Neighbour, ...] = ()
    addresses: tuple[InterfaceAddress, ...] = ()
    routes: tuple[Route, ...] = ()
    quality: tuple[str, ...] = ()


class LinkAnnotation(Part, frozen=True, kw_only=True):
    """What no device tells: the facts about one directed link that the operator's inventory holds."""

    source: str
    target: str
    source_interface: str = ""  # empty: the only link between the two
    propagation_delay_s: float | None = None
    buffer_packets: int | None = None
    capacity_bps: float | None = None  # only where ifHighSpeed does not tell the shaped rate
    line_rate_bps: float | None = None  # at which bits leave, where that is more than the capacity


class LinkAnnotations(Record, frozen=True, kw_only=True):
    """The inventory's annotations of a network's links; replaces the previous set."""

    network: str
    observed_at_ns: int
    links: tuple[LinkAnnotation, ...] = ()


# -------------------------------------------------------------------------- ndt.flows (key: exporter)


class FlowCell(Part, frozen=True, kw_only=True):
    """Traffic that entered at the exporter within the bin, already scaled by sampling."""

    destination: str  # CIDR prefix, or the address of the egress router
    octets: float
    packets: float
    traffic_class: int = 0  # DSCP
    ingress_interface: int = 0


class FlowReport(Record, frozen=True, kw_only=True):
    """The flow aggregates of one exporter for one time bin."""

    network: str
    device: str
    start_ns: int
    end_ns: int
    cells: tuple[FlowCell, ...] = ()
    sampling_ratio: float = 1.0  # packets represented by one packet seen
    lost_records: int = 0  # from sequence gaps (RFC 7011 section 3.1)
    quality: tuple[str, ...] = ()


# --------------------------------------------------------------------------- ndt.delays (key: source)


class PathDelay(Part, frozen=True, kw_only=True):
    """Delay from the report's source to one destination over [start_ns, end_ns)."""

    destination: str  # device name, address or prefix; the stream resolves it
    start_ns: int
    end_ns: int
    count: int  # packets the figures rest on
    mean_s: float
    min_s: float | None = None
    max_s: float | None = None
    p50_s: float | None = None
    p95_s: float | None = None
    jitter_s: float | None = None
    sent: int | None = None
    lost: int | None = None
    packet_bits: float | None = None  # probe size; None: the traffic itself was measured
    clock_synchronised: bool | None = None  # None: not applicable (round trip) or not told
    error_s: float | None = None
    ipdv_s: float | None = None  # mean |D(i+1) − D(i)| of packets next to each other (RFC 3393)
    lost_forward: int | None = None  # of a two-way probe: towards the far end, and on the way back
    lost_backward: int | None = None
    traffic_class: int = 0  # DSCP
    flows: int = 1  # that the packets belong to: equal-cost paths are told apart by flow
    quality: tuple[str, ...] = ()  # "clock-step", "probe-gap", "sender-held-up", "reflector-reset", …


class DelayReport(Record, frozen=True, kw_only=True):
    """What one device measured about its paths, by one method.

    ``reporter``: who measured it, where that is not the device itself: the far end of a two-way probe tells
    of the way back too, whose source is ``device``.
    """

    network: str
    device: str
    observed_at_ns: int
    method: DelayMethod
    direction: Direction
    delays: tuple[PathDelay, ...] = ()
    quality: tuple[str, ...] = ()
    reporter: str = ""


# --------------------------------------------------------------------------- ndt.events (key: device)


class NetworkEvent(Record, frozen=True, kw_only=True):
    """Something happened at a device: link up or down, reboot, configuration change, device silent."""

    network: str
    device: str
    observed_at_ns: int
    kind: str  # "link-down", "link-up", "cold-start", "device-silent", "device-back", "sequence-gap", …
    interface: str = ""
    detail: str = ""


# ------------------------------------------------------------------------ ndt.health (key: component)


class Heartbeat(Record, frozen=True, kw_only=True):
    """A component of ndtwin itself says how it is. Never read by processors: health is not network state."""

    component: str
    observed_at_ns: int
    state: ComponentState
    pid: int = 0
    detail: str = ""
    metrics: dict[str, float] = {}


# --------------------------------------------------------------------------- ndt.state (key: network)


class LinkRecord(Part, frozen=True, kw_only=True):
    """A directed link of a keyframe; its index in the tuple is its index in every packed link array."""

    source: str
    source_interface: str
    target: str
    target_interface: str
    capacity_bps: float
    propagation_delay_s: float
    buffer_packets: int
    up: bool = True
    line_rate_bps: float | None = None  # None: the capacity; more: the link is shaped


class TopologyRecord(Part, frozen=True, kw_only=True):
    """Nodes (sorted), links and routing: what a keyframe carries and a delta refers to."""

    nodes: tuple[str, ...]
    links: tuple[LinkRecord, ...]
    next_link: bytes  # int16[N, N] packed: link index leaving node i towards node j, −1 none
    equal_links: bytes = b""  # int16[E, 3] packed: node i, node j, a further link as good as next_link's


class DelayPlane(Part, frozen=True, kw_only=True):
    """Measured mean delays of all paths by one method in one window; zero count = not measured."""

    method: DelayMethod
    direction: Direction
    mean_s: bytes  # [P]
    count: bytes  # [P]
    packet_bits: float | None = None  # probe size; None: the traffic itself


class QueuePlane(Part, frozen=True, kw_only=True):
    """The class queues of the links whose sending devices tell of them in one window, as columns."""

    classes: tuple[str, ...]  # names on the devices, sorted
    link: bytes  # int16[Q] packed: index of the link, ascending
    name: bytes  # int16[Q] packed: index into ``classes``
    sent_bps: bytes  # [Q]
    drops_pps: bytes  # [Q]
    depth_octets: bytes  # [Q] at the newest poll; 0 also where it is not told


class StateUpdate(Record, frozen=True, kw_only=True):
    """The network's state at the end of one window.

    ``version`` = window_end_ns // window length, so that it is the same live and replayed. ``topology`` is
    present in a keyframe and absent in a delta, which then refers to ``topology_version``.
    """

    network: str
    version: int
    window_start_ns: int
    window_end_ns: int
    keyframe: bool
    topology_version: int  # the version at which the topology last changed
    topology: TopologyRecord | None = None
    link_load_bps: bytes = b""  # [L] measured on the source interface
    link_load_pps: bytes = b""  # [L]
    link_drops_pps: bytes = b""  # [L] of the interface, or of its class queues where they tell more
    link_measured: bytes = b""  # [L] 1 where the counters covered the window
    traffic_bps: bytes = b""  # [P]
    traffic_pps: bytes = b""  # [P]
    delays: tuple[DelayPlane, ...] = ()
    offsets: dict[str, int] = {}  # "topic/partition" → next offset: what this state has seen
    quality: tuple[str, ...] = ()  # "silent:NODE", "flows-missing:NODE", "flows-lost:NODE", "late:N", …
    queues: QueuePlane | None = None  # None = no device tells of its queues


# --------------------------------------------------------------------- ndt.predictions (key: network)


class Prediction(Record, frozen=True, kw_only=True):
    """What the twin expects of every path in the window of one state version.

    The interval is symmetric on the log scale: low = mean·exp(−w), high = mean·exp(+w). Where the twin is
    calibrated, the figures are ``corrected`` by what earlier windows taught, once that has proved better than
    the model; ``calibration`` is what is known after this window (:mod:`twin.calibration`): all that the next
    window's correction rests on.
    """

    network: str
    state_version: int
    topology_version: int
    window_start_ns: int
    window_end_ns: int
    model: str
    model_version: str
    mean_s: bytes  # [P] one-way delay of the traffic's packets; 0 = no route
    log_width: bytes  # [P]
    jitter_s: bytes  # [P] standard deviation of the delay
    loss: bytes  # [P] ratio
    link_utilisation: bytes = b""  # [L] as the model sees it from the traffic matrix
    coverage: float = 0.9
    out_of_range: tuple[str, ...] = ()  # why this state lies outside what the model has seen
    calibration: bytes = b""  # empty = the model alone
    windows_learnt: int = 0  # earlier windows that taught the calibration
    corrected: bool = False  # these figures are; else they are the model's own


# ------------------------------------------------------------------------- ndt.alerts (key: fingerprint)


class Suspect(Part, frozen=True, kw_only=True):
    """One hypothesis of what is wrong, ranked."""

    kind: Literal["link", "node", "path", "device", "probe"]
    target: str  # "WA->CA1", "WA", …
    hypothesis: str  # "extra-delay", "capacity-lost", "hidden-traffic", "wrong-route", "slow-node", …
    probability: float
    evidence: str = ""


class Alert(Record, frozen=True, kw_only=True):
    """One alert at one point of its life. The newest record of a fingerprint is the alert."""

    network: str
    fingerprint: str
    state: AlertState
    kind: str  # "delay-divergence", "load-divergence", "telemetry-stale", "link-down", …
    severity: Literal["info", "warning", "critical"]
    summary: str
    starts_at_ns: int
    updated_at_ns: int
    ends_at_ns: int | None = None
    first_version: int = 0  # the window that raised it
    last_version: int = 0  # the newest window it rests on
    suspects: tuple[Suspect, ...] = ()
    paths: tuple[str, ...] = ()  # "WA->NY", worst first
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


# --------------------------------------------------------------------- ndt.deadletter (key: source topic)


class DeadLetter(Record, frozen=True, kw_only=True):
    """What could not be decoded, with its bytes, its position and the reason."""

    source: str  # topic, or "udp:HOST:PORT" for a datagram
    payload: bytes
    reason: str
    observed_at_ns: int
    partition: int = -1
    offset: int = -1
    key: bytes | None = None


INPUT_RECORDS = (DeviceSample, DeviceTopology, LinkAnnotations, FlowReport, DelayReport, NetworkEvent)
AnyRecord = (
    DeviceSample
    | DeviceTopology
    | LinkAnnotations
    | FlowReport
    | DelayReport
    | NetworkEvent
    | Heartbeat
    | StateUpdate
    | Prediction
    | Alert
    | DeadLetter
)
