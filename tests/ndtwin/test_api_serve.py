"""The service as a process of its own: records through a real broker, answers over real HTTP."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from rehearsal import Rehearsal, heartbeats

from ndtwin.api.feed import Feed
from ndtwin.api.store import Store
from ndtwin.serve import bind
from stream.consumer import Message
from stream.publisher import Publisher
from twin.errors import UsageError

ROOT = Path(__file__).parents[2]
SERVE = """
import asyncio, signal, sys
from ndtwin.config import ServeSettings
from ndtwin.serve import run_serve

async def main(bootstrap, port):
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await run_serve(ServeSettings(port=port), bootstrap, stop)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


@pytest.fixture
def served(kafka: str, port: int) -> Iterator[str]:
    """The address of a running service; afterwards it must end cleanly within ten seconds of SIGTERM."""
    process = subprocess.Popen([sys.executable, "-c", SERVE, kafka, str(port)], cwd=ROOT)
    yield f"http://127.0.0.1:{port}"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 0


def eventually(url: str, timeout_s: float = 40.0) -> httpx.Response:
    """GET until it answers 200."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        try:
            answer = httpx.get(url, timeout=5)
        except httpx.TransportError:
            answer = None
        if answer is not None and answer.status_code == 200:
            return answer
        time.sleep(0.3)
    raise AssertionError(f"{url} did not answer 200 in {timeout_s:g} s")


@pytest.mark.kafka
def test_records_on_the_topics_become_answers(kafka: str, served: str) -> None:
    """What is published to Kafka before and after the start is served, streamed, and used by the example."""
    rehearsal = Rehearsal()
    with Publisher(kafka, 1) as publisher:
        for window in rehearsal.windows(3):
            for record in window:
                publisher.publish(record)
        publisher.flush()
        eventually(f"{served}/api/v1/networks/nsfnet/state")
        latest = rehearsal.window()
        for record in (*latest, *heartbeats(time.time_ns())):
            publisher.publish(record)
        publisher.flush()
        eventually(f"{served}/api/v1/health")
    (network,) = httpx.get(f"{served}/api/v1/networks").json()
    assert (network["windows_seen"], network["window"]["version"]) == (4, latest[0].version)
    assert "<title>ndtwin</title>" in httpx.get(f"{served}/").text
    assert first_event(f"{served}/api/v1/stream/state")["window"]["version"] == latest[0].version
    advice = optimiser(served)
    assert advice.returncode == 0, advice.stderr
    assert f"window {latest[0].version}: " in advice.stdout


@pytest.mark.kafka
def test_an_open_stream_does_not_hold_the_service(kafka: str, port: int) -> None:
    """A client on the event stream: the service ends within five seconds of SIGTERM, the stream ends well."""
    process = subprocess.Popen([sys.executable, "-c", SERVE, kafka, str(port)], cwd=ROOT)
    eventually(f"http://127.0.0.1:{port}/api/v1/networks")
    with httpx.stream("GET", f"http://127.0.0.1:{port}/api/v1/stream/state", timeout=10) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("retry:")
        process.send_signal(signal.SIGTERM)
        assert [line for line in lines if line.startswith("event:")] == []
    assert process.wait(timeout=5) == 0


def first_event(url: str) -> dict[str, dict[str, int]]:
    """The first event of a stream."""
    with httpx.stream("GET", url, timeout=10) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                event: dict[str, dict[str, int]] = json.loads(line[6:])
                return event
    raise AssertionError("the stream ended without an event")


def optimiser(url: str) -> subprocess.CompletedProcess[str]:
    """The example, run as a user would."""
    command = [sys.executable, "examples/optimiser.py", "--api", f"{url}/api/v1", "--windows", "1"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_the_example_says_when_nobody_answers(port: int) -> None:
    """One line, exit code 1."""
    ended = optimiser(f"http://127.0.0.1:{port}")
    assert ended.returncode == 1
    assert "start it with `ndtwin up`" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_a_port_in_use_is_one_clear_line() -> None:
    """Which port, why, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            UsageError, match=rf"cannot listen on 127.0.0.1:{port} \(Address already in use\): stop"
        ):
            bind("127.0.0.1", port)


def test_bytes_that_are_no_record_are_told_and_the_rest_goes_on() -> None:
    """A message that cannot be decoded becomes a line of the journal and a count, and nothing else."""
    store = Store()
    feed = Feed(store, "127.0.0.1:1")
    for offset, payload in enumerate((b"", b"\xff\xfe", b'{"type":"StateUpdate"}', b'{"type":"Alert"}')):
        feed.take(Message("ndt.state", 0, offset, 1000 + offset, None, payload))
    assert store.counters()["dead_letters"] == {"ndt.state": 4}
    assert len(store.journal()) == 4
    assert store.networks() == ()
