"""What `ndtwin up` does: start everything on one machine, watch it, restart what dies, stop it cleanly.

Start order: broker → topics → lab (until its inventory is there) → collect, stream, twin, detect, archive,
serve. The services stop together, but the archive after the others, so that it takes what they left; then the
lab, then the broker.

The embedded broker keeps every record in memory. When it grows past its cap the supervisor stops the
services, carries over what consumers need to go on (:mod:`ndtwin.carry`), restarts the broker and starts the
services again: a gap of some seconds, said aloud, instead of a machine that runs out of memory after days.
The collectors alone are not stopped, only paused while there is no broker: what devices send meanwhile waits
in their sockets, what they had not delivered waits in their queue, so no window lacks telemetry.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ndtwin.broker import EmbeddedBroker
from ndtwin.carry import carry_over
from ndtwin.config import Settings, write_settings
from ndtwin.lab.netns.tools import check_ready
from ndtwin.processes import Child, last_line
from stream.admin import ensure_topics
from twin.errors import PeerError
from twin.topologies import open_topology

READY_TIMEOUT_S = 150.0  # real routers on a busy machine take their time; others, some seconds
SERVICES = ("collect", "stream", "twin", "detect", "archive", "serve")


@dataclass
class Supervisor:
    """All parts of one deployment on this machine."""

    settings: Settings
    say: Callable[[str], None]
    cancelled: threading.Event = field(default_factory=threading.Event)  # set: start no more
    broker: EmbeddedBroker | None = None
    children: dict[str, Child] = field(default_factory=dict)
    journal: deque[str] = field(default_factory=lambda: deque(maxlen=200))
    broker_restarts: int = 0

    def start(self) -> None:
        """Start all parts; PeerError or UsageError with one line when one of them cannot."""
        if self.settings.lab_enabled:
            self._check_lab()
        self._start_broker()
        config = self.settings.run_path / "effective.toml"
        write_settings(self.settings, config)
        names = [*(("lab",) if self.settings.lab_enabled else ()), *SERVICES]
        if self.settings.influx.url:
            names.append("sink")
        for name in names:
            self.children[name] = self._child(name, config)
        if "lab" in self.children:
            self.settings.inventory_path.unlink(missing_ok=True)  # the one of an earlier lab
            self.children["lab"].start()
            self._wait_for_inventory(self.children["lab"])
        for child in self._services():
            if not self.cancelled.is_set():
                child.start()

    def _check_lab(self) -> None:
        """What cannot be is told here, not in the lab's log."""
        open_topology(self.settings.lab.topology, self.settings.lab.seed)
        if self.settings.lab_kind == "netns":
            check_ready()

    def _start_broker(self) -> None:
        kafka = self.settings.broker
        if kafka.bootstrap == "embedded":
            self.broker = EmbeddedBroker(port=kafka.port, log=self.settings.run_path / "logs" / "broker.log")
            self.broker.start()
        ensure_topics(self.settings.bootstrap, kafka.partitions)

    def _child(self, name: str, config: Path) -> Child:
        words = ("lab", self.settings.lab_kind) if name == "lab" else (name,)
        argv = [sys.executable, "-m", "ndtwin", *words]
        return Child(name, [*argv, "--config", str(config)], self.settings.run_path / "logs" / f"{name}.log")

    def _wait_for_inventory(self, lab: Child) -> None:
        """The lab writes the inventory when its devices answer; without it there is nothing to collect."""
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while not (self.settings.inventory_path.exists() or self.cancelled.is_set()):
            if not lab.alive:
                raise PeerError(f"the lab did not start: {last_line(lab.log)}")
            if time.monotonic() > deadline_s:
                raise PeerError(f"the lab was not ready within {READY_TIMEOUT_S:.0f} s: see {lab.log}")
            time.sleep(0.1)

    def tick(self) -> None:
        """Look after everything once; call it about twice a second."""
        now_s = time.monotonic()
        for child in self.children.values():
            if (line := child.check(now_s)) is not None:
                self._note(line)
        self._look_after_broker()

    def _look_after_broker(self) -> None:
        if self.broker is None:
            return
        if not self.broker.alive:
            self._note(
                f"broker died ({last_line(self.broker.log)}); starts again, what was not archived is lost"
            )
            self._restart_broker(carry=False)
        elif self.broker.rss_bytes() > self.settings.broker.memory_cap_mb * 2**20:
            self._note(f"broker holds {self.broker.rss_bytes() >> 20} MiB, its cap: controlled restart")
            self._restart_broker(carry=True)

    def _restart_broker(self, *, carry: bool) -> None:
        began_s = time.monotonic()
        self._stop_services(leave=("collect",))
        with self.children["collect"].paused():
            self._renew_broker(carry=carry)
        for child in self._services():
            if not child.alive:
                child.start()
        self._note(f"broker and services run again after {time.monotonic() - began_s:.1f} s")

    def _renew_broker(self, *, carry: bool) -> None:
        """A fresh broker with the topics and what is carried over."""
        assert self.broker is not None
        kept = carry_over(self.settings.bootstrap) if carry else None
        self.broker.restart()
        self.broker_restarts += 1
        ensure_topics(self.settings.bootstrap, self.settings.broker.partitions)
        if kept is not None:
            kept.write(self.settings.bootstrap)

    def _services(self) -> list[Child]:
        """Everything that talks to Kafka, in start order; the lab talks to nobody and goes on."""
        return [child for name, child in self.children.items() if name != "lab"]

    def _stop_services(self, leave: tuple[str, ...] = ()) -> None:
        """All at once, but the archive last, so that it takes what the others left."""
        services = [child for child in self._services() if child.name not in leave]
        self._stop_together([child for child in services if child.name != "archive"])
        self._stop_together([child for child in services if child.name == "archive"])

    def _stop_together(self, children: list[Child]) -> None:
        for child in children:
            child.ask_to_stop()
        for child in children:
            if not child.wait_stopped():
                self._note(f"{child.name} did not stop in time and was killed")

    def stop(self) -> None:
        """Stop everything; never leaves a process behind."""
        self._stop_services()
        if (lab := self.children.get("lab")) is not None:
            lab.ask_to_stop()
            lab.wait_stopped()
        if self.broker is not None:
            self.broker.stop()

    @property
    def restarts(self) -> int:
        """How often any part had to be started again."""
        return self.broker_restarts + sum(child.restarts for child in self.children.values())

    def _note(self, line: str) -> None:
        self.journal.append(line)
        self.say(line)
