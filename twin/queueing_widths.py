"""How far the queueing models are off: tables, by size of the network, and by policy and load of the most
loaded link on a flow's way.

An interval is to hold what is measured at :data:`twin.intervals.COVERAGE`. Its half-width on ln(queueing +
transmission) is a figure of the table, the model's own part, and the sampling noise of the mean, as root of
the sum of squares. The tables were made by :func:`measure` from the calibration slices of the recipe
"universal-3" (:mod:`twin.recipes`), on which nothing was fitted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np

from twin.intervals import Intervals, conformal, group_of, sampling_noise
from twin.models import PathPrediction
from twin.network import Floats, Ints, Network, Traffic
from twin.samples import Sample

LEAST = 0.01  # no model is surer than this
# By size of the network, policy (FIFO, SP, WFQ, DRR), and load up to each of LOAD_EDGES and beyond.
MG1K_INTERVALS = Intervals(
    (
        (  # up to 25 nodes
            (0.010, 0.031, 0.108, 0.210, 0.243, 0.156),
            (0.031, 0.064, 0.107, 0.235, 0.355, 0.228),
            (0.030, 0.055, 0.093, 0.214, 0.307, 0.201),
            (0.028, 0.067, 0.138, 0.270, 0.504, 0.388),
        ),
        (  # 50
            (0.011, 0.021, 0.054, 0.083, 0.189, 0.122),
            (0.020, 0.044, 0.089, 0.179, 0.343, 0.202),
            (0.026, 0.048, 0.056, 0.116, 0.485, 0.193),
            (0.021, 0.047, 0.069, 0.327, 0.710, 0.310),
        ),
        (  # 100
            (0.021, 0.029, 0.036, 0.058, 0.114, 0.132),
            (0.025, 0.041, 0.067, 0.102, 0.182, 0.178),
            (0.022, 0.036, 0.060, 0.120, 0.185, 0.172),
            (0.025, 0.038, 0.064, 0.131, 0.278, 0.303),
        ),
        (  # 200
            (0.012, 0.026, 0.036, 0.052, 0.084, 0.222),
            (0.023, 0.033, 0.039, 0.060, 0.164, 0.178),
            (0.020, 0.031, 0.036, 0.050, 0.185, 0.173),
            (0.023, 0.030, 0.036, 0.067, 0.251, 0.303),
        ),
        (  # more
            (0.019, 0.021, 0.029, 0.052, 0.084, 0.222),
            (0.020, 0.027, 0.033, 0.060, 0.164, 0.178),
            (0.021, 0.027, 0.032, 0.050, 0.185, 0.173),
            (0.019, 0.026, 0.035, 0.067, 0.251, 0.303),
        ),
    )
)
MM1B_INTERVALS = Intervals(
    (
        (  # up to 25 nodes
            (0.071, 0.182, 0.325, 0.483, 0.588, 0.326),
            (0.143, 0.282, 0.509, 0.827, 1.316, 2.210),
            (0.141, 0.289, 0.490, 0.875, 1.396, 2.081),
            (0.129, 0.273, 0.466, 0.694, 1.089, 1.707),
        ),
        (  # 50
            (0.097, 0.180, 0.313, 0.514, 0.517, 0.356),
            (0.130, 0.249, 0.498, 0.804, 1.484, 2.321),
            (0.122, 0.245, 0.470, 0.771, 1.619, 1.873),
            (0.126, 0.227, 0.394, 0.588, 0.970, 1.700),
        ),
        (  # 100
            (0.132, 0.216, 0.323, 0.443, 0.476, 0.308),
            (0.130, 0.248, 0.433, 0.637, 1.190, 1.967),
            (0.134, 0.251, 0.433, 0.717, 1.123, 1.892),
            (0.135, 0.237, 0.358, 0.514, 0.811, 1.444),
        ),
        (  # 200
            (0.127, 0.215, 0.308, 0.406, 0.333, 0.599),
            (0.134, 0.245, 0.355, 0.640, 1.134, 1.967),
            (0.130, 0.246, 0.376, 0.575, 1.123, 1.790),
            (0.133, 0.213, 0.322, 0.452, 0.642, 1.444),
        ),
        (  # more
            (0.123, 0.201, 0.321, 0.406, 0.333, 0.599),
            (0.130, 0.212, 0.374, 0.640, 1.134, 1.967),
            (0.128, 0.222, 0.393, 0.575, 1.123, 1.790),
            (0.125, 0.202, 0.314, 0.452, 0.642, 1.444),
        ),
    )
)


class Judged(Protocol):
    """A queueing model that tells where its errors come from."""

    def parts(self, network: Network, traffic: Traffic) -> tuple[PathPrediction, Floats, Ints, Floats]:
        """Prediction, propagation (s), and policy and load of the bottleneck of every flow."""
        ...


def measure(model: Judged, samples: Iterable[Sample]) -> Intervals:
    """The table of a model, from samples that it was not fitted to."""
    groups, scores, networks = [], [], []
    for number, sample in enumerate(samples):
        said, fixed, policy, load = model.parts(sample.network, sample.traffic)
        queueing, measured = said.mean_s - fixed, sample.mean_s - fixed
        packets = sample.traffic.pps * (sample.traffic.observed_s or 0.0)
        noise = sampling_noise(said.jitter_s, queueing, packets)
        known = sample.labelled & (queueing > 0) & (measured > 0)
        error = np.log(queueing[known] / measured[known])
        scores.append(np.sqrt(np.maximum(error**2 - noise[known] ** 2, 0.0)))
        groups.append(group_of(len(sample.network.nodes), policy, load)[known])
        networks.append(np.full(int(known.sum()), number))
    return conformal(*(np.concatenate(part) for part in (groups, scores, networks)), least=LEAST)
