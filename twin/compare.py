"""What a measurement should read if the prediction holds: the one place where the two are made comparable.

A prediction is the one-way delay of a path's own mean packet. A measurement may be of probes of another size,
and may be a round trip. Queue waits and propagation do not depend on the packet's size, transmission does:

    comparable = predicted + (probe bits − path's mean bits) · Σ 1/line rate  over the hops there,
                 and the same for the way back where the measurement is a round trip.

Where a path has several equal routes, prediction and hops are means over them, as a measurement by many
flows is.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from twin.equal_routes import crossings
from twin.network import Floats, Network, Traffic, canonical_ends
from twin.queueing import sum_hops

MIN_COUNT = 5  # a mean of fewer packets says nothing about a window


class Measured(Protocol):
    """The part of a set of measured delays that decides what it can be compared with."""

    @property
    def direction(self) -> str:
        """``one-way`` or ``round-trip``."""
        ...

    @property
    def packet_bits(self) -> float | None:
        """Probe size; None when the traffic itself was measured."""
        ...


class MeasuredMeans(Measured, Protocol):
    """Measured mean delays of one window by one method (:class:`twin.graph_view.MeasuredDelays`)."""

    @property
    def mean_s(self) -> Floats:
        """[F]."""
        ...

    @property
    def count(self) -> Floats:
        """[F] packets behind the mean; 0 = not measured."""
        ...


def comparable_mean_s(
    network: Network, traffic: Traffic, predicted_mean_s: Floats, measured: Measured
) -> Floats:
    """What ``measured`` should show under ``predicted_mean_s``, [P]; 0 where there is no way (back)."""
    routed = network.paths.lengths > 0
    mean = np.where(routed, predicted_mean_s, 0.0)
    if measured.packet_bits is not None:
        hops, share = crossings(network)
        per_bit = sum_hops(hops, share / network.line_rate_bps[hops.links])
        mean = mean + (measured.packet_bits - traffic.packet_bits) * per_bit
    if measured.direction == "round-trip":
        back = reverse_paths(len(network.nodes))
        mean = np.where(routed & routed[back], mean + mean[back], 0.0)
    return np.maximum(mean, 0.0)


def reverse_paths(nodes: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Canonical index [P] of the path from destination to source."""
    source, destination = canonical_ends(nodes)
    back: np.ndarray[tuple[int], np.dtype[np.int64]] = (
        destination * (nodes - 1) + source - (source > destination)
    )
    return back
