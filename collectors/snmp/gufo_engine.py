"""The fast engine: gufo-snmp (Rust), one socket a device.

An agent that answers GETBULK with an error-status (net-snmp 5.9.3 does, in version 3, when the answer would
be too long) looks to gufo-snmp 0.13 like the end of the whole view: nothing comes. So that end is believed
only when a request for a single row finds none either; else the page was too large.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from gufo.snmp import SnmpAuthError, SnmpDecodeError, SnmpError, SnmpVersion, user

from collectors.inventory import Credentials
from collectors.snmp.authentic import Seal
from collectors.snmp.engine import Endpoint, Index, Traffic, Value, Walk, get_in_parts, walk_to_the_end
from collectors.snmp.gufo_session import Page, Session
from collectors.snmp.paging import Paging
from twin.errors import DeviceError

T = TypeVar("T")

_VERSIONS = {"1": SnmpVersion.v1, "2c": SnmpVersion.v2c, "3": SnmpVersion.v3}
_AUTH = {
    "MD5": user.Md5Key,
    "SHA": user.Sha1Key,
    "SHA224": user.Sha224Key,
    "SHA256": user.Sha256Key,
    "SHA384": user.Sha384Key,
    "SHA512": user.Sha512Key,
}
_PRIVACY = {"DES": user.DesKey, "AES": user.Aes128Key, "AES192": user.Aes192Key, "AES256": user.Aes256Key}


class GufoKeys:
    """Users of version 3 with their master keys, one per credential set.

    Making a master key hashes a megabyte (RFC 3414 section A.2): once, not for every device and session.
    """

    def __init__(self) -> None:
        self._users: dict[str, user.User] = {}

    def of(self, name: str, credentials: Credentials) -> user.User:
        """The user of a credential set."""
        if name not in self._users:
            self._users[name] = master_user(credentials)
        return self._users[name]


class GufoEngine:
    """SnmpEngine over gufo-snmp. The session opens at the first request and again after a failure."""

    def __init__(self, endpoint: Endpoint, secrets: Callable[[], dict[str, Any]], traffic: Traffic) -> None:
        self._endpoint = endpoint
        self._secrets = secrets
        self._traffic = traffic
        self._paging = Paging()
        self._session: Session | None = None

    async def get(self, oids: Sequence[str]) -> dict[str, Value]:
        found = await get_in_parts(self._get, oids, self._endpoint.varbinds_per_get)
        self._traffic.varbinds += len(found)
        return found

    async def walk(self, root: str, rows: int = 0) -> dict[Index, Value]:
        walk = Walk(root, rows)
        read = self._next if self._endpoint.credentials.version == "1" else self._page
        found = await walk_to_the_end(walk, read)
        self._paging.ended(root, len(found))
        self._traffic.varbinds += len(found)
        return found

    def close(self) -> None:
        if self._session is not None:
            self._session.end()
            self._session = None

    async def _get(self, oids: Sequence[str]) -> dict[str, Value]:
        wanted = list(oids)
        return await self._ask(lambda session: session.get_many(wanted))

    async def _next(self, walk: Walk) -> Page:
        return await self._ask(lambda session: session.next_row(walk.root, walk.next_oid))

    async def _page(self, walk: Walk) -> Page:
        asked = 0

        async def bulk(session: Session) -> Page:
            nonlocal asked
            asked = self._paging.repetitions(walk.root, walk.wanted)
            begin = time.perf_counter()
            page = await session.page(walk.root, walk.next_oid, asked)
            rows = page[:-1] if page and page[-1] is None else page
            if rows:
                seconds = time.perf_counter() - begin
                self._paging.answered(walk.root, rows[-1], seconds, self._endpoint.timeout_s)  # type: ignore[arg-type]  # None ends a page
            return page

        while not (page := await self._ask(bulk)) and asked > 1:
            if not await self._ask(lambda session: session.page(walk.root, walk.next_oid, 1)):
                return []
            self._paging.failed()
        return page

    async def _ask(self, request: Callable[[Session], Awaitable[T]]) -> T:
        """One request with its retries. A failure drops the session: no late answer is mistaken."""
        for attempt in range(self._endpoint.retries + 1):
            last, fresh = attempt == self._endpoint.retries, self._session is None
            self._traffic.retries += attempt > 0
            try:
                return await request(await self._open())
            except TimeoutError:
                self._paging.failed()
                if last:
                    self.close()
                    raise
            except SnmpError as error:
                self.close()
                if last or not isinstance(error, SnmpDecodeError if fresh else _TRY_AGAIN):
                    raise _refused(error) from error
                self._paging.failed()
            except OSError as error:
                self.close()
                raise DeviceError(
                    f"SNMP request cannot be sent ({error}): check address and route"
                ) from error
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _open(self) -> Session:
        if self._session is None:
            secrets = self._secrets()
            session = Session(
                self._traffic,
                self._seal(secrets.get("user")),
                addr=self._endpoint.address,
                port=self._endpoint.port,
                timeout=self._endpoint.timeout_s,
                version=_VERSIONS[self._endpoint.credentials.version],
                **secrets,
            )
            try:
                await session.refresh()  # version 3: engine discovery and time (RFC 3414 section 4)
            except BaseException:
                session.end()
                raise
            self._session = session
        return self._session

    def _seal(self, one: user.User | None) -> Seal | None:
        """What answers must bear."""
        return None if one is None else Seal.of(self._endpoint.credentials, one.get_auth_key())


# An answer cut off in the middle (larger than gufo's buffer) or forged; and, in version 3, an agent whose
# clock has moved away from ours since the session began: a new session learns its time.
_TRY_AGAIN = (SnmpDecodeError, SnmpAuthError)


def _refused(error: SnmpError) -> DeviceError:
    if isinstance(error, SnmpAuthError):
        return DeviceError("SNMPv3 refused (authentication failed): check user, protocols and keys")
    return DeviceError(f"SNMP refused ({error}): check the credentials and the view")


def community_of(credentials: Credentials) -> dict[str, Any]:
    """The session's options in versions 1 and 2c."""
    assert credentials.community is not None, "the inventory checks this"
    return {"community": credentials.community.reveal()}


def master_user(credentials: Credentials) -> user.User:
    """The user with its master keys (RFC 3414 section 2.6), made from the passwords."""
    auth = privacy = None
    if credentials.auth_protocol and credentials.auth_key:
        hashing = _AUTH[credentials.auth_protocol]
        auth = hashing(_master(hashing, credentials.auth_key.reveal()), key_type=user.KeyType.Master)
        if credentials.privacy_protocol and credentials.privacy_key:
            privacy = _PRIVACY[credentials.privacy_protocol](
                _master(hashing, credentials.privacy_key.reveal()), key_type=user.KeyType.Master
            )
    return user.User(credentials.user, auth_key=auth, priv_key=privacy)


def _master(hashing: Any, password: str) -> bytes:
    master: bytes = hashing.get_master_key(password.encode())
    return master
