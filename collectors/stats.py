"""What the collectors did so far, as numbers for the heartbeat."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class CollectorStats:
    """Counters since the start, and the newest duration of every target."""

    polls: int = 0
    timeouts: int = 0
    errors: int = 0
    silent: set[str] = field(default_factory=set)  # targets that do not answer now
    datagrams: int = 0
    unknown_datagrams: int = 0  # from addresses that are not in the inventory
    undecoded_datagrams: int = 0
    flow_records: int = 0
    lost_flow_records: int = 0
    records: int = 0  # emitted
    last_duration_s: dict[str, float] = field(default_factory=dict)  # "DEVICE/PROTOCOL" → seconds

    def metrics(self) -> dict[str, float]:
        """For Heartbeat.metrics: totals, and of the targets the slowest ones by name."""
        slowest = sorted(self.last_duration_s.items(), key=lambda item: -item[1])[:5]
        return {
            "polls": self.polls,
            "timeouts": self.timeouts,
            "errors": self.errors,
            "silent_targets": len(self.silent),
            "datagrams": self.datagrams,
            "unknown_datagrams": self.unknown_datagrams,
            "undecoded_datagrams": self.undecoded_datagrams,
            "flow_records": self.flow_records,
            "lost_flow_records": self.lost_flow_records,
            "records": self.records,
            **{f"poll_duration_s/{target}": seconds for target, seconds in slowest},
        }
