"""Traps and informs of versions 1, 2c and 3: datagram in, notification and acknowledgement out. No sockets.

pysnmp does what is common: versions, communities, the user-based security model with its time windows (RFC
3414), the Response to an inform. What is added:

- In version 3 a trap's sender is the authoritative engine (RFC 3414 section 3.2), so the keys of our users
  must be made for its engine id before its first trap can be read. That is done when a known device first
  shows an engine id. Each address has room for a few; the one that was heard longest ago goes first.
- pysnmp lets old traps pass, so what was authentic is held against the newest boots and time of its engine
  (RFC 3414 section 3.2 step 7b): what is older by more than 150 s is a replay.
- pysnmp lets less security pass than a user has, and takes every community from everybody: who knows but a
  user's name, or another device's community, could tell links down. So a device is heard under its own
  credential set only, with all the security that it has.
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

_USM = 3  # SnmpSecurityModel (RFC 3411 section 5); 1 and 2 are communities
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
_OTHER_SET = "under another credential set than the device's: let it send under its own, or tell `traps`"
_TOO_OPEN = "with less security than the credential set has: let the device authenticate and encrypt alike"
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
        self._under: list[tuple[int, str, int]] = []  # securityModel, -Name, -Level of what was accepted
        self._engine: Any = SnmpEngine()
        self._engine.transport_dispatcher = _Outbox(self._outbox)
        self._users: dict[str, Credentials] = {}
        self._communities: dict[str, list[Credentials]] = {}  # securityName → sets with its community
        self._made: dict[tuple[bytes, str], Credentials] = {}  # (engine id, user) → whose keys pysnmp has
        # Address → (engine id, user) that keys were made for, the one heard last at the end.
        self._known: dict[str, dict[tuple[bytes, str], None]] = {}
        # Engine id → (boots, time); kept when keys go, or who drives them out could replay.
        self._newest: dict[bytes, tuple[int, int]] = {}
        names: dict[str, str] = {}  # community → securityName
        for one in credentials:
            self._admit(one, names)
        self._receiver = NotificationReceiver(self._engine, self._got)
        points = [f"{model}.prepareDataElements:sm-failure" for model in ("rfc3412", "rfc2576")]
        self._engine.observer.register_observer(self._failed, *points)
        self._engine.observer.register_observer(self._accepted, "rfc3412.receiveMessage:request")

    def receive(
        self, datagram: bytes, source: tuple[str, int], expected: Credentials | None = None
    ) -> Received:
        """One datagram. Whatever it is, no exception. ``expected``: the sender's set; None: any will do."""
        for box in (self._outbox, self._inbox, self._failures, self._under):
            box.clear()
        sender = sender_of(datagram)
        credentials = self._credentials_of(sender, expected)
        if sender is not None and sender.user in self._users and credentials is None:
            return Received(refused=_OTHER_SET)
        self._meet(sender, source[0], credentials)
        before = self._counts()
        broken = ""
        try:
            self._engine.message_dispatcher.receive_message(self._engine, udp.DOMAIN_NAME, source, datagram)
        except _NO_MESSAGE:
            broken = "no SNMP notification"
        response = self._outbox[-1] if self._outbox else b""
        if self._inbox and (refused := self._unfit(expected)):
            return Received(refused=refused)
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

    def _admit(self, credentials: Credentials, names: dict[str, str]) -> None:
        if credentials.version != "3":
            assert credentials.community is not None, "the inventory checks this"
            community = credentials.community.reveal()
            if community not in names:
                names[community] = f"c{len(names)}"
                config.add_v1_system(self._engine, names[community], community)
            self._communities.setdefault(names[community], []).append(credentials)
        elif credentials.user not in self._users:
            self._users[credentials.user] = credentials
            self._make(credentials, bytes(self._engine.snmpEngineID))  # informs: we are authoritative

    def _credentials_of(self, sender: Sender | None, expected: Credentials | None) -> Credentials | None:
        """The set of version 3 under which a message claims to come, if that may be."""
        if sender is None or expected is None:
            return None if sender is None else self._users.get(sender.user)
        return expected if (expected.version, expected.user) == ("3", sender.user) else None

    def _unfit(self, expected: Credentials | None) -> str:
        """Why what pysnmp accepted is not taken."""
        model, name, level = self._under[-1]
        if model != _USM:
            alike = self._communities[name]
            return "" if expected is None or any(one is expected for one in alike) else _OTHER_SET
        credentials = expected or self._users.get(name)
        needed = _level_of(credentials) if credentials is not None else 0
        return _TOO_OPEN if level < needed else ""

    def _meet(self, sender: Sender | None, address: str, credentials: Credentials | None) -> None:
        """Make the keys for a sender's engine id that its address has not shown lately, or of another set."""
        if sender is None or credentials is None or len(sender.engine_id) not in _ENGINE_ID:
            return
        key = sender.engine_id, sender.user
        if self._made.get(key) is not credentials:
            self._make(credentials, sender.engine_id)
        if self._is_ours(sender):
            return
        known = self._known.setdefault(address, {})
        if key not in known and len(known) >= MAX_ENGINES:
            self._forget(address, next(iter(known)))
        known.pop(key, None)
        known[key] = None

    def _forget(self, address: str, key: tuple[bytes, str]) -> None:
        """What was made for an engine id, unless another address shows it too."""
        del self._known[address][key]
        if not any(key in known for known in self._known.values()):
            self._made.pop(key, None)
            (entry,) = self._engine.get_mib_builder().import_symbols("SNMP-USER-BASED-SM-MIB", "usmUserEntry")
            row = entry.getInstIdFromIndices(OctetString(key[0]), key[1])
            controller = self._engine.message_dispatcher.mib_instrum_controller
            controller.write_variables(((*entry.name, _STATUS, *row), "destroy"), snmpEngine=self._engine)

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

    def _make(self, credentials: Credentials, engine_id: bytes) -> None:
        """A user's keys for an engine, in the place of those of another set."""
        self._made[engine_id, credentials.user] = credentials
        user: gufo_user.User = master_user(credentials)
        auth, privacy = credentials.auth_protocol, credentials.privacy_protocol
        config.add_v3_user(
            self._engine,
            credentials.user,
            AUTH[auth] if auth else config.USM_AUTH_NONE,
            OctetString(user.get_auth_key()) if auth else None,
            PRIVACY[privacy] if privacy else config.USM_PRIV_NONE,
            OctetString(user.get_priv_key()) if privacy else None,
            securityEngineId=OctetString(engine_id),
            authKeyType=config.USM_KEY_TYPE_MASTER,
            privKeyType=config.USM_KEY_TYPE_MASTER,
        )

    def _got(
        self, engine: Any, state: Any, context_engine: Any, context: Any, bindings: Any, more: Any
    ) -> None:
        self._inbox.append(tuple(plain(bindings)))

    def _accepted(self, engine: Any, point: str, variables: Any, context: Any) -> None:
        model, level = int(variables["securityModel"]), int(variables["securityLevel"])
        self._under.append((model, str(variables["securityName"]), level))

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


def _level_of(credentials: Credentials) -> int:
    """noAuthNoPriv, authNoPriv, authPriv (SnmpSecurityLevel, RFC 3411 section 5)."""
    return 1 + (credentials.auth_protocol is not None) + (credentials.privacy_protocol is not None)


class _Outbox:
    """What pysnmp takes for its transport dispatcher: keeps what would be sent."""

    def __init__(self, messages: list[bytes]) -> None:
        self._messages = messages

    def send_message(self, message: bytes, domain: object, address: object) -> None:
        self._messages.append(bytes(message))

    def get_timer_resolution(self) -> float:
        return 1.0
