"""A sample: one window of a network, what a model is given of it and what it should say; and its file.

A file holds the samples of one network end to end: sample i owns the flows
``range(flow_offsets[i], flow_offsets[i + 1])`` of every flow array. Rates and labels are float32 (relative
error 6e-8, far below any label's noise); capacities stay float64. Files are written beside and renamed, so a
file that exists is whole.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import DataError, NdtwinError
from twin.models import check_traffic
from twin.network import Floats, Ints, Link, Network, Paths, Traffic, Variability
from twin.scheduling import POLICIES, Scheduling

FORMAT = "ndtwin-samples-2"
Arrays = Mapping[str, NDArray[Any]]

LABELS = ("mean_s", "std_s", "loss", "count", "noise")
_RATES = ("bps", "pps", "size_scv")  # of Traffic
_VARIABILITY = ("gap_scv", "rate_scv", "rate_time_s")
_INDICES = ("path", "service_class")  # of Traffic
_LINK_ARRAYS = (
    "source_index",
    "target_index",
    "capacity_bps",
    "propagation_delay_s",
    "buffer_packets",
    "buffer_bits",
    "policy",
)


@dataclass(frozen=True)
class Sample:
    """One window: what a model is given, and what it should say."""

    name: str  # of the record, as messages call it
    network: Network
    traffic: Traffic
    mean_s: Floats  # [F] measured mean delay; 0 without a label
    std_s: Floats  # [F] standard deviation of the delay; 0 where jitter and loss are unknown
    loss: Floats  # [F] share of packets
    count: Floats  # [F] packets the figures rest on; 0 = no label
    noise: Floats  # [F] relative standard error of mean_s; 0 unknown

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """The flows whose delay was measured, [F]."""
        return (self.count > 0) & (self.mean_s > 0)


def check_sample(sample: Sample) -> None:
    """TopologyError or DataError when traffic or labels do not fit the network, or hold what cannot be."""
    check_traffic(sample.network, sample.traffic)
    flows = len(sample.traffic.bps)
    for label in LABELS:
        values = getattr(sample, label)
        if values.shape != (flows,):
            raise DataError(
                f"sample {sample.name}: {label} has shape {values.shape}, {flows} flows need one each"
            )
        wrong = ~np.isfinite(values) | (values < 0)
        if wrong.any():
            flow = int(np.argmax(wrong))
            raise DataError(f"sample {sample.name}: {label} of flow {flow} is {values[flow]}")
    if (sample.loss > 1).any():
        raise DataError(f"sample {sample.name}: flow {int(np.argmax(sample.loss))} loses more than all")


class BadRecord(DataError):
    """One record of a data set cannot be used; the reader counts it under ``why`` and goes on."""

    def __init__(self, why: str, detail: str) -> None:
        super().__init__(detail)
        self.why = why


@dataclass
class Dropped:
    """What a reader left out, and why."""

    samples: Counter[str] = field(default_factory=Counter)  # why → whole records
    flows: Counter[str] = field(default_factory=Counter)  # why → flows kept as traffic, without a label
    named: list[str] = field(default_factory=list)  # one line a record

    def sample(self, name: str, error: BadRecord) -> None:
        """A whole record is left out."""
        self.samples[error.why] += 1
        self.named.append(f"{name}: {error.why}: {error}")

    def unlabelled(self, why: str, flows: int) -> None:
        """So many flows have no label."""
        if flows:
            self.flows[why] += flows


# ------------------------------------------------------------------------------------------ writing


def write_samples(path: Path, samples: Sequence[Sample]) -> None:
    """Write the samples of one network; beside first, then renamed. ValueError when their networks differ."""
    if not samples or any(not _same(samples[0].network, sample.network) for sample in samples):
        raise ValueError("a file holds one or more samples that share their network")
    arrays = _network_arrays(samples[0].network) | _flow_arrays(samples)
    beside = path.with_name(path.name + ".part")
    with beside.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, format=np.array(FORMAT), **arrays)
    os.replace(beside, path)


def _same(one: Network, other: Network) -> bool:
    """Whether two networks hold the same."""
    if one is other:
        return True
    ours, theirs = _network_arrays(one), _network_arrays(other)
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)


def _network_arrays(network: Network) -> dict[str, NDArray[Any]]:
    scheduling = [link.scheduling for link in network.links]
    arrays: dict[str, NDArray[Any]] = {name: getattr(network, name) for name in _LINK_ARRAYS}
    arrays |= {
        "nodes": np.array(network.nodes, dtype=np.str_),
        "up": np.array([link.up for link in network.links], dtype=np.bool_),
        "source_interface": np.array([link.source_interface for link in network.links], dtype=np.str_),
        "target_interface": np.array([link.target_interface for link in network.links], dtype=np.str_),
        "queue_offsets": network.queue_offsets,
        "link_queue_of_class": np.array([own.queue_of_class for own in scheduling], dtype=np.int8),
        "queue_weights": np.array([weight for own in scheduling for weight in own.weights], dtype=np.float64),
        "next_link": network.next_link,
    }
    if network.routes is not None:
        arrays |= {"route_links": network.routes.links, "route_offsets": network.routes.offsets}
    return arrays


def _flow_arrays(samples: Sequence[Sample]) -> dict[str, NDArray[Any]]:
    """Everything that differs from sample to sample, end to end."""
    columns = [_flow_columns(sample) for sample in samples]
    if any(own.keys() != columns[0].keys() for own in columns):
        raise ValueError("the samples of a file know the same things of their traffic")
    arrays = {name: np.concatenate([own[name] for own in columns]) for name in columns[0]}
    observed_s = [sample.traffic.observed_s for sample in samples]
    arrays["observed_s"] = np.array([np.nan if lasted is None else lasted for lasted in observed_s])
    arrays["names"] = np.array([sample.name for sample in samples], dtype=np.str_)
    arrays["flow_offsets"] = np.cumsum([0, *(len(sample.traffic.bps) for sample in samples)], dtype=np.int64)
    return arrays


def _flow_columns(sample: Sample) -> dict[str, NDArray[Any]]:
    """Arrays of one sample, [F] each; what is not known is left out."""
    traffic = sample.traffic
    reals = {name: getattr(traffic, name) for name in _RATES}
    reals |= {name: getattr(sample, name) for name in LABELS}
    if traffic.variability is not None:
        reals |= {name: getattr(traffic.variability, name) for name in _VARIABILITY}
    columns = {
        name: np.asarray(values, dtype=np.float32) for name, values in reals.items() if values is not None
    }
    indices = {name: getattr(traffic, name) for name in _INDICES}
    return columns | {
        name: np.asarray(values, dtype=np.int32) for name, values in indices.items() if values is not None
    }


# ------------------------------------------------------------------------------------------ reading


def read_samples(path: Path) -> list[Sample]:
    """The samples of a file; DataError, which names the file, when it is missing, damaged or foreign."""
    try:
        return list(_samples_of(_load(path)))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, EOFError, KeyError, IndexError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path} is truncated or no file of samples: {' '.join(str(error).split())}"
        ) from None
    except NdtwinError as error:
        raise DataError(f"{path}: {error}") from None


def read_stored(path: Path, dropped: Dropped | None = None) -> Iterator[Sample]:
    """The samples of a file, or of all ``.npz`` below a folder; none is dropped: we wrote them."""
    files = sorted(path.rglob("*.npz")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path} holds no .npz: is it the ndtwin format?")
    for file in files:
        yield from read_samples(file)


def _load(path: Path) -> dict[str, NDArray[Any]]:
    with path.open("rb") as file:  # numpy leaves a broken archive open that it opened itself
        if not zipfile.is_zipfile(file):
            raise ValueError("it is no .npz archive")
        file.seek(0)
        arrays = dict(np.load(file))
    if str(arrays["format"]) != FORMAT:
        raise ValueError(f"its format is {arrays['format']}, this version reads {FORMAT}")
    return arrays


def _samples_of(arrays: Arrays) -> Iterator[Sample]:
    network = _network_of(arrays)
    offsets = arrays["flow_offsets"]
    for index, name in enumerate(arrays["names"]):
        flows = slice(int(offsets[index]), int(offsets[index + 1]))
        labels = {label: _reals(arrays[label][flows]) for label in LABELS}
        lasted = float(arrays["observed_s"][index])
        traffic = replace(_traffic_of(arrays, flows), observed_s=None if np.isnan(lasted) else lasted)
        sample = Sample(name=str(name), network=network, traffic=traffic, **labels)
        check_sample(sample)
        yield sample


def _traffic_of(arrays: Arrays, flows: slice) -> Traffic:
    def known(name: str) -> Ints | None:
        return arrays[name][flows].astype(np.int64) if name in arrays else None

    variability = None
    if "gap_scv" in arrays:
        variability = Variability(*(_reals(arrays[name][flows]) for name in _VARIABILITY))
    return Traffic(
        bps=_reals(arrays["bps"][flows]),
        pps=_reals(arrays["pps"][flows]),
        path=known("path"),
        service_class=known("service_class"),
        size_scv=_reals(arrays["size_scv"][flows]) if "size_scv" in arrays else None,
        variability=variability,
    )


def _network_of(arrays: Arrays) -> Network:
    names = tuple(str(name) for name in arrays["nodes"])
    routes = None
    if "route_links" in arrays:
        routes = Paths(links=arrays["route_links"], offsets=arrays["route_offsets"])
    return Network(names, tuple(_links_of(arrays, names)), arrays["next_link"], routes)


def _links_of(arrays: Arrays, names: Sequence[str]) -> Iterator[Link]:
    columns = {name: arrays[name].tolist() for name in (*_LINK_ARRAYS, "up", "source_interface")}
    weights, first = arrays["queue_weights"].tolist(), arrays["queue_offsets"].tolist()
    for link, queues in enumerate(arrays["link_queue_of_class"].tolist()):
        yield Link(
            source=names[columns["source_index"][link]],
            target=names[columns["target_index"][link]],
            capacity_bps=columns["capacity_bps"][link],
            propagation_delay_s=columns["propagation_delay_s"][link],
            buffer_packets=columns["buffer_packets"][link],
            source_interface=columns["source_interface"][link],
            target_interface=str(arrays["target_interface"][link]),
            up=columns["up"][link],
            scheduling=Scheduling(
                policy=POLICIES[columns["policy"][link]],
                queue_of_class=tuple(queues),
                weights=tuple(weights[first[link] : first[link + 1]]),
            ),
            buffer_bits=columns["buffer_bits"][link],
        )


def _reals(values: NDArray[Any]) -> Floats:
    return values.astype(np.float64)
