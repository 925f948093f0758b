"""The life of an alert, as a table.

    pending ──confirmed──▶ firing ──acknowledged──▶ acknowledged
       │                     │                           │
       └──────cleared────────┴────────cleared────────────┴──▶ resolved

One incident is one alert: a finding joins an open incident when their kinds are of one family and their
scopes or paths overlap, even if another suspect now leads. The fingerprint is fixed when the incident opens
– network, kind, first top suspect – so the same trouble coming back next week is the same alert, started
anew.

A window is, for one incident, an *alarm* (a finding joined it), *unclear* (no finding, but its scope is not
clean yet), *clean*, or *blind* (the window says nothing about this kind). Alarms in a row confirm, clean
windows in a row clear; unclear windows break neither but do not confirm; blind ones are as if they had not
been.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from anomaly.findings import Finding, FindingKind, Judgement, Severity
from anomaly.settings import DetectorSettings
from twin.records import Alert, AlertState, Suspect

TRANSITIONS: dict[tuple[AlertState, str], AlertState] = {
    ("pending", "confirmed"): "firing",
    ("pending", "cleared"): "resolved",
    ("firing", "acknowledged"): "acknowledged",
    ("firing", "cleared"): "resolved",
    ("acknowledged", "cleared"): "resolved",
}
FAMILY: dict[FindingKind, str] = {
    "delay-divergence": "divergence",
    "load-divergence": "divergence",
    "link-down": "link-down",
    "telemetry-stale": "telemetry-stale",
}
# A device that says "my link is down" is believed at once; the rest waits for ``fire_after`` windows in a
# row.
FIRE_AT_ONCE: frozenset[FindingKind] = frozenset(["link-down"])
# a window this much weaker than the strongest (the fault was there for a part of it) re-ranks nothing
WEAKER = 0.5
SHARED_PATHS = 0.5  # of a finding's paths, to belong to an incident whose scope it does not touch


class Incident(msgspec.Struct, kw_only=True):
    """An alert being lived."""

    fingerprint: str
    kind: FindingKind
    severity: Severity
    state: AlertState
    starts_at_ns: int
    first_version: int
    last_version: int
    summary: str
    suspects: tuple[Suspect, ...]
    paths: tuple[str, ...]
    scope: set[str]
    strength: float
    alarms: int = 0  # in a row
    cleans: int = 0  # in a row
    told_version: int = -1  # when it was last emitted
    told_suspect: str = ""


class WindowStamp(msgspec.Struct, frozen=True):
    """Which window a judgement is about."""

    network: str
    version: int
    start_ns: int
    end_ns: int


class LifeCycle:
    """All incidents of one network."""

    def __init__(self, settings: DetectorSettings) -> None:
        self._settings = settings
        self.incidents: list[Incident] = []

    @property
    def open_scope(self) -> frozenset[str]:
        """What alerts that have fired are about: not to be learnt from."""
        return frozenset().union(*(one.scope for one in self.incidents if one.state != "pending"))

    def advance(self, stamp: WindowStamp, judgement: Judgement) -> list[Alert]:
        """Live through one window; the alerts to tell, by fingerprint."""
        alarmed = self._join(stamp, judgement.findings)
        alerts = []
        for incident in self.incidents:
            signal = _signal(incident, alarmed, judgement)
            alerts += self._step(incident, signal, stamp)
        self.incidents = [incident for incident in self.incidents if incident.state != "resolved"]
        return sorted(alerts, key=lambda alert: alert.fingerprint)

    def acknowledge(self, fingerprint: str, stamp: WindowStamp) -> list[Alert]:
        """An operator has seen it: it stays open but is no longer news."""
        mine = (incident for incident in self.incidents if incident.fingerprint == fingerprint)
        return [alert for incident in mine for alert in self._move(incident, "acknowledged", stamp)]

    # ------------------------------------------------------------------ findings → incidents

    def _join(self, stamp: WindowStamp, findings: Iterable[Finding]) -> set[str]:
        alarmed: set[str] = set()
        for finding in findings:
            incident = next((one for one in self.incidents if belongs(one, finding)), None)
            if incident is None:
                incident = _opened(stamp, finding)
                self.incidents.append(incident)
            elif incident.fingerprint not in alarmed:
                _refresh(incident, finding)
            incident.scope |= finding.scope
            incident.last_version = stamp.version
            alarmed.add(incident.fingerprint)
        return alarmed

    # ------------------------------------------------------------------ one window of one incident

    def _step(self, incident: Incident, signal: str, stamp: WindowStamp) -> list[Alert]:
        if signal != "blind":
            incident.alarms = incident.alarms + 1 if signal == "alarm" else 0
            incident.cleans = incident.cleans + 1 if self._counts_as_clean(incident, signal) else 0
        return self._move(incident, self._event(incident), stamp) or self._retell(incident, stamp)

    @staticmethod
    def _counts_as_clean(incident: Incident, signal: str) -> bool:
        return signal == "clean" or (signal == "unclear" and incident.state == "pending")

    def _event(self, incident: Incident) -> str:
        needed = 1 if incident.kind in FIRE_AT_ONCE else self._settings.fire_after
        if incident.alarms >= needed:
            return "confirmed"
        return "cleared" if incident.cleans >= self._settings.clear_after else ""

    def _move(self, incident: Incident, event: str, stamp: WindowStamp) -> list[Alert]:
        after = TRANSITIONS.get((incident.state, event))
        if after is None:
            return []
        incident.state = after
        return [_tell(incident, stamp)]

    def _retell(self, incident: Incident, stamp: WindowStamp) -> list[Alert]:
        new = incident.told_version < 0
        due = stamp.version - incident.told_version >= self._settings.reemit_windows
        changed = incident.told_suspect != _leading(incident)
        return [_tell(incident, stamp)] if new or changed or (due and incident.state != "pending") else []


def belongs(incident: Incident, finding: Finding) -> bool:
    """Whether a finding is about an open incident."""
    if FAMILY[incident.kind] != FAMILY[finding.kind]:
        return False
    shared = len(set(incident.paths) & set(finding.paths))
    return bool(incident.scope & finding.scope) or shared > SHARED_PATHS * max(len(finding.paths), 1)


def fingerprint_of(network: str, kind: str, first_suspect: str) -> str:
    """What makes an alert the same alert."""
    return hashlib.blake2b(f"{network}\0{kind}\0{first_suspect}".encode(), digest_size=8).hexdigest()


def _opened(stamp: WindowStamp, finding: Finding) -> Incident:
    top = finding.suspects[0]
    return Incident(
        fingerprint=fingerprint_of(stamp.network, finding.kind, f"{top.kind} {top.target}"),
        kind=finding.kind,
        severity=finding.severity,
        state="pending",
        starts_at_ns=stamp.start_ns,
        first_version=stamp.version,
        last_version=stamp.version,
        summary=finding.summary,
        suspects=finding.suspects,
        paths=finding.paths,
        scope=set(finding.scope),
        strength=finding.strength,
    )


def _refresh(incident: Incident, finding: Finding) -> None:
    if finding.strength < WEAKER * incident.strength:
        return
    incident.strength = max(incident.strength, finding.strength)
    incident.suspects, incident.paths = finding.suspects, finding.paths or incident.paths
    incident.summary, incident.severity = finding.summary, finding.severity


def _signal(incident: Incident, alarmed: set[str], judgement: Judgement) -> str:
    if incident.fingerprint in alarmed:
        return "alarm"
    if incident.kind in judgement.blind:
        return "blind"
    return "unclear" if incident.scope & judgement.lingering else "clean"


def _leading(incident: Incident) -> str:
    top = incident.suspects[0]
    return f"{top.target} {top.hypothesis}"


def _tell(incident: Incident, stamp: WindowStamp) -> Alert:
    incident.told_version, incident.told_suspect = stamp.version, _leading(incident)
    return Alert(
        network=stamp.network,
        fingerprint=incident.fingerprint,
        state=incident.state,
        kind=incident.kind,
        severity=incident.severity,
        summary=incident.summary,
        starts_at_ns=incident.starts_at_ns,
        updated_at_ns=stamp.end_ns,
        ends_at_ns=stamp.end_ns if incident.state == "resolved" else None,
        first_version=incident.first_version,
        last_version=incident.last_version,
        suspects=incident.suspects,
        paths=incident.paths,
        labels={"suspect": incident.suspects[0].target, "hypothesis": incident.suspects[0].hypothesis},
    )
