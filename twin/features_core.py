"""What must be added up over hundreds of thousands of hops, compiled.

``flows`` [F, 5] holds bits a packet, packets/s, squared variation of gaps, of the rate, and its correlation
time (s). Rates thin out along a path: what a queue drops does not reach the next.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twin.compiled import compiled
from twin.network import Floats, Ints

# Columns of the sums over the flows of a queue, λ the flow's rate there:
SQUARES = 0  # λ²
INLET = 1  # (Σ λ of one inlet)²
FRESH = 2  # λ of flows that begin here
REGULAR = 3  # λ·(1 − variation of gaps)
REGULAR_OWN = 4  # λ²·(1 − variation of gaps)
BURST = 5  # λ²·variation of the rate
BURST_TIME = 6  # the same times its correlation time
SUMS = 7


@compiled
def add_up(
    links: Ints, offsets: Ints, queues: Ints, flows: Floats, survival: Floats, wait_s: Floats,
    link_load: Floats, policy: Ints, capacity_bps: Floats, propagation_s: Floats,
    inlet_base: Ints, inlet_rank: Ints, node_in: Ints, node_out: Ints, inlets: int,
) -> tuple[Floats, NDArray[np.float32], NDArray[np.int32], Floats, Floats]:  # fmt: skip
    """Sums over queues [Q, SUMS]; per hop its rate and inlet [H]; rates of inlets; and per flow [F, 5] the
    sums of waits, transmission and propagation (s), the highest link load, and that link's policy."""
    sums = np.zeros((survival.shape[0], SUMS))
    hop_rate = np.empty(links.shape[0], dtype=np.float32)
    hop_inlet = np.empty(links.shape[0], dtype=np.int32)
    inlet_rate = np.zeros(inlets)
    along = np.zeros((flows.shape[0], 5))
    for flow in range(flows.shape[0]):
        bits, rate, irregular, burst, burst_s = flows[flow]
        previous = -1
        for hop in range(offsets[flow], offsets[flow + 1]):
            link, queue = links[hop], queues[hop]
            inlet = inlet_base[queue]
            if previous >= 0 and node_in[previous] == node_out[link]:
                inlet += 1 + inlet_rank[previous]
            hop_rate[hop], hop_inlet[hop] = rate, inlet
            inlet_rate[inlet] += rate
            square = rate * rate
            sums[queue, SQUARES] += square
            sums[queue, REGULAR] += rate * (1.0 - irregular)
            sums[queue, REGULAR_OWN] += square * (1.0 - irregular)
            sums[queue, BURST] += square * burst
            sums[queue, BURST_TIME] += square * burst * burst_s
            along[flow, 0] += wait_s[queue]
            along[flow, 1] += bits / capacity_bps[link]
            along[flow, 2] += propagation_s[link]
            if hop == offsets[flow] or link_load[link] > along[flow, 3]:
                along[flow, 3], along[flow, 4] = link_load[link], policy[link]
            rate *= survival[queue]
            previous = link
    for queue in range(survival.shape[0]):
        sums[queue, FRESH] = inlet_rate[inlet_base[queue]]
        end = inlet_base[queue + 1] if queue + 1 < survival.shape[0] else inlets
        for inlet in range(inlet_base[queue], end):
            sums[queue, INLET] += inlet_rate[inlet] ** 2
    return sums, hop_rate, hop_inlet, inlet_rate, along


@compiled
def hop_table(
    links: Ints, offsets: Ints, queues: Ints, hop_rate: NDArray[np.float32], hop_inlet: NDArray[np.int32],
    inlet_rate: Floats, per_arrival: Floats, ln_bits: Floats, ln_queue_bits: Floats, ln_capacity: Floats,
) -> NDArray[np.float32]:  # fmt: skip
    """The table of twin.features.HOP_FEATURES, [H, 5]."""
    table = np.empty((links.shape[0], 5), dtype=np.float32)
    for flow in range(offsets.shape[0] - 1):
        first = offsets[flow]
        for hop in range(first, offsets[flow + 1]):
            queue, link = queues[hop], links[hop]
            table[hop, 0] = hop_rate[hop] * per_arrival[queue]
            table[hop, 1] = ln_bits[flow] - ln_queue_bits[queue]
            table[hop, 2] = 0.0 if hop == first else ln_capacity[link] - ln_capacity[links[hop - 1]]
            table[hop, 3] = 1.0 if hop == first else 0.0
            table[hop, 4] = inlet_rate[hop_inlet[hop]] * per_arrival[queue]
    return table
