"""Reading tables: which columns may be asked for with a known number of rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from collectors.snmp import tables as t
from collectors.snmp.engine import Index, SnmpEngine

_FEW_ROWS = 16  # up to here one GET after the other (32 values each) is at most half as many requests


async def columns(engine: SnmpEngine, table: t.ColumnTable) -> t.MutableColumns:
    """A whole table: the first column tells the rows; without any, nothing else is asked for."""
    (key, oid), *others = table.items()
    first = await engine.walk(oid)
    return {key: first, **await more(engine, dict(others), oid, first)}


async def more(
    engine: SnmpEngine, table: t.ColumnTable, key: str, rows: Collection[Index]
) -> t.MutableColumns:
    """Further columns, where the column ``key`` has these rows: those of its entry have the same.

    Few rows are asked for by GET, all their columns together; many by walking column by column.
    """
    if not rows:
        return {name: {} for name in table}
    entry = _entry(key)
    same = {name: oid for name, oid in table.items() if _entry(oid) == entry}
    few = await _by_rows(engine, same, rows) if len(rows) <= _FEW_ROWS else {}
    return {
        name: few[name] if name in few else await engine.walk(oid, len(rows) if name in same else 0)
        for name, oid in table.items()
    }


async def _by_rows(engine: SnmpEngine, table: t.ColumnTable, rows: Collection[Index]) -> t.MutableColumns:
    where = {f"{oid}.{'.'.join(map(str, row))}": (name, row) for row in rows for name, oid in table.items()}
    found: t.MutableColumns = {name: {} for name in table}
    for oid, value in (await engine.get(list(where))).items():
        if oid in where:
            name, row = where[oid]
            found[name][row] = value
    return found


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
