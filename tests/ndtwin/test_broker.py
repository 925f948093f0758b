"""The embedded broker: starts, says why it cannot, and loses nothing that matters in a controlled restart."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from topics_seen import state

from ndtwin.broker import EmbeddedBroker
from stream.admin import ensure_topics
from stream.consumer import Message, Reader, decode_message
from stream.publisher import Publisher
from twin.errors import BrokerUnavailable, ConfigError

pytestmark = pytest.mark.kafka


def test_a_broker_is_ready_within_five_seconds_and_stops_without_a_trace(tmp_path: Path, port: int) -> None:
    """start() returns a broker that answers; stop() leaves neither a process nor a listener."""
    broker = EmbeddedBroker(port=port, log=tmp_path / "broker.log")
    before = time.monotonic()
    broker.start()
    assert time.monotonic() - before < 5
    assert broker.alive
    assert broker.rss_bytes() > 1_000_000
    pid = broker.pid
    broker.stop()
    assert (broker.alive, broker.pid, broker.rss_bytes()) == (False, 0, 0)
    assert not psutil.pid_exists(pid)
    socket.create_server(("127.0.0.1", port)).close()


def test_a_port_in_use_is_named_in_one_line(tmp_path: Path) -> None:
    """A broker whose port is taken says which port and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with pytest.raises(
            BrokerUnavailable, match=f"port {taken} .* in use: stop what listens there"
        ) as caught:
            EmbeddedBroker(port=taken, log=tmp_path / "broker.log").start()
    assert "\n" not in str(caught.value)


def test_an_impossible_port_is_a_wrong_configuration(tmp_path: Path) -> None:
    """A port that no machine has is the operator's mistake, not the broker's."""
    with pytest.raises(ConfigError, match=r"broker\.port is 70000"):
        EmbeddedBroker(port=70_000, log=tmp_path / "broker.log").start()


def test_every_start_is_a_new_epoch_that_clients_see(embedded: EmbeddedBroker) -> None:
    """The cluster id changes with every start, so offsets of two lives can be told apart."""
    ensure_topics(embedded.bootstrap, 1)
    with Reader(embedded.bootstrap, ["ndt.state"]) as reader:
        first = reader.epoch
    assert first == embedded.epoch
    embedded.restart()
    assert embedded.epoch != first


def test_a_reader_notices_that_the_broker_came_back_empty(embedded: EmbeddedBroker) -> None:
    """A reader far into the old log starts at the beginning of the new one instead of waiting for ever."""
    ensure_topics(embedded.bootstrap, 1)
    with Publisher(embedded.bootstrap, 1) as publisher, Reader(embedded.bootstrap, ["ndt.state"]) as reader:
        publisher.publish_all([state(v) for v in range(50)])
        publisher.flush()
        assert len(list(reader.iterate_to_end())) == 50
        embedded.restart()
        ensure_topics(embedded.bootstrap, 1)
        publisher.publish(state(99))
        assert publisher.flush(10) == 0
        found: list[Message] = []
        deadline = time.monotonic() + 15
        while not found and time.monotonic() < deadline:
            found = reader.poll(0.2)
        assert [decode_message(m) for m in found] == [state(99)]
        assert reader.epoch == embedded.epoch


_OWNER = """
import sys, time
from pathlib import Path
from ndtwin.broker import EmbeddedBroker
broker = EmbeddedBroker(port=int(sys.argv[1]), log=Path(sys.argv[2]))
broker.start()
print(broker.pid, flush=True)
time.sleep(60)
"""


def test_the_broker_does_not_outlive_an_owner_that_is_killed(tmp_path: Path, port: int) -> None:
    """kill -9 of the process that started the broker ends the broker too."""
    arguments = [sys.executable, "-c", _OWNER, str(port), str(tmp_path / "broker.log")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        broker = psutil.Process(int(owner.stdout.readline()))
        os.kill(owner.pid, signal.SIGKILL)
    gone, _ = psutil.wait_procs([broker], timeout=5)
    assert gone == [broker]
