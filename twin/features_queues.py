"""The queues as the GNN sees them: the table of QUEUE_FEATURES."""

from __future__ import annotations

import numpy as np

from twin.features_core import (
    BURST,
    BURST_TIME,
    LOAD_CAP,
    RATE_SCV_CAP,
    REGULAR,
    REGULAR_OWN,
    SQUARES,
    TINY,
    Table,
)
from twin.features_ways import Ways
from twin.network import Floats, Network
from twin.queueing import LinkQueues
from twin.queueing_precedence import FOLLOWS, LOAD, ROUND_S, TOLD, fair_loads
from twin.scheduling import POLICIES

QUEUE_FEATURES = (
    "load",  # ρ offered, as a share of the whole link
    "link_load",  # of all queues of the link
    "higher_load",  # of the queues of the link with a higher priority
    "ln_wait",  # ln(1 + wait ÷ service time)
    "fair_load",  # load ÷ what the queue would be given if it wanted all
    "ln_turn",  # DRR: ln(quantum ÷ time to fill the buffer)
    "utilisation",  # carried
    "fill",  # mean occupancy ÷ buffer
    "ln_buffer",  # ln(buffer ÷ 64 packets)
    "size_scv",  # of the packets in the queue
    "ln_blocking",  # from −1 (a millionth or less) to 0
    "flow_concentration",  # Σ share² over the flows of the queue: 1 = one flow has it all
    "inlet_concentration",  # Σ share² over where packets come from: the previous link, or here
    "inlet_spacing",  # the same, each share² times how far that link spaces them: its service time ÷ ours
    "inlet_load",  # Σ share · load of the link they come from
    "fresh",  # share of packets that enter the network here
    "regular",  # share of packets of regular flows (1 − squared variation of their gaps)
    "regular_concentration",  # the same, share² instead of share
    "burst_scv",  # squared variation of the arrival rate
    "ln_burst_service",  # ln(1 + how long a burst lasts ÷ service time)
    "ln_burst_fill",  # ln(1 + how long a burst lasts ÷ time to fill the buffer)
    "weight",  # of the queue at its link, 0 … 1
    "rank",  # 0 = highest priority, in halves
    "sp",
    "wfq",
    "drr",
)
BLOCKING_FLOOR = 1e-6  # as a feature


def queue_table(network: Network, queues: LinkQueues, sums: Floats, inlet_rate: Floats, ways: Ways) -> Table:
    """The table of QUEUE_FEATURES."""
    link, offsets = network.queue_link, network.queue_offsets
    arrival = np.maximum(queues.arrival_pps, TINY)
    service = np.maximum(queues.service_s, TINY)
    below = np.concatenate([[0.0], np.cumsum(queues.load)])
    policy = network.policy[link]
    one_inlet, spaced, inlet_load = _inlet_sums(network, queues, inlet_rate, ways)
    turn = network.queue_share * ROUND_S / (service * queues.buffer_packets)
    drr, priority = policy == POLICIES.index("DRR"), POLICIES.index("SP")
    burst = sums[:, BURST] / arrival**2
    burst_s = np.divide(
        sums[:, BURST_TIME], sums[:, BURST], out=np.zeros_like(burst), where=sums[:, BURST] > 0
    )
    columns = {
        "load": np.minimum(queues.load, LOAD_CAP),
        "link_load": np.minimum(queues.link_load[link], LOAD_CAP),
        "higher_load": np.minimum(np.maximum(below[:-1] - below[offsets[:-1]][link], 0.0), LOAD_CAP),
        "ln_wait": np.log1p(queues.wait_s / service),
        "fair_load": _fair_loads(network, queues),
        "ln_turn": np.where(drr, np.log(turn), 0.0),
        "utilisation": np.minimum(queues.load * (1 - queues.blocking), 1.0),
        "fill": queues.occupancy / queues.buffer_packets,
        "ln_buffer": np.log(queues.buffer_packets / 64),
        "size_scv": queues.service_scv,
        "ln_blocking": np.log(np.maximum(queues.blocking, BLOCKING_FLOOR)) / -np.log(BLOCKING_FLOOR),
        "flow_concentration": sums[:, SQUARES] / arrival**2,
        "inlet_concentration": one_inlet / arrival**2,
        "inlet_spacing": spaced / arrival**2,
        "inlet_load": inlet_load / arrival,
        "fresh": inlet_rate[ways.inlet_base] / arrival,
        "regular": sums[:, REGULAR] / arrival,
        "regular_concentration": sums[:, REGULAR_OWN] / arrival**2,
        "burst_scv": np.minimum(burst, RATE_SCV_CAP),
        "ln_burst_service": np.log1p(burst_s / service),
        "ln_burst_fill": np.log1p(burst_s / (service * queues.buffer_packets)),
        "weight": network.queue_share,
        "rank": network.queue_rank / 2,
        "sp": policy == priority,
        "wfq": policy == POLICIES.index("WFQ"),
        "drr": drr,
    }
    return np.column_stack([columns[name] for name in QUEUE_FEATURES]).astype(np.float32)


def _fair_loads(network: Network, queues: LinkQueues) -> Floats:
    offered, nothing_lost = np.zeros((len(queues.load), TOLD)), np.zeros((len(queues.load), FOLLOWS))
    offered[:, LOAD] = queues.load
    loads = fair_loads(offered, nothing_lost, network.queue_offsets, network.policy, network.queue_share)
    capped: Floats = np.minimum(loads, LOAD_CAP)
    return capped


def _inlet_sums(
    network: Network, queues: LinkQueues, rate: Floats, ways: Ways
) -> tuple[Floats, Floats, Floats]:
    """Σ λ², Σ λ²·min(service there ÷ service here, 1) and Σ λ·load over every queue's inlets, [Q] each."""
    links, base = ways.inlet_link, ways.inlet_base
    if not len(base):
        return (np.zeros(0),) * 3
    inside = links >= 0
    capacity = np.repeat(network.capacity_bps[network.queue_link], np.diff(np.append(base, len(links))))
    spacing = np.where(inside, np.minimum(capacity / network.capacity_bps[links], 1.0), 0.0)
    load = np.where(inside, queues.utilisation[links], 0.0)
    squares = rate**2
    sums = [np.add.reduceat(values, base) for values in (squares, squares * spacing, rate * load)]
    return sums[0], sums[1], sums[2]
