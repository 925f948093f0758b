"""Reader of the real-testbed data of the Graph Neural Networking Challenge 2023: one JSON object a line.

The files tell links and the flows' paths over them, and no nodes: where a path goes from link a to link b,
the end of a and the start of b are one node. Paths may meet a node twice (routers hang on one switch), so the
networks bring their ``routes``; flow k takes route k. Delays come in ms, capacities in Gbit/s.

What is not told, and what is assumed (from folds 0 and 1 of the files alone)
-----------------------------------------------------------------------------
*Buffers.* On paths with one saturated link (load above 1.1) delays have two levels: 14 Mbit of backlog where
that link is the first slow one of the path, 138 Mbit elsewhere, whatever the packet sizes. So buffers are
counted in bits, and every link has one of two.

*Fixed delays.* Where no link is loaded above 0.35 a delay is 9 µs a link of 1 Gbit/s, 11 µs one of 10 and
7.5 µs one of 80, and the packet's transmission: within 5 % (mean, 1,740 flows of the two folds 0; least
squares on relative errors). They stand as the links' propagation.

*Bursts.* A multi-burst flow is given as on-off traffic that is on half the time, its rate remembered for
10 ms, the order of its delays (median 4 ms, 90 % below 30 ms). Packets of a flow are all of one size.

*Labels.* Mean delays only: jitter and loss are unknown (``std_s`` is 0). How many packets a mean rests on is
not told either; ``count`` is the packets of one second.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np

from twin.errors import DataError, NdtwinError
from twin.network import Floats, Link, Network, Paths, Traffic, Variability
from twin.samples import BadRecord, Dropped, Sample, check_sample

ACCESS_BUFFER_BITS, BUFFER_BITS = 14e6, 138e6
FIXED_DELAY_S = ((2e9, 9e-6), (2e10, 11e-6), (np.inf, 7.5e-6))  # (capacity below, delay)
SLOW_BPS = 10e9  # links below it queue; the generator's own are as fast or faster
BURST_RATE_SCV, BURST_TIME_S = 1.0, 0.01
TOLERANCE = 0.01  # of rate = packets × size
_SUFFIXES = (".jsonl", ".jsonl.gz")

Column = list[tuple[float]]


class Record(msgspec.Struct, frozen=True):
    """A line: arrays over flows, links, or the flows of a link."""

    flow_id: list[str]
    flow_traffic: Column  # bit/s
    flow_packets: Column  # packets/s
    flow_packet_size: Column  # bits
    flow_type: list[tuple[float, float]]  # constant rate, multi-burst
    flow_length: list[int]
    link_capacity: Column  # Gbit/s
    link_to_path: list[list[int]]  # the links of every flow, in order
    path_to_link: list[list[tuple[int, int]]]  # (flow, place in its path) of every link
    target: list[float]  # ms


def read_testbed(path: Path, dropped: Dropped | None = None) -> Iterator[Sample]:
    """The records of one file, or of all ``.jsonl.gz`` of a folder; bad ones are counted in ``dropped``."""
    dropped = Dropped() if dropped is None else dropped
    for file in _files(path):
        for number, line in enumerate(_lines(file), start=1):
            name = f"{file.name} line {number}"
            try:
                yield sample_of(line, name)
            except BadRecord as error:
                dropped.sample(name, error)
            except NdtwinError as error:
                dropped.sample(name, BadRecord("numbers", str(error)))


def sample_of(line: bytes, name: str) -> Sample:
    """The sample that one line tells; BadRecord when it tells none."""
    try:
        record = msgspec.json.decode(line, type=Record)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRecord("unreadable", f"the line is no record of the testbed: {error}") from None
    _check(record)
    traffic = _traffic(record)
    flows = len(record.flow_id)
    mean = np.array(record.target) / 1e3
    sample = Sample(
        name=name,
        network=_network(record),
        traffic=traffic,
        mean_s=mean,
        std_s=np.zeros(flows),
        loss=np.zeros(flows),
        count=np.rint(np.maximum(traffic.pps, 1.0)),
        noise=np.zeros(flows),
    )
    check_sample(sample)
    return sample


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.name.endswith(_SUFFIXES))
        if not files:
            raise DataError(f"{path} holds no .jsonl.gz: is it the testbed format?")
        return files
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if not path.name.endswith(_SUFFIXES):
        raise DataError(f"{path} is neither .jsonl nor .jsonl.gz: is it the testbed format?")
    return [path]


def _lines(file: Path) -> Iterator[bytes]:
    """The lines that say anything; DataError, which tells how far it came, where the file is cut."""
    number = 0
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):  # noqa: B007  # told below
                if line.strip():
                    yield line
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} is truncated or no gzip file, after line {number}: {error}") from None


# ------------------------------------------------------------------------------------------ checks


def _check(record: Record) -> None:
    flows, links = len(record.flow_id), len(record.link_capacity)
    for name in ("flow_traffic", "flow_packets", "flow_packet_size", "flow_type", "flow_length", "target"):
        if len(getattr(record, name)) != flows:
            raise BadRecord("lengths", f"{name} tells {len(getattr(record, name))} flows of {flows}")
    if len(record.link_to_path) != flows or len(record.path_to_link) != links or not flows:
        raise BadRecord("lengths", f"paths and links are told for others than {flows} flows, {links} links")
    if record.flow_length != [len(path) for path in record.link_to_path] or 0 in record.flow_length:
        raise BadRecord("routes", "a path is empty, or not as long as flow_length says")
    if any(not 0 <= link < links for path in record.link_to_path for link in path):
        raise BadRecord("routes", "a path uses a link that is not there")
    if [sorted(uses) for uses in record.path_to_link] != _inverse(record.link_to_path, links):
        raise BadRecord("routes", "path_to_link is not the inverse of link_to_path")
    if any(source == target for source, target in _ends(record.link_to_path, links)):
        raise BadRecord("routes", "paths join the two ends of a link, which then is a loop")
    _check_rates(record)


def _check_rates(record: Record) -> None:
    for name in ("flow_traffic", "flow_packets", "flow_packet_size", "link_capacity"):
        values = _column(getattr(record, name))
        wrong = ~(np.isfinite(values) & (values > 0))
        if wrong.any():
            at = int(np.argmax(wrong))
            raise BadRecord(
                "capacity" if name == "link_capacity" else "rates", f"{name} {at} is {values[at]}"
            )
    rate = _column(record.flow_packets) * _column(record.flow_packet_size)
    if (np.abs(rate / _column(record.flow_traffic) - 1) > TOLERANCE).any():
        raise BadRecord("conservation", "a flow's rate is not its packets times their size")
    if any(sorted(kind) != [0.0, 1.0] for kind in record.flow_type):
        raise BadRecord("traffic law", "a flow is neither of constant rate nor multi-burst")


def _inverse(paths: Sequence[Sequence[int]], links: int) -> list[list[tuple[int, int]]]:
    """The (flow, place) pairs of every link."""
    uses: list[list[tuple[int, int]]] = [[] for _ in range(links)]
    for flow, path in enumerate(paths):
        for place, link in enumerate(path):
            uses[link].append((flow, place))
    return uses


# ------------------------------------------------------------------------------------------ parts


def _column(column: Column) -> Floats:
    return np.array(column, dtype=np.float64).reshape(-1)


def _traffic(record: Record) -> Traffic:
    burst = np.array([kind[1] for kind in record.flow_type])
    return Traffic(
        bps=_column(record.flow_traffic),
        pps=_column(record.flow_packets),
        size_scv=np.zeros(len(burst)),
        variability=Variability(burst, BURST_RATE_SCV * burst, BURST_TIME_S * burst),
    )


def _network(record: Record) -> Network:
    capacity = 1e9 * _column(record.link_capacity)
    ends = _ends(record.link_to_path, len(capacity))
    names = tuple(f"n{node:03d}" for node in range(1 + max(max(pair) for pair in ends)))
    access = {next((link for link in path if capacity[link] < SLOW_BPS), -1) for path in record.link_to_path}
    links = tuple(
        Link(
            names[source],
            names[target],
            float(capacity[link]),
            next(delay for below, delay in FIXED_DELAY_S if capacity[link] < below),
            source_interface=str(link),
            buffer_bits=ACCESS_BUFFER_BITS if link in access else BUFFER_BITS,
        )
        for link, (source, target) in enumerate(ends)
    )
    hops = np.array([link for path in record.link_to_path for link in path], dtype=np.int64)
    routes = Paths(hops, np.cumsum([0, *record.flow_length], dtype=np.int64))
    return Network(names, links, np.full((len(names), len(names)), -1, dtype=np.int16), routes)


def _ends(paths: Sequence[Sequence[int]], links: int) -> list[tuple[int, int]]:
    """(source, target) node of every link: what paths join is one node (union-find over link ends)."""
    parent = list(range(2 * links))  # link l begins at 2l and ends at 2l + 1

    def find(end: int) -> int:
        while parent[end] != end:
            parent[end] = parent[parent[end]]
            end = parent[end]
        return end

    for path in paths:
        for before, after in pairwise(path):
            parent[find(2 * before + 1)] = find(2 * after)
    number = {root: node for node, root in enumerate(sorted({find(end) for end in range(2 * links)}))}
    return [(number[find(2 * link)], number[find(2 * link + 1)]) for link in range(links)]
