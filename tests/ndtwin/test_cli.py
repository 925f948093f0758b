"""The command line as a stranger meets it: exit codes, one clear line, no traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ndtwin.cli import app
from ndtwin.commands.records import parse_time_ns
from twin.errors import UsageError

COMMANDS = (
    "up", "drill", "doctor", "collect", "stream", "twin", "detect", "archive", "serve", "sink", "replay",
    "schemas", "train", "evaluate", "lab", "bench", "stamp",
)  # fmt: skip


def ndtwin(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    argv = (sys.executable, "-m", "ndtwin", *argv)
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    """--help of every command works and says something."""
    done = CliRunner().invoke(app, [command, "--help"])
    assert done.exit_code == 0, done.output
    assert len(done.output.splitlines()) > 5


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (("up", "--topology"), 2, "requires an argument"),
        (("nonsense",), 2, "No such command"),
        (("up", "--for", "-3"), 2, "give seconds greater than 0"),
        (("up", "--topology", "mars", "--headless", "--for", "5"), 2, "mars"),
        (("drill", "earthquake"), 2, "unknown fault 'earthquake': there is link-delay"),
        (("drill", "link-delay", "--lab", "netns"), 2, "unknown fault 'link-delay': there is link-capacity"),
        (("drill", "link-delay", "--target", "X->Y"), 2, "link-delay: unknown link 'X->Y': there is WA->CA1"),
        (("drill", "link-delay", "--magnitude", "99"), 2, "magnitude 99 is out of range: give"),
        (("lab", "fault", "list"), 1, "no lab answers in run: start `ndtwin up`"),
        (("lab", "fault", "stop"), 2, "name one fault id, or give --all"),
        (("replay", "--from", "yesterday", "--to", "0"), 2, "give a time such as"),
        (("replay", "--from", "0", "--to", "10"), 2, "archive"),
        (("serve", "--config", "no.toml"), 2, "cannot be read"),
        (("collect",), 2, "inventory"),
        (("train", "--recipe", "soup"), 2, "no recipe 'soup': choose one of"),
    ],
)
def test_wrong_use_gets_one_clear_line(argv: tuple[str, ...], code: int, says: str, tmp_path: Path) -> None:
    """What is wrong and what to do, the right exit code, and no traceback."""
    config = tmp_path / "ndtwin.toml"
    config.write_text("[broker]\nport = 29792\n[serve]\nport = 28480\n[lab]\nbase_address = '127.91.7.0'\n")
    done = ndtwin(*argv, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broker_that_is_away_is_one_line(tmp_path: Path) -> None:
    """A service without its broker says so and exits 1."""
    config = tmp_path / "ndtwin.toml"
    config.write_text("[broker]\nbootstrap = '127.0.0.1:1'\n")
    services = ("twin", "archive", "stream")
    with ThreadPoolExecutor() as pool:
        ended = list(pool.map(lambda service: ndtwin(service, cwd=tmp_path), services))
    for done in ended:
        assert done.returncode == 1, done.stderr
        assert "no Kafka broker answers at 127.0.0.1:1" in done.stderr
        assert "Traceback" not in done.stderr


def test_the_doctor_tells_what_is_there(tmp_path: Path) -> None:
    """On a machine where ndtwin works the doctor finds nothing missing and says so to programs too."""
    done = ndtwin("doctor", "--json", cwd=tmp_path)
    findings = {finding["what"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert done.returncode == 0, done.stdout
    assert findings["embedded broker"]["level"] == "ok"
    assert findings["model"]["detail"].startswith("routenet")


def test_the_doctor_finds_what_is_missing(tmp_path: Path) -> None:
    """A checkpoint, an inventory and a broker that are not there: exit code 1 and what to do."""
    (tmp_path / "ndtwin.toml").write_text(
        "lab_enabled = false\n[broker]\nbootstrap = '127.0.0.1:1'\n[twin]\ncheckpoint = 'no.pt'\n"
    )
    done = ndtwin("doctor", "--json", cwd=tmp_path)
    assert done.returncode == 1
    missing = {f["what"] for f in json.loads(done.stdout)["findings"] if f["level"] == "missing"}
    assert missing == {"kafka", "inventory", "model"}


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1769860800", 1_769_860_800_000_000_000),
        ("2026-01-31T12:00:00", 1_769_860_800_000_000_000),
        ("2026-01-31T13:00:00+01:00", 1_769_860_800_000_000_000),
    ],
)
def test_times_are_read_in_the_forms_people_write(text: str, ns: int) -> None:
    """Seconds since 1970, ISO without zone (UTC), ISO with zone."""
    assert parse_time_ns(text, "--from") == ns


def test_a_time_that_is_none_is_refused() -> None:
    """The option's name and an example are in the message."""
    with pytest.raises(UsageError, match="--to 'noon': give a time such as"):
        parse_time_ns("noon", "--to")
