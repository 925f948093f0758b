"""`ndtwin evaluate --dataset`: the judgement of models on measured data, from the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from measured_data import omnet_texts, pack, public_data, testbed_record, write_folder, write_lines

from ndtwin.cli import main
from twin.omnet import read_omnet
from twin.samples import write_samples

MODEL_KEYS = {"mape", "mape_sample_mean", "median_ape", "p90_ape"}
MODEL_KEYS |= {"coverage90", "coverage90_worst_group", "width90_rel"}


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


Evaluate = Callable[..., Done]


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Evaluate:
    """Run `ndtwin evaluate` as the console script does, in this process: starting one takes seconds."""

    def run(*argv: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["ndtwin", "evaluate", *map(str, argv)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Done(int(ended.value.code or 0), captured.out, captured.err)

    return run


def _omnet(folder: Path) -> Path:
    return pack(omnet_texts(), folder / "tiny.tar.gz")


def _testbed(folder: Path) -> Path:
    return write_lines([testbed_record()] * 2, folder / "tiny.jsonl.gz")


def _ndtwin(folder: Path) -> Path:
    write_samples(folder / "tiny.npz", list(read_omnet(write_folder(omnet_texts(), folder / "loose"))))
    return folder / "tiny.npz"


@pytest.mark.parametrize(
    ("kind", "make", "flows"), [("omnet", _omnet, 10), ("testbed", _testbed, 4), ("ndtwin", _ndtwin, 10)]
)
def test_every_format_is_judged(
    evaluate: Evaluate, kind: str, make: Callable[[Path], Path], flows: int, tmp_path: Path
) -> None:
    """The last line of stdout is the report, with the models asked for and the median."""
    done = evaluate(
        "--dataset", make(tmp_path), "--format", kind, "--model", "mg1k", "--model", "mm1b", "--json"
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert (report["flows"], report["samples"], report["dropped"]) == (flows, 2, 0)
    assert list(report["models"]) == ["mg1k", "mm1b", "median"]
    for figures in report["models"].values():
        assert figures.keys() >= MODEL_KEYS
        assert all(figures[key] >= 0 for key in MODEL_KEYS)


def test_people_get_tables_and_what_was_left_out(evaluate: Evaluate, tmp_path: Path) -> None:
    """Without --json: errors by model, size and policy on stdout; the bad record by name on stderr."""
    texts = omnet_texts()
    stable = next(name for name in texts if name.endswith("stability.txt"))
    texts[stable] = texts[stable].replace(";OK;", ";NO;", 1)
    done = evaluate("--dataset", pack(texts, tmp_path / "tiny.tar.gz"), "--model", "mg1k")
    assert done.returncode == 0, done.stderr
    assert "5 flows of 1 samples; 1 left out" in done.stdout
    for word in ("mg1k", "median", "coverage90", "FIFO", "nodes"):
        assert word in done.stdout
    assert "record 0: unstable: the simulation did not come to rest" in done.stderr


def test_a_limit_ends_the_reading(evaluate: Evaluate, tmp_path: Path) -> None:
    """--limit 1 judges one of two samples."""
    done = evaluate("--dataset", _omnet(tmp_path), "--model", "mg1k", "--limit", "1", "--json")
    assert json.loads(done.stdout.splitlines()[-1])["samples"] == 1


def test_wrong_data_sets_get_one_clear_line(evaluate: Evaluate, tmp_path: Path) -> None:
    """A wrong path, format or model, a foreign file and a truncated one: exit code 2 and no traceback."""
    omnet, testbed = _omnet(tmp_path), _testbed(tmp_path)
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(omnet.read_bytes()[:-100])
    cases = (
        (("--dataset", tmp_path / "absent"), "no such file or folder"),
        (("--dataset", testbed), "is it the OMNeT++ format?"),
        (("--dataset", omnet, "--format", "testbed"), "is it the testbed format?"),
        (("--dataset", omnet, "--format", "ndtwin"), "is truncated or no file of samples"),
        (("--dataset", omnet, "--format", "pcap"), "no format 'pcap': choose one of omnet, testbed, ndtwin"),
        (("--dataset", omnet, "--model", "oracle"), "no model 'oracle': choose from"),
        (("--dataset", cut), "cut.tar.gz"),
    )
    for argv, says in cases:
        done = evaluate(*argv, *(() if "--model" in argv else ("--model", "mg1k")))
        assert done.returncode == 2, done.stderr
        assert says in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.data
def test_the_strong_queueing_model_beats_the_weak_one_on_the_public_records(evaluate: Evaluate) -> None:
    """50 nodes, 2022: M/G/1/K errs less than half as much as M/M/1/b, and that less than a constant."""
    data = public_data("routenet-omnet-2022", "50.tar.gz")
    done = evaluate("--dataset", data, "--model", "mg1k", "--model", "mm1b", "--json")
    mape = {name: own["mape"] for name, own in json.loads(done.stdout.splitlines()[-1])["models"].items()}
    assert 2 * mape["mg1k"] < mape["mm1b"] < mape["median"]
