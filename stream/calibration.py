"""Every live network's calibration: what its windows teach the twin, and how that survives a restart.

One window (:meth:`Calibrations.predict`)
-----------------------------------------
1. What the model said is corrected by what earlier windows taught: that is the prediction, where corrections
   have proved better than the model.
2. The window's own measurements teach; the state after that travels in the prediction.

So the state after window v is always known from the log: whoever starts later asks :meth:`resume` for it. It
takes the place of whatever is here once v is over: with v's own topology where v is seen
(:meth:`Calibrations.passed`), else before the next window. Live, v is the newest window predicted; a replay
learns anew in its warm-up and then takes over what was known just before its range.

Open alerts do not stop the learning, since a processor that waited for them would depend on how two topics
interleave (law 1). What keeps faults out is the gate of :class:`twin.calibration.Calibration`, and this:

- what the state's quality flags put in doubt (:func:`anomaly.quality.distrust`) is not learnt from;
- the window in which routing changed and the next are not learnt from: paths are not what the state says.
"""

from __future__ import annotations

import msgspec
import numpy as np

from anomaly.quality import distrust
from twin.calibration import Calibration, CalibrationRules, Corrected, Reading
from twin.compare import reverse_paths
from twin.equal_routes import crossings
from twin.errors import DecodeError
from twin.graph_view import StateView
from twin.models import PathPrediction
from twin.network import Network

SETTLE_WINDOWS = 2  # as many as the detector waits by default


class Known(msgspec.Struct, array_like=True, frozen=True):
    """What was known after one window, as a prediction carries it."""

    version: int
    blob: bytes


class CalibrationsSnapshot(msgspec.Struct, array_like=True):
    """All of :class:`Calibrations`."""

    own: dict[str, bytes]
    awaited: dict[str, list[Known]]


class Calibrations:
    """By network."""

    def __init__(self, rules: CalibrationRules) -> None:
        self.refused = 0  # states in the log that could not be read: those networks start afresh
        self._rules = rules
        self._own: dict[str, Calibration] = {}
        self._awaited: dict[str, list[Known]] = {}  # oldest first

    def resume(self, network: str, known: Known) -> None:
        """Once the window of ``known`` is over, go on from it."""
        awaited = [*self._awaited.get(network, []), known]
        self._awaited[network] = sorted(awaited, key=lambda one: one.version)

    def predict(self, name: str, view: StateView, said: PathPrediction) -> Corrected:
        """The two steps above; :meth:`known` is the state after them."""
        self._take_over(name, view.version - 1, view.network)
        own = self._own.get(name)
        if own is None:
            own = self._own[name] = Calibration(view.network, self._rules)
        window = own.correct(view.network, view.traffic, said)  # 1
        settling = view.version - view.topology_version < SETTLE_WINDOWS
        own.learn(window, readings_of(view), frozen=settling)  # 2
        self.passed(name, view)
        return window

    def passed(self, name: str, view: StateView) -> None:
        """A window is over, predicted here or before."""
        self._take_over(name, view.version, view.network)

    def known(self, name: str) -> bytes:
        """The state of a network that was predicted."""
        return self._own[name].dump()

    def _take_over(self, name: str, version: int, network: Network) -> None:
        """Become the newest of what was awaited up to a version."""
        awaited = self._awaited.get(name, [])
        due = [known for known in awaited if known.version <= version]
        if not due:
            return
        self._awaited[name] = awaited[len(due) :]
        self._load(name, due[-1].blob, network)

    def _load(self, name: str, blob: bytes, network: Network) -> None:
        try:
            self._own[name] = Calibration.load(blob, network, self._rules)
        except DecodeError:
            self.refused += 1
            self._own.pop(name, None)

    # ------------------------------------------------------------------ to bytes and back

    def snapshot(self) -> CalibrationsSnapshot:
        """All state; :meth:`restore` needs the networks it belongs to."""
        return CalibrationsSnapshot({name: self.known(name) for name in sorted(self._own)}, self._awaited)

    def restore(self, snapshot: CalibrationsSnapshot, networks: dict[str, Network]) -> None:
        """Become what :meth:`snapshot` described."""
        self._own, self._awaited = {}, dict(snapshot.awaited)
        for name, blob in snapshot.own.items():
            self._load(name, blob, networks[name])


def readings_of(view: StateView) -> list[Reading]:
    """The measurements of a window, and of which paths they can be believed."""
    network, doubt = view.network, distrust(view.network, view.quality)
    paths, _ = crossings(network)
    doubtful = np.bincount(paths.hop_path, doubt.links[paths.links], minlength=network.path_count) > 0
    back = reverse_paths(len(network.nodes))
    readings = []
    for method, measured in sorted(view.delays.items()):
        untrusted = doubtful | doubt.delays(method, measured.direction)
        if measured.direction == "round-trip":
            untrusted |= doubtful[back]
        readings.append(Reading(measured, ~untrusted))
    return readings
