"""One device by NETCONF over SSH (RFC 6241, RFC 6242): ietf-interfaces (RFC 8343) → DeviceSample.

The mapping is a pure function over XML. The session is ncclient's, which blocks, so it lives in a thread of a
bounded pool; whoever calls sets the deadline, and a session that fails is thrown away. Host keys are checked
against a known_hosts file, always: a device whose key is unknown or changed is refused before a password is
sent.

A NETCONF sample has no sysUpTime, and its discontinuity time is a date: ``discontinuity_at_ns`` counts from
the Unix epoch here. Only whether it moved matters, and the stream compares samples of one source.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from lxml import etree
from ncclient import NCClientError, manager
from ncclient.operations.errors import TimeoutExpiredError
from ncclient.transport.errors import AuthenticationError, SSHUnknownHostError
from paramiko import HostKeys, SSHException  # type: ignore[import-untyped]  # ships no types

from collectors.inventory import Credentials, Device, Inventory
from twin.errors import DecodeError, DeviceError, NdtwinError
from twin.records import DeviceSample, InterfaceCounters

NAMESPACE = "urn:ietf:params:xml:ns:yang:ietf-interfaces"
# RFC 8343 keeps state in `interfaces`; devices of RFC 7223 have it in `interfaces-state`.
_CONTAINERS = ("interfaces", "interfaces-state")
_FILTER = [f'<{container} xmlns="{NAMESPACE}"/>' for container in _CONTAINERS]
_KEY_TYPES = (  # ssh-rsa last: ncclient then asks for its SHA-1 signature, which new servers refuse
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
)

Leaves = Mapping[str, str]  # path below the list entry → text


def _date_ns(text: str) -> int:
    """yang:date-and-time (RFC 6991) → nanoseconds since the epoch."""
    return int(datetime.fromisoformat(text).timestamp() * 1_000_000) * 1_000


# Leaf → (field, what reads it). Unicast packets, as SNMP's tables count.
_MAPPING: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "if-index": ("if_index", int),
    "admin-status": ("admin_up", lambda text: text == "up"),
    "enabled": ("admin_up", lambda text: text == "true"),
    "oper-status": ("oper_up", lambda text: text == "up"),
    "speed": ("speed_bps", float),
    "statistics/discontinuity-time": ("discontinuity_at_ns", _date_ns),
    "statistics/in-octets": ("in_octets", int),
    "statistics/out-octets": ("out_octets", int),
    "statistics/in-unicast-pkts": ("in_packets", int),
    "statistics/out-unicast-pkts": ("out_packets", int),
    "statistics/in-discards": ("in_discards", int),
    "statistics/out-discards": ("out_discards", int),
    "statistics/in-errors": ("in_errors", int),
    "statistics/out-errors": ("out_errors", int),
}


def parse_interfaces(reply: bytes) -> tuple[InterfaceCounters, ...]:
    """An <rpc-reply> or <data> → its interfaces, by name; DecodeError when it is not what it should be."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, remove_comments=True, remove_pis=True)
    try:
        root = etree.fromstring(reply, parser)
    except etree.XMLSyntaxError as error:
        raise DecodeError(f"NETCONF reply is not XML: {error}") from error
    document: Any = root.getroottree().docinfo
    if document.doctype:
        raise DecodeError("NETCONF reply has a document type, which RFC 6241 section 3 forbids")
    found: dict[str, dict[str, str]] = {}
    for container in _CONTAINERS:
        for entry in root.iterfind(f".//{{{NAMESPACE}}}{container}/{{{NAMESPACE}}}interface"):
            leaves = dict(_leaves(entry))
            found[leaves.get("name", "")] = leaves | found.get(leaves.get("name", ""), {})
    return tuple(_interface(name, found[name]) for name in sorted(found) if name)


def _leaves(entry: Any) -> list[tuple[str, str]]:
    found = []
    for child in entry:
        name = etree.QName(child)
        if name.namespace != NAMESPACE:
            continue  # augmentations of other modules
        if len(child):
            found += [(f"{name.localname}/{path}", text) for path, text in _leaves(child)]
        else:
            found.append((name.localname, (child.text or "").strip()))
    return found


def _interface(name: str, leaves: Leaves) -> InterfaceCounters:
    fields: dict[str, Any] = {"if_index": 0}
    for leaf, (field, read) in _MAPPING.items():
        if field not in fields or field == "if_index":
            try:
                fields |= {field: read(leaves[leaf])} if leaf in leaves else {}
            except ValueError as error:
                raise DecodeError(f"NETCONF interface {name}: {leaf} is {leaves[leaf]!r}") from error
    return InterfaceCounters(name=name, **fields)


@dataclass
class NetconfPoller:
    """Reads one device; ``sample`` blocks, so call it in a thread. The session stays open between polls."""

    network: str
    device: Device
    credentials: Credentials
    known_hosts: Path
    key_file: Path | None
    timeout_s: float
    clock: Callable[[], int]
    _session: Any = None
    _socket: socket.socket | None = None

    @classmethod
    def of(
        cls, inventory: Inventory, device: Device, *, timeout_s: float, clock: Callable[[], int]
    ) -> NetconfPoller:
        """The poller of a device that has ``netconf``."""
        assert device.netconf is not None, "callers pass devices with netconf"
        credentials = inventory.credentials[device.netconf.credentials]
        known_hosts = inventory.path(credentials.host_key_file or "~/.ssh/known_hosts")
        key_file = inventory.path(credentials.key_file) if credentials.key_file else None
        return cls(inventory.network, device, credentials, known_hosts, key_file, timeout_s, clock)

    def sample(self) -> DeviceSample:
        """One poll. TimeoutError when silent, DeviceError when refused: the session is closed then."""
        begin = time.perf_counter()
        try:
            before_ns = self.clock()
            reply = self._open().get(filter=_FILTER)
            observed_at_ns = (before_ns + self.clock()) // 2
            found = parse_interfaces(reply.xml.encode())
        except Exception as error:
            self.close()
            raise _plain(error, self) from error
        return DeviceSample(
            network=self.network,
            device=self.device.name,
            observed_at_ns=observed_at_ns,
            source="netconf",
            poll_duration_s=time.perf_counter() - begin,
            interfaces=found,
        )

    def cut(self) -> None:
        """Break the connection from another thread: whatever ``sample`` waits for fails at once."""
        if self._socket is not None:
            with contextlib.suppress(OSError):  # not connected any more
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the session, whatever state it is in."""
        session, self._session = self._session, None
        self.cut()
        if session is not None:
            session._session.close()  # close_session would first wait for the device's consent
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self) -> Any:
        if self._session is not None and self._session.connected:
            return self._session
        self.close()
        assert self.device.netconf is not None
        password, host_key = self.credentials.password, self._host_key()
        where = (self.device.address, self.device.netconf.port)
        self._socket = socket.create_connection(where, self.timeout_s)
        self._session = manager.connect_ssh(
            host=where[0],
            port=where[1],
            sock=self._socket,
            username=self.credentials.username,
            password=None if password is None else password.reveal(),
            key_filename=None if self.key_file is None else str(self.key_file),
            hostkey_b64=host_key,
            allow_agent=False,
            look_for_keys=False,
            timeout=self.timeout_s,
            manager_params={"timeout": self.timeout_s},
        )
        return self._session

    def _host_key(self) -> str:
        """The device's key as known_hosts has it, base64."""
        assert self.device.netconf is not None
        port, address = self.device.netconf.port, self.device.address
        try:
            known = HostKeys(str(self.known_hosts))
        except (OSError, SSHException) as error:
            raise DeviceError(f"host keys cannot be read from {self.known_hosts}: {error}") from error
        keys = known.lookup(f"[{address}]:{port}") or known.lookup(address) or {}
        for kind in _KEY_TYPES:
            if kind in keys:
                return str(keys[kind].get_base64())
        raise DeviceError(
            f"host key unknown: check it, then ssh-keyscan -p {port} {address} >> {self.known_hosts}"
        )


def _plain(error: Exception, poller: NetconfPoller) -> Exception:
    """What ncclient and paramiko raise → silent (TimeoutError) or refused (DeviceError), in one line."""
    if isinstance(error, NdtwinError | TimeoutError):
        return error
    if isinstance(error, TimeoutExpiredError | ConnectionRefusedError):
        return TimeoutError()
    if isinstance(error, SSHUnknownHostError):
        return DeviceError(
            f"host key is not the one in {poller.known_hosts}: find out why before you change it"
        )
    if isinstance(error, AuthenticationError):
        return DeviceError(f"NETCONF refused user {poller.credentials.username}: check the credentials")
    if isinstance(error, NCClientError | SSHException | OSError | EOFError):
        line = " ".join(str(error).split()) or type(error).__name__
        return DeviceError(f"NETCONF failed ({line}): check address, port and the device's NETCONF server")
    return error
