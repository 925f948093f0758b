"""What programs read: stdout holds the result alone, whatever is logged meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

FAST = {  # bench → options that make it quick; the figures are worth nothing then
    "simulator": ("--seconds", "0.1"),
    "ipfix": ("--records", "1000"),
    "fuzz": ("--datagrams", "200"),
    "inference": ("--nodes", "4", "--model", "mg1k"),
    # long enough that the silent device is told as such, which is logged
    "snmp": ("--devices", "10", "--interfaces", "2", "--period", "0.5", "--seconds", "0.1"),
}


@pytest.mark.live
@pytest.mark.parametrize("bench", FAST)
def test_a_bench_prints_one_object_and_nothing_else(bench: str) -> None:
    """`ndtwin bench NAME --json | python -m json.tool` works."""
    done = _python("-m", "ndtwin", "bench", bench, *FAST[bench], "--json")
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout), dict)


def test_the_command_line_logs_to_stderr() -> None:
    """Also in a command that set up no logs of its own."""
    code = (
        "import sys, structlog\n"
        "from ndtwin import cli\n"
        "@cli.app.command()\n"
        "def shout() -> None:\n"
        "    structlog.get_logger('ndtwin.test').warning('a thing happened')\n"
        "sys.argv = ['ndtwin', 'shout']\n"
        "cli.main()\n"
    )
    done = _python("-c", code)
    assert (done.returncode, done.stdout) == (0, "")
    assert "a thing happened" in done.stderr


def _python(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *argv], capture_output=True, text=True, check=False, timeout=120)
