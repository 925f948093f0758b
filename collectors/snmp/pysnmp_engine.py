"""The portable engine: pysnmp, pure Python. Slower (telemetry reference: 13 to 27 times), runs anywhere.

One pysnmp ``SnmpEngine`` serves all devices of one credential set: an engine per device costs most of a core
at 250 devices (etingof/pysnmp #402), and one engine for several sets would rekey users of the same name.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from pyasn1.type import univ
from pysnmp.carrier.asyncio.dgram import udp, udp6
from pysnmp.carrier.error import CarrierError
from pysnmp.hlapi.v3arch import asyncio as hlapi
from pysnmp.proto import errind, rfc1902, rfc1905

from collectors.inventory import Credentials
from collectors.snmp.engine import MAX_REPETITIONS, Endpoint, Value, Varbind, WalkGuard, get_in_parts
from twin.errors import DeviceError

_AUTH = {
    "MD5": hlapi.USM_AUTH_HMAC96_MD5,
    "SHA": hlapi.USM_AUTH_HMAC96_SHA,
    "SHA224": hlapi.USM_AUTH_HMAC128_SHA224,
    "SHA256": hlapi.USM_AUTH_HMAC192_SHA256,
    "SHA384": hlapi.USM_AUTH_HMAC256_SHA384,
    "SHA512": hlapi.USM_AUTH_HMAC384_SHA512,
}
_PRIVACY = {
    "DES": hlapi.USM_PRIV_CBC56_DES,
    "AES": hlapi.USM_PRIV_CFB128_AES,
    "AES192": hlapi.USM_PRIV_CFB192_AES_BLUMENTHAL,
    "AES256": hlapi.USM_PRIV_CFB256_AES_BLUMENTHAL,
}
_DOMAINS = (udp.DOMAIN_NAME, udp6.DOMAIN_NAME)
_MISSING = (rfc1905.NoSuchObject, rfc1905.NoSuchInstance, rfc1905.EndOfMibView)
_NOTHING = (1, 2)  # error-status tooBig (RFC 3416 section 3), and noSuchName of version 1 (RFC 1157)
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

    def __init__(self, engine: Any, endpoint: Endpoint) -> None:
        self._engine = engine
        self._endpoint = endpoint
        self._target: Any = None

    async def get(self, oids: Sequence[str]) -> dict[str, Value]:
        return await get_in_parts(self._get, oids, self._endpoint.varbinds_per_get)

    async def walk(self, root: str, repetitions: int = MAX_REPETITIONS) -> list[Varbind]:
        guard = WalkGuard(root)
        found: list[Varbind] = []
        async for varbind in self._rows(root, repetitions):
            guard.check(varbind[0])
            found.append(varbind)
        return found

    def close(self) -> None:
        self._target = None  # the sockets belong to PysnmpEngines

    async def _get(self, oids: Sequence[str]) -> dict[str, Value]:
        return dict(_plain(await self._ask(hlapi.get_cmd, *[_object(oid) for oid in oids])))

    async def _rows(self, root: str, repetitions: int) -> AsyncIterator[Varbind]:
        last = root
        while True:
            if self._endpoint.credentials.version == "1":
                raw = await self._ask(hlapi.next_cmd, _object(last))
            else:
                raw = await self._ask(hlapi.bulk_cmd, 0, repetitions, _object(last))
            page = _plain(raw)
            for oid, value in page:
                if not oid.startswith(root + "."):
                    return
                yield oid, value
            if not page or len(page) < len(raw):
                return
            last = page[-1][0]

    async def _ask(self, command: _GetCommand, *arguments: Any) -> Sequence[Any]:
        if self._target is None:
            where = (self._endpoint.address, self._endpoint.port)
            transport = hlapi.Udp6TransportTarget if ":" in where[0] else hlapi.UdpTransportTarget
            self._target = await transport.create(
                where, timeout=self._endpoint.timeout_s, retries=self._endpoint.retries
            )
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
            return ()
        if int(status):
            raise DeviceError(
                f"SNMP error-status {int(status)} (RFC 3416 section 3): check the view on the device"
            )
        answer: Sequence[Any] = varbinds
        return answer


def _object(oid: str) -> Any:
    return hlapi.ObjectType(hlapi.ObjectIdentity(oid))


def _plain(varbinds: Sequence[Any]) -> list[Varbind]:
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
        keys |= {"authKey": credentials.auth_key.reveal(), "authProtocol": _AUTH[credentials.auth_protocol]}
    if credentials.privacy_protocol and credentials.privacy_key:
        keys |= {
            "privKey": credentials.privacy_key.reveal(),
            "privProtocol": _PRIVACY[credentials.privacy_protocol],
        }
    return hlapi.UsmUserData(credentials.user, **keys)
