"""The anomaly module as a processor: states and predictions in, alerts out.

What is joined, and when
------------------------
A window is judged when its StateUpdate and its Prediction are both there, whichever came second, and windows
are judged in the order of their versions:

1. A complete window waits for an older one that is incomplete or missing, but not once more than
   ``reorder_windows`` complete ones are waiting.
2. An update whose prediction has not come ``patience_windows`` after its end (by the log's clock) is judged
   without: links down and silent devices are told, delays and loads are not judged.
3. What comes for a version already judged is dropped: a duplicate, or too late.

So the alerts depend on the records and not on how the two topics interleave.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable

import msgspec

from anomaly.alerts import Incident
from anomaly.learnt import LearntSnapshot
from anomaly.network_judge import NetworkJudge
from anomaly.settings import DetectorSettings
from twin.errors import DecodeError
from twin.records import Alert, Prediction, Record, StateUpdate

__all__ = ["DetectorSettings", "DivergenceProcessor"]

MAX_WAITING = 32  # updates or predictions kept per network; the oldest go first


class _NetworkSnapshot(msgspec.Struct, array_like=True):
    updates: list[StateUpdate]
    predictions: list[Prediction]
    judged_version: int
    topology: StateUpdate | None
    learnt: LearntSnapshot | None
    incidents: list[Incident]
    known_links: dict[str, int]


class _Waiting:
    """What has come for one network and is not judged yet."""

    def __init__(self, settings: DetectorSettings) -> None:
        self._settings = settings
        self.updates: dict[int, StateUpdate] = {}
        self.predictions: dict[int, Prediction] = {}
        self.judged_version = -1

    def put(
        self, store: dict[int, StateUpdate] | dict[int, Prediction], version: int, record: Record
    ) -> None:
        """Keep a record unless its window is over; the first of two equals stays."""
        if version > self.judged_version:
            store.setdefault(version, record)  # type: ignore[arg-type]  # the caller pairs store and record
            while len(store) > MAX_WAITING:
                del store[min(store)]

    def complete(self) -> list[tuple[StateUpdate, Prediction | None]]:
        """Windows whose turn has come, oldest first (rule 1)."""
        ready = []
        while (pair := self._next()) is not None:
            ready.append(pair)
        return ready

    def _next(self) -> tuple[StateUpdate, Prediction | None] | None:
        both = sorted(self.updates.keys() & self.predictions.keys())
        if not both:
            return None
        oldest = min(self.updates)
        due = oldest if self.judged_version < 0 else self.judged_version + 1
        if both[0] != due and len(both) <= self._settings.reorder_windows:
            return None
        return self._take(oldest)

    def overdue(self, now_ns: int) -> list[tuple[StateUpdate, Prediction | None]]:
        """Windows whose prediction is not waited for any longer (rule 2), and those they held back."""
        patience_ns = int(self._settings.patience_windows * self._settings.window_s * 1e9)
        ready = []
        while self.updates and self.updates[min(self.updates)].window_end_ns + patience_ns <= now_ns:
            ready.append(self._take(min(self.updates)))
        return ready + self.complete() if ready else []

    def _take(self, version: int) -> tuple[StateUpdate, Prediction | None]:
        pair = self.updates.pop(version), self.predictions.pop(version, None)
        self.judged_version = version
        for stale in [v for v in self.predictions if v <= version]:
            del self.predictions[stale]
        return pair


class DivergenceProcessor:
    """StateUpdate + Prediction → Alert, for all networks of a partition."""

    def __init__(self, settings: DetectorSettings | None = None) -> None:
        self.settings = settings or DetectorSettings()
        self.unreadable = 0  # windows that could not be judged: damaged, or of a topology not seen
        self._waiting: dict[str, _Waiting] = {}
        self._judges: dict[str, NetworkJudge] = {}
        self._takes: dict[type[Record], Callable[[Record], Iterable[Alert]]] = {
            StateUpdate: self._on_update,  # type: ignore[dict-item]  # the key is the argument's type
            Prediction: self._on_prediction,  # type: ignore[dict-item]  # the key is the argument's type
        }

    # ------------------------------------------------------------------ the four verbs

    def on_record(self, record: Record) -> Iterable[Record]:
        """Take an update or a prediction; other records are none of our business."""
        take = self._takes.get(type(record))
        return take(record) if take else []

    def on_time(self, now_ns: int) -> Iterable[Record]:
        """Give up on predictions that are overdue."""
        alerts: list[Record] = []
        for network in sorted(self._waiting):
            alerts += self._judge(network, self._waiting[network].overdue(now_ns))
        return alerts

    def snapshot(self) -> bytes:
        """All state; equal states give equal bytes."""
        networks = {network: self._network_snapshot(network) for network in sorted(self._waiting)}
        return zlib.compress(msgspec.msgpack.encode((self.unreadable, networks), order="deterministic"), 6)

    def restore(self, blob: bytes) -> None:
        """Become what :meth:`snapshot` described."""
        try:
            self.unreadable, networks = msgspec.msgpack.decode(
                zlib.decompress(blob), type=tuple[int, dict[str, _NetworkSnapshot]]
            )
        except (zlib.error, msgspec.DecodeError) as error:
            raise DecodeError(f"detector snapshot is damaged ({error}): delete it to start afresh") from error
        self._waiting, self._judges = {}, {}
        for network, snapshot in networks.items():
            self._restore_network(network, snapshot)

    # ------------------------------------------------------------------ joining

    def _of(self, network: str) -> _Waiting:
        if network not in self._waiting:
            self._waiting[network] = _Waiting(self.settings)
            self._judges[network] = NetworkJudge(self.settings, network)
        return self._waiting[network]

    def _on_update(self, update: StateUpdate) -> Iterable[Alert]:
        waiting = self._of(update.network)
        waiting.put(waiting.updates, update.version, update)
        return self._judge(update.network, waiting.complete())

    def _on_prediction(self, prediction: Prediction) -> Iterable[Alert]:
        waiting = self._of(prediction.network)
        waiting.put(waiting.predictions, prediction.state_version, prediction)
        return self._judge(prediction.network, waiting.complete())

    def _judge(self, network: str, windows: list[tuple[StateUpdate, Prediction | None]]) -> list[Alert]:
        alerts: list[Alert] = []
        for update, prediction in windows:
            try:
                alerts += self._judges[network].judge(update, prediction)
            except DecodeError:
                self.unreadable += 1  # law 2: counted, and the next keyframe mends it
        return alerts

    # ------------------------------------------------------------------ to bytes and back

    def _network_snapshot(self, network: str) -> _NetworkSnapshot:
        waiting, judge = self._waiting[network], self._judges[network]
        return _NetworkSnapshot(
            updates=[waiting.updates[v] for v in sorted(waiting.updates)],
            predictions=[waiting.predictions[v] for v in sorted(waiting.predictions)],
            judged_version=waiting.judged_version,
            topology=judge.remembered_topology(),
            learnt=judge.learnt.snapshot() if judge.learnt else None,
            incidents=judge.cycle.incidents,
            known_links=judge.known_links,
        )

    def _restore_network(self, network: str, snapshot: _NetworkSnapshot) -> None:
        waiting = self._of(network)
        waiting.updates = {update.version: update for update in snapshot.updates}
        waiting.predictions = {one.state_version: one for one in snapshot.predictions}
        waiting.judged_version = snapshot.judged_version
        self._judges[network].restore(
            snapshot.topology, snapshot.learnt, snapshot.incidents, snapshot.known_links
        )
