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
from twin.network import Floats, Ints, Network, Traffic
from twin.scheduling import CLASSES


@dataclass(frozen=True)
class PathPrediction:
    """What a model expects in one window. Arrays are finite float64; a flow without a route holds zeros.

    Where the traffic names no paths, flow k is path k: F = P.
    """

    mean_s: Floats  # [F] mean one-way delay of the flow's own packets
    jitter_s: Floats  # [F] standard deviation of that delay
    loss: Floats  # [F] share of packets lost on the way
    log_width: Floats  # [F] the interval is mean·exp(±log_width)
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


def check_traffic(network: Network, traffic: Traffic) -> None:
    """TopologyError when the flows do not fit the network or hold what no traffic can be."""
    flows = network.path_count if traffic.path is None else len(traffic.path)
    for name, values in _arrays(traffic):
        if values.shape != (flows,):
            raise TopologyError(f"traffic {name} has shape {values.shape}: {flows} flows are needed")
        if not np.isfinite(values).all() or (values < 0).any():
            worst = int(np.flatnonzero(~np.isfinite(values) | (values < 0))[0])
            raise TopologyError(
                f"traffic {name} of flow {worst} is {values[worst]}: give zero or a positive number"
            )
    if traffic.path is not None and traffic.path.max(initial=0) >= network.path_count:
        raise TopologyError(f"a flow takes path {traffic.path.max()}: this network has {network.path_count}")
    if traffic.service_class is not None and traffic.service_class.max(initial=0) >= CLASSES:
        raise TopologyError(f"class of service {traffic.service_class.max()}: there are {CLASSES}, from 0")


def _arrays(traffic: Traffic) -> list[tuple[str, Floats | Ints]]:
    """The arrays that are given, by name."""
    vary = traffic.variability
    arrays: dict[str, Floats | Ints | None] = {
        "bps": traffic.bps,
        "pps": traffic.pps,
        "path": traffic.path,
        "service_class": traffic.service_class,
        "size_scv": traffic.size_scv,
        "gap_scv": None if vary is None else vary.gap_scv,
        "rate_scv": None if vary is None else vary.rate_scv,
        "rate_time_s": None if vary is None else vary.rate_time_s,
    }
    return [(name, values) for name, values in arrays.items() if values is not None]
