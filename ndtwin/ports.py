"""Ports, addresses and a run directory of one's own, so that a drill or a test disturbs nobody."""

from __future__ import annotations

import contextlib
import random
import socket
import tempfile
from collections.abc import Iterator

Overrides = dict[str, dict[str, object]]


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM, host: str = "127.0.0.1") -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def free_address_block() -> str:
    """The base of a 127.x.y.0 block where nobody answers SNMP on the lab's port; not the default lab's."""
    while True:
        base = f"127.{random.randrange(40, 120)}.{random.randrange(256)}.0"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
            probe.bind((base[:-1] + "1", 1161))
            return base


@contextlib.contextmanager
def private_ports(run_dir: str | None = None) -> Iterator[tuple[str, Overrides]]:
    """(run directory, configuration overrides); the directory is temporary unless one is given."""
    with contextlib.ExitStack() as stack:
        own = run_dir or stack.enter_context(tempfile.TemporaryDirectory(prefix="ndtwin-"))
        yield (
            own,
            {
                "broker": {"port": free_port()},
                "serve": {"port": free_port()},
                "lab": {"base_address": free_address_block(), "ipfix_port": free_port(socket.SOCK_DGRAM)},
            },
        )
