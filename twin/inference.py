"""A trained RouteNet as a delay model: on a CPU without torch, on CUDA through the module of the paper.

The arithmetic is in :mod:`twin.inference_cpu`; here a state becomes features, and sums over hops become
delay, jitter, loss and an interval (:mod:`twin.inference_conclude`)."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np

from twin.checkpoint import Checkpoint, read_checkpoint
from twin.chunks import each_chunk
from twin.errors import CheckpointError
from twin.features import Features, Prior, build_features, operating_point
from twin.inference_conclude import JITTER_S, LOG_WIDTH, LOSS, MEAN_S, PREDICTED, conclude, expect
from twin.inference_cpu import CpuForward, Said, fits
from twin.intervals import LOAD_EDGES, SIZE_EDGES
from twin.models import PathPrediction
from twin.network import Floats, Ints, Network, Traffic
from twin.queueing import MG1K, LinkQueues
from twin.unqueued import Unqueued

PRIORS: dict[str, Callable[[float], Prior]] = {
    "mg1k": lambda size_scv: MG1K(size_scv=size_scv),
    "unqueued": Unqueued,
}
Forward = Callable[[Features], Said]


class RouteNet:
    """A trained network as a delay model; ``device``: cpu (any number of threads) or cuda (needs torch)."""

    def __init__(self, checkpoint: Checkpoint, *, device: str = "cpu", threads: int | None = None) -> None:
        self.checkpoint = checkpoint
        self.name = checkpoint.config.name
        self.version = f"{checkpoint.provenance.recipe}-{checkpoint.digest}"
        self.prior = prior_of(checkpoint)
        self.threads = threads or os.cpu_count() or 1
        self.forward = _forward(checkpoint, device, self.threads)

    def predict(self, network: Network, traffic: Traffic) -> PathPrediction:
        """Predict all flows; where there is no route at all, zeros."""
        features = build_features(network, traffic, self.prior, threads=self.threads)
        predicted = np.empty((PREDICTED, len(features.flow)))
        everyone = np.arange(len(features.flow))
        self.conclude(everyone, network, traffic, features, self.forward(features), predicted)
        odd = self.out_of_range(network, features.queues)
        return self.prediction(features.queues, predicted, odd)

    def expect(self, features: Features) -> tuple[Floats, Floats, Floats]:
        """Of every flow: queueing + transmission (s), the error to expect of its logarithm, jitter (s)."""
        said = self.forward(features)
        flows = np.arange(len(said.ln_scale))
        queueing, scale = np.empty(len(flows)), np.empty(len(flows))
        expect(flows, said.waits_s, features.transmission_s, said.ln_scale, queueing, scale)
        jitter = np.sqrt(said.variance_s2 + features.size_scv * features.transmission_s**2)
        return queueing, scale, jitter

    def conclude(
        self,
        flows: Ints,
        network: Network,
        traffic: Traffic,
        features: Features,
        said: Said,
        predicted: Floats,
    ) -> None:
        """Fill in delay, jitter, loss and width of the interval of ``flows``, [PREDICTED, F]."""
        size = np.searchsorted(SIZE_EDGES, len(network.nodes))
        quantile = np.array(self.checkpoint.intervals.quantile[int(size)])
        seconds = traffic.observed_s
        packets = np.zeros(0) if seconds is None else traffic.pps * seconds
        edges = np.array(LOAD_EDGES)

        def run(_: int, low: int, high: int) -> None:
            conclude(
                flows[low:high], features.hops.offsets, said.waits_s, said.variance_s2, said.ln_survival,
                said.ln_scale, features.transmission_s, features.propagation_s, features.size_scv,
                features.bottleneck, features.worst_load, edges, quantile, packets, predicted,
            )  # fmt: skip

        each_chunk(len(flows), self.threads, run)

    @staticmethod
    def prediction(queues: LinkQueues, predicted: Floats, odd: tuple[str, ...]) -> PathPrediction:
        """Together with what links tell, and why the state is out of range, if it is."""
        return PathPrediction(
            mean_s=predicted[MEAN_S],
            jitter_s=predicted[JITTER_S],
            loss=predicted[LOSS],
            log_width=predicted[LOG_WIDTH],
            link_utilisation=queues.utilisation,
            out_of_range=odd,
        )

    def out_of_range(self, network: Network, queues: LinkQueues) -> tuple[str, ...]:
        """Why a state lies outside what the model has seen, if it does."""
        return self.checkpoint.safe_range.violations(operating_point(network, queues))


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


def _forward(checkpoint: Checkpoint, device: str, threads: int) -> Forward:
    if device == "cpu" and fits(checkpoint.config):
        return CpuForward(checkpoint, threads)
    from twin.routenet import TorchForward  # torch: for CUDA, and for other sizes than the kernel's

    return TorchForward(checkpoint, device)
