"""The whole loop on real routers: FRR, net-snmp, netconfd, softflowd and STAMP in network namespaces."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator

import pytest
from netns_ring import need_namespaces, ring

from ndtwin.config import load_settings
from ndtwin.lab.netns.settings import LOOP_TABLES
from ndtwin.lab.netns.spaces import left_behind
from ndtwin.loop import Loop, running_loop
from ndtwin.ports import private_ports
from ndtwin.report import loop_report

pytestmark = [
    pytest.mark.alone,
    pytest.mark.netns,
    pytest.mark.live,
    pytest.mark.kafka,
    pytest.mark.timeout(600),
]
LEARNT_WINDOWS = 12
JUDGED_WINDOWS = 6
# Percent, reached at some time within five minutes, not held at all times: medians over six windows were
# 12 to 31 on busy cores, five in six of them below this bound; with a probe a second they were 27 to 47.
MOST_APE = 25.0
WHOLE_S = 240.0  # on two busy cores; a quiet machine takes a minute


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    need_namespaces()
    topology = ring(tmp_path_factory.mktemp("map") / "ring.graphml")
    with private_ports(str(tmp_path_factory.mktemp("run"))) as (run_dir, own):
        tables = {name: {**own.get(name, {}), **LOOP_TABLES.get(name, {})} for name in {*own, *LOOP_TABLES}}
        tables["lab"] = {**tables["lab"], "topology": str(topology)}
        settings = load_settings(None, {"run_dir": run_dir, "lab_kind": "netns", **tables}, env={})
        with running_loop(settings, print, threading.Event()) as running:
            yield running


def missing(loop: Loop) -> list[str]:
    """What is not whole; a collector that a busy machine makes late is no fault of the network."""
    return [fault for fault in loop.faults() if fault != "collect is degraded"]


def test_every_path_between_real_routers_is_measured_and_predicted(loop: Loop) -> None:
    """Twelve paths of four FRR routers, from agents that nobody here wrote, through Kafka to predictions."""
    assert loop.run_until(lambda: not missing(loop), WHOLE_S), (loop.faults(), loop.supervisor.journal)
    report = loop.report()
    assert (report["paths_total"], report["paths_measured"], report["paths_predicted"]) == (12, 12, 12)


def test_predictions_come_near_what_probes_measure(loop: Loop) -> None:
    """Over a minute's windows the median error of paths comes below a bound.

    Part of the error is the measurement's own: a window has some 80 probes of a path. And whoever else works
    on this machine delays packets, so a minute in which nobody did is waited for.
    """
    seen: dict[int, float] = {}

    def median_error() -> float:
        report = loop_report(loop.store, last_windows=JUDGED_WINDOWS)
        if report["windows_closed"] < LEARNT_WINDOWS or report["ape_median"] is None:
            return math.inf
        seen[report["windows_closed"]] = report["ape_median"]
        return float(report["ape_median"])

    assert loop.run_until(lambda: median_error() <= MOST_APE, 300), seen
    print("median error in percent, by window:", seen)


def test_flow_records_come_in_time(loop: Loop) -> None:
    """softflowd's records are told before their window closes, also those of the quietest router."""
    frames = loop.store.network(loop.store.networks()[0]).frames
    late = [frame.version for frame in frames if any(flag.startswith("late:") for flag in frame.quality)]
    assert len(late) <= len(frames) / 4, (late, len(frames))


def test_a_cable_that_is_cut_is_seen(loop: Loop) -> None:
    """OSPF finds a way round, the topology loses two links, and gets them back."""
    assert loop.lab is not None

    def links_up() -> int:
        frame = loop.store.network(loop.store.networks()[0]).newest
        return sum(link.up for link in frame.network.links) if frame is not None else 0

    assert loop.run_until(lambda: links_up() == 8, 120), links_up()
    fault = loop.lab.start("link-down", "A->B")
    assert loop.run_until(lambda: links_up() == 6, 120), links_up()
    loop.lab.stop(fault.id)
    assert loop.run_until(lambda: links_up() == 8, 120), links_up()


def test_nothing_is_left(loop: Loop) -> None:
    """When the loop's lab stops, its namespaces and cables are gone."""
    assert loop.lab is not None
    slot = int(loop.lab.status()["spaces"][0].removeprefix("ndtwin").partition("-")[0])
    assert len(left_behind(slot)[0]) == 8
    loop.supervisor.stop()
    deadline_s = time.monotonic() + 10
    while left_behind(slot) != ([], []) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert left_behind(slot) == ([], [])
