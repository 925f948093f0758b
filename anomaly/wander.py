"""How far the mean delay of a healthy link strays in one window: the scale on which a rise is judged.

Theory
------
The mean wait over a window of T seconds is itself random. For M/M/1 its variance is, for large T (Whitt,
"Planning queueing simulations", Management Science 35, 1989, table 1, turned from queue length into wait),

    Var = σ_W² · 2(1 + ρ) / ((2 − ρ)(1 − ρ)²) · s / T,        at most σ_W² itself,

s being the mean service time. To it come the error of the load as measured, ε, which a queue amplifies by
W/(1 − ρ), and the error of the model's wait. All three grow steeply with ρ, so that a busy link has to rise
by more to be noticed. What is missing here (bursts) is learnt on top by :class:`anomaly.detectors.Spread`.
"""

from __future__ import annotations

import numpy as np

from twin.network import Floats
from twin.queueing import LinkQueues

LOAD_ERROR = 0.06  # of the load: window edges, sampling, and bursts that come and go within a window
MODEL_ERROR = 0.08  # of the wait
FLOOR = 0.02  # of the transmission time: clocks and rounding
_BUSIEST = 0.98  # beyond it the formula says nothing


def link_wander_s(queues: LinkQueues, window_s: float) -> Floats:
    """Standard deviation [L] of every link's mean delay over one window."""
    load = np.minimum(queues.load, _BUSIEST)
    spare = 1.0 - load
    correlation = 2 * (1 + load) / ((2 - load) * spare**2) * queues.service_s / window_s
    sampling = queues.wait_std_s * np.sqrt(np.minimum(correlation, 1.0))
    amplified = LOAD_ERROR * queues.wait_s / spare
    model = MODEL_ERROR * queues.wait_s
    wander: Floats = np.sqrt(sampling**2 + amplified**2 + model**2) + FLOOR * queues.service_s
    return np.maximum(wander, 1e-6)
