"""Is the calibration worth having? Windows in a row, each predicted, compared, and then learnt from.

The windows are any samples of one network in the order of time; :func:`lab_windows` makes those of the
simulated lab whose truth differs from what the twin is told, :func:`lab_figures` the errors on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from twin.calibration import Calibration, CalibrationRules, Reading
from twin.dataset import MIN_PACKETS
from twin.graph_view import MeasuredDelays
from twin.models import DelayModel
from twin.network import Floats, Network, Traffic
from twin.samples import Sample
from twin.scenarios import LAB_SIZES
from twin.simulator import Simulator
from twin.topologies import nsfnet
from twin.traffic import TrafficCycle, lab_scenario, path_flows
from twin.workload import POISSON, Arrivals

WINDOW_S = 10.0
WARM_UP_S = 5.0


@dataclass(frozen=True)
class Step:
    """One window: errors |predicted ÷ measured − 1| over the measured flows, before it was learnt from."""

    median_raw: float  # of the model alone
    median: float  # corrected by what earlier windows taught
    mean_raw: float
    mean: float
    covered_raw: float  # share of the flows within the model's interval
    covered: float


def calibrate_samples(
    model: DelayModel,
    samples: Iterable[Sample],
    *,
    calibration: Calibration | None = None,
    rules: CalibrationRules | None = None,
    frozen: Callable[[int], bool] = lambda _: False,
) -> tuple[list[Step], Calibration | None]:
    """Predict and learn window by window; the errors, and what was learnt (None without a window).

    Networks may differ from sample to sample: links are followed by name. ``frozen`` tells of a window's
    number whether it must not be learnt from.
    """
    steps = []
    for number, sample in enumerate(samples):
        if calibration is None:
            calibration = Calibration(sample.network, rules)
        said = model.predict(sample.network, sample.traffic)
        window = calibration.correct(sample.network, sample.traffic, said)
        raw, own = _errors(sample, said.mean_s), _errors(sample, window.prediction.mean_s)
        steps.append(
            Step(
                median_raw=float(np.median(np.abs(np.expm1(raw)))),
                median=float(np.median(np.abs(np.expm1(own)))),
                mean_raw=float(np.abs(np.expm1(raw)).mean()),
                mean=float(np.abs(np.expm1(own)).mean()),
                covered_raw=float((np.abs(raw) <= said.log_width[sample.labelled]).mean()),
                covered=float((np.abs(own) <= window.prediction.log_width[sample.labelled]).mean()),
            )
        )
        readings = [Reading(MeasuredDelays("one-way", sample.mean_s, sample.count), sample.labelled)]
        calibration.learn(window, readings, frozen=frozen(number))
    return steps, calibration


def _errors(sample: Sample, mean_s: Floats) -> Floats:
    """ln(predicted ÷ measured) of the measured flows."""
    measured = sample.labelled
    errors: Floats = np.log(np.maximum(mean_s[measured], 1e-12) / sample.mean_s[measured])
    return errors


# ------------------------------------------------------------------------------------------ the lab


def lab_figures(
    model: DelayModel,
    after: tuple[int, ...] = (0, 10, 30, 100),
    *,
    seed: int = 1,
    mistold: Mistold | None = None,
) -> dict[int, Step]:
    """The errors in the window that follows so many learnt ones: ``lab_figures(MG1K())``, 10 s of work."""
    steps, _ = calibrate_samples(model, lab_windows(max(after) + 1, seed=seed, mistold=mistold))
    return {learnt: steps[learnt] for learnt in after}


@dataclass(frozen=True)
class Mistold:
    """What the twin is told wrongly of the lab."""

    propagation_known: bool = False
    capacity_factor: float = 0.9  # the true capacity of some links ÷ what the twin is told
    every: int = 4  # every so manieth link


@dataclass(frozen=True)
class LinkFault:
    """An extra delay on one link for some windows."""

    link: int
    extra_s: float
    first: int  # window
    windows: int


def lab_windows(
    windows: int,
    *,
    seed: int = 1,
    mistold: Mistold | None = None,
    arrivals: Arrivals = POISSON,
    fault: LinkFault | None = None,
) -> Iterator[Sample]:
    """The lab's network in windows of 10 s, as the twin is told of it and as its flows were measured."""
    truth, mean = lab_scenario(nsfnet(), seed=seed)
    told, truth = _told(truth, mistold or Mistold())
    flows = path_flows(truth, mean, LAB_SIZES, arrivals)
    simulator, cycle = Simulator(truth, flows, seed=seed), TrafficCycle(len(flows), seed)
    simulator.set_rates(mean.pps * cycle.multipliers(0.0))
    simulator.advance(WARM_UP_S)
    simulator.take_delays()
    before = _sent(simulator)
    for window in range(windows):
        if fault is not None:
            lasts = fault.first <= window < fault.first + fault.windows
            simulator.set_link(fault.link, extra_delay_s=fault.extra_s if lasts else 0.0)
        start_s = WARM_UP_S + window * WINDOW_S
        for second in range(int(WINDOW_S)):
            simulator.set_rates(mean.pps * cycle.multipliers(start_s + second))
            simulator.advance(start_s + second + 1.0)
        after = _sent(simulator)
        yield _sample(told, simulator, (after - before) / WINDOW_S, f"lab {seed}, window {window}")
        before = after


def _told(truth: Network, mistold: Mistold) -> tuple[Network, Network]:
    """(what the twin is told, what is true)."""
    true_links, told_links = [], []
    for number, link in enumerate(truth.links):
        factor = mistold.capacity_factor if number % mistold.every == 0 else 1.0
        true_links.append(replace(link, capacity_bps=factor * link.capacity_bps))
        known = link.propagation_delay_s if mistold.propagation_known else 0.0
        told_links.append(replace(link, propagation_delay_s=known))
    return replace(truth, links=tuple(told_links)), replace(truth, links=tuple(true_links))


def _sent(simulator: Simulator) -> Floats:
    """Cumulative octets and packets sent, [2, F]."""
    return np.array([simulator.sent_octets, simulator.sent_packets], dtype=np.float64)


def _sample(told: Network, simulator: Simulator, rates: Floats, name: str) -> Sample:
    delays = simulator.take_delays()
    labelled = delays.count >= MIN_PACKETS
    nothing = np.zeros(len(delays.count))
    return Sample(
        name=name,
        network=told,
        traffic=Traffic(bps=8 * rates[0], pps=rates[1]),
        mean_s=np.where(labelled, delays.mean_s, 0.0),
        std_s=np.where(labelled, delays.std_s, 0.0),
        loss=nothing,
        count=np.where(labelled, delays.count, 0).astype(np.float64),
        noise=nothing,
    )
