"""A ring of routers as a GraphML file, whether this machine can run it in namespaces, and a lab that does."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ndtwin.lab.netns.tools import missing_packages

_PROBE = "ndtwint-probe"


def ring(path: Path, names: str = "ABCD") -> Path:
    """Write the file."""
    nodes = "".join(f'<node id="{n}"/>' for n in names)
    pairs = zip(names, names[1:] + names[0], strict=True)
    edges = "".join(f'<edge source="{a}" target="{b}"/>' for a, b in pairs)
    path.write_text(
        '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">'
        f'<graph edgedefault="undirected">{nodes}{edges}</graph></graphml>'
    )
    return path


def need_namespaces() -> None:
    """Skip, with the reason, where real routers cannot run."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if missing := missing_packages():
        pytest.skip(f"not installed: {' '.join(missing)}: run `make debian-test-packages`")
    try:
        for command in (
            f"ip netns add {_PROBE}",
            f"ip -n {_PROBE} link add probe0 type veth peer name probe1",
            f"tc -n {_PROBE} qdisc add dev probe0 root tbf rate 1mbit burst 2000 limit 20000",
        ):
            done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
            if done.returncode != 0:
                pytest.skip(f"this machine cannot: {command}: {done.stderr.strip()}")
    finally:
        subprocess.run(["ip", "netns", "del", _PROBE], capture_output=True, check=False)


@contextlib.contextmanager
def running_lab(topology: Path, run_dir: Path, start_s: float) -> Iterator[subprocess.Popen[bytes]]:
    """A lab of its own process, ready within ``start_s``; ended if it still runs."""
    run_dir.mkdir()
    argv = [sys.executable, "-m", "ndtwin", "lab", "netns"]
    argv += ["--topology", str(topology), "--run-dir", str(run_dir)]
    with (run_dir / "log").open("wb") as log:
        lab = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait(lambda: lab.poll() is not None or (run_dir / "inventory.toml").exists(), start_s)
        assert lab.poll() is None, (run_dir / "log").read_text()
        yield lab
    finally:
        if lab.poll() is None:
            lab.terminate()
            lab.wait(60)


def wait(done: Callable[[], object], timeout_s: float) -> None:
    """Until it is done; fails when the time is over."""
    deadline_s = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.1)
