"""The whole loop, live: one loop is started, watched, broken, mended, replayed; nothing in it is a double."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from ndtwin.config import load_settings
from ndtwin.drill import Drill, Patience
from ndtwin.loop import Loop, running_loop
from ndtwin.ports import private_ports
from stream.predictor import load_model
from stream.replay import replay

pytestmark = [
    pytest.mark.alone,
    pytest.mark.live,
    pytest.mark.kafka,
    pytest.mark.timeout(600),
]
UP = (sys.executable, "-m", "ndtwin", "up", "--headless")
START_UP_S = 90.0  # the promise: all paths measured and predicted within 90 s of the start


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return []


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> Iterator[Loop]:
    with private_ports(str(tmp_path_factory.mktemp("run"))) as (run_dir, overrides):
        settings = load_settings(None, {"run_dir": run_dir, **overrides}, env={})
        with running_loop(settings, lines.append, threading.Event()) as running:
            yield running


def get(loop: Loop, path: str) -> object:
    url = f"http://127.0.0.1:{loop.settings.serve.port}{path}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def firings(loop: Loop) -> dict[str, int]:
    """Fingerprint → how often its alert has fired. What was pending only has alerted nobody."""
    lives = loop.store.alerts()
    count = {
        life.alert.fingerprint: [state for state, _ in life.transitions].count("firing") for life in lives
    }
    return {fingerprint: times for fingerprint, times in count.items() if times}


def test_every_path_is_measured_and_predicted_in_time(loop: Loop, lines: list[str]) -> None:
    """Within 90 s 182 paths are measured and predicted, and every component runs, none restarted."""
    assert loop.run_until(lambda: not loop.faults(), START_UP_S), (loop.faults(), lines)
    report = loop.report()
    assert (report["paths_total"], report["paths_measured"], report["paths_predicted"]) == (182, 182, 182)
    assert report["restarts"] == 0, lines


def test_the_twin_is_right_in_the_quiet_network(loop: Loop) -> None:
    """The median error over all paths is under 10 % when nothing is broken."""
    assert loop.run_until(lambda: loop.report()["windows_closed"] >= 4, 60)  # type: ignore[operator]
    report = loop.report()
    assert isinstance(report["ape_median"], float)
    assert report["ape_median"] < 10
    assert isinstance(report["close_to_prediction_p99_s"], float)


def test_the_api_tells_the_same(loop: Loop) -> None:
    """Programs see what the report says."""
    networks = get(loop, "/api/v1/networks")
    assert isinstance(networks, list)
    assert [(network["name"], network["nodes"], network["paths"]) for network in networks] == [
        ("nsfnet", 14, 182)
    ]
    health = get(loop, "/api/v1/health")
    assert isinstance(health, dict)
    assert health["healthy"], health["summary"]


@pytest.mark.parametrize("fault", ["link-delay", "link-capacity"])
def test_a_fault_is_found_located_and_let_go(loop: Loop, lines: list[str], fault: str) -> None:
    """Detected within 3 windows, the link ranked first or second, resolved, nothing else alerted."""
    quiet = loop.report()["windows_closed"]
    assert isinstance(quiet, int)
    result = Drill(loop, lines.append, Patience(quiet=max(8, quiet + 3))).run(fault)
    assert result.passed, (result.as_dict(), lines[-10:])


def test_bad_bytes_are_set_aside_and_nothing_stops(loop: Loop) -> None:
    """A malformed datagram and a malformed message become dead letters; windows go on closing."""
    exporter = loop.settings.lab.addressing(14).management(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        device.bind((exporter, 0))
        device.sendto(b"\x00\x0anot IPFIX", ("127.0.0.1", loop.settings.lab.ipfix_port))
    loop.publisher.send("ndt.samples", b"{not JSON", key=b"WA", partition=0)
    before = loop.report()["windows_closed"]
    assert isinstance(before, int)
    sources = lambda: loop.store.counters()["dead_letters"]  # noqa: E731  said twice below
    assert loop.run_until(lambda: len(sources()) >= 2, 30), sources()
    assert "ndt.samples" in sources()
    assert any(source.startswith("udp:") for source in sources())
    assert loop.run_until(lambda: loop.report()["windows_closed"] >= before + 2, 45)  # type: ignore[operator]
    assert not loop.faults()


def test_a_part_that_dies_is_restarted_and_the_loop_becomes_whole_again(loop: Loop, lines: list[str]) -> None:
    """kill -9 of the stream: the supervisor says so, its successor continues, windows go on closing."""
    before = loop.report()["windows_closed"]
    assert isinstance(before, int)
    psutil.Process(loop.supervisor.children["stream"].pid).kill()
    assert loop.run_until(lambda: loop.supervisor.children["stream"].restarts == 1, 20)
    assert any("stream ended with signal SIGKILL" in line for line in lines)
    assert loop.run_until(
        lambda: not loop.faults() and loop.report()["windows_closed"] >= before + 4,  # type: ignore[operator]
        90,
    ), (loop.faults(), lines[-5:])


def test_the_past_comes_out_of_the_archive_as_it_was_live(loop: Loop, tmp_path: Path) -> None:
    """Replaying what was archived gives byte-identical states, predictions and alerts."""
    loop.run_until(lambda: False, 15)  # the archive flushes every 10 s
    now_ns = time.time_ns()
    model, problem = load_model("routenet")
    assert not problem
    report = replay(
        loop.settings.archive_path, now_ns - 3600 * 10**9, now_ns, tmp_path, model=model, warm_up_s=None
    )
    assert report.same_as_live, report.as_dict()
    assert report.compared["states"].identical >= 10
    assert report.compared["alerts"].identical >= 4


def test_a_full_broker_is_restarted_under_control(loop: Loop, lines: list[str]) -> None:
    """At its memory cap the embedded broker is restarted; the loop goes on and alerts nobody."""
    before = loop.report()["windows_closed"]
    fired = firings(loop)
    assert isinstance(before, int)
    settings = loop.supervisor.settings
    capped = msgspec.structs.replace(settings.broker, memory_cap_mb=1)
    loop.supervisor.settings = msgspec.structs.replace(settings, broker=capped)
    loop.tick()
    loop.supervisor.settings = settings
    assert any("its cap: controlled restart" in line for line in lines)
    assert loop.supervisor.broker_restarts == 1
    assert loop.run_until(
        lambda: not loop.faults() and loop.report()["windows_closed"] >= before + 5,  # type: ignore[operator]
        120,
    ), (loop.faults(), lines[-5:])
    assert firings(loop) == fired, ([life.alert.summary for life in loop.store.alerts()], lines[-3:])


def test_nothing_is_left_running(tmp_path: Path) -> None:
    """`ndtwin up` writes its report, exits 0 when whole, and leaves no process behind."""
    with private_ports(str(tmp_path)) as (run_dir, overrides):
        config = tmp_path / "ndtwin.toml"
        config.write_text("\n".join(_toml(overrides)))
        report = tmp_path / "report.json"
        done = subprocess.run(
            [*UP, "--config", str(config), "--run-dir", run_dir, "--for", "60", "--report", str(report)],
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    figures = json.loads(report.read_text())
    assert figures["paths_predicted"] == 182
    left = [
        p.info["cmdline"]
        for p in psutil.process_iter(["cmdline"])
        if str(tmp_path) in " ".join(p.info["cmdline"] or [])
    ]
    assert left == []


def _toml(tables: dict[str, dict[str, object]]) -> Iterator[str]:
    for name, table in tables.items():
        yield f"[{name}]"
        yield from (f"{key} = {json.dumps(value)}" for key, value in table.items())
