"""The life of an alert: tables of windows in, states out."""

from __future__ import annotations

import pytest

from anomaly.alerts import LifeCycle, WindowStamp, fingerprint_of
from anomaly.findings import Finding, FindingKind, Judgement
from anomaly.settings import DetectorSettings
from twin.records import Alert, Suspect

SECOND_NS = 1_000_000_000


def _finding(
    target: str = "A->B", kind: FindingKind = "delay-divergence", paths: tuple[str, ...] = ()
) -> Finding:
    suspect = Suspect(kind="link", target=target, hypothesis="extra-delay", probability=0.9)
    return Finding(kind, frozenset([target]), (suspect,), f"{target}: rise", paths=paths)


def _play(cycle: LifeCycle, *judgements: Judgement, first: int = 100) -> list[list[Alert]]:
    """The alerts of every window."""
    told = []
    for version, judgement in enumerate(judgements, start=first):
        stamp = WindowStamp("net", version, (version - 1) * 10 * SECOND_NS, version * 10 * SECOND_NS)
        told.append(cycle.advance(stamp, judgement))
    return told


ALARM = Judgement((_finding(),))
CLEAN = Judgement()
UNCLEAR = Judgement(lingering=frozenset(["A->B"]))
BLIND = Judgement(blind=frozenset(["delay-divergence"]))

LIVES = [
    ("two alarms fire, two clean windows resolve", "AACC", ["pending", "firing", "", "resolved"]),
    ("one alarm alone never fires and goes", "ACC", ["pending", "", "resolved"]),
    ("alarms that are not consecutive do not fire", "ACACC", ["pending", "", "", "", "resolved"]),
    (
        "an unclear window keeps a firing alert open",
        "AAUCUCC",
        ["pending", "firing", "", "", "", "", "resolved"],
    ),
    ("an unclear window does not keep a pending one", "AUU", ["pending", "", "resolved"]),
    ("a relapse starts the clean count anew", "AACACC", ["pending", "firing", "", "", "", "resolved"]),
    (
        "blind windows are as if they had not been",
        "ABABBCBC",
        ["pending", "", "firing", "", "", "", "", "resolved"],
    ),
]


@pytest.mark.parametrize(("windows", "states"), [life[1:] for life in LIVES], ids=[life[0] for life in LIVES])
def test_the_life_of_an_incident(windows: str, states: list[str]) -> None:
    """Every row of the table: windows (Alarm, Clean, Unclear, Blind) and the state told in each."""
    by_letter = {"A": ALARM, "C": CLEAN, "U": UNCLEAR, "B": BLIND}
    told = _play(LifeCycle(DetectorSettings()), *(by_letter[letter] for letter in windows))
    assert [alerts[0].state if alerts else "" for alerts in told] == states


def test_a_firing_alert_is_told_again_at_least_every_six_windows() -> None:
    """Without any change it is re-emitted in the 6th window after it was last told."""
    told = _play(LifeCycle(DetectorSettings()), *[ALARM] * 15)
    assert [k for k, alerts in enumerate(told) if alerts] == [0, 1, 7, 13]


def test_one_incident_stays_one_alert_when_another_suspect_leads() -> None:
    """The fingerprint is that of the first suspect; the change of the lead is told at once."""
    both = Finding(
        "delay-divergence",
        frozenset(["A->B", "B->C"]),
        tuple(
            Suspect(kind="link", target=t, hypothesis="extra-delay", probability=0.5)
            for t in ("B->C", "A->B")
        ),
        "B->C: rise",
    )
    told = _play(LifeCycle(DetectorSettings()), ALARM, ALARM, Judgement((both,)))
    assert {alert.fingerprint for alerts in told for alert in alerts} == {
        fingerprint_of("net", "delay-divergence", "link A->B")
    }
    assert told[2][0].suspects[0].target == "B->C"


def test_findings_with_the_same_paths_are_the_same_incident() -> None:
    """A finding that blames another link but rests on the same paths joins the open incident."""
    paths = ("X->Y", "X->Z")
    cycle = LifeCycle(DetectorSettings())
    _play(cycle, Judgement((_finding("A->B", paths=paths),)), Judgement((_finding("C->D", paths=paths),)))
    assert [incident.state for incident in cycle.incidents] == ["firing"]


def test_two_faults_apart_are_two_alerts() -> None:
    """Scopes and paths without overlap give two fingerprints."""
    two = Judgement((_finding("A->B", paths=("A->B",)), _finding("C->D", paths=("C->D",))))
    told = _play(LifeCycle(DetectorSettings()), two, two)
    assert len({alert.fingerprint for alert in told[1]}) == 2


def test_divergences_of_delay_and_load_on_one_link_are_one_incident() -> None:
    """Hidden traffic shows in loads and in delays: one alert, of the kind that came first."""
    cycle = LifeCycle(DetectorSettings())
    _play(cycle, Judgement((_finding("A->B"), _finding("A->B", "load-divergence"))))
    assert [incident.kind for incident in cycle.incidents] == ["delay-divergence"]


def test_a_link_down_is_believed_at_once() -> None:
    """What devices say themselves fires in the first window, and tells only once."""
    told = _play(LifeCycle(DetectorSettings()), *[Judgement((_finding("A->B", "link-down"),))] * 2)
    assert [[alert.state for alert in alerts] for alerts in told] == [["firing"], []]


def test_the_same_trouble_next_week_has_the_same_fingerprint_and_a_new_start() -> None:
    """A resolved alert that comes back is the same alert, started anew."""
    cycle = LifeCycle(DetectorSettings())
    first = _play(cycle, ALARM, ALARM, CLEAN, CLEAN)
    again = _play(cycle, ALARM, ALARM, first=60_000)
    assert first[0][0].fingerprint == again[0][0].fingerprint
    assert again[1][0].starts_at_ns > first[3][0].updated_at_ns


def test_acknowledged_alerts_stay_open_until_clean() -> None:
    """Only a firing alert can be acknowledged; it then still resolves by itself."""
    cycle = LifeCycle(DetectorSettings())
    _play(cycle, ALARM)
    stamp = WindowStamp("net", 101, 0, 0)
    fingerprint = cycle.incidents[0].fingerprint
    assert cycle.acknowledge(fingerprint, stamp) == []
    _play(cycle, ALARM, first=101)
    assert [alert.state for alert in cycle.acknowledge(fingerprint, stamp)] == ["acknowledged"]
    told = _play(cycle, ALARM, CLEAN, CLEAN, first=102)
    assert [alert.state for alerts in told for alert in alerts] == ["resolved"]


def test_an_alert_names_its_windows() -> None:
    """first_version, last_version, start and end are those of the windows it came from (law 3)."""
    told = _play(LifeCycle(DetectorSettings()), ALARM, ALARM, CLEAN, CLEAN)
    resolved = told[3][0]
    assert (resolved.first_version, resolved.last_version) == (100, 101)
    assert (resolved.starts_at_ns, resolved.ends_at_ns) == (990 * SECOND_NS, 1030 * SECOND_NS)
