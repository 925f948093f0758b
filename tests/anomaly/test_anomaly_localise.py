"""Tomography and pursuit on exact, made-up excess delays: does the arithmetic name what was put in?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from anomaly.localise import pursue, weigh
from anomaly.tomography import Field, Observations, Pattern, stack
from twin.network import Floats, Network
from twin.topologies import nsfnet

METHODS = ("ipfix-on-path", "rttmon")
NOISE_S = 2e-4
WANDER_S = 1e-4


@pytest.fixture(scope="module")
def network() -> Network:
    """NSFNET."""
    return nsfnet().network(capacities=1e7)


def _rows(network: Network, excess: Sequence[Floats], paths: Sequence[int] | None = None) -> Observations:
    """One row per path and method; ``excess`` [P] per method."""
    chosen = np.arange(network.path_count) if paths is None else np.array(paths)
    ways = [network.paths.of(int(k)) for k in chosen]
    parts = [
        Observations(
            links=np.concatenate(ways),
            share=np.ones(sum(map(len, ways))),
            offsets=np.concatenate([[0], np.cumsum([len(way) for way in ways])]),
            excess_s=values[chosen],
            expected_s=np.full(len(chosen), 0.01),
            variance=np.full(len(chosen), NOISE_S**2),
            packet_bits=np.full(len(chosen), bits),
            path=chosen,
            method=np.full(len(chosen), number),
        )
        for number, (values, bits) in enumerate(zip(excess, (8000.0, 512.0), strict=True))
    ]
    return stack(parts)


def _field(network: Network, rows: Observations) -> Field:
    return Field(rows, np.full(len(network.links), WANDER_S**2))


def _noise(network: Network, seed: int = 5) -> list[Floats]:
    return list(np.random.default_rng(seed).normal(0.0, NOISE_S, (2, network.path_count)))


def _crossing(network: Network, links: Sequence[int]) -> Floats:
    """How many of some links every path crosses, [P]."""
    hits = np.isin(network.paths.links, links)
    return np.bincount(network.paths.hop_path, weights=hits, minlength=network.path_count)


def test_woodbury_equals_the_dense_formula(network: Network) -> None:
    """Scores from link space are those of Σ formed and inverted outright."""
    rows = _rows(network, _noise(network))
    field = _field(network, rows)
    A = np.zeros((len(rows.excess_s), len(network.links)))
    A[rows.row, rows.links] = 1.0
    inverse = np.linalg.inv(np.diag(rows.variance) + WANDER_S**2 * A @ A.T)
    top, information = A.T @ inverse @ rows.excess_s, np.diag(A.T @ inverse @ A)
    scores, sizes = field.link_scores
    np.testing.assert_allclose(scores, top / np.sqrt(information), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(sizes, top / information, rtol=1e-6, atol=1e-12)
    h = np.random.default_rng(1).normal(size=len(rows.excess_s))
    score, size = field.pattern_scores([Pattern(np.arange(len(h)), h)])
    assert score[0] == pytest.approx(h @ inverse @ rows.excess_s / np.sqrt(h @ inverse @ h), rel=1e-6)
    assert size[0] == pytest.approx(h @ inverse @ rows.excess_s / (h @ inverse @ h), rel=1e-6)
    assert field.inner(h, rows.excess_s) == pytest.approx(h @ inverse @ rows.excess_s, rel=1e-6)


@pytest.mark.parametrize("link", range(0, 42, 5))
def test_an_extra_delay_is_found_on_its_link_with_its_size(network: Network, link: int) -> None:
    """Every link: first by a wide margin, size within 10 %, probability near one."""
    excess = [noise + 3e-3 * _crossing(network, [link]) for noise in _noise(network)]
    rounds, _ = pursue(network, _field(network, _rows(network, excess)), METHODS, 6.0)
    best = rounds[0].best
    assert (best.kind, best.target) == ("link", network.link_names[link])
    assert best.size == pytest.approx(3e-3, rel=0.1)
    assert rounds[0].probabilities[0] > 0.95
    assert len(rounds) == 1


def test_both_directions_of_a_cable_come_out_in_two_rounds(network: Network) -> None:
    """The larger direction first, the other second, nothing third."""
    a, b = network.link_names.index("PA->NY"), network.link_names.index("NY->PA")
    rise = 4e-3 * _crossing(network, [a]) + 2e-3 * _crossing(network, [b])
    rounds, _ = pursue(
        network, _field(network, _rows(network, [n + rise for n in _noise(network)])), METHODS, 6.0
    )
    assert [one.best.target for one in rounds] == ["PA->NY", "NY->PA"]


def test_a_slow_node_is_told_from_its_links(network: Network) -> None:
    """A rise on all links that leave a node is one slow node."""
    node = network.node_index["NE"]
    rise = 2e-3 * _crossing(network, list(np.flatnonzero(network.source_index == node)))
    rounds, _ = pursue(
        network, _field(network, _rows(network, [n + rise for n in _noise(network)])), METHODS, 6.0
    )
    assert [(one.best.kind, one.best.target) for one in rounds] == [("node", "NE")]


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("lying-probe", lambda s, d, node: 0.5 * 0.01 * (s == node)),
        ("clock-offset", lambda s, d, node: 3e-3 * (1.0 * (d == node) - (s == node))),
    ],
)
def test_an_instrument_is_blamed_when_only_one_method_deviates(network: Network, name, pattern) -> None:  # type: ignore[no-untyped-def]  # a table of lambdas
    """One source, one method: the probe, not the network."""
    on_path, probes = _noise(network)
    source, destination = network.ends
    lie = pattern(source, destination, network.node_index["GA"])
    rounds, _ = pursue(network, _field(network, _rows(network, [on_path, probes + lie])), METHODS, 6.0)
    best = rounds[0].best
    assert (best.kind, best.target, best.method) == ("probe", "GA", "rttmon")
    assert best.name in ({"lying-probe", "constant-lie"} if name == "lying-probe" else {name})
    assert len(rounds) == 1


def test_a_wrong_route_is_named_by_its_path(network: Network) -> None:
    """The rows from one node (and through it) to one destination: neither a link nor a probe."""
    path = network.path_index("WA", "NY")
    rise = np.zeros(network.path_count)
    rise[path] = 6e-3
    rounds, _ = pursue(
        network, _field(network, _rows(network, [n + rise for n in _noise(network)])), METHODS, 6.0
    )
    assert [(one.best.kind, one.best.target) for one in rounds] == [("path", "WA->NY")]


def test_no_fault_no_hypothesis(network: Network) -> None:
    """Forty draws of noise as assumed: nothing reaches the firing score."""
    for seed in range(40):
        rows = _rows(network, _noise(network, seed))
        assert pursue(network, _field(network, rows), METHODS, 6.0)[0] == []


def test_links_no_path_can_tell_apart_are_named(network: Network) -> None:
    """With one single path all its links are alike, and all share the probability."""
    path = network.path_index("CA1", "NY")
    rise = np.full(network.path_count, 5e-3)
    field = _field(network, _rows(network, [rise, rise], paths=[path]))
    way = network.paths.of(path)
    assert set(field.alike(int(way[0]))) == set(way[1:])
    links = [c for c in weigh(network, field, METHODS) if c.kind == "link"]
    assert {c.target for c in links} == {network.link_names[k] for k in way}
    assert np.ptp([c.log_likelihood for c in links]) == pytest.approx(0.0, abs=1e-6)


def test_the_order_of_rows_does_not_matter(network: Network) -> None:
    """Rows of the two methods swapped: the same suspects with the same scores."""
    excess = [noise + 2e-3 * _crossing(network, [7]) for noise in _noise(network)]
    rows = _rows(network, excess)
    half = len(rows.excess_s) // 2
    order = np.concatenate([np.arange(half, 2 * half), np.arange(half)])
    swapped = stack([_taken(rows, order[:half]), _taken(rows, order[half:])])
    one, other = (_field(network, r).link_scores[0] for r in (rows, swapped))
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


def _taken(rows: Observations, which: np.ndarray) -> Observations:
    ways = [rows.links[rows.offsets[k] : rows.offsets[k + 1]] for k in which]
    columns = ("excess_s", "expected_s", "variance", "packet_bits", "path", "method")
    return replace(
        rows,
        links=np.concatenate(ways),
        share=np.ones(sum(map(len, ways))),
        offsets=np.concatenate([[0], np.cumsum([len(way) for way in ways])]),
        **{name: getattr(rows, name)[which] for name in columns},
    )
