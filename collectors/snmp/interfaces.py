"""IF-MIB columns → interface counters (RFC 2863).

The key of an interface is its ifName: ifIndex may be renumbered at a reboot (section 3.1.5), and what looks
like a counter that jumped would be two interfaces that changed places. High-capacity counters come first;
where an interface has none, its 32-bit ones are taken and said so in ``counter_bits``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from collectors.snmp.engine import Index, Value
from collectors.snmp.tables import (
    INTERFACE_COUNTERS,
    INTERFACE_COUNTERS_32,
    Columns,
    integer,
    text,
)
from twin.records import InterfaceCounters

TICK_NS = 10_000_000  # TimeTicks count hundredths of a second (RFC 2578 section 7.1.8)
_UP = 1  # ifAdminStatus, ifOperStatus
_COUNTED = tuple(field for field in INTERFACE_COUNTERS if field not in ("oper", "discontinuity"))
_SPEED_FULL = 2**32 - 1  # ifSpeed says "too fast for me: see ifHighSpeed"


def interfaces(state: Columns, counters: Columns, counters_32: Columns) -> tuple[InterfaceCounters, ...]:
    """All interfaces of one poll, by ifIndex."""
    high, low = _readers(counters, _COUNTED), _readers(counters_32, tuple(INTERFACE_COUNTERS_32))
    described = _readers(state, ("admin", "oper", "speed_bps", "speed_mbps"))
    dated = counters.get("discontinuity", {}).get
    found = []
    for if_index, name in sorted(interface_names(state).items()):
        index = (if_index,)
        values = {field: integer(read(index)) for field, read in high.items()}
        wide = values["in_octets"] is not None
        if not wide:
            values |= {field: integer(read(index)) for field, read in low.items()}
        discontinuity = integer(dated(index))
        found.append(
            InterfaceCounters(
                name=name,
                if_index=if_index,
                speed_bps=_speed_bps(described["speed_bps"](index), described["speed_mbps"](index)),
                admin_up=described["admin"](index) == _UP,
                oper_up=described["oper"](index) == _UP,
                discontinuity_at_ns=None if discontinuity is None else discontinuity * TICK_NS,
                counter_bits=64 if wide else 32,
                stale=False,  # only the polls before can tell
                **values,
            )
        )
    return tuple(found)


def _readers(columns: Columns, names: tuple[str, ...]) -> dict[str, Callable[[Index], Value]]:
    """The look-ups of some columns; those that were not read hold nothing."""
    return {name: columns.get(name, {}).get for name in names}


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


def _speed_bps(if_speed: Value, high_speed: Value) -> float | None:
    """ifSpeed where it fits (it is exact), else ifHighSpeed (whole Mbit/s); None where the device says 0."""
    speed = integer(if_speed) or 0
    if 0 < speed < _SPEED_FULL:
        return float(speed)
    return (integer(high_speed) or 0) * 1e6 or None


def _cell(columns: Columns, name: str, index: Index) -> Value:
    column: Mapping[Index, Value] = columns.get(name, {})
    return column.get(index)
