"""Child processes that never outlive their parent, restart when they die, and stop when told.

Invariants
----------
- A child gets SIGTERM from the kernel when its parent dies (Linux PR_SET_PDEATHSIG), so no orphan survives
  even a ``kill -9`` of the supervisor.
- A child runs in its own session: Ctrl-C in the terminal reaches the supervisor alone, which then stops the
  children in order.
- Restarts back off exponentially (1, 2, 4 … 30 s); a child that ran for a minute starts again at 1 s.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h
STOP_GRACE_S = 8.0
BACKOFF_CEILING_S = 30.0
STABLE_AFTER_S = 60.0

_LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent dies. Runs in the child, between fork and exec."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass
class Child:
    """One supervised process."""

    name: str
    argv: list[str]
    log: Path
    env: dict[str, str] = field(default_factory=dict)
    restarts: int = 0
    wanted: bool = False
    _process: subprocess.Popen[bytes] | None = None
    _started_at_s: float = 0.0
    _retry_at_s: float = 0.0
    _backoff_s: float = 1.0

    def start(self) -> None:
        """Start the process; its output goes to the log file."""
        self.wanted = True
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.env},
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509  calls prctl and nothing else
            )
        self._started_at_s = time.monotonic()

    @property
    def pid(self) -> int:
        """Process id; 0 when it does not run."""
        return self._process.pid if self._process is not None and self.alive else 0

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The last exit code; None while it runs or before it ever ran."""
        return self._process.poll() if self._process is not None else None

    def check(self, now_s: float) -> str | None:
        """Restart the process if it died and its pause is over; one line when something happened."""
        if not self.wanted or self.alive:
            return None
        if self._retry_at_s == 0.0:
            return self._plan_restart(now_s)
        if now_s < self._retry_at_s:
            return None
        self._retry_at_s = 0.0
        self.restarts += 1
        self.start()
        return f"{self.name} restarted (number {self.restarts})"

    def _plan_restart(self, now_s: float) -> str:
        if now_s - self._started_at_s > STABLE_AFTER_S:
            self._backoff_s = 1.0
        pause_s = self._backoff_s
        self._retry_at_s = now_s + pause_s
        self._backoff_s = min(2 * self._backoff_s, BACKOFF_CEILING_S)
        ended = f"{self.name} ended with {describe_exit(self.exit_code)}"
        return f"{ended}; next try in {pause_s:.0f} s; {last_line(self.log)}"

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stand still (SIGSTOP) for a moment, and go on where it was; what it is sent waits in the kernel."""
        process = self._process if self.alive else None
        if process is not None:
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            if process is not None:
                process.send_signal(signal.SIGCONT)

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        self.wanted = False
        if self.alive and self._process is not None:
            self._process.terminate()

    def wait_stopped(self, grace_s: float = STOP_GRACE_S) -> bool:
        """Wait for the end; after the grace the whole session is killed. True when it ended by itself."""
        if self._process is None:
            return True
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            return False
        return True


def describe_exit(code: int | None) -> str:
    """An exit code in words: ``exit code 2``, ``signal SIGKILL``."""
    if code is None:
        return "no exit code"
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def last_line(log: Path) -> str:
    """The last line a process wrote, or where to look."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return f"it said: {lines[-1][:300]}" if lines else f"see {log}"
