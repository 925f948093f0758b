"""A NETCONF server over SSH for a lab device (RFC 6241, RFC 6242), read only.

1. Both sides send a hello, ended by ``]]>]]>``; ours tells base:1.0, base:1.1 and the YANG modules.
2. When both told base:1.1 the framing changes to chunks.
3. Every <rpc> is answered by one <rpc-reply> with the same attributes, in order.
4. <close-session> is answered, then the session ends.

:class:`Session` does all that from bytes to bytes; below it stand the SSH server and the log-in by
password.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import asyncssh
import structlog
from lxml import etree

from ndtwin.lab import netconf_framing as framing
from ndtwin.lab.device import Device
from ndtwin.lab.netconf_data import MODULES, Element, data_trees, new_element

NC = "urn:ietf:params:xml:ns:netconf:base:1.0"
BASE_1_0 = "urn:ietf:params:netconf:base:1.0"
BASE_1_1 = "urn:ietf:params:netconf:base:1.1"
READ_OCTETS = 65536
_session_ids = count(1)
_log = structlog.get_logger("ndtwin.lab")


class RpcError(Exception):
    """An <rpc-error> (RFC 6241 appendix A): type, tag, message, and error-info."""

    def __init__(self, kind: str, tag: str, message: str, info: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.kind, self.tag, self.message, self.info = kind, tag, message, info or {}


class Session:
    """One session: bytes from the peer in, bytes for the peer out."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.closed = False
        self._decoder = framing.Decoder()
        self._greeted = False
        self._id = next(_session_ids)

    def hello(self) -> bytes:
        """What the server sends first."""
        root = new_element(f"{{{NC}}}hello")
        capabilities = etree.SubElement(root, f"{{{NC}}}capabilities")
        modules = (f"{ns}?module={name}&revision={revision}" for ns, name, revision in MODULES)
        for uri in (BASE_1_0, BASE_1_1, *modules):
            etree.SubElement(capabilities, f"{{{NC}}}capability").text = uri
        etree.SubElement(root, f"{{{NC}}}session-id").text = str(self._id)
        return framing.encode(_serialise(root), chunked=False)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Answers to everything that is whole by now. FramingError: end the session."""
        self._decoder.feed(data)
        while not self.closed and (message := self._decoder.next()) is not None:
            if self._greeted:
                yield framing.encode(self._answer(message), chunked=self._decoder.chunked)
            else:
                self._greet(message)

    def _greet(self, message: bytes) -> None:
        """The peer's hello; anything else ends the session (RFC 6241 section 8.1)."""
        root = _parse(message)
        if root is None or root.tag != f"{{{NC}}}hello" or root.find(f"{{{NC}}}session-id") is not None:
            self.closed = True
            return
        told = {(element.text or "").strip() for element in root.iter(f"{{{NC}}}capability")}
        self.closed = not told & {BASE_1_0, BASE_1_1}
        self._decoder.chunked = BASE_1_1 in told
        self._greeted = True

    def _answer(self, message: bytes) -> bytes:
        root = _parse(message)
        reply = new_element(f"{{{NC}}}rpc-reply")
        try:
            self._perform(_operation(root, reply), reply)
        except RpcError as error:
            reply.append(_error_element(error))
        return _serialise(reply)

    def _perform(self, operation: Element, reply: Element) -> None:
        name = etree.QName(operation)
        handler = OPERATIONS.get(name.localname) if name.namespace == NC else None
        if handler is None:
            raise RpcError(
                "protocol", "operation-not-supported", f"{name.localname}: this server can only read"
            )
        handler(self, operation, reply)


# ------------------------------------------------------------------------------------------- operations


def _get(session: Session, operation: Element, reply: Element) -> None:
    _reply_data(session, operation, reply, state=True)


def _get_config(session: Session, operation: Element, reply: Element) -> None:
    source = operation.find(f"{{{NC}}}source")
    if source is None:
        raise RpcError("protocol", "missing-element", "get-config needs a source", {"bad-element": "source"})
    if source.find(f"{{{NC}}}running") is None:
        raise RpcError("protocol", "invalid-value", "the only datastore is running")
    _reply_data(session, operation, reply, state=False)


def _reply_data(session: Session, operation: Element, reply: Element, *, state: bool) -> None:
    selector = operation.find(f"{{{NC}}}filter")
    if selector is not None and selector.get("type", "subtree") != "subtree":
        info = {"bad-attribute": "type", "bad-element": "filter"}
        raise RpcError("protocol", "bad-attribute", "only subtree filters are supported", info)
    data = etree.SubElement(reply, f"{{{NC}}}data")
    data.extend(data_trees(session.device, state=state, selector=selector))


def _close(session: Session, operation: Element, reply: Element) -> None:
    etree.SubElement(reply, f"{{{NC}}}ok")
    session.closed = True


OPERATIONS: dict[str, Callable[[Session, Element, Element], None]] = {
    "get": _get,
    "get-config": _get_config,
    "close-session": _close,
}


# -------------------------------------------------------------------------------------------------- XML


def _parse(message: bytes) -> Element | None:
    """The root; None for malformed XML and for a document type, forbidden by RFC 6241 section 3."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, remove_comments=True, remove_pis=True)
    try:
        root = etree.fromstring(message, parser)
    except (etree.XMLSyntaxError, ValueError):
        return None
    document: Any = root.getroottree().docinfo  # the stubs know no doctype
    return None if document.doctype else root


def _operation(root: Element | None, reply: Element) -> Element:
    """The one operation of an <rpc>; the rpc's attributes go back on the reply (RFC 6241 section 4.2)."""
    if root is None or root.tag != f"{{{NC}}}rpc":
        raise RpcError("rpc", "malformed-message", "not a well-formed <rpc>")
    reply.attrib.update(root.attrib)
    if "message-id" not in root.attrib:
        info = {"bad-attribute": "message-id", "bad-element": "rpc"}
        raise RpcError("rpc", "missing-attribute", "rpc needs a message-id", info)
    children = [child for child in root if isinstance(child.tag, str)]
    if len(children) != 1:
        raise RpcError("rpc", "malformed-message", "an <rpc> holds exactly one operation")
    return children[0]


def _error_element(error: RpcError) -> Element:
    root = etree.Element(f"{{{NC}}}rpc-error")
    for name, value in (
        ("error-type", error.kind),
        ("error-tag", error.tag),
        ("error-severity", "error"),
        ("error-message", error.message),
    ):
        etree.SubElement(root, f"{{{NC}}}{name}").text = value
    if error.info:
        info = etree.SubElement(root, f"{{{NC}}}error-info")
        for name, value in error.info.items():
            etree.SubElement(info, f"{{{NC}}}{name}").text = value
    return root


def _serialise(root: Element) -> bytes:
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8")


# -------------------------------------------------------------------------------------------------- SSH


class _Login(asyncssh.SSHServer):  # type: ignore[misc]  # asyncssh is untyped here
    """One user, one password; a silent device does not even greet."""

    def __init__(self, server: NetconfServer) -> None:
        self._server = server
        self._connection: Any = None

    def connection_made(self, conn: Any) -> None:
        self._connection = conn
        if self._server.device.silent:
            conn.abort()
        else:
            self._server.connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self._connection)

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return self._server.knows(username, password)


class NetconfServer:
    """The server of one device."""

    def __init__(self, device: Device, username: str, password: str) -> None:
        self.device = device
        self.connections: set[Any] = set()
        self._username, self._password = username, password
        self._acceptor: Any = None

    def knows(self, username: str, password: str) -> bool:
        """Is this the user? Compared in constant time."""
        user = hmac.compare_digest(username.encode(), self._username.encode())
        return hmac.compare_digest(password.encode(), self._password.encode()) and user

    async def listen(self, address: str, port: int, host_key: Path) -> int:
        """Start; gives the port (0 asks for a free one)."""

        async def handle(process: Any) -> None:
            await _run_session(Session(self.device), process)

        self._acceptor = await asyncssh.create_server(
            lambda: _Login(self),
            address,
            port,
            server_host_keys=[str(host_key)],
            process_factory=handle,
            encoding=None,
            reuse_address=True,
        )
        return int(self._acceptor.get_port())

    async def close(self) -> None:
        """Stop listening and end all sessions."""
        self._acceptor.close()
        for connection in list(self.connections):
            connection.abort()
            await connection.wait_closed()
        await self._acceptor.wait_closed()


async def _run_session(session: Session, process: Any) -> None:
    if process.subsystem != "netconf":
        process.exit(1)
        return
    process.stdout.write(session.hello())
    try:
        while not session.closed and (data := await process.stdin.read(READ_OCTETS)):
            if session.device.silent:
                await _silence(session.device)
            for answer in session.feed(data):
                process.stdout.write(answer)
            await process.stdout.drain()
    except framing.FramingError as error:
        _log.warning("netconf-framing", device=session.device.name, reason=str(error))
    except (asyncssh.Error, BrokenPipeError, ConnectionError) as error:
        _log.info("netconf-peer-gone", device=session.device.name, reason=str(error))
    process.exit(0)


async def _silence(device: Device) -> None:
    """Hold what was asked until the device answers again."""
    while device.silent:  # noqa: ASYNC110  # the flag is set by the simulator's thread
        await asyncio.sleep(0.5)


def make_host_key(path: Path) -> str:
    """The public host key of a device; makes and keeps the private one at ``path`` when there is none yet."""
    if path.exists():
        key = asyncssh.read_private_key(str(path))
    else:
        key = asyncssh.generate_private_key("ssh-ed25519")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        key.write_private_key(str(path))
    return str(key.export_public_key().decode().strip())
