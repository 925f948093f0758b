"""Extra delay, lost capacity or hidden traffic: the counterfactuals on exact made-up rises of one link."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from anomaly.causes import LinkFacts, explain, link_queue, shares
from anomaly.suspects import likely
from anomaly.tomography import Field, Observations
from twin.network import Link

CAPACITY_BPS = 1e7
BITS = 8000.0
LINK = Link("A", "B", CAPACITY_BPS, 0.001, 64)


def _field(large_s: float, small_s: float, small_bits: float = 512.0) -> Field:
    """20 rows of full packets and 20 of small probes over link 0, with their mean rise."""
    noise = np.random.default_rng(2).normal(0.0, 1e-4, 40)
    rows = Observations(
        links=np.zeros(40, dtype=np.int64),
        share=np.ones(40),
        offsets=np.arange(41),
        excess_s=np.repeat([large_s, small_s], 20) + noise,
        expected_s=np.full(40, 0.01),
        variance=np.full(40, 1e-8),
        packet_bits=np.repeat([BITS, small_bits], 20),
        path=np.arange(40),
        method=np.repeat([0, 1], 20),
    )
    return Field(rows, np.full(1, 1e-8))


def _facts(load: float, *, measured: float | None = None, drops_pps: float = 0.0) -> LinkFacts:
    routed_bps = load * CAPACITY_BPS
    return LinkFacts(
        link=LINK,
        routed_pps=routed_bps / BITS,
        routed_bits=BITS,
        load_bps=routed_bps if measured is None else measured * CAPACITY_BPS,
        drops_pps=drops_pps,
        window_s=10.0,
    )


def test_an_equal_rise_of_small_and_large_packets_is_extra_delay() -> None:
    """10 ms more for every size."""
    assert explain(_field(0.01, 0.01), 0, _facts(0.5))[0].name == "extra-delay"


@pytest.mark.parametrize("share", [0.4, 0.5, 0.6])
@pytest.mark.parametrize("load", [0.05, 0.2, 0.35])
def test_a_rise_that_grows_with_size_is_lost_capacity(share: float, load: float) -> None:
    """What the queue would do at φ·C comes back as capacity lost, φ within 0.1, idle or busy."""
    usual, lost = (link_queue(LINK, c * CAPACITY_BPS, load * CAPACITY_BPS, BITS)[0] for c in (1.0, share))
    slower = (1 / share - 1) / CAPACITY_BPS
    best = explain(_field(lost - usual + slower * BITS, lost - usual + slower * 512), 0, _facts(load))[0]
    assert best.name == "capacity-lost"
    assert float(best.detail.split()[1]) == pytest.approx(100 * share, abs=10)


def test_a_shaped_link_that_lost_capacity_makes_all_packets_wait_alike() -> None:
    """Behind a fast port lost capacity adds nothing to transmission."""
    shaped = replace(_facts(0.35), link=replace(LINK, line_rate_bps=1e10))
    usual, lost = (link_queue(LINK, c * CAPACITY_BPS, 0.35 * CAPACITY_BPS, BITS)[0] for c in (1.0, 0.5))
    found = explain(_field(lost - usual, lost - usual), 0, shaped)
    detail = next(e.detail for e in found if e.name == "capacity-lost")
    assert detail.endswith("+0.00 ms transmission")
    assert float(detail.split()[1]) == pytest.approx(50, abs=10)


def test_drops_and_a_stuck_load_speak_for_lost_capacity_when_sizes_say_nothing() -> None:
    """All packets of one size, a rise that both explain: drops and throughput decide."""
    field = _field(0.06, 0.06, small_bits=BITS)
    facts = _facts(0.6, measured=0.5, drops_pps=130.0)
    assert explain(field, 0, facts)[0].name == "capacity-lost"


def test_load_the_flows_do_not_show_is_hidden_traffic() -> None:
    """The rise of a queue at 0.8 while flows explain 0.4, and the counters say 0.8."""
    usual, more = (link_queue(LINK, CAPACITY_BPS, load * CAPACITY_BPS, BITS)[0] for load in (0.4, 0.8))
    best = explain(_field(more - usual, more - usual), 0, _facts(0.4, measured=0.8))[0]
    assert best.name == "hidden-traffic"
    assert best.detail.startswith("4.00 Mbit/s")


def test_explanations_are_probabilities() -> None:
    """They sum to one, best first, and without counters nothing is claimed about hidden traffic."""
    field = _field(0.01, 0.01)
    blind = LinkFacts(LINK, 500.0, BITS, None, None, 10.0)
    found = explain(field, 0, blind)
    assert {e.name for e in found} == {"extra-delay", "capacity-lost"}
    assert sum(shares(found)) == pytest.approx(1.0)
    assert shares(found) == sorted(shares(found), reverse=True)


@pytest.mark.parametrize(
    ("probability", "told"), [(0.5, "50 % likely"), (0.994, "99 % likely"), (1.0, "over 99 % likely")]
)
def test_a_name_is_likely_but_never_certain(probability: float, told: str) -> None:
    """Operators read a percentage; the best of those that were thought of may still be wrong."""
    assert likely(probability) == told
