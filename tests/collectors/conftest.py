"""Real peers for the collectors: Debian's snmpd, and the lab's agents on loopback sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from collector_peers import SECRETS, LabAgents, free_udp_port, lab_device, running_snmpd

from collectors.snmp.open import Shared
from ndtwin.lab.netconf_server import NetconfServer, make_host_key
from ndtwin.lab.snmp_agent import SnmpAccess, SnmpAgent, SnmpProtocol


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment that the credential sets refer to."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
async def shared() -> AsyncIterator[Shared]:
    """What the SNMP engines of a test share, closed at its end."""
    engines = Shared()
    yield engines
    await engines.close()


@pytest.fixture(scope="session")
def snmpd(tmp_path_factory: pytest.TempPathFactory, need_tool: Callable[[str], str]) -> Iterator[int]:
    """Debian's snmpd on a loopback port of its own; gives the port."""
    with running_snmpd(need_tool("snmpd"), tmp_path_factory.mktemp("snmpd")) as port:
        yield port


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[LabAgents]:
    """The lab's SNMP agent and NETCONF server for one device."""
    device, ports = lab_device(), (free_udp_port(), free_udp_port())
    access = SnmpAccess(SECRETS["T_COMMUNITY"], "ndtwin", SECRETS["T_AUTH"], SECRETS["T_PRIVACY"])
    loop = asyncio.get_running_loop()
    transports = []
    for address in ("127.0.0.1", "127.0.0.2"):  # the same device, twice
        transport, _ = await loop.create_datagram_endpoint(
            lambda: SnmpProtocol(SnmpAgent(device, access)), local_addr=(address, ports[0])
        )
        transports.append(transport)
    host_key = tmp_path / "host_key"
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{ports[1]} {make_host_key(host_key)}\n")
    server = NetconfServer(device, "ndtwin", SECRETS["T_PASSWORD"])
    await server.listen("127.0.0.1", ports[1], host_key)
    yield LabAgents(device, *ports, tmp_path)
    for transport in transports:
        transport.close()
    await server.close()
