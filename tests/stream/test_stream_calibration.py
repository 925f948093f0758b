"""The live calibration: what windows teach, what they must not, and the same bytes whatever dies."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from ring_log import longer_than_told, other_way, ring_states
from strategies import T0, S

from stream.calibration import SETTLE_WINDOWS, readings_of
from stream.codec import encode
from stream.forecast import ForecastProcessor
from twin.calibration import Calibration, CalibrationRules
from twin.graph import StateView
from twin.network import Network
from twin.packing import pack_integers, pack_magnitudes, unpack_magnitudes
from twin.queueing import MG1K, MM1B
from twin.records import Prediction, Record, StateUpdate
from twin.topologies import power_law

RULES = CalibrationRules()
WINDOWS = 14


@pytest.fixture(scope="module")
def states() -> list[StateUpdate]:
    """A ring whose links are longer than told, and in which a path goes another way from window 9 on."""
    return ring_states(WINDOWS, spoken=longer_than_told, more=[other_way(T0 + 85 * S)])


def forecast(records: Sequence[Record], processor: ForecastProcessor) -> list[Prediction]:
    return [p for record in records for p in processor.on_record(record) if isinstance(p, Prediction)]


def calibrated() -> ForecastProcessor:
    return ForecastProcessor(MG1K(), RULES)


def error(state: StateUpdate, prediction: Prediction) -> float:
    """The largest of |predicted ÷ measured − 1|; the probes are as large as nothing that matters here."""
    measured = unpack_magnitudes(state.delays[0].mean_s)
    return float(np.abs(unpack_magnitudes(prediction.mean_s) / measured - 1).max())


def test_without_rules_a_prediction_is_what_the_model_says(states: list[StateUpdate]) -> None:
    """Calibration is off unless asked for: nothing learnt, nothing carried."""
    said = forecast(states, ForecastProcessor(MG1K()))
    assert {(p.calibration, p.windows_learnt) for p in said} == {(b"", 0)}


def test_predictions_are_corrected_by_earlier_windows(states: list[StateUpdate]) -> None:
    """The first ones are the model's, 20 % off; once corrections have proved better, they are within 3 %."""
    states = states[:8]  # afterwards R000's probes to R002 lie: they still go the way they went
    plain, own = forecast(states, ForecastProcessor(MG1K())), forecast(states, calibrated())
    first = next(k for k, p in enumerate(own) if p.corrected)
    assert own[first].windows_learnt == 2
    for k in range(first):
        assert own[k].mean_s == plain[k].mean_s
        assert error(states[k], own[k]) > 0.2
    assert max(error(states[k], own[k]) for k in range(first, 8)) < 0.03
    assert all(p.corrected for p in own[first:])


def test_a_window_in_which_routing_settles_is_predicted_and_teaches_nothing(
    states: list[StateUpdate],
) -> None:
    """The window in which the topology changed and the next: the count of lessons stands still."""
    own = forecast(states, calibrated())
    for k in range(WINDOWS - 1):
        settling = states[k].version - states[k].topology_version < SETTLE_WINDOWS
        assert own[k + 1].windows_learnt == own[k].windows_learnt + (not settling), k
    assert len({state.topology_version for state in states}) > 1


@pytest.mark.parametrize(
    "flags",
    [
        ("warming-up",),
        tuple(f"flows-missing:R00{i}" for i in range(4)),
        tuple(f"clock-unsynchronised:R00{i}" for i in range(4)),
    ],
)
def test_what_the_flags_put_in_doubt_teaches_nothing(
    states: list[StateUpdate], flags: tuple[str, ...]
) -> None:
    """Unknown traffic, clocks that are off: the state keeps its bytes."""
    doubted = msgspec.structs.replace(states[5], quality=flags)
    before, after = forecast([*states[:5], doubted], calibrated())[-2:]
    assert after.calibration == before.calibration


def test_flags_about_one_device_spare_the_others(states: list[StateUpdate]) -> None:
    """Where one clock is off, paths between other devices still teach."""
    doubted = msgspec.structs.replace(states[5], quality=("clock-unsynchronised:R000",))
    before, after = forecast([*states[:5], doubted], calibrated())[-2:]
    assert after.calibration != before.calibration


def test_a_round_trip_is_believed_where_both_ways_are(states: list[StateUpdate]) -> None:
    """One way over links of unknown traffic spoils the trip, whichever it is; clocks spoil neither."""
    [plane] = states[0].delays
    trips = msgspec.structs.replace(plane, direction="round-trip")
    flags = ("flows-missing:R001", "clock-unsynchronised:R003")
    view = StateView()
    view.apply(msgspec.structs.replace(states[0], delays=(trips,), quality=flags))
    [reading] = readings_of(view)
    network, trusted = view.network, reading.trusted
    assert trusted is not None
    unknown = {link for to in ("R000", "R002", "R003") for link in way(network, "R001", to)}
    for path in range(network.path_count):
        source, _, destination = network.path_name(path).partition("->")
        there_and_back = way(network, source, destination) | way(network, destination, source)
        assert trusted[path] == unknown.isdisjoint(there_and_back), network.path_name(path)
    assert 0 < np.count_nonzero(trusted) < network.path_count


def way(network: Network, source: str, destination: str) -> set[int]:
    """The links from one node to another."""
    return set(network.paths.of(network.path_index(source, destination)))


def test_a_network_without_links_is_predicted_uncalibrated(states: list[StateUpdate]) -> None:
    """There is nothing to correct and nothing to learn from."""
    topology = states[0].topology
    assert topology is not None
    nowhere = np.full((4, 4), -1, dtype=np.int16)
    alone = msgspec.structs.replace(topology, links=(), next_link=pack_integers(nowhere))
    none = pack_magnitudes(np.zeros(0))
    update = msgspec.structs.replace(
        states[0],
        topology=alone,
        link_load_bps=none,
        link_load_pps=none,
        link_drops_pps=none,
        link_measured=pack_integers(np.zeros(0, dtype=np.int8), np.int8),
    )
    [prediction] = forecast([update], calibrated())
    assert (prediction.calibration, prediction.windows_learnt) == (b"", 0)


# ------------------------------------------------------------------------------------------- law 1


def test_a_restored_processor_goes_on_to_the_same_bytes(states: list[StateUpdate]) -> None:
    """Snapshot after any state, restore elsewhere, feed the rest: the same predictions, none twice."""
    whole = forecast(states, calibrated())
    for cut in range(1, WINDOWS):
        first, second = calibrated(), calibrated()
        before = forecast(states[:cut], first)
        second.restore(first.snapshot())
        assert second.snapshot() == first.snapshot()
        assert before + forecast(states[cut - 1 :], second) == whole


@pytest.mark.parametrize("rewind", [12, 6])
def test_a_successor_goes_on_from_the_newest_prediction(states: list[StateUpdate], rewind: int) -> None:
    """Killed after any window, with nothing left but the topics: what follows has the same bytes."""
    whole = forecast(states, calibrated())
    for cut in range(1, WINDOWS):
        successor = calibrated()
        successor.resume(whole[cut - 1])
        again = forecast(states[max(0, cut - rewind) :], successor)
        assert [encode(p) for p in again] == [encode(p) for p in whole[cut:]]


def test_a_successor_that_sees_later_states_only_goes_on_from_what_was_known(
    states: list[StateUpdate],
) -> None:
    """The states in between are lost, and the newest prediction's own: what it knew is taken all the same."""
    whole = forecast(states, calibrated())
    successor = calibrated()
    successor.resume(whole[3])
    later = next(k for k in range(5, WINDOWS) if states[k].keyframe)
    first, *_ = forecast(states[later:], successor)
    assert first.windows_learnt == whole[4].windows_learnt > 0


def test_what_is_known_takes_over_when_its_window_is_done(states: list[StateUpdate]) -> None:
    """A replay's warm-up that began too late to have learnt the same gives the same bytes afterwards."""
    whole = forecast(states, calibrated())
    later = next(k for k in range(1, WINDOWS) if states[k].keyframe)
    late = calibrated()
    late.know(whole[later + 2])
    said = forecast(states[later:], late)
    assert said[2].calibration == whole[later + 2].calibration
    assert [encode(p) for p in said[3:]] == [encode(p) for p in whole[later + 3 :]]
    assert said[1] != whole[later + 1]


def test_networks_learn_apart(states: list[StateUpdate]) -> None:
    """Two networks interleaved give what each gives alone."""
    other = ring_states(WINDOWS, "other")
    mixed: list[Record] = [state for pair in zip(states, other, strict=True) for state in pair]
    both = forecast(mixed, calibrated())
    assert [p for p in both if p.network == "ring"] == forecast(states, calibrated())
    assert [p for p in both if p.network == "other"] == forecast(other, calibrated())


# ------------------------------------------------------------------------------ what cannot be gone on from


def test_the_calibration_of_another_model_is_of_no_use(states: list[StateUpdate]) -> None:
    """M/M/1/b's corrections are not M/G/1/K's, and a calibration switched off leaves none: start afresh."""
    others = (forecast(states[:6], ForecastProcessor(MM1B(), RULES))[-1], whole_off(states[:6]))
    for newest in others:
        successor = calibrated()
        successor.resume(newest)
        again = forecast(states, successor)
        assert again[0].state_version == states[6].version
        assert again[0].windows_learnt == 0


def whole_off(states: list[StateUpdate]) -> Prediction:
    return forecast(states, ForecastProcessor(MG1K()))[-1]


def test_a_damaged_calibration_is_counted_and_started_afresh(states: list[StateUpdate]) -> None:
    """Bytes cut short stop nothing (law 2)."""
    newest = forecast(states[:6], calibrated())[-1]
    successor = calibrated()
    successor.resume(msgspec.structs.replace(newest, calibration=newest.calibration[:-9]))
    again = forecast(states, successor)
    assert len(again) == WINDOWS - 6
    assert again[0].windows_learnt == 0
    assert successor.calibrations is not None
    assert successor.calibrations.refused == 1


# ------------------------------------------------------------------------------------------- sizes


def test_a_calibrated_prediction_of_300_nodes_fits_into_one_message() -> None:
    """All 89,700 paths with everything learnt of them stay under 1 MB."""
    network = power_law(300, seed=1).network()
    calibration, rng = Calibration(network, RULES), np.random.default_rng(1)
    paths, links = network.path_count, len(network.links)
    for name, array in calibration.links.arrays.items():
        array[:] = rng.normal(0, 1e-3, links).astype(array.dtype) if name != "run" else 0
    calibration.paths.arrays["offset"][:] = np.clip(rng.normal(0, 30, paths), -127, 127)
    calibration.paths.arrays["seen"][:] = rng.integers(40, 60, paths)
    magnitudes = [pack_magnitudes(rng.lognormal(-5, 1, paths)) for _ in range(4)]
    prediction = Prediction(
        network="ring",
        state_version=1,
        topology_version=1,
        window_start_ns=0,
        window_end_ns=1,
        model="routenet",
        model_version="1",
        mean_s=magnitudes[0],
        log_width=magnitudes[1],
        jitter_s=magnitudes[2],
        loss=magnitudes[3],
        calibration=calibration.dump(),
    )
    assert len(encode(prediction)) < 1_000_000
