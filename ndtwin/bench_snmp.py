"""The SNMP collector: varbinds a second through its pollers, and a thousand devices polled by the service.

1. *Against snmpd* (Debian's net-snmp, an agent that we did not write): the pollers read its interface tables
   over and over, first with the fast engine, then the same work with the portable one. The collector is held
   to one core and snmpd to another, where there are two. So that there is something to read, all this runs in
   a network namespace of its own with 48 interfaces (``unshare``); where none can be made, snmpd shows what
   interfaces the machine has. ``cpu_varbinds_per_s`` is what the collector's core could do were snmpd faster.
2. *Against a thousand simulated devices* (:mod:`ndtwin.lab.swarm`), a tenth of them silent: the whole
   service, topology included. ``poll_s`` is the time from the beginning of a period to the last device's
   sample, the worst of the periods looked at; ``late`` counts the answering devices that missed one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import which
from typing import Any

from collectors.inventory import Device, Inventory, parse_inventory
from collectors.service import run_collectors
from collectors.snmp.engine import Traffic
from collectors.snmp.open import Shared, open_engine
from collectors.snmp.poller import SnmpPoller
from collectors.stats import CollectorStats
from ndtwin import logs
from ndtwin.lab.swarm import COMMUNITY, addresses
from ndtwin.ports import free_address_block, free_port
from twin.errors import PeerError
from twin.records import DeviceSample, Record

POLLERS = 4  # of one snmpd: enough that neither end waits for the other
VETH_PAIRS = 24
LEAST_RATIO_S = 1.0  # the portable engine takes about that for one round
PERIODS = 2  # looked at, after the first
_ENV = "NDTWIN_BENCH_COMMUNITY"
Watch = Callable[[str], None]


def bench_snmp(
    *, seconds: float = 5.0, devices: int = 1000, interfaces: int = 48, period_s: float = 10.0, watch: Watch
) -> dict[str, Any]:
    """All figures."""
    os.environ[_ENV] = COMMUNITY
    watch("snmpd: the fast engine, then the portable one")
    figures = _in_namespace(seconds)
    watch(f"{devices} simulated devices, {PERIODS + 1} periods of {period_s:g} s")
    return figures | bench_service(devices, interfaces, period_s)


# ------------------------------------------------------------------------------------------- against snmpd


def _in_namespace(seconds: float) -> dict[str, Any]:
    """Run :func:`_against_snmpd` in a network namespace with interfaces, or here where there can be none."""
    if which("snmpd") is None:
        return {"snmpd": "not installed: apt-get install snmpd"}
    for wrap in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"], []):
        if wrap and not _works([*wrap, "true"]):
            continue
        command = [*wrap, sys.executable, "-m", "ndtwin.bench_snmp", str(seconds), str(bool(wrap))]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60 + 10 * seconds)
        if done.returncode:
            raise PeerError(f"the bench against snmpd failed: {done.stderr.strip()[-300:]}")
        figures: dict[str, Any] = json.loads(done.stdout)
        return figures
    raise AssertionError("unreachable: the last way needs no namespace")


def _works(command: list[str]) -> bool:
    found = which(command[0]) is not None
    return found and subprocess.run(command, check=False, capture_output=True).returncode == 0


def _against_snmpd(seconds: float, own_namespace: bool) -> dict[str, Any]:
    if own_namespace:
        _make_interfaces()
    with snmpd() as port:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[0]})
        fast = asyncio.run(_rate(port, "gufo", seconds))
        portable = asyncio.run(_rate(port, "pysnmp", max(seconds / 2, LEAST_RATIO_S)))
    return {
        "varbinds_per_s": fast["varbinds_per_s"],
        "cpu_varbinds_per_s": fast["cpu_varbinds_per_s"],
        "pysnmp_varbinds_per_s": portable["varbinds_per_s"],
        "vs_pysnmp": fast["varbinds_per_s"] / portable["varbinds_per_s"],
        "interfaces": fast["interfaces"],
        "cores": len(cores),
    }


def _make_interfaces() -> None:
    lines = ["link set lo up"]
    for i in range(VETH_PAIRS):
        lines += [f"link add a{i} type veth peer name b{i}", f"link set a{i} up", f"link set b{i} up"]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)


@contextlib.contextmanager
def snmpd() -> Iterator[int]:
    """Debian's snmpd on a loopback port, on the last core; gives the port."""
    port, last = free_port(socket.SOCK_DGRAM), max(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="ndtwin-") as directory:
        config = Path(directory) / "snmpd.conf"
        config.write_text(f"agentaddress udp:127.0.0.1:{port}\nrocommunity {os.environ[_ENV]} 127.0.0.1\n")
        command = ["snmpd", "-C", "-c", str(config), "-f", "-Lf", f"{directory}/log", "-I", "-smux"]
        environment = {**os.environ, "SNMP_PERSISTENT_DIR": directory, "MIBS": ""}
        process = subprocess.Popen(command, env=environment, cwd=directory)
        os.sched_setaffinity(process.pid, {last})
        try:
            yield port
        finally:
            process.terminate()
            process.wait(10)


async def _rate(port: int, engine: str, seconds: float) -> dict[str, float]:
    """Varbinds a second of some pollers that read one agent for so long."""
    inventory = _inventory([("snmpd", "127.0.0.1")], port, engine)
    shared = Shared()
    pollers = [_poller(inventory, inventory.devices[0], shared) for _ in range(POLLERS)]
    first = await _first_sample(pollers[0])
    await asyncio.gather(*(poller.sample() for poller in pollers))
    before = shared.traffic.varbinds
    cpu, begin = time.process_time(), time.perf_counter()
    await asyncio.gather(*(_poll_until(poller, begin + seconds) for poller in pollers))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - begin
    for poller in pollers:
        poller.engine.close()
    await shared.close()
    read = shared.traffic.varbinds - before
    return {
        "varbinds_per_s": read / wall,
        "cpu_varbinds_per_s": read / cpu,
        "interfaces": len(first.interfaces),
    }


async def _first_sample(poller: SnmpPoller) -> DeviceSample:
    """The agent may still be starting."""
    for _ in range(20):
        with contextlib.suppress(TimeoutError):
            return await poller.sample()
        await asyncio.sleep(0.1)
    raise PeerError("snmpd does not answer: see whether another one runs")


async def _poll_until(poller: SnmpPoller, end: float) -> None:
    while time.perf_counter() < end:
        await poller.sample()


def _poller(inventory: Inventory, device: Device, shared: Shared) -> SnmpPoller:
    engine = open_engine(inventory, device, shared, timeout_s=2.0)
    return SnmpPoller(inventory.network, device.name, engine, engine, time.time_ns)


def _inventory(devices: list[tuple[str, str]], port: int, engine: str = "gufo") -> Inventory:
    rows = "".join(
        f'[[devices]]\nname = "{name}"\naddress = "{address}"\n'
        f'snmp = {{ port = {port}, credentials = "bench" }}\n'
        for name, address in devices
    )
    head = f'network = "bench"\nengine = "{engine}"\n[credentials.bench]\ncommunity = "env:{_ENV}"\n'
    return parse_inventory(head + rows)


# ---------------------------------------------------------------------------------------- against a swarm


class _Arrivals:
    """When which device's sample came, by period of its observation."""

    def __init__(self, period_s: float) -> None:
        self._period_ns = int(period_s * 1e9)
        self.rounds: dict[int, dict[str, float]] = defaultdict(dict)  # period → device → s after it began
        self.silent: set[str] = set()
        self.read_s: list[float] = []

    def __call__(self, record: Record) -> None:
        if isinstance(record, DeviceSample):
            number = record.observed_at_ns // self._period_ns
            self.rounds[number][record.device] = (time.time_ns() - number * self._period_ns) / 1e9
            self.read_s.append(record.poll_duration_s)
        elif getattr(record, "kind", "") == "device-silent":
            self.silent.add(record.device)  # type: ignore[attr-defined]  # it is a NetworkEvent


def bench_service(devices: int, interfaces: int, period_s: float) -> dict[str, Any]:
    """The whole service against simulated devices, a tenth of them silent."""
    os.environ[_ENV] = COMMUNITY
    silent, base = devices // 10, free_address_block()
    arguments = [base, "1161", str(devices), str(silent), str(interfaces)]
    agents = subprocess.Popen(
        [sys.executable, "-m", "ndtwin.lab.swarm", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert agents.stdout is not None
        if agents.stdout.readline().strip() != "ready":
            raise PeerError("the simulated agents did not start: see the lines above")
        names = [(f"d{i}", address) for i, address in enumerate(addresses(base, devices))]
        return asyncio.run(_watch_service(_inventory(names, 1161), silent, period_s))
    finally:
        agents.communicate("")


async def _watch_service(inventory: Inventory, silent: int, period_s: float) -> dict[str, Any]:
    arrivals, stats, stop = _Arrivals(period_s), CollectorStats(), asyncio.Event()
    wall_ns = int(period_s * 1e9)
    await asyncio.sleep(1 - time.time_ns() % wall_ns / 1e9 % 1)
    await asyncio.sleep((wall_ns - time.time_ns() % wall_ns) / 1e9)  # begin with a period
    first = time.time_ns() // wall_ns
    collecting = asyncio.create_task(
        run_collectors(inventory, arrivals, poll_s=period_s, topology_s=3 * period_s, stop=stop, stats=stats)
    )
    await asyncio.sleep(period_s)
    before, cpu = Traffic(**vars(stats.snmp)), time.process_time()
    await asyncio.sleep(PERIODS * period_s)
    cpu = time.process_time() - cpu
    read = stats.snmp.varbinds - before.varbinds
    await asyncio.sleep(period_s / 4)  # so that what is late is seen to be
    stop.set()
    await collecting
    rounds = [arrivals.rounds[first + k] for k in range(1, PERIODS + 1)]
    speakers = {device.name for device in inventory.devices[silent:]}
    return {
        "poll_s": max(max(found.values(), default=period_s) for found in rounds),
        "late": sum(len(speakers - set(found)) for found in rounds) + len(speakers & arrivals.silent),
        "silent": len(arrivals.silent - speakers),
        "devices": len(inventory.devices),
        "device_read_s": sorted(arrivals.read_s)[int(0.95 * len(arrivals.read_s))],
        "poll_varbinds": read / PERIODS,
        "poll_cpu_s": cpu / PERIODS,
        "overruns": stats.overruns,
    }


if __name__ == "__main__":
    logs.configure(logging.ERROR)  # stdout holds the figures alone
    print(json.dumps(_against_snmpd(float(sys.argv[1]), sys.argv[2] == "True")))
