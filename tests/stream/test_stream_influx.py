"""What the sink writes is what the records say, read back from a real server that takes InfluxDB's writes."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.parse import quote

import msgspec
import numpy as np
import pytest
from ring_log import ring_states
from strategies import CAPACITY_BPS, S
from topics_seen import records_in, wait_for

from ndtwin.broker import EmbeddedBroker
from stream.admin import ensure_topics
from stream.forecast import ForecastProcessor
from stream.influx import InfluxWriter, run_influx_sink
from stream.influx_lines import FIELDS, TAGS, Lines, line
from stream.publisher import Publisher
from twin.compare import comparable_mean_s
from twin.graph import StateView
from twin.packing import unpack_magnitudes
from twin.queueing import MG1K
from twin.records import (
    Alert,
    DelayReport,
    DeviceSample,
    Heartbeat,
    PathDelay,
    Prediction,
    QueueCounters,
    Record,
    StateUpdate,
    Suspect,
)

ALERT = Alert(
    network="ring",
    fingerprint="f 1,x=y",
    state="firing",
    kind="delay-divergence",
    severity="critical",
    summary='R000 says "slow"\\',
    starts_at_ns=1,
    updated_at_ns=1_700_000_000 * S,
    suspects=(Suspect(kind="link", target="R000->R001", hypothesis="extra-delay", probability=0.75),),
)


PROBES = DelayReport(
    network="ring",
    device="R000",
    observed_at_ns=1_700_000_000 * S,
    method="stamp",
    direction="one-way",
    delays=(
        PathDelay(
            destination="R001",
            start_ns=0,
            end_ns=1_700_000_000 * S,
            count=19,
            mean_s=0.003,
            min_s=0.001,
            p50_s=0.002,
            p95_s=0.004,
            max_s=0.005,
            jitter_s=0.0005,
            ipdv_s=0.0004,
            error_s=1e-5,
            sent=20,
            lost=1,
            lost_forward=1,
            lost_backward=0,
            traffic_class=46,
        ),
        PathDelay(destination="R002", start_ns=0, end_ns=5, count=0, mean_s=0.0, sent=20),
    ),
)


def recent(states: list[StateUpdate]) -> list[StateUpdate]:
    """The same windows, ending about now: a server drops what is older than its retention."""
    shift_ns = (time.time_ns() // S - 60) * S - states[-1].window_end_ns
    return [
        msgspec.structs.replace(
            s, window_start_ns=s.window_start_ns + shift_ns, window_end_ns=s.window_end_ns + shift_ns
        )
        for s in states
    ]


def predictions(states: list[StateUpdate]) -> list[Prediction]:
    processor = ForecastProcessor(MG1K())
    return [p for state in states for p in processor.on_record(state) if isinstance(p, Prediction)]


# ------------------------------------------------------------------------------------------- lines


def test_a_line_escapes_what_line_protocol_escapes() -> None:
    """Commas, blanks and equals signs in tags; quotes and backslashes in strings; nothing breaks a line."""
    tags = ("a b", "f 1,x=y", "k\nk")
    text = line("alert", tags, {"summary": 'say "hi"\\\n', "firing": 1.0}, 5)
    assert text == (
        'alert,network=a\\ b,fingerprint=f\\ 1\\,x\\=y,kind=k\\ k summary="say \\"hi\\"\\\\ ",firing=1.0 5'
    )


def test_every_line_uses_the_documented_measurements_tags_and_fields() -> None:
    """States, predictions and alerts together use exactly the names in FIELDS and TAGS."""
    states, lines = ring_states(3, spoken=with_queue), Lines()
    used: dict[str, set[str]] = {name: set() for name in FIELDS}
    for record in [*states, *predictions(states), PROBES, ALERT]:
        for text in lines.of(record):
            measurement, _, rest = text.partition(",")
            assert rest.startswith("network=ring,")
            used[measurement] |= {name for name in FIELDS[measurement] if f"{name}=" in text}
    assert {name: set(fields) for name, fields in FIELDS.items()} == used
    assert lines.unusable == 0
    assert set(TAGS) == set(FIELDS)


def with_queue(record: Record) -> Record:
    """The records of a ring whose first router tells of a class queue: 80 bit/s, 40 drops/s, 3,000 octets."""
    if not (isinstance(record, DeviceSample) and record.device == "R000"):
        return record
    seconds = record.observed_at_ns // S - 10**9
    queue = QueueCounters(
        interface="eth0",
        direction="out",
        name="voice, low",
        sent_octets=10 * seconds,
        dropped_packets=40 * seconds,
        depth_octets=3_000,
    )
    return msgspec.structs.replace(record, queues=(queue,))


def test_class_queues_are_written_by_link_and_class() -> None:
    """Only those that a device tells of."""
    lines = Lines()
    state, written = [(state, list(lines.of(state))) for state in ring_states(3, spoken=with_queue)][-1]
    (text,) = [text for text in written if text.startswith("queue,")]
    head, fields, at = text.replace("\\ ", "_").split(" ")
    assert (head, int(at)) == ("queue,network=ring,link=R000->R001,class=voice\\,_low", state.window_end_ns)
    told = {name: float(value) for name, _, value in (field.partition("=") for field in fields.split(","))}
    assert told == pytest.approx({"sent_bps": 80, "drops_pps": 40, "depth_octets": 3_000}, rel=1e-2)


def test_probes_are_written_by_class_and_without_delays_that_nobody_measured() -> None:
    """Every class of every path is a series; where nothing came back only the counts are told."""
    first, second = Lines().of(PROBES)
    assert first.startswith(
        "probe,network=ring,path=R000->R001,method=stamp,direction=one-way,class=46 count=19.0,"
    )
    assert (
        second
        == "probe,network=ring,path=R000->R002,method=stamp,direction=one-way,class=0 count=0.0,sent=20.0 5"
    )
    assert Lines().of(msgspec.structs.replace(PROBES, method="ipfix-on-path")) == []


def test_predictions_read_before_their_states_are_not_lost() -> None:
    """Topics have no common order: the same lines come out, whichever topic is read first."""
    states = ring_states(5)
    said = predictions(states)
    orders: list[list[Record]] = [[*states, *said], [*said, *states], [*said[:2], *states, *said[2:]]]
    found = []
    for order in orders:
        lines = Lines()
        found.append(sorted(text for record in order for text in lines.of(record)))
        assert lines.unusable == 0
    assert found[0] == found[1] == found[2]


def test_what_cannot_be_used_is_counted_and_stops_nothing() -> None:
    """A delta without keyframe, a damaged state, a damaged prediction: no line, one count each."""
    states, lines = ring_states(8), Lines()
    delta = next(state for state in states if not state.keyframe)
    assert lines.of(delta) == []
    keyframe = next(state for state in states if state.keyframe)
    assert lines.of(msgspec.structs.replace(keyframe, traffic_bps=b"x")) == []
    assert lines.of(keyframe) != []
    [prediction] = [p for p in predictions(states) if p.state_version == keyframe.version]
    assert lines.of(msgspec.structs.replace(prediction, mean_s=prediction.link_utilisation)) == []
    assert lines.unusable == 3
    assert lines.of(prediction) != []


# ------------------------------------------------------------------------------------------- a real server


@dataclass
class Server:
    """A running victoria-metrics."""

    url: str

    def export(self, selector: str) -> list[dict[str, object]]:
        """Series that match, as the server gives them back."""
        self.get("/internal/force_flush")
        body = self.get(f"/api/v1/export?match[]={quote(selector)}")
        return [json.loads(text) for text in body.splitlines()]

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=5) as answer:
            text: str = answer.read().decode()
            return text


@contextmanager
def serving(binary: str, data: Path, port: int) -> Iterator[Server]:
    address = f"127.0.0.1:{port}"
    with (data.parent / "victoria.log").open("ab") as log:
        command = [
            binary,
            f"-httpListenAddr={address}",
            f"-storageDataPath={data}",
            "-memory.allowedPercent=5",
        ]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    server = Server(f"http://{address}")
    try:
        wait_for(lambda: answers(server), lambda up: up, timeout_s=20)
        yield server
    finally:
        process.terminate()
        process.wait(10)


def answers(server: Server) -> bool:
    try:
        return server.get("/health") == "OK"
    except (URLError, OSError):
        return False


@pytest.fixture(scope="module")
def victoria(need_tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the module."""
    binary = need_tool("victoria-metrics")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with serving(binary, tmp_path_factory.mktemp("victoria") / "data", port) as server:
        yield server


def value_of(server: Server, series: str) -> float:
    [found] = server.export(series)
    values = found["values"]
    assert isinstance(values, list)
    return float(values[-1])


def test_what_is_written_is_read_back_from_a_real_server(victoria: Server) -> None:
    """Measured, predicted, bounds, loads and an alert: the server's figures are those of the records."""
    states = recent(ring_states(3))
    said = predictions(states)
    lines, writer = Lines(), InfluxWriter(victoria.url, "", "ndtwin", "ndtwin")
    alert = msgspec.structs.replace(ALERT, updated_at_ns=states[-1].window_end_ns)
    texts = [text for record in [*states, *said, alert] for text in lines.of(record)]
    assert writer.write(texts)
    writer.close()
    assert writer.figures.points == len(texts)

    view = StateView()
    for state in states:
        view.apply(state)
    path = view.network.path_index("R000", "R002")
    expected = comparable_mean_s(
        view.network, view.traffic, unpack_magnitudes(said[-1].mean_s), view.delays["rttmon"]
    )[path]
    spread = np.exp(unpack_magnitudes(said[-1].log_width)[path])
    where = '{network="ring",path="R000->R002",method="rttmon"}'
    for field, wanted in {
        "measured_s": view.delays["rttmon"].mean_s[path],
        "predicted_s": expected,
        "low_s": expected / spread,
        "high_s": expected * spread,
    }.items():
        assert value_of(victoria, f"path_delay_{field}{where}") == pytest.approx(wanted, rel=1e-9)
    link = '{network="ring",link="R000->R001"}'
    assert value_of(victoria, f"link_load_capacity_bps{link}") == CAPACITY_BPS
    assert value_of(victoria, f"link_load_utilisation{link}") == pytest.approx(0.08, rel=0.01)
    assert value_of(victoria, f"link_load_predicted_utilisation{link}") > 0
    assert value_of(victoria, 'alert_firing{fingerprint="f 1,x=y"}') == 1.0
    assert value_of(victoria, 'alert_probability{kind="delay-divergence"}') == 0.75


def test_a_database_that_is_away_is_named_and_nothing_counts_as_written(port: int) -> None:
    """Nobody listening: not written, one line that says where and what to do."""
    writer = InfluxWriter(f"http://127.0.0.1:{port}", "", "ndtwin", "ndtwin")
    assert not writer.write(["x a=1 1"])
    assert f"no InfluxDB answers at http://127.0.0.1:{port}" in writer.problem
    assert "\n" not in writer.problem
    assert (writer.figures.points, writer.figures.retries) == (0, 1)
    writer.close()


@pytest.mark.kafka
def test_the_sink_waits_for_a_database_that_is_away_and_then_writes_everything(
    embedded: EmbeddedBroker, need_tool: Callable[[str], str], tmp_path: Path, port: int
) -> None:
    """What is published before the database is up arrives when it is; health tells both."""
    binary = need_tool("victoria-metrics")
    ensure_topics(embedded.bootstrap, 1)
    states = recent(ring_states(4))
    alert = msgspec.structs.replace(ALERT, updated_at_ns=states[-1].window_end_ns)
    with Publisher(embedded.bootstrap, 1) as publisher:
        publisher.publish_all([*states, *predictions(states), alert])
        publisher.send("ndt.state", b"garbage", key=None, partition=0)
    stop = threading.Event()
    options = {
        "partitions": 1,
        "url": f"http://127.0.0.1:{port}",
        "token": "",
        "org": "o",
        "bucket": "b",
        "stop": stop,
    }
    thread = threading.Thread(target=run_influx_sink, args=(embedded.bootstrap,), kwargs=options)
    thread.start()
    try:

        def sink_states() -> list[str]:
            return [beat.state for beat in records_in(embedded.bootstrap, "ndt.health", Heartbeat)]

        wait_for(sink_states, lambda said: "degraded" in said)
        with serving(binary, tmp_path / "data", port) as server:
            wait_for(lambda: sink_states()[-1], lambda last: last == "running")
            selector = 'path_delay_predicted_s{path="R000->R002"}'
            [series] = wait_for(lambda: server.export(selector), lambda found: len(found) == 1)
            assert len(series["values"]) == len(states)  # type: ignore[arg-type]  # JSON list
            assert value_of(server, "alert_firing") == 1.0
    finally:
        stop.set()
        thread.join(15)
    assert not thread.is_alive()
