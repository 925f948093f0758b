"""What models are worth: their errors on samples that somebody measured.

Errors are of the whole mean delay, flow by flow: every labelled flow of every sample counts once (``mape``),
or every sample once (``mape_sample_mean``). All figures are in percent.

*Intervals.* A model says mean·exp(±log_width) at 90 %; ``coverage90`` is the share of measurements inside,
``width90_rel`` the mean of (upper − lower) ÷ mean. ``coverage90_worst_group`` is the smallest share over
groups of flows that are alike: size of the network (:data:`SIZE_EDGES`), policy and load of the flow's
bottleneck (:data:`LOAD_EDGES`). Groups of fewer than :data:`FEW` flows are left out; if all are, it is
``coverage90``.

*Bottleneck.* The link of a flow's path that is offered most, traffic ÷ capacity with nothing lost: where it
waits longest. Its policy is the flow's policy in ``by_policy``.

*Median.* The predictor ``median`` says of every flow the median of what these very samples measured, with the
interval that covers 90 % of them: what a constant can reach at best.

*Jitter and loss* are judged where they were measured (``std_s`` > 0).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import UsageError
from twin.models import PathPrediction
from twin.network import Floats
from twin.omnet import read_omnet
from twin.samples import Dropped, Sample, read_stored
from twin.scheduling import POLICIES
from twin.testbed import read_testbed

COVERAGE = 0.9
FEW = 200  # flows; with fewer, a share of 90 % is uncertain by more than 2 points
SIZE_EDGES = (25, 50, 100, 200)  # nodes
LOAD_EDGES = (0.3, 0.5, 0.7, 0.85, 1.0)
MEDIAN = "median"

Predict = Callable[[Sample], PathPrediction]
Column = NDArray[np.float32]
READERS: dict[str, Callable[[Path, Dropped], Iterator[Sample]]] = {
    "omnet": read_omnet,
    "testbed": read_testbed,
    "ndtwin": read_stored,
}


def evaluate(
    models: Mapping[str, Predict],
    samples: Iterable[Sample],
    dropped: Dropped | None = None,
    watch: Callable[[Sample], None] = lambda _: None,
) -> dict[str, Any]:
    """Figures of every model and of the median, as the module tells; UsageError when nothing was measured.

    ``dropped`` is what the reader of ``samples`` fills; ``watch`` is called after every sample.
    """
    judge = Judge({name: Scores() for name in models})
    for sample in samples:
        if sample.labelled.any():
            judge.add(sample, {name: predict(sample) for name, predict in models.items()})
        watch(sample)
    left_out = Dropped() if dropped is None else dropped
    if not judge.labels:
        why = "; ".join(left_out.named[:1]) or "no flow of any sample has a measured delay"
        raise UsageError(f"nothing to judge by: {sum(left_out.samples.values())} samples left out; {why}")
    return judge.report(left_out)


@dataclass(frozen=True)
class Labels:
    """What was measured of the labelled flows of one sample, [f] each."""

    mean_s: Column
    std_s: Column
    loss: Column


@dataclass(frozen=True)
class Said:
    """What a model says of them, [f] each."""

    mean_s: Floats | Column
    std_s: Floats | Column
    loss: Floats | Column
    log_width: Floats | Column


@dataclass
class Scores:
    """The errors of one model: columns where quantiles are asked for, sums elsewhere."""

    ape: list[Column] = field(default_factory=list)  # of the delay, one array a sample
    inside: list[NDArray[np.bool_]] = field(default_factory=list)
    width: list[float] = field(default_factory=list)  # sums, one a sample
    jitter_ape: list[Column] = field(default_factory=list)
    loss_error: list[float] = field(default_factory=list)  # sums of the absolute error
    lossy_error: list[float] = field(default_factory=list)  # the same over flows that lost packets
    out_of_range: int = 0  # samples that the model says it was not made for

    def add(self, labels: Labels, said: Said) -> None:
        """Judge one sample."""
        with np.errstate(divide="ignore"):  # ln 0, outside any interval
            off = np.abs(np.log(said.mean_s / labels.mean_s))
        self.ape.append(np.abs(said.mean_s / labels.mean_s - 1).astype(np.float32))
        self.inside.append(off <= said.log_width)
        self.width.append(float(2 * np.sinh(said.log_width).sum()))
        known = labels.std_s > 0
        jitter = np.abs(said.std_s[known] / labels.std_s[known] - 1)
        self.jitter_ape.append(jitter.astype(np.float32))
        error = np.abs(said.loss[known] - labels.loss[known])
        self.loss_error.append(float(error.sum()))
        self.lossy_error.append(float(error[labels.loss[known] > 0].sum()))


@dataclass
class Judge:
    """All scores, and what the flows have in common that were judged."""

    scores: dict[str, Scores]
    labels: list[Labels] = field(default_factory=list)
    nodes: list[int] = field(default_factory=list)  # one a sample
    policy: list[NDArray[np.int8]] = field(default_factory=list)
    load: list[NDArray[np.int8]] = field(default_factory=list)  # bucket

    def add(self, sample: Sample, predictions: Mapping[str, PathPrediction]) -> None:
        """Judge all models by one sample."""
        chosen = sample.labelled
        told = (sample.mean_s, sample.std_s, sample.loss)
        labels = Labels(*(values[chosen].astype(np.float32) for values in told))
        self.labels.append(labels)
        self.nodes.append(len(sample.network.nodes))
        policy, load = bottlenecks(sample)
        self.policy.append(policy[chosen])
        self.load.append(np.searchsorted(LOAD_EDGES, load[chosen]).astype(np.int8))
        for name, said in predictions.items():
            columns = (said.mean_s, said.jitter_s, said.loss, said.log_width)
            if not all(np.isfinite(values).all() for values in columns):
                raise ValueError(f"{name} predicts what is no number for {sample.name}")
            self.scores[name].add(labels, Said(*(values[chosen] for values in columns)))
            self.scores[name].out_of_range += bool(said.out_of_range)

    def report(self, dropped: Dropped) -> dict[str, Any]:
        """The figures as one JSON object."""
        scores = {**self.scores, MEDIAN: _median_scores(self.labels)}
        counts = np.array([len(labels.mean_s) for labels in self.labels])
        size = np.repeat(self.nodes, counts)
        policy, load = np.concatenate(self.policy), np.concatenate(self.load)
        group = (np.searchsorted(SIZE_EDGES, size) * len(POLICIES) + policy) * (len(LOAD_EDGES) + 1) + load
        return {
            "flows": int(counts.sum()),
            "samples": len(counts),
            "dropped": sum(dropped.samples.values()),
            "dropped_reasons": dict(dropped.samples),
            "unlabelled_flows": dict(dropped.flows),
            "models": {name: _figures(own, self.labels, group) for name, own in scores.items()},
            "by_size": {str(one): _part(scores, size == one) for one in np.unique(size).tolist()},
            "by_policy": {
                name: _part(scores, policy == code)
                for code, name in enumerate(POLICIES)
                if (policy == code).any()
            },
        }


def bottlenecks(sample: Sample) -> tuple[NDArray[np.int8], Floats]:
    """Policy code and offered load of every flow's most loaded link, [F] each; 0 without a route."""
    network, traffic = sample.network, sample.traffic
    hops = traffic.hops(network)
    offered = np.bincount(hops.links, weights=traffic.bps[hops.hop_path], minlength=len(network.links))
    load = (offered / network.capacity_bps)[hops.links]
    worst = np.zeros(len(traffic.bps))
    np.maximum.at(worst, hops.hop_path, load)
    policy = np.zeros(len(traffic.bps), dtype=np.int8)
    there = load == worst[hops.hop_path]
    policy[hops.hop_path[there]] = network.policy[hops.links[there]]
    return policy, worst


def _median_scores(labels: list[Labels]) -> Scores:
    """The scores of the constant."""
    mean, std, loss = (
        np.concatenate([getattr(own, name) for own in labels]) for name in ("mean_s", "std_s", "loss")
    )
    middle = float(np.median(mean))
    known = std > 0
    constant = (
        middle,
        float(np.median(std[known])) if known.any() else 0.0,
        float(np.median(loss[known])) if known.any() else 0.0,
        float(np.quantile(np.abs(np.log(mean / middle)), COVERAGE)),
    )
    scores = Scores()
    for own in labels:
        scores.add(own, Said(*(np.full(len(own.mean_s), value) for value in constant)))
    return scores


def _figures(scores: Scores, labels: list[Labels], group: NDArray[np.int64]) -> dict[str, Any]:
    """All figures of one model."""
    ape, inside = np.concatenate(scores.ape), np.concatenate(scores.inside)
    figures: dict[str, Any] = {
        "mape": _percent(ape.mean(dtype=np.float64)),
        "mape_sample_mean": _percent(np.mean([own.mean(dtype=np.float64) for own in scores.ape])),
        "median_ape": _percent(np.median(ape)),
        "p90_ape": _percent(np.quantile(ape, 0.9)),
        "coverage90": _percent(inside.mean()),
        "coverage90_worst_group": _percent(_worst(inside, group)),
        "width90_rel": _percent(sum(scores.width) / len(ape)),
        "out_of_range_samples": scores.out_of_range,
    }
    jitter = np.concatenate(scores.jitter_ape)
    if len(jitter):
        lossy = sum(int(((own.std_s > 0) & (own.loss > 0)).sum()) for own in labels)
        figures["jitter"] = {
            "mape": _percent(jitter.mean(dtype=np.float64)),
            "median_ape": _percent(np.median(jitter)),
            "p90_ape": _percent(np.quantile(jitter, 0.9)),
        }
        figures["loss"] = {
            "mae": _percent(sum(scores.loss_error) / len(jitter)),
            "mae_where_lost": _percent(sum(scores.lossy_error) / max(lossy, 1)),
            "flows_with_loss": _percent(lossy / len(jitter)),
        }
    return figures


def _part(scores: Mapping[str, Scores], chosen: NDArray[np.bool_]) -> dict[str, Any]:
    """The main figures over some of the flows."""
    part: dict[str, Any] = {"flows": int(chosen.sum()), "models": {}}
    for name, own in scores.items():
        ape, inside = np.concatenate(own.ape)[chosen], np.concatenate(own.inside)[chosen]
        part["models"][name] = {
            "mape": _percent(ape.mean(dtype=np.float64)),
            "median_ape": _percent(np.median(ape)),
            "p15_ape": _percent(np.quantile(ape, 0.15)),
            "p85_ape": _percent(np.quantile(ape, 0.85)),
            "coverage90": _percent(inside.mean()),
        }
    return part


def _worst(inside: NDArray[np.bool_], group: NDArray[np.int64]) -> float:
    """The smallest share inside, over groups that are large enough."""
    flows = np.bincount(group)
    shares = np.bincount(group, weights=inside)[flows >= FEW] / flows[flows >= FEW]
    return float(shares.min()) if len(shares) else float(inside.mean())


def _percent(share: float | np.floating[Any]) -> float:
    return round(100 * float(share), 4)
