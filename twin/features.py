"""A network and its traffic as the GNN sees them: tables without units, and the queueing prior to correct.

Every feature is a ratio or its logarithm, so that nothing goes out of range when links get faster or networks
larger: load, waits in service times, shares of a link, buffers against 64 packets. :class:`Specification`
names the columns in order; a checkpoint carries it, and a model refuses to run on another one.

Only paths with a route are in the tables; ``routed`` says which they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin.models import path_packet_bits
from twin.network import Floats, Ints, Network, Paths, Traffic
from twin.queueing import MG1K, LinkQueues, sum_hops, transmission_s

VERSION = 1
LINK_FEATURES = (
    "load",  # ρ offered
    "ln_wait",  # ln(1 + wait ÷ service time)
    "utilisation",  # carried
    "fill",  # mean occupancy ÷ buffer
    "ln_buffer",  # ln(buffer ÷ 64)
    "size_scv",  # of the packets on the link
    "ln_blocking",  # from −1 (a millionth or less) to 0
    "path_concentration",  # Σ share² over the paths on the link: 1 = one path has it all
    "inlet_concentration",  # Σ share² over where packets come from: the previous link, or here
    "fresh",  # share of packets that enter the network here
    "burst_scv",  # squared variation of the arrival rate, from what the paths are told to have
    "ln_burst_time",  # ln(1 + how long a burst lasts ÷ time to fill the buffer); 0 without bursts
)
PATH_FEATURES = (
    "hops",  # ÷ 8
    "worst_load",
    "ln_queueing",  # ln(1 + sum of waits ÷ transmission)
    "ln_size",  # mean packet ÷ mean packet of the network
)
HOP_FEATURES = (
    "share",  # of the link's packets that are this path's
    "ln_size",  # mean packet of the path ÷ mean packet on the link
    "ln_speed_up",  # capacity ÷ capacity of the previous hop
    "first",  # 1 on the first hop
    "inlet_share",  # share of the link's packets that come from the same place as this path's
)
LOAD_CAP = 3.0  # far beyond saturation nothing changes any more
BLOCKING_FLOOR = 1e-6  # as a feature
LN_BLOCKING_FLOOR = -60.0  # as the prior: as good as none, and finite


@dataclass(frozen=True)
class Specification:
    """What a model expects to be fed."""

    version: int = VERSION
    link: tuple[str, ...] = LINK_FEATURES
    path: tuple[str, ...] = PATH_FEATURES
    hop: tuple[str, ...] = HOP_FEATURES


@dataclass(frozen=True)
class Burstiness:
    """How the rate of a path wavers within a window, beyond Poisson: squared variation and correlation time.

    No telemetry tells it; the default is Poisson, and calibration or the operator may know better.
    """

    rate_scv: float = 0.0
    time_s: float = 0.0


POISSON = Burstiness()


@dataclass(frozen=True)
class Features:
    """Tables for the GNN: R paths with a route, their H hops, L links. Waits are in units of the path's own
    transmission time."""

    link: Floats  # [L, len(LINK_FEATURES)]
    path: Floats  # [R, len(PATH_FEATURES)]
    hop: Floats  # [H, len(HOP_FEATURES)]
    hop_link: Ints  # [H]
    hop_path: Ints  # [H] row of ``path``
    hop_index: Ints  # [H] 0 at the source
    hop_wait: Floats  # [H] the prior's mean wait ÷ the path's transmission time
    hop_wait_std: Floats  # [H]
    hop_ln_blocking: Floats  # [H] ln of the prior's blocking, at least LN_BLOCKING_FLOOR
    size_scv: float  # of a path's own packets
    transmission_s: Floats  # [R]
    propagation_s: Floats  # [R]
    routed: NDArray[np.bool_]  # [P]
    queues: LinkQueues


def build_features(
    network: Network, traffic: Traffic, prior: MG1K, burstiness: Burstiness = POISSON
) -> Features:
    """Solve the prior and tabulate what the GNN needs to correct it."""
    queues = prior.solve(network, traffic)
    paths = network.paths
    bits = path_packet_bits(traffic)
    routed = paths.lengths > 0
    row = np.cumsum(routed) - 1
    seconds = transmission_s(network, bits)
    hop_seconds = seconds[paths.hop_path]
    hop_rate = _hop_rates(paths, traffic.pps, queues)
    inlet = _inlet_rates(paths, hop_rate, len(network.links))
    arrival = np.maximum(queues.arrival_pps, 1e-300)[paths.links]
    return Features(
        link=_link_table(network, queues, hop_rate, inlet, burstiness),
        path=_path_table(paths, queues, bits, seconds, traffic)[routed],
        hop=_hop_table(network, queues, bits, hop_rate / arrival, inlet / arrival),
        hop_link=paths.links,
        hop_path=row[paths.hop_path],
        hop_index=_hop_index(paths),
        hop_wait=queues.wait_s[paths.links] / hop_seconds,
        hop_wait_std=queues.wait_std_s[paths.links] / hop_seconds,
        hop_ln_blocking=np.log(np.maximum(queues.blocking[paths.links], np.exp(LN_BLOCKING_FLOOR))),
        size_scv=prior.size_scv,
        transmission_s=seconds[routed],
        propagation_s=sum_hops(paths, network.propagation_delay_s[paths.links])[routed],
        routed=routed,
        queues=queues,
    )


def worst_load(features: Features) -> Floats:
    """The highest load on every path with a route, [R]."""
    loads: Floats = features.path[:, PATH_FEATURES.index("worst_load")]
    return loads


def operating_point(network: Network, queues: LinkQueues) -> dict[str, tuple[float, float]]:
    """Smallest and largest value of what decides whether a model has seen the like of this."""
    used = np.unique(network.paths.links)
    buffers = network.buffer_packets[used]
    return {
        "nodes": (len(network.nodes), len(network.nodes)),
        "load": (0.0, float(queues.load.max(initial=0.0))),
        "buffer packets": (float(buffers.min()), float(buffers.max())) if len(used) else (64.0, 64.0),
    }


def _hop_index(paths: Paths) -> Ints:
    index: Ints = np.arange(len(paths.links)) - paths.offsets[:-1][paths.hop_path]
    return index


def _hop_rates(paths: Paths, pps: Floats, queues: LinkQueues) -> Floats:
    """Packets/s of every hop's path that reach its link, [H]."""
    survival = np.log1p(-np.minimum(queues.blocking[paths.links], 1 - 1e-12))
    through = np.cumsum(survival)
    before = np.concatenate([[0.0], through])
    reached = before[:-1] - before[paths.offsets[:-1][paths.hop_path]]  # ln of the share that gets this far
    rates: Floats = pps[paths.hop_path] * np.exp(reached)
    return rates


def _inlet_rates(paths: Paths, hop_rate: Floats, links: int) -> Floats:
    """Packets/s that reach the hop's link from where this hop's packets come from, [H].

    Packets of one previous link come one after the other and so never collide on a link as fast: how the
    packets of a link spread over its inlets decides how much of a queue they can form.
    """
    previous = np.concatenate([[-1], paths.links[:-1]])
    previous = np.where(_hop_index(paths) == 0, -1, previous)
    key = (previous + 1) * links + paths.links
    _, inlet = np.unique(key, return_inverse=True)
    rates: Floats = np.bincount(inlet, weights=hop_rate).astype(np.float64)[inlet]
    return rates


def _link_table(
    network: Network, queues: LinkQueues, hop_rate: Floats, inlet: Floats, burstiness: Burstiness
) -> Floats:
    paths = network.paths
    links = len(network.links)
    arrival = np.maximum(queues.arrival_pps, 1e-300)

    def share(values: Floats) -> Floats:
        mean: Floats = np.bincount(paths.links, weights=hop_rate * values, minlength=links) / arrival
        return mean

    hop_arrival = arrival[paths.links]
    blocking = np.log(np.maximum(queues.blocking, BLOCKING_FLOOR)) / -np.log(BLOCKING_FLOOR)
    concentration = share(hop_rate / hop_arrival)
    fill_s = network.buffer_packets * np.maximum(queues.service_s, 1e-300)
    columns = {
        "load": np.minimum(queues.load, LOAD_CAP),
        "ln_wait": np.log1p(queues.wait_s / np.maximum(queues.service_s, 1e-300)),
        "utilisation": queues.utilisation,
        "fill": queues.occupancy / network.buffer_packets,
        "ln_buffer": np.log(network.buffer_packets / 64),
        "size_scv": queues.service_scv,
        "ln_blocking": blocking,
        "path_concentration": concentration,
        "inlet_concentration": share(inlet / hop_arrival),
        "fresh": share((_hop_index(paths) == 0).astype(np.float64)),
        # Paths waver independently, so the variation of their sum shrinks with Σ share².
        "burst_scv": burstiness.rate_scv * concentration,
        "ln_burst_time": np.log1p(burstiness.time_s / fill_s),
    }
    return np.column_stack([columns[name] for name in LINK_FEATURES])


def _path_table(paths: Paths, queues: LinkQueues, bits: Floats, seconds: Floats, traffic: Traffic) -> Floats:
    worst = np.zeros(len(paths.lengths))
    np.maximum.at(worst, paths.hop_path, np.minimum(queues.load[paths.links], LOAD_CAP))
    waits = sum_hops(paths, queues.wait_s[paths.links])
    packets = traffic.pps.sum()
    overall = traffic.bps.sum() / packets if packets > 0 else bits.mean()
    columns = {
        "hops": paths.lengths / 8,
        "worst_load": worst,
        "ln_queueing": np.log1p(waits / np.maximum(seconds, 1e-300)),
        "ln_size": np.log(bits / overall),
    }
    return np.column_stack([columns[name] for name in PATH_FEATURES])


def _hop_table(
    network: Network, queues: LinkQueues, bits: Floats, share: Floats, inlet_share: Floats
) -> Floats:
    paths = network.paths
    first = _hop_index(paths) == 0
    capacity = network.capacity_bps[paths.links]
    previous = np.concatenate([capacity[:1], capacity[:-1]])
    link_bits = (queues.service_s * network.capacity_bps)[paths.links]
    columns = {
        "share": share,
        "ln_size": np.log(bits[paths.hop_path] / np.maximum(link_bits, 1e-300)),
        "ln_speed_up": np.where(first, 0.0, np.log(capacity / previous)),
        "first": first.astype(np.float64),
        "inlet_share": inlet_share,
    }
    return np.column_stack([columns[name] for name in HOP_FEATURES])
