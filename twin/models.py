"""What every delay model takes and gives: one protocol, one result.

A model looks at a network and the traffic of one window and says what every path should see. It keeps no
state between calls and changes nothing it is given, so that the same model serves the live predictor, a
replay and a what-if. Implementations: :class:`twin.queueing.MM1B`, :class:`twin.queueing.MG1K`,
:class:`twin.routenet.RouteNet`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from twin.errors import TopologyError
from twin.network import Floats, Network, Traffic

DEFAULT_PACKET_BITS = 8_000.0  # 1,000 octets: what a packet is taken to be in a network where nothing flows


@dataclass(frozen=True)
class PathPrediction:
    """What a model expects in one window. Arrays are finite float64; a path without a route holds zeros."""

    mean_s: Floats  # [P] mean one-way delay of the path's own packets
    jitter_s: Floats  # [P] standard deviation of that delay
    loss: Floats  # [P] share of packets lost on the way
    log_width: Floats  # [P] the interval is mean·exp(±log_width)
    link_utilisation: Floats  # [L] carried load ÷ capacity
    out_of_range: tuple[str, ...] = ()  # why this state lies outside what the model has seen


class DelayModel(Protocol):
    """Anything that predicts the delay of every path."""

    @property
    def name(self) -> str:
        """Short and stable: ``mm1b``, ``mg1k``, ``routenet``."""
        ...

    @property
    def version(self) -> str:
        """Changes whenever predictions may change."""
        ...

    def predict(self, network: Network, traffic: Traffic) -> PathPrediction:
        """Predict all paths of ``network`` under ``traffic``."""
        ...


def path_packet_bits(traffic: Traffic) -> Floats:
    """Mean packet size of every path, [P]; where nothing flows, the mean of all traffic stands in."""
    packets = traffic.pps.sum()
    overall = traffic.bps.sum() / packets if packets > 0 else DEFAULT_PACKET_BITS
    return np.where(traffic.mean_packet_bits > 0, traffic.mean_packet_bits, overall)


def check_traffic(network: Network, traffic: Traffic) -> None:
    """TopologyError when the traffic matrix does not fit the network or holds what no traffic can be."""
    for name, values in (("bps", traffic.bps), ("pps", traffic.pps)):
        if values.shape != (network.path_count,):
            raise TopologyError(
                f"traffic {name} has shape {values.shape}: {network.path_count} paths are needed"
            )
        if not np.isfinite(values).all() or (values < 0).any():
            raise TopologyError(f"traffic {name} holds negative or non-finite rates: check the flow records")
