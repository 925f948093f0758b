"""The OMNeT++ format: what it says becomes samples, and what it cannot mean is left out and counted."""

from __future__ import annotations

import tarfile
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from measured_data import FLOWS, RESULTS, omnet_texts, pack, public_data, write_folder

from twin.errors import DataError
from twin.omnet import read_omnet
from twin.samples import Dropped, Sample
from twin.scheduling import Scheduling


def _read(texts: dict[str, str], folder: Path) -> tuple[list[Sample], Dropped]:
    dropped = Dropped()
    return list(read_omnet(write_folder(texts, folder), dropped)), dropped


def _changed(file: str, before: str, after: str, records: int = 2) -> dict[str, str]:
    """The texts of ``records`` with the first ``before`` in ``file`` replaced."""
    texts = omnet_texts(records)
    assert before in texts[file]
    return texts | {file: texts[file].replace(before, after, 1)}


def test_a_graph_becomes_a_network_with_its_queues(tmp_path: Path) -> None:
    """Capacity comes from the edge; buffer, policy, weights and queues of classes from the sending node."""
    (sample, _), dropped = _read(omnet_texts(), tmp_path)
    assert not dropped.named
    links = sample.network.links
    assert [link.name for link in links] == ["n0000->n0001", "n0001->n0000", "n0001->n0002", "n0002->n0001"]
    assert {link.capacity_bps for link in links} == {10_000.0}
    assert [link.buffer_bits for link in links] == [8_000, 16_000, 16_000, 32_000]
    assert links[0].scheduling == Scheduling()
    assert links[1].scheduling == Scheduling("WFQ", (0, 1, 2), (60.0, 30.0, 10.0))
    assert links[3].scheduling == Scheduling("SP", (0, 1, 1), (1.0, 1.0))
    assert sample.network.paths.of(sample.network.path_index("n0000", "n0002")).tolist() == [0, 2]


def test_flows_carry_the_mean_rates_and_the_variability_of_their_laws(tmp_path: Path) -> None:
    """Poisson, constant and on-off flows, each with the squared variation of its packet sizes."""
    (sample, _), _ = _read(omnet_texts(), tmp_path)
    traffic = sample.traffic
    names = [sample.network.path_name(path) for path in traffic.path]
    assert names == ["n0000->n0001", "n0000->n0002", "n0001->n0000", "n0001->n0002", "n0002->n0000"]
    assert traffic.service_class.tolist() == [0, 1, 2, 0, 2]
    # 1 packet/s for 5 of 10 s, and the one that begins an on period: 6 packets a period of 10 s.
    assert traffic.pps.tolist() == [2, 1, 0.6, 3, 4]
    assert traffic.bps.tolist() == [2000, 1000, 600, 3000, 4000]
    assert traffic.size_scv == pytest.approx([0, 0.49, 0.25, 0, 0])
    assert traffic.variability.gap_scv.tolist() == [1, 0, 0, 1, 0]
    assert traffic.variability.rate_scv.tolist() == [0, 0, 1, 0, 0]
    assert traffic.variability.rate_time_s.tolist() == [0, 0, 2.5, 0, 0]


def test_results_become_labels(tmp_path: Path) -> None:
    """Jitter is a variance, drops are a part of what was sent, and the count is what arrived."""
    # 0 -> 1 sends 2 packets/s and loses a quarter of them.
    texts = _changed(f"{RESULTS}/simulationResults.txt", "2.0,2.0,0,", "2.0,2.0,0.5,", records=1)
    usage = f"{RESULTS}/linkUsage.txt"
    texts[usage] = texts[usage].replace("0.300000,0.000000", "0.250000,0.100000", 1)
    (sample,), dropped = _read(texts, tmp_path)
    assert not dropped.named
    assert sample.labelled.all()
    assert sample.mean_s == pytest.approx([0.2] * 5)
    assert sample.std_s == pytest.approx([0.1] * 5)
    assert sample.loss.tolist() == [0.25, 0, 0, 0, 0]
    assert sample.count.tolist() == [1500, 1000, 600, 3000, 4000]
    assert sample.noise[0] == pytest.approx(0.1 / 0.2 / np.sqrt(1500))


def test_the_older_edition_is_read(tmp_path: Path) -> None:
    """2021: queues of packets, one FIFO queue, a path a line that need not follow destinations."""
    texts = omnet_texts()
    graph = texts["graphs/g.txt"]
    for line in [line for line in graph.split("\n") if "tosTo" in line or "Weights" in line]:
        graph = graph.replace(line + "\n", "")
    for policy in ("WFQ", "SP"):
        graph = graph.replace(policy, "FIFO")
    for bits in ("8000", "16000,16000,16000", "32000,32000"):
        graph = graph.replace(f'bufferSizes "{bits}"', 'queueSizes "32"')
    texts["graphs/g.txt"] = graph
    texts["routings/r.txt"] = "0;1\n0;1;2\n1;0\n1;2\n2;1;0\n"
    (sample, _), dropped = _read(texts, tmp_path)
    assert not dropped.named
    assert {(link.buffer_packets, link.buffer_bits) for link in sample.network.links} == {(32, 0.0)}
    assert sample.network.routes is not None
    assert sample.network.paths.lengths.tolist() == [1, 2, 1, 1, 2, 0]  # 2 -> 1 has no line
    assert sample.traffic.hops(sample.network).of(4).tolist() == [3, 1]


def test_every_way_to_keep_the_files_gives_the_same_samples(tmp_path: Path) -> None:
    """Loose files, a results folder, an archive of archives, a folder of those, one results archive."""
    texts = omnet_texts()
    folder = write_folder(texts, tmp_path / "loose")
    archive = pack(texts, tmp_path / "packed.tar.gz")
    parts = write_folder(
        {name: text for name, text in texts.items() if not name.startswith("results")}, tmp_path / "parts"
    )
    with tarfile.open(archive) as outer:
        (parts / f"{RESULTS}.tar.gz").write_bytes(outer.extractfile(f"tiny/{RESULTS}.tar.gz").read())
    many = tmp_path / "many"
    many.mkdir()
    pack(texts, many / "100.tar.gz", "100")
    pack(texts, many / "75.tar.gz", "75")
    expected = [sample.mean_s.tolist() for sample in read_omnet(folder)]
    for path in (folder / RESULTS, archive, parts, parts / f"{RESULTS}.tar.gz"):
        assert [sample.mean_s.tolist() for sample in read_omnet(path)] == expected, path
    names = [sample.name for sample in read_omnet(many)]
    assert names == [f"{size}/{RESULTS} record {record}" for size in (75, 100) for record in (0, 1)]


def test_an_unpacked_results_archive_counts_once(tmp_path: Path) -> None:
    """Where a results folder lies beside its archive, the archive is passed over."""
    texts = omnet_texts()
    folder = write_folder(texts, tmp_path)
    (folder / f"{RESULTS}.tar.gz").write_bytes(b"never opened")
    assert len(list(read_omnet(folder))) == 2


def test_flows_of_one_cell_share_a_label_only_if_it_is_their_own(tmp_path: Path) -> None:
    """Two flows in a cell are two flows; their aggregate labels neither, the results of flows label both."""
    both = "0,1200,1.2,10,0,1000,0:1,800,0.8,0,1000,1"
    texts = _changed(f"{RESULTS}/traffic.txt", FLOWS[0, 1], both, records=1)
    (sample,), dropped = _read(texts, tmp_path / "aggregate")
    assert len(sample.traffic.bps) == 6
    assert sample.labelled.tolist() == [False, False, True, True, True, True]
    assert dropped.flows == {"only the sum of several flows was measured": 2}
    cells = texts[f"{RESULTS}/simulationResults.txt"].partition("|")[2]
    own = cells.replace("2.0,2.0,0,0.2", "1.2,1.2,0,0.3,-1,0,0,0,0,0,0.01:0.8,0.8,0,0.1", 1)
    (sample,), dropped = _read(texts | {f"{RESULTS}/flowSimulationResults.txt": own}, tmp_path / "flows")
    assert sample.mean_s.tolist() == [0.3, 0.1, 0.2, 0.2, 0.2, 0.2]
    assert not dropped.flows


def test_a_flow_without_deliveries_is_traffic_without_a_label(tmp_path: Path) -> None:
    """What sends and never arrives is kept as load and counted."""
    texts = _changed(f"{RESULTS}/simulationResults.txt", "2.0,2.0,0,0.2", "2.0,2.0,2.0,-1", records=1)
    usage = f"{RESULTS}/linkUsage.txt"
    texts[usage] = texts[usage].replace("0.300000,0.000000", "0.100000,0.900000", 1)
    (sample,), dropped = _read(texts, tmp_path)
    assert sample.labelled.tolist() == [False, True, True, True, True]
    assert dropped.flows == {"no packet delivered": 1}


GRAPH, ROUTING = "graphs/g.txt", "routings/r.txt"
TRAFFIC, MEASURED = f"{RESULTS}/traffic.txt", f"{RESULTS}/simulationResults.txt"
USAGE, STABLE, INPUTS = f"{RESULTS}/linkUsage.txt", f"{RESULTS}/stability.txt", f"{RESULTS}/input_files.txt"


@pytest.mark.parametrize(
    ("file", "before", "after", "why"),
    [
        (STABLE, ";OK;", ";NO;", "unstable"),
        (STABLE, "1000;", "never;", "numbers"),
        (INPUTS, "0;g.txt;r.txt", "0;g.txt", "truncated"),
        (INPUTS, "0;g.txt", "0;other.txt", "missing file"),
        (TRAFFIC, ";-1,0,-1,0,0;\n", ";\n", "truncated"),
        (TRAFFIC, "0,2000,2,10", "0,nan,2,10", "rates"),
        (TRAFFIC, "0,2000,2,10", "0,2000,-2,10", "rates"),
        (TRAFFIC, "0,2000,2,10", "0,2000,0,10", "rates"),
        (TRAFFIC, "0,2000,2,10", "0,2k,2,10", "numbers"),
        (TRAFFIC, "0,2000,2,10", "7,2000,2,10", "traffic law"),
        (TRAFFIC, "0,2000,2,10,0,1000,0", "0,2000,2,10,9,1000,0", "traffic law"),
        (TRAFFIC, "0,2000,2,10,0,1000,0", "0,2000,2,10,0,1000,5", "traffic law"),
        (TRAFFIC, "0,2000,2,10,0,1000,0", "0,2000", "traffic law"),
        (TRAFFIC, "1,5,5,10", "1,5,0,10", "rates"),
        (TRAFFIC, "2,500,0.5,1500,0.5,2", "3,500,0.5,1500,0.5,2", "traffic law"),
        (MEASURED, "2.0,2.0,0,0.2", "2.0,2.0,0,nan", "numbers"),
        (MEASURED, "2.0,2.0,0,0.2", "2.0,2.0,-1,0.2", "numbers"),
        (MEASURED, "2.0,2.0,0,0.2", "2.0,2.0,3,0.2", "conservation"),
        (MEASURED, "2.0,2.0,0,0.2,", "2.0,2.0,0,", "truncated"),
        (MEASURED, "2.0,2.0,0,0.2", "9.0,9.0,0,0.2", "conservation"),
        (USAGE, "0.300000,", "0.900000,", "conservation"),
        (USAGE, "-1;0.3", "-1;x", "numbers"),
    ],
)
def test_a_bad_line_costs_its_record_only(
    file: str, before: str, after: str, why: str, tmp_path: Path
) -> None:
    """The record is named and counted under the reason, and the next one is read."""
    samples, dropped = _read(_changed(file, before, after), tmp_path)
    assert [sample.name for sample in samples] == [f"{RESULTS} record 1"]
    assert dropped.samples == {why: 1}
    assert dropped.named[0].startswith(f"{RESULTS} record 0: {why}: ")


@pytest.mark.parametrize(
    ("file", "before", "after", "why"),
    [
        (GRAPH, '"WFQ"', '"PGPS"', "scheduler"),
        (GRAPH, '"0;1;2"', '"0;1"', "scheduler"),
        (GRAPH, '"60,30,10"', '"60,30"', "numbers"),
        (GRAPH, '"60,30,10"', '"60,30,x"', "numbers"),
        (GRAPH, "10000.0", "0", "capacity"),
        (GRAPH, "10000.0", "nan", "capacity"),
        (GRAPH, "10000.0", "-5", "capacity"),
        (GRAPH, "10000.0", "fast", "truncated"),
        (GRAPH, "port 1", "gate 1", "truncated"),
        (GRAPH, "target 1", "target 8", "truncated"),
        (GRAPH, "id 2", "id 3", "truncated"),
        (GRAPH, '"8000"', '"0"', "buffer"),
        (GRAPH, '"16000,16000,16000"', '"16000,8000,16000"', "buffer"),
        (ROUTING, "-1,0,0", "-1,-1,-1", "routes"),
        (ROUTING, "0,-1,1", "0,-1,0", "routes"),  # 0 -> 1 -> 0 -> …
        (ROUTING, "0,-1,1", "0,-1,7", "routes"),
        (ROUTING, "0,-1,1", "0,-1,x", "routes"),
        (ROUTING, "-1,0,0,\n0,-1,1,\n0,0,-1", "0;1\n0;1;0;1;2", "routes"),
        (ROUTING, "-1,0,0,\n0,-1,1,\n0,0,-1", "0;1\n0;2", "routes"),
    ],
)
def test_a_bad_network_costs_every_record_on_it(
    file: str, before: str, after: str, why: str, tmp_path: Path
) -> None:
    """Unknown schedulers, impossible capacities, loops and gaps in the routing are told as what they are."""
    samples, dropped = _read(_changed(file, before, after), tmp_path)
    assert samples == []
    assert dropped.samples == {why: 2}


def test_a_missing_last_line_costs_its_record(tmp_path: Path) -> None:
    """A results file that ends early loses the records that it lacks."""
    texts = omnet_texts()
    texts[MEASURED] = texts[MEASURED].split("\n")[0] + "\n"
    samples, dropped = _read(texts, tmp_path)
    assert len(samples) == 1
    assert dropped.samples == {"truncated": 1}


@pytest.mark.parametrize("keep", [10, 300, -200])
def test_a_truncated_archive_is_named(keep: int, tmp_path: Path) -> None:
    """An archive cut anywhere is one line with its name."""
    archive = pack(omnet_texts(), tmp_path / "cut.tar.gz")
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"cut\.tar\.gz.* is truncated or no archive") as caught:
        list(read_omnet(archive))
    assert "\n" not in str(caught.value)


def test_a_truncated_archive_within_an_archive_is_named(tmp_path: Path) -> None:
    """A results archive that is cut is named with the one it lies in."""
    (tmp_path / f"{RESULTS}.tar.gz").write_bytes(b"\x1f\x8b\x08\x00 cut")
    write_folder(
        {name: text for name, text in omnet_texts().items() if "/g" in name or "/r" in name}, tmp_path
    )
    with pytest.raises(DataError, match=rf"{RESULTS}\.tar\.gz.* is truncated or no archive"):
        list(read_omnet(tmp_path))


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    """An empty folder, no folder, a text file, and results without one of their files."""
    (tmp_path / "text.csv").write_text("a,b")
    texts = omnet_texts()
    del texts[USAGE]
    lacking = write_folder(texts, tmp_path / "lacking")
    (tmp_path / "empty").mkdir()
    for path, says in (
        (tmp_path / "empty", r"holds no results_\*\.tar\.gz"),
        (tmp_path / "absent", "no such file or folder"),
        (tmp_path / "text.csv", r"neither a folder nor a \.tar\.gz"),
        (lacking, r"lacks linkUsage\.txt"),
    ):
        with pytest.raises(DataError, match=says):
            list(read_omnet(path))


@pytest.mark.data
@pytest.mark.parametrize(
    ("parts", "records", "flows"),
    [
        (("routenet-omnet-2021", "samples.tar.gz"), 130, 98_750),
        (("routenet-omnet-2022", "50.tar.gz"), 4, 9_800),
    ],
)
def test_the_public_records_obey_the_laws(parts: tuple[str, ...], records: int, flows: int) -> None:
    """Nothing of the public files is left out: conservation holds on every link of every record."""
    dropped = Dropped()
    samples = list(read_omnet(public_data(*parts), dropped))
    assert len(samples) == records
    assert not dropped.named
    assert not dropped.flows
    assert sum(int(sample.labelled.sum()) for sample in samples) == flows


@pytest.mark.data
def test_the_mean_rates_are_what_flows_sent() -> None:
    """On-off flows send 1 + rate·on packets a period: by the clock of the constant flows, within 1 %."""
    for sample in islice(read_omnet(public_data("routenet-omnet-2022", "75.tar.gz")), 2):
        vary = sample.traffic.variability
        assert vary is not None
        periods_s = sample.count / (1 - sample.loss) / sample.traffic.pps
        on_off = vary.rate_scv > 0
        constant = (vary.gap_scv == 0) & ~on_off
        assert np.median(periods_s[on_off]) == pytest.approx(np.median(periods_s[constant]), rel=0.01)
