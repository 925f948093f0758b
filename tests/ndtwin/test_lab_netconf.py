"""The lab's NETCONF servers: framing, filters, and ncclient as the peer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab_doubles import make_device
from lxml import etree
from ncclient import manager
from ncclient.operations.rpc import RPCError
from ncclient.transport.errors import AuthenticationError, SSHUnknownHostError

from ndtwin.lab import netconf_framing as framing
from ndtwin.lab.device import Device
from ndtwin.lab.netconf_data import IF_NS, STATISTICS, data_trees
from ndtwin.lab.netconf_server import NC, NetconfServer, Session, make_host_key
from ndtwin.ports import free_address_block

T = TypeVar("T")
MESSAGES = [b"<a/>", b"<b>\n#4\n</b>", b"<c>" + b"x" * 5000 + b"</c>"]


# ---------------------------------------------------------------------------------------------- framing


@given(st.booleans(), st.lists(st.integers(1, 400), max_size=40))
def test_messages_survive_any_cut(chunked: bool, cuts: list[int]) -> None:
    """However the bytes arrive, the decoder gives the messages that were framed."""
    wire = b"".join(framing.encode(message, chunked=chunked) for message in MESSAGES)
    decoder = framing.Decoder()
    decoder.chunked = chunked
    got = []
    while wire:
        size = cuts.pop() if cuts else len(wire)
        decoder.feed(wire[:size])
        wire = wire[size:]
        while (message := decoder.next()) is not None:
            got.append(message)
    assert got == MESSAGES


def test_chunks_of_one_message_are_joined() -> None:
    """The example of RFC 6242 section 4.2: one message in three chunks."""
    decoder = framing.Decoder()
    decoder.chunked = True
    decoder.feed(b'\n#4\n<rpc\n#18\n message-id="102"\n\n#3\n/> \n##\n')
    assert decoder.next() == b'<rpc message-id="102"\n/> '
    assert decoder.next() is None


@pytest.mark.parametrize(
    "wire",
    [
        b"<rpc/>]]>]]>",
        b"\n#0\n",
        b"\n#05\nabcde",
        b"\n#99999999999\n",
        b"\n##\n",
        b"\n#4\nabcdX",
        b"\r\n#4\n",
    ],
)
def test_broken_chunks_end_the_session(wire: bytes) -> None:
    """What is no chunk is an error at once, not a wait for more (RFC 6242 section 4.2)."""
    decoder = framing.Decoder()
    decoder.chunked = True
    decoder.feed(wire)
    with pytest.raises(framing.FramingError):
        take_all(decoder)


def take_all(decoder: framing.Decoder) -> None:
    """Take messages while there are any; then what follows can be no header either."""
    while decoder.next() is not None:
        pass
    decoder.feed(b" " * 20)
    decoder.next()


def test_a_message_may_not_grow_for_ever() -> None:
    """A peer that never ends its message is cut off."""
    decoder = framing.Decoder()
    decoder.feed(b" " * framing.MAX_MESSAGE_OCTETS)
    with pytest.raises(framing.FramingError):
        decoder.feed(b" ")


# ---------------------------------------------------------------------------------------------- filters

FILTERS = {
    "everything": ("<interfaces/>", ["eth1", "cust0", "lo0"]),
    "by name": ("<interfaces><interface><name>cust0</name></interface></interfaces>", ["cust0"]),
    "two names": (
        "<interfaces><interface><name>lo0</name></interface><interface><name>eth1</name></interface></interfaces>",
        ["eth1", "lo0"],
    ),
    "no such name": ("<interfaces><interface><name>eth9</name></interface></interfaces>", []),
    "two matches": (
        "<interfaces><interface><name>eth1</name><oper-status>down</oper-status></interface></interfaces>",
        [],
    ),
    "another module": ('<interfaces xmlns="urn:other"/>', []),
    "no module": ('<interfaces xmlns=""/>', ["eth1", "cust0", "lo0"]),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters_select_interfaces(name: str) -> None:
    """Subtree filters by content match, union, namespace (RFC 6241 section 6)."""
    pattern, expected = FILTERS[name]
    trees = list(data_trees(make_device(), state=True, selector=_filter(pattern)))
    assert [element.text for tree in trees for element in tree.iter(f"{{{IF_NS}}}name")] == expected


def test_selection_nodes_leave_the_rest_out() -> None:
    """What is not selected is not sent; the matched key is."""
    wanted = "<interface><name>eth1</name><statistics><in-octets/></statistics></interface>"
    pattern = f"<interfaces>{wanted}</interfaces>"
    (tree,) = data_trees(make_device(), state=True, selector=_filter(pattern))
    leaves = [etree.QName(element).localname for element in tree.iter() if not len(element)]
    assert leaves == ["name", "in-octets"]


def test_configuration_holds_no_state() -> None:
    """get-config shows neither counters nor operational status nor system-state."""
    names = {etree.QName(e).localname for tree in data_trees(make_device(), state=False) for e in tree.iter()}
    assert {"name", "type", "enabled", "hostname"} <= names
    assert not names & {"statistics", "oper-status", "speed", "system-state"}


def _filter(pattern: str) -> Any:
    return etree.fromstring(f'<filter xmlns="{NC}"><x xmlns="{IF_NS}">{pattern}</x></filter>')[0]


# ---------------------------------------------------------------------------------------------- session

BASE = "<capability>urn:ietf:params:netconf:base:1.%d</capability>"
HELLO = f'<hello xmlns="{NC}"><capabilities>{BASE}</capabilities></hello>'


def _talk(version: int, rpc: str) -> str:
    session = Session(make_device())
    list(session.feed(framing.encode((HELLO % version).encode(), chunked=False)))
    (answer,) = session.feed(framing.encode(rpc.encode(), chunked=version == 1))
    assert answer.endswith(b"\n##\n" if version == 1 else b"]]>]]>")
    return answer.decode()


@pytest.mark.parametrize("version", [0, 1])
def test_both_framings_are_answered_in_kind(version: int) -> None:
    """A 1.0 peer gets ]]>]]>, a 1.1 peer chunks; the reply carries the rpc's attributes."""
    assert 'message-id="7"' in _talk(version, f'<rpc xmlns="{NC}" message-id="7"><close-session/></rpc>')


@pytest.mark.parametrize(
    ("rpc", "tag"),
    [
        ("not xml", "malformed-message"),
        ('<!DOCTYPE a [<!ENTITY e "x">]><rpc/>', "malformed-message"),
        (f'<rpc xmlns="{NC}"><get/></rpc>', "missing-attribute"),
        (f'<rpc xmlns="{NC}" message-id="1"/>', "malformed-message"),
        (f'<rpc xmlns="{NC}" message-id="1"><edit-config/></rpc>', "operation-not-supported"),
        (f'<rpc xmlns="{NC}" message-id="1"><get xmlns="urn:other"/></rpc>', "operation-not-supported"),
        (f'<rpc xmlns="{NC}" message-id="1"><get-config/></rpc>', "missing-element"),
        (
            f'<rpc xmlns="{NC}" message-id="1"><get-config><source><startup/></source></get-config></rpc>',
            "invalid-value",
        ),
        (f'<rpc xmlns="{NC}" message-id="1"><get><filter type="xpath"/></get></rpc>', "bad-attribute"),
    ],
)
def test_wrong_requests_get_an_rpc_error(rpc: str, tag: str) -> None:
    """Each mistake is answered by the error-tag of RFC 6241 appendix A; the session goes on."""
    assert f"<error-tag>{tag}</error-tag>" in _talk(1, rpc)


@pytest.mark.parametrize(
    "greeting", ["<hello/>", "nonsense", f'<rpc xmlns="{NC}" message-id="1"><get/></rpc>']
)
def test_a_session_begins_with_hello(greeting: str) -> None:
    """A peer that does not greet is not served."""
    session = Session(make_device())
    assert list(session.feed(framing.encode(greeting.encode(), chunked=False))) == []
    assert session.closed


# --------------------------------------------------------------------------------------------- ncclient


@dataclass
class Running:
    """A server that listens."""

    device: Device
    host: str
    port: int
    known_hosts: Path

    def connect(self, password: str = "right", **options: Any) -> Any:
        """An ncclient session. Its manager verifies the host key."""
        return manager.connect(
            host=self.host, port=self.port, username="ndtwin", password=password, timeout=10,
            hostkey_verify=True, allow_agent=False, look_for_keys=False, ssh_config=None,
            **options,
        )  # fmt: skip


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    """The double of lab_doubles behind SSH."""
    device, host = make_device(), free_address_block()[:-1] + "1"
    public = make_host_key(tmp_path / "key")
    server = NetconfServer(device, "ndtwin", "right")
    port = await server.listen(host, 0, tmp_path / "key")
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(f"[{host}]:{port} {public}\n")
    yield Running(device, host, port, known_hosts)
    await server.close()


async def _in_thread(action: Callable[[], T]) -> T:
    return await asyncio.to_thread(action)


def _key(running: Running) -> str:
    return running.known_hosts.read_text().split()[2]


@pytest.mark.live
async def test_ncclient_reads_statistics(running: Running) -> None:
    """ncclient negotiates base:1.1, checks the host key, and reads each counter as the device counts it."""

    def work() -> tuple[Any, list[str]]:
        with running.connect(hostkey_b64=_key(running)) as session:
            wanted = f'<interfaces xmlns="{IF_NS}"/>'
            return session.get(filter=("subtree", wanted)).data_ele, list(session.server_capabilities)

    data, capabilities = await _in_thread(work)
    assert "urn:ietf:params:netconf:base:1.1" in capabilities
    entry = next(e for e in data.iter(f"{{{IF_NS}}}interface") if e.findtext(f"{{{IF_NS}}}name") == "eth1")
    for leaf, counter in STATISTICS:
        found = entry.findtext(f"{{{IF_NS}}}statistics/{{{IF_NS}}}{leaf}")
        assert found == str(running.device.interface("eth1").counter(counter))


@pytest.mark.live
async def test_ncclient_learns_that_it_cannot_write(running: Running) -> None:
    """Operations this server lacks raise ncclient's RPCError with the right tag; the session survives."""

    def work() -> tuple[str, str]:
        with running.connect(hostkey_b64=_key(running)) as session:
            with pytest.raises(RPCError) as caught:
                session.lock("running")
            return caught.value.tag, session.get_config("running").data_xml

    tag, configuration = await _in_thread(work)
    assert tag == "operation-not-supported"
    assert "<hostname>WA</hostname>" in configuration


@pytest.mark.live
async def test_wrong_password_and_wrong_host_key_are_refused(running: Running) -> None:
    """Neither a wrong password nor a server with another key gets a session."""

    def wrong_password() -> None:
        with pytest.raises(AuthenticationError):
            running.connect(password="wrong", hostkey_b64=_key(running))

    def wrong_key() -> None:
        with pytest.raises(SSHUnknownHostError):
            running.connect(
                hostkey_b64="AAAAC3NzaC1lZDI1NTE5AAAAIHj1nGbyAlvq8Cli3wbxGDNrF/uCz0x3QajePBGh/aFz"
            )

    await _in_thread(wrong_password)
    await _in_thread(wrong_key)


def test_host_keys_are_kept(tmp_path: Path) -> None:
    """A second start finds the same key; the private half is readable by its owner alone."""
    file = tmp_path / "keys" / "WA"
    assert make_host_key(file) == make_host_key(file)
    assert file.stat().st_mode & 0o077 == 0
