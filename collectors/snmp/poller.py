"""One device by SNMP: which tables are read when, and the records that come of it.

The first column of a table is walked and tells which rows there are; the others are asked for by GET, row by
row. That is fewer requests than walking each column, and a row read in one answer is of one piece.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from collectors.snmp import tables as t
from collectors.snmp.engine import SnmpEngine
from collectors.snmp.interfaces import TICK_NS, interface_names, interfaces, needs_32
from collectors.snmp.ping import ping_delays
from collectors.snmp.rttmon import Delays, Operation, delays, operations
from collectors.snmp.topology import addresses, addresses_old, neighbours, routes
from twin.errors import DeviceError
from twin.records import DelayMethod, DelayReport, DeviceSample, DeviceTopology, PathDelay

Clock = Callable[[], int]  # nanoseconds since the epoch


@dataclass
class SnmpPoller:
    """Reads one device; holds what must be remembered between two polls of it.

    Topology is read over a connection of its own: a long routing table must not hold the counters up.
    """

    network: str
    device: str
    engine: SnmpEngine
    topology_engine: SnmpEngine
    clock: Clock
    moved: bool = False  # a change stamp has moved between the last two samples
    _stamps: Mapping[str, int | None] = field(default_factory=dict)
    _operations: tuple[Operation, ...] = ()
    _pings: bool = False
    _runs: dict[str, Mapping[t.Index, int]] = field(default_factory=dict)

    async def sample(self) -> DeviceSample:
        """One poll of the counters and states of all interfaces."""
        begin = time.perf_counter()
        system = await self._scalars({**t.SYSTEM, **t.CHANGE_STAMPS})
        stamps = {name: system[name] for name in t.CHANGE_STAMPS}
        self.moved = bool(self._stamps) and stamps != self._stamps
        self._stamps = stamps
        before_ns = self.clock()
        counters = await _columns(self.engine, t.INTERFACE_COUNTERS)
        observed_at_ns = (before_ns + self.clock()) // 2
        rows = list(counters["oper"])
        state = {**await _rows(self.engine, t.INTERFACE_STATE, rows), "oper": counters["oper"]}
        if not rows:
            raise DeviceError("the agent shows no ifTable: allow 1.3.6.1.2.1 in its view")
        old = await _rows(self.engine, t.INTERFACE_COUNTERS_32, rows) if needs_32(state, counters) else {}
        found = interfaces(state, counters, old)
        return DeviceSample(
            network=self.network,
            device=self.device,
            observed_at_ns=observed_at_ns,
            source="snmp",
            uptime_ns=None if system["uptime"] is None else system["uptime"] * TICK_NS,
            engine_boots=system["engine_boots"],
            poll_duration_s=time.perf_counter() - begin,
            interfaces=found,
            quality=("counters-32bit",) if any(i.counter_bits == 32 for i in found) else (),
        )

    async def topology(self) -> DeviceTopology:
        """Neighbours, addresses and routes; also refreshes what is known of the probes."""
        engine = self.topology_engine
        names = interface_names(await _columns(engine, t.INTERFACE_NAMES))
        lldp = {**await _columns(engine, t.LLDP_LOCAL), **await _columns(engine, t.LLDP_REMOTE)}
        found = addresses(await _columns(engine, t.ADDRESSES), names)
        if not found:
            found = addresses_old(await _columns(engine, t.ADDRESSES_OLD), names)
        forwarding = routes(await _columns(engine, t.ROUTES), names)
        self._operations = operations(await _columns(engine, t.RTTMON_ADMIN))
        self._pings = bool(await engine.walk(t.PING["sent"]))
        return DeviceTopology(
            network=self.network,
            device=self.device,
            observed_at_ns=self.clock(),
            source="snmp",
            neighbours=neighbours(lldp, names),
            addresses=found,
            routes=forwarding,
        )

    async def delays(self) -> list[DelayReport]:
        """What the device's own probes measured since the last poll."""
        found = []
        if self._operations:
            asked_at_ns = self.clock()
            uptime = (await self._scalars({"uptime": t.UPTIME}))["uptime"] or 0
            latest = await self._settled(await _columns(self.engine, t.RTTMON_JITTER))
            seen = self._runs.get("rttmon", {})
            fresh = delays(self._operations, latest, uptime_ticks=uptime, asked_at_ns=asked_at_ns, seen=seen)
            found += self._reports("rttmon", fresh, self.clock())
        if self._pings:
            now_ns = self.clock()
            seen = self._runs.get("disman-ping", {})
            fresh = ping_delays(await _columns(self.engine, t.PING), observed_at_ns=now_ns, seen=seen)
            found += self._reports("disman-ping", fresh, now_ns)
        return found

    async def _settled(self, latest: t.MutableColumns) -> t.Columns:
        """Leave out the operations that finished while their rows were read: half old, half new."""
        oid = t.RTTMON_JITTER["completed"]
        again = t.column_of(oid, await self.engine.walk(oid))
        before = latest["completed"]
        latest["completed"] = {index: at for index, at in before.items() if again.get(index) == at}
        return latest

    def _reports(self, method: DelayMethod, fresh: Delays, now_ns: int) -> list[DelayReport]:
        self._runs[method] = fresh.runs
        found = []
        if fresh.one_way or not fresh.round_trip:  # no news is told too: somebody waits for it
            found.append(self._report(method, fresh.one_way, now_ns, one_way=True))
        if fresh.round_trip:
            found.append(self._report(method, fresh.round_trip, now_ns, one_way=False))
        return found

    def _report(
        self, method: DelayMethod, found: tuple[PathDelay, ...], now_ns: int, *, one_way: bool
    ) -> DelayReport:
        unsynchronised = any(delay.clock_synchronised is False for delay in found)
        return DelayReport(
            network=self.network,
            device=self.device,
            observed_at_ns=now_ns,
            method=method,
            direction="one-way" if one_way else "round-trip",
            delays=found,
            quality=("clock-unsynchronised",) if unsynchronised else (),
        )

    async def _scalars(self, table: t.ColumnTable) -> dict[str, int | None]:
        found = await self.engine.get(list(table.values()))
        return {name: t.integer(found.get(oid)) for name, oid in table.items()}


async def _columns(engine: SnmpEngine, table: t.ColumnTable) -> t.MutableColumns:
    (key, oid), *_ = table.items()
    first = t.column_of(oid, await engine.walk(oid))
    found = await _rows(engine, {name: oid for name, oid in table.items() if name != key}, list(first))
    return {key: first, **found}


async def _rows(engine: SnmpEngine, table: t.ColumnTable, rows: Sequence[t.Index]) -> t.MutableColumns:
    where = {f"{oid}.{'.'.join(map(str, row))}": (name, row) for row in rows for name, oid in table.items()}
    found: t.MutableColumns = {name: {} for name in table}
    for oid, value in (await engine.get(list(where))).items():
        name, row = where[oid]
        found[name][row] = value
    return found
