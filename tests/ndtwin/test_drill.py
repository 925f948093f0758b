"""What `ndtwin drill` tells people: first where to watch, at the end how it went."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from ndtwin.drill import DrillReport

# As a shell that runs a script starts what is to run in the background.
INTERRUPTS_IGNORED = ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")


def test_a_drill_says_first_where_its_page_is_and_can_be_stopped_from_then_on(tmp_path: Path) -> None:
    """It waits for minutes, on ports of its own: the first line says where to look meanwhile.

    Who interrupts it is told so, and not that the loop is not whole."""
    argv = (*INTERRUPTS_IGNORED, sys.executable, "-m", "ndtwin", "drill", "link-delay")
    with subprocess.Popen(argv, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as drill:
        assert drill.stderr is not None
        first = drill.stderr.readline()
        drill.send_signal(signal.SIGINT)
        _, rest = drill.communicate(timeout=60)
    assert first.startswith("starting a loop of its own; page at http://127.0.0.1:")
    assert rest.splitlines()[-1] == "ndtwin: stopped before the drill had an answer"
    assert drill.returncode == 1


def test_a_drill_goes_to_the_lab_that_the_configuration_names(tmp_path: Path) -> None:
    """Its faults are those of that lab, also where the command line says nothing of labs."""
    (tmp_path / "ndtwin.toml").write_text('lab_kind = "netns"\n')
    argv = (sys.executable, "-m", "ndtwin", "drill", "link-delay")
    done = subprocess.run(argv, cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("ndtwin: unknown fault 'link-delay': there is link-capacity")


def test_a_report_is_told_in_words() -> None:
    """What was injected, found and resolved, the verdict last; nothing looks like a program's list."""
    report = DrillReport("link-delay", "IL->PA", suspects=["IL->PA extra-delay 0.97", "PA slow-node 0.03"])
    report.detected, report.windows_to_detect, report.rank_of_target = True, 2, 1
    report.resolved, report.windows_to_resolve = True, 1
    report.judge()
    assert [line.split(maxsplit=1) for line in report.lines()[:3]] == [
        ["fault", "link-delay on IL->PA"],
        ["detected", "in window 2"],
        ["target", "suspect number 1"],
    ]
    assert report.lines()[-1].split() == ["verdict", "passed"]


def test_what_late_records_mend_is_resolved_at_once() -> None:
    """An exporter that goes on tells of the window before, too: no window has the number 0."""
    report = DrillReport("silent-exporter", "B", detected=True, windows_to_detect=3, resolved=True)
    report.windows_to_resolve = 0
    assert "resolved      at once" in report.lines()
    assert "detected      in window 3" in report.lines()


def test_a_report_of_a_drill_that_failed_says_what_was_not() -> None:
    """Nothing detected: no suspect, and other alerts by what they said."""
    report = DrillReport("link-delay", "IL->PA", false_alerts=1, other_alerts=["load-divergence: NY is late"])
    report.judge()
    told = dict(line.split(maxsplit=1) for line in report.lines() if not line.startswith("false"))
    assert (told["detected"], told["target"], told["suspects"]) == ("no", "not suspected", "none")
    assert "false alerts  load-divergence: NY is late" in report.lines()
    assert told["verdict"] == "failed"
