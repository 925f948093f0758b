"""Traps and informs of versions 1, 2c and 3: datagram in, notification and acknowledgement out. No sockets.

pysnmp does what is common: versions, communities, the user-based security model with its time windows (RFC
3414), the Response to an inform. Two things are added:

- In version 3 a trap's sender is the authoritative engine (RFC 3414 section 3.2), so the keys of our users
  must be made for its engine id before its first trap can be read. That is done when a known device first
  shows an engine id. Each address has room for a few; the one that was heard longest ago goes first.
- pysnmp lets old traps pass, so what was authentic is held against the newest boots and time of its engine
  (RFC 3414 section 3.2 step 7b): what is older by more than 150 s is a replay.
- Why something was refused: pysnmp counts it (usmStats…); the counters before and after tell.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gufo.snmp import user as gufo_user
from pyasn1.error import PyAsn1Error
from pysnmp.carrier.asyncio.dgram import udp
from pysnmp.entity import config
from pysnmp.entity.engine import SnmpEngine
from pysnmp.entity.rfc3413.ntfrcv import NotificationReceiver
from pysnmp.proto import errind
from pysnmp.proto.error import ProtocolError, StatusInformation
from pysnmp.proto.rfc1902 import OctetString
from pysnmp.smi.error import SmiError

from collectors.inventory import Credentials
from collectors.snmp.engine import Varbind
from collectors.snmp.gufo_engine import master_user
from collectors.snmp.pysnmp_engine import AUTH, PRIVACY, plain
from collectors.snmp.wire import Sender, sender_of

_STATUS = 13  # usmUserStatus, the column of usmUserTable
_WINDOW_S = 150  # RFC 3414 section 2.2.3
_ENGINE_ID = range(5, 33)  # octets: SnmpEngineID, RFC 3411 section 5
MAX_ENGINES = 8  # engine ids of one address that keys are kept for: pysnmp needs some 40 kB for each
MAX_TIMES = 4096  # engine ids whose newest time is kept
_REASONS = {
    "usmStatsWrongDigests": "wrong authentication key or protocol",
    "usmStatsDecryptionErrors": "wrong privacy key or protocol",
    "usmStatsUnknownUserNames": "unknown user",
    "usmStatsNotInTimeWindows": "outside the time window: a replay, or a clock that went back",
    "usmStatsUnsupportedSecLevels": "security level not configured",
    "usmStatsUnknownEngineIDs": "unknown engine id",
}
_UNKNOWN_COMMUNITY = "unknown community: let the device send under one of the inventory's credential sets"
# pyasn1 fails in many ways on bytes that are no message: OverflowError, for one, is a length beyond 2^63.
_NO_MESSAGE = (
    PyAsn1Error, ProtocolError, StatusInformation, SmiError,
    LookupError, ValueError, TypeError, OverflowError, RecursionError,
)  # fmt: skip
# What the sender of an inform is told by a Report while it learns our engine id and time (RFC 3414 § 4).
_LEARNING = (_REASONS["usmStatsUnknownEngineIDs"], _REASONS["usmStatsNotInTimeWindows"])


@dataclass(frozen=True)
class Received:
    """What one datagram was."""

    bindings: tuple[Varbind, ...] = ()
    response: bytes = b""  # to be sent back: the acknowledgement of an inform, or a Report
    refused: str = ""  # why there are no bindings


class TrapReceiver:
    """Decodes for a set of credentials."""

    def __init__(self, credentials: Iterable[Credentials]) -> None:
        self._outbox: list[bytes] = []
        self._inbox: list[tuple[Varbind, ...]] = []
        self._failures: list[str] = []
        self._engine: Any = SnmpEngine()
        self._engine.transport_dispatcher = _Outbox(self._outbox)
        self._users: dict[str, Credentials] = {}
        # Address → (engine id, user) that keys were made for, the one heard last at the end.
        self._known: dict[str, dict[tuple[bytes, str], None]] = {}
        # Engine id → (boots, time); kept when keys go, or who drives them out could replay.
        self._newest: dict[bytes, tuple[int, int]] = {}
        for i, one in enumerate(credentials):
            self._admit(i, one)
        self._receiver = NotificationReceiver(self._engine, self._got)
        points = [f"{model}.prepareDataElements:sm-failure" for model in ("rfc3412", "rfc2576")]
        self._engine.observer.register_observer(self._failed, *points)

    def receive(self, datagram: bytes, source: tuple[str, int]) -> Received:
        """One datagram. Whatever it is, no exception."""
        for box in (self._outbox, self._inbox, self._failures):
            box.clear()
        sender = sender_of(datagram)
        self._meet(sender, source[0])
        before = self._counts()
        broken = ""
        try:
            self._engine.message_dispatcher.receive_message(self._engine, udp.DOMAIN_NAME, source, datagram)
        except _NO_MESSAGE:
            broken = "no SNMP notification"
        response = self._outbox[-1] if self._outbox else b""
        if self._inbox and sender is not None and self._is_old(sender):
            return Received((), b"", _REASONS["usmStatsNotInTimeWindows"])
        if self._inbox:
            return Received(self._inbox[-1], response)
        why = self._why(before) or broken or "no SNMP notification"
        return Received((), response, "" if response and why in _LEARNING else why)

    def tick(self, now_s: float) -> None:
        """Once a second: pysnmp forgets what is out of date."""
        engine = self._engine
        engine.message_dispatcher.receive_timer_tick(engine, now_s)
        for part in (*engine.message_processing_subsystems.values(), *engine.security_models.values()):
            part.receive_timer_tick(engine, now_s)

    def _admit(self, number: int, credentials: Credentials) -> None:
        if credentials.version != "3":
            assert credentials.community is not None, "the inventory checks this"
            config.add_v1_system(self._engine, f"c{number}", credentials.community.reveal())
        elif credentials.user not in self._users:
            self._users[credentials.user] = credentials
            self._add_user(credentials, None)  # informs: we are the authoritative engine

    def _meet(self, sender: Sender | None, address: str) -> None:
        """Make the keys for a sender's engine id that its address has not shown lately."""
        if sender is None or len(sender.engine_id) not in _ENGINE_ID:
            return
        key = sender.engine_id, sender.user
        credentials = self._users.get(sender.user)
        if credentials is None or self._is_ours(sender):
            return
        known = self._known.setdefault(address, {})
        if key not in known:
            if len(known) >= MAX_ENGINES:
                self._forget(address, next(iter(known)))
            if not self._has(key):
                self._add_user(credentials, sender.engine_id)
        known.pop(key, None)
        known[key] = None

    def _forget(self, address: str, key: tuple[bytes, str]) -> None:
        """What was made for an engine id, unless another address shows it too."""
        del self._known[address][key]
        if not self._has(key):
            (entry,) = self._engine.get_mib_builder().import_symbols("SNMP-USER-BASED-SM-MIB", "usmUserEntry")
            row = entry.getInstIdFromIndices(OctetString(key[0]), key[1])
            controller = self._engine.message_dispatcher.mib_instrum_controller
            controller.write_variables(((*entry.name, _STATUS, *row), "destroy"), snmpEngine=self._engine)

    def _has(self, key: tuple[bytes, str]) -> bool:
        return any(key in known for known in self._known.values())

    def _is_ours(self, sender: Sender) -> bool:
        return sender.engine_id == bytes(self._engine.snmpEngineID)

    def _is_old(self, sender: Sender) -> bool:
        """Whether an authentic notification is a replay; else it is the newest of its engine."""
        if self._is_ours(sender):
            return False  # pysnmp has held it against our own clock
        boots, time_s = self._newest.get(sender.engine_id, (0, 0))
        if (sender.boots, sender.time_s) < (boots, time_s - _WINDOW_S):
            return True
        if sender.engine_id in self._newest or len(self._newest) < MAX_TIMES:
            self._newest[sender.engine_id] = max((boots, time_s), (sender.boots, sender.time_s))
        return False

    def _add_user(self, credentials: Credentials, engine_id: bytes | None) -> None:
        user: gufo_user.User = master_user(credentials)
        auth, privacy = credentials.auth_protocol, credentials.privacy_protocol
        config.add_v3_user(
            self._engine,
            credentials.user,
            AUTH[auth] if auth else config.USM_AUTH_NONE,
            OctetString(user.get_auth_key()) if auth else None,
            PRIVACY[privacy] if privacy else config.USM_PRIV_NONE,
            OctetString(user.get_priv_key()) if privacy else None,
            securityEngineId=None if engine_id is None else OctetString(engine_id),
            authKeyType=config.USM_KEY_TYPE_MASTER,
            privKeyType=config.USM_KEY_TYPE_MASTER,
        )

    def _got(
        self, engine: Any, state: Any, context_engine: Any, context: Any, bindings: Any, more: Any
    ) -> None:
        self._inbox.append(tuple(plain(bindings)))

    def _failed(self, engine: Any, point: str, variables: Any, context: Any) -> None:
        status = variables.get("statusInformation") or {}
        error = status.get("errorIndication", "")
        unknown = isinstance(error, errind.UnknownCommunityName)
        self._failures.append(_UNKNOWN_COMMUNITY if unknown else str(error))

    def _counts(self) -> dict[str, int]:
        builder = self._engine.get_mib_builder()
        symbols = builder.import_symbols("__SNMP-USER-BASED-SM-MIB", *_REASONS)
        return {name: int(symbol.syntax) for name, symbol in zip(_REASONS, symbols, strict=True)}

    def _why(self, before: dict[str, int]) -> str:
        now = self._counts()
        return next((why for name, why in _REASONS.items() if now[name] > before[name]), "") or next(
            iter(self._failures), ""
        )


class _Outbox:
    """What pysnmp takes for its transport dispatcher: keeps what would be sent."""

    def __init__(self, messages: list[bytes]) -> None:
        self._messages = messages

    def send_message(self, message: bytes, domain: object, address: object) -> None:
        self._messages.append(bytes(message))

    def get_timer_resolution(self) -> float:
        return 1.0
