"""Reader of the OMNeT++ data of the RouteNet papers and the Graph Neural Networking Challenges (2021, 2022).

What the files mean, as checked against them (40 records of 2022, 130 of 2021)
------------------------------------------------------------------------------
*Results.* A cell tells what a flow *sent*: kbit/s, packets/s, and how many of those packets/s were dropped.
So loss = dropped ÷ packets: Poisson and constant flows send their nominal rate whatever is lost. "Jitter" is
the variance of the delay. The head of the line is Σ packets/s, Σ drops/s and a mean delay.

*Conservation.* Σ sent over the flows of a link ÷ bandwidth is its reported utilisation, or above it where
packets were lost on the way; Σ delivered is at most the utilisation. Both are checked for every link, where a
lost packet may be twice the mean size, as buffers in bits lose large packets more often.

*Link usage.* A queue's mean occupancy is told per busy time (÷ its own utilisation); the packet in service
counts as buffered: a queue of 32 packets never holds more.

*Routing.* 2022: a table of output ports. 2021: one line a path, ``source;…;destination``, which need not
follow destinations, so those networks bring their ``routes``.

*On-off traffic.* Packets/s are those while on. The generator sends a packet when an on period begins, and
others at equal gaps, of which it keeps what is left at the end of a period: 1 + rate·on packets a period, 9 %
(median) above what the nominal rates say, spread as if on and off times alone were random. What a model is
given is that mean, and gaps that do not vary while on; no measured rate enters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from twin.errors import DataError, NdtwinError
from twin.network import Floats, Network, Paths
from twin.omnet_files import NEEDED, Results, companions, containers, results
from twin.omnet_network import network_of
from twin.omnet_text import (
    DELAY,
    DROPPED,
    PACKETS,
    SENT,
    VARIANCE,
    Flows,
    flow_results_of,
    flows_of,
    results_of,
    usage_of,
)
from twin.samples import BadRecord, Dropped, Sample, check_sample

Bools = NDArray[np.bool_]

TOLERANCE = 0.01  # of conservation: figures carry six digits
LARGEST = 2.0  # size of a lost packet ÷ mean size, at most
SLACK = 2e-3  # of a link's bandwidth: what may be under way at the end


def read_omnet(path: Path, dropped: Dropped | None = None) -> Iterator[Sample]:
    """The records of a folder of data folders or archives, of one data folder, or of one archive.

    A bad record is left out and counted in ``dropped``; a file that cannot be read on is a DataError.
    """
    dropped = Dropped() if dropped is None else dropped
    seen = 0
    for container in containers(path):
        reader = _Container(container, dropped)
        yield from reader.samples()
        seen += reader.records
    if not seen:
        raise DataError(f"{path} holds no results_*.tar.gz and no results folder: is it the OMNeT++ format?")


@dataclass
class _Container:
    """One folder or archive while it is read."""

    path: Path
    dropped: Dropped
    records: int = 0
    texts: dict[PurePosixPath, str] = field(default_factory=dict)
    networks: dict[tuple[PurePosixPath, str, str], Network] = field(default_factory=dict)

    def samples(self) -> Iterator[Sample]:
        self.texts = companions(self.path)
        for result in results(self.path):
            lacking = [name for name in NEEDED if name not in result.lines]
            if lacking:
                raise DataError(f"{self.path}: {result.name} lacks {', '.join(lacking)}")
            for line, named in enumerate(result.lines["input_files.txt"]):
                self.records += 1
                name = f"{result.name} record {named.split(';')[0]}"
                try:
                    yield self._sample(name, result, line)
                except BadRecord as error:
                    self.dropped.sample(name, error)
                except NdtwinError as error:
                    self.dropped.sample(name, BadRecord("numbers", str(error)))

    def _sample(self, name: str, result: Results, line: int) -> Sample:
        text = {file: lines[line] if line < len(lines) else "" for file, lines in result.lines.items()}
        simulated_s = _simulated_s(text["stability.txt"])
        network = self._network(result.folder, text["input_files.txt"])
        flows = flows_of(text["traffic.txt"], network)
        cells = results_of(text["simulationResults.txt"], len(network.nodes))
        _check_conservation(network, flows, cells, text["linkUsage.txt"])
        rows, own = _of_flows(flows, cells, text.get("flowSimulationResults.txt"), self.dropped)
        traffic = replace(flows.traffic, observed_s=simulated_s)
        sample = Sample(name, network, traffic, **_labels(rows, own, simulated_s, self.dropped))
        check_sample(sample)
        return sample

    def _network(self, folder: PurePosixPath, line: str) -> Network:
        words = line.strip().split(";")
        if len(words) != 3:
            raise BadRecord("truncated", f"input_files.txt names no graph and routing: {line!r}")
        key = (folder, words[1], words[2])
        if key not in self.networks:
            try:
                graph, routing = (
                    self.texts[folder / "graphs" / key[1]],
                    self.texts[folder / "routings" / key[2]],
                )
            except KeyError as error:
                raise BadRecord("missing file", f"{self.path} holds no {error.args[0]}") from None
            self.networks[key] = network_of(graph, routing)
        return self.networks[key]


def _simulated_s(line: str) -> float:
    """Simulated seconds of a record that came to rest."""
    words = line.strip().split(";")
    if "OK" not in words:
        raise BadRecord("unstable", f"the simulation did not come to rest: {line.strip()!r}")
    try:
        return float(words[0])
    except ValueError:
        raise BadRecord("numbers", f"stability.txt tells no time: {line.strip()!r}") from None


def _of_flows(flows: Flows, cells: Floats, line: str | None, dropped: Dropped) -> tuple[Floats, Bools]:
    """Results of every flow, [F, COLUMNS], and whether they are its own, not a sum over several, [F]."""
    if line:
        rows, cell = flow_results_of(line, round(len(cells) ** 0.5))
        sending = np.isin(cell, flows.cell)
        if not np.array_equal(cell[sending], flows.cell):
            raise BadRecord("truncated", "flowSimulationResults.txt tells other flows than traffic.txt")
        return rows[sending], np.ones(len(flows.cell), dtype=np.bool_)
    own = np.bincount(flows.cell, minlength=len(cells))[flows.cell] == 1
    dropped.unlabelled("only the sum of several flows was measured", int((~own).sum()))
    return cells[flows.cell], own


def _labels(rows: Floats, own: Bools, simulated_s: float, dropped: Dropped) -> dict[str, Floats]:
    """Mean, standard deviation, loss, packets and noise of every flow, [F] each.

    The noise is that of independent delays: a lower bound where a flow's packets meet the same backlog.
    """
    _check_results(rows)
    sent, loss = rows[:, PACKETS], _loss(rows)
    packets = np.rint(sent * (1 - loss) * simulated_s)
    arrived = own & (packets > 0) & (rows[:, DELAY] > 0)
    dropped.unlabelled("no packet sent", int((own & (sent <= 0)).sum()))
    dropped.unlabelled("no packet delivered", int((own & (sent > 0) & ~arrived).sum()))
    count = np.where(arrived, packets, 0.0)
    mean = np.where(arrived, rows[:, DELAY], 0.0)
    std = np.where(arrived, np.sqrt(np.maximum(rows[:, VARIANCE], 0.0)), 0.0)
    noise = np.divide(std, mean * np.sqrt(count), out=np.zeros_like(std), where=arrived)
    return {"mean_s": mean, "std_s": std, "loss": np.where(own, loss, 0.0), "count": count, "noise": noise}


def _check_results(rows: Floats) -> None:
    if not np.isfinite(rows).all():
        raise BadRecord("numbers", "simulationResults.txt holds NaN or an infinite number")
    if (rows[:, [SENT, PACKETS, DROPPED]] < 0).any():
        raise BadRecord("numbers", "a flow sent or lost less than nothing")
    if (rows[:, DROPPED] > (1 + TOLERANCE) * rows[:, PACKETS] + SLACK).any():
        raise BadRecord("conservation", "a flow lost more packets than it sent")


def _check_conservation(network: Network, flows: Flows, cells: Floats, line: str) -> None:
    """What flows sent and delivered must embrace what every link says it carried.

    A link whose ends are joined by another link too is left out: the files tell them together.
    """
    nodes = len(network.nodes)
    own = np.unique(flows.cell)
    source, destination = np.divmod(own, nodes)
    hops = network.paths.select(source * (nodes - 1) + destination - (destination > source))
    _check_results(cells[own])
    most = _offered(network, hops, 1e3 * cells[own, SENT])
    least = _offered(network, hops, 1e3 * cells[own, SENT] * np.maximum(1 - LARGEST * _loss(cells[own]), 0.0))
    carried, known = _carried(network, line)
    fits = (carried <= most * (1 + TOLERANCE) + SLACK) & (carried >= least * (1 - TOLERANCE) - SLACK)
    if (known & ~fits).any():
        link = int(np.argmax(known & ~fits))
        raise BadRecord(
            "conservation",
            f"link {network.links[link].name} says it carried {carried[link]:.3f} of its bandwidth,"
            f" its flows {least[link]:.3f} to {most[link]:.3f}",
        )


def _loss(rows: Floats) -> Floats:
    """Share of packets lost, of every row."""
    sent = rows[:, PACKETS]
    loss = np.divide(rows[:, DROPPED], sent, out=np.zeros_like(sent), where=sent > 0)
    return np.minimum(loss, 1.0)


def _offered(network: Network, hops: Paths, bps: Floats) -> Floats:
    """Σ over the paths of every link ÷ its bandwidth, [L]."""
    sums = np.bincount(hops.links, weights=bps[hops.hop_path], minlength=len(network.links))
    return np.asarray(sums / network.capacity_bps)


def _carried(network: Network, line: str) -> tuple[Floats, Bools]:
    """The utilisation that every link reports, and whether it is its own, [L] each."""
    nodes = len(network.nodes)
    cell, utilisation = usage_of(line, nodes)
    told = np.full(nodes * nodes, np.nan)
    told[cell] = utilisation
    at = network.source_index * nodes + network.target_index
    return told[at], np.bincount(at, minlength=nodes * nodes)[at] == 1
