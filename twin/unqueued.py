"""No queueing model at all: what an RNN over the path starts from, which is the baseline of Almasan et al.
(2022).

Every packet waits for one other, nothing is lost, and the load of a link is what all flows over it send. What
remains of the features of :mod:`twin.features` is what a path's links and the traffic over them tell at first
sight.
"""

from __future__ import annotations

import numpy as np

from twin.models import check_traffic
from twin.network import Network, Traffic
from twin.queueing import LinkQueues
from twin.queueing_flows import BPS, PPS, Flows, Inlets, Offers, offer


class Unqueued:
    """Loads without queues; satisfies :class:`twin.features.Prior`."""

    def __init__(self, size_scv: float) -> None:
        self.size_scv = size_scv

    def solve(self, network: Network, traffic: Traffic, *, offers: Offers = offer) -> LinkQueues:
        """Every queue with the wait of one packet."""
        check_traffic(network, traffic)
        count, bits = len(network.queue_link), traffic.packet_bits
        flows = Flows.of(network, traffic, self.size_scv)
        offered, _ = offers(network, flows, Inlets.of(network), np.zeros(count))
        pps, bps = offered[:, PPS], offered[:, BPS]
        mean_bits = np.divide(bps, pps, out=np.full(count, bits.mean() if len(bits) else 1.0), where=pps > 0)
        capacity = network.capacity_bps[network.queue_link]
        service = mean_bits / capacity
        load = bps / capacity
        link_load = np.bincount(network.queue_link, load, len(network.links)).astype(np.float64)
        buffer_bits = network.buffer_bits[network.queue_link]
        packets = network.buffer_packets[network.queue_link].astype(np.float64)
        return LinkQueues(
            arrival_pps=pps,
            arrival_bps=bps,
            service_s=service,
            service_scv=np.full(count, self.size_scv),
            load=load,
            blocking=np.zeros(count),
            wait_s=service.copy(),
            wait_std_s=service.copy(),
            occupancy=load,
            buffer_packets=np.where(buffer_bits > 0, np.maximum(buffer_bits / mean_bits, 1.0), packets),
            link_load=link_load,
            utilisation=np.minimum(link_load, 1.0),
        )
