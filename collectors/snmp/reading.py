"""Reading tables: which columns may be asked for with a known number of rows."""

from __future__ import annotations

from collections.abc import Sequence

from collectors.snmp import tables as t
from collectors.snmp.engine import SnmpEngine


async def columns(engine: SnmpEngine, table: t.ColumnTable) -> t.MutableColumns:
    """A whole table: the first column tells the rows; without any, nothing else is asked for."""
    (key, oid), *others = table.items()
    first = await engine.walk(oid)
    return {key: first, **await more(engine, dict(others), oid, len(first))}


async def more(engine: SnmpEngine, table: t.ColumnTable, key: str, rows: int) -> t.MutableColumns:
    """Further columns, where the column ``key`` has so many rows: those of its entry have as many."""
    if not rows:
        return {name: {} for name in table}
    entry = _entry(key)
    return {name: await engine.walk(oid, rows if _entry(oid) == entry else 0) for name, oid in table.items()}


async def scalars(engine: SnmpEngine, table: t.ColumnTable) -> dict[str, int | None]:
    """Single integers; None for what the agent lacks."""
    found = await engine.get(list(table.values()))
    return {name: t.integer(found.get(oid)) for name, oid in table.items()}


async def first_table(engine: SnmpEngine, choices: Sequence[t.ColumnTable]) -> tuple[int, t.MutableColumns]:
    """The first of several tables that has rows, and its number: the newest MIB module comes first."""
    for number, table in enumerate(choices):
        found = await columns(engine, table)
        if any(found.values()):
            return number, found
    return 0, {}


def _entry(column: str) -> str:
    """The table's entry; an entry that augments another (RFC 2578 section 7.8.1) has the same rows."""
    entry = column.rpartition(".")[0]
    return t.AUGMENTS.get(entry, entry)
