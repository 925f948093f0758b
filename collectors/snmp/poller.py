"""One device by SNMP: which tables are read when, and the records that come of it.

The first column of a table is walked and tells how many rows there are; the other columns are then read in
answers of just that length (:mod:`collectors.snmp.paging`): one request a column for the interfaces of most
devices. Columns are read in the same order in every poll, so that what lies between two readings of one
counter is the poll's period, whatever the round trip.

Names, speeds and administrative states seldom change. They are read with the first poll, once a minute, and
at once when something hints at a change: another set of interfaces, another state of one, a change stamp
that moved, a sysUpTime that went back. So a renumbered interface never gets its neighbour's counters.

Who answers is read in the first request of every reading, and held against who was known to
(:mod:`collectors.snmp.identity`): of another device nothing more is read. It is read once more where a
reading took long: a request that is lost is sent again, and then another device may answer it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field

from collectors.snmp import tables as t
from collectors.snmp.engine import Index, SnmpEngine, Value
from collectors.snmp.identity import REPLACED, Identities, News, identity_of
from collectors.snmp.interfaces import TICK_NS, interface_names, interfaces, needs_32
from collectors.snmp.neighbours import lldp_neighbours, ospf_neighbours
from collectors.snmp.places import Places
from collectors.snmp.probing import Probes
from collectors.snmp.qos import has_policers, queues
from collectors.snmp.reading import columns, first_table, more
from collectors.snmp.tables import text
from collectors.snmp.topology import addresses, addresses_old, routes, routes_old
from twin.errors import DeviceError
from twin.records import (
    DelayReport,
    DeviceSample,
    DeviceTopology,
    InterfaceAddress,
    Neighbour,
    QueueCounters,
)

Clock = Callable[[], int]  # nanoseconds since the epoch
Gate = Callable[[], AbstractAsyncContextManager[None]]
STATE_PERIOD_NS = 60_000_000_000
_LONG_S = 0.05  # less than any time-out


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
    places: Places = field(default_factory=Places)  # shared by all pollers of a collector
    identities: Identities | None = None  # likewise; None: whoever answers is believed
    news: list[News] = field(default_factory=list)  # of who answers; whoever polls takes it
    moved: bool = False  # a change stamp has moved between the last two samples
    names: Mapping[int, str] = field(default_factory=dict)  # ifIndex → ifName, as last seen
    _stamps: Mapping[str, int | None] = field(default_factory=dict)
    _state: _State = field(default_factory=_State)
    _has_queues: bool = False
    _unknown_since: int | None = None  # what the places had learnt when a neighbour was nobody's

    def __post_init__(self) -> None:
        self._probes = Probes(self.network, self.device, self.clock)

    async def sample(self) -> DeviceSample:
        """One poll of the counters and states of all interfaces."""
        begin = time.perf_counter()
        system = await self._begin(self.engine)
        stamps = {name: system[name] for name in t.CHANGE_STAMPS}
        self.moved = bool(self._stamps) and stamps != self._stamps
        self._stamps = stamps
        async with self.gate():
            before_ns = self.clock()
            counters = await columns(self.engine, t.INTERFACE_COUNTERS)
            observed_at_ns = (before_ns + self.clock()) // 2
            state = await self._interface_state(counters["oper"], system["uptime"] or 0)
            old = await self._old_counters(state, counters)
            waiting = await self._queues() if self._has_queues else ()
            await self._confirm(self.engine, begin)
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
            queues=waiting,
            quality=("counters-32bit",) if any(i.counter_bits == 32 for i in found) else (),
        )

    async def _begin(self, engine: SnmpEngine) -> dict[str, int | None]:
        """Uptime and change stamps, from the right device; WrongDevice when another one answers."""
        numbers = {**t.SYSTEM, **t.CHANGE_STAMPS}
        answer = await engine.get([*numbers.values(), *t.IDENTITY.values()])
        told = {name: t.integer(answer.get(oid)) for name, oid in numbers.items()}
        if self.identities is not None:
            uptime_ns = None if told["uptime"] is None else told["uptime"] * TICK_NS
            news = self.identities.check(self.device, identity_of(answer), uptime_ns, self.clock())
            if any(one.kind == REPLACED for one in news):
                self._state = _State()
            self.news += news
        return told

    async def _confirm(self, engine: SnmpEngine, begin: float) -> None:
        if self.identities is not None and time.perf_counter() - begin > _LONG_S:
            await self._begin(engine)

    def nothing(self, at_ns: int, why: str) -> DeviceSample:
        """A sample without an interface: no rate spans it."""
        return DeviceSample(
            network=self.network, device=self.device, observed_at_ns=at_ns, source="snmp", quality=(why,)
        )

    async def _interface_state(self, oper: Mapping[Index, Value], uptime: int) -> t.Columns:
        if not oper:
            raise DeviceError("the agent shows no ifTable: allow 1.3.6.1.2.1 in its view")
        now_ns = self.clock()
        if self.moved or not self._state.holds(oper, uptime, now_ns):
            seldom = await more(self.engine, t.INTERFACE_STATE, t.INTERFACE_COUNTERS["oper"], oper)
            self._state = _State({**seldom, "oper": oper}, oper, now_ns, uptime)
            self.names = interface_names(self._state.columns)
        self._state.uptime = uptime
        return self._state.columns

    async def _old_counters(self, state: t.Columns, counters: t.Columns) -> t.Columns:
        if not needs_32(state, counters):
            return {}
        return await more(
            self.engine, t.INTERFACE_COUNTERS_32, t.INTERFACE_COUNTERS["oper"], counters["oper"]
        )

    async def topology(self) -> DeviceTopology:
        """Neighbours, addresses and routes; also refreshes what is known of the probes."""
        try:
            begin = time.perf_counter()
            await self._begin(self.topology_engine)
            names = interface_names(await columns(self.topology_engine, t.INTERFACE_NAMES))
            async with self.topology_gate():
                found = await self._topology(self.topology_engine, names)
                await self._confirm(self.topology_engine, begin)
                return found
        finally:
            self.topology_engine.close()  # seldom used: it need not hold a socket

    async def _topology(self, engine: SnmpEngine, names: Mapping[int, str]) -> DeviceTopology:
        found = addresses(await columns(engine, t.ADDRESSES), names)
        if not found:
            found = addresses_old(await columns(engine, t.ADDRESSES_OLD), names)
        adjacent = await self._lldp(engine, names)
        by_ospf, unknown = await self._ospf(engine, names, found)
        self._unknown_since = self.places.learnt if unknown else None
        old, table = await first_table(engine, (t.ROUTES, t.ROUTES_OLD))
        await self._probes.look(engine)
        self._has_queues = bool(await engine.walk(t.QOS_POLICIES["if_index"]))
        return DeviceTopology(
            network=self.network,
            device=self.device,
            observed_at_ns=self.clock(),
            source="snmp",
            neighbours=adjacent + by_ospf,
            addresses=found,
            routes=(routes_old if old else routes)(table, names),
            quality=("neighbours-unknown",) if unknown else (),
        )

    @property
    def may_know_neighbours(self) -> bool:
        """Whether devices that were read since the last topology may be the neighbours it did not know."""
        return self._unknown_since is not None and self._unknown_since != self.places.learnt

    async def _lldp(self, engine: SnmpEngine, names: Mapping[int, str]) -> tuple[Neighbour, ...]:
        """LLDP of 2009 where the device has its module, else of 2005."""
        tables = ((t.LLDP2_REMOTE, t.LLDP2_LOCAL), (t.LLDP_REMOTE, t.LLDP_LOCAL))
        number, heard = await first_table(engine, [remote for remote, _ in tables])
        if not heard:
            return ()
        return lldp_neighbours({**heard, **await columns(engine, tables[number][1])}, names)

    async def _ospf(
        self, engine: SnmpEngine, names: Mapping[int, str], found: tuple[InterfaceAddress, ...]
    ) -> tuple[tuple[Neighbour, ...], int]:
        router_id = (await engine.get([t.OSPF_ROUTER_ID])).get(t.OSPF_ROUTER_ID)
        self.places.learn(self.device, found, text(router_id))
        return ospf_neighbours(await columns(engine, t.OSPF_NEIGHBOURS), names, found, self.places)

    async def _queues(self) -> tuple[QueueCounters, ...]:
        policies = await columns(self.engine, t.QOS_POLICIES)
        objects = await columns(self.engine, t.QOS_OBJECTS)
        if has_policers(objects):
            objects |= {name: await self.engine.walk(oid) for name, oid in t.QOS_POLICERS.items()}
        return queues(policies, objects, self.names)

    async def delays(self) -> list[DelayReport]:
        """What the device's own probes measured since the last poll."""
        return await self._probes.read(self.engine)
