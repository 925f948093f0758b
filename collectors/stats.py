"""What the collectors did so far, as numbers for the heartbeat."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from collectors.snmp.engine import Traffic
from collectors.stamp.counts import ProbeStats

_NAMED = 5  # targets told by name: the slowest, those that failed most


@dataclass
class TargetStats:
    """One target's polls: who is slow, and who is to be asked why."""

    polls: int = 0
    failures: int = 0  # timed out, refused, or not got round to
    last_s: float = 0.0
    worst_s: float = 0.0
    total_s: float = 0.0

    def took(self, seconds: float, *, failed: bool) -> None:
        """A poll has ended."""
        self.polls += 1
        self.failures += failed
        self.last_s = seconds
        self.worst_s = max(self.worst_s, seconds)
        self.total_s += seconds

    @property
    def mean_s(self) -> float:
        """Over all polls."""
        return self.total_s / max(self.polls, 1)


@dataclass
class CollectorStats:
    """Counters since the start, and the times of every target."""

    polls: int = 0
    timeouts: int = 0
    errors: int = 0
    overruns: int = 0  # polls that the collector did not get round to
    late: set[str] = field(default_factory=set)  # targets that it has not got round to now
    silent: set[str] = field(default_factory=set)  # targets that do not answer now
    mistaken: dict[str, str] = field(default_factory=dict)  # targets that others answer for → what to do
    datagrams: int = 0
    unknown_datagrams: int = 0  # from addresses that are not in the inventory
    undecoded_datagrams: int = 0
    flow_records: int = 0
    lost_flow_records: int = 0
    egress_flow_records: int = 0  # not counted as traffic: their flowDirection says that they leave
    unread_flow_sets: int = 0  # their templates did not come in time
    traps: int = 0  # traps and informs that came in
    unknown_traps: int = 0  # from addresses of no device
    refused_traps: int = 0  # wrong community, user or key, replayed, or no notification
    dropped_traps: int = 0  # beyond a device's allowance
    records: int = 0  # emitted
    snmp: Traffic = field(default_factory=Traffic)
    probes: ProbeStats = field(default_factory=ProbeStats)
    targets: dict[str, TargetStats] = field(default_factory=lambda: defaultdict(TargetStats))

    def metrics(self) -> dict[str, float]:
        """For Heartbeat.metrics: totals, and some targets by name, "DEVICE/PROTOCOL"."""
        slowest = sorted(self.targets.items(), key=lambda item: -item[1].last_s)[:_NAMED]
        failing = sorted(self.targets.items(), key=lambda item: -item[1].failures)[:_NAMED]
        return {
            "polls": self.polls,
            "timeouts": self.timeouts,
            "errors": self.errors,
            "overruns": self.overruns,
            "late_targets": len(self.late),
            "silent_targets": len(self.silent),
            "wrong_devices": len(set(self.mistaken.values())),
            "datagrams": self.datagrams,
            "unknown_datagrams": self.unknown_datagrams,
            "undecoded_datagrams": self.undecoded_datagrams,
            "flow_records": self.flow_records,
            "lost_flow_records": self.lost_flow_records,
            "egress_flow_records": self.egress_flow_records,
            "unread_flow_sets": self.unread_flow_sets,
            "traps": self.traps,
            "unknown_traps": self.unknown_traps,
            "refused_traps": self.refused_traps,
            "dropped_traps": self.dropped_traps,
            "records": self.records,
            "snmp_requests": self.snmp.requests,
            "snmp_retries": self.snmp.retries,
            "snmp_varbinds": self.snmp.varbinds,
            "snmp_ignored_answers": self.snmp.ignored,
            "snmp_malformed_answers": self.snmp.malformed,
            "snmp_forged_answers": self.snmp.forged,
            **self.probes.metrics(),
            **{f"poll_duration_s/{name}": target.last_s for name, target in slowest},
            **{f"poll_worst_s/{name}": target.worst_s for name, target in slowest},
            **{f"failed_polls/{name}": float(target.failures) for name, target in failing if target.failures},
        }
