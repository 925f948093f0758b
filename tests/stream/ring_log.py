"""What the real pipeline makes of the ring network: states without a broker, for those who consume states."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
import numpy as np
from strategies import T0, Ring, S, event_time_ns, loopback, name

from stream.pipeline import NetworkPipeline, PipelineSettings
from twin.records import DelayReport, DeviceTopology, Record, StateUpdate

HOP_S = (5.5e-3, 6.5e-3)  # clockwise and back: 1.5 ms more than the inventory tells


def ring_states(
    count: int,
    network: str = "ring",
    *,
    spoken: Callable[[Record], Record] = lambda record: record,
    more: Iterable[Record] = (),
) -> list[StateUpdate]:
    """The first ``count`` states of a ring of four routers, whose records come through ``spoken``."""
    pipeline = NetworkPipeline(PipelineSettings())
    out: list[Record] = []
    for record in sorted([*Ring(network=network).log(10 * count + 20), *more], key=event_time_ns):
        at_ns = event_time_ns(record)
        out += pipeline.on_record(spoken(record))
        out += pipeline.on_time(at_ns)
    out += pipeline.on_time(T0 + (10 * count + 60) * S)
    states = [record for record in out if isinstance(record, StateUpdate)]
    return states[:count]


def longer_than_told(record: Record) -> Record:
    """Delays as a ring would have them whose links are longer than the inventory tells, ± 0.5 %."""
    if not isinstance(record, DelayReport):
        return record
    source = int(record.device[1:])
    noise = np.random.default_rng([source, record.observed_at_ns // S]).normal(0.0, 0.005, len(record.delays))
    steps = {loopback(j): (j - source) % 4 for j in range(4)}
    delays = [
        msgspec.structs.replace(one, mean_s=_way_s(steps[one.destination]) * float(np.exp(stray)))
        for one, stray in zip(record.delays, noise, strict=True)
    ]
    return msgspec.structs.replace(record, delays=tuple(delays))


def _way_s(clockwise: int) -> float:
    return HOP_S[0] * clockwise if clockwise <= 2 else HOP_S[1] * (4 - clockwise)


def other_way(at_ns: int, network: str = "ring") -> DeviceTopology:
    """R000 sends to R002 the other way round from now on."""
    told = Ring(network=network).topology(0, at_ns)
    there = {route.prefix for route in told.routes if route.next_hop == loopback(1)} & {
        route.prefix for route in Ring().topology(2).routes if route.local
    }
    routes = [
        msgspec.structs.replace(route, next_hop=loopback(3), interface="eth1")
        if route.prefix in there
        else route
        for route in told.routes
    ]
    assert told.device == name(0)
    return msgspec.structs.replace(told, routes=tuple(routes))
