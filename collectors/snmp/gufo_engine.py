"""The fast engine: gufo-snmp (Rust), one socket a device."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from gufo.snmp import NoSuchInstance, SnmpError, SnmpVersion, user
from gufo.snmp.aio import SnmpSession

from collectors.inventory import Credentials
from collectors.snmp.engine import MAX_REPETITIONS, Endpoint, Value, Varbind, WalkGuard, get_in_parts
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
# An agent that answers GETBULK with an error-status (net-snmp 5.9.3 does, in version 3, when the answer
# would be too long) looks to gufo-snmp 0.13 like the end of the table. Such a false end can only follow whole
# pages, so a walk that ends on one is repeated with pages of another, smaller size before it is believed.
_DOUBT = (11, 3)


class GufoEngine:
    """SnmpEngine over gufo-snmp. The session opens at the first request and again after a failure."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._session: Any = None

    async def get(self, oids: Sequence[str]) -> dict[str, Value]:
        return await get_in_parts(self._get, oids, self._endpoint.varbinds_per_get)

    async def walk(self, root: str, repetitions: int = MAX_REPETITIONS) -> list[Varbind]:
        found = await self._walk_once(root, repetitions)
        for fewer in _DOUBT:
            if len(found) % repetitions or (not found and not await self._walk_once(root, 1, rows=1)):
                return found
            repetitions = min(fewer, repetitions)
            found = await self._walk_once(root, repetitions)
        return found

    async def _walk_once(self, root: str, repetitions: int, *, rows: int = 0) -> list[Varbind]:
        guard = WalkGuard(root)
        found: list[Varbind] = []
        session = await self._open()
        walk = (
            session.getnext(root)
            if self._endpoint.credentials.version == "1"
            else session.getbulk(root, repetitions)
        )
        while (varbind := await self._ask(lambda _: anext(walk, None))) is not None:
            guard.check(varbind[0])
            found.append(varbind)
            if len(found) == rows:
                break
        return found

    def close(self) -> None:
        self._session = None

    async def _get(self, oids: Sequence[str]) -> dict[str, Value]:
        async def get(session: Any) -> dict[str, Value]:
            try:
                answer: dict[str, Value] = await session.get_many(list(oids))
            except NoSuchInstance:
                return {}
            return answer

        return await self._ask(get)

    async def _ask(self, request: Callable[[Any], Awaitable[T]]) -> T:
        """One request with its retries. A failure drops the session: no late answer is mistaken."""
        for attempt in range(self._endpoint.retries + 1):
            try:
                return await request(await self._open())
            except TimeoutError:
                if attempt == self._endpoint.retries:
                    self.close()
                    raise
            except SnmpError as error:
                self.close()
                raise DeviceError(f"SNMP refused ({error}): check the credentials and the view") from error
            except OSError as error:
                self.close()
                raise DeviceError(
                    f"SNMP request cannot be sent ({error}): check address and route"
                ) from error
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _open(self) -> Any:
        if self._session is None:
            session = SnmpSession(
                self._endpoint.address,
                self._endpoint.port,
                timeout=self._endpoint.timeout_s,
                version=_VERSIONS[self._endpoint.credentials.version],
                **_secrets(self._endpoint.credentials),
            )
            try:
                await session.refresh()  # version 3: engine discovery and time (RFC 3414 section 4)
            except SnmpError as error:
                raise DeviceError(f"SNMPv3 refused ({error}): check user and keys") from error
            self._session = session
        return self._session


def _secrets(credentials: Credentials) -> dict[str, Any]:
    if credentials.version != "3":
        assert credentials.community is not None, "the inventory checks this"
        return {"community": credentials.community.reveal()}
    auth = privacy = None
    if credentials.auth_protocol and credentials.auth_key:
        auth = _AUTH[credentials.auth_protocol](credentials.auth_key.reveal().encode())
    if credentials.privacy_protocol and credentials.privacy_key:
        privacy = _PRIVACY[credentials.privacy_protocol](credentials.privacy_key.reveal().encode())
    return {"user": user.User(credentials.user, auth_key=auth, priv_key=privacy)}
