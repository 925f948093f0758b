"""When the flows of the packet simulator send, and how much: the compiled side of :mod:`twin.workload`.

``credit`` is what is left of the current gap at ``since``, in mean gaps: the next packet comes at
since + credit / (pps · level). So a change of rate or level stretches the rest of a gap and draws nothing.
Packets that open a level come on top, and the others at a rate that is lower by so much.
"""

from __future__ import annotations

from math import cos, erfc, exp, log, pi, sqrt
from typing import Any

import numpy as np

from twin.compiled import event_loop
from twin.simulator_records import State

EXPONENTIAL_GAPS, CONSTANT_GAPS, CORRELATED_GAPS, TRACE_GAPS = range(4)
DRAWN_SIZES, EXPONENTIAL_SIZES, SIZES_IN_ORDER = range(3)


@event_loop
def set_leaf(times: Any, ids: Any, leaf: int, time: float) -> None:
    """Give a leaf of a tournament its time; replay its matches, up to the first whose outcome stays."""
    i = (times.shape[0] >> 1) + leaf
    times[i] = time
    winner = np.int32(leaf)
    while i > 1:
        rival = times[i ^ 1]
        if rival < time or (rival == time and ids[i ^ 1] < winner):
            time = rival
            winner = ids[i ^ 1]
        i >>= 1
        if times[i] == time and ids[i] == winner:
            return
        times[i] = time
        ids[i] = winner


@event_loop
def _uniform(flow: Any) -> float:
    """(0, 1] from SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    flow.random = flow.random + np.uint64(0x9E3779B97F4A7C15)
    z = flow.random
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (float(z >> np.uint64(11)) + 1.0) * 2.0**-53


@event_loop
def _normal(flow: Any) -> float:
    """Standard normal (Box and Muller, 1958)."""
    return sqrt(-2.0 * log(_uniform(flow))) * cos(2.0 * pi * _uniform(flow))


@event_loop
def _rate(flow: Any) -> float:
    """Gaps a second while the level stands; packets that open a level come on top."""
    opened = flow.pps > flow.opening_pps
    return float((flow.pps - flow.opening_pps if opened else flow.pps) * flow.level)


@event_loop
def plan(flow: Any, now: float) -> float:
    """Set the next arrival from the credit left at ``now``; return the flow's next event."""
    flow.since = now
    rate = _rate(flow)
    if flow.opens:
        flow.next_arrival = now
    else:
        flow.next_arrival = now + flow.credit / rate if rate > 0.0 else np.inf
    return float(min(flow.next_arrival, flow.level_until))


@event_loop
def spend(flow: Any, now: float) -> None:
    """Bring the credit up to ``now``, before a change of rate or level."""
    flow.credit = max(0.0, flow.credit - (now - flow.since) * _rate(flow))


@event_loop
def enter_level(flow: Any, now: float) -> None:
    """Draw how long the current state lasts and, for a lognormal, its level."""
    if flow.modulation == 2:
        flow.level = exp(flow.sigma * _normal(flow) - 0.5 * flow.sigma * flow.sigma)
    else:
        flow.level = flow.levels[flow.state]
        flow.opens = flow.state == 0 and 0.0 < flow.opening_pps < flow.pps and now > 0.0
    flow.level_until = now - flow.stays[flow.state] * log(_uniform(flow))


@event_loop
def next_gap(state: State, flow: Any) -> float:
    """The gap after a packet, in mean gaps; infinite after the last packet of a trace."""
    if flow.gaps == EXPONENTIAL_GAPS:
        return -log(_uniform(flow))
    if flow.gaps == CONSTANT_GAPS:
        return 1.0
    if flow.gaps == CORRELATED_GAPS:
        return _correlated_gap(flow)
    if flow.gap_at == flow.gap_to:
        if not flow.repeat:
            return np.inf
        flow.gap_at = flow.gap_from
    flow.gap_at += 1
    return float(state.gaps[flow.gap_at - 1])


@event_loop
def _correlated_gap(flow: Any) -> float:
    """Exponential by way of a normal AR(1) process z: −ln(1 − Φ(z)) (Cario and Nelson, 1996: ARTA)."""
    noise = sqrt(1.0 - flow.memory * flow.memory)
    flow.normal = flow.memory * flow.normal + noise * _normal(flow)
    return -log(0.5 * erfc(flow.normal / sqrt(2.0)))


@event_loop
def _start_flow(state: State, flow: Any) -> None:
    flow.level = 1.0
    flow.level_until = np.inf
    if flow.modulation != 0:
        flow.state = _uniform(flow) * (flow.stays[0] + flow.stays[1]) > flow.stays[0]
        enter_level(flow, 0.0)
    if flow.gaps == CORRELATED_GAPS:
        flow.normal = _normal(flow)
    flow.credit = _uniform(flow) if flow.gaps == CONSTANT_GAPS else next_gap(state, flow)


@event_loop
def start(state: State) -> None:
    """Put every flow into a random phase of its stationary law (a trace: at its start) and build the tree."""
    for flow_id in range(state.flows.shape[0]):
        flow = state.flows[flow_id]
        _start_flow(state, flow)
        set_leaf(state.flow_times, state.flow_ids, flow_id, plan(flow, 0.0))


@event_loop
def draw_bits(state: State, flow: Any) -> int:
    """The size of the next packet."""
    first = flow.size_from
    if flow.sizes == EXPONENTIAL_SIZES:
        return int(1.0 - state.size_bits[first] * log(_uniform(flow)))
    if flow.size_to - first == 1:
        return int(state.size_bits[first])
    if flow.sizes == SIZES_IN_ORDER:
        at = flow.size_at
        flow.size_at = first if at + 1 == flow.size_to else at + 1
        return int(state.size_bits[at])
    u = _uniform(flow)
    low, high = first, flow.size_to - 1
    while low < high:
        middle = (low + high) >> 1
        if u <= state.size_cumulative[middle]:
            high = middle
        else:
            low = middle + 1
    return int(state.size_bits[low])


@event_loop
def set_rates(state: State, first: int, pps: Any, now: float) -> None:
    """Give flows ``first``, ``first`` + 1, … new rates; what is left of current gaps passes at them."""
    for k in range(pps.shape[0]):
        flow = state.flows[first + k]
        if flow.pps != pps[k]:
            spend(flow, now)
            flow.pps = pps[k]
            set_leaf(state.flow_times, state.flow_ids, first + k, plan(flow, now))
