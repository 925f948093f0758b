"""A device's own delay probes: which kinds it has, and what is new of them since the last poll."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from collectors.snmp import tables as t
from collectors.snmp.engine import Index, SnmpEngine
from collectors.snmp.ping import ping_delays
from collectors.snmp.reading import columns, scalars
from collectors.snmp.rpm import rpm_delays
from collectors.snmp.rttmon import Delays, Operation, delays, operations
from twin.records import DelayMethod, DelayReport, PathDelay


class _Reader(Protocol):
    def __call__(self, table: t.Columns, *, observed_at_ns: int, seen: Mapping[Index, int]) -> Delays: ...


# Round-trip probes: method → its table, and who reads it. A device has those whose first column has rows.
_ROUND_TRIPS: dict[DelayMethod, tuple[t.ColumnTable, _Reader]] = {
    "disman-ping": (t.PING, ping_delays),
    "juniper-rpm": (t.RPM, rpm_delays),
}


@dataclass
class Probes:
    """What is remembered of one device's probes."""

    network: str
    device: str
    clock: Callable[[], int]
    _operations: tuple[Operation, ...] = ()
    _round_trips: tuple[DelayMethod, ...] = ()
    _runs: dict[str, Mapping[Index, int]] = field(default_factory=dict)

    async def look(self, engine: SnmpEngine) -> None:
        """See which probes there are. RPM's tests show in DISMAN-PING's tables too, only coarser."""
        self._operations = operations(await columns(engine, t.RTTMON_ADMIN))
        present = [
            method
            for method, (table, _) in _ROUND_TRIPS.items()
            if await engine.walk(next(iter(table.values())))
        ]
        self._round_trips = ("juniper-rpm",) if "juniper-rpm" in present else tuple(present)

    async def read(self, engine: SnmpEngine) -> list[DelayReport]:
        """What they measured since the last time."""
        found = await self._jitter(engine) if self._operations else []
        for method in self._round_trips:
            table, read = _ROUND_TRIPS[method]
            now_ns = self.clock()
            seen = self._runs.get(method, {})
            fresh = read(await columns(engine, table), observed_at_ns=now_ns, seen=seen)
            found += self._reports(method, fresh, now_ns)
        return found

    async def _jitter(self, engine: SnmpEngine) -> list[DelayReport]:
        asked_at_ns = self.clock()
        uptime = (await scalars(engine, {"uptime": t.UPTIME}))["uptime"] or 0
        latest = await self._settled(engine, await columns(engine, t.RTTMON_JITTER))
        seen = self._runs.get("rttmon", {})
        fresh = delays(self._operations, latest, uptime_ticks=uptime, asked_at_ns=asked_at_ns, seen=seen)
        return self._reports("rttmon", fresh, self.clock())

    async def _settled(self, engine: SnmpEngine, latest: t.MutableColumns) -> t.Columns:
        """Leave out the operations that finished while their rows were read: half old, half new."""
        again = await engine.walk(t.RTTMON_JITTER["completed"])
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
