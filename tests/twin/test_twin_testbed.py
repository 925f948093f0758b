"""The real-testbed format: links and paths become a network, and what cannot be is left out and counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measured_data import public_data, testbed_record, write_lines

from twin.errors import DataError
from twin.samples import Dropped
from twin.testbed import ACCESS_BUFFER_BITS, BUFFER_BITS, read_testbed, sample_of

Record = dict[str, Any]


def test_links_are_joined_where_paths_go_from_one_to_the_next(tmp_path: Path) -> None:
    """Link 2 ends where link 0 begins, and that where link 1 begins: four nodes in a row."""
    (sample,) = read_testbed(write_lines([testbed_record()], tmp_path / "a.jsonl.gz"))
    network = sample.network
    assert len(network.nodes) == 4
    first, second, fast = network.links
    assert fast.target == first.source
    assert first.target == second.source
    assert len({fast.source, first.source, second.source, second.target}) == 4
    assert [link.capacity_bps for link in network.links] == [1e9, 1e9, 10e9]
    assert network.paths.of(1).tolist() == [2, 0, 1]


def test_the_first_slow_link_of_a_path_has_the_small_buffer(tmp_path: Path) -> None:
    """Both paths enter at link 0, whatever fast link comes before it."""
    (sample,) = read_testbed(write_lines([testbed_record()], tmp_path / "a.jsonl.gz"))
    assert [link.buffer_bits for link in sample.network.links] == [
        ACCESS_BUFFER_BITS,
        BUFFER_BITS,
        BUFFER_BITS,
    ]


def test_flows_and_delays_come_in_our_units() -> None:
    """Rates as told, milliseconds as seconds, bursts as on-off traffic, jitter unknown."""
    sample = sample_of(json.dumps(testbed_record()).encode(), "one")
    assert sample.mean_s == pytest.approx([0.25e-3, 4e-3])
    assert sample.traffic.bps.tolist() == [8e6, 4e6]
    assert sample.traffic.pps.tolist() == [1000, 1000]
    vary = sample.traffic.variability
    assert vary is not None
    assert vary.gap_scv.tolist() == [0, 1]
    assert vary.rate_scv.tolist() == [0, 1]
    assert (vary.rate_time_s > 0).tolist() == [False, True]
    assert sample.labelled.all()
    assert not sample.std_s.any()


def _put(key: str, *value: Any) -> Callable[[Record], None]:
    def change(record: Record) -> None:
        record[key] = list(value)

    return change


BROKEN: dict[str, tuple[str, Callable[[Record], None]]] = {
    "a zero rate": ("rates", _put("flow_traffic", [0.0], [4e6])),
    "a negative rate": ("rates", _put("flow_packets", [-1000.0], [1000.0])),
    "a zero capacity": ("capacity", _put("link_capacity", [0.0], [1.0], [10.0])),
    "a negative delay": ("numbers", _put("target", 0.25, -4.0)),
    "a NaN delay": ("unreadable", _put("target", float("nan"), 4.0)),
    "a text for a number": ("unreadable", _put("target", "soon", 4.0)),
    "a flow too few": ("lengths", _put("target", 0.25)),
    "a link too many": ("lengths", _put("link_capacity", [1.0], [1.0], [1.0], [1.0])),
    "an empty path": ("routes", _put("flow_length", 0, 3)),
    "a link that is not there": ("routes", _put("link_to_path", [0, 7], [2, 0, 1])),
    "no inverse": ("routes", _put("path_to_link", [[0, 0]], [[0, 1], [1, 2]], [[1, 0]])),
    "a rate that packets do not make": ("conservation", _put("flow_packet_size", [9000.0], [4000.0])),
    "a flow of two kinds": ("traffic law", _put("flow_type", [1.0, 1.0], [0.0, 1.0])),
    "no flow at all": ("lengths", _put("flow_id")),
    "a missing array": ("unreadable", lambda record: record.pop("link_to_path")),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_bad_line_is_left_out_and_counted(what: str, tmp_path: Path) -> None:
    """The line is named with the reason, and the next one is read."""
    why, change = BROKEN[what]
    broken = testbed_record()
    change(broken)
    dropped = Dropped()
    samples = list(read_testbed(write_lines([broken, testbed_record()], tmp_path / "a.jsonl.gz"), dropped))
    assert [sample.name for sample in samples] == ["a.jsonl.gz line 2"]
    assert dropped.samples == {why: 1}
    assert dropped.named[0].startswith(f"a.jsonl.gz line 1: {why}: ")


def test_a_path_that_loops_over_one_link_is_left_out(tmp_path: Path) -> None:
    """A link followed by itself would join a node to itself."""
    record = testbed_record()
    record["link_to_path"] = [[0, 0], [2, 0, 1]]
    record["path_to_link"] = [[[0, 0], [0, 1], [1, 1]], [[1, 2]], [[1, 0]]]
    dropped = Dropped()
    assert list(read_testbed(write_lines([record], tmp_path / "a.jsonl.gz"), dropped)) == []
    assert dropped.samples == {"routes": 1}


@pytest.mark.parametrize("keep", [5, 100, -8])
def test_a_truncated_file_is_named(keep: int, tmp_path: Path) -> None:
    """A file cut anywhere gives one line that names it and how far it was read."""
    file = write_lines([testbed_record()] * 40, tmp_path / "cut.jsonl.gz")
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"cut\.jsonl\.gz is truncated or no gzip file, after line \d+"):
        list(read_testbed(file))


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    """No file, another kind of file, a folder without any."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.csv").write_text("a")
    for name, says in (
        ("empty", r"holds no \.jsonl"),
        ("x.csv", r"neither \.jsonl nor"),
        ("y", "no such file"),
    ):
        with pytest.raises(DataError, match=says):
            list(read_testbed(tmp_path / name))


@pytest.mark.data
@pytest.mark.parametrize("kind", ["mb", "cbr_mb"])
def test_the_public_records_obey_the_laws(kind: str) -> None:
    """Nothing of the first records is left out, and 1 Gbit/s links queue between faster ones."""
    dropped = Dropped()
    file = public_data("real-testbed-2023", f"{kind}-fold0.jsonl.gz")
    samples = list(islice(read_testbed(file, dropped), 60))
    assert not dropped.named
    for sample in samples:
        assert sample.labelled.all()
        assert sorted(set(sample.network.capacity_bps)) == [1e9, 10e9, 80e9]
        assert np.array_equal(sample.traffic.hops(sample.network).links, sample.network.paths.links)
