"""A device's own delay probes: which kinds it has, and what is new of them since the last poll.

A result that was read before is no measurement, so it is not told again. Where none of a kind is new for
three times as long as its tests take to come round, the reports say ``delays-stale``: they have stopped, or
what tells of them hangs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from collectors.snmp import tables as t
from collectors.snmp.engine import Index, SnmpEngine, Value
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


_LATE = 3  # times the longest frequency of a kind's tests
_NS_PER_S = 1_000_000_000


@dataclass
class Probes:
    """What is remembered of one device's probes."""

    network: str
    device: str
    clock: Callable[[], int]
    _operations: tuple[Operation, ...] = ()
    _round_trips: tuple[DelayMethod, ...] = ()
    _runs: dict[str, Mapping[Index, int]] = field(default_factory=dict)
    _news_ns: dict[str, int] = field(default_factory=dict)  # method → when a result was new

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
            results = await columns(engine, table)
            fresh = read(results, observed_at_ns=now_ns, seen=seen)
            every_s = max(map(_number, results["frequency_s"].values()), default=0)
            found += self._reports(method, fresh, now_ns, every_s)
        return found

    async def _jitter(self, engine: SnmpEngine) -> list[DelayReport]:
        asked_at_ns = self.clock()
        uptime = (await scalars(engine, {"uptime": t.UPTIME}))["uptime"] or 0
        latest = await self._settled(engine, await columns(engine, t.RTTMON_JITTER))
        seen = self._runs.get("rttmon", {})
        fresh = delays(self._operations, latest, uptime_ticks=uptime, asked_at_ns=asked_at_ns, seen=seen)
        every_s = max(operation.frequency_s for operation in self._operations)
        return self._reports("rttmon", fresh, self.clock(), every_s)

    async def _settled(self, engine: SnmpEngine, latest: t.MutableColumns) -> t.Columns:
        """Leave out the operations that finished while their rows were read: half old, half new."""
        again = await engine.walk(t.RTTMON_JITTER["completed"])
        before = latest["completed"]
        latest["completed"] = {index: at for index, at in before.items() if again.get(index) == at}
        return latest

    def _reports(self, method: DelayMethod, fresh: Delays, now_ns: int, every_s: int) -> list[DelayReport]:
        quality = self._staleness(method, fresh, now_ns, every_s)
        self._runs[method] = fresh.runs
        found = []
        if fresh.one_way or not fresh.round_trip:  # no news is told too: somebody waits for it
            found.append(self._report(method, fresh.one_way, now_ns, quality, one_way=True))
        if fresh.round_trip:
            found.append(self._report(method, fresh.round_trip, now_ns, quality, one_way=False))
        return found

    def _staleness(self, method: DelayMethod, fresh: Delays, now_ns: int, every_s: int) -> tuple[str, ...]:
        """A frequency of 0: the tests run once, so that no news is no wonder."""
        if fresh.runs != self._runs.get(method):
            self._news_ns[method] = now_ns
        silent_ns = now_ns - self._news_ns.setdefault(method, now_ns)
        return ("delays-stale",) if every_s and silent_ns > _LATE * every_s * _NS_PER_S else ()

    def _report(
        self,
        method: DelayMethod,
        found: tuple[PathDelay, ...],
        now_ns: int,
        quality: tuple[str, ...],
        *,
        one_way: bool,
    ) -> DelayReport:
        unsynchronised = any(delay.clock_synchronised is False for delay in found)
        return DelayReport(
            network=self.network,
            device=self.device,
            observed_at_ns=now_ns,
            method=method,
            direction="one-way" if one_way else "round-trip",
            delays=found,
            quality=(*quality, "clock-unsynchronised") if unsynchronised else quality,
        )


def _number(value: Value) -> int:
    return t.integer(value) or 0
