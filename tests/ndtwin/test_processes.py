"""Child processes: restarts, stopping, and that none outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ndtwin.processes import Child, describe_exit

ROOT = Path(__file__).resolve().parents[2]


def wait_for(condition: object, timeout_s: float = 10.0) -> None:
    assert callable(condition)
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "did not happen in time"
        time.sleep(0.02)


def test_a_child_that_dies_is_restarted_after_a_pause(tmp_path: Path) -> None:
    """The supervisor says why it ended, waits, and starts it again."""
    child = Child(
        "brief", [sys.executable, "-c", "print('no coffee'); raise SystemExit(3)"], tmp_path / "log"
    )
    child.start()
    wait_for(lambda: not child.alive)
    now_s = time.monotonic()
    line = child.check(now_s)
    assert line is not None
    assert "brief ended with exit code 3" in line
    assert "no coffee" in line
    assert child.check(now_s + 0.5) is None
    assert child.check(now_s + 1.1) == "brief restarted (number 1)"
    assert child.restarts == 1
    child.ask_to_stop()
    child.wait_stopped()


def test_pauses_between_restarts_double(tmp_path: Path) -> None:
    """A child that dies at once is not started in a busy loop."""
    child = Child("hopeless", [sys.executable, "-c", "raise SystemExit(1)"], tmp_path / "log")
    child.start()
    pauses = []
    now_s = time.monotonic()
    for _ in range(3):
        wait_for(lambda: not child.alive)
        line = child.check(now_s) or ""
        pauses.append(float(line.split("next try in ")[1].split(" s")[0]))
        now_s += pauses[-1] + 0.01
        child.check(now_s)
    assert pauses == [1, 2, 4]
    child.ask_to_stop()
    child.wait_stopped()


def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """Stopping ends, whatever the child does."""
    ignore = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    code = f"{ignore}; print('up', flush=True); time.sleep(60)"
    child = Child("stubborn", [sys.executable, "-c", code], tmp_path / "log")
    child.start()
    wait_for(lambda: "up" in (tmp_path / "log").read_text())
    child.ask_to_stop()
    assert child.wait_stopped(grace_s=0.2) is False
    assert not child.alive


def test_a_paused_child_stands_still_and_goes_on(tmp_path: Path) -> None:
    """Paused it is stopped but not ended; afterwards the same process runs."""
    child = Child("clock", [sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "log")
    child.start()
    process = psutil.Process(child.pid)
    with child.paused():
        wait_for(lambda: process.status() == psutil.STATUS_STOPPED)
        assert child.alive
    wait_for(lambda: process.status() != psutil.STATUS_STOPPED)
    assert child.pid == process.pid
    child.ask_to_stop()
    assert child.wait_stopped()


def test_no_child_outlives_a_killed_parent(tmp_path: Path) -> None:
    """kill -9 of the supervisor leaves no orphan: the kernel ends the child."""
    code = (
        "import sys, time; from pathlib import Path; from ndtwin.processes import Child;"
        "argv = [sys.executable, '-c', 'import time; time.sleep(60)'];"
        f"c = Child('c', argv, Path({str(tmp_path / 'log')!r}));"
        "c.start(); print(c.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


@pytest.mark.parametrize(("code", "words"), [(0, "exit code 0"), (2, "exit code 2"), (-9, "signal SIGKILL")])
def test_exit_codes_in_words(code: int, words: str) -> None:
    """An operator reads what happened, not a number with a sign."""
    assert describe_exit(code) == words
