"""What is wrong with a link whose delay has risen: the counterfactuals, compared by likelihood.

Theory
------
A rise on link l has two parts, told apart by packets of different size (probes are small, traffic is not):

    rise(row) = x + β·bits(row)          x: longer wait or longer wire;  β: slower transmitter, Δ(1/C).

With h₀ = rows over l, h₁ = h₀·bits, tᵢ = hᵢᵀΣ⁻¹y and Fᵢⱼ = hᵢᵀΣ⁻¹hⱼ the log-likelihood of (x, β) is, up to a
constant, q(x, β) = t·θ − θᵀFθ/2. Each hypothesis says which θ, what drops and what load it would bring:

    extra delay       β = 0, any x ≥ 0; drops and load as before
    capacity lost     C' = φC: β = (1/φ − 1)/C, x = W(φC) − W(C) of the queue; drops as that queue drops; the
                      load cannot exceed φC
    hidden traffic    β = 0, x = W(measured load) − W(load the flows show); the load is what was measured

W is the finite queue of :class:`twin.queueing.MG1K`, asked about this link alone, and believed to within
TOLERANCE. The likelihoods are tempered by the misfit that even free (x, β) leave.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anomaly.tomography import Field
from twin.network import Floats, Link, Network, Traffic
from twin.queueing import MG1K

SHARES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # capacity left, tried in turn
TOLERANCE = (0.5, 2.0)  # the queue's rise is right within these factors
_CAP = 30.0  # no single piece of evidence weighs more than e^30
_ONE_LINK = np.array([[-1, 0], [-1, -1]], dtype=np.int16)


@dataclass(frozen=True)
class LinkFacts:
    """What is known of one link beside its delays."""

    link: Link
    routed_pps: float  # what the flows send over it
    routed_bits: float  # … mean packet size
    load_bps: float | None  # measured; None = not measured
    drops_pps: float | None
    window_s: float

    @property
    def routed_bps(self) -> float:
        """Load the flows explain."""
        return self.routed_pps * self.routed_bits


@dataclass(frozen=True)
class Explanation:
    """One way to explain a link's rise."""

    name: str
    log_likelihood: float
    detail: str


@dataclass(frozen=True)
class _Quadratic:
    """q(x, β) of one link."""

    t: tuple[float, float]
    f00: float
    f01: float
    f11: float
    temper: float

    def best_x(self, beta: float, low: float, high: float) -> float:
        """The x in [low, high] that fits best beside a given β."""
        return float(np.clip((self.t[0] - self.f01 * beta) / max(self.f00, 1e-12), low, high))

    def value(self, x: float, beta: float) -> float:
        """Tempered log-likelihood."""
        linear = self.t[0] * x + self.t[1] * beta
        square = self.f00 * x * x + 2 * self.f01 * x * beta + self.f11 * beta * beta
        return self.temper * (linear - square / 2)


def explain(field: Field, link: int, facts: LinkFacts) -> list[Explanation]:
    """All explanations of a rise on one link, most likely first."""
    quadratic = _quadratic(field, link)
    found = [
        _extra_delay(quadratic, facts),
        _capacity_lost(quadratic, facts),
        _hidden_traffic(quadratic, facts),
    ]
    return sorted((e for e in found if e is not None), key=lambda e: -e.log_likelihood)


def shares(explanations: list[Explanation]) -> list[float]:
    """Probabilities of the explanations."""
    values = np.array([explanation.log_likelihood for explanation in explanations])
    weights = np.exp(values - values.max())
    return [float(share) for share in weights / weights.sum()]


def link_queue(link: Link, capacity_bps: float, load_bps: float, bits: float) -> tuple[float, float]:
    """(mean wait in seconds, share dropped) of one link alone under a load."""
    alone = Link("a", "b", capacity_bps, link.propagation_delay_s, link.buffer_packets)
    traffic = Traffic(bps=np.array([load_bps, 0.0]), pps=np.array([load_bps / bits, 0.0]))
    queues = MG1K().solve(Network(("a", "b"), (alone,), _ONE_LINK), traffic)
    return float(queues.wait_s[0]), float(queues.blocking[0])


def _quadratic(field: Field, link: int) -> _Quadratic:
    rows = field.rows
    h0: Floats = np.zeros(len(rows.excess_s))
    h0[rows.row[rows.links == link]] = rows.share[rows.links == link]
    h1 = h0 * rows.packet_bits
    f00, f01, f11 = field.inner(h0, h0), field.inner(h0, h1), field.inner(h1, h1)
    t = (field.inner(h0, rows.excess_s), field.inner(h1, rows.excess_s))
    free = np.linalg.pinv(np.array([[f00, f01], [f01, f11]]))
    left = field.misfit - float(np.array(t) @ free @ np.array(t))
    return _Quadratic(t, f00, f01, f11, 1.0 / max(1.0, left / max(len(rows.excess_s), 1)))


def _extra_delay(quadratic: _Quadratic, facts: LinkFacts) -> Explanation:
    x = quadratic.best_x(0.0, 0.0, np.inf)
    _, dropped = link_queue(facts.link, facts.link.capacity_bps, facts.routed_bps, facts.routed_bits)
    value = quadratic.value(x, 0.0) + _drops(facts, dropped) + _load(facts, facts.routed_bps)
    return Explanation("extra-delay", value, f"+{1e3 * x:.2f} ms for small and large packets alike")


def _capacity_lost(quadratic: _Quadratic, facts: LinkFacts) -> Explanation:
    tried = [_with_capacity(quadratic, facts, share) for share in SHARES]
    return max(tried, key=lambda explanation: explanation.log_likelihood)


def _with_capacity(quadratic: _Quadratic, facts: LinkFacts, share: float) -> Explanation:
    capacity = facts.link.capacity_bps
    usual, _ = link_queue(facts.link, capacity, facts.routed_bps, facts.routed_bits)
    wait, dropped = link_queue(facts.link, share * capacity, facts.routed_bps, facts.routed_bits)
    # A shaped link sends at its port's speed whatever is left of its capacity: packets only wait longer.
    shaped = (facts.link.line_rate_bps or 0.0) > capacity
    beta = 0.0 if shaped else (1 / share - 1) / capacity
    rise = max(wait - usual, 0.0)
    x = quadratic.best_x(beta, TOLERANCE[0] * rise, TOLERANCE[1] * rise)
    carried = min(facts.routed_bps, share * capacity)
    value = quadratic.value(x, beta) + _drops(facts, dropped) + _load(facts, carried)
    size = 1e3 * beta * facts.routed_bits
    detail = (
        f"about {100 * share:.0f} % of the capacity left: +{1e3 * x:.2f} ms wait, +{size:.2f} ms transmission"
    )
    return Explanation("capacity-lost", value, detail)


def _hidden_traffic(quadratic: _Quadratic, facts: LinkFacts) -> Explanation | None:
    if facts.load_bps is None or facts.load_bps <= facts.routed_bps:
        return None
    capacity = facts.link.capacity_bps
    usual, _ = link_queue(facts.link, capacity, facts.routed_bps, facts.routed_bits)
    wait, dropped = link_queue(facts.link, capacity, facts.load_bps, facts.routed_bits)
    rise = max(wait - usual, 0.0)
    x = quadratic.best_x(0.0, TOLERANCE[0] * rise, TOLERANCE[1] * rise)
    hidden = facts.load_bps - facts.routed_bps
    # An Occam factor: it takes the measured load as it is, where the others have to explain it.
    value = quadratic.value(x, 0.0) + _drops(facts, dropped) - 2.0
    return Explanation(
        "hidden-traffic", value, f"{hidden / 1e6:.2f} Mbit/s more on the link than the flows show"
    )


def _drops(facts: LinkFacts, dropped_share: float) -> float:
    """Drops seen against drops expected; √count is compared within 1.5 + 30 % (bursts)."""
    if facts.drops_pps is None:
        return 0.0
    seen = np.sqrt(facts.drops_pps * facts.window_s)
    due = np.sqrt(dropped_share * facts.routed_pps * facts.window_s)
    return -min(_CAP, 0.5 * float((seen - due) / (1.5 + 0.3 * max(seen, due))) ** 2)


def _load(facts: LinkFacts, expected_bps: float) -> float:
    """Measured load against what a hypothesis carries, within 4 % of capacity and 4 % of the load."""
    if facts.load_bps is None:
        return 0.0
    sigma = 0.04 * np.hypot(facts.link.capacity_bps, expected_bps)
    return -min(_CAP, 0.5 * float((facts.load_bps - expected_bps) / sigma) ** 2)
