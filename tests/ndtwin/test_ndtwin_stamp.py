"""The commands `ndtwin stamp reflect` and `ndtwin stamp send`, as processes of their own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import AF_INET, SOCK_DGRAM, socket

import pytest
from topics_seen import records_in, wait_for

from ndtwin.config import load_settings
from ndtwin.doctor import examine
from ndtwin.stamp import endpoint, measure_once
from twin.errors import UsageError
from twin.records import DelayReport, Heartbeat

NDTWIN = [sys.executable, "-m", "ndtwin", "stamp"]


@contextmanager
def reflecting(*options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The reflector as a process, and its port."""
    command = [*NDTWIN, "reflect", "--listen", "127.0.0.1:0", "--json", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        yield process, int(process.stderr.readline().rpartition(":")[2])
    finally:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> str:
    """Ctrl-C, and what it says at the end; it must end well."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


@pytest.mark.live
def test_the_two_commands_measure_each_other(tmp_path: Path) -> None:
    """Authenticated by a file's key, PTP against NTP; both tell their figures as one JSON object."""
    key = tmp_path / "key"
    key.write_text("between the two of us\n")
    common = ["--auth-key", f"file:{key}", "--clock", "synchronised"]
    with reflecting(*common) as (reflector, port):
        options = ["--to", f"127.0.0.1:{port}", "--count", "20", "--rate", "50", "--timestamps", "ptp"]
        run = subprocess.run(
            [*NDTWIN, "send", "--json", *options, *common], capture_output=True, text=True, check=True
        )
        counts = json.loads(ended(reflector))
    figures = json.loads(run.stdout)
    assert (figures["sent"], figures["received"]) == (20, 20)
    assert (figures["forward_lost"], figures["backward_lost"]) == (0, 0)
    assert 0 < figures["forward_mean_s"] < 0.5
    assert counts == {"reflected": 20, "unsent": 0}


@pytest.mark.live
@pytest.mark.parametrize(("options", "answers"), [((), []), (("--answer-short",), [41])])
def test_short_requests_are_answered_where_the_operator_says_so(
    options: tuple[str, ...], answers: list[int]
) -> None:
    """TWAMP Light's least request, and a STAMP packet after it that is answered in any case."""
    with reflecting(*options) as (reflector, port), socket(AF_INET, SOCK_DGRAM) as sender:
        sender.settimeout(30)
        for octets in (14, 44):
            sender.sendto(bytes(octets), ("127.0.0.1", port))
        came = [len(sender.recv(2048)) for _ in (*answers, 44)]
        counts = json.loads(ended(reflector))
    assert came == [*answers, 44]
    assert counts.get("too-short", 0) == 1 - len(answers)


@pytest.mark.live
@pytest.mark.kafka
def test_the_probes_of_a_device_go_to_kafka(kafka: str, tmp_path: Path) -> None:
    """`stamp send --source` runs the inventory's probes of that device, tells of its life, and ends well."""
    with reflecting("--clock", "synchronised") as (_, port):
        (tmp_path / "inventory.toml").write_text(
            f"""
network = "stamped"
[[devices]]
name = "WA"
address = "192.0.2.1"
stamp = {{}}
[[devices]]
name = "NY"
address = "127.0.0.1"
stamp = {{ port = {port} }}
[[probes]]
source = "WA"
target = "*"
packets_per_s = 20.0
clock = "synchronised"
remote = true
"""
        )
        (tmp_path / "ndtwin.toml").write_text(
            f'run_dir = "{tmp_path}"\n[broker]\nbootstrap = "{kafka}"\n[pipeline]\nwindow_s = 2.0\n'
        )
        command = [*NDTWIN, "send", "--config", str(tmp_path / "ndtwin.toml"), "--source", "WA"]
        sender = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            reports = wait_for(
                lambda: [r for r in records_in(kafka, "ndt.delays", DelayReport) if r.network == "stamped"],
                lambda found: {r.device for r in found if r.delays} == {"WA", "NY"},
                timeout_s=60.0,
            )
            beats = wait_for(
                lambda: _beats(kafka),
                lambda found: any(beat.metrics.get("probes_received") for beat in found),
            )
        finally:
            ended(sender)
    assert {r.reporter for r in reports if r.device == "NY"} == {"WA"}
    assert {(r.method, r.direction) for r in reports if r.delays} == {("stamp", "one-way")}
    assert {beat.state for beat in beats} == {"running"}
    assert _beats(kafka)[-1].state == "stopped"


def _beats(kafka: str) -> list[Heartbeat]:
    return [beat for beat in records_in(kafka, "ndt.health", Heartbeat) if beat.component == "stamp-WA"]


def test_a_measurement_without_answer_says_what_was_lost() -> None:
    """Nobody listens: everything is lost, no delay is made up."""
    figures = measure_once(
        "127.0.0.1:1",
        count=3,
        rate_pps=50.0,
        auth_key=None,
        clock="kernel",
        clock_error_s=0.0,
        dscp=0,
        timeout_s=0.1,
    )
    assert (figures["sent"], figures["received"], figures["round_trip_lost"]) == (3, 0, 3)
    assert "round_trip_mean_s" not in figures
    assert figures["round_trip_quality"] == ["no-listener"]


def test_the_doctor_says_what_the_clock_allows(tmp_path: Path) -> None:
    """Probes that ask the kernel hear whether they can measure one-way; others are taken at their word."""
    path = tmp_path / "inventory.toml"
    for clock, told in (("kernel", 1), ("synchronised", 0)):
        path.write_text(
            'network = "n"\n[[devices]]\nname = "WA"\naddress = "192.0.2.1"\nstamp = {}\n'
            '[[devices]]\nname = "NY"\naddress = "192.0.2.2"\nstamp = {}\n'
            f'[[probes]]\nsource = "WA"\ntarget = "NY"\nclock = "{clock}"\n'
        )
        settings = load_settings(None, {"run_dir": str(tmp_path)})
        found = [finding for finding in examine(settings) if finding.what == "probe clock"]
        assert len(found) == told
        assert all("synchronised" in finding.detail for finding in found)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"auth_key": "plain"}, "a secret is never written here"),
        ({"clock": "sundial"}, "--clock sundial"),
        ({"stream": "flood"}, "stream"),
        ({"timestamps": "hours"}, "timestamps"),
    ],
)
def test_wrong_options_are_one_line(options: dict[str, str], problem: str) -> None:
    """Wrong use, told before anything is sent."""
    given = {"auth_key": None, "clock": "kernel", **options}
    with pytest.raises(UsageError, match=problem):
        measure_once("127.0.0.1:1", count=1, rate_pps=50.0, clock_error_s=0.0, dscp=0, **given)  # type: ignore[arg-type]  # a table's row


def test_what_cannot_be_sent_is_lost_and_says_why() -> None:
    """No such namespace: the measurement ends all the same, and tells the trouble."""
    figures = measure_once(
        "127.0.0.1:1",
        count=2,
        rate_pps=50.0,
        auth_key=None,
        clock="kernel",
        clock_error_s=0.0,
        dscp=0,
        timeout_s=0.1,
        netns="no-such",
    )
    assert (figures["sent"], figures["round_trip_lost"]) == (2, 2)
    assert "network namespace 'no-such' cannot be entered" in figures["trouble"]


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("192.0.2.1", ("192.0.2.1", 862)),
        ("192.0.2.1:5000", ("192.0.2.1", 5000)),
        ("::1", ("::1", 862)),
        ("[::1]:5000", ("::1", 5000)),
        ("[::1]", ("::1", 862)),
    ],
)
def test_addresses_of_the_command_line(text: str, parsed: tuple[str, int]) -> None:
    """With and without a port, both families."""
    assert endpoint(text) == parsed


@pytest.mark.parametrize(
    "text", ["192.0.2.1:http", "192.0.2.1:70000", "localhost", "no-such-host.invalid:862", ""]
)
def test_addresses_that_are_none(text: str) -> None:
    """Wrong use, told as such."""
    with pytest.raises(UsageError, match="is not ADDRESS:PORT"):
        endpoint(text)
