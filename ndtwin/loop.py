"""A running loop and somebody who watches it: what `ndtwin up` and `ndtwin drill` share.

The supervisor runs the parts; a feed on the topics fills a store, exactly as the API's does. So whatever is
reported here is what travelled through Kafka, not what a part said about itself in passing.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ndtwin.api.feed import Feed
from ndtwin.api.health import EXPECTED
from ndtwin.api.store import Store
from ndtwin.config import Settings
from ndtwin.lab.client import LabClient
from ndtwin.report import loop_report
from ndtwin.supervisor import Supervisor
from stream.publisher import Publisher
from twin.errors import PeerError
from twin.records import ComponentState, Heartbeat

TICK_S = 0.5
BEAT_S = 2.0


@dataclass
class Loop:
    """Supervisor + store. Use :func:`running_loop`."""

    settings: Settings
    supervisor: Supervisor
    store: Store
    publisher: Publisher
    lab: LabClient | None
    started_at_s: float = field(default_factory=time.monotonic)
    _beat_at_s: float = 0.0

    def tick(self) -> None:
        """Look after the parts and speak for those that do not know Kafka."""
        self.supervisor.tick()
        now_s = time.monotonic()
        if now_s - self._beat_at_s >= BEAT_S:
            self._beat_at_s = now_s
            self._beat()

    def run_until(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Tick until ``done()`` or the time is over; whether it was done."""
        deadline_s = time.monotonic() + timeout_s
        while not done():
            if time.monotonic() > deadline_s or self.supervisor.cancelled.is_set():
                return False
            self.tick()
            time.sleep(TICK_S)
        return True

    def report(self) -> dict[str, object]:
        """What :func:`ndtwin.report.loop_report` tells, with the restarts that the supervisor counted."""
        return {**loop_report(self.store), "restarts": self.supervisor.restarts}

    def faults(self) -> list[str]:
        """Why the loop is not whole; empty when it is."""
        report = self.report()
        components = report["components"]
        assert isinstance(components, dict)
        wanted = [name for name in EXPECTED if self._expected(name)]
        found = [
            f"{name} is {components.get(name, 'absent')}"
            for name in wanted
            if components.get(name) != "running"
        ]
        if not report["windows_closed"]:
            found.append("no window closed")
        for figure in ("paths_measured", "paths_predicted"):
            if report[figure] != report["paths_total"] or not report["paths_total"]:
                found.append(f"{figure} is {report[figure]} of {report['paths_total']}")
        return found

    def _expected(self, name: str) -> bool:
        if name == "broker":
            return self.supervisor.broker is not None
        return name != "lab" or self.lab is not None

    def _beat(self) -> None:
        if (broker := self.supervisor.broker) is not None:
            self._say(
                "broker",
                "running" if broker.alive else "stopped",
                broker.pid,
                {"rss_bytes": float(broker.rss_bytes())},
            )
        if self.lab is not None:
            self._say("lab", *self._lab_state())

    def _lab_state(self) -> tuple[ComponentState, int, dict[str, float]]:
        child = self.supervisor.children["lab"]
        assert self.lab is not None
        try:
            status = self.lab.status()
        except PeerError:
            return ("starting" if child.alive else "stopped"), child.pid, {}
        lag_s = float(status.get("lag_s", 0.0))
        return ("running" if lag_s < 1.0 else "degraded"), child.pid, {"lag_s": lag_s}

    def _say(self, component: str, state: ComponentState, pid: int, metrics: dict[str, float]) -> None:
        beat = Heartbeat(
            component=component, observed_at_ns=time.time_ns(), state=state, pid=pid, metrics=metrics
        )
        self.publisher.publish(beat)


@contextlib.contextmanager
def running_loop(
    settings: Settings, say: Callable[[str], None], cancelled: threading.Event
) -> Iterator[Loop]:
    """Start everything, watch it, and stop everything, whatever happens in between."""
    settings.run_path.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(settings), contextlib.ExitStack() as stack:
        supervisor = Supervisor(settings, say, cancelled)
        stack.callback(supervisor.stop)
        supervisor.start()
        store = Store()
        feed = Feed(store, settings.bootstrap)
        stack.callback(feed.stop)
        feed.start()
        publisher = stack.enter_context(
            Publisher(settings.bootstrap, settings.broker.partitions, client_id="up")
        )
        lab = LabClient(settings.run_path) if settings.lab_enabled else None
        yield Loop(settings, supervisor, store, publisher, lab)


@contextlib.contextmanager
def one_at_a_time(settings: Settings) -> Iterator[None]:
    """Refuse a second loop in the same run directory."""
    lock = settings.run_path / "up.pid"
    if lock.exists() and (pid := int(lock.read_text() or 0)) and _alive(pid):
        raise PeerError(
            f"a loop already runs in {settings.run_path} (process {pid}): stop it or use another --run-dir"
        )
    lock.write_text(str(os.getpid()))
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
