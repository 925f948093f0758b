"""The calibration's bench: the figures that the architecture quotes."""

from __future__ import annotations

from ndtwin.bench_calibration import bench_calibration
from twin.calibration_trial import LinkFault
from twin.queueing import MG1K


def test_the_bench_tells_what_calibration_is_worth_and_costs() -> None:
    """Untold propagation: errors of over 40 % fall under 1 %; a fault is not learnt; learning is quick."""
    fault = LinkFault(link=7, extra_s=0.005, first=20, windows=8)
    figures = bench_calibration({"mg1k": MG1K()}, nodes=40, after=(0, 10), fault=fault)
    after = figures["lab"]["mg1k"]
    assert after["0"]["median_ape"] == after["0"]["median_ape_uncalibrated"] > 40
    assert after["10"]["median_ape"] < 1
    assert after["10"]["median_ape_uncalibrated"] > 40
    assert figures["fault"]["learnt_s"] < 0.02 * fault.extra_s
    assert figures["fault"]["learnt_elsewhere_s"] < 0.04 * fault.extra_s
    assert 0 < figures["correct_s"] < figures["learn_s"] < 1
    assert figures["state_bytes"] < 50_000
