"""One window ready to be judged: state and prediction side by side, and what of them can be believed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomaly.quality import Distrust, distrust
from anomaly.residuals import Expectation, Residual, residual
from twin.equal_routes import spread
from twin.errors import DecodeError
from twin.graph_view import MeasuredQueues, StateView
from twin.network import Floats, Network, Traffic
from twin.packing import unpack_magnitudes
from twin.queueing import MG1K, LinkQueues
from twin.records import Prediction


@dataclass(frozen=True)
class Window:
    """What the judges look at."""

    network: Network
    traffic: Traffic
    window_s: float
    queues: LinkQueues  # what the queueing model makes of the traffic, link by link
    load_bps: Floats  # [L] measured
    drops_pps: Floats  # [L]
    class_queues: MeasuredQueues
    counted: NDArray[np.bool_]  # [L] the counters are to be believed
    residuals: tuple[Residual, ...]  # one per measuring method, by name
    distrust: Distrust
    out_of_range: bool

    @property
    def methods(self) -> tuple[str, ...]:
        """The measuring methods, in the order of the residuals."""
        return tuple(part.method for part in self.residuals)


def window_of(view: StateView, prediction: Prediction) -> Window:
    """Unpack and compare. The caller has checked that both speak of the same version and topology."""
    network, traffic = view.network, view.traffic
    doubt, expected = distrust(network, view.quality), _expectation(prediction, network.path_count)
    parts = [
        residual(
            network,
            traffic,
            expected,
            method,
            measured,
            distrusted=doubt.delays(method, measured.direction),
        )
        for method, measured in sorted(view.delays.items())
    ]
    return Window(
        network=network,
        traffic=traffic,
        window_s=(view.window_end_ns - view.window_start_ns) / 1e9,
        queues=MG1K().solve(*spread(network, traffic)),
        load_bps=view.link_load_bps,
        drops_pps=view.link_drops_pps,
        class_queues=view.queues,
        counted=(view.link_measured > 0) & ~doubt.counters,
        residuals=tuple(parts),
        distrust=doubt,
        out_of_range=bool(prediction.out_of_range),
    )


def _expectation(prediction: Prediction, paths: int) -> Expectation:
    packed = (prediction.mean_s, prediction.log_width, prediction.jitter_s)
    arrays = [unpack_magnitudes(blob) for blob in packed]
    if any(len(array) != paths for array in arrays):
        raise DecodeError(f"prediction of state {prediction.state_version} is not about {paths} paths")
    return Expectation(*arrays)
