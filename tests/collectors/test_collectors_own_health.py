"""The collector's word on itself, by table: what grew lately, who is silent."""

from __future__ import annotations

from collectors.own_health import LATELY_S, OwnHealth
from collectors.stats import CollectorStats


def test_what_grows_is_told_for_a_while_and_then_forgotten() -> None:
    """Running, degraded with the reason, and running again; all metrics travel along."""
    stats, health = CollectorStats(), OwnHealth()
    assert health.look(stats, 0.0)[:2] == ("running", "")
    stats.overruns = 3
    stats.probes.sent, stats.probes.skipped = 10, 2
    state, detail, metrics = health.look(stats, 1.0)
    assert (state, detail) == ("degraded", "polls not got round to; probes not sent in time")
    assert (metrics["overruns"], metrics["probes_skipped"]) == (3, 2)
    assert health.look(stats, LATELY_S)[0] == "degraded"
    assert health.look(stats, LATELY_S + 1.5)[:2] == ("running", "")


def test_silent_targets_are_named_up_to_five() -> None:
    """A hundred silent devices make one short line."""
    stats, health = CollectorStats(), OwnHealth()
    stats.silent = {f"d{i:02}/snmp" for i in range(100)}
    assert health.look(stats, 0.0)[:2] == (
        "degraded",
        "silent: d00/snmp, d01/snmp, d02/snmp, d03/snmp, d04/snmp …",
    )
