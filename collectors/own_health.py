"""How the collector itself is: silent targets, and such as another device answers for; and what it lately
failed to do in time.

Counters only grow; what counts is whether one of these grew *lately*. A collector that cannot keep up spoils
measurements quietly (polls late, probes unsent, datagrams that the kernel dropped), so it says so itself, in
its heartbeat: ``degraded``, with the reason. It is the collector's own trouble; the network is not blamed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from collectors.stats import CollectorStats
from twin.records import ComponentState

LATELY_S = 30.0
_NAMED = 5  # silent targets told by name
# metric → what its growth means
TROUBLES = {
    "overruns": "polls not got round to",
    "probes_skipped": "probes not sent in time",
    "lost_flow_records": "flow records lost on the way here",
}


@dataclass
class OwnHealth:
    """Compares the metrics of one look with those of the look before."""

    _before: Mapping[str, float] = field(default_factory=dict)
    _grew_at_s: dict[str, float] = field(default_factory=dict)

    def look(self, stats: CollectorStats, now_s: float) -> tuple[ComponentState, str, dict[str, float]]:
        """(state, detail, metrics) for the heartbeat; time is on any steady clock."""
        metrics = stats.metrics()
        for name in TROUBLES:
            if metrics.get(name, 0) > self._before.get(name, 0):
                self._grew_at_s[name] = now_s
        self._before = metrics
        lately = [TROUBLES[name] for name, at_s in self._grew_at_s.items() if now_s - at_s < LATELY_S]
        silent = sorted(stats.silent)
        if silent:
            lately.insert(0, f"silent: {', '.join(silent[:_NAMED])}" + (" …" if len(silent) > _NAMED else ""))
        if mistaken := sorted(set(stats.mistaken.values())):
            more = f" (and {len(mistaken) - 1} more)" if len(mistaken) > 1 else ""
            lately.insert(0, f"another device answers: {mistaken[0]}{more}")
        return ("degraded" if lately else "running"), "; ".join(lately), metrics
