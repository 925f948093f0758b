"""SNMPv2-Trap and Inform bindings → events. Pure.

A notification begins with sysUpTime.0 and snmpTrapOID.0 (RFC 3416 section 4.2.6); version 1's generic traps
have been turned into these by the rules of RFC 3584 section 3.1. linkDown and linkUp name the interface by
ifIndex, in their first binding's value and in every instance (RFC 2863); events name it by ifName, which
survives renumbering: taken from the notification where it has one, else from what the last poll saw.

Informs that are sent again because our acknowledgement was lost, and traps that arrive twice, say the same
of the same sysUpTime: :class:`Seen` tells them once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from collectors.snmp.engine import Value, Varbind
from collectors.snmp.tables import integer, text

_TRAPS = "1.3.6.1.6.3.1.1.5"  # snmpTraps, RFC 3418
KINDS = {
    f"{_TRAPS}.1": "cold-start",
    f"{_TRAPS}.2": "warm-start",
    f"{_TRAPS}.3": "link-down",
    f"{_TRAPS}.4": "link-up",
    f"{_TRAPS}.5": "authentication-failure",
}
UPTIME, TRAP_OID = "1.3.6.1.2.1.1.3.0", "1.3.6.1.6.3.1.1.4.1.0"
_IF_INDEX = "1.3.6.1.2.1.2.2.1.1."
_IF_DESCR = "1.3.6.1.2.1.2.2.1.2."
_IF_NAME = "1.3.6.1.2.1.31.1.1.1.1."
_REMEMBERED = 1024


@dataclass(frozen=True)
class Notification:
    """One trap or inform."""

    kind: str  # of KINDS; empty: another one
    trap: str  # snmpTrapOID
    uptime_ticks: int | None
    if_index: int | None = None
    interface: str = ""  # as the device itself calls it, where it says so


def notification_of(bindings: Sequence[Varbind]) -> Notification:
    """The bindings of a notification, in any order."""
    values = dict(bindings)
    trap = values.get(TRAP_OID)
    trap = trap if isinstance(trap, str) else ""
    index = integer(_first(bindings, _IF_INDEX))
    return Notification(
        kind=KINDS.get(trap, ""),
        trap=trap,
        uptime_ticks=integer(values.get(UPTIME)),
        if_index=index,
        interface=text(_first(bindings, _IF_NAME)) or text(_first(bindings, _IF_DESCR)),
    )


def interface_of(told: Notification, name_of: Callable[[int], str]) -> str:
    """The interface's ifName: what the last poll called this ifIndex, else what the trap says."""
    if told.if_index is None:
        return told.interface
    return name_of(told.if_index) or told.interface or f"if{told.if_index}"


def _first(bindings: Sequence[Varbind], column: str) -> Value:
    return next((value for oid, value in bindings if oid.startswith(column)), None)


class Seen:
    """Which notifications were told, of the last thousand."""

    def __init__(self) -> None:
        self._told: OrderedDict[tuple[str, Notification], None] = OrderedDict()

    def again(self, device: str, told: Notification) -> bool:
        """Whether this one was seen before. Without sysUpTime nobody can tell."""
        key = (device, told)
        if told.uptime_ticks is None or key not in self._told:
            self._told[key] = None
            if len(self._told) > _REMEMBERED:
                self._told.popitem(last=False)
            return False
        return True


class Allowance:
    """So many notifications a second of one sender, with a burst; the rest is not even decoded."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._left, self._at_ns = burst, 0
        self.dropped = 0  # since the last that was let through

    def take(self, now_ns: int) -> bool:
        """Whether one more may come now."""
        gained = (now_ns - self._at_ns) * self._per_s / 1e9 if self._at_ns else 0.0
        self._left, self._at_ns = min(self._left + max(gained, 0.0), self._burst), now_ns
        if self._left < 1:
            self.dropped += 1
            return False
        self._left -= 1
        self.dropped = 0
        return True
