"""The portable engine: pysnmp, pure Python. Slower (telemetry reference: 13 to 27 times), runs anywhere.

One pysnmp ``SnmpEngine`` serves all devices of one credential set: an engine per device costs most of a core
at 250 devices (etingof/pysnmp #402), and one engine for several sets would rekey users of the same name.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pyasn1.type import univ
from pysnmp.carrier.asyncio.dgram import udp, udp6
from pysnmp.carrier.error import CarrierError
from pysnmp.hlapi.v3arch import asyncio as hlapi
from pysnmp.proto import errind, rfc1902, rfc1905

from collectors.inventory import Credentials
from collectors.snmp.engine import (
    Endpoint,
    Index,
    Traffic,
    Value,
    Varbind,
    Walk,
    get_in_parts,
    walk_to_the_end,
)
from collectors.snmp.paging import Paging
from collectors.snmp.pysnmp_transport import target_of
from twin.errors import DeviceError

AUTH = {
    "MD5": hlapi.USM_AUTH_HMAC96_MD5,
    "SHA": hlapi.USM_AUTH_HMAC96_SHA,
    "SHA224": hlapi.USM_AUTH_HMAC128_SHA224,
    "SHA256": hlapi.USM_AUTH_HMAC192_SHA256,
    "SHA384": hlapi.USM_AUTH_HMAC256_SHA384,
    "SHA512": hlapi.USM_AUTH_HMAC384_SHA512,
}
PRIVACY = {
    "DES": hlapi.USM_PRIV_CBC56_DES,
    "AES": hlapi.USM_PRIV_CFB128_AES,
    "AES192": hlapi.USM_PRIV_CFB192_AES_BLUMENTHAL,
    "AES256": hlapi.USM_PRIV_CFB256_AES_BLUMENTHAL,
}
_DOMAINS = (udp.DOMAIN_NAME, udp6.DOMAIN_NAME)
_MISSING = (rfc1905.NoSuchObject, rfc1905.NoSuchInstance, rfc1905.EndOfMibView)
_TOO_BIG = 1
_NOTHING = (_TOO_BIG, 2)  # error-status tooBig (RFC 3416 section 3), and noSuchName of version 1 (RFC 1157)
_GetCommand = Callable[..., Awaitable[tuple[Any, Any, Any, Any]]]


class PysnmpEngines:
    """The shared pysnmp engines, one per credential set."""

    def __init__(self) -> None:
        self._engines: dict[str, Any] = {}

    def of(self, credentials: str) -> Any:
        """The engine of a credential set, made when first asked for."""
        if credentials not in self._engines:
            self._engines[credentials] = hlapi.SnmpEngine()
        return self._engines[credentials]

    async def close(self) -> None:
        """Close all sockets, and only then the engines: an answer just received would find them gone."""
        dispatchers = [e.transport_dispatcher for e in self._engines.values() if e.transport_dispatcher]
        for dispatcher in dispatchers:
            for domain in _DOMAINS:
                with contextlib.suppress(CarrierError):  # no device is reached this way
                    dispatcher.get_transport(domain).close_transport()
        await asyncio.sleep(0)
        for engine in self._engines.values():
            engine.close_dispatcher()
        self._engines.clear()
        await asyncio.sleep(0)  # sockets whose opening was cut short end in the next turn


class PysnmpEngine:
    """SnmpEngine over pysnmp."""

    def __init__(self, engine: Any, endpoint: Endpoint, traffic: Traffic) -> None:
        self._engine = engine
        self._endpoint = endpoint
        self._traffic = traffic
        self._paging = Paging()
        self._target: Any = None

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
        self._target = None  # the sockets belong to PysnmpEngines

    async def _get(self, oids: Sequence[str]) -> dict[str, Value]:
        _, raw = await self._ask(hlapi.get_cmd, *[_object(oid) for oid in oids])
        return dict(plain(raw))

    async def _next(self, walk: Walk) -> Sequence[Varbind | None]:
        _, raw = await self._ask(hlapi.next_cmd, _object(walk.next_oid))
        return _page_of(raw)

    async def _page(self, walk: Walk) -> Sequence[Varbind | None]:
        while True:
            asked, begin = self._paging.repetitions(walk.root, walk.wanted), time.perf_counter()
            try:
                status, raw = await self._ask(hlapi.bulk_cmd, 0, asked, _object(walk.next_oid))
            except TimeoutError:
                self._paging.failed()
                raise
            if status != _TOO_BIG or asked == 1:
                break
            self._paging.failed()
        page = _page_of(raw)
        if page and page[0] is not None:
            self._paging.answered(walk.root, page[0], time.perf_counter() - begin, self._endpoint.timeout_s)
        return page

    async def _ask(self, command: _GetCommand, *arguments: Any) -> tuple[int, Sequence[Any]]:
        if self._target is None:
            self._target = await target_of(
                self._endpoint.address,
                self._endpoint.port,
                timeout_s=self._endpoint.timeout_s,
                retries=self._endpoint.retries,
                traffic=self._traffic,
            )
        self._traffic.requests += 1
        indication, status, _, varbinds = await command(
            self._engine,
            _secrets(self._endpoint.credentials),
            self._target,
            hlapi.ContextData(),
            *arguments,
            lookupMib=False,
        )
        if isinstance(indication, errind.RequestTimedOut):
            raise TimeoutError
        if indication:
            raise DeviceError(f"SNMP refused ({indication}): check the credentials and the view")
        if int(status) in _NOTHING:
            return int(status), ()
        if int(status):
            raise DeviceError(
                f"SNMP error-status {int(status)} (RFC 3416 section 3): check the view on the device"
            )
        answer: Sequence[Any] = varbinds
        return 0, answer


def _page_of(raw: Sequence[Any]) -> Sequence[Varbind | None]:
    """The rows of an answer; None where the view ends."""
    page = plain(raw)
    return page if len(page) == len(raw) else [*page, None]


def _object(oid: str) -> Any:
    return hlapi.ObjectType(hlapi.ObjectIdentity(oid))


def plain(varbinds: Sequence[Any]) -> list[Varbind]:
    return [(str(name), _value(value)) for name, value in varbinds if not isinstance(value, _MISSING)]


def _value(value: Any) -> Value:
    if isinstance(value, rfc1902.IpAddress):
        return ".".join(map(str, value.asOctets()))
    if isinstance(value, univ.OctetString):
        return bytes(value)
    if isinstance(value, univ.ObjectIdentifier):
        return str(value)
    return None if isinstance(value, rfc1905.UnSpecified | univ.Null) else int(value)


def _secrets(credentials: Credentials) -> Any:
    if credentials.version != "3":
        assert credentials.community is not None, "the inventory checks this"
        return hlapi.CommunityData(
            credentials.community.reveal(), mpModel=0 if credentials.version == "1" else 1
        )
    keys: dict[str, Any] = {}
    if credentials.auth_protocol and credentials.auth_key:
        keys |= {"authKey": credentials.auth_key.reveal(), "authProtocol": AUTH[credentials.auth_protocol]}
    if credentials.privacy_protocol and credentials.privacy_key:
        keys |= {
            "privKey": credentials.privacy_key.reveal(),
            "privProtocol": PRIVACY[credentials.privacy_protocol],
        }
    return hlapi.UsmUserData(credentials.user, **keys)
