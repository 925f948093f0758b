"""Links that are asked for more than they can carry: the queueing model beside packets, and beside theory."""

from __future__ import annotations

import numpy as np
import pytest

from tests.twin.test_twin_queueing_sharing import by_loads, one_link
from twin.network import Link, Network
from twin.queueing import MG1K
from twin.queueing_polling import (
    LOST,
    POLLED,
    POLLED_BUFFER,
    POLLED_LOAD,
    POLLED_QUANTUM,
    POLLED_SERVICE,
    POLLED_SPREAD,
    POLLED_WAIT,
    poll,
)
from twin.queueing_precedence import FOLLOWS, LOAD, TOLD, fair_loads
from twin.scenarios import traffic_of
from twin.scheduling import POLICIES, by_class
from twin.steady import run_steady
from twin.workload import Flow, PacketSizes, Poisson

SIZES = PacketSizes.discrete((500.0, 750.0, 1000.0, 1250.0, 1500.0), (0.2, 0.2, 0.2, 0.2, 0.2))
PACKETS = 120_000


def crossing(policy: str, weights: tuple[float, ...], capacity_bps: float, buffer: int) -> Network:
    """Two nodes and a link from one to the other."""
    link = Link("a", "b", capacity_bps, 0.0, buffer, scheduling=by_class(policy, weights))
    return Network(("a", "b"), (link,), np.array([[-1, 0], [-1, -1]], dtype=np.int16))


@pytest.mark.parametrize(
    ("policy", "weights", "capacity_bps", "buffer", "loads"),
    [
        ("SP", (1, 1, 1), 1e5, 32, (0.3, 0.5, 0.8)),
        ("SP", (1, 1, 1), 1e5, 16, (0.2, 0.5, 1.0)),
        ("WFQ", (60, 30, 10), 1e5, 64, (0.3, 0.5, 0.8)),
        ("WFQ", (1, 1, 1), 1e5, 32, (0.26, 1.1, 0.5)),
        ("WFQ", (50, 40, 10), 1e5, 16, (0.3, 0.7, 1.2)),
        ("DRR", (60, 30, 10), 1e5, 64, (0.1, 0.2, 1.3)),  # turns shorter than buffers
        ("DRR", (60, 30, 10), 2e6, 16, (0.2, 0.4, 0.8)),  # and far longer
        ("DRR", (1, 1, 1), 1e6, 32, (0.5, 0.5, 0.6)),
    ],
)  # fmt: skip
def test_an_overloaded_link_is_as_simulated(
    policy: str, weights: tuple[float, ...], capacity_bps: float, buffer: int, loads: tuple[float, ...]
) -> None:
    """Time in the system within 15 %, and losses within 0.06, of what packets meet."""
    network = crossing(policy, weights, capacity_bps, buffer)
    flows = [Flow(0, 1, load * capacity_bps / 4000, SIZES, Poisson(), k) for k, load in enumerate(loads)] * 4
    duration_s = PACKETS * 1000 / capacity_bps / sum(loads)
    seen = run_steady(network, flows, seed=1, warm_up_s=0.1 * duration_s, duration_s=duration_s)
    pps = np.array([flow.pps for flow in flows])
    queues = MG1K().solve(network, traffic_of(network, flows, pps * SIZES.mean_bits, pps))
    measured = seen.queue_packets / (queues.arrival_pps * (1 - seen.queue_loss))
    np.testing.assert_allclose(queues.wait_s + queues.service_s, measured, rtol=0.15)
    np.testing.assert_allclose(queues.blocking, seen.queue_loss, atol=0.06, rtol=0)


def polled(loads: list[float], buffers_s: list[float], quanta_s: list[float]) -> np.ndarray:
    """Exponential packets that take 10 ms."""
    told = np.zeros((len(loads), POLLED))
    told[:, POLLED_LOAD], told[:, POLLED_BUFFER], told[:, POLLED_QUANTUM] = loads, buffers_s, quanta_s
    told[:, POLLED_SERVICE], told[:, POLLED_SPREAD] = 0.01, 2.0
    return poll(told, 0.0)


def test_a_queue_beside_one_that_always_uses_its_quantum_waits_as_with_vacations() -> None:
    """M/G/1 with vacations of V (B. T. Doshi, Queueing Systems 1, 1986): Pollaczek-Khinchine and V/2."""
    follows = polled([0.4, 5.0], [100.0, 1.0], [50.0, 2.0])
    assert follows[0, LOST] < 0
    assert follows[0, POLLED_WAIT] == pytest.approx(0.4 * 0.01 * 2 / 2 / 0.6 + 2.0 / 2, rel=1e-3)


def test_full_queues_share_the_link_by_their_quanta() -> None:
    """Those that never run dry keep quantum ÷ cycle of the link."""
    follows = polled([4.0, 4.0, 4.0], [1.0, 1.0, 1.0], [0.6, 0.3, 0.1])
    kept = 4.0 * (1 - follows[:, LOST])
    np.testing.assert_allclose(kept, [0.6, 0.3, 0.1], rtol=1e-6)


def test_short_buffers_make_turns_end_before_the_quantum() -> None:
    """A queue that runs dry leaves its quantum, so quanta far above the buffers do not matter; and who is
    away longer, as the other is the busier one, loses more."""
    one = polled([0.5, 0.9], [0.16, 0.16], [30.0, 10.0])
    other = polled([0.5, 0.9], [0.16, 0.16], [60.0, 90.0])
    np.testing.assert_allclose(one[:, :2], other[:, :2], rtol=1e-9)
    assert 0 < one[1, LOST] < one[0, LOST]


def test_what_a_queue_would_be_given_is_max_min() -> None:
    """Weights 3:2:1, loads 0.3, 0.2, 1.0: who wants all gets what is left, or his part of it by weight."""
    told = np.zeros((6, TOLD))
    told[:, LOAD] = [0.3, 0.2, 1.0, 0.3, 0.2, 1.0]
    share = np.array([3.0, 2.0, 1.0, 3.0, 2.0, 1.0]) / 6
    policy = np.array([POLICIES.index("WFQ"), POLICIES.index("SP")])
    loads = fair_loads(told, np.zeros((6, FOLLOWS)), np.array([0, 3, 6]), policy, share)
    given = told[:, LOAD] / loads
    np.testing.assert_allclose(given[:3], [0.8 * 3 / 4, 0.7 * 2 / 3, 0.5])
    np.testing.assert_allclose(given[3:], [1.0, 0.7, 0.5])


def test_more_traffic_of_one_class_never_helps_the_others_of_a_polled_link() -> None:
    """Waits of a class within its share only grow while another floods the link."""
    network = one_link(by_class("DRR", (3.0, 2.0, 1.0)), buffer=32)
    floods = np.linspace(1.2, 4.0, 8)
    waits = [MG1K().solve(network, by_loads(np.array([0.2, 0.1, flood]))).wait_s[0] for flood in floods]
    assert (np.diff(waits) >= -1e-3 * waits[0]).all()
