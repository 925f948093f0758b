"""The processor's laws: same records, same alerts, whatever the order, the duplicates, or the crashes."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from closed_loop import FIRST_VERSION, WINDOW_NS, World, lab_world, link_delay, state_update

from anomaly.processor import DetectorSettings, DivergenceProcessor
from stream.forecast import predict
from twin.errors import DecodeError
from twin.packing import pack_integers
from twin.queueing import MG1K
from twin.records import Alert, Heartbeat, Prediction, Record, StateUpdate, TopologyRecord

WINDOWS = 14
FAULTY = range(6, 10)


def _records(world: World) -> list[tuple[StateUpdate, Prediction]]:
    link = world.network.link_names.index("PA->NY")
    inject, clear = link_delay(link, 0.01)
    world.due = [(10.0 * FAULTY.start, inject), (10.0 * FAULTY.stop, clear)]
    pairs = []
    for version in range(FIRST_VERSION, FIRST_VERSION + WINDOWS):
        reading = world.step()
        update = state_update(world.network, version, reading)
        pairs.append((update, predict(MG1K(), update, world.network, reading.traffic)))
    return pairs


@pytest.fixture(scope="module")
def pairs() -> list[tuple[StateUpdate, Prediction]]:
    """14 windows of the lab with +10 ms on PA->NY in four of them."""
    return _records(lab_world(1))


def _alerts(processor: DivergenceProcessor, records: list[Record]) -> list[Record]:
    return [alert for record in records for alert in processor.on_record(record)]


def _flat(pairs: list[tuple[StateUpdate, Prediction]]) -> list[Record]:
    return [record for pair in pairs for record in pair]


def _with_topology(
    pair: tuple[StateUpdate, Prediction], topology: TopologyRecord | None, version: int
) -> tuple[StateUpdate, Prediction]:
    """The pair as if the topology had changed to this one at a version."""
    update, prediction = pair
    return (
        msgspec.structs.replace(update, keyframe=True, topology=topology, topology_version=version),
        msgspec.structs.replace(prediction, topology_version=version),
    )


@pytest.fixture(scope="module")
def expected(pairs: list[tuple[StateUpdate, Prediction]]) -> list[Record]:
    """The alerts of the records in their natural order."""
    return _alerts(DivergenceProcessor(), _flat(pairs))


def test_the_fault_is_told_and_its_end(expected: list[Record]) -> None:
    """pending, firing, resolved – with the link first, and the windows it came from named."""
    alerts = [alert for alert in expected if isinstance(alert, Alert)]
    assert [alert.state for alert in alerts] == ["pending", "firing", "resolved"]
    assert alerts[1].suspects[0].target == "PA->NY"
    assert alerts[1].first_version == FIRST_VERSION + FAULTY.start
    assert alerts[2].last_version == FIRST_VERSION + FAULTY.stop - 1
    assert all("PA->NY" in alert.summary and alert.summary.endswith(" % likely") for alert in alerts)
    assert "PA->NY" in alerts[1].paths


def test_predictions_may_come_before_their_states(
    pairs: list[tuple[StateUpdate, Prediction]], expected: list[Record]
) -> None:
    """Whichever comes second triggers."""
    records: list[Record] = [record for update, prediction in pairs for record in (prediction, update)]
    assert _alerts(DivergenceProcessor(), records) == expected


def test_states_may_run_ahead_of_predictions(
    pairs: list[tuple[StateUpdate, Prediction]], expected: list[Record]
) -> None:
    """All states first, then all predictions: the same alerts."""
    records: list[Record] = [update for update, _ in pairs]
    records += [prediction for _, prediction in pairs]
    assert _alerts(DivergenceProcessor(), records) == expected


def test_neighbours_may_be_swapped_and_everything_doubled(
    pairs: list[tuple[StateUpdate, Prediction]], expected: list[Record]
) -> None:
    """Windows after the first swapped pairwise, every record twice: the same alerts, once."""
    swapped = [pairs[0], *(pairs[1 + (k ^ 1)] for k in range(len(pairs) - 2)), pairs[-1]]
    records = [record for record in _flat(swapped) for _ in range(2)]
    assert _alerts(DivergenceProcessor(), records) == expected


def test_a_crash_between_any_two_records_changes_nothing(
    pairs: list[tuple[StateUpdate, Prediction]], expected: list[Record]
) -> None:
    """Snapshot, new processor, restore – after every single record – gives byte-identical alerts."""
    processor, alerts = DivergenceProcessor(), list[Record]()
    for record in _flat(pairs):
        blob = processor.snapshot()
        processor = DivergenceProcessor()
        processor.restore(blob)
        assert processor.snapshot() == blob
        alerts += processor.on_record(record)
    assert msgspec.json.encode(alerts) == msgspec.json.encode(expected)


def test_snapshots_are_small(pairs: list[tuple[StateUpdate, Prediction]]) -> None:
    """NSFNET's whole detector state stays under 8 kB between windows."""
    processor = DivergenceProcessor()
    _alerts(processor, _flat(pairs))
    assert len(processor.snapshot()) < 8_000


def test_a_missing_prediction_costs_one_window_and_no_more(
    pairs: list[tuple[StateUpdate, Prediction]],
) -> None:
    """A window without prediction is given up once two later ones are complete; the fault is still told."""
    lost = pairs[3][1]
    records = [record for record in _flat(pairs) if record is not lost]
    alerts = [alert for alert in _alerts(DivergenceProcessor(), records) if isinstance(alert, Alert)]
    assert [alert.state for alert in alerts] == ["pending", "firing", "resolved"]


def test_the_clock_gives_up_on_predictions_that_never_come(
    pairs: list[tuple[StateUpdate, Prediction]],
) -> None:
    """With the twin away, silent devices are still told, after the patience of three windows."""
    processor, told = DivergenceProcessor(), list[Record]()
    for update, _ in pairs[:6]:
        processor.on_record(msgspec.structs.replace(update, quality=("silent:WA",)))
        told += processor.on_time(update.window_end_ns)
    alerts = [alert for alert in told if isinstance(alert, Alert)]
    assert [(alert.kind, alert.state) for alert in alerts] == [
        ("telemetry-stale", "pending"),
        ("telemetry-stale", "firing"),
    ]
    assert alerts[1].last_version == FIRST_VERSION + 1


def test_deltas_of_an_unseen_topology_wait_for_a_keyframe(
    pairs: list[tuple[StateUpdate, Prediction]],
) -> None:
    """Started between keyframes, it counts what it cannot read and goes on with the next keyframe."""
    processor = DivergenceProcessor()
    _alerts(processor, _flat(pairs[1:]))
    first_keyframe = next(k for k, (update, _) in enumerate(pairs[1:]) if update.keyframe)
    assert processor.unreadable == first_keyframe > 0


def test_damaged_predictions_are_counted_not_fatal(pairs: list[tuple[StateUpdate, Prediction]]) -> None:
    """Law 2: bytes that are not what they claim to be cost their window and nothing else."""
    processor = DivergenceProcessor()
    broken = msgspec.structs.replace(pairs[2][1], mean_s=b"nonsense")
    short = msgspec.structs.replace(pairs[3][1], mean_s=pack_integers(np.zeros(5, dtype=np.int16)))
    pairs = [*pairs[:2], (pairs[2][0], broken), (pairs[3][0], short), *pairs[4:]]
    alerts = [alert for alert in _alerts(processor, _flat(pairs)) if isinstance(alert, Alert)]
    assert processor.unreadable == 2
    assert [alert.state for alert in alerts] == ["pending", "firing", "resolved"]


def test_windows_after_a_change_of_routing_are_not_judged(
    pairs: list[tuple[StateUpdate, Prediction]],
) -> None:
    """The window of the change and the next are blind: a fault that lasts just as long is not told."""
    changed = FIRST_VERSION + FAULTY.start
    sick = [
        _with_topology(pair, pairs[0][0].topology, changed) for pair in pairs[FAULTY.start : FAULTY.start + 2]
    ]
    renewed = _flat([*pairs[: FAULTY.start], *sick])
    assert _alerts(DivergenceProcessor(), renewed) == []


def test_networks_are_kept_apart(pairs: list[tuple[StateUpdate, Prediction]], expected: list[Record]) -> None:
    """Two networks on one partition give each its own alerts."""
    records: list[Record] = []
    for update, prediction in pairs:
        for name in ("nsfnet", "other"):
            records.append(msgspec.structs.replace(update, network=name))
            records.append(msgspec.structs.replace(prediction, network=name))
    alerts = _alerts(DivergenceProcessor(), records)
    assert [alert for alert in alerts if alert.network == "nsfnet"] == expected
    assert len(alerts) == 2 * len(expected)


def test_other_records_are_none_of_our_business() -> None:
    """A heartbeat gives nothing and changes nothing."""
    processor = DivergenceProcessor()
    before = processor.snapshot()
    assert list(processor.on_record(Heartbeat(component="x", observed_at_ns=1, state="running"))) == []
    assert processor.snapshot() == before


def test_a_damaged_snapshot_is_refused_with_what_to_do() -> None:
    """DecodeError, one line, no half-restored state."""
    with pytest.raises(DecodeError, match="delete it"):
        DivergenceProcessor().restore(b"not a snapshot")


def test_a_link_that_goes_down_is_told_at_once_and_when_it_is_back(
    pairs: list[tuple[StateUpdate, Prediction]],
) -> None:
    """link-down fires in its first window, names both directions, resolves once the link is back."""
    topology = pairs[0][0].topology
    assert topology is not None
    dead = tuple(
        msgspec.structs.replace(link, up={link.source, link.target} != {"PA", "NY"})
        for link in topology.links
    )
    processor, told = DivergenceProcessor(), []
    for k, pair in enumerate(pairs[:6]):
        links = dead if 2 <= k < 4 else topology.links
        changed = FIRST_VERSION + (0 if k < 2 else 2 if k < 4 else 4)
        now = _with_topology(pair, msgspec.structs.replace(topology, links=links), changed)
        told.append(_alerts(processor, list(now)))
    states = [[(a.kind, a.state) for a in alerts if isinstance(a, Alert)] for alerts in told]
    assert states == [[], [], [("link-down", "firing")], [], [], [("link-down", "resolved")]]
    down = told[2][0]
    assert isinstance(down, Alert)
    assert {suspect.target for suspect in down.suspects} == {"PA->NY", "NY->PA"}


def test_settings_refuse_unknown_keys() -> None:
    """A misspelt setting is an error, not a default."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"fire_scores": 3}, DetectorSettings)


def test_window_bounds_are_those_of_the_records(expected: list[Record]) -> None:
    """Alert times are the log's, in nanoseconds of the windows, never the wall clock."""
    for alert in expected:
        assert isinstance(alert, Alert)
        assert alert.starts_at_ns == (alert.first_version - 1) * WINDOW_NS
