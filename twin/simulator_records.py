"""What the packet simulator's event loop reads and writes: packets, links, queues, flows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PACKET = np.dtype(
    [
        ("departs", "f8"),  # last bit leaves the queue; while it waits in one of several: came at
        ("arrives", "f8"),  # last bit reaches the next node; while it waits: its stamp (WFQ)
        ("entered", "f8"),  # at the source
        ("flow", "i4"),
        ("bits", "i4"),
        ("route", "i2"),
        ("hops", "i2"),
        ("service_class", "i2"),
    ],
    align=True,
)
# What every packet touches comes first, in two cache lines of 64 octets.
LINK = np.dtype(
    [
        ("seconds_per_bit", "f8"),
        ("ahead_per_bit", "f8"),  # 1/capacity − 1/line rate: 0 unless the link is shaped
        ("latency", "f8"),  # propagation + extra delay + delay of the slow node it leaves
        ("last_departs", "f8"),  # end of the service in progress
        ("last_arrives", "f8"),
        ("head", "i8"),
        ("served", "i8"),
        ("tail", "i8"),
        ("offset", "i8"),
        ("held_bits", "i8"),  # of [served, tail)
        ("buffer_bits", "i8"),  # what a queue holds, the packet in service included
        ("octets", "i8"),
        ("packets", "i8"),
        ("buffer", "i4"),  # what a queue holds in packets
        ("mask", "i4"),
        ("waiting", "i4"),  # packets in the queues of a link that has several
        ("target", "i4"),
        ("first_queue", "i4"),
        ("up", "i2"),
        ("queues", "i2"),
        ("policy", "i4"),  # place in twin.scheduling.POLICIES
        ("serving", "i4"),  # queue of the packet in service, or of the last one
        ("serving_bits", "i4"),
        ("turn", "i4"),  # DRR: the queue whose turn it is, and whether it got its quantum
        ("granted", "i4"),
        ("drops", "i8"),
        ("drop_octets", "i8"),
    ],
    align=True,
)
QUEUE = np.dtype(
    [
        ("arrivals", "i8"),  # taken in or dropped
        ("bits", "i8"),  # whose service has begun
        ("packet_seconds", "f8"),  # time that packets have spent here, service included: see core.occupancy
        ("bit_seconds", "f8"),
        ("drops", "i8"),
        ("head", "i8"),  # ring of the packets that wait; unused where a link has one queue
        ("tail", "i8"),
        ("offset", "i8"),
        ("mask", "i8"),
        ("held_bits", "i8"),
        ("share", "f8"),
        ("finish", "f8"),  # WFQ: stamp of the last packet that came
        ("quantum", "f8"),  # DRR, seconds
        ("deficit", "f8"),
    ],
    align=True,
)
FLOW = np.dtype(
    [
        ("next_arrival", "f8"),
        ("level_until", "f8"),
        ("since", "f8"),
        ("credit", "f8"),
        ("pps", "f8"),
        ("opening_pps", "f8"),
        ("level", "f8"),
        ("random", "u8"),
        ("source", "i4"),
        ("route", "i4"),  # column of ``State.next_link``
        ("service_class", "i4"),
        ("gaps", "i4"),  # kind of twin.workload.Gaps
        ("opens", "i4"),  # the next packet is one that opens a level
        ("sizes", "i4"),  # drawn from a table, exponential, or in order: see simulator_arrivals
        ("size_from", "i4"),  # its rows of the size table
        ("size_to", "i4"),
        ("sent_packets", "i8"),
        ("sent_octets", "i8"),
        ("delivered_packets", "i8"),
        ("delivered_octets", "i8"),
        ("count", "i8"),  # delays since they were last taken: around ``shift``, the first of them
        ("shift", "f8"),
        ("sum", "f8"),
        ("sum_squares", "f8"),
        ("min", "f8"),
        ("max", "f8"),
        ("lost_packets", "i8"),
        ("lost_measured", "i8"),  # of those that entered after ``measured_from``
        ("modulation", "i4"),  # 0 none, 1 two states, 2 lognormal
        ("state", "i4"),  # which of the two states
        ("levels", "f8", (2,)),
        ("stays", "f8", (2,)),
        ("sigma", "f8"),
        ("size_at", "i4"),  # sizes in order: the next one
        ("gap_from", "i4"),  # its rows of the gap table
        ("gap_to", "i4"),
        ("gap_at", "i4"),
        ("repeat", "i4"),
        ("memory", "f8"),  # correlated gaps: of the normal process behind them
        ("normal", "f8"),
    ],
    align=True,
)


class State(NamedTuple):
    """Everything the loop reads and writes."""

    packets: NDArray[np.void]  # pool of rings
    links: NDArray[np.void]  # [L]
    queues: NDArray[np.void]  # [Q]
    flows: NDArray[np.void]  # [F]
    next_link: NDArray[np.int16]  # [N, N] towards a destination; [N, F] of a flow where routes are given
    queue_of_class: NDArray[np.int32]  # [L, CLASSES]
    node_drops: NDArray[np.int64]  # [N] no route, or hop limit reached
    link_times: NDArray[np.float64]  # tournament trees: leaf i at width + i, the winner at 1
    link_ids: NDArray[np.int32]
    flow_times: NDArray[np.float64]
    flow_ids: NDArray[np.int32]
    size_bits: NDArray[np.int32]  # the flows' size tables, one after the other
    size_cumulative: NDArray[np.float64]
    gaps: NDArray[np.float64]  # the flows' traces, in mean gaps
    measured_from: NDArray[np.float64]  # [1] packets that entered up to then are in no figure of delay
    histogram: NDArray[np.int32]  # [F, bins] delays on a logarithmic scale; [0, bins] where not asked for
    shortest_delay: NDArray[np.float64]  # [1] where the first bin begins
