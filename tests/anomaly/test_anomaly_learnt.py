"""What is learnt survives a change of topology where it is still true, and only there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from anomaly.learnt import Learnt
from anomaly.settings import DetectorSettings
from twin.network import Network
from twin.routing import shortest_paths
from twin.topologies import nsfnet


def test_a_path_that_takes_another_way_starts_over_and_the_others_go_on() -> None:
    """One cable out: paths that crossed it are fresh, all others and the remaining links keep their state."""
    network = nsfnet().network(capacities=1e7)
    links = tuple(link for link in network.links if {link.source, link.target} != {"PA", "NY"})
    after = replace(network, links=links, next_link=shortest_paths(network.nodes, links))
    learnt = Learnt(DetectorSettings(), network)
    for _ in range(5):
        learnt.of_method("rttmon").learn_one(np.full(network.path_count, 0.1))
        learnt.links.learn_one(np.arange(len(network.links)) / 10)
        learnt.loads.learn_one(np.full(len(network.links), 0.02))
    factors = dict(zip(network.link_names, learnt.links.factor, strict=True))

    def way(of, path):  # type: ignore[no-untyped-def]  # a shorthand
        return [of.link_names[link] for link in of.paths.of(path)]

    kept = np.array([way(network, k) == way(after, k) for k in range(network.path_count)])
    learnt.move_to(after)
    assert 0 < kept.sum() < len(kept)
    assert (learnt.of_method("rttmon").seen == np.where(kept, 5, 0)).all()
    assert dict(zip(after.link_names, learnt.links.factor, strict=True)) == {
        name: factors[name] for name in after.link_names
    }
    over = {name: set(_paths_over(network, name)) for name in after.link_names}
    assert [name for name in after.link_names if learnt.loads.seen[after.link_names.index(name)] == 5] == [
        name for name in after.link_names if over[name] == set(_paths_over(after, name))
    ]
    assert 0 < (learnt.loads.seen == 5).sum() < len(after.links)


def _paths_over(network: Network, link: str) -> list[str]:
    """The paths that a link carries, with their whole way."""
    return [
        f"{network.path_name(k)} {[network.link_names[one] for one in network.paths.of(k)]}"
        for k in range(network.path_count)
        if network.link_names.index(link) in network.paths.of(k)
    ]


def test_a_snapshot_restores_every_detector() -> None:
    """Equal state gives equal bytes after a round trip."""
    network = nsfnet().network(capacities=1e7)
    learnt, copy = Learnt(DetectorSettings(), network), Learnt(DetectorSettings(), network)
    learnt.of_method("rttmon").learn_one(np.linspace(-1, 1, network.path_count))
    learnt.rises.learn_one(np.full(len(network.links), 5.0))
    learnt.loads.learn_one(np.full(len(network.links), 0.02))
    copy.restore(learnt.snapshot())
    assert copy.snapshot() == learnt.snapshot()
