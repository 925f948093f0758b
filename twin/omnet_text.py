"""Lines of the OMNeT++ result files as arrays: traffic, results, link usage.

Every line holds N² cells, row-major over (source, destination). A flow is told by a time law with its
parameters, a size law with its parameters, and its class of service, all between commas.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np

from twin.network import Floats, Ints, Network, Traffic, Variability
from twin.samples import BadRecord
from twin.scheduling import CLASSES

POISSON, CBR, ON_OFF = "0", "1", "4"
TIME_PARAMETERS = {POISSON: 3, CBR: 2, ON_OFF: 5}
FIXED, BINOMIAL, GENERIC = "0", "2", "3"
IDLE = "-1"

SENT, PACKETS, DROPPED, DELAY, VARIANCE = 0, 1, 2, 3, 10  # columns of a result
COLUMNS = 11


def cells_of(line: str, nodes: int, file: str) -> list[str]:
    """The N² cells after the head, which ends at ``|``."""
    cells = line.rpartition("|")[2].strip().rstrip(";").split(";")
    if len(cells) != nodes * nodes:
        raise BadRecord("truncated", f"{file} has {len(cells)} cells, {nodes} nodes need {nodes * nodes}")
    return cells


# ------------------------------------------------------------------------------------------ traffic


@dataclass(frozen=True)
class Flows:
    """The flows of a traffic line."""

    traffic: Traffic
    cell: Ints  # [F] the cell each flow comes from


@dataclass(frozen=True)
class _Tail:
    """What follows a flow's time law."""

    size_scv: float
    service_class: int


def flows_of(line: str, network: Network) -> Flows:
    """Every flow that sends, with the mean rates that its laws give."""
    nodes = len(network.nodes)
    cell: list[int] = []
    columns: list[tuple[float, ...]] = []
    tails: dict[str, _Tail] = {}
    for index, text in enumerate(cells_of(line, nodes, "traffic.txt")):
        for flow in text.split(":"):
            if not flow.startswith(IDLE):
                cell.append(index)
                columns.append(_flow(flow, tails))
    bps, pps, gap_scv, rate_scv, rate_time_s, size_scv, service_class = np.array(columns).reshape(-1, 7).T
    wrong = ~(np.isfinite(bps) & np.isfinite(pps) & (bps > 0) & (pps > 0))
    if wrong.any():
        at = divmod(cell[int(np.argmax(wrong))], nodes)
        raise BadRecord("rates", f"the flow {at[0]}->{at[1]} sends NaN, nothing or less")
    at_cell = np.array(cell, dtype=np.int64)
    traffic = Traffic(
        bps=bps,
        pps=pps,
        path=_paths(at_cell, network),
        service_class=service_class.astype(np.int64),
        size_scv=size_scv,
        variability=Variability(gap_scv, rate_scv, rate_time_s),
    )
    return Flows(traffic, at_cell)


def _paths(cell: Ints, network: Network) -> Ints:
    """The canonical path of every flow, which must exist."""
    nodes = len(network.nodes)
    source, destination = np.divmod(cell, nodes)
    path = source * (nodes - 1) + destination - (destination > source)
    lost = source == destination
    lost[~lost] = network.paths.lengths[path[~lost]] == 0
    if lost.any():
        flow = int(np.argmax(lost))
        raise BadRecord("routes", f"{source[flow]}->{destination[flow]} sends, and has no route or a loop")
    return np.asarray(path)


def _flow(text: str, tails: dict[str, _Tail]) -> tuple[float, ...]:
    """bps, pps, gap_scv, rate_scv, rate_time_s, size_scv, class of one flow."""
    law = text.partition(",")[0]
    count = TIME_PARAMETERS.get(law)
    words = text.split(",", 1 + (count or 0))
    if count is None or len(words) != count + 2:
        raise BadRecord("traffic law", f"the flow {text!r} has an unknown time law or ends early")
    try:
        rates = _rates(law, [float(word) for word in words[1:-1]])
        if words[-1] not in tails:
            tails[words[-1]] = _tail(words[-1])
    except (ValueError, IndexError, ZeroDivisionError):
        raise BadRecord("numbers", f"the flow {text!r} holds what is no number") from None
    tail = tails[words[-1]]
    return (*rates, tail.size_scv, tail.service_class)


def _rates(law: str, given: list[float]) -> tuple[float, ...]:
    """bps, pps, gap_scv, rate_scv, rate_time_s of a time law; its cap on gaps (10 means) changes none."""
    bps, pps = given[:2]
    if law == POISSON:
        return bps, pps, 1.0, 0.0, 0.0
    if law == CBR:
        return bps, pps, 0.0, 0.0, 0.0
    off_s, on_s = given[2:4]
    if not (on_s > 0 and off_s >= 0):
        raise BadRecord("rates", f"a flow is on for {on_s} s and off for {off_s} s")
    period_s = on_s + off_s
    begins = (1 + pps * on_s) / (pps * on_s)  # a packet at once, then others at equal gaps
    return bps * begins, begins * pps * on_s / period_s, 0.0, off_s / on_s, on_s * off_s / period_s


def _tail(text: str) -> _Tail:
    """Size law and class: squared variation of sizes from their moments."""
    law, *rest = text.split(",")
    given = [float(word) for word in rest]
    service_class = given.pop()
    if service_class not in range(CLASSES):
        raise BadRecord("traffic law", f"class of service {service_class}: there are {CLASSES}, from 0")
    return _Tail(_size_scv(law, given), int(service_class))


def _size_scv(law: str, given: list[float]) -> float:
    if law == FIXED:
        return 0.0
    if law == BINOMIAL:  # two sizes around their mean: variance = (mean − small)·(large − mean)
        mean, small, large = given
        return max((mean - small) * (large - mean), 0.0) / mean**2
    if law == GENERIC:
        sizes, shares = np.array(given[2::2]), np.array(given[3::2])
        if len(sizes) != given[1] or len(shares) != given[1]:
            raise BadRecord("traffic law", f"{given[1]:g} packet sizes are announced, others follow")
        mean = float(sizes @ shares / shares.sum())
        return float((sizes - mean) ** 2 @ shares / shares.sum()) / mean**2
    raise BadRecord("traffic law", f"unknown law of packet sizes {law!r}")


# ------------------------------------------------------------------------------------------ results


def results_of(line: str, nodes: int) -> Floats:
    """The aggregates of all cells, [N², COLUMNS]."""
    return _matrix(cells_of(line, nodes, "simulationResults.txt"), "simulationResults.txt")


def flow_results_of(line: str, nodes: int) -> tuple[Floats, Ints]:
    """The results of every flow of every cell, [F', COLUMNS], and its cell, [F']."""
    cells = [text.split(":") for text in cells_of(line, nodes, "flowSimulationResults.txt")]
    rows = _matrix(list(chain.from_iterable(cells)), "flowSimulationResults.txt")
    return rows, np.repeat(np.arange(len(cells)), [len(flows) for flows in cells])


def _matrix(cells: list[str], file: str) -> Floats:
    try:
        values = np.array(list(map(float, ",".join(cells).split(","))))
        return values.reshape(len(cells), COLUMNS)
    except ValueError:
        raise BadRecord("truncated", f"{file} does not tell {COLUMNS} numbers a cell") from None


def usage_of(line: str, nodes: int) -> tuple[Ints, Floats]:
    """The cells that have a link, and the utilisation it reports."""
    used = [
        (index, text) for index, text in enumerate(cells_of(line, nodes, "linkUsage.txt")) if text != IDLE
    ]
    try:
        utilisation = [float(text.partition(",")[0]) for _, text in used]
    except ValueError:
        raise BadRecord("numbers", "linkUsage.txt holds what is no number") from None
    return np.array([index for index, _ in used], dtype=np.int64), np.array(utilisation)
