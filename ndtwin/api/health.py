"""Which component of ndtwin is alive, as its heartbeats tell. The clock is an argument.

A component may have several workers; each process (pid) beats for itself. The component's state is the worst
of its live workers, or ``stale`` when the newest beat is older than :data:`STALE_AFTER_S`. A worker that was
replaced counts as one restart: the processes ever seen, less those alive now (at least one).
"""

from __future__ import annotations

from dataclasses import dataclass

from twin.records import Heartbeat

STALE_AFTER_S = 10.0
STALE = "stale"
EXPECTED = ("broker", "lab", "collect", "stream", "twin", "detect", "archive", "serve")
# Worst first: what an operator must see when workers of one component differ.
SEVERITY = ("stopped", "degraded", "starting", "running")


@dataclass(frozen=True)
class ComponentHealth:
    """One component as it is now."""

    name: str
    state: str  # "running", "starting", "degraded", "stopped" or "stale"
    since_ns: int  # of its first heartbeat
    seen_ns: int  # of its newest heartbeat
    workers: int
    restarts: int
    detail: str
    metrics: dict[str, float]


class HealthBoard:
    """Heartbeats by component and process."""

    def __init__(self) -> None:
        self._beats: dict[str, dict[int, Heartbeat]] = {}
        self._first_ns: dict[str, int] = {}

    def beat(self, heartbeat: Heartbeat) -> bool:
        """Take a heartbeat; True when the component's state, or who speaks for it, changed."""
        workers = self._beats.setdefault(heartbeat.component, {})
        self._first_ns.setdefault(heartbeat.component, heartbeat.observed_at_ns)
        before = workers.get(heartbeat.pid)
        if before is not None and before.observed_at_ns > heartbeat.observed_at_ns:
            return False
        workers[heartbeat.pid] = heartbeat
        return before is None or before.state != heartbeat.state

    def knows(self, component: str) -> bool:
        """Whether it was ever heard of."""
        return component in self._beats

    def components(self, now_ns: int) -> list[ComponentHealth]:
        """Every component heard of, those of a whole loop first and in the loop's order."""
        order = {name: i for i, name in enumerate(EXPECTED)}
        names = sorted(self._beats, key=lambda name: (order.get(name, len(order)), name))
        return [self._component(name, now_ns) for name in names]

    def restarts(self, now_ns: int) -> int:
        """Processes that were replaced, over all components."""
        return sum(component.restarts for component in self.components(now_ns))

    def _component(self, name: str, now_ns: int) -> ComponentHealth:
        beats = self._beats[name]
        newest = max(beats.values(), key=lambda beat: beat.observed_at_ns)
        live = [b for b in beats.values() if now_ns - b.observed_at_ns <= STALE_AFTER_S * 1e9]
        worst = min(live, key=lambda b: SEVERITY.index(b.state)) if live else newest
        stopped = newest.state == "stopped"
        return ComponentHealth(
            name=name,
            state=worst.state if live else (newest.state if stopped else STALE),
            since_ns=self._first_ns[name],
            seen_ns=newest.observed_at_ns,
            workers=len(live),
            restarts=len(beats) - max(1, len(live)),
            detail=worst.detail,
            metrics=dict(newest.metrics),
        )
