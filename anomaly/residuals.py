"""Measured beside predicted: the residual of every path by every measuring method.

The residual is ln(measured / comparable), where `comparable` is what the twin would expect *this instrument*
to see (probe size, round trip; :mod:`twin.compare`). It is NaN where there is nothing to compare: not
measured, no route, or not to be trusted. The excess is what is left in seconds after the path's usual bias:

    excess = measured − comparable · exp(bias).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomaly.tomography import Observations, ragged
from twin.compare import MIN_COUNT, MeasuredMeans, comparable_mean_s, reverse_paths
from twin.equal_routes import crossings
from twin.network import Floats, Ints, Network, Traffic

_QUANTILE_90 = 1.6449  # the interval is ± so many standard deviations


@dataclass(frozen=True)
class Expectation:
    """What a prediction record says, unpacked."""

    mean_s: Floats  # [P]
    log_width: Floats  # [P]
    jitter_s: Floats  # [P]


@dataclass(frozen=True)
class Residual:
    """One method's comparison with the twin in one window."""

    method: str
    round_trip: bool
    log_ratio: Floats  # [P] ln(measured / comparable); NaN = not comparable
    comparable_s: Floats  # [P]
    measured_s: Floats  # [P]
    sampling_s: Floats  # [P] standard error of the measured mean, from the number of packets
    packet_bits: Floats  # [P] size of the packets that were measured
    model_width: Floats  # [P] standard deviation of the model's own log error

    @property
    def comparable(self) -> NDArray[np.bool_]:
        """[P]."""
        return np.isfinite(self.log_ratio)

    def excess_s(self, bias: Floats) -> Floats:
        """Seconds beyond the usual, [P]; NaN where not comparable."""
        excess: Floats = np.where(self.comparable, self.measured_s - self.comparable_s * np.exp(bias), np.nan)
        return excess


def residual(
    network: Network,
    traffic: Traffic,
    expected: Expectation,
    method: str,
    measured: MeasuredMeans,
    *,
    distrusted: NDArray[np.bool_],
) -> Residual:
    """Compare one method's measurements with the twin; ``distrusted`` paths [P] are left out."""
    comparable = comparable_mean_s(network, traffic, expected.mean_s, measured)
    usable = (measured.count >= MIN_COUNT) & (measured.mean_s > 0) & (comparable > 0) & ~distrusted
    ratio = np.divide(measured.mean_s, comparable, out=np.ones_like(comparable), where=usable)
    trips = np.sqrt(2.0) if measured.direction == "round-trip" else 1.0
    own_size = measured.packet_bits
    bits = traffic.packet_bits if own_size is None else np.full(network.path_count, own_size)
    return Residual(
        method=method,
        round_trip=measured.direction == "round-trip",
        log_ratio=np.where(usable, np.log(ratio), np.nan),
        comparable_s=comparable,
        measured_s=measured.mean_s,
        sampling_s=trips * expected.jitter_s / np.sqrt(np.maximum(measured.count, 1.0)),
        packet_bits=bits,
        model_width=expected.log_width / _QUANTILE_90,
    )


def observations(network: Network, part: Residual, number: int, bias: Floats, width: Floats) -> Observations:
    """The rows of one method: excess, and its variance from the learnt width and the packets counted."""
    rows = np.flatnonzero(part.comparable)
    links, share, offsets = _crossed(network, rows, part.round_trip)
    sigma = np.hypot(part.sampling_s, part.comparable_s * width)[rows]
    return Observations(
        links=links,
        share=share,
        offsets=offsets,
        excess_s=part.excess_s(bias)[rows],
        expected_s=part.comparable_s[rows],
        variance=np.maximum(sigma, 1e-6) ** 2,
        packet_bits=part.packet_bits[rows],
        path=rows,
        method=np.full(len(rows), number, dtype=np.int64),
    )


def _crossed(network: Network, rows: Ints, round_trip: bool) -> tuple[Ints, Floats, Ints]:
    """CSR of the links every row crosses, and which share of its packets; there and back for a round trip."""
    ways = [rows, reverse_paths(len(network.nodes))[rows]] if round_trip else [rows]
    paths, share = crossings(network)
    lengths = np.stack([paths.lengths[way] for way in ways], axis=1).ravel()  # [rows · ways]
    starts = np.stack([paths.offsets[:-1][way] for way in ways], axis=1).ravel()
    per_row = lengths.reshape(-1, len(ways)).sum(axis=1)
    hops = ragged(starts, lengths)
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(per_row)])
    return paths.links[hops], share[hops], offsets
