"""The packet simulator's state before its first event, from a network and flows."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from twin.errors import TopologyError
from twin.network import Floats, Ints, Network, Paths
from twin.simulator_arrivals import DRAWN_SIZES, EXPONENTIAL_SIZES, SIZES_IN_ORDER
from twin.simulator_core import HERE
from twin.simulator_records import FLOW, LINK, PACKET, QUEUE, State
from twin.workload import Flow, Gaps, PacketSizes, check_not_negative, check_positive

FIRST_RING = 32  # slots a link or a queue starts with; doubled whenever it is full
BINS = 2048  # of a flow's histogram
NO_LIMIT = 2**62  # bits
NO_PACKETS_LIMIT = 2**31 - 1
MOST_ROUTES = 2**15 - 1  # a packet names its route in 16 bits
DRR_ROUND_S = 1.0  # of the RouteNet data sets made with OMNeT++, whose links carry 10 to 400 packets in it


def build_state(
    network: Network, flows: Sequence[Flow], seed: int, *, percentiles: bool, drr_round_s: float
) -> State:
    """The state at time 0, its flows not started; the first half of the pool of packets is in use."""
    _check(network, flows, seed)
    check_positive("drr_round_s", drr_round_s, "s")
    sizes = list(dict.fromkeys(flow.sizes for flow in flows))
    gaps = list(dict.fromkeys(flow.arrivals.gaps for flow in flows))
    queues = _queue_records(network, drr_round_s)
    link_times, link_ids = _tree(len(network.links))
    flow_times, flow_ids = _tree(len(flows))
    rings = max(1, len(network.links) + int(np.count_nonzero(queues["mask"])))
    next_link, columns = _routes(network, flows)
    return State(
        packets=np.zeros(2 * FIRST_RING * rings, dtype=PACKET),
        links=_link_records(network),
        queues=queues,
        flows=_flow_records(flows, columns, sizes, gaps, seed),
        next_link=next_link,
        queue_of_class=network.queue_of_class.astype(np.int32),
        node_drops=np.zeros(len(network.nodes), dtype=np.int64),
        link_times=link_times,
        link_ids=link_ids,
        flow_times=flow_times,
        flow_ids=flow_ids,
        size_bits=np.array([bits for table in sizes for bits in table.bits], dtype=np.int32),
        size_cumulative=np.concatenate([[], *(np.cumsum(table.probabilities) for table in sizes)]),
        gaps=np.array([gap for law in gaps for gap in law.trace], dtype=np.float64),
        measured_from=np.full(1, -1.0),
        histogram=np.zeros((len(flows) if percentiles else 0, BINS), dtype=np.int32),
        shortest_delay=np.array([_shortest_delay_s(network, sizes)]),
    )


def _check(network: Network, flows: Sequence[Flow], seed: int) -> None:
    """TopologyError when a link, a flow or the seed is none."""
    for link in network.links:
        check_not_negative(f"propagation delay of link {link.name}", link.propagation_delay_s, "s")
    for flow in flows:
        if not (0 <= flow.source < len(network.nodes) and 0 <= flow.destination < len(network.nodes)):
            raise TopologyError(f"flow {flow.source}->{flow.destination} has an end outside the network")
    if seed < 0:
        raise TopologyError(f"seed is {seed}: give zero or a positive number")


def _shortest_delay_s(network: Network, sizes: list[PacketSizes]) -> float:
    """No packet is faster than the smallest over one link, the fastest; 1 % of exponential ones may be."""
    smallest = min(
        (table.bits[0] / 100 if table.exponential else min(table.bits) for table in sizes), default=1
    )
    return float(smallest / network.line_rate_bps.max(initial=1.0))


def _tree(leaves: int) -> tuple[Floats, NDArray[np.int32]]:
    """An empty tournament: infinity everywhere, leaf i at width + i."""
    width = 1 << max(1, (leaves - 1).bit_length())
    ids = np.zeros(2 * width, dtype=np.int32)
    ids[width:] = np.arange(width)
    return np.full(2 * width, np.inf), ids


def _link_records(network: Network) -> NDArray[np.void]:
    links = np.zeros(len(network.links), dtype=LINK)
    in_bits = network.buffer_bits > 0
    links["seconds_per_bit"] = 1.0 / network.capacity_bps
    links["ahead_per_bit"] = network.ahead_s_per_bit
    links["latency"] = network.propagation_delay_s
    links["offset"] = FIRST_RING * np.arange(len(links))
    links["mask"] = FIRST_RING - 1
    links["buffer"] = np.where(
        in_bits, NO_PACKETS_LIMIT, np.minimum(network.buffer_packets, NO_PACKETS_LIMIT)
    )
    links["buffer_bits"] = np.where(in_bits, network.buffer_bits, NO_LIMIT)
    links["target"] = network.target_index
    links["up"] = [link.up for link in network.links]
    links["queues"] = np.diff(network.queue_offsets)
    for field in ("first_queue", "serving", "turn"):
        links[field] = network.queue_offsets[:-1]
    links["policy"] = network.policy
    return links


def _queue_records(network: Network, drr_round_s: float) -> NDArray[np.void]:
    """Only where a link has several do its queues have rings: behind those of the links."""
    queues = np.zeros(len(network.queue_link), dtype=QUEUE)
    several = np.diff(network.queue_offsets)[network.queue_link] > 1
    queues["offset"][several] = FIRST_RING * (len(network.links) + np.arange(np.count_nonzero(several)))
    queues["mask"][several] = FIRST_RING - 1
    queues["share"] = network.queue_share
    queues["quantum"] = network.queue_share * drr_round_s
    return queues


def _routes(network: Network, flows: Sequence[Flow]) -> tuple[NDArray[np.int16], Ints]:
    """Next links, HERE where a route ends, and the column of every flow, [F]."""
    if network.routes is not None:
        return _given_routes(network, network.routes, flows), np.arange(len(flows))
    routes = _checked_routes(network)
    np.fill_diagonal(routes, HERE)
    return routes, np.array([flow.destination for flow in flows], dtype=np.int64)


def _given_routes(network: Network, routes: Paths, flows: Sequence[Flow]) -> NDArray[np.int16]:
    """Next links of every flow, [N, F], along the routes that the network brings, one for each pair."""
    nodes = len(network.nodes)
    if len(routes.lengths) != nodes * (nodes - 1) or len(flows) > MOST_ROUTES:
        raise TopologyError(
            f"{len(routes.lengths)} routes and {len(flows)} flows: give a route for each ordered pair of"
            f" nodes, and at most {MOST_ROUTES} flows"
        )
    table = np.full((nodes, len(flows)), -1, dtype=np.int16)
    for column, flow in enumerate(flows):
        if flow.source == flow.destination:
            table[flow.source, column] = HERE
            continue
        path = network.path_between(flow.source, flow.destination)
        links = routes.links[routes.offsets[path] : routes.offsets[path + 1]]
        met = network.source_index[links]
        if len(set(met.tolist())) != len(met):
            raise TopologyError(f"the route of {network.path_name(path)} meets a node twice")
        table[met, column] = links
        if len(links):
            table[flow.destination, column] = HERE
    return table


def _checked_routes(network: Network) -> NDArray[np.int16]:
    """A copy of the next links, each of which must leave its node."""
    routes = network.next_link.astype(np.int16)
    if routes.size and (routes.min() < -1 or routes.max() >= len(network.links)):
        raise TopologyError(
            "next_link names a link that does not exist: use link indices, or -1 for no route"
        )
    node, destination = np.nonzero(routes >= 0)
    wrong = np.flatnonzero(network.source_index[routes[node, destination]] != node)
    if wrong.size:
        raise TopologyError(f"next_link of {network.nodes[node[wrong[0]]]} is a link that does not leave it")
    return routes


def _flow_records(
    flows: Sequence[Flow], routes: Ints, sizes: list[PacketSizes], gaps: list[Gaps], seed: int
) -> NDArray[np.void]:
    records = np.zeros(len(flows), dtype=FLOW)
    size_rows = _rows(sizes, [len(table.bits) for table in sizes])
    gap_rows = _rows(gaps, [len(law.trace) for law in gaps])
    for record, flow in zip(records, flows, strict=True):
        modulation, law = flow.arrivals.modulation, flow.arrivals.gaps
        record["pps"], record["service_class"] = flow.pps, flow.service_class
        record["source"] = flow.source
        record["gaps"], record["memory"], record["repeat"] = law.kind, law.memory, law.repeat
        record["gap_from"], record["gap_to"] = gap_rows[law]
        record["modulation"], record["sigma"] = modulation.kind, modulation.sigma
        record["opening_pps"] = modulation.opening_pps
        record["levels"], record["stays"] = modulation.levels, modulation.stays_s
        record["sizes"] = _size_kind(flow.sizes)
        record["size_from"], record["size_to"] = size_rows[flow.sizes]
    records["route"] = routes
    records["gap_at"], records["size_at"] = records["gap_from"], records["size_from"]
    random = np.random.SeedSequence(seed).generate_state(max(1, len(flows)), np.uint64)
    records["random"] = random[: len(flows)]
    return records


def _size_kind(sizes: PacketSizes) -> int:
    if sizes.exponential:
        return EXPONENTIAL_SIZES
    return SIZES_IN_ORDER if sizes.in_order else DRAWN_SIZES


def _rows(tables: Sequence[Hashable], lengths: list[int]) -> dict[Hashable, tuple[int, int]]:
    """First row and end of every table, when they are laid one after the other."""
    ends = np.cumsum([0, *lengths])
    return {table: (int(ends[i]), int(ends[i + 1])) for i, table in enumerate(tables)}
