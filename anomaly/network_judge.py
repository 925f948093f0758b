"""All that is judged about one network, window by window: links down, telemetry, delays, loads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from anomaly.alerts import Incident, LifeCycle, WindowStamp
from anomaly.findings import Finding, Judgement
from anomaly.judge import judge_delays
from anomaly.learnt import Learnt, LearntSnapshot
from anomaly.loads import judge_loads
from anomaly.quality import telemetry_findings
from anomaly.settings import DetectorSettings
from anomaly.window import window_of
from twin.graph_view import StateView
from twin.network import Network
from twin.packing import pack_integers, pack_magnitudes
from twin.records import Alert, Prediction, StateUpdate, Suspect, TopologyRecord

DIVERGENCES = frozenset(["delay-divergence", "load-divergence"])


class NetworkJudge:
    """Not thread-safe; give it the windows of one network in the order of their versions."""

    def __init__(self, settings: DetectorSettings, network: str) -> None:
        self.settings, self.network = settings, network
        self.view = StateView()
        self.learnt: Learnt | None = None
        self.cycle = LifeCycle(settings)
        self.known_links: dict[str, int] = {}  # link → version at which it was last seen up
        self._topology: TopologyRecord | None = None

    def judge(self, update: StateUpdate, prediction: Prediction | None) -> list[Alert]:
        """The alerts that follow from one window; DecodeError when it cannot be read."""
        self.view.apply(update)
        self._topology = update.topology or self._topology
        if self.learnt is not None and self.learnt.network is not self.view.network:
            self.learnt.move_to(self.view.network)
        stamp = WindowStamp(self.network, update.version, update.window_start_ns, update.window_end_ns)
        told = [*self._links_down(update.version), *telemetry_findings(self.view.network, update.quality)]
        divergences = self._divergences(prediction)
        findings = (*told, *divergences.findings)
        return self.cycle.advance(stamp, Judgement(findings, divergences.lingering, divergences.blind))

    def _divergences(self, prediction: Prediction | None) -> Judgement:
        if prediction is None or not self._settled(prediction):
            return Judgement(blind=DIVERGENCES)
        self.learnt = learnt = self.learnt or Learnt(self.settings, self.view.network)
        learnt.rest_on(f"{prediction.model} {prediction.model_version} {prediction.corrected}")
        window = window_of(self.view, prediction)
        scope = self.cycle.open_scope
        delays = judge_delays(self.settings, learnt, window, scope)
        loads = judge_loads(self.settings, learnt, window, scope.union(*(f.scope for f in delays.findings)))
        findings = _joined(delays.findings, loads.findings)
        return Judgement(findings, delays.lingering | loads.lingering, delays.blind | loads.blind)

    def _settled(self, prediction: Prediction) -> bool:
        """Routing is converging in the window in which it changed and in the next: nothing is comparable.

        Nor while a calibration is young: its first windows move the prediction by whatever the model is off.
        """
        age = self.view.version - self.view.topology_version
        same = prediction.topology_version == self.view.topology_version
        young = bool(prediction.calibration) and prediction.windows_learnt < self.settings.young_windows
        return same and age >= self.settings.settle_windows and not young and len(self.view.network.links) > 0

    # ------------------------------------------------------------------ links down

    def _links_down(self, version: int) -> list[Finding]:
        network = self.view.network
        up = {name for name, link in zip(network.link_names, network.links, strict=True) if link.up}
        self.known_links |= dict.fromkeys(sorted(up), version)
        oldest = version - self.settings.forget_windows
        self.known_links = {name: seen for name, seen in self.known_links.items() if seen >= oldest}
        down = {name for name in self.known_links if name not in up and _both_ends(name, network)}
        return [_down(pair) for pair in sorted({_pair(name) for name in down})]

    # ------------------------------------------------------------------ to bytes and back

    def remembered_topology(self) -> StateUpdate | None:
        """The newest update with its topology and without its figures: what the next delta needs."""
        if self._topology is None:
            return None
        network, view = self.view.network, self.view
        links, paths = (pack_magnitudes(np.zeros(n)) for n in (len(network.links), network.path_count))
        return StateUpdate(
            network=self.network,
            version=view.version,
            window_start_ns=view.window_start_ns,
            window_end_ns=view.window_end_ns,
            keyframe=True,
            topology_version=view.topology_version,
            topology=self._topology,
            link_load_bps=links,
            link_load_pps=links,
            link_drops_pps=links,
            link_measured=pack_integers(np.zeros(len(network.links), dtype=np.int8), np.int8),
            traffic_bps=paths,
            traffic_pps=paths,
        )

    def restore(
        self,
        topology: StateUpdate | None,
        learnt: LearntSnapshot | None,
        incidents: list[Incident],
        known_links: dict[str, int],
    ) -> None:
        """Become what was described."""
        self.cycle.incidents, self.known_links = incidents, known_links
        if topology is None:
            return
        self.view.apply(topology)
        self._topology = topology.topology
        if learnt is not None:
            self.learnt = Learnt(self.settings, self.view.network)
            self.learnt.restore(learnt)


def _joined(delays: tuple[Finding, ...], loads: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """A path that takes another way shifts load: what the loads say beside it is part of the same finding."""
    moved = [k for k, finding in enumerate(delays) if finding.suspects[0].kind == "path"]
    if not moved or not loads:
        return delays + loads
    first = delays[moved[0]]
    scope = first.scope.union(*(finding.scope for finding in loads))
    suspects = first.suspects + tuple(one for finding in loads for one in finding.suspects)
    both = replace(first, scope=scope, suspects=suspects)
    return (*delays[: moved[0]], both, *delays[moved[0] + 1 :])


def _ends(name: str) -> tuple[str, str]:
    source, _, rest = name.partition("->")
    return source, rest.partition("@")[0]


def _both_ends(name: str, network: Network) -> bool:
    return all(end in network.node_index for end in _ends(name))


def _pair(name: str) -> tuple[str, str]:
    source, target = _ends(name)
    return min(source, target), max(source, target)


def _down(pair: tuple[str, str]) -> Finding:
    a, b = pair
    told = "reported down, or no longer reported, by the devices at its ends"
    names = (f"{a}->{b}", f"{b}->{a}")
    suspects = tuple(
        Suspect(kind="link", target=name, hypothesis="link-down", probability=1.0, evidence=told)
        for name in names
    )
    return Finding("link-down", frozenset(names), suspects, f"link {a} – {b} is down", severity="critical")
