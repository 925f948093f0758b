"""What one window teaches: the model's delays taken apart over links, measurements as rows, and from those
the links' deviations, faults told apart.

Parts
-----
A model says one delay for a flow. It is taken apart into what is known (propagation, transmission of the
flow's own packets) and the wait; the wait is shared out over the flow's links in proportion to

    S·ρ / (1 − ρ + 1/K),

S being the transmission time of a mean packet, ρ the carried load the model itself tells and K the buffer in
packets: M/M/1's wait, held at the full buffer. The parts sum to what the model said, whichever model it is.

A path of several equal routes crosses the links of all of them, each by its share (:mod:`twin.equal_routes`),
as its delay is their mean. A probe is one flow and takes one of the routes, which is not known: how far
routes are apart counts to its noise. Traffic is many flows, and its mean is that of the routes.

From rows to links (:meth:`Solver.solve`)
-----------------------------------------
1. Solve with the links' own priors (:func:`twin.calibration_core.explain`).
2. Links that come out beyond the gate are opened (their prior made wide) and it is solved again: so each
   takes all of its fault, and nothing of it leaks to its neighbours.
3. Rows that still fit nothing (a probe that lies) are left out, and it is solved a last time.

Of more than :data:`MOST_ROWS` rows, every k-th makes the links' deviations, another k-th in every window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from twin.calibration_core import along, crossed, explain, remaining, share_out
from twin.calibration_learnt import LinkPrior
from twin.compare import MIN_COUNT, MeasuredMeans, comparable_mean_s, reverse_paths
from twin.equal_routes import branch_variance, crossings
from twin.errors import TopologyError
from twin.models import PathPrediction
from twin.network import Floats, Ints, Network, Paths, Traffic

Flags = NDArray[np.bool_]
SAMPLING = 2.0  # a window's packets are not independent: their mean strays this much more than σ/√n
WAIT_ERROR = 0.05  # of the wait: what a flow sees differs so much from what its links' mean flow sees
FLOOR = 0.002  # of the delay: clocks and rounding
LEAST_VARIANCE_S2 = 1e-14  # 0.1 µs
MOST_ROWS = 15_000  # ten and more for every link of a large network
ROUNDS = 3  # of :func:`twin.calibration_core.remaining`


@dataclass(frozen=True)
class Reading:
    """One method's measurements, and of which flows they can be believed (None: all)."""

    measured: MeasuredMeans
    trusted: Flags | None = None  # [F]


@dataclass(frozen=True)
class Parts:
    """A prediction taken apart."""

    hops: Paths  # of every flow, F
    share: Floats  # [H] of the flow's packets that cross the link
    fixed_s: Floats  # [F] propagation and transmission
    wait_s: Floats  # [F]
    hop_wait_s: Floats  # [H] the wait's share at every hop
    link_wait_s: Floats  # [L] mean over the flows that cross the link
    link_packet_s: Floats  # [L] transmission of a mean packet


@dataclass(frozen=True)
class Rows:
    """Measurements that can be learnt from, one a row, those of all methods: R."""

    flow: Ints  # [R]
    back: Ints  # [R] the flow on the way back; −1 where one way was measured
    measured_s: Floats  # [R]
    expected_s: Floats  # [R] what the same instrument should read
    variance: Floats  # [R] s², of the reading alone
    apart: Floats  # [R] s², between the equal routes of which a probe takes one

    @property
    def error(self) -> float:
        """Mean |expected ÷ measured − 1|, each at most 1; 0 without rows."""
        off = np.minimum(np.abs(self.expected_s / self.measured_s - 1.0), 1.0)
        return float(off.sum()) / max(len(self.flow), 1)

    @property
    def by_route(self) -> Flags:
        """[R] Which route the probe took may matter more than its own noise."""
        return self.apart > self.variance

    def sums(self, per_flow: Floats) -> Floats:
        """Of float[F], a sum over hops, what belongs to every row, [R]."""
        return per_flow[self.flow] + np.where(self.back >= 0, per_flow[self.back], 0.0)


def take_apart(network: Network, traffic: Traffic, said: PathPrediction) -> Parts:
    """Share out what a model said over links."""
    hops, share = crossings(network)
    if traffic.path is not None:  # flows that say which path they take are taken to go over its first route
        hops = traffic.hops(network)
        share = np.ones(len(hops.links))
    bits = traffic.packet_bits
    mean_bits = float(traffic.bps.sum() / traffic.pps.sum()) if traffic.pps.sum() > 0 else float(bits.mean())
    packet_s = mean_bits / network.capacity_bps
    in_packets = np.where(
        network.buffer_bits > 0, network.buffer_bits / mean_bits, network.buffer_packets.astype(np.float64)
    )
    load = np.clip(said.link_utilisation, 0.0, 1.0)
    weight = packet_s * (load + 1e-9) / (1.0 - load + 1.0 / np.maximum(in_packets, 1.0))
    fixed, wait, hop_wait, link_wait = share_out(
        hops.links,
        share,
        hops.offsets,
        weight,
        network.propagation_delay_s,
        1.0 / network.line_rate_bps,
        bits,
        said.mean_s,
    )
    return Parts(hops, share, fixed, wait, hop_wait, link_wait, packet_s)


def routes_apart(
    network: Network, traffic: Traffic, parts: Parts, offset_s: Floats, excess: Floats
) -> Floats:
    """Variance of the delay between the equal routes of every flow, as corrected so far: [F] s²."""
    if traffic.path is not None:
        return np.zeros(len(traffic.path))
    wait = (1.0 + excess) * parts.link_wait_s
    return branch_variance(network, network.propagation_delay_s + offset_s + parts.link_packet_s + wait)


def rows_of(
    network: Network,
    traffic: Traffic,
    parts: Parts,
    expected: PathPrediction,
    readings: Sequence[Reading],
    apart_s2: Floats,
) -> Rows:
    """The usable measurements beside what ``expected`` lets expect of them, whatever the readings' order.

    ``apart_s2`` [F]: how far a flow's routes are apart (:func:`routes_apart`).
    """
    ordered = sorted(readings, key=lambda one: (one.measured.direction, one.measured.packet_bits or 0.0))
    found = [_rows(network, traffic, parts, expected, reading, apart_s2) for reading in ordered]
    return Rows(
        flow=np.concatenate([one.flow for one in found]),
        back=np.concatenate([one.back for one in found]),
        measured_s=np.concatenate([one.measured_s for one in found]),
        expected_s=np.concatenate([one.expected_s for one in found]),
        variance=np.concatenate([one.variance for one in found]),
        apart=np.concatenate([one.apart for one in found]),
    )


def _rows(
    network: Network,
    traffic: Traffic,
    parts: Parts,
    expected: PathPrediction,
    reading: Reading,
    apart_s2: Floats,
) -> Rows:
    measured = reading.measured
    there_and_back = measured.direction == "round-trip"
    comparable = expected.mean_s
    if there_and_back or measured.packet_bits is not None:
        if traffic.path is not None or network.routes is not None:
            raise TopologyError("probes and round trips teach only where flow k is canonical path k")
        comparable = comparable_mean_s(network, traffic, expected.mean_s, measured)
    usable = (
        (measured.count >= MIN_COUNT)
        & (measured.mean_s > 0)
        & np.isfinite(measured.mean_s)
        & (comparable > 0)
    )
    usable &= parts.hops.lengths > 0
    flow = np.flatnonzero(usable if reading.trusted is None else usable & reading.trusted)
    back = reverse_paths(len(network.nodes))[flow] if there_and_back else np.full(len(flow), -1)
    trips = 2.0 if there_and_back else 1.0  # two ways, each with its own sampling
    sampling = SAMPLING * expected.jitter_s[flow] / np.sqrt(measured.count[flow])
    variance = trips * (sampling**2 + (WAIT_ERROR * parts.wait_s[flow]) ** 2)
    one_flow = measured.packet_bits is not None
    apart = apart_s2[flow] + np.where(back >= 0, apart_s2[back], 0.0) if one_flow else np.zeros(len(flow))
    return Rows(
        flow=flow,
        back=back,
        measured_s=measured.mean_s[flow],
        expected_s=comparable[flow],
        variance=variance + (FLOOR * np.maximum(comparable, measured.mean_s)[flow]) ** 2 + LEAST_VARIANCE_S2,
        apart=apart,
    )


@dataclass(frozen=True)
class Explained:
    """What the rows make of the links, and what of the rows is left."""

    posterior: Floats  # [L] s, the deviation given the links' own priors
    resolved: Floats  # [L] share of those priors' variance
    residual: Floats  # [R] s, what links do not explain
    variance: Floats  # [R] s², what may be left
    strange: Flags  # [R] rows that fit nothing
    opened: Flags  # [L] links that step 2 opened: their uncertainty is wide


@dataclass(frozen=True)
class Solver:
    """One window's equations."""

    prior: LinkPrior
    rows: Rows
    hops: Paths  # of the flows
    share: Floats  # [H] of the flow's packets that cross the link
    noise: Floats  # [R] s², of the readings
    gate: float
    turn: int  # of many rows, which k-th to solve

    def solve(self) -> Explained:
        """The three steps above."""
        prior, none = self.prior.variance, np.zeros(len(self.noise), dtype=np.bool_)
        found, deviation = self._with(prior, none)
        outlying = np.abs(self.prior.deviations(found.posterior, found.resolved)) > self.gate
        opened = prior + np.where(outlying, 9.0 * deviation**2, 0.0)
        if outlying.any():
            found, _ = self._with(opened, none)
        if found.strange.any():
            found, _ = self._with(opened, found.strange)
        return found

    def _with(self, variance: Floats, ignored: Flags) -> tuple[Explained, Floats]:
        """Under other variances of the links and without some rows; also the deviations as solved, [L]."""
        rows, flows = self.rows, self.hops
        step = ceil(len(rows.flow) / MOST_ROWS)
        few = np.arange(self.turn % step, len(rows.flow), step)
        row = crossed(flows.links, self.share, flows.offsets, rows.flow[few], rows.back[few])
        late = rows.measured_s - rows.expected_s
        precision = np.where(ignored, 0.0, 1.0 / self.noise)[few]
        deviation = explain(*row, late[few], precision, variance)
        left = remaining(*row, precision, variance, ROUNDS)
        posterior, resolved = self._under_prior(variance, deviation, left)
        residual = late - rows.sums(along(flows.links, self.share, flows.offsets, deviation))
        uncertain = self.noise + rows.sums(along(flows.links, self.share**2, flows.offsets, left))
        strange = np.abs(residual) > self.gate * np.sqrt(uncertain)
        opened = variance > self.prior.variance
        return Explained(posterior, resolved, residual, uncertain, strange, opened), deviation

    def _under_prior(self, variance: Floats, deviation: Floats, left: Floats) -> tuple[Floats, Floats]:
        """What was solved under ``variance`` as under the links' own prior, and the share resolved."""
        told = np.maximum(1.0 / left - 1.0 / variance, 0.0)  # by the rows alone, 1/s²
        share, own = told * variance, told * self.prior.variance
        alone = np.divide(deviation * (1.0 + share), share, out=np.zeros_like(share), where=share > 1e-9)
        resolved = np.where(share > 1e-9, own / (1.0 + own), 0.0)
        return alone * resolved, resolved
