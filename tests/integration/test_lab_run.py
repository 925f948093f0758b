"""A whole lab: started, collected from, controlled, stopped."""

from __future__ import annotations

import asyncio
import socket
import tomllib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from collectors.inventory import load_inventory
from collectors.service import run_collectors
from ndtwin.lab.client import LabClient
from ndtwin.lab.run import run_lab
from ndtwin.lab.settings import LabSettings
from ndtwin.ports import free_address_block, free_port
from twin.errors import PeerError, UsageError
from twin.records import DeadLetter, DelayReport, DeviceSample, DeviceTopology, FlowReport, Record

pytestmark = pytest.mark.live
PAIRS = 182  # of NSFNET's nodes


def settings(**changes: object) -> LabSettings:
    """A lab on addresses of its own."""
    own = {
        "base_address": free_address_block(),
        "ipfix_port": free_port(socket.SOCK_DGRAM),
        "probe_period_s": 1,
    }
    return LabSettings(**(own | changes))  # type: ignore[arg-type]  # keyword arguments of a test


@dataclass
class Running:
    """A lab that is ready."""

    inventory: Path
    client: LabClient
    stop: asyncio.Event
    ended: asyncio.Task[None]


@asynccontextmanager
async def running(wanted: LabSettings, run_dir: Path) -> AsyncIterator[Running]:
    """Start a lab, wait until it is ready, stop it."""
    ready: asyncio.Future[Path] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    ended = asyncio.create_task(run_lab(wanted, run_dir, stop, ready.set_result))
    done, _ = await asyncio.wait({ready, ended}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
    if ended in done:
        ended.result()
    try:
        yield Running(ready.result(), LabClient(run_dir), stop, ended)
    finally:
        stop.set()
        await ended


async def collect(inventory: Path, seconds: float, *, pairs: int = 0) -> list[Record]:
    """What our own collectors make of the lab in so much time; longer, at most a minute, where a busy machine
    loses polls and delays of so many pairs are not there yet."""
    records: list[Record] = []
    stop, enough = asyncio.Event(), asyncio.Event()

    def emit(record: Record) -> None:
        records.append(record)
        if len(measured_pairs(records)) >= pairs:
            enough.set()

    collecting = asyncio.create_task(
        run_collectors(load_inventory(inventory), emit, poll_s=1.0, window_s=4.0, stop=stop)
    )
    await asyncio.sleep(seconds)
    with suppress(TimeoutError):
        await asyncio.wait_for(enough.wait(), 60)
    stop.set()
    await collecting
    return records


def measured_pairs(records: list[Record]) -> set[tuple[str, str]]:
    """Device and destination of every delay."""
    return {(r.device, d.destination) for r in records if isinstance(r, DelayReport) for d in r.delays}


async def test_the_collectors_see_the_whole_network(tmp_path: Path) -> None:
    """The inventory is enough: every device by SNMP and NETCONF, every cable, every delay, all traffic."""
    async with running(settings(), tmp_path) as lab:
        records = await collect(lab.inventory, 10.0, pairs=PAIRS)
    names = {device["name"] for device in tomllib.loads(lab.inventory.read_text())["devices"]}
    assert [record for record in records if isinstance(record, DeadLetter)] == []
    samples = [r for r in records if isinstance(r, DeviceSample)]
    for source in ("snmp", "netconf"):
        assert {r.device for r in samples if r.source == source} == names
    check_cables([r for r in records if isinstance(r, DeviceTopology)])
    assert len({pair for pair in measured_pairs(records) if pair[0] in names}) == PAIRS
    flows = [r for r in records if isinstance(r, FlowReport)]
    assert {r.device for r in flows} == names
    assert not any(r.lost_records for r in flows)
    check_traffic([r for r in flows if r.device == "NY"], [r for r in samples if r.device == "NY"])


def check_cables(topologies: list[DeviceTopology]) -> None:
    """Both ends of all 21 cables tell of each other."""
    cables = {
        (r.device, n.local_interface, n.remote_device, n.remote_interface)
        for r in topologies
        for n in r.neighbours
    }
    assert len(cables) == 42
    assert all((there, remote, here, local) in cables for here, local, there, remote in cables)


def check_traffic(flows: list[FlowReport], samples: list[DeviceSample]) -> None:
    """What cust0 counts a second is what the flow records sum up to, give or take a second at the ends."""
    told = sum(cell.octets for report in flows for cell in report.cells if cell.ingress_interface)
    span_s = sum(report.end_ns - report.start_ns for report in flows if report.cells) / 1e9
    polls = [
        (r.observed_at_ns, next(i.in_octets or 0 for i in r.interfaces if i.name == "cust0"))
        for r in samples
        if r.source == "snmp"
    ]
    (first_ns, first), (last_ns, last) = polls[0], polls[-1]
    assert told / span_s == pytest.approx((last - first) / ((last_ns - first_ns) / 1e9), rel=0.3)


async def test_control_by_socket(tmp_path: Path) -> None:
    """The client starts, lists and stops faults; wrong wishes are UsageErrors; the socket goes at the end."""
    async with running(settings(), tmp_path) as lab:
        status = await asyncio.to_thread(lab.client.status)
        assert (status["network"], status["nodes"], status["links"]) == ("nsfnet", 14, 42)
        assert status["lag_s"] < 1.0
        record = await asyncio.to_thread(lab.client.start, "link-delay", "WA->CA1", 0.005)
        assert (record.target, record.magnitude, record.unit) == ("WA->CA1", 0.005, "s")
        faults = await asyncio.to_thread(lab.client.faults)
        assert [one.id for one in faults.active] == [record.id]
        assert {kind.fault for kind in faults.kinds} > {"link-delay", "link-capacity", "lying-probe"}
        with pytest.raises(UsageError, match="unknown link"):
            await asyncio.to_thread(lab.client.start, "link-delay", "A->B")
        with pytest.raises(UsageError, match="no active fault"):
            await asyncio.to_thread(lab.client.stop, "f77")
        stopped = await asyncio.to_thread(lab.client.stop, record.id)
        assert stopped.stopped_at_ns is not None
        assert stopped.stopped_at_ns > record.started_at_ns
    assert not (tmp_path / "lab.sock").exists()
    with pytest.raises(PeerError, match="ndtwin lab sim"):
        lab.client.status()


async def test_a_silent_device_is_heard_by_no_protocol(tmp_path: Path) -> None:
    """A silent device brings no record of any kind, the other thirteen do; here they are polled by SNMPv3."""
    async with running(settings(snmp_version="3"), tmp_path) as lab:
        await asyncio.to_thread(lab.client.start, "silent-device", "NE")
        records = await collect(lab.inventory, 7.0)
    heard = Counter(r.device for r in records if isinstance(r, DeviceSample | FlowReport | DeviceTopology))
    assert heard["NE"] == 0
    assert len(heard) == 13


async def test_secrets_stay_private_and_stay_the_same(tmp_path: Path) -> None:
    """Secrets are for their owner alone, never in the inventory, and a second start keeps them."""
    wanted = settings()
    async with running(wanted, tmp_path):
        files = [
            file
            for file in (tmp_path / "secrets").rglob("*")
            if file.is_file() and file.name != "known_hosts"
        ]
        before = {file: file.read_text() for file in files}
        assert all(file.stat().st_mode & 0o077 == 0 for file in files)
        text = (tmp_path / "inventory.toml").read_text()
        assert not any(
            content.strip() in text for file, content in before.items() if file.name != "engine-boots"
        )
    async with running(wanted, tmp_path):
        boots = tmp_path / "secrets" / "engine-boots"
        assert int(boots.read_text()) == int(before[boots]) + 1
        assert all(file.read_text() == before[file] for file in files if file != boots)


async def test_taken_ports_and_run_directories_are_told_in_one_line(tmp_path: Path) -> None:
    """A second lab on the same addresses or in the same directory ends with one line: what to do."""
    wanted = settings()
    async with running(wanted, tmp_path / "one"):
        with pytest.raises(UsageError, match="base_address") as caught:
            await run_lab(wanted, tmp_path / "two", asyncio.Event())
        assert "\n" not in str(caught.value)
        with pytest.raises(UsageError, match="runs already"):
            await run_lab(settings(), tmp_path / "one", asyncio.Event())
