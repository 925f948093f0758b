"""What the real pipeline makes of the ring network: states without a broker, for those who consume states."""

from __future__ import annotations

from strategies import T0, Ring, S, event_time_ns

from stream.pipeline import NetworkPipeline, PipelineSettings
from twin.records import Record, StateUpdate


def ring_states(count: int, network: str = "ring") -> list[StateUpdate]:
    """The first ``count`` states of a ring of four routers."""
    pipeline = NetworkPipeline(PipelineSettings())
    out: list[Record] = []
    for record in Ring(network=network).log(10 * count + 20):
        at_ns = event_time_ns(record)
        out += pipeline.on_record(record)
        out += pipeline.on_time(at_ns)
    out += pipeline.on_time(T0 + (10 * count + 60) * S)
    states = [record for record in out if isinstance(record, StateUpdate)]
    return states[:count]
