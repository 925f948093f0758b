"""An SNMP agent without sockets: datagram in, datagram out.

pysnmp's engine does what is common to all agents: message versions 1, 2c and 3, communities, USM
discovery, time windows, authentication and privacy (RFC 3412, 3414, 3584). What an answer contains comes
from :mod:`ndtwin.lab.mib` as bytes already encoded and goes into the response PDU whole: building hundreds
of pyasn1 objects per answer is what makes agents of this library slow.

Who may read: the community (versions 1 and 2c) and the user with authentication and privacy (version 3).
An unknown community is dropped without an answer (RFC 3584 section 5.2.1); a wrong user or key is answered
by the Report of RFC 3414, which never carries data. Nothing can be written.

Size: a GETBULK answer ends before it outgrows what the requester takes; another answer that outgrows it is
tooBig (RFC 3416 section 4.2).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, cast

import structlog
from pyasn1.codec.ber import decoder
from pyasn1.type import univ
from pysnmp.carrier.asyncio.dgram.udp import DOMAIN_NAME
from pysnmp.entity import config
from pysnmp.entity.engine import SnmpEngine
from pysnmp.proto import rfc1905
from pysnmp.proto.api import v2c
from pysnmp.proto.error import ProtocolError, StatusInformation
from pysnmp.proto.proxy import rfc2576
from pysnmp.proto.rfc1902 import OctetString

from ndtwin.lab import ber
from ndtwin.lab.device import Device
from ndtwin.lab.mib import Binding, Cell, Mib, Oid
from ndtwin.lab.mib_rttmon import rttmon_cells
from ndtwin.lab.mib_tables import standard_cells

Address = tuple[str, int]
_log = structlog.get_logger("ndtwin.lab")
NO_ERROR, TOO_BIG, AUTHORIZATION_ERROR, NOT_WRITABLE = 0, 1, 16, 17
VERSION_1 = 0
SECURITY_MODEL_USM = 3
LEVEL_PRIVATE = 3  # authPriv
HEADROOM_OCTETS = 100  # PDU and message headers around the variable bindings
ENTERPRISE = 32473  # RFC 5612: documentation


@dataclass(frozen=True)
class SnmpAccess:
    """Who may read."""

    community: str
    user: str
    auth_key: str  # HMAC-192-SHA-256 (RFC 7860)
    privacy_key: str  # AES-128-CFB (RFC 3826)


def engine_id_of(router_id: IPv4Address) -> bytes:
    """RFC 3411 section 5, SnmpEngineID format 5 (octets): the router id, unique in the lab, and the same at
    every start, so that a collector knows the device again."""
    return (0x80000000 | ENTERPRISE).to_bytes(4, "big") + b"\x05" + router_id.packed


class SnmpAgent:
    """The agent of one device."""

    def __init__(self, device: Device, access: SnmpAccess, *, engine_boots: int = 1) -> None:
        self.device = device
        self.malformed = 0  # requests that could not be read
        self._engine_id = engine_id_of(device.router_id)
        self._engine_boots = engine_boots
        self._tables: dict[bool, tuple[int, Mib]] = {}  # is version 1 → (device revision, MIB)
        self._outbox: list[bytes] = []
        self._ticked_ns = 0
        self._engine = _engine(self._engine_id, engine_boots, access)
        self._engine.transport_dispatcher = _Outbox(self._outbox)
        self._engine.message_dispatcher.register_context_engine_id(
            OctetString(self._engine_id), tuple(OPERATIONS), self._process
        )

    def answer(self, datagram: bytes, source: Address) -> bytes | None:
        """What the agent sends back, if anything."""
        self._outbox.clear()
        self._tick()
        try:
            self._engine.message_dispatcher.receive_message(self._engine, DOMAIN_NAME, source, datagram)
        except Exception as error:  # pyasn1 fails in many ways on bytes that are no SNMP message
            self.malformed += 1
            _log.warning("snmp-malformed", device=self.device.name, source=source, reason=repr(error))
        return self._outbox[-1] if self._outbox else None

    def mib(self, version_1: bool = False) -> Mib:
        """The tables as they are now; version 1 knows no Counter64 (RFC 3584 section 4.2.2.1)."""
        revision, mib = self._tables.get(version_1, (-1, None))
        if mib is None or revision != self.device.revision:
            revision = self.device.revision
            mib = Mib(self._cells(version_1))
            self._tables[version_1] = (revision, mib)
        return mib

    def _cells(self, version_1: bool) -> Iterable[Cell]:
        for cells in (
            standard_cells(self.device, self._engine_id, self._engine_boots),
            rttmon_cells(self.device),
        ):
            for cell in cells:
                if not version_1 or cell[2]()[0] != ber.COUNTER64:
                    yield cell

    def _tick(self) -> None:
        """Once a second pysnmp forgets what is out of date (timelines, pending states)."""
        now_ns = self.device.clock()
        if now_ns - self._ticked_ns > 1_000_000_000:
            self._ticked_ns = now_ns
            engine, now_s = self._engine, now_ns / 1e9
            engine.message_dispatcher.receive_timer_tick(engine, now_s)
            for part in (*engine.message_processing_subsystems.values(), *engine.security_models.values()):
                part.receive_timer_tick(engine, now_s)

    def _process(  # the signature is pysnmp's
        self,
        engine: Any,
        message_model: Any,
        security_model: Any,
        security_name: Any,
        security_level: Any,
        context_engine_id: Any,
        context_name: Any,
        pdu_version: Any,
        pdu: Any,
        max_size: Any,
        state_reference: Any,
    ) -> None:
        """pysnmp's call for every request that passed security (RFC 3413 section 3.2)."""
        version_1 = int(message_model) == VERSION_1
        request = rfc2576.v1_to_v2(pdu) if version_1 else pdu
        allowed = int(security_model) != SECURITY_MODEL_USM or int(security_level) == LEVEL_PRIVATE
        status, bindings = AUTHORIZATION_ERROR, b""
        if allowed and not bytes(context_name):
            limit = int(max_size) - HEADROOM_OCTETS
            status, bindings = OPERATIONS[request.tagSet](self.mib(version_1), request, limit)
        response = _response(request, status, bindings, rebuild=version_1)
        if version_1:
            response = rfc2576.v2_to_v1(response, pdu)
        try:
            engine.message_dispatcher.return_response_pdu(
                engine,
                message_model,
                security_model,
                security_name,
                security_level,
                context_engine_id,
                context_name,
                pdu_version,
                response,
                max_size,
                state_reference,
                {},
            )
        except (StatusInformation, ProtocolError) as error:
            raise RuntimeError(f"{self.device.name}: the response could not be sent: {error}") from error


# ------------------------------------------------------------------------------------------- operations


def _names(request: Any) -> list[Oid]:
    return [tuple(name) for name, _ in v2c.apiPDU.get_varbinds(request)]


def _fit(bindings: Iterable[Binding], limit: int) -> tuple[int, bytes]:
    body = b"".join(encoded for _, encoded in bindings)
    return (NO_ERROR, body) if len(body) <= limit else (TOO_BIG, b"")


def _get(mib: Mib, request: Any, limit: int) -> tuple[int, bytes]:
    return _fit(map(mib.get, _names(request)), limit)


def _get_next(mib: Mib, request: Any, limit: int) -> tuple[int, bytes]:
    return _fit(map(mib.successor, _names(request)), limit)


def _get_bulk(mib: Mib, request: Any, limit: int) -> tuple[int, bytes]:
    """RFC 3416 section 4.2.3: the answer may end early, never inside a binding."""
    names = _names(request)
    once = min(max(int(v2c.apiBulkPDU.get_non_repeaters(request)), 0), len(names))
    repetitions = max(int(v2c.apiBulkPDU.get_max_repetitions(request)), 0)
    parts: list[bytes] = []
    size = 0
    for bindings in (map(mib.successor, names[:once]), mib.bulk(names[once:], repetitions)):
        for _, encoded in bindings:
            size += len(encoded)
            if size > limit:
                return NO_ERROR, b"".join(parts)
            parts.append(encoded)
    return NO_ERROR, b"".join(parts)


def _set(mib: Mib, request: Any, limit: int) -> tuple[int, bytes]:
    return NOT_WRITABLE, b""


OPERATIONS: dict[Any, Callable[[Mib, Any, int], tuple[int, bytes]]] = {
    rfc1905.GetRequestPDU.tagSet: _get,
    rfc1905.GetNextRequestPDU.tagSet: _get_next,
    rfc1905.GetBulkRequestPDU.tagSet: _get_bulk,
    rfc1905.SetRequestPDU.tagSet: _set,
}


def _response(request: Any, status: int, bindings: bytes, *, rebuild: bool) -> Any:
    """The response; an error carries the request's bindings back and points at the first (tooBig: none)."""
    response = v2c.apiPDU.get_response(request)
    if status not in (NO_ERROR, TOO_BIG):
        v2c.apiPDU.set_error_status(response, status)
        v2c.apiPDU.set_error_index(response, 1)
        v2c.apiPDU.set_varbinds(response, v2c.apiPDU.get_varbinds(request))
        return response
    v2c.apiPDU.set_error_status(response, status)
    sequence = ber.tlv(ber.SEQUENCE, bindings)
    if rebuild:  # version 1 translates the bindings one by one: it needs them as objects
        body, _ = decoder.decode(sequence, asn1Spec=rfc1905.VarBindList())
    else:
        body = univ.Any(sequence)
    response.setComponentByPosition(3, body, verifyConstraints=False, matchTags=False, matchConstraints=False)
    return response


# ------------------------------------------------------------------------------------------- the engine


class _Outbox:
    """What pysnmp takes for its transport dispatcher: keeps what would be sent."""

    def __init__(self, messages: list[bytes]) -> None:
        self._messages = messages

    def send_message(self, message: bytes, domain: object, address: object) -> None:
        self._messages.append(bytes(message))

    def get_timer_resolution(self) -> float:
        return 1.0


def _engine(engine_id: bytes, engine_boots: int, access: SnmpAccess) -> Any:
    """An engine with its own id, set after construction: the constructor would keep a file under /tmp."""
    engine = SnmpEngine()
    symbols = engine.get_mib_builder().import_symbols(
        "__SNMP-FRAMEWORK-MIB", "snmpEngineID", "snmpEngineBoots"
    )
    for symbol, value in zip(symbols, (engine_id, engine_boots), strict=True):
        symbol.syntax = symbol.syntax.clone(value)
    engine.snmpEngineID = symbols[0].syntax
    config.add_v1_system(engine, "lab", access.community)
    config.add_v3_user(
        engine,
        access.user,
        config.USM_AUTH_HMAC192_SHA256,
        access.auth_key,
        config.USM_PRIV_CFB128_AES,
        access.privacy_key,
    )
    return engine


# ------------------------------------------------------------------------------------------- the socket


class SnmpProtocol(asyncio.DatagramProtocol):
    """The agent on a UDP socket; a silent device takes requests and answers none."""

    def __init__(self, agent: SnmpAgent) -> None:
        self._agent = agent
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's call: the socket is open."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """asyncio's call: a request came in."""
        if self._agent.device.silent or self._transport is None:
            return
        answer = self._agent.answer(data, addr)
        if answer is not None:
            self._transport.sendto(answer, addr)
