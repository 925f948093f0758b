"""What online calibration is worth and costs: the simulated lab with nobody telling its propagation.

Errors are those of the window that follows so many learnt ones, before that window is learnt from.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from twin.calibration import Calibration, Reading
from twin.calibration_trial import LinkFault, Step, calibrate_samples, lab_figures, lab_windows
from twin.graph_view import MeasuredDelays
from twin.models import DelayModel
from twin.network import Network, Traffic
from twin.queueing import MG1K
from twin.topologies import power_law
from twin.traffic import lab_scenario

AFTER = (0, 10, 30, 100)  # windows
FAULT = LinkFault(link=7, extra_s=0.005, first=50, windows=20)
PACKETS = 100.0  # measured of every path in a window


def bench_calibration(
    models: Mapping[str, DelayModel],
    nodes: int = 300,
    *,
    after: tuple[int, ...] = AFTER,
    fault: LinkFault = FAULT,
) -> dict[str, Any]:
    """Errors by model and windows learnt, what was learnt of a fault, what a window of ``nodes`` costs."""
    return {
        "lab": {name: _errors(model, after) for name, model in models.items()},
        "fault": _fault(fault),
        "nodes": nodes,
        **_cost(*lab_scenario(power_law(nodes, seed=1), seed=1)),
    }


def _errors(model: DelayModel, after: tuple[int, ...]) -> dict[str, dict[str, float]]:
    return {str(learnt): _figures(step) for learnt, step in lab_figures(model, after).items()}


def _figures(step: Step) -> dict[str, float]:
    """In %, as `ndtwin evaluate` gives them."""
    return {
        "median_ape_uncalibrated": 100 * step.median_raw,
        "median_ape": 100 * step.median,
        "mape_uncalibrated": 100 * step.mean_raw,
        "mape": 100 * step.mean,
        "coverage90_uncalibrated": 100 * step.covered_raw,
        "coverage90": 100 * step.covered,
    }


def _fault(fault: LinkFault) -> dict[str, float]:
    """How far the faulty link, and the others, were moved by all windows of the fault."""
    windows = list(lab_windows(fault.first + fault.windows, fault=fault))
    _, calibration = calibrate_samples(MG1K(), windows[: fault.first])
    assert calibration is not None
    before = calibration.links.offset_s
    calibrate_samples(MG1K(), windows[fault.first :], calibration=calibration)
    moved = np.abs(calibration.links.offset_s - before)
    return {
        "extra_s": fault.extra_s,
        "windows": fault.windows,
        "learnt_s": float(moved[fault.link]),
        "learnt_elsewhere_s": float(np.delete(moved, fault.link).max()),
    }


def _cost(network: Network, traffic: Traffic, windows: int = 5) -> dict[str, float]:
    """Seconds to correct and to learn, and the bytes of the state, with every path measured."""
    told = replace(network, links=tuple(replace(link, propagation_delay_s=0.0) for link in network.links))
    said, true = MG1K().predict(told, traffic), MG1K().predict(network, traffic)
    calibration, random = Calibration(told), np.random.default_rng(1)
    correct_s, learn_s = [], []
    for _ in range(windows):
        measured = true.mean_s * random.lognormal(0.0, 0.01, network.path_count)
        reading = Reading(MeasuredDelays("one-way", measured, np.full(network.path_count, PACKETS)))
        began = time.perf_counter()
        window = calibration.correct(told, traffic, said)
        corrected = time.perf_counter()
        calibration.learn(window, [reading])
        state = calibration.dump()
        correct_s.append(corrected - began)
        learn_s.append(time.perf_counter() - corrected)
    return {"correct_s": min(correct_s), "learn_s": min(learn_s), "state_bytes": float(len(state))}
