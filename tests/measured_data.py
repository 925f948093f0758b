"""Tiny measured data sets in the public formats, as texts that a test may break before it writes them."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

RESULTS = "results_tiny_0_1"
_NODE = """  node [
    id {id}
    label "{id}"
    bufferSizes "{buffers}"
    schedulingPolicy "{policy}"
    levelsQoS "3"
    schedulingWeights "{weights}"
    tosToQoSqueue "{queues}"
  ]
"""
_EDGE = """  edge [
    source {source}
    target {target}
    key 0
    port {port}
    weight 1
    bandwidth {bandwidth}
  ]
"""
# The flows of the line 0 - 1 - 2, cell by cell; 2 -> 1 is idle. Every size law has a mean of 1,000 bits.
FLOWS = {
    (0, 1): "0,2000,2,10,0,1000,0",
    (0, 2): "1,1000,1,2,1000,300,1700,1",
    (1, 0): "4,500,1,5,5,10,3,1000,2,500,0.5,1500,0.5,2",
    (1, 2): "0,3000,3,10,0,1000,0",
    (2, 0): "1,4000,4,0,1000,2",
}
SENT_BPS = {(0, 1): 2000, (0, 2): 1000, (1, 0): 600, (1, 2): 3000, (2, 0): 4000}
CARRIED_BPS = {(0, 1): 3000, (1, 0): 4600, (1, 2): 4000, (2, 1): 4000}


def omnet_texts(records: int = 2) -> dict[str, str]:
    """Path below the data folder → text of a 2022 data set whose records are all alike."""
    cells = [(source, target) for source in range(3) for target in range(3)]
    usage = ";".join(_usage(CARRIED_BPS[cell] / 10_000) if cell in CARRIED_BPS else "-1" for cell in cells)
    results = ";".join(_result(SENT_BPS[cell]) if cell in SENT_BPS else _result(0) for cell in cells)
    traffic = ";".join(FLOWS.get(cell, "-1,0,-1,0,0") for cell in cells)
    names = "\n".join(f"{record};g.txt;r.txt" for record in range(records))
    every = "\n".join
    return {
        "graphs/g.txt": _graph(),
        "routings/r.txt": "-1,0,0,\n0,-1,1,\n0,0,-1,\n",
        f"{RESULTS}/input_files.txt": names + "\n",
        f"{RESULTS}/traffic.txt": every([f"4000|{traffic};"] * records) + "\n",
        f"{RESULTS}/simulationResults.txt": every([f"10.6,0,0.2|{results};"] * records) + "\n",
        f"{RESULTS}/linkUsage.txt": every([f"{usage};"] * records) + "\n",
        f"{RESULTS}/stability.txt": every(["1000;0.0009;OK;Mem(KB):1;Time(s):1"] * records) + "\n",
    }


def _graph() -> str:
    nodes = _NODE.format(id=0, buffers="8000", policy="FIFO", weights="-", queues="0,1,2")
    nodes += _NODE.format(id=1, buffers="16000,16000,16000", policy="WFQ", weights="60,30,10", queues="0;1;2")
    nodes += _NODE.format(id=2, buffers="32000,32000", policy="SP", weights="-", queues="0;1,2")
    ports = ((0, 1, 0), (1, 0, 0), (1, 2, 1), (2, 1, 0))
    edges = "".join(_EDGE.format(source=s, target=t, port=port, bandwidth=10_000.0) for s, t, port in ports)
    return f"graph [\n  directed 1\n  multigraph 1\n{nodes}{edges}]\n"


def _usage(utilisation: float) -> str:
    return f"{utilisation:.6f},0.000000,1000.0:{utilisation:.6f},0.000000,1.0,2.0,1000.0"


def _result(bps: float) -> str:
    """A cell of simulationResults.txt: a tenth is dropped of nothing; mean 0.2 s, variance 0.01 s²."""
    if not bps:
        return "0,0,0,-1,-1,-1,-1,-1,-1,-1,-1"
    return f"{bps / 1000},{bps / 1000},0,0.2,-1.6,0.1,0.1,0.2,0.3,0.3,0.01"


def write_folder(texts: dict[str, str], folder: Path) -> Path:
    """Write a data set as plain files."""
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def pack(texts: dict[str, str], archive: Path, folder: str = "tiny") -> Path:
    """Write a data set as one archive, its results as an archive within, before what they need."""
    inner = {name: text.encode() for name, text in texts.items() if name.startswith("results")}
    outer = {f"{folder}/{RESULTS}.tar.gz": _tar(inner)}
    outer |= {f"{folder}/{name}": text.encode() for name, text in texts.items() if name not in inner}
    archive.write_bytes(_tar(outer))
    return archive


def _tar(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def testbed_record() -> dict[str, Any]:
    """Two flows that share the middle of three links; the second begins at a fast link."""
    return {
        "flow_id": ["0_1_0", "2_1_0"],
        "flow_traffic": [[8e6], [4e6]],
        "flow_packets": [[1000.0], [1000.0]],
        "flow_packet_size": [[8000.0], [4000.0]],
        "flow_type": [[1.0, 0.0], [0.0, 1.0]],
        "flow_length": [2, 3],
        "link_capacity": [[1.0], [1.0], [10.0]],
        "link_to_path": [[0, 1], [2, 0, 1]],
        "path_to_link": [[[0, 0], [1, 1]], [[0, 1], [1, 2]], [[1, 0]]],
        "target": [0.25, 4.0],
    }


testbed_record.__test__ = False  # type: ignore[attr-defined]  # pytest collects by name


def write_lines(records: list[dict[str, Any]], file: Path) -> Path:
    """Write testbed records, one a line."""
    file.write_bytes(gzip.compress("".join(json.dumps(record) + "\n" for record in records).encode()))
    return file


def public_data(*parts: str) -> Path:
    """A part of the public data sets; the test is skipped, with the reason, where it is not there."""
    beside = Path(__file__).parents[2] / "shared" / "data"  # beside a developer's checkout
    path = Path(os.environ.get("NDTWIN_DATA", beside)).joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path} is not there: set NDTWIN_DATA to the folder of the public data sets")
    return path
