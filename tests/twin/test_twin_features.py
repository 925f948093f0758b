"""What the GNN sees of a network: every column in use, finite, and without units."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from routenet_examples import SIZE_SCV, STATES, features_of, hastened, lab, mixed, routed

from twin.features import (
    FLOW_FEATURES,
    HOP_FEATURES,
    LN_BLOCKING_FLOOR,
    Features,
    Specification,
    build_features,
    operating_point,
)
from twin.features_queues import QUEUE_FEATURES
from twin.network import Link, Network, Traffic, Variability
from twin.queueing import MG1K
from twin.scheduling import POLICIES
from twin.unqueued import Unqueued

TABLES = {"queue": QUEUE_FEATURES, "flow": FLOW_FEATURES, "hop": HOP_FEATURES}
every_state = pytest.mark.parametrize("name", STATES)


def column(features: Features, table: str, name: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """One column by its name."""
    values: np.ndarray[tuple[int], np.dtype[np.float32]] = getattr(features, table)[
        :, TABLES[table].index(name)
    ]
    return values


def test_the_examples_hold_every_scheduler() -> None:
    """What the tests of symmetries run on has links of all four policies that carry traffic."""
    for state in (mixed(), routed()):
        network, traffic = state
        assert set(network.policy[traffic.hops(network).links].tolist()) == set(range(len(POLICIES)))


@pytest.mark.parametrize("table", TABLES)
def test_every_column_tells_something(table: str) -> None:
    """Names are unique, there is a column for each, and none is the same everywhere or that of another."""
    values = np.concatenate([getattr(features_of(mixed(seed)), table) for seed in (3, 4, 5)])
    assert len(set(TABLES[table])) == values.shape[1] == len(TABLES[table])
    for number, name in enumerate(TABLES[table]):
        assert np.ptp(values[:, number]) > 1e-3, name
        others = np.delete(values, number, axis=1)
        assert not (others == values[:, [number]]).all(axis=0).any(), name


@pytest.mark.parametrize("load", [0.0, 1e-9, 1.0, 20.0])
@every_state
def test_features_are_finite_and_moderate(name: str, load: float) -> None:
    """At any load every number is finite and small enough to be fed to a network."""
    network, traffic = STATES[name]()
    for prior in (MG1K(), Unqueued(SIZE_SCV)):
        features = build_features(network, traffic.scaled(load), prior)
        for table in TABLES:
            values = getattr(features, table)
            assert values.dtype == np.float32
            assert np.isfinite(values).all(), table
            assert np.abs(values).max(initial=0.0) < 40, table
        assert (features.ln_blocking >= LN_BLOCKING_FLOOR).all()
        assert np.isfinite(features.wait_s).all()


@every_state
def test_features_have_no_units(name: str) -> None:
    """Everything a thousand times as fast: the same tables, and times a thousandth."""
    slow, fast = (features_of(hastened(STATES[name](), factor)) for factor in (1.0, 1e3))
    for table in TABLES:
        np.testing.assert_allclose(getattr(fast, table), getattr(slow, table), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(1e3 * fast.transmission_s, slow.transmission_s, rtol=1e-12)
    np.testing.assert_allclose(1e3 * fast.wait_s, slow.wait_s, rtol=1e-4, atol=1e-12)


@every_state
def test_features_do_not_depend_on_the_size_of_a_bit(name: str) -> None:
    """Packets, buffers of bits and links eight times as large change nothing at all."""
    network, traffic = STATES[name]()
    links = tuple(
        replace(link, capacity_bps=8 * link.capacity_bps, buffer_bits=8 * link.buffer_bits)
        for link in network.links
    )
    here = features_of((network, traffic))
    there = features_of((replace(network, links=links), replace(traffic, bps=8 * traffic.bps)))
    for table in TABLES:
        np.testing.assert_allclose(getattr(there, table), getattr(here, table), rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------------- hops and shares


@every_state
def test_shares_of_flows_and_inlets_sum_up_to_one(name: str) -> None:
    """The flows of a queue share its packets, and so do the places where these come from."""
    network, traffic = STATES[name]()
    features = features_of((network, traffic))
    share, inlet_share = (column(features, "hop", name) for name in ("share", "inlet_share"))
    used = np.unique(features.hop_queue)
    np.testing.assert_allclose(np.bincount(features.hop_queue, share)[used], 1.0, rtol=2e-3)
    previous = np.roll(features.hops.links, 1)
    previous[features.hops.offsets[:-1][features.routed]] = -1
    inlets: dict[tuple[int, int], list[int]] = {}
    for hop, inlet in enumerate(zip(features.hop_queue.tolist(), previous.tolist(), strict=True)):
        inlets.setdefault(inlet, []).append(hop)
    total = np.zeros(len(features.queue))
    for (queue, _), hops in inlets.items():
        assert np.ptp(inlet_share[hops]) == 0
        assert share[hops].sum() == pytest.approx(inlet_share[hops[0]], rel=1e-4)
        total[queue] += inlet_share[hops[0]]
    np.testing.assert_allclose(total[used], 1.0, rtol=2e-3)


def line() -> tuple[Network, Traffic]:
    """a → b → c; two flows of 100 and 300 packets/s enter at a, and one of 600 at b; all go to c."""
    ends = (("a", "b", 1e6), ("b", "c", 4e6), ("c", "b", 1e6), ("b", "a", 1e6))
    next_link = np.array([[-1, 0, 0], [3, -1, 1], [2, 2, -1]], dtype=np.int16)
    network = Network(("a", "b", "c"), tuple(Link(*end) for end in ends), next_link)
    path = np.array([network.path_index("a", "c")] * 2 + [network.path_index("b", "c")])
    pps = np.array([100.0, 300.0, 600.0])
    vary = Variability(gap_scv=np.array([0.0, 1, 1]), rate_scv=np.array([1.0, 0, 0]), rate_time_s=np.ones(3))
    return network, Traffic(bps=1000 * pps, pps=pps, path=path, variability=vary)


def test_what_can_be_worked_out_by_hand() -> None:
    """Shares, inlets, regular flows and speeds of three flows that meet on the second of two links."""
    network, traffic = line()
    features = build_features(network, traffic, Unqueued(SIZE_SCV))
    expected = {
        "share": (1 / 4, 0.1, 3 / 4, 0.3, 0.6),
        "first": (1, 0, 1, 0, 1),
        "inlet_share": (1, 0.4, 1, 0.4, 0.6),
        "ln_speed_up": (0, np.log(4), 0, np.log(4), 0),
        "ln_size": (0, 0, 0, 0, 0),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(column(features, "hop", name), values, rtol=1e-6, atol=1e-6, err_msg=name)
    second = 1  # the queue of b → c
    by_hand = {
        "load": 0.25,
        "fresh": 0.6,
        "flow_concentration": 0.1**2 + 0.3**2 + 0.6**2,
        "inlet_concentration": 0.4**2 + 0.6**2,
        "regular": 0.1,
        "regular_concentration": 0.1**2,
        "burst_scv": 0.1**2,
        "ln_burst_service": np.log1p(1.0 / (1000 / 4e6)),
        "ln_buffer": np.log(100 / 64),
        "rank": 0,
        "weight": 1,
    }
    for name, value in by_hand.items():
        assert column(features, "queue", name)[second] == pytest.approx(value, rel=1e-5), name
    assert column(features, "flow", "worst_load").tolist() == pytest.approx([0.4, 0.4, 0.25])
    assert column(features, "flow", "hops").tolist() == [2 / 8, 2 / 8, 1 / 8]
    assert features.transmission_s.tolist() == pytest.approx([1.25e-3, 1.25e-3, 0.25e-3])


def test_features_thin_out_with_what_is_lost() -> None:
    """What a drowned queue drops is missing from the shares of the next."""
    network, traffic = line()
    features = build_features(network, traffic.scaled(5), MG1K(size_scv=1.0))  # a → b is offered twice
    lossy = 1 - features.queues.blocking[0]
    assert lossy == pytest.approx(0.5, abs=0.05)
    came = 0.4 * lossy
    assert column(features, "hop", "inlet_share")[1] == pytest.approx(came / (came + 0.6), rel=1e-3)


# ------------------------------------------------------------------------------------- operating point


def test_the_operating_point_is_that_of_queues_in_use() -> None:
    """Nodes, highest load, buffers where something flows, and the policies met there."""
    network, traffic = line()
    links = tuple(
        replace(link, buffer_packets=size) for link, size in zip(network.links, (8, 32, 500, 1), strict=True)
    )
    network = replace(network, links=links)
    point = operating_point(network, MG1K().solve(network, traffic))
    assert point["nodes"] == (3.0, 3.0)
    assert list(point["load"]) == pytest.approx([0.0, 0.4])
    assert point["buffer packets"] == (8.0, 32.0)
    assert [point[f"{name} scheduling"][1] for name in POLICIES] == [1.0, 0.0, 0.0, 0.0]
    everything = operating_point(mixed()[0], MG1K().solve(*mixed()))
    assert [everything[f"{name} scheduling"][1] for name in POLICIES] == [1.0] * 4
    idle = operating_point(network, MG1K().solve(network, traffic.scaled(0.0)))
    assert idle["load"] == (0.0, 0.0)


def test_the_specification_names_what_is_built() -> None:
    """A checkpoint's specification lists the columns of this version in their order."""
    specification = Specification()
    assert (specification.queue, specification.flow, specification.hop) == tuple(TABLES.values())
    assert [field.name for field in fields(Specification)] == ["version", "queue", "flow", "hop"]


def test_flows_without_a_route_have_no_hops() -> None:
    """They keep their row, with no hop, no load and no time on the wires."""
    network, traffic = lab()
    cut = network.next_link.copy()
    cut[:, 0] = -1
    features = features_of((replace(network, next_link=cut), traffic))
    lost = ~features.routed
    assert 0 < lost.sum() < len(lost)
    for values in (features.transmission_s, features.propagation_s, features.worst_load):
        assert not values[lost].any()
        assert len(values) == network.path_count
