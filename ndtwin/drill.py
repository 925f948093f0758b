"""A fire drill: inject a known fault into the lab, see if the twin tells, clear it, see if it calms down.

Steps: 1. the loop is whole and quiet for some windows; 2. the fault starts; 3. an alert fires, or patience
ends; 4. the fault is cleared; 5. the alert resolves, or patience ends; 6. report.

The window in which the fault starts counts as the first, however little of it was left. Every alert that
fires at any time of the drill, other than the one that names the fault, is a false alert.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from ndtwin.lab.fault_desk import check_magnitude, find_target, target_names
from ndtwin.lab.fault_records import FaultKind
from ndtwin.lab.settings import LabSettings
from ndtwin.loop import Loop
from twin.errors import PeerError
from twin.records import Alert
from twin.topologies import open_topology

DETECT_GOAL_WINDOWS = 3
RANK_GOAL = 2


@dataclass(frozen=True)
class Patience:
    """How many windows each step may take, and how many seconds more the start."""

    quiet: int = 8
    detect: int = 6
    resolve: int = 8
    startup_s: float = 120.0


@dataclass
class DrillReport:
    """What `ndtwin drill --json` prints."""

    fault: str
    target: str = ""
    detected: bool = False
    windows_to_detect: int | None = None
    rank_of_target: int | None = None
    resolved: bool = False
    windows_to_resolve: int | None = None
    false_alerts: int = 0
    suspects: list[str] = field(default_factory=list)
    other_alerts: list[str] = field(default_factory=list)  # what the false alerts said
    passed: bool = False

    def judge(self) -> None:
        """Passed = detected in time, the target ranked first or second, resolved, and nothing else said."""
        self.passed = (
            (self.windows_to_detect or 99) <= DETECT_GOAL_WINDOWS
            and (self.rank_of_target or 99) <= RANK_GOAL
            and self.resolved
            and self.false_alerts == 0
        )

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people, the verdict last."""

        def took(done: bool, windows: int | None) -> str:
            if not done or windows is None:
                return "yes" if done else "no"
            return f"in window {windows}" if windows > 0 else "at once"  # late records mend a window before

        rank = "not suspected" if self.rank_of_target is None else f"suspect number {self.rank_of_target}"
        table = {
            "fault": f"{self.fault} on {self.target}",
            "detected": took(self.detected, self.windows_to_detect),
            "target": rank,
            "suspects": ", ".join(self.suspects) or "none",
            "resolved": took(self.resolved, self.windows_to_resolve),
            "false alerts": "; ".join(self.other_alerts) or "none",
            "verdict": "passed" if self.passed else "failed",
        }
        return [f"{name:13} {value}" for name, value in table.items()]


@dataclass
class Drill:
    """One drill on a running loop."""

    loop: Loop
    say: Callable[[str], None]
    patience: Patience = Patience()
    fired: dict[str, Alert] = field(
        default_factory=dict
    )  # by fingerprint, as it was when it was first seen firing

    def run(self, fault: str, target: str | None = None, magnitude: float | None = None) -> DrillReport:
        """Run it; PeerError when the loop itself does not come up or there is no lab."""
        if self.loop.lab is None:
            raise PeerError("a drill needs the lab: set lab_enabled = true")
        self._wait_quiet()
        started = self.loop.lab.start(fault, target, magnitude)
        report = DrillReport(fault=fault, target=started.target)
        self.say(f"{fault} on {started.target} started")
        alert = self._wait_detected(report, self._version_at(started.started_at_ns))
        stopped = self.loop.lab.stop(started.id)
        self.say(f"{fault} on {started.target} cleared")
        if alert is not None and stopped.stopped_at_ns is not None:
            self._wait_resolved(report, alert, self._version_at(stopped.stopped_at_ns))
        mine = alert.fingerprint if alert is not None else ""
        others = [other for fingerprint, other in self.fired.items() if fingerprint != mine]
        report.false_alerts = len(others)
        report.other_alerts = [f"{other.kind}: {other.summary}" for other in others]
        report.judge()
        return report

    def _version_at(self, at_ns: int) -> int:
        """The version of the last window that ended before a moment."""
        return int(at_ns // (self.loop.settings.pipeline.window_s * 1e9))

    def _look(self) -> list[Alert]:
        """The alerts firing now; those never seen before are remembered."""
        firing = [life.alert for life in self.loop.store.alerts() if life.alert.state == "firing"]
        for alert in firing:
            self.fired.setdefault(alert.fingerprint, alert)
        return firing

    def _wait(self, done: Callable[[], bool], windows: int, extra_s: float = 0.0) -> bool:
        found = self.loop.run_until(done, windows * self.loop.settings.pipeline.window_s + extra_s)
        if not found and self.loop.supervisor.cancelled.is_set():
            raise PeerError("stopped before the drill had an answer")
        return found

    def _wait_quiet(self) -> None:
        wanted = self.patience.quiet
        least_s = wanted * self.loop.settings.pipeline.window_s
        self.say(f"waiting for {wanted} windows of a whole and quiet loop: {least_s:.0f} s after its start")

        def quiet() -> bool:
            windows = self.loop.report()["windows_closed"]
            return (
                not self._look() and isinstance(windows, int) and windows >= wanted and not self.loop.faults()
            )

        if not self._wait(quiet, wanted, self.patience.startup_s):
            firing = [f"alert firing: {alert.summary}" for alert in self._look()]
            why = "; ".join(self.loop.faults() + firing) or "too few windows closed"
            raise PeerError(f"the loop was not whole and quiet in time: {why}")

    def _wait_detected(self, report: DrillReport, before: int) -> Alert | None:
        earlier = set(self.fired)

        def new() -> list[Alert]:
            self._look()
            return [alert for fingerprint, alert in self.fired.items() if fingerprint not in earlier]

        self._wait(lambda: bool(new()), self.patience.detect + 2)
        if not (found := new()):
            self.say("no alert fired")
            return None
        alert = min(found, key=lambda a: rank_of(a, report.target) or 99)
        report.detected = True
        report.windows_to_detect = alert.last_version - before
        report.rank_of_target = rank_of(alert, report.target)
        report.suspects = [f"{s.target} {s.hypothesis} {s.probability:.2f}" for s in alert.suspects]
        self.say(f"fired in window {report.windows_to_detect} of the fault: {alert.summary}")
        return alert

    def _wait_resolved(self, report: DrillReport, alert: Alert, before: int) -> None:
        def resolved() -> bool:
            self._look()
            return self.loop.store.alert(alert.fingerprint).alert.state == "resolved"

        report.resolved = self._wait(resolved, self.patience.resolve + 2)
        if report.resolved:
            report.windows_to_resolve = self.loop.store.alert(alert.fingerprint).alert.last_version - before
        self.say("resolved" if report.resolved else "not resolved in time")


def check_wish(kind: FaultKind, lab: LabSettings, target: str | None, magnitude: float | None) -> None:
    """UsageError for what the lab would refuse: at once, and not when the loop is whole after minutes."""
    check_magnitude(kind, magnitude)
    if target is not None:
        network = open_topology(lab.topology, lab.seed).network()
        find_target(kind, target_names(network, kind.target), target)


def rank_of(alert: Alert, target: str) -> int | None:
    """1 for the first suspect, 2 for the second …; None when the target is not among them."""
    for rank, suspect in enumerate(alert.suspects, start=1):
        if suspect.target == target:
            return rank
    return None
