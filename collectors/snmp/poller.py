"""One device by SNMP: which tables are read when, and the records that come of it.

The first column of a table is walked and tells how many rows there are; the other columns are then read in
answers of just that length (:mod:`collectors.snmp.paging`): one request a column for the interfaces of most
devices. Columns are read in the same order in every poll, so that what lies between two readings of one
counter is the poll's period, whatever the round trip.

Names, speeds and administrative states seldom change. They are read with the first poll, once a minute, and
at once when something hints at a change: another set of interfaces, another state of one, a change stamp
that moved, a sysUpTime that went back. So a renumbered interface never gets its neighbour's counters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field

from collectors.snmp import tables as t
from collectors.snmp.engine import Index, SnmpEngine, Value
from collectors.snmp.interfaces import TICK_NS, interface_names, interfaces, needs_32
from collectors.snmp.ping import ping_delays
from collectors.snmp.rttmon import Delays, Operation, delays, operations
from collectors.snmp.topology import addresses, addresses_old, neighbours, routes
from twin.errors import DeviceError
from twin.records import DelayMethod, DelayReport, DeviceSample, DeviceTopology, PathDelay

Clock = Callable[[], int]  # nanoseconds since the epoch
Gate = Callable[[], AbstractAsyncContextManager[None]]
STATE_PERIOD_NS = 60_000_000_000


def _no_gate() -> AbstractAsyncContextManager[None]:
    return nullcontext()


@dataclass
class _State:
    """The interface columns that seldom change, and by what they are known to be still true."""

    columns: t.Columns = field(default_factory=dict)
    oper: Mapping[Index, Value] = field(default_factory=dict)
    read_at_ns: int = 0
    uptime: int = 0

    def holds(self, oper: Mapping[Index, Value], uptime: int, now_ns: int) -> bool:
        """Whether nothing hints at a change."""
        recent = now_ns - self.read_at_ns < STATE_PERIOD_NS
        return recent and oper == self.oper and uptime >= self.uptime


@dataclass
class SnmpPoller:
    """Reads one device; holds what must be remembered between two polls of it.

    Topology is read over a connection of its own: a long routing table must not hold the counters up.
    ``gate`` is entered once the device has answered a first request, so that silent ones take nobody's turn.
    """

    network: str
    device: str
    engine: SnmpEngine
    topology_engine: SnmpEngine
    clock: Clock
    gate: Gate = _no_gate
    topology_gate: Gate = _no_gate
    moved: bool = False  # a change stamp has moved between the last two samples
    names: Mapping[int, str] = field(default_factory=dict)  # ifIndex → ifName, as last seen
    _stamps: Mapping[str, int | None] = field(default_factory=dict)
    _state: _State = field(default_factory=_State)
    _operations: tuple[Operation, ...] = ()
    _pings: bool = False
    _runs: dict[str, Mapping[Index, int]] = field(default_factory=dict)

    async def sample(self) -> DeviceSample:
        """One poll of the counters and states of all interfaces."""
        begin = time.perf_counter()
        system = await self._scalars({**t.SYSTEM, **t.CHANGE_STAMPS})
        stamps = {name: system[name] for name in t.CHANGE_STAMPS}
        self.moved = bool(self._stamps) and stamps != self._stamps
        self._stamps = stamps
        async with self.gate():
            before_ns = self.clock()
            counters = await _columns(self.engine, t.INTERFACE_COUNTERS)
            observed_at_ns = (before_ns + self.clock()) // 2
            state = await self._interface_state(counters["oper"], system["uptime"] or 0)
            old = await self._old_counters(state, counters)
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

    async def _interface_state(self, oper: Mapping[Index, Value], uptime: int) -> t.Columns:
        if not oper:
            raise DeviceError("the agent shows no ifTable: allow 1.3.6.1.2.1 in its view")
        now_ns = self.clock()
        if self.moved or not self._state.holds(oper, uptime, now_ns):
            columns = await _more(self.engine, t.INTERFACE_STATE, len(oper))
            self._state = _State({**columns, "oper": oper}, oper, now_ns, uptime)
            self.names = interface_names(self._state.columns)
        self._state.uptime = uptime
        return self._state.columns

    async def _old_counters(self, state: t.Columns, counters: t.Columns) -> t.Columns:
        if not needs_32(state, counters):
            return {}
        return await _more(self.engine, t.INTERFACE_COUNTERS_32, len(counters["oper"]))

    async def topology(self) -> DeviceTopology:
        """Neighbours, addresses and routes; also refreshes what is known of the probes."""
        try:
            names = interface_names(await _columns(self.topology_engine, t.INTERFACE_NAMES))
            async with self.topology_gate():
                return await self._topology(self.topology_engine, names)
        finally:
            self.topology_engine.close()  # seldom used: it need not hold a socket

    async def _topology(self, engine: SnmpEngine, names: Mapping[int, str]) -> DeviceTopology:
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
        again = await self.engine.walk(oid)
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
    """A whole table: the first column tells the rows."""
    (key, oid), *others = table.items()
    first = await engine.walk(oid)
    return {key: first, **await _more(engine, dict(others), len(first))}


async def _more(engine: SnmpEngine, table: t.ColumnTable, rows: int) -> t.MutableColumns:
    """Columns of a table that has so many rows."""
    if not rows:
        return {name: {} for name in table}
    return {name: await engine.walk(oid, rows) for name, oid in table.items()}
