"""A whole run among devices that mean harm: one clear event each, nobody else affected, no secret anywhere.

Everything is real: sockets, SSH, the lab's agents, net-snmp's programs. What is looked for in the end is what
the operator would look through: every record (they become topics), every log line down to debug, stderr.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import asyncssh
import msgspec
import pytest
from collector_peers import SECRETS, LabAgents, eventually, free_udp_port, inventory_of
from hostile_peers import HELLO, Answer, Anybody, Scripted
from ipfix_bytes import EXAMPLE, Fields, message, template
from pyasn1.codec.ber import decoder, encoder
from pysnmp.proto.api import v2c

from collectors.inventory import Inventory
from collectors.service import run_collectors
from collectors.stats import CollectorStats
from ndtwin import logs
from ndtwin.lab.netconf_server import make_host_key
from twin.records import DeadLetter, DeviceSample, FlowReport, NetworkEvent, Record

POLL_S = 1.0


# ---------------------------------------------------------------------------------------------- SNMP agents


def rows_for_ever(request: bytes) -> list[bytes]:
    """Rows behind whatever was asked for, always further on."""
    asked, _ = decoder.decode(request, asn1Spec=v2c.Message())
    *root, last = tuple(v2c.apiPDU.get_varbinds(v2c.apiMessage.get_pdu(asked))[0][0])
    if len(root) < 10:  # a column
        root, last = [*root, last], 0
    return [_response(asked, [((*root, last + i), v2c.Integer(1)) for i in range(1, 20)])]


def circles(request: bytes) -> list[bytes]:
    """The same row twice, whatever was asked for."""
    asked, _ = decoder.decode(request, asn1Spec=v2c.Message())
    first = tuple(v2c.apiPDU.get_varbinds(v2c.apiMessage.get_pdu(asked))[0][0])
    return [_response(asked, [((*first, 1), v2c.Integer(7))] * 2)]


def noise(_request: bytes) -> list[bytes]:
    """Octets."""
    return [random.Random(1).randbytes(300), b"\x30\x84\xff\xff\xff\xff\x02\x01\x01", b""]


def _response(asked: Any, rows: list[tuple[tuple[int, ...], Any]]) -> bytes:
    response = v2c.apiMessage.get_response(asked)
    v2c.apiPDU.set_varbinds(v2c.apiMessage.get_pdu(response), rows)
    return bytes(encoder.encode(response))


# ------------------------------------------------------------------------------------------ NETCONF servers


class Nobody(asyncssh.SSHServer):  # type: ignore[misc]  # asyncssh is untyped here
    """Asks for a password, and takes none."""

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return False


async def without_end(process: Any) -> None:
    """A reply that goes on for 200 MB."""
    process.stdout.write(HELLO.encode())
    await process.stdin.readuntil(b"]]>]]>")
    await process.stdin.readuntil(b"]]>]]>")
    process.stdout.write(b'<rpc-reply xmlns="urn:ietf:params:xml:ns:netconf:base:1.0"><data>')
    try:
        for _ in range(800):
            if process.stdout.is_closing():
                return
            process.stdout.write(b"<x>" + b"a" * (256 << 10) + b"</x>")
            await process.stdout.drain()
    except (asyncssh.Error, OSError):
        return


async def nonsense(process: Any) -> None:
    """A reply that is another one every time, and never XML."""
    process.stdout.write(HELLO.encode())
    number = random.Random(2)
    try:
        while True:
            await process.stdin.readuntil(b"]]>]]>")
            process.stdout.write(f"<rpc-reply><{number.randrange(10**9)}></x>]]>]]>".encode())
    except (asyncssh.Error, OSError, asyncio.IncompleteReadError):
        return


# ------------------------------------------------------------------------------------------- the network

# Address → name, and what answers there; all at one port each for SNMP and NETCONF.
SNMP: dict[str, tuple[str, Answer]] = {
    "127.0.0.11": ("circles", circles),
    "127.0.0.12": ("rows", rows_for_ever),
    "127.0.0.13": ("noise", noise),
    "127.0.0.14": ("mute", lambda _: []),
}
NETCONF: dict[str, tuple[str, type, Callable[[Any], Awaitable[None]]]] = {
    "127.0.0.21": ("200 MB", Anybody, without_end),
    "127.0.0.22": ("no XML", Anybody, nonsense),
    "127.0.0.23": ("wrong password", Nobody, nonsense),
}
EXPORTERS = {"127.0.0.31": "bomb", "127.0.0.32": "junk"}

# Who is told, once, and as what; the text that the operator reads must hold these words.
TOLD = {
    "circles": ("device-refuses", "walks in circles"),
    "rows": ("device-refuses", "does not end in time"),
    "noise": ("device-refuses", "SNMP refused"),
    "mute": ("device-silent", "no answer within"),
    "wrong key": ("device-refuses", "check user, protocols and keys"),
    "200 MB": ("device-refuses", "reply is longer than"),
    "no XML": ("device-silent", "no answer within"),
    "wrong password": ("device-refuses", "refused user ndtwin: check the credentials"),
    "bomb": ("flows-undecoded", "templates of more than"),
    "junk": ("flows-undecoded", "neither IPFIX (10) nor NetFlow"),
    "WA": ("trap-refused", "unknown community"),
}


@asynccontextmanager
async def hostile(directory: Path, snmp_port: int, netconf_port: int) -> AsyncIterator[None]:
    """All that mean harm and answer."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        for address, (_, answer) in SNMP.items():
            transport, _ = await loop.create_datagram_endpoint(
                partial(Scripted, answer), local_addr=(address, snmp_port)
            )
            stack.callback(transport.close)
        key = directory / "hostile_key"
        public = make_host_key(key)
        for address, (_, server, handle) in NETCONF.items():
            acceptor = await asyncssh.create_server(
                server, address, netconf_port, server_host_keys=[str(key)],
                process_factory=handle, encoding=None,
            )  # fmt: skip
            stack.push_async_callback(acceptor.wait_closed)
            stack.callback(acceptor.close)
            with (directory / "known_hosts").open("a") as known:
                known.write(f"[{address}]:{netconf_port} {public}\n")
        yield


def inventory(lab: LabAgents, ports: Ports) -> Inventory:
    """One good device with everything, and the others."""

    def device(name: str, address: str, more: str) -> str:
        return f'name = "{name}"\naddress = "{address}"\n{more}'

    def snmp(port: int, credentials: str = "v2c") -> str:
        return f'snmp = {{ port = {port}, credentials = "{credentials}" }}\n'

    def netconf(port: int) -> str:
        return f'netconf = {{ port = {port}, credentials = "netconf" }}\n'

    good = snmp(lab.snmp_port) + netconf(lab.netconf_port) + "ipfix = true"
    return inventory_of(
        device("WA", "127.0.0.1", good),
        device("wrong key", "127.0.0.2", snmp(lab.snmp_port, "v3-wrong")),
        *(device(name, address, snmp(ports.snmp)) for address, (name, _) in SNMP.items()),
        *(device(name, address, netconf(ports.netconf)) for address, (name, *_) in NETCONF.items()),
        *(device(name, address, "ipfix = true") for address, name in EXPORTERS.items()),
        base=lab.directory,
        more=f'[ipfix]\nlisten = "127.0.0.1:{ports.flows}"\n[traps]\nlisten = "127.0.0.1:{ports.traps}"\n',
    )


class Ports(NamedTuple):
    """Of the hostile agents, and of the collector's listeners."""

    snmp: int
    netconf: int
    flows: int
    traps: int


def send_flows(port: int) -> None:
    """Templates of a thousand elements without end, octets that are none, and two good messages."""
    fields: Fields = [(element, 1) for element in range(1, 901)]
    bomb = [message(template(256 + number, fields)) for number in range(80)]
    datagrams = {
        "127.0.0.31": bomb,
        "127.0.0.32": [random.Random(number).randbytes(200) for number in range(500)],
        "127.0.0.1": [EXAMPLE, EXAMPLE],
    }
    for address, sent in datagrams.items():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind((address, 0))
            for datagram in sent:
                sender.sendto(datagram, ("127.0.0.1", port))


def send_traps(snmptrap: str, port: int) -> None:
    """Three under a community that is wrong."""
    command = [snmptrap, "-v2c", "-c", SECRETS["T_WRONG"], f"127.0.0.1:{port}", "1", "1.3.6.1.6.3.1.1.5.3"]
    for _ in range(3):
        subprocess.run(command, check=True, timeout=20, env={"MIBS": "", "PATH": ""})


@pytest.mark.usefixtures("own_logging")
async def test_who_means_harm_is_told_once_and_harms_nobody(
    lab: LabAgents, need_tool: Callable[[str], str], capfd: pytest.CaptureFixture[str]
) -> None:
    """Eleven ways to be wrong beside a good device, which is read as if it were alone; no secret anywhere."""
    logs.configure(logging.DEBUG)  # as `ndtwin collect` does it, and more
    snmptrap = need_tool("snmptrap")
    ports = Ports(*(free_udp_port() for _ in Ports._fields))
    log: list[Record] = []
    stats, stop = CollectorStats(), asyncio.Event()
    async with hostile(lab.directory, ports.snmp, ports.netconf):
        running = asyncio.create_task(
            run_collectors(
                inventory(lab, ports), log.append, poll_s=POLL_S, window_s=2.0, stop=stop, stats=stats,
                netconf_s=5 * POLL_S, topology_s=3 * POLL_S,
            )
        )  # fmt: skip
        try:
            await eventually(lambda: _samples(log), 20)
            send_flows(ports.flows)
            await asyncio.to_thread(send_traps, snmptrap, ports.traps)
            await eventually(lambda: all(k in _told(log).get(n, ()) for n, (k, _) in TOLD.items()), 60)
            await asyncio.sleep(4 * POLL_S)  # whoever is told again would be told again by then
        finally:
            stop.set()
            async with asyncio.timeout(20):
                await running
    told = _told(log)
    assert [n for n, kinds in told.items() if max(Counter(kinds).values()) > 1] == []  # nothing twice
    assert told.keys() == TOLD.keys()
    assert all(set(kinds) <= {TOLD[name][0], "device-silent"} for name, kinds in told.items()), told
    details = {name: _details(log, name, kind) for name, (kind, _) in TOLD.items()}
    assert {n: text for n, text in details.items() if TOLD[n][1] not in text} == {}
    assert {device for one in log if (device := getattr(one, "device", "")) in TOLD} == set(TOLD)
    assert {sample.device for sample in _samples(log)} == {"WA"}
    assert 5 * stats.targets["WA/snmp"].failures <= stats.targets["WA/snmp"].polls  # on a busy machine
    assert set(told["WA"]) == {"trap-refused"}
    assert sum(c.octets for r in log if isinstance(r, FlowReport) and r.device == "WA" for c in r.cells) > 0
    logged = capfd.readouterr()
    _hold_no_secret(logged.out + logged.err, log)
    assert "device cannot be read" in logged.err
    assert "Traceback" not in logged.err


def _samples(log: list[Record]) -> list[DeviceSample]:
    return [one for one in log if isinstance(one, DeviceSample)]


def _told(log: list[Record]) -> dict[str, list[str]]:
    """Device → what was told of it."""
    told: dict[str, list[str]] = {}
    for one in log:
        if isinstance(one, NetworkEvent):
            told.setdefault(one.device, []).append(one.kind)
    return told


def _details(log: list[Record], device: str, kind: str) -> str:
    events = (one for one in log if isinstance(one, NetworkEvent))
    return next(one.detail for one in events if (one.device, one.kind) == (device, kind))


def _hold_no_secret(logged: str, log: list[Record]) -> None:
    """Neither as they are nor as octets, in what is logged and in what becomes topics."""
    records = msgspec.json.encode(log) + b"".join(one.payload for one in log if isinstance(one, DeadLetter))
    for name, secret in SECRETS.items():
        for form in (secret.encode(), secret.encode().hex().encode()):
            assert form not in logged.encode(), f"{name} is in the log"
            assert form not in records, f"{name} is in a record"
