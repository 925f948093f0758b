"""The whole loop on real routers: FRR, net-snmp, netconfd, softflowd and STAMP in network namespaces."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from netns_ring import need_namespaces, ring

from ndtwin.api.frames import Frame
from ndtwin.config import load_settings
from ndtwin.lab.netns.settings import LOOP_TABLES
from ndtwin.lab.netns.spaces import left_behind
from ndtwin.loop import Loop, running_loop
from ndtwin.ports import private_ports

pytestmark = [
    pytest.mark.alone,
    pytest.mark.netns,
    pytest.mark.live,
    pytest.mark.kafka,
    pytest.mark.timeout(600),
]
LEARNT_WINDOWS = 12
JUDGED_WINDOWS = 12  # all that follow, two minutes
# Percent, which nine of those twelve windows must hold. Measured over some 50 spans of twelve windows, most
# of them while two cores had other work for four to eight: the ninth best window was 16 to 28. Probes alone
# make some 12: 80 of them, of a delay that strays by more than its mean. M/M/1/b, wrong here, has 50 to 80.
MOST_APE = 35.0
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


def error_of(frame: Frame) -> float:
    """Percent: of every path's error the median, paths weighted by their traffic's packets."""
    order = np.argsort(frame.percentage_error)
    weight = np.cumsum(frame.traffic.pps[frame.comparable][order])
    return float(frame.percentage_error[order][np.searchsorted(weight, weight[-1] / 2)])


def test_predictions_come_near_what_probes_measure(loop: Loop) -> None:
    """In every window of two minutes every path is predicted, and in three of four windows well.

    From when the calibration has learnt a while, not at some time: a loop that is good only at times fails.
    Part of the error is the measurement's own: a window has some 80 probes of a path, and whoever else works
    on this machine delays packets.
    """
    history = loop.store.network(loop.store.networks()[0])
    wanted = LEARNT_WINDOWS + JUDGED_WINDOWS
    assert loop.run_until(lambda: history.windows_seen > wanted, 400), history.windows_seen
    frames = history.frames[-JUDGED_WINDOWS - 1 : -1]  # of the newest the prediction may be under way
    assert [frame.version - frames[0].version for frame in frames] == list(range(JUDGED_WINDOWS))
    unpredicted = {frame.version: int((~frame.comparable).sum()) for frame in frames}
    assert not any(unpredicted.values()), unpredicted
    errors = np.sort([error_of(frame) for frame in frames])
    print("error of windows in percent, sorted:", errors.round(1))
    assert errors[JUDGED_WINDOWS * 3 // 4 - 1] <= MOST_APE, errors


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
