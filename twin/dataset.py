"""Training data: scenarios played by the packet simulator, window by window or in their steady state.

*Windows*: after a warm-up every window is one sample: the traffic matrix as telemetry would report it
(packets and octets sent in it) with the delays that the packets really had. Windows are as long as live ones
(10 s by default), so a model learns how much burstiness a window hides, which depends on its length.

*Steady state*: one long run, one sample, with the standard error of every mean.

A data set is a folder with one file per scenario, named by its seed: generation resumes where it was stopped,
and the same conditions and seed give the same samples on any machine. Several processes may fill one folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from rich.progress import Progress

from twin.network import Floats
from twin.samples import Sample, read_samples, write_samples
from twin.scenarios import Conditions, Scenario, draw, traffic_of
from twin.simulator import Simulator
from twin.steady import duration_for, merge_batches, run_steady

MIN_PACKETS = 30  # a flow with fewer in a window has no label
WARM_UP = 0.1  # of the time that counts, in a steady-state run
BATCHES = 10  # of a window, to tell how sure its means are


def generate(
    folder: Path,
    conditions: Conditions,
    seeds: Sequence[int],
    progress: Progress | None = None,
    *,
    processes: int = 1,
) -> None:
    """Simulate the scenarios of ``seeds`` that ``folder`` does not hold yet."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [seed for seed in seeds if not _file(folder, seed).exists()]
    task = None
    if progress is not None:
        done = len(seeds) - len(missing)
        task = progress.add_task(f"simulate {folder.name}", total=len(seeds), completed=done)
    for _ in _simulate_all(folder, conditions, missing, processes):
        if progress is not None and task is not None:
            progress.advance(task)


def _simulate_all(
    folder: Path, conditions: Conditions, seeds: Sequence[int], processes: int
) -> Iterator[None]:
    if processes == 1 or len(seeds) < 2:
        for seed in seeds:
            _simulate_file(folder, conditions, seed)
            yield
        return
    # Fresh interpreters: a fork would take over the locks of numba's and torch's threads.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(_simulate_file, folder, conditions, seed) for seed in seeds]):
            done.result()
            yield


def _simulate_file(folder: Path, conditions: Conditions, seed: int) -> None:
    write_samples(_file(folder, seed), simulate(conditions, seed))


def load_samples(folder: Path, seeds: Sequence[int]) -> list[Sample]:
    """All samples of the scenarios of ``seeds``."""
    return [sample for seed in seeds for sample in read_samples(_file(folder, seed))]


def _file(folder: Path, seed: int) -> Path:
    return folder / f"{seed:06d}.npz"


def simulate(conditions: Conditions, seed: int) -> list[Sample]:
    """Draw the scenario of one seed and play it."""
    scenario = draw(conditions, seed)
    if conditions.windows == 0:
        return [_steady(scenario, conditions, seed)]
    return list(_windows(scenario, conditions, seed))


def _steady(scenario: Scenario, conditions: Conditions, seed: int) -> Sample:
    network, flows = scenario.network, scenario.flows
    duration_s = duration_for(network, flows, conditions.packets)
    seen = run_steady(network, flows, seed=seed, warm_up_s=WARM_UP * duration_s, duration_s=duration_s)
    labelled = (seen.delivered >= MIN_PACKETS) & np.isfinite(seen.mean_noise)
    pps = seen.sent / duration_s
    bits = np.array([flow.sizes.mean_bits for flow in flows])  # octets sent are rounded up, a packet each
    return Sample(
        name=f"{seed}",
        network=network,
        traffic=traffic_of(network, flows, pps * bits, pps, duration_s),
        mean_s=np.where(labelled, seen.mean_s, 0.0),
        std_s=np.where(labelled, seen.std_s, 0.0),
        loss=seen.loss,
        count=np.where(labelled, seen.delivered, 0).astype(np.float64),
        noise=np.where(labelled, seen.mean_noise, 0.0),
    )


def _windows(scenario: Scenario, conditions: Conditions, seed: int) -> Iterator[Sample]:
    network, flows = scenario.network, scenario.flows
    simulator = Simulator(network, flows, seed=seed)
    simulator.advance(conditions.warm_up_s)
    simulator.take_delays()
    before = _counters(simulator)
    for window in range(conditions.windows):
        begins_s = conditions.warm_up_s + window * conditions.window_s
        count, mean_s, std_s, noise = _delays(simulator, begins_s, conditions.window_s)
        after = _counters(simulator)
        sent, octets, lost, delivered = after - before
        before, lasts_s = after, conditions.window_s
        labelled = (count >= MIN_PACKETS) & (std_s > 0) & np.isfinite(noise)
        yield Sample(
            name=f"{seed}, window {window}",
            network=network,
            traffic=traffic_of(network, flows, 8 * octets / lasts_s, sent / lasts_s, lasts_s),
            mean_s=np.where(labelled, mean_s, 0.0),
            std_s=np.where(labelled, std_s, 0.0),
            loss=lost / np.maximum(lost + delivered, 1.0),
            count=np.where(labelled, count, 0.0),
            noise=np.where(labelled, noise, 0.0),
        )


def _delays(simulator: Simulator, begins_s: float, lasts_s: float) -> tuple[Floats, Floats, Floats, Floats]:
    """Play one window; packets, mean, deviation, and the relative standard error of the mean, [F] each."""
    batches = []
    for batch in range(BATCHES):
        simulator.advance(begins_s + lasts_s * (batch + 1) / BATCHES)
        delays = simulator.take_delays()
        batches.append((delays.count.astype(np.float64), delays.mean_s, delays.std_s))
    return merge_batches(*(np.array(values) for values in zip(*batches, strict=True)))


def _counters(simulator: Simulator) -> Floats:
    """Cumulative packets sent, octets sent, packets lost, packets delivered: [4, F]."""
    columns = (
        simulator.sent_packets,
        simulator.sent_octets,
        simulator.lost_packets,
        simulator.delivered_packets,
    )
    return np.array(columns, dtype=np.float64)
