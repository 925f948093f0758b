"""What the API and the page know, in memory, fed by the records of the topics.

One thread feeds (:class:`ndtwin.api.feed.Feed`, or a test); any number of threads read. A lock covers the few
dictionary updates; everything handed out is immutable or a copy. ``revision`` grows with every change that a
reader could see, so a reader polls one integer and looks closer only when it moved. Records may come twice
and in any order between topics.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ndtwin.api.health import ComponentHealth, HealthBoard
from ndtwin.api.history import NetworkHistory
from twin.errors import DecodeError, UsageError
from twin.records import Alert, DeadLetter, Heartbeat, NetworkEvent, Prediction, Record, StateUpdate

JOURNAL_LENGTH = 300
RESOLVED_KEPT = 200
ALERT_ORDER = {"firing": 0, "acknowledged": 1, "pending": 2, "resolved": 3}


class UnknownName(UsageError):
    """A network, node, path, link or alert that is not known; the message lists what is."""


@dataclass(frozen=True)
class AlertLife:
    """The newest record of an alert and when it entered each state it has been in."""

    alert: Alert
    transitions: tuple[tuple[str, int], ...]  # (state, at_ns), oldest first


@dataclass(frozen=True)
class JournalEntry:
    """One line of what happened."""

    at_ns: int
    kind: str  # "event", "alert", "component", "deadletter"
    level: str  # "info", "warning", "critical"
    text: str


class Store:
    """See the module's docstring."""

    def __init__(self, *, history_windows: int = 360) -> None:
        self._lock = threading.RLock()
        self._history_windows = history_windows
        self._networks: dict[str, NetworkHistory] = {}
        self._alerts: dict[str, AlertLife] = {}
        self._health = HealthBoard()
        self._journal: deque[JournalEntry] = deque(maxlen=JOURNAL_LENGTH)
        self._dead_letters: Counter[str] = Counter()
        self._records: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._delays_s: dict[str, float] = {}
        self._revision = 0
        self._take: Mapping[type[Record], Callable[..., bool]] = {
            StateUpdate: self._take_state,
            Prediction: self._take_prediction,
            Alert: self._take_alert,
            Heartbeat: self._take_heartbeat,
            NetworkEvent: self._take_event,
            DeadLetter: self._take_dead_letter,
        }

    # ------------------------------------------------------------------------------------------ feeding

    def apply(self, record: Record, *, timestamp_ms: int | None = None) -> None:
        """Take one record; ``timestamp_ms`` is its Kafka timestamp. DecodeError when it is damaged."""
        with self._lock:
            name = type(record).__name__
            self._records[name] += 1
            try:
                changed = self._take[type(record)](record, timestamp_ms)
            except DecodeError:
                self._refused[name] += 1
                raise
            self._revision += changed

    def note_delay(self, topic: str, delay_s: float) -> None:
        """How old the newest message of a topic was when it was read."""
        with self._lock:
            self._delays_s[topic] = delay_s

    # ------------------------------------------------------------------------------------------ reading

    @property
    def revision(self) -> int:
        """Grows with every visible change."""
        return self._revision

    def networks(self) -> tuple[str, ...]:
        """The names of all networks heard of, sorted."""
        with self._lock:
            return tuple(sorted(self._networks))

    def network(self, name: str) -> NetworkHistory:
        """One network; UnknownName lists those there are."""
        with self._lock:
            if name not in self._networks:
                known = ", ".join(sorted(self._networks)) or "none yet: the first window has not closed"
                raise UnknownName(f"unknown network {name!r}: known are {known}")
            return self._networks[name]

    def alerts(self, network: str | None = None) -> list[AlertLife]:
        """Alerts, firing first, then the newest first."""
        with self._lock:
            lives = [life for life in self._alerts.values() if network in (None, life.alert.network)]
        return sorted(
            lives,
            key=lambda life: (
                ALERT_ORDER[life.alert.state],
                -life.alert.starts_at_ns,
                life.alert.fingerprint,
            ),
        )

    def alert(self, fingerprint: str) -> AlertLife:
        """One alert; UnknownName lists those there are."""
        with self._lock:
            if fingerprint not in self._alerts:
                known = ", ".join(sorted(self._alerts)) or "none"
                raise UnknownName(f"unknown alert {fingerprint!r}: known are {known}")
            return self._alerts[fingerprint]

    def components(self, now_ns: int) -> list[ComponentHealth]:
        """How every component is."""
        with self._lock:
            return self._health.components(now_ns)

    def restarts(self, now_ns: int) -> int:
        """Processes replaced since this store listens."""
        with self._lock:
            return self._health.restarts(now_ns)

    def journal(self) -> list[JournalEntry]:
        """What happened, newest first."""
        with self._lock:
            return sorted(self._journal, key=lambda entry: -entry.at_ns)

    def counters(self) -> dict[str, dict[str, int]]:
        """Records taken and refused by type, dead letters by source."""
        with self._lock:
            return {
                "records": dict(self._records),
                "refused": dict(self._refused),
                "dead_letters": dict(self._dead_letters),
            }

    def delays(self) -> dict[str, float]:
        """Topic → seconds from a message's Kafka timestamp to its reading here, newest message."""
        with self._lock:
            return dict(self._delays_s)

    # ----------------------------------------------------------------------------------- one per record

    def _history(self, name: str) -> NetworkHistory:
        if name not in self._networks:
            self._networks[name] = NetworkHistory(name, self._history_windows)
        return self._networks[name]

    def _take_state(self, update: StateUpdate, timestamp_ms: int | None) -> bool:
        history = self._history(update.network)
        changed = history.apply_state(update, timestamp_ms)
        self._refused["StateUpdate"] += bool(history.waiting_for)
        return changed

    def _take_prediction(self, prediction: Prediction, timestamp_ms: int | None) -> bool:
        return self._history(prediction.network).apply_prediction(prediction, timestamp_ms)

    def _take_alert(self, alert: Alert, _timestamp_ms: int | None) -> bool:
        known = self._alerts.get(alert.fingerprint)
        if known is not None and known.alert.updated_at_ns > alert.updated_at_ns:
            return False
        transitions = known.transitions if known is not None else ()
        if not transitions or transitions[-1][0] != alert.state:
            transitions = (*transitions, (alert.state, alert.updated_at_ns))
            level = "info" if alert.state in ("resolved", "pending") else alert.severity
            self._note(alert.updated_at_ns, "alert", level, f"{alert.state}: {alert.summary}")
        self._alerts[alert.fingerprint] = AlertLife(alert, transitions)
        self._drop_old_resolved()
        return True

    def _take_heartbeat(self, heartbeat: Heartbeat, _timestamp_ms: int | None) -> bool:
        first = not self._health.knows(heartbeat.component)
        changed = self._health.beat(heartbeat)
        if changed and not (first and heartbeat.state == "running"):  # that a component runs is no news
            level = "info" if heartbeat.state in ("running", "starting") else "warning"
            said = f": {heartbeat.detail}" if heartbeat.detail else ""
            self._note(
                heartbeat.observed_at_ns, "component", level, f"{heartbeat.component} {heartbeat.state}{said}"
            )
        return changed

    def _take_event(self, event: NetworkEvent, _timestamp_ms: int | None) -> bool:
        where = f"{event.device} {event.interface}".strip()
        self._note(event.observed_at_ns, "event", "warning", f"{where}: {event.kind} {event.detail}".rstrip())
        return True

    def _take_dead_letter(self, letter: DeadLetter, _timestamp_ms: int | None) -> bool:
        self._dead_letters[letter.source] += 1
        self._note(
            letter.observed_at_ns,
            "deadletter",
            "warning",
            f"dead letter from {letter.source}: {letter.reason}",
        )
        return True

    def _note(self, at_ns: int, kind: str, level: str, text: str) -> None:
        entry = JournalEntry(at_ns=at_ns, kind=kind, level=level, text=text)
        if entry not in self._journal:  # a rewind or a redelivery tells nothing new
            self._journal.append(entry)

    def _drop_old_resolved(self) -> None:
        resolved = [life.alert for life in self._alerts.values() if life.alert.state == "resolved"]
        for alert in sorted(resolved, key=lambda a: a.updated_at_ns)[: max(0, len(resolved) - RESOLVED_KEPT)]:
            del self._alerts[alert.fingerprint]
