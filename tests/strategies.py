"""One small network that speaks like devices do, and Hypothesis strategies over its records.

The network is a ring of N routers R0 … with known loads: everything a test expects can be computed by hand.
Router i has a loopback in 10.255.0.0/16, customers in a /24, ``eth0`` to the next router and ``eth1`` to
the one before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import strategies as st

from twin.records import (
    INPUT_RECORDS,
    DelayReport,
    DeviceSample,
    DeviceTopology,
    FlowCell,
    FlowReport,
    InterfaceAddress,
    InterfaceCounters,
    LinkAnnotation,
    LinkAnnotations,
    Neighbour,
    NetworkEvent,
    PathDelay,
    Record,
    Route,
)

S = 1_000_000_000
T0 = 1_700_000_000 * S  # a multiple of the window
CAPACITY_BPS = 1e8
LOAD_BPS = (8e6, 4e6)  # eth0, eth1: out
PACKET_OCTETS = 500
FLOW_BPS = 2e6
PROBE_BITS = 1000.0


def name(i: int) -> str:
    """Router i; the numbering sorts up to 1000 routers."""
    return f"R{i:03d}"


def customers(i: int) -> str:
    """The prefix behind router i."""
    return f"10.{(i + 1) // 200 + 1}.{(i + 1) % 200}.0/24"


def loopback(i: int) -> str:
    """The router id of router i."""
    return f"10.255.{(i + 1) // 200}.{(i + 1) % 200}"


class Ring:
    """A ring of routers: what each says about itself, its counters, its traffic and its delays."""

    def __init__(self, size: int = 4, network: str = "ring", epoch_ns: int = T0) -> None:
        self.size = size
        self.network = network
        self.epoch_ns = epoch_ns  # when the story begins

    def topology(self, i: int, at_ns: int = T0) -> DeviceTopology:
        """What router i reports; routes go the shorter way round, clockwise when equal."""
        after, before = (i + 1) % self.size, (i - 1) % self.size
        routes = [Route(prefix=customers(i), local=True), Route(prefix=f"{loopback(i)}/32", local=True)]
        for j in range(self.size):
            if j != i:
                clockwise = (j - i) % self.size <= self.size // 2
                hop = loopback(after if clockwise else before)
                port = "eth0" if clockwise else "eth1"
                routes += [
                    Route(prefix=p, next_hop=hop, interface=port) for p in (customers(j), f"{loopback(j)}/32")
                ]
        return DeviceTopology(
            network=self.network,
            device=name(i),
            observed_at_ns=at_ns,
            source="snmp",
            neighbours=(
                Neighbour(local_interface="eth0", remote_device=name(after), remote_interface="eth1"),
                Neighbour(local_interface="eth1", remote_device=name(before), remote_interface="eth0"),
            ),
            addresses=(InterfaceAddress(interface="lo", address=loopback(i), prefix=f"{loopback(i)}/32"),),
            routes=tuple(routes),
        )

    def annotations(self, at_ns: int = T0) -> LinkAnnotations:
        """4 ms on every clockwise link, 5 ms on the others."""
        pairs = [
            (i, (i + step) % self.size, delay)
            for i in range(self.size)
            for step, delay in ((1, 4e-3), (-1, 5e-3))
        ]
        return LinkAnnotations(
            network=self.network,
            observed_at_ns=at_ns,
            links=tuple(
                LinkAnnotation(source=name(a), target=name(b), propagation_delay_s=delay, buffer_packets=64)
                for a, b, delay in pairs
            ),
        )

    def sample(self, i: int, at_ns: int, source: str = "snmp") -> DeviceSample:
        """The counters of router i at an instant, had they run at the known loads for long."""
        seconds = (at_ns - self.epoch_ns) / S + 1000
        octets = [int(bps / 8 * seconds) for bps in LOAD_BPS]
        return DeviceSample(
            network=self.network,
            device=name(i),
            observed_at_ns=at_ns,
            source=source,  # type: ignore[arg-type]  # the caller passes one of the two literals
            uptime_ns=int(seconds * S),
            interfaces=tuple(
                InterfaceCounters(
                    name=f"eth{k}",
                    if_index=k + 1,
                    out_octets=octets[k],
                    in_octets=octets[1 - k],
                    out_packets=octets[k] // PACKET_OCTETS,
                    in_packets=octets[1 - k] // PACKET_OCTETS,
                    out_discards=int(3 * seconds) if k == 0 else 0,
                    in_discards=0,
                    speed_bps=CAPACITY_BPS,
                )
                for k in (0, 1)
            ),
        )

    def flows(self, i: int, start_ns: int, end_ns: int) -> FlowReport:
        """FLOW_BPS from router i to every other, by prefix."""
        octets = FLOW_BPS / 8 * (end_ns - start_ns) / S
        cells = [
            FlowCell(destination=customers(j), octets=octets, packets=octets / PACKET_OCTETS)
            for j in range(self.size)
            if j != i
        ]
        return FlowReport(
            network=self.network, device=name(i), start_ns=start_ns, end_ns=end_ns, cells=tuple(cells)
        )

    def delays(self, i: int, at_ns: int) -> DelayReport:
        """Ten probes in 5 s to every other router, by address; 1 ms a hop number."""
        parts = [
            PathDelay(
                destination=loopback(j),
                start_ns=at_ns - 5 * S,
                end_ns=at_ns,
                count=10,
                mean_s=1e-3 * (1 + (j - i) % self.size),
                packet_bits=PROBE_BITS,
                clock_synchronised=True,
            )
            for j in range(self.size)
            if j != i
        ]
        return DelayReport(
            network=self.network,
            device=name(i),
            observed_at_ns=at_ns,
            method="rttmon",
            direction="one-way",
            delays=tuple(parts),
        )

    def log(
        self, seconds: int, *, poll_s: int = 5, bin_s: int = 10, phase_ns: int = 10_000_000
    ) -> list[Record]:
        """All that is said in the first ``seconds``: in order of event time."""
        begin_ns = self.epoch_ns
        told: list[Record] = [self.annotations(begin_ns)]
        for i in range(self.size):
            told.append(self.topology(i, begin_ns + i))
            for second in range(0, seconds, poll_s):
                at_ns = begin_ns + second * S + (i + 1) * phase_ns
                told += [self.sample(i, at_ns), self.delays(i, at_ns)]
            for second in range(bin_s, seconds + 1, bin_s):
                end_ns = begin_ns + second * S
                told.append(self.flows(i, end_ns - bin_s * S, end_ns))
        return sorted(told, key=event_time_ns)


def event_time_ns(record: Record) -> int:
    """When a record of the ring says it was made."""
    at_ns: int = getattr(record, "observed_at_ns", None) or getattr(record, "end_ns", 0)
    return at_ns


# ---------------------------------------------------------------------------------------- strategies

_texts = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=8)
_named = st.sampled_from(
    ["R000", "R001", "R002", "10.1.1.0/24", "10.255.0.1", "eth0", "eth1", "2001:db8::/32", ""]
)
_strings = _named | _texts
_instants = st.integers(T0 - 100 * S, T0 + 100 * S) | st.integers(-(2**62), 2**62)
_numbers = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15)


def records() -> st.SearchStrategy[Record]:
    """Any input record at all: well-typed, and as wrong as types allow."""
    return st.one_of([_structs(kind) for kind in INPUT_RECORDS])


def _structs(kind: type) -> st.SearchStrategy[Record]:
    fields = msgspec.inspect.type_info(kind).fields  # type: ignore[attr-defined]  # Struct types have fields
    return st.builds(kind, **{field.name: _field(field.name, field.type) for field in fields})


def _field(name: str, kind: msgspec.inspect.Type) -> st.SearchStrategy[object]:
    if name == "network":
        return st.just("ring")
    if name.endswith("_ns") and isinstance(kind, msgspec.inspect.IntType):
        return _instants
    return _BY_KIND[type(kind)](kind)


_BY_KIND: dict[type, Callable[[Any], st.SearchStrategy[Any]]] = {
    msgspec.inspect.IntType: lambda kind: st.integers(-5, 2**63),
    msgspec.inspect.FloatType: lambda kind: _numbers,
    msgspec.inspect.StrType: lambda kind: _strings,
    msgspec.inspect.BoolType: lambda kind: st.booleans(),
    msgspec.inspect.NoneType: lambda kind: st.none(),
    msgspec.inspect.UnionType: lambda kind: st.one_of([_field("", one) for one in kind.types]),
    msgspec.inspect.VarTupleType: lambda kind: st.lists(_field("", kind.item_type), max_size=4).map(tuple),
    msgspec.inspect.LiteralType: lambda kind: st.sampled_from(kind.values),
    msgspec.inspect.StructType: lambda kind: _structs(kind.cls),
}


def link_event(kind: str, i: int, interface: str, at_ns: int) -> NetworkEvent:
    """An event of router i."""
    return NetworkEvent(network="ring", device=name(i), observed_at_ns=at_ns, kind=kind, interface=interface)
