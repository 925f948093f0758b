"""Online calibration: a network's own measurements slowly correct what a model predicts of it.

A model knows networks in general; what it is told of this one (propagation, capacity, how bursty its traffic
is) may be wrong or missing. Per link an offset in seconds and a factor on the wait are learnt
and per path a small factor for what links do not explain
(:mod:`twin.calibration_learnt`), and per group of flows a factor on the width of the intervals
(:class:`twin.intervals.Adaptation`):

    delay = (fixed + Σ offset_l + Σ (1 + excess_l) · wait_l) · path factor         over the links of the path,

of several equal routes over the links of all of them, each by its share of the path's packets.

Corrections are used as long as they prove better than the model alone (:mod:`twin.calibration_worth`).

One window, step by step (:meth:`Calibration.learn`)
----------------------------------------------------
1. Every usable measurement becomes a row: how much slower it is than corrected so far. Before the window is
   learnt from, it tells whether the corrections are worth having.
2. The rows make the links' deviations: a ridge with the links' own priors (:mod:`twin.calibration_core`).
3. Links beyond the gate are opened, so that they take all of their fault and none of it leaks to their
   neighbours, rows that still fit nothing are left out, and step 2 is done again.
4. The links learn, except those beyond the gate; then the paths and the widths, from the rows that cross
   no link that is beyond the gate or was opened: beside such a link's uncertainty anything fits a path.
   Nor from probes of which it matters more which of several equal routes they took than how they stray.

Faults are not learnt away: what is beyond the gate is learnt only after ``patience_windows`` windows in a
row, and the owner can freeze any window. A fault that is there from the first window is taken for the
network.

The state depends on the windows in their order only, and :meth:`Calibration.dump` gives all of it: who loads
it goes on to the very same bits. :mod:`stream.calibration` keeps one for every live network.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np

from twin.calibration_core import along, corrections, worst_link
from twin.calibration_learnt import CalibrationRules, LinkCorrections, LinkRow, PathOffsets
from twin.calibration_state import (
    CalibrationState,
    link_origin,
    network_digest,
    path_origin,
    told_otherwise,
)
from twin.calibration_window import (
    Explained,
    Flags,
    Parts,
    Reading,
    Rows,
    Solver,
    routes_apart,
    rows_of,
    take_apart,
)
from twin.calibration_worth import Worth
from twin.intervals import GROUPS, Adaptation, group_of
from twin.models import DelayModel, PathPrediction
from twin.network import Ints, Network, Traffic

__all__ = ["Calibrated", "Calibration", "CalibrationRules", "Corrected", "Reading"]

SCALE_RATE, SCALES = 0.1, (0.2, 5.0)  # of the readings' deviation
MEDIAN = 0.6745  # of the absolute value of a normal deviate


@dataclass(frozen=True)
class Corrected:
    """One window's prediction before and after correction."""

    network: Network
    traffic: Traffic
    parts: Parts  # of what the model said
    said: PathPrediction  # by the model
    corrected: PathPrediction
    used: bool  # the corrections have proved better than the model
    group: Ints  # [F] of the intervals
    learnt: int  # windows that had been learnt from

    @property
    def prediction(self) -> PathPrediction:
        """What is to be believed."""
        return self.corrected if self.used else self.said


class Calibration:
    """Corrections of one network, learnt window by window."""

    def __init__(self, network: Network, rules: CalibrationRules | None = None) -> None:
        self.rules = rules or CalibrationRules()
        self.network = network
        self.links = LinkCorrections(len(network.links), self.rules)
        self.paths = PathOffsets(network.path_count, self.rules)
        self.widths = Adaptation()
        self.reading_scale = 1.0  # on the deviation of readings
        self.learnt = 0  # windows learnt from
        self.worth = Worth()
        self.lost: dict[str, LinkRow] = {}  # what was known of links that are gone, longest gone first
        self._digest = network_digest(network)

    def correct(self, network: Network, traffic: Traffic, said: PathPrediction) -> Corrected:
        """What a model said, corrected; ``network`` may have changed since the last window."""
        self.move_to(network)
        parts = take_apart(network, traffic, said)
        hops = parts.hops
        offset, more = corrections(
            hops.links, parts.share, hops.offsets, self.links.offset_s, self.links.excess, parts.hop_wait_s
        )
        wait = parts.wait_s + more
        path = self.paths.factor if traffic.path is None else self.paths.factor[traffic.path]
        routed = hops.lengths > 0
        mean = np.where(routed, (parts.fixed_s + offset + wait) * path, 0.0)
        slower = np.divide(wait, parts.wait_s, out=np.ones_like(wait), where=parts.wait_s > 0)
        group = self._groups(network, parts, said)
        spread = said.mean_s * np.expm1(said.log_width) * slower
        width = np.log1p(np.divide(spread, mean, out=np.zeros_like(mean), where=mean > 0))
        factor = self.widths.factor(group)
        corrected = replace(said, mean_s=mean, jitter_s=said.jitter_s * slower, log_width=width * factor)
        said = replace(said, log_width=said.log_width * factor)
        return Corrected(network, traffic, parts, said, corrected, self.worth.used, group, self.learnt)

    @staticmethod
    def _groups(network: Network, parts: Parts, said: PathPrediction) -> Ints:
        load = said.link_utilisation
        bottleneck = worst_link(parts.hops.links, parts.hops.offsets, load)
        return group_of(len(network.nodes), network.policy[bottleneck], load[bottleneck])

    def learn(self, window: Corrected, readings: Sequence[Reading], *, frozen: bool = False) -> bool:
        """Take the measurements of a window in that :meth:`correct` was asked about; whether they taught.

        They do not when ``frozen``, when none is usable, or when the window is stale: of a topology since
        left, learnt from already, or corrected before another was learnt from (then correct it again).
        """
        if frozen or not readings or window.network is not self.network or window.learnt != self.learnt:
            return False
        network, traffic, parts = window.network, window.traffic, window.parts
        apart_s2 = routes_apart(network, traffic, parts, self.links.offset_s, self.links.excess)
        rows, plain = (
            rows_of(network, traffic, parts, expected, readings, apart_s2)  # 1
            for expected in (window.corrected, window.said)
        )
        if not len(rows.flow):
            return False
        if self.learnt:
            self.worth = self.worth.after(plain.error, rows.error)
        prior = self.links.prior(parts.link_wait_s, parts.link_packet_s)
        hops, share = parts.hops, parts.share
        noise = rows.variance * self.reading_scale**2 + rows.apart
        found = Solver(prior, rows, hops, share, noise, self.rules.gate, self.learnt).solve()  # 2, 3
        self.learnt += 1
        slowest = -network.propagation_delay_s
        beyond = self.links.learn(prior, found.posterior, found.resolved, slowest)  # 4
        doubtful = (beyond | found.opened).astype(np.float64)
        calm = rows.sums(along(hops.links, share, hops.offsets, doubtful)) == 0
        calm &= ~rows.by_route
        self._learn_paths(traffic, rows, found, calm)
        self._learn_scale(found, calm & ~found.strange)
        self._learn_widths(window, rows, calm)
        return True

    def _learn_paths(self, traffic: Traffic, rows: Rows, found: Explained, calm: Flags) -> None:
        explained = np.maximum(rows.measured_s - found.residual, 0.05 * rows.measured_s)
        weight = np.where(calm, explained**2 / found.variance, 0.0)
        path = rows.flow if traffic.path is None else traffic.path[rows.flow]
        size = len(self.paths.factor)
        weights = np.bincount(path, weight, minlength=size)
        sums = np.bincount(path, weight * np.log(rows.measured_s / explained), minlength=size)
        told = np.flatnonzero(weights > 0)
        self.paths.learn(told, sums[told] / weights[told], 1.0 / np.sqrt(weights[told]))

    def _learn_scale(self, found: Explained, usual: Flags) -> None:
        """Readings may stray more than theory says: bursts; or less."""
        if not usual.any():
            return
        z = np.abs(found.residual[usual]) / np.sqrt(found.variance[usual])
        typical = float(np.median(z)) / MEDIAN
        moved = self.reading_scale * min(max(typical, 0.5), 2.0) ** SCALE_RATE
        self.reading_scale = float(np.float32(min(max(moved, SCALES[0]), SCALES[1])))

    def _learn_widths(self, window: Corrected, rows: Rows, calm: Flags) -> None:
        flow = rows.flow[calm]
        strays = np.abs(np.log(rows.measured_s[calm] / rows.expected_s[calm]))
        self.widths.learn(window.group[flow], strays > window.corrected.log_width[flow])
        self.widths.ln_factor = self.widths.ln_factor.astype(np.float32).astype(np.float64)

    # ------------------------------------------------------------------ topology, bytes

    def move_to(self, network: Network) -> None:
        """Go on under another topology: links by name, paths by name where they take the same links.

        A link of which something else is told now starts afresh: what was learnt corrected what was told.
        """
        if network is self.network:
            return
        before, digest = self.network, network_digest(network)
        if digest != self._digest:
            self._follow_links(before.link_names, network)
            self.paths.follow(path_origin(before, network))
        self.links.forget(told_otherwise(before, network))
        self.network, self._digest = network, digest

    def _follow_links(self, before: Sequence[str], network: Network) -> None:
        """Links go on by name. What is lost is kept: a link that comes back mostly is the same cable."""
        after = set(network.link_names)
        self.lost |= {name: self.links.row(k) for k, name in enumerate(before) if name not in after}
        self.links.follow(link_origin(before, network))
        for k, name in enumerate(network.link_names):
            if name in self.lost:
                self.links.put(k, self.lost.pop(name))
        for name in list(self.lost)[: -len(after) or None]:  # as many as there are links, newest losses
            del self.lost[name]

    def copy(self) -> Calibration:
        """One that learns and moves apart from this one."""
        made = Calibration.__new__(Calibration)
        made.rules, made.network, made._digest = self.rules, self.network, self._digest
        made.links, made.paths = copy(self.links), copy(self.paths)
        made.links.arrays = {name: array.copy() for name, array in self.links.arrays.items()}
        made.paths.arrays = {name: array.copy() for name, array in self.paths.arrays.items()}
        made.widths = replace(self.widths, ln_factor=self.widths.ln_factor.copy())
        made.reading_scale, made.learnt = self.reading_scale, self.learnt
        made.lost, made.worth = dict(self.lost), self.worth
        return made

    def dump(self) -> bytes:
        """All state, deflated; equal states give equal bytes."""
        return CalibrationState(
            digest=self._digest,
            link_names=self.network.link_names,
            links={name: array.tobytes() for name, array in self.links.arrays.items()},
            paths={name: array.tobytes() for name, array in self.paths.arrays.items()},
            widths=self.widths.ln_factor.astype(np.float32).tobytes(),
            reading_scale=self.reading_scale,
            learnt=self.learnt,
            lost=tuple(self.lost.items()),
            worth=self.worth,
        ).pack()

    @classmethod
    def load(cls, blob: bytes, network: Network, rules: CalibrationRules | None = None) -> Calibration:
        """What :meth:`dump` described, on ``network``; DecodeError when the bytes are damaged.

        On another network than it was learnt on, links are found by name and paths start afresh.
        """
        state = CalibrationState.unpack(blob)
        made = cls(network, rules)
        made.links.arrays, made.lost = state.link_arrays(), state.lost_links()
        if state.digest == made._digest:
            made.paths.arrays = state.path_arrays(network.path_count)
        else:
            made._follow_links(state.link_names, network)
        made.widths.ln_factor = state.width_factors(int(np.prod(GROUPS)))
        made.reading_scale, made.learnt, made.worth = state.reading_scale, state.learnt, state.worth
        return made


class Calibrated:
    """A model with the corrections of one network: for what-if and whoever else asks about that network."""

    def __init__(self, model: DelayModel, calibration: Calibration) -> None:
        self.model, self.calibration = model, calibration
        self.name, self.version = model.name, model.version

    def predict(self, network: Network, traffic: Traffic) -> PathPrediction:
        """Predict and correct; teaches nothing, and the topology may be another one."""
        said = self.model.predict(network, traffic)
        own = self.calibration
        if network is not own.network:
            own = own.copy()
        return own.correct(network, traffic, said).prediction
