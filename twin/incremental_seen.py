"""What flows see of a queue beside its states: numbers of which equal steps are worth about as much."""

from __future__ import annotations

import numpy as np

from twin.features import LN_BLOCKING_FLOOR, Loops
from twin.features_core import PER_ARRIVAL, TINY
from twin.network import Floats, Network
from twin.queueing import LinkQueues

# Columns, in logarithms but for the load. The first counts by the flow's share of the queue's packets, wait
# and deviation directly, the last where packets are lost.
ARRIVAL, SERVICE, SEEN_WAIT, SEEN_DEVIATION, SEEN_LOAD, SEEN_LOSS = range(6)


def seen_of(network: Network, queues: LinkQueues) -> Floats:
    """Of every queue and its link, [Q, 6]."""
    magnitudes = [queues.arrival_pps, queues.service_s, queues.wait_s, queues.wait_std_s]
    columns = [np.log(np.maximum(values, TINY)) for values in magnitudes]
    ln_blocking = np.log(np.maximum(queues.blocking, np.exp(LN_BLOCKING_FLOOR)))
    return np.column_stack([*columns, queues.link_load[network.queue_link], ln_blocking])


def inlet_shares(loops: Loops, inlet_rate: Floats) -> Floats:
    """The share of its queue's packets that comes from every inlet, [I]."""
    base = loops.ways.inlet_base
    per_arrival = np.repeat(loops.of_queue[:, PER_ARRIVAL], np.diff(base, append=len(inlet_rate)))
    return inlet_rate * per_arrival
