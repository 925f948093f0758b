"""Known pitfalls of NETCONF collectors: ncclient #582, #337, #668, #371 (threads), and XML that explodes.

Every session of ncclient has threads of its own. What is counted here is what stays behind of them, and of
their sockets, when devices refuse, fall silent or are cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncssh
import psutil
import pytest
from collector_peers import LabAgents, eventually, inventory_of
from hostile_peers import HELLO, Anybody
from ncclient.transport.ssh import SSHSession

from collectors.netconf import NetconfPoller, OpenSessions, parse_interfaces
from collectors.service import run_collectors
from collectors.stats import CollectorStats
from ndtwin.lab.netconf_server import make_host_key
from twin.errors import DecodeError, DeviceError
from twin.records import NetworkEvent, Record


def _poller(lab: LabAgents, credentials: str, open_sessions: OpenSessions | None = None) -> NetconfPoller:
    access = f'{{ port = {lab.netconf_port}, credentials = "{credentials}" }}'
    inventory = inventory_of(f'name = "WA"\naddress = "127.0.0.1"\nnetconf = {access}', base=lab.directory)
    device = inventory.devices[0]
    return NetconfPoller.of(
        inventory, device, timeout_s=10.0, clock=time.time_ns, open_sessions=open_sessions
    )


def _threads() -> int:
    """Of this process, but for those in which asyncio lets a test wait."""
    return sum(not one.name.startswith("asyncio_") for one in threading.enumerate())


def _files() -> int:
    """Open files and sockets; ncclient leaves a selector to the garbage collector for every session."""
    gc.collect()
    return psutil.Process().num_fds()


async def test_polls_that_are_refused_or_end_leave_no_thread_and_no_socket(lab: LabAgents) -> None:
    """ncclient #668, #337: after a good poll, ten wrong passwords and ten sessions that do not stay open."""
    refused = _poller(lab, "netconf-wrong")
    passing = _poller(lab, "netconf", OpenSessions(0))
    await asyncio.to_thread(passing.read)
    with pytest.raises(DeviceError):
        await asyncio.to_thread(refused.read)
    before = _threads(), _files()
    for _ in range(10):
        with pytest.raises(DeviceError, match="refused user ndtwin"):
            await asyncio.to_thread(refused.read)
        assert len((await asyncio.to_thread(passing.read)).sample.interfaces) == 2
        assert not passing.session.is_open
    await eventually(lambda: _threads() <= before[0] and _files() <= before[1])


@contextlib.contextmanager
def _mute_server(directory: Path) -> Iterator[int]:
    """Takes connections and says nothing; gives its port."""
    with socket.create_server(("127.0.0.3", 0)) as listener:
        port = listener.getsockname()[1]
        (directory / "known_hosts").write_text(f"[127.0.0.3]:{port} {make_host_key(directory / 'mute')}\n")
        yield port


async def test_a_device_that_says_nothing_holds_one_thread_however_long_it_does(tmp_path: Path) -> None:
    """ncclient #582, #371: no poll begins before the one before has ended, and all end with the service."""
    before, most, log, stop = _threads(), 0, list[Record](), asyncio.Event()
    stats = CollectorStats()
    with _mute_server(tmp_path) as port:
        access = f'netconf = {{ port = {port}, credentials = "netconf" }}'
        inventory = inventory_of(f'name = "N"\naddress = "127.0.0.3"\n{access}', base=tmp_path)
        running = asyncio.create_task(
            run_collectors(inventory, log.append, stop=stop, stats=stats, poll_s=0.4, netconf_s=0.4)
        )
        begin = time.monotonic()
        while stats.timeouts < 4:
            most = max(most, sum("netconf" in one.name for one in threading.enumerate()))
            assert time.monotonic() - begin < 60
            await asyncio.sleep(0.02)
        stop.set()
        async with asyncio.timeout(20):
            await running
    assert most == 1
    assert [one.kind for one in log if isinstance(one, NetworkEvent)] == ["device-silent"]
    await eventually(lambda: _threads() <= before)


async def _without_end(process: Any) -> None:
    """A NETCONF server whose reply goes on."""
    process.stdout.write(HELLO.encode())
    await process.stdin.readuntil(b"]]>]]>")
    await process.stdin.readuntil(b"]]>]]>")
    process.stdout.write(b'<rpc-reply xmlns="urn:ietf:params:xml:ns:netconf:base:1.0"><data>')
    with contextlib.suppress(asyncssh.Error, OSError):
        while not process.stdout.is_closing():
            process.stdout.write(b"<x>" + b"a" * 65_536 + b"</x>")
            await process.stdout.drain()


@pytest.fixture
def no_garbage_collector() -> Iterator[None]:
    """It comes when many objects were made, and a reply at the limit is only a few."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_garbage_collector")
async def test_replies_that_were_cut_off_are_let_go(tmp_path: Path) -> None:
    """ncclient's session is a cycle with what it has read: of six attempts the last two are there at most."""
    key = tmp_path / "key"
    public = make_host_key(key)
    server = await asyncssh.create_server(
        Anybody, "127.0.0.1", 0, server_host_keys=[str(key)], process_factory=_without_end, encoding=None
    )
    port = server.get_port()
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}\n")
    access = f'{{ port = {port}, credentials = "netconf" }}'
    inventory = inventory_of(f'name = "WA"\naddress = "127.0.0.1"\nnetconf = {access}', base=tmp_path)
    poller = NetconfPoller.of(inventory, inventory.devices[0], timeout_s=30.0, clock=time.time_ns)
    poller.session.most_octets = 1 << 20
    for _ in range(6):
        with pytest.raises(DeviceError, match="reply is longer than 1024 KiB"):
            await asyncio.to_thread(poller.read)
    server.close()
    await server.wait_closed()
    assert sum(isinstance(one, SSHSession) for one in gc.get_objects()) <= 2


def _bomb() -> bytes:
    """Ten entities, each ten times the one before: ten billion octets."""
    entities = "<!ENTITY a 'aaaaaaaaaa'>"
    for before, name in zip("abcdefghi", "bcdefghiz", strict=True):
        entities += f"<!ENTITY {name} '{10 * f'&{before};'}'>"
    return f"<!DOCTYPE b [{entities}]><data>&z;</data>".encode()


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (_bomb(), "document type|amplification"),  # whichever libxml2 says
        (b"<data>" + 100_000 * b"<x>", "not XML"),
        (b"<data>" + b"<x>" * 5_000 + b"</x>" * 5_000 + b"</data>", "not XML"),
        (b"<data><x " + b" ".join(b'a%d="1"' % i for i in range(100_000)) + b"/></data", "not XML"),
        (b"<data>" + b"a" * (12 << 20) + b"</data>", "not XML"),
    ],
    ids=["ten billion laughs", "unclosed", "nested", "attributes", "one text of 12 MB"],
)
def test_xml_that_explodes_is_refused_at_once(reply: bytes, reason: str) -> None:
    """Within a second and without the memory that it would take."""
    begin, before = time.process_time(), psutil.Process().memory_info().rss
    with pytest.raises(DecodeError, match=reason):
        parse_interfaces(reply)
    assert time.process_time() - begin < 2
    assert psutil.Process().memory_info().rss - before < 100 << 20
