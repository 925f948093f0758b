"""One network inside the pipeline: what its open windows hold, and how a window is closed.

Everything that came in waits, by its digest, until the window that needs it closes; then it is taken in the
order of digests. So the state after a window is a function of the set of records that were in time.

Closing the window [S, E), step by step:

1. apply what changed before E: topology, annotations, link events, in order of time;
2. note the newest status of every interface and every sign of life before E;
3. expire silent devices and bring the topology up to date;
4. rates of the interfaces, by each device's preferred protocol;
5. the traffic matrix and the measured delays, on the nodes of this topology;
6. the StateUpdate, unless no node is known yet;
7. forget what no later window needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from stream.dedupe import Deduper, DeduperSnapshot, digest_of
from stream.measure import delays_of, traffic_of
from stream.rates import OF_INTERVALS, CounterSeries, RateRules
from stream.resolve import Resolver
from stream.windows import Verdict, WindowRules, Windows, WindowsSnapshot
from twin.graph import GraphSnapshot, GraphState, InterfaceRates, InterfaceStatus, Measurements
from twin.records import (
    DelayReport,
    DeviceSample,
    DeviceTopology,
    FlowReport,
    LinkAnnotations,
    NetworkEvent,
    StateUpdate,
)

Change = DeviceTopology | LinkAnnotations | NetworkEvent
Input = DeviceSample | FlowReport | DelayReport | Change
Report = TypeVar("Report", FlowReport, DelayReport)
# A poll tells all that was measured until it was made. A bin is told some time after its end, and again when
# more is known of it: so the event time of its report is the bin's end.
_BINNED_METHODS = frozenset({"ipfix-on-path"})
LINK_EVENTS = {"link-up": True, "link-down": False}
SILENCE_EVENTS = {"device-silent": True, "device-back": False}


@dataclass(frozen=True)
class NetworkRules:
    """The pipeline's settings in the units of the windows."""

    windows: WindowRules
    rates: RateRules
    prefer_snmp_ns: int
    dedupe_ns: int
    expire_ns: int
    keyframe_every: int


class NetworkSnapshot(msgspec.Struct, array_like=True):
    """All state of one network; records in canonical order."""

    windows: WindowsSnapshot
    dedupe: DeduperSnapshot
    graph: GraphSnapshot
    samples: list[DeviceSample]
    flows: list[FlowReport]
    delays: list[DelayReport]
    changes: list[Change]
    silenced_ns: dict[str, int]
    probers: dict[str, int]
    late: int
    complaints: dict[str, tuple[int, tuple[str, ...]]] = {}


class NetworkWindows:
    """The open windows and the graph of one network."""

    def __init__(self, name: str, rules: NetworkRules) -> None:
        self._rules = rules
        self._windows = Windows(rules.windows)
        self._dedupe = Deduper(rules.windows.length_ns, rules.dedupe_ns)
        self.graph = GraphState(name, expire_after_ns=rules.expire_ns, keyframe_every=rules.keyframe_every)
        self._series: dict[tuple[str, str], CounterSeries] = {}  # (device, protocol)
        self._flows: dict[bytes, FlowReport] = {}
        self._delays: dict[bytes, DelayReport] = {}
        self._changes: dict[bytes, Change] = {}
        self._silenced_ns: dict[str, int] = {}  # device → when a collector said that it is silent
        self._probers: dict[str, int] = {}  # device that measures delays → end of its newest measurement
        self._late = 0  # since the last StateUpdate
        # device → (when, what) its newest topology complains of: it holds until there is a newer one
        self._complaints: dict[str, tuple[int, tuple[str, ...]]] = {}

    # ------------------------------------------------------------------ records in

    def take(self, record: Input, now_ns: int) -> Verdict:
        """Take a record in; duplicates are accepted and change nothing."""
        source, event_ns, last_ns = _extent(record)
        verdict = self._windows.admit(last_ns, max(event_ns, _reach(record)), now_ns)
        if verdict is Verdict.FUTURE:
            return verdict
        digest = digest_of(record)
        if self._dedupe.seen_before(digest, event_ns):
            return Verdict.ACCEPTED
        if not source:
            self._changes[digest] = record  # type: ignore[assignment]  # only changes have no source
            return Verdict.ACCEPTED
        if verdict is Verdict.LATE:
            self._late += 1
            return verdict
        waited_for = not (isinstance(record, DeviceSample) and record.source == "netconf")
        self._windows.observe(source, event_ns, last_ns, now_ns, waited_for=waited_for)
        self._keep(record, digest)
        return verdict

    def _keep(self, record: Input, digest: bytes) -> None:
        match record:
            case DeviceSample():
                self._series.setdefault((record.device, record.source), CounterSeries()).add(record, digest)
            case FlowReport():
                self._flows[digest] = record
            case DelayReport():
                self._delays[digest] = record
            case _:
                self._changes[digest] = record

    # ------------------------------------------------------------------ windows out

    def close_due(self, now_ns: int) -> Iterator[StateUpdate]:
        """Close every window that may close now."""
        while (end_ns := self._windows.due(now_ns)) is not None:
            update = self._close(end_ns)
            self._windows.close(end_ns)
            if update is not None:
                self._late = 0
                yield update

    def _close(self, end_ns: int) -> StateUpdate | None:
        """Steps 1 to 7 of the module's docstring."""
        length_ns = self._rules.windows.length_ns
        start_ns, version = end_ns - length_ns, end_ns // length_ns
        quality = self._apply_changes(start_ns, end_ns)  # 1
        self._note_status(end_ns)  # 2
        self.graph.expire(end_ns)  # 3
        self.graph.refresh(version)
        interfaces, flaws = self._rates(start_ns, end_ns)  # 4
        resolver = Resolver(self.graph)
        window = (start_ns, end_ns)  # 5
        flows, reports = self._ripe(self._flows, end_ns), self._ripe(self._delays, end_ns)
        traffic, flow_flags = traffic_of(flows, window, self.graph, resolver, self._rules.rates.min_coverage)
        delays = delays_of(reports, window, resolver)
        quality |= flaws | flow_flags | delays.flags | self._probes_missing(delays.probers, end_ns)
        if self._late:
            quality.add(f"late:{self._late}")
        if self._windows.warming_up:
            quality.add("warming-up")
        measured = Measurements(interfaces, traffic, delays.planes, frozenset(quality))
        update = self.graph.close(version, start_ns, end_ns, measured) if self.graph.nodes else None  # 6
        self._forget(end_ns)  # 7
        return update

    def _apply_changes(self, start_ns: int, end_ns: int) -> set[str]:
        """Step 1. Flags: events besides those of links and silence, and what the newest reports say."""
        flags = set()
        ripe = sorted(
            (c.observed_at_ns, digest) for digest, c in self._changes.items() if c.observed_at_ns < end_ns
        )
        for at_ns, digest in ripe:
            change = self._changes.pop(digest)
            if isinstance(change, LinkAnnotations):
                self.graph.apply(change)
            elif isinstance(change, DeviceTopology):
                self.graph.apply(change)
                if at_ns >= self._complaints.get(change.device, (0, ()))[0]:
                    self._complaints[change.device] = (at_ns, change.quality)
            elif change.kind in LINK_EVENTS:
                status = InterfaceStatus(at_ns, up=LINK_EVENTS[change.kind])
                self.graph.set_interface(change.device, change.interface, status)
            elif change.kind in SILENCE_EVENTS:
                self._note_silence(change)
            elif at_ns >= start_ns:
                flags.add(f"{change.kind}:{change.device}")
        return flags | {f"{flag}:{device}" for device, (_, said) in self._complaints.items() for flag in said}

    def _ripe(self, reports: Mapping[bytes, Report], end_ns: int) -> list[Report]:
        """The reports that count for a window, in canonical order."""
        ripe = []
        for _, report in sorted(reports.items()):
            source, at_ns, _ = _extent(report)
            if at_ns <= self._windows.cutoff(source, end_ns):
                ripe.append(report)
        return ripe

    def _note_silence(self, event: NetworkEvent) -> None:
        if SILENCE_EVENTS[event.kind]:
            self._silenced_ns[event.device] = event.observed_at_ns
        else:
            self._silenced_ns.pop(event.device, None)

    def _note_status(self, end_ns: int) -> None:
        """Step 2."""
        for (device, _), series in sorted(self._series.items()):
            for sample in series.before(end_ns)[-1:]:
                self.graph.heard(device, sample.observed_at_ns)
                for one in sample.interfaces:
                    up = one.admin_up and one.oper_up
                    status = InterfaceStatus(sample.observed_at_ns, up, one.speed_bps, one.if_index)
                    self.graph.set_interface(device, one.name, status)

    def _rates(self, start_ns: int, end_ns: int) -> tuple[dict[tuple[str, str], InterfaceRates], set[str]]:
        """Step 4, and which devices are silent or say that something is wrong with their samples."""
        rates: dict[tuple[str, str], InterfaceRates] = {}
        flags: set[str] = set()
        for device in sorted({device for device, _ in self._series}):
            protocol = self._preferred(device, end_ns)
            series = self._series[device, protocol]
            cutoff_ns = self._windows.cutoff(f"samples/{protocol}/{device}", end_ns)
            mine, flaws = series.rates(start_ns, end_ns, self._rules.rates, cutoff_ns)
            rates |= {(device, name): one for name, one in mine.items()}
            flags |= flaws | self._silence(device, protocol, end_ns)
            inside = [sample for sample in series.before(end_ns) if sample.observed_at_ns >= start_ns]
            said = {flag for sample in inside for flag in sample.quality}
            flags |= {f"{flag}:{device}" for flag in said - OF_INTERVALS}
        return rates, flags

    def _newest_ns(self, device: str, protocol: str, end_ns: int) -> int:
        series = self._series.get((device, protocol))
        earlier = series.before(end_ns) if series is not None else []
        return earlier[-1].observed_at_ns if earlier else 0

    def _preferred(self, device: str, end_ns: int) -> str:
        """SNMP, if it was heard lately or is all there is; else NETCONF, which is polled more slowly."""
        if (device, "netconf") not in self._series:
            return "snmp"
        recent = end_ns - self._newest_ns(device, "snmp", end_ns) <= self._rules.prefer_snmp_ns
        return "snmp" if recent else "netconf"

    def _silence(self, device: str, protocol: str, end_ns: int) -> set[str]:
        """``silent:DEV``: a collector said so, or its preferred protocol was not heard for too long."""
        patience_ns = self._rules.windows.idle_ns if protocol == "snmp" else self._rules.prefer_snmp_ns
        newest_ns = self._newest_ns(device, protocol, end_ns)
        told_silent = self._silenced_ns.get(device, 0) > newest_ns
        return {f"silent:{device}"} if told_silent or newest_ns < end_ns - patience_ns else set()

    def _probes_missing(self, measured_until_ns: Mapping[str, int], end_ns: int) -> set[str]:
        """``delays-missing:DEV``: it measured delays before, but nothing for the idle time-out."""
        nodes = set(self.graph.nodes)  # a prefix whose owner is not known yet is nobody's probe
        for device, until_ns in measured_until_ns.items():
            if device not in nodes:
                continue
            self._probers[device] = max(until_ns, self._probers.get(device, 0))
            self.graph.heard(device, min(until_ns, end_ns))
        oldest_ns = end_ns - self._rules.windows.idle_ns
        return {
            f"delays-missing:{device}" for device, until_ns in self._probers.items() if until_ns < oldest_ns
        }

    def _forget(self, end_ns: int) -> None:
        """Step 7."""
        self._dedupe.forget_before(end_ns)
        gone_ns = end_ns - self._rules.expire_ns
        for key, series in list(self._series.items()):
            series.prune(end_ns, self._rules.rates.max_interval_ns)
            if all(sample.observed_at_ns < gone_ns for sample in series.samples):
                del self._series[key]
        self._flows = {digest: r for digest, r in self._flows.items() if r.end_ns > end_ns}
        self._delays = {digest: r for digest, r in self._delays.items() if _reach(r) > end_ns}
        self._probers = {device: at_ns for device, at_ns in self._probers.items() if at_ns >= gone_ns}
        self._silenced_ns = {device: at_ns for device, at_ns in self._silenced_ns.items() if at_ns >= gone_ns}
        self._complaints = {device: one for device, one in self._complaints.items() if one[0] >= gone_ns}

    # ------------------------------------------------------------------ to bytes and back

    def snapshot(self) -> NetworkSnapshot:
        """All state, canonical."""
        return NetworkSnapshot(
            windows=self._windows.snapshot(),
            dedupe=self._dedupe.snapshot(),
            graph=self.graph.snapshot(),
            samples=[sample for _, series in sorted(self._series.items()) for sample in series.samples],
            flows=[self._flows[digest] for digest in sorted(self._flows)],
            delays=[self._delays[digest] for digest in sorted(self._delays)],
            changes=[self._changes[digest] for digest in sorted(self._changes)],
            silenced_ns=dict(sorted(self._silenced_ns.items())),
            probers=dict(sorted(self._probers.items())),
            late=self._late,
            complaints=dict(sorted(self._complaints.items())),
        )

    def restore(self, snapshot: NetworkSnapshot) -> None:
        """Become what :meth:`snapshot` described. The network must be new."""
        self._windows = Windows(self._rules.windows, snapshot.windows)
        self._dedupe.restore(snapshot.dedupe)
        self.graph.restore(snapshot.graph)
        records: list[Input] = [*snapshot.samples, *snapshot.flows, *snapshot.delays, *snapshot.changes]
        for record in records:
            self._keep(record, digest_of(record))
        self._silenced_ns = dict(snapshot.silenced_ns)
        self._probers = dict(snapshot.probers)
        self._late = snapshot.late
        self._complaints = dict(snapshot.complaints)


def _extent(record: Input) -> tuple[str, int, int]:
    """(source, event time, last instant) of a record; changes have no source: nobody waits for them."""
    match record:
        case DeviceSample():
            return f"samples/{record.source}/{record.device}", record.observed_at_ns, record.observed_at_ns
        case FlowReport():
            return f"flows/{record.device}", record.end_ns, max(record.start_ns, record.end_ns - 1)
        case DelayReport():
            read_at_ns = record.observed_at_ns
            binned = record.method in _BINNED_METHODS and record.delays
            return (
                f"delays/{record.method}/{record.reporter or record.device}",
                _reach(record) if binned else read_at_ns,
                read_at_ns - 1,
            )
        case _:
            return "", record.observed_at_ns, record.observed_at_ns


def _reach(record: Input) -> int:
    """The end of the newest measurement of a delay report; 0 for what is none."""
    return max((part.end_ns for part in record.delays), default=0) if isinstance(record, DelayReport) else 0
