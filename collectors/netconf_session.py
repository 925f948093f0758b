"""One NETCONF session over SSH (RFC 6242), bounded: in time by whoever cuts it, in octets by its socket.

ncclient gathers a reply whole before it gives it to anybody, so a reply that never ends takes all memory. Its
session therefore reads through :class:`BoundedSocket`, which counts what comes between two requests and
breaks the connection beyond a limit. Host keys are checked against a known_hosts file, always: a device whose
key is unknown or changed is refused before a password or a signature is sent.
"""

from __future__ import annotations

import contextlib
import gc
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ncclient import NCClientError, manager
from ncclient.operations.errors import TimeoutExpiredError
from ncclient.operations.rpc import RPCError
from ncclient.transport.errors import AuthenticationError, SSHUnknownHostError
from paramiko import HostKeys, SSHException  # type: ignore[import-untyped]  # ships no types

from collectors.inventory import Credentials
from twin.errors import DeviceError, NdtwinError

MOST_OCTETS = 32 << 20  # of one reply: 100,000 routes take about 20 MB
_KEY_TYPES = (  # ssh-rsa last: ncclient then asks for its SHA-1 signature, which new servers refuse
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
)


class BoundedSocket:
    """A socket that gives up when too much came since the last :meth:`allow`."""

    def __init__(self, inner: socket.socket, most_octets: int) -> None:
        self._inner, self._most = inner, most_octets
        self._left = most_octets

    @property
    def exhausted(self) -> bool:
        """Whether the limit ended the connection."""
        return self._left < 0

    def allow(self) -> None:
        """Begin to count anew: a request goes out."""
        if not self.exhausted:
            self._left = self._most

    def recv(self, size: int) -> bytes:
        """As a socket's; beyond the limit the connection has ended."""
        if self.exhausted:
            return b""
        data = self._inner.recv(size)
        self._left -= len(data)
        if self._left < 0:
            with contextlib.suppress(OSError):  # not connected any more
                self._inner.shutdown(socket.SHUT_RDWR)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@dataclass
class NetconfSession:
    """Connected when needed, thrown away when anything fails. All but :meth:`cut` belong to one thread."""

    address: str
    port: int
    credentials: Credentials
    known_hosts: Path
    key_file: Path | None
    timeout_s: float
    most_octets: int = MOST_OCTETS
    capabilities: tuple[str, ...] = ()
    _manager: Any = None
    _socket: BoundedSocket | None = field(default=None, repr=False)

    @property
    def is_open(self) -> bool:
        """Whether it is connected."""
        return self._manager is not None and bool(self._manager.connected)

    def open(self) -> bool:
        """Connect if need be; whether this is a new connection."""
        if self.is_open:
            return False
        self.close()
        password, host_key = self.credentials.password, self._host_key()
        inner = socket.create_connection((self.address, self.port), self.timeout_s)
        self._socket = BoundedSocket(inner, self.most_octets)
        self._manager = manager.connect_ssh(
            host=self.address,
            port=self.port,
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
        self.capabilities = tuple(self._manager.server_capabilities)
        return True

    def get(self, filters: Iterable[str]) -> bytes:
        """<get> with subtree filters → the reply's XML."""
        assert self._socket is not None, "opened before"
        self._socket.allow()
        return bytes(self._manager.get(filter=list(filters)).xml.encode())

    def subscribe(self) -> str:
        """Ask for notifications (RFC 5277 section 2.1); why the device refuses, or an empty text."""
        try:
            self._manager.create_subscription()
        except RPCError as refusal:
            return " ".join(str(refusal).split())
        return ""

    def notifications(self) -> list[bytes]:
        """Those that came since the last call."""
        found = []
        while (one := self._manager.take_notification(block=False)) is not None:
            found.append(one.notification_xml.encode())
        return found

    def cut(self) -> None:
        """Break the connection from another thread: whatever the session waits for fails at once."""
        if self._socket is not None:
            with contextlib.suppress(OSError):  # not connected any more
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the session, whatever state it is in."""
        session, self._manager = self._manager, None
        overrun = self._overrun
        self.cut()
        if session is not None:
            session._session.close()  # close_session would first wait for the device's consent
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if overrun:
            gc.collect()  # ncclient's sessions are reference cycles, and this one holds a reply at the limit

    def explain(self, error: Exception) -> Exception:
        """What ncclient and paramiko raise → silent (TimeoutError) or refused (DeviceError), in one line."""
        if isinstance(error, NdtwinError | TimeoutError):
            return error
        if isinstance(error, TimeoutExpiredError | ConnectionRefusedError) and not self._overrun:
            return TimeoutError()
        line = self._explanation(error)
        return error if line is None else DeviceError(line)

    @property
    def _overrun(self) -> bool:
        return self._socket is not None and self._socket.exhausted

    def _explanation(self, error: Exception) -> str | None:
        if self._overrun:
            return f"NETCONF reply is longer than {self.most_octets >> 10} KiB: see what the device sends"
        if isinstance(error, SSHUnknownHostError):
            return f"host key is not the one in {self.known_hosts}: find out why before you change it"
        if isinstance(error, AuthenticationError):
            return f"NETCONF refused user {self.credentials.username}: check the credentials"
        if isinstance(error, NCClientError | SSHException | OSError | EOFError):
            line = " ".join(str(error).split()) or type(error).__name__
            return f"NETCONF failed ({line}): check address, port and the device's NETCONF server"
        return None

    def _host_key(self) -> str:
        """The device's key as known_hosts has it, base64."""
        port, address = self.port, self.address
        try:
            known = HostKeys(str(self.known_hosts))
        except (OSError, SSHException) as error:
            raise DeviceError(
                f"host keys cannot be read from {self.known_hosts} ({error}): make it by "
                f"ssh-keyscan -p {port} {address}, and check what it says"
            ) from error
        keys = known.lookup(f"[{address}]:{port}") or known.lookup(address) or {}
        for kind in _KEY_TYPES:
            if kind in keys:
                return str(keys[kind].get_base64())
        raise DeviceError(
            f"host key unknown: check it, then ssh-keyscan -p {port} {address} >> {self.known_hosts}"
        )
