"""What is learnt of one network: what is usual on every path and link, and how it survives a change of
topology.

Series are kept by index while the topology stands and carried over by name when it changes: a path that is
routed otherwise starts over, since its bias belonged to the links it used to cross.

Beside a calibrated twin (:mod:`twin.calibration`) two learn: the calibration learns what the model is
persistently off, so that the prediction comes right; the baselines here learn what is left of it, and how
far it strays. What is usual of one model, or uncorrected, is not usual of another: paths start over.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from anomaly.detectors import Baseline, Cusum, SettledBaseline, Spread
from anomaly.settings import DetectorSettings
from twin.network import Ints, Network

PATH_FLOOR = 0.004  # no path's log residual is steadier than this
LOAD_FLOOR = 0.012  # … and no link's load residual, as a share of capacity
FIRST_LOAD_WIDTH = 0.08
RISE_SLACK, RISE_LIMIT = 1.5, 8.0  # a rise of 4 deviations is told in the 4th window, one of 1.5 never


class LearntSnapshot(msgspec.Struct, array_like=True):
    """All of :class:`Learnt`, deflated by whoever stores it."""

    paths: dict[str, bytes]
    links: bytes
    rises: bytes
    loads: bytes
    basis: str = ""


class Learnt:
    """The detectors of one network under one topology."""

    def __init__(self, settings: DetectorSettings, network: Network) -> None:
        self.settings, self.network = settings, network
        self.basis = ""  # what predicts
        self.paths: dict[str, Baseline] = {}
        memory = settings.memory_windows
        self.links = Spread(len(network.links), memory=memory)
        self.rises = Cusum(len(network.links), slack=RISE_SLACK, limit=RISE_LIMIT)
        self.loads = SettledBaseline(
            len(network.links), first_width=FIRST_LOAD_WIDTH, floor=LOAD_FLOOR, memory=memory
        )

    def of_method(self, method: str) -> Baseline:
        """The baseline of every path's log residual by one method."""
        if method not in self.paths:
            self.paths[method] = Baseline(
                self.network.path_count,
                first_width=self.settings.first_bias_width,
                floor=PATH_FLOOR,
                memory=self.settings.memory_windows,
            )
        return self.paths[method]

    def rest_on(self, basis: str) -> None:
        """Go on beside what predicts now; beside another than before, paths start over."""
        if self.basis not in ("", basis):
            self.paths = {}
        self.basis = basis

    def move_to(self, network: Network) -> None:
        """Go on under another topology with what is still true of it."""
        paths, links = _same_paths(self.network, network), _same_links(self.network, network)
        for detector in self.paths.values():
            detector.follow(paths)
        self.links.follow(links)
        self.rises.follow(links)
        self.loads.follow(np.where(_rerouted(self.network, network, paths), -1, links))
        self.network = network

    def snapshot(self) -> LearntSnapshot:
        """All state."""
        paths = {method: self.paths[method].dump() for method in sorted(self.paths)}
        return LearntSnapshot(
            paths=paths,
            links=self.links.dump(),
            rises=self.rises.dump(),
            loads=self.loads.dump(),
            basis=self.basis,
        )

    def restore(self, snapshot: LearntSnapshot) -> None:
        """Become what :meth:`snapshot` described; the network must be the same."""
        self.basis = snapshot.basis
        for method, blob in snapshot.paths.items():
            self.of_method(method).load(blob)
        self.links.load(snapshot.links)
        self.rises.load(snapshot.rises)
        self.loads.load(snapshot.loads)


def _same_paths(old: Network, new: Network) -> Ints:
    """For every path of ``new`` its index in ``old``; −1 where it did not exist or took other links."""
    before = {name: k for k, name in enumerate(_ways(old))}
    return np.array([before.get(way, -1) for way in _ways(new)], dtype=np.int64)


def _ways(network: Network) -> list[tuple[str, ...]]:
    names, paths = network.link_names, network.paths
    return [(network.path_name(k), *(names[link] for link in paths.of(k))) for k in range(network.path_count)]


def _same_links(old: Network, new: Network) -> Ints:
    before = {name: k for k, name in enumerate(old.link_names)}
    return np.array([before.get(name, -1) for name in new.link_names], dtype=np.int64)


def _rerouted(old: Network, new: Network, origin: Ints) -> NDArray[np.bool_]:
    """Which links of ``new`` other paths cross than before, [L]; ``origin`` as of :func:`_same_paths`."""
    gone = np.ones(old.path_count, np.bool_)
    gone[origin[origin >= 0]] = False
    left = {old.link_names[link] for link in np.unique(old.paths.links[gone[old.paths.hop_path]])}
    come = np.unique(new.paths.links[(origin < 0)[new.paths.hop_path]])
    changed = np.array([name in left for name in new.link_names], dtype=np.bool_)
    changed[come] = True
    return changed
