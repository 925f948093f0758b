"""IF-MIB columns → interface counters (RFC 2863).

The key of an interface is its ifName: ifIndex may be renumbered at a reboot (section 3.1.5), and what looks
like a counter that jumped would be two interfaces that changed places. High-capacity counters come first;
where an interface has none, its 32-bit ones are taken and said so in ``counter_bits``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from collectors.snmp.engine import Value
from collectors.snmp.tables import (
    INTERFACE_COUNTERS,
    INTERFACE_COUNTERS_32,
    Columns,
    Index,
    integer,
    text,
)
from twin.records import InterfaceCounters

TICK_NS = 10_000_000  # TimeTicks count hundredths of a second (RFC 2578 section 7.1.8)
_UP = 1  # ifAdminStatus, ifOperStatus
_SPEED_FULL = 2**32 - 1  # ifSpeed says "too fast for me: see ifHighSpeed"


def interfaces(state: Columns, counters: Columns, counters_32: Columns) -> tuple[InterfaceCounters, ...]:
    """All interfaces of one poll, by ifIndex."""
    names = interface_names(state)
    return tuple(
        _interface(index, name, state, counters, counters_32) for index, name in sorted(names.items())
    )


def interface_names(state: Columns) -> dict[int, str]:
    """ifIndex → a unique name: ifName, else ifDescr, else ``ifN``; doubles get ``#ifIndex`` appended."""
    seen = [index for index in state.get("oper", {}) if len(index) == 1]
    names = {
        index[0]: text(_cell(state, "name", index))
        or text(_cell(state, "description", index))
        or f"if{index[0]}"
        for index in seen
    }
    uses = Counter(names.values())
    return {i: name if uses[name] == 1 else f"{name}#{i}" for i, name in names.items()}


def needs_32(state: Columns, counters: Columns) -> bool:
    """Whether some interface has no high-capacity counters."""
    return any(index not in counters.get("in_octets", {}) for index in state.get("oper", {}))


def _interface(
    if_index: int, name: str, state: Columns, counters: Columns, counters_32: Columns
) -> InterfaceCounters:
    index = (if_index,)
    high = index in counters.get("in_octets", {})
    values = {
        field: integer(_cell(counters, field, index)) for field in INTERFACE_COUNTERS if field != "oper"
    }
    if not high:
        values |= {field: integer(_cell(counters_32, field, index)) for field in INTERFACE_COUNTERS_32}
    discontinuity = integer(_cell(state, "discontinuity", index))
    return InterfaceCounters(
        name=name,
        if_index=if_index,
        speed_bps=_speed_bps(state, index),
        admin_up=_cell(state, "admin", index) == _UP,
        oper_up=_cell(state, "oper", index) == _UP,
        discontinuity_at_ns=None if discontinuity is None else discontinuity * TICK_NS,
        counter_bits=64 if high else 32,
        **values,
    )


def _speed_bps(state: Columns, index: Index) -> float | None:
    """ifSpeed where it fits (it is exact), else ifHighSpeed (whole Mbit/s); None where the device says 0."""
    speed = integer(_cell(state, "speed_bps", index)) or 0
    if 0 < speed < _SPEED_FULL:
        return float(speed)
    return (integer(_cell(state, "speed_mbps", index)) or 0) * 1e6 or None


def _cell(columns: Columns, name: str, index: Index) -> Value:
    column: Mapping[Index, Value] = columns.get(name, {})
    return column.get(index)
