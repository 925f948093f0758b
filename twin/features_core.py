"""The loops over flows and their hops that make features, compiled. Each runs on some of the flows, so that
several run side by side (:mod:`twin.chunks`), or on those alone that a change touches.

Rates thin out along a path: what a queue drops does not reach the next. Packets come to a queue from the node
itself (slot 0 of its inlets) or from a link into that node.
"""

from __future__ import annotations

from math import log, log1p

import numpy as np
from numpy.typing import NDArray

from twin.compiled import compiled
from twin.network import Floats, Ints

# Columns of the sums over the flows of a queue, λ the flow's rate there:
SQUARES = 0  # λ²
REGULAR = 1  # λ·(1 − variation of gaps)
REGULAR_OWN = 2  # λ²·(1 − variation of gaps)
BURST = 3  # λ²·variation of the rate
BURST_TIME = 4  # the same times its correlation time
SUMS = 5
# Columns of what a hop needs to know of its queue:
PER_ARRIVAL, SURVIVAL, LN_BITS, WAIT_S = range(4)
OF_QUEUE = 4
# ... and of its link:
LN_CAPACITY, S_PER_BIT, PROPAGATION_S, LOAD, POLICY, AHEAD_S_PER_BIT = range(6)
OF_LINK = 8  # columns, a line of the processor's cache
# Of what is told of a flow beside its row of features:
TRANSMISSION_S, FIXED_S = range(2)
LOAD_CAP = 3.0  # far beyond saturation nothing changes any more
RATE_SCV_CAP = 9.0
TINY = 1e-150  # its square is a number yet
Table = NDArray[np.float32]


@compiled
def inlets_of_hops(
    offsets: Ints, links: Ints, queues: Ints, base: Ints, rank: Ints, from_node: Ints, to_node: Ints
) -> Ints:
    """Where the packets of every hop come to its queue from, [H]: slots of queue q begin at base[q]."""
    inlets = np.empty(links.shape[0], np.int64)
    for flow in range(offsets.shape[0] - 1):
        for hop in range(offsets[flow], offsets[flow + 1]):
            inlets[hop] = base[queues[hop]]
            if hop > offsets[flow] and to_node[links[hop - 1]] == from_node[links[hop]]:
                inlets[hop] += 1 + rank[links[hop - 1]]
    return inlets


@compiled
def add_up(
    flows: Ints, offsets: Ints, queues: Ints, inlets: Ints, pps: Floats, vary: Floats, of_queue: Floats,
    sums: Floats, inlet_rate: Floats,
) -> None:  # fmt: skip
    """Add ``flows`` to the sums over every queue [Q, SUMS] and to the packets/s of every inlet [I].

    ``vary`` [F, 3]: squared variation of gaps, of the rate, and its correlation time (s); [0, 3] = Poisson.
    """
    poisson = vary.shape[0] == 0
    for flow in flows:
        rate = pps[flow]
        for hop in range(offsets[flow], offsets[flow + 1]):
            queue = queues[hop]
            inlet_rate[inlets[hop]] += rate
            square = rate * rate
            sums[queue, SQUARES] += square
            if not poisson:
                regular, burst = 1.0 - vary[flow, 0], vary[flow, 1]
                sums[queue, REGULAR] += rate * regular
                sums[queue, REGULAR_OWN] += square * regular
                sums[queue, BURST] += square * burst
                sums[queue, BURST_TIME] += square * burst * vary[flow, 2]
            rate *= of_queue[queue, SURVIVAL]


@compiled
def tabulate(
    flows: Ints, offsets: Ints, links: Ints, queues: Ints, inlets: Ints, pps: Floats, bits: Floats,
    size_scv: Floats, vary: Floats, overall_bits: float, of_queue: Floats, of_link: Floats,
    inlet_rate: Floats, hop_x: Table, flow_x: Table, seconds: Floats, bottleneck: Ints,
) -> None:  # fmt: skip
    """Write of every one of ``flows`` its row of twin.features.FLOW_FEATURES, those of its hops
    (HOP_FEATURES), its seconds of transmission and propagation, and the policy of its bottleneck: the link
    with the highest load on the way."""
    poisson = vary.shape[0] == 0
    ln_overall = log(overall_bits)
    for flow in flows:
        first, end = offsets[flow], offsets[flow + 1]
        rate, ln_bits = pps[flow], log(bits[flow])
        waits, per_bit, ahead, fixed, worst, policy = 0.0, 0.0, 0.0, 0.0, -1.0, 0.0
        before = of_link[links[first], LN_CAPACITY] if end > first else 0.0
        for hop in range(first, end):
            queue, link = of_queue[queues[hop]], of_link[links[hop]]
            hop_x[hop, 0] = rate * queue[PER_ARRIVAL]
            hop_x[hop, 1] = ln_bits - queue[LN_BITS]
            hop_x[hop, 2] = link[LN_CAPACITY] - before
            hop_x[hop, 3] = 1.0 if hop == first else 0.0
            hop_x[hop, 4] = inlet_rate[inlets[hop]] * queue[PER_ARRIVAL]
            waits += queue[WAIT_S]
            per_bit += link[S_PER_BIT]
            ahead += link[AHEAD_S_PER_BIT]
            fixed += link[PROPAGATION_S]
            policy = link[POLICY] if link[LOAD] > worst else policy
            worst = max(worst, link[LOAD])
            rate *= queue[SURVIVAL]
            before = link[LN_CAPACITY]
        transmission = bits[flow] * per_bit
        seconds[flow, TRANSMISSION_S] = transmission
        seconds[flow, FIXED_S] = fixed - bits[flow] * ahead
        bottleneck[flow] = int(policy)
        flow_x[flow, 0] = (end - first) / 8
        flow_x[flow, 1] = min(max(worst, 0.0), LOAD_CAP)
        flow_x[flow, 2] = log1p(waits / max(transmission, TINY))
        flow_x[flow, 3] = ln_bits - ln_overall
        flow_x[flow, 4] = size_scv[flow]
        flow_x[flow, 5] = 1.0 if poisson else vary[flow, 0]
        flow_x[flow, 6] = 0.0 if poisson else min(vary[flow, 1], RATE_SCV_CAP)
        flow_x[flow, 7] = 0.0 if poisson else log1p(vary[flow, 2] * pps[flow])
