"""What the probes of this process did so far, as numbers for the heartbeat."""

from __future__ import annotations

from dataclasses import dataclass, field

_NAMED = 5  # probes told by name: those whose far clock is furthest from ours


@dataclass
class ProbeStats:
    """Counters since the start, over all probes."""

    sent: int = 0
    received: int = 0
    unsent: int = 0  # the kernel did not take them
    skipped: int = 0  # not sent, because we were late
    rejected: int = 0  # replies that were not to be believed
    clock_offset_s: dict[str, float] = field(default_factory=dict)  # probe → their clock − ours

    def metrics(self) -> dict[str, float]:
        """For Heartbeat.metrics; nothing where nothing was probed."""
        if not self.sent:
            return {}
        furthest = sorted(self.clock_offset_s.items(), key=lambda item: -abs(item[1]))[:_NAMED]
        return {
            "probes_sent": self.sent,
            "probes_received": self.received,
            "probes_unsent": self.unsent,
            "probes_skipped": self.skipped,
            "probe_replies_rejected": self.rejected,
            **{f"clock_offset_s/{name}": offset_s for name, offset_s in furthest},
        }
