"""A trained RouteNet as a delay model: on a CPU without torch, on CUDA through the module of the paper.

The arithmetic is in :mod:`twin.inference_cpu`; here a state becomes features, and sums over hops become
delay, jitter, loss and an interval."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np

from twin.checkpoint import Checkpoint, read_checkpoint
from twin.errors import CheckpointError
from twin.features import Features, Prior, build_features, operating_point
from twin.inference_cpu import CpuForward, Said, fits
from twin.intervals import group_of
from twin.models import PathPrediction
from twin.network import Floats, Network, Traffic
from twin.queueing import MG1K, interval_width
from twin.unqueued import Unqueued

PRIORS: dict[str, Callable[[float], Prior]] = {
    "mg1k": lambda size_scv: MG1K(size_scv=size_scv),
    "unqueued": Unqueued,
}
LEAST_S = 1e-300


Forward = Callable[[Features], Said]


class RouteNet:
    """A trained network as a delay model; ``device``: cpu (any number of threads) or cuda (needs torch)."""

    def __init__(self, checkpoint: Checkpoint, *, device: str = "cpu", threads: int | None = None) -> None:
        self.checkpoint = checkpoint
        self.name = checkpoint.config.name
        self.version = f"{checkpoint.provenance.recipe}-{checkpoint.digest}"
        self.prior = prior_of(checkpoint)
        self.forward = _forward(checkpoint, device, threads)

    def predict(self, network: Network, traffic: Traffic) -> PathPrediction:
        """Predict all flows; where there is no route at all, zeros."""
        features = build_features(network, traffic, self.prior)
        return self.conclude(network, features, self.forward(features))

    def expect(self, features: Features) -> tuple[Floats, Floats]:
        """Queueing + transmission of every flow (s), and the error to expect of its logarithm: [F] each.

        What the network expects of itself, and how far the heads of its ensemble are apart.
        """
        return self._expected(features, self.forward(features))

    def _expected(self, features: Features, said: Said) -> tuple[Floats, Floats]:
        queueing = said.waits_s + features.transmission_s[:, None]
        apart = np.log(np.maximum(queueing, LEAST_S)).std(axis=1)
        return queueing.mean(axis=1), np.hypot(np.exp(said.ln_scale), apart)

    def conclude(self, network: Network, features: Features, said: Said) -> PathPrediction:
        """From sums over hops to delay, jitter, loss and interval of every flow."""
        routed = features.routed
        queueing, scale = self._expected(features, said)
        group = group_of(len(network.nodes), features.bottleneck, features.worst_load)
        half = self.checkpoint.intervals.half_width(group, scale)
        variance = said.variance_s2 + features.size_scv * features.transmission_s**2
        return PathPrediction(
            mean_s=np.where(routed, queueing + features.propagation_s, 0.0),
            jitter_s=np.where(routed, np.sqrt(variance), 0.0),
            loss=np.where(routed, -np.expm1(said.ln_survival), 0.0),
            log_width=np.where(routed, interval_width(queueing, features.propagation_s, half), 0.0),
            link_utilisation=features.queues.utilisation,
            out_of_range=self.checkpoint.safe_range.violations(operating_point(network, features.queues)),
        )


def load(
    path: Path | None = None, *, name: str = "routenet", device: str = "cpu", threads: int | None = None
) -> RouteNet:
    """The model of a checkpoint file; without one, the model ``name`` that is shipped with the package."""
    return RouteNet(read_checkpoint(path or shipped(name)), device=device, threads=threads)


def shipped(name: str) -> Path:
    """The file of a checkpoint that comes with the package: routenet, rnn, testbed."""
    return Path(str(resources.files("twin") / "weights" / f"{name}.npz"))


def prior_of(checkpoint: Checkpoint) -> Prior:
    """The queueing model that the network was trained to correct."""
    known = PRIORS.get(checkpoint.config.prior)
    if known is None:
        raise CheckpointError(
            f"the checkpoint corrects {checkpoint.config.prior!r}, which is unknown: train anew"
        )
    return known(checkpoint.size_scv)


def _forward(checkpoint: Checkpoint, device: str, threads: int | None) -> Forward:
    if device == "cpu" and fits(checkpoint.config):
        return CpuForward(checkpoint, threads or os.cpu_count() or 1)
    from twin.routenet import TorchForward  # torch: for CUDA, and for other sizes than the kernel's

    return TorchForward(checkpoint, device)
