"""Who answers at a device's address: remembered, and told from another device that answers there.

Addresses move: by DHCP, by a mistake in the inventory, by a virtual address that changes its router. What
another device counts must not be booked as this one's.

What is read of a device, with every poll, in the request that asks for its uptime:

    sysName        a name: told apart from others by it, but it may change
    sysObjectID    the model: another one is another device, the same one tells nothing
    snmpEngineID   unique (RFC 3411 section 5), unless it was made of an IP address, which moves, or copied
                   with a machine's image; lost where an agent does not keep it
    lldpLocChassisId, if a MAC address

The last two are *marks*; what two devices of the inventory show alike is none. What a device said when it was
first believed is remembered, over restarts too. Then:

    | marks             | name  |                                                                  |
    | one is the same   | same  | the device                                                       |
    | one is the same   | other | the device, renamed; but another's name in the inventory: wrong  |
    | all are others    | same  | replaced: other hardware in the same place; but a name that      |
    |                   |       | several have tells nothing: wrong                                |
    | all are others    | other | wrong                                                            |
    | none to compare   | same  | the device                                                       |
    | none to compare   | other | renamed if its uptime goes on, else wrong                        |

Hardware that is replaced again within ten minutes is several devices that answer by turns, behind a virtual
address: the one that came last is believed, the others are wrong.

At first sight a device is wrong whose sysName is another one's name in the inventory. At a new address
whoever answers is learnt anew, unless it is known as another device. The operator has the last word:
``snmp.sys_name`` in the inventory names who is to answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import structlog

from collectors.inventory import Device
from collectors.snmp import tables as t
from collectors.snmp.engine import Value
from twin.errors import DeviceError

MAX_OCTETS = 16 << 20  # of the file: 100,000 devices
_UPTIME_SLACK_NS = 2_000_000_000
_BY_TURNS_NS = 600_000_000_000
_MAC, _MAC_OCTETS = 4, 6  # LldpChassisIdSubtype
_ENGINE_OCTETS, _NAME_CHARACTERS = 32, 255  # SnmpEngineID, DisplayString
_OF_ADDRESS = (1, 2)  # fifth octet of an SnmpEngineID: made of an IPv4 or IPv6 address
_MARKS = {"engine_id": "engine id", "chassis": "chassis"}
Sight = Literal["same", "renamed", "replaced", "wrong"]
RENAMED, REPLACED = "device-renamed", "device-replaced"


class WrongDevice(DeviceError):
    """Another device answers than the one that is asked."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What a device says of itself; empty where it does not."""

    name: str = ""
    model: str = ""
    engine_id: str = ""
    chassis: str = ""

    def __str__(self) -> str:
        marks = [f"{words} {getattr(self, mark)}" for mark, words in _MARKS.items() if getattr(self, mark)]
        return f"{self.name or 'a device without a name'} ({marks[0]})" if marks else repr(self.name)


def identity_of(answer: Mapping[str, Value]) -> Identity:
    """The identity in an answer to :data:`collectors.snmp.tables.IDENTITY`."""
    values = {name: answer.get(oid) for name, oid in t.IDENTITY.items()}
    engine, chassis = values["engine_id"], values["chassis"]
    mac = isinstance(chassis, bytes) and len(chassis) == _MAC_OCTETS and values["subtype"] == _MAC
    if not isinstance(engine, bytes) or len(engine) < 5 or (engine[0] & 0x80 and engine[4] in _OF_ADDRESS):
        engine = b""
    return Identity(
        name=_printable(values["name"]),
        model=_printable(values["model"]),
        engine_id=engine[:_ENGINE_OCTETS].hex(),
        chassis=chassis.hex(":") if mac and isinstance(chassis, bytes) else "",
    )


def _printable(value: Value) -> str:
    """What goes into events and logs, from whoever answers: of bounded length, and one line."""
    return "".join(one if one.isprintable() else "?" for one in t.text(value)[:_NAME_CHARACTERS])


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """Who answered at an endpoint."""

    endpoint: str
    identity: Identity


class _File(msgspec.Struct, kw_only=True):
    network: str
    devices: dict[str, Known]


@dataclass(frozen=True)
class News:
    """What the operator should know, for a NetworkEvent."""

    kind: str
    detail: str


@dataclass
class Identities:
    """Of all devices of one inventory that are asked by SNMP."""

    network: str
    devices: Iterable[Device]
    path: Path | None = None
    _known: dict[str, Known] = field(default_factory=dict)
    _uptime_ns: dict[str, tuple[int, int]] = field(default_factory=dict)  # device → (sysUpTime, when)
    _replaced_ns: dict[str, int] = field(default_factory=dict)  # device → when its hardware was
    _marks: Counter[tuple[str, str]] = field(default_factory=Counter)  # how many devices show a mark
    _changed: bool = False

    def __post_init__(self) -> None:
        self._wanted = {device.name: device for device in self.devices if device.snmp is not None}
        self._load()

    def check(self, device: str, found: Identity, uptime_ns: int | None, now_ns: int) -> tuple[News, ...]:
        """Whether a device answers itself: what is new of it; :class:`WrongDevice` says who answers."""
        wanted, known = self._wanted[device], self._known_at(device)
        if found == known and _fits(wanted, found):  # nearly always
            self._note(device, uptime_ns, now_ns)
            return ()
        sight, reason = self._compare(wanted, known, found, self._goes_on(device, uptime_ns, now_ns))
        if sight == "replaced":
            sight, reason = self._once(device, now_ns)
        if sight == "wrong":
            raise WrongDevice(_complaint(wanted, found, reason))
        self._note(device, uptime_ns, now_ns)
        self._learn(wanted, known if sight != "replaced" else None, found)
        if sight == "same" or known is None:
            return ()
        if sight == "replaced":
            return (News(REPLACED, f"snmp: it is {found} now, and was {known}: its counters begin anew"),)
        detail = (
            f"it calls itself {found.name}, and called itself {known.name}, but is the same device: "
            "its neighbours name it so too, so rename it in the inventory"
        )
        return (News(RENAMED, f"snmp: {detail}"),)

    def _once(self, device: str, now_ns: int) -> tuple[Sight, str]:
        again = now_ns - self._replaced_ns.get(device, now_ns - _BY_TURNS_NS) < _BY_TURNS_NS
        if again:
            return "wrong", "several devices answer there by turns"
        self._replaced_ns[device] = now_ns
        return "replaced", ""

    def _known_at(self, device: str) -> Identity | None:
        known = self._known.get(device)
        here = known is not None and known.endpoint == _endpoint(self._wanted[device])
        return known.identity if known is not None and here else None

    def _note(self, device: str, uptime_ns: int | None, now_ns: int) -> None:
        if uptime_ns is not None:
            self._uptime_ns[device] = uptime_ns, now_ns

    def _goes_on(self, device: str, uptime_ns: int | None, now_ns: int) -> bool:
        if uptime_ns is None or device not in self._uptime_ns:
            return False
        before_ns, at_ns = self._uptime_ns[device]
        return abs(uptime_ns - before_ns - (now_ns - at_ns)) <= _UPTIME_SLACK_NS

    def _compare(
        self, wanted: Device, known: Identity | None, found: Identity, goes_on: bool
    ) -> tuple[Sight, str]:
        """The table of the module's docstring; for the wrong one, why."""
        pinned = _pinned(wanted)
        alike = None if known is None else self._alike(known, found)
        renamed = known is not None and bool(known.name and found.name) and not _same(known.name, found.name)
        if pinned:
            if not _fits(wanted, found):
                return "wrong", f"snmp.sys_name is {pinned}"
            return ("replaced" if alike is False else "same"), ""
        if known is not None and not renamed:
            return self._same_name(wanted.name, found, alike)
        other = self._namesake(wanted.name, found.name)
        if known is None:
            other = other or self._moved_to_another(wanted.name, found)
            return ("wrong", f"that is {other}") if other else ("same", "")
        if other or not (alike or (alike is None and goes_on)):
            return "wrong", f"that is {other}" if other else f"{wanted.name} was {known}"
        return "renamed", ""

    def _same_name(self, device: str, found: Identity, alike: bool | None) -> tuple[Sight, str]:
        if alike is not False:
            return "same", ""
        owner = self._owner(device, found)
        return ("wrong", f"that is {owner}") if owner else ("replaced", "")

    def _moved_to_another(self, device: str, found: Identity) -> str:
        """Whose address a device was given by mistake; empty: none, or who answers is itself."""
        before = self._known.get(device)
        return "" if before is None or self._alike(before.identity, found) else self._owner(device, found)

    def _owner(self, device: str, found: Identity) -> str:
        """Another device that was seen with the same marks."""
        others = ((name, one.identity) for name, one in self._known.items() if name != device)
        return next((name for name, identity in others if self._alike(identity, found)), "")

    def _alike(self, known: Identity, found: Identity) -> bool | None:
        """Whether a mark is the same; None: none can be compared."""
        same = []
        for mark in _MARKS:
            before, now = getattr(known, mark), getattr(found, mark)
            if before and now and not self._is_shared(mark, now):
                same.append(before == now)
        if not same and known.model and found.model and known.model != found.model:
            return False
        return any(same) if same else None

    def _is_shared(self, mark: str, value: str) -> bool:
        return self._marks[mark, value] > 1

    def _namesake(self, device: str, sys_name: str) -> str:
        """Another device of the inventory that has this name, and where; empty: none, or it is its own."""
        if not sys_name or _same(sys_name, device):
            return ""
        for name, other in self._wanted.items():
            if name != device and _same(sys_name, _pinned(other) or name):
                return f"{name}, which the inventory has at {_endpoint(other)}"
        return ""

    def _learn(self, wanted: Device, known: Identity | None, found: Identity) -> None:
        """Remember; what the device does not tell now it may tell again."""
        kept = {f: getattr(found, f) or getattr(known or found, f) for f in Identity.__struct_fields__}
        now = Known(endpoint=_endpoint(wanted), identity=Identity(**kept))
        if now != self._known.get(wanted.name) and now.identity != Identity():
            self._remember(wanted.name, now)
            self._changed = True

    def _remember(self, device: str, now: Known) -> None:
        if device in self._known:
            self._marks.subtract(_marks(self._known[device].identity))
        self._marks.update(_marks(now.identity))
        self._known[device] = now

    # ------------------------------------------------------------------ on disk

    def _load(self) -> None:
        if self.path is None or not self.path.exists():
            return
        try:
            if self.path.stat().st_size > MAX_OCTETS:
                raise msgspec.DecodeError("it is too large")
            kept = msgspec.json.decode(self.path.read_bytes(), type=_File)
        except (OSError, msgspec.MsgspecError) as error:
            _log().warning("kept identities are not used", file=str(self.path), reason=str(error))
            return
        if kept.network == self.network:
            for name, one in kept.devices.items():
                if name in self._wanted:
                    self._remember(name, one)

    def save(self) -> None:
        """Write the file beside and put it in place: a crash leaves the old one."""
        if self.path is None or not self._changed:
            return
        self._changed = False
        beside = self.path.with_suffix(".new")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            kept = _File(network=self.network, devices=dict(sorted(self._known.items())))
            beside.write_bytes(msgspec.json.encode(kept))
            beside.replace(self.path)
        except OSError as error:
            _log().warning("identities cannot be kept", file=str(self.path), reason=str(error))


def _marks(identity: Identity) -> list[tuple[str, str]]:
    return [(mark, getattr(identity, mark)) for mark in _MARKS]


def _endpoint(device: Device) -> str:
    return device.address if device.snmp is None else f"{device.address}:{device.snmp.port}"


def _pinned(device: Device) -> str:
    return device.snmp.sys_name if device.snmp is not None else ""


def _fits(device: Device, found: Identity) -> bool:
    """Whether the inventory has nothing against who answers."""
    pinned = _pinned(device)
    return not pinned or not found.name or _same(found.name, pinned)


def _same(one: str, other: str) -> bool:
    """Names are the same without regard to case, and to a domain that only one of them has."""
    one, other = one.casefold(), other.casefold()
    if ("." in one) != ("." in other):
        return one.partition(".")[0] == other.partition(".")[0]
    return one == other


def _complaint(wanted: Device, found: Identity, reason: str) -> str:
    name = found.name or wanted.name
    return (
        f"{wanted.name} at {_endpoint(wanted)} says it is {found}; {reason}: correct the address in the "
        f'inventory, or confirm who answers there with snmp.sys_name = "{name}"'
    )


def _log() -> Any:
    return structlog.get_logger("ndtwin.collect")
