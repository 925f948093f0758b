"""Flow and delay reports of one window → the traffic matrix and the measured delays over canonical paths.

Theory
------
*Traffic.* A cell is traffic that entered at its exporter; it leaves at the node that owns the longest
prefix around its destination. What came in on an interface that leads to another node was counted where it
entered the network, so it is left out. A bin gives each window the share of its overlap, and an exporter's
rates are what its bins gave divided by the time they covered. Two different reports of one exporter for one
bin add up.

*Delays.* A measurement belongs wholly to the window in which it ended. Measurements of one path by one
method are merged, weighted by the packets they rest on. The same measurement read twice counts once, as
last read. One-way delays by clocks known not to be synchronised are left out and flagged, and so are
negative ones. A result read again after its window has closed is no news and is left out; so a device must
be read at least once a window.

*Probes that nobody answers* say nothing about delay, and much about the node: who gets no answer from
anybody (of two targets or more), and who answers none of the others' probes, is flagged.

*Classes.* The twin predicts best effort: probes of other classes (DSCP other than 0) are records, archived
and replayed, but not in the planes.

Every function takes its reports in canonical order, so that sums are bitwise reproducible.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stream.resolve import Resolver
from twin.graph import DelayMeasurement, GraphState
from twin.network import Traffic
from twin.records import DelayMethod, DelayReport, Direction, FlowReport, PathDelay

Flags = set[str]
Window = tuple[int, int]  # [start, end) nanoseconds


def overlap_share(start_ns: int, end_ns: int, window: Window) -> float:
    """Which part of an interval lies in a window; an instant lies in one window wholly."""
    if end_ns <= start_ns:
        return float(window[0] <= start_ns < window[1])
    return max(0, min(end_ns, window[1]) - max(start_ns, window[0])) / (end_ns - start_ns)


def covered_ns(intervals: Iterable[Window], window: Window) -> int:
    """How much of a window the union of intervals covers."""
    total, reached = 0, window[0]
    for start_ns, end_ns in sorted(intervals):
        upto = min(end_ns, window[1])
        total += max(0, upto - max(start_ns, reached))
        reached = max(reached, upto)
    return total


# ------------------------------------------------------------------------------------------- traffic


def traffic_of(
    reports: Iterable[FlowReport], window: Window, graph: GraphState, resolver: Resolver, min_coverage: float
) -> tuple[Traffic, Flags]:
    """The traffic matrix of one window, and what is missing from it."""
    flags: Flags = set()
    by_exporter: dict[str, list[FlowReport]] = {}
    for report in reports:
        if overlap_share(report.start_ns, report.end_ns, window) > 0:
            by_exporter.setdefault(report.device, []).append(report)
    rates = np.zeros((2, resolver.path_count))
    covered: set[int] = set()
    unresolved = 0
    for device in sorted(by_exporter):
        mine = by_exporter[device]
        share = covered_ns(((r.start_ns, r.end_ns) for r in mine), window) / (window[1] - window[0])
        if share >= min_coverage:
            covered.add(resolver.node(device))
        seconds = (window[1] - window[0]) * 1e-9 * (share if share >= min_coverage else 1.0)
        unresolved += _add_flows(
            mine,
            window,
            resolver,
            inner_interfaces=graph.inner_if_indices(device),
            per_second=1 / seconds,
            rates=rates,
        )
        flags |= _report_flags(mine)
    flags |= {f"flows-missing:{node}" for i, node in enumerate(graph.nodes) if i not in covered}
    if unresolved:
        flags.add(f"flows-unresolved:{unresolved}")
    return Traffic(bps=8 * rates[0], pps=rates[1]), flags


def _add_flows(
    reports: list[FlowReport],
    window: Window,
    resolver: Resolver,
    *,
    inner_interfaces: frozenset[int],
    per_second: float,
    rates: NDArray[np.float64],  # [2, P] octets/s and packets/s, added to
) -> int:
    """Add one exporter's flows; how many cells belong to no node."""
    ingress = resolver.node(reports[0].device)
    unresolved = 0
    for report in reports:
        weight = overlap_share(report.start_ns, report.end_ns, window) * per_second
        for cell in report.cells:
            egress = resolver.node(cell.destination)
            if cell.ingress_interface in inner_interfaces or ingress == egress:
                continue
            if min(ingress, egress) < 0:
                unresolved += 1
            else:
                path = resolver.path(ingress, egress)
                rates[0, path] += cell.octets * weight
                rates[1, path] += cell.packets * weight
    return unresolved


def _report_flags(reports: list[FlowReport]) -> Flags:
    flags = {f"flows-lost:{report.device}" for report in reports if report.lost_records > 0}
    return flags | {
        f"{flag}:{report.device}" for report in reports for flag in report.quality if not _numbers(flag)
    }


def _numbers(flag: str) -> bool:
    """``supplement`` and ``supplement-2`` only number the reports of one bin: nothing is wrong with them."""
    return flag.startswith("supplement")


# -------------------------------------------------------------------------------------------- delays


@dataclass
class _Sums:
    """What one (method, direction) gave so far."""

    weight: list[float]  # [P]
    weighted_s: list[float]  # [P]
    bits_weight: float = 0.0
    bits: float = 0.0

    @classmethod
    def of(cls, paths: int) -> _Sums:
        """Nothing yet."""
        return cls([0.0] * paths, [0.0] * paths)

    def add(self, part: PathDelay, path: int) -> None:
        """Add one measurement of a path."""
        self.weight[path] += part.count
        self.weighted_s[path] += part.count * part.mean_s
        if part.packet_bits is not None:
            self.bits_weight += part.count
            self.bits += part.count * part.packet_bits

    def measurement(self, method: DelayMethod, direction: Direction) -> DelayMeasurement:
        """The weighted means."""
        weight, weighted_s = np.array(self.weight), np.array(self.weighted_s)
        return DelayMeasurement(
            method=method,
            direction=direction,
            mean_s=np.divide(weighted_s, weight, out=np.zeros_like(weight), where=weight > 0),
            count=weight,
            packet_bits=round(self.bits / self.bits_weight, 3) if self.bits_weight else None,
        )


@dataclass
class MergedDelays:
    """All delays of one window."""

    planes: tuple[DelayMeasurement, ...] = ()
    flags: Flags = field(default_factory=set)
    probers: dict[str, int] = field(
        default_factory=dict
    )  # "DEVICE" that measured → end of its newest measurement


@dataclass
class _Asked:
    """Who probed whom, and whether anything came back."""

    pairs: dict[tuple[str, str], bool] = field(default_factory=dict)

    def note(self, source: str, target: str, *, answered: bool) -> None:
        """One measurement of one path."""
        self.pairs[source, target] = answered or self.pairs.get((source, target), False)

    def unanswered(self) -> set[str]:
        """Sources that nobody answers, and targets that answer nobody else."""
        targets: dict[str, list[bool]] = {}
        sources: dict[str, list[bool]] = {}
        for (source, _), answered in self.pairs.items():
            sources.setdefault(source, []).append(answered)
        mute = {source for source, answers in sources.items() if len(answers) > 1 and not any(answers)}
        for (source, target), answered in self.pairs.items():
            if source not in mute:
                targets.setdefault(target, []).append(answered)
        return mute | {target for target, answers in targets.items() if not any(answers)}


_Identity = tuple[str, str, str, str, str, int, int, int, float]
_BEST_EFFORT = 0
_Reading = tuple[int, PathDelay, DelayReport]


def delays_of(reports: list[DelayReport], window: Window, resolver: Resolver) -> MergedDelays:
    """Merge what was measured in one window."""
    merged = MergedDelays()
    for report in reports:
        device = resolver.name(report.reporter or report.device)
        merged.flags |= {
            f"{flag}:{device}" for flag in report.quality if window[0] < report.observed_at_ns <= window[1]
        }
        if not report.delays:  # it measured nothing, which is not the same as being silent
            merged.probers[device] = max(report.observed_at_ns, merged.probers.get(device, 0))
    sums: dict[tuple[DelayMethod, Direction], _Sums] = {}
    unresolved, asked = 0, _Asked()
    for _, (_, part, report) in sorted(_last_readings(reports, window).items(), key=lambda item: item[0]):
        source, target = resolver.node(report.device), resolver.node(part.destination)
        device, prober = resolver.name(report.device), resolver.name(report.reporter or report.device)
        merged.probers[prober] = max(part.end_ns, merged.probers.get(prober, 0))
        if not report.reporter and part.sent:
            asked.note(device, resolver.name(part.destination), answered=part.count > 0)
        if flaw := _flaw(part, report):
            merged.flags.add(f"{flaw}:{device}")
        elif part.traffic_class != _BEST_EFFORT:
            continue
        elif min(source, target) < 0:
            unresolved += 1
        elif part.count > 0 and source != target:
            key = (report.method, report.direction)
            if key not in sums:
                sums[key] = _Sums.of(resolver.path_count)
            sums[key].add(part, resolver.path(source, target))
    if unresolved:
        merged.flags.add(f"delays-unresolved:{unresolved}")
    merged.flags |= {f"probes-unanswered:{node}" for node in asked.unanswered()}
    merged.planes = tuple(sums[key].measurement(*key) for key in sorted(sums))
    return merged


def _last_readings(reports: Iterable[DelayReport], window: Window) -> dict[_Identity, _Reading]:
    """Every measurement that touches the window once, as it was last read."""
    readings: dict[_Identity, _Reading] = {}
    for report in reports:
        for part in report.delays:
            if window[0] < part.end_ns <= window[1]:
                size = part.packet_bits or 0.0
                identity = (
                    report.device,
                    report.reporter,
                    report.method,
                    report.direction,
                    part.destination,
                    part.start_ns,
                    part.end_ns,
                    part.traffic_class,
                    size,
                )
                known = readings.get(identity)
                if known is None or known[0] <= report.observed_at_ns:
                    readings[identity] = (report.observed_at_ns, part, report)
    return readings


def _flaw(part: PathDelay, report: DelayReport) -> str:
    if report.direction == "one-way" and part.clock_synchronised is False:
        return "clock-unsynchronised"
    if part.count > 0 and not (math.isfinite(part.mean_s) and part.mean_s >= 0):
        return "clock-unsynchronised"
    return ""
