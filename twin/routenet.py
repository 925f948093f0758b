"""RouteNet: a graph neural network that corrects the queueing model, hop by hop.

Letters as in the papers: h_p path states, h_l link states, T iterations, p_i the i-th hop of path p.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch_geometric.data import Data
from torch_geometric.utils import scatter

from twin.checkpoint import Checkpoint, RouteNetConfig, read_checkpoint
from twin.features import (
    HOP_FEATURES,
    LINK_FEATURES,
    PATH_FEATURES,
    POISSON,
    Burstiness,
    Features,
    build_features,
    operating_point,
    worst_load,
)
from twin.models import PathPrediction
from twin.network import Network, Traffic
from twin.queueing import MG1K, interval_width

SHIPPED = "routenet.pt"
OUTPUTS = 4  # corrections of a hop: ln wait, ln deviation of the wait, slope and offset of ln blocking


class PathGraph(Data):  # type: ignore[misc]  # torch_geometric ships no types
    """A bipartite graph of links and paths whose edges are hops; torch_geometric.data.Batch batches it.

    link_x [L, ·], path_x [R, ·], hop_x [H, ·]; hop_link, hop_path, hop_index [H]; the prior: hop_wait,
    hop_wait_std, hop_ln_blocking [H], size_scv [R].
    """

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        """How far indices move when graphs are put into one batch."""
        sizes = {"hop_link": "link_x", "hop_path": "path_x"}
        return self[sizes[key]].size(0) if key in sizes else 0


def to_graph(features: Features) -> PathGraph:
    """Features as tensors: tables in float32, the prior in float64 so that nothing is lost where nothing is
    corrected."""
    tables = {"link_x": features.link, "path_x": features.path, "hop_x": features.hop}
    arrays = ("hop_link", "hop_path", "hop_index", "hop_wait", "hop_wait_std", "hop_ln_blocking")
    return PathGraph(
        num_nodes=len(features.link),
        size_scv=torch.full((len(features.path),), features.size_scv, dtype=torch.float64),
        **{name: torch.from_numpy(table).float() for name, table in tables.items()},
        **{name: torch.from_numpy(getattr(features, name)) for name in arrays},
    )


@dataclass(frozen=True)
class PathTensors:
    """What the network says of the paths of a batch, float64[R] each."""

    delay: Tensor  # (waits + transmission) ÷ transmission
    jitter: Tensor  # ÷ transmission
    loss: Tensor


class RouteNetModule(nn.Module):
    """The message-passing network.

    RouteNet-Erlang (Ferriol-Galmés et al., INFOCOM 2022, arXiv 2202.13956, Algorithm 1) and RouteNet-Fermi
    (the same, IEEE/ACM ToN 2023, arXiv 2212.12070, Algorithm 1): for t = 1 … T

        h_p ← GRU over the hops i of p with input [h_{l(p_i)}, x_{p_i}];  m_{p_i} = h_p before hop i
        h_l ← GRU(h_l, Σ_{p_i on l} share_{p_i} · m_{p_i})

    and a read-out per hop, r_{p_i} = MLP([h_p after hop i, h_l]).

    Differs in: (1) the read-out corrects a queueing model, delay_p = Σ_i W_{p_i}·exp(r_{p_i}) + transmission,
    so that an untrained network *is* the queueing model (its last layer starts at zero); (2) all inputs are
    dimensionless and clamped to what training saw; (3) messages to a link are weighted by each path's
    share of its packets, so that their sum does not grow with the size of the network; (4) one FIFO queue per
    link, so queue and link are one entity; (5) T = 4, as the prior already knows the loads.
    """

    def __init__(self, config: RouteNetConfig) -> None:
        super().__init__()
        self.config = config
        state, hidden = config.state, config.hidden
        self.scale_link = FeatureScale(len(LINK_FEATURES))
        self.scale_path = FeatureScale(len(PATH_FEATURES))
        self.scale_hop = FeatureScale(len(HOP_FEATURES))
        self.embed_link = _mlp(len(LINK_FEATURES), hidden, state)
        self.embed_path = _mlp(len(PATH_FEATURES), hidden, state)
        self.path_update = nn.GRU(state + len(HOP_FEATURES), state)
        self.link_update = nn.GRUCell(state, state)
        self.readout = _mlp(2 * state + len(HOP_FEATURES), hidden, hidden)
        self.correct = nn.Linear(hidden, OUTPUTS)
        nn.init.zeros_(self.correct.weight)
        nn.init.zeros_(self.correct.bias)

    def fit_scales(self, graphs: Sequence[PathGraph]) -> None:
        """Take the ranges and scales of all features from the training set."""
        for name in ("link", "path", "hop"):
            scale: FeatureScale = getattr(self, f"scale_{name}")
            scale.fit(torch.cat([graph[f"{name}_x"] for graph in graphs]))

    def forward(self, graph: PathGraph) -> PathTensors:
        """Corrected delay, jitter and loss of every path of the batch."""
        return self.apply_corrections(graph, self.corrections(graph))

    def corrections(self, graph: PathGraph) -> Tensor:
        """Message passing and read-out: [H, OUTPUTS] in the order of the graph's hops."""
        order = HopOrder.of(graph)
        hop_x = self.scale_hop(graph.hop_x)[order.hops]  # [H, ·] packed
        hop_link = graph.hop_link[order.hops]
        share = graph.hop_x[order.hops, HOP_FEATURES.index("share")].unsqueeze(1)
        h_l = self.embed_link(self.scale_link(graph.link_x))  # [L, state]
        h_p = self.embed_path(self.scale_path(graph.path_x))[order.paths]  # [R, state] longest first
        after = h_p
        for _ in range(self.config.iterations):
            inputs = torch.cat([h_l[hop_link], hop_x], dim=1)
            packed, last = self.path_update(PackedSequence(inputs, order.batch_sizes), h_p.unsqueeze(0))
            after = packed.data  # [H, state]
            before = torch.cat([h_p, after])[order.before]
            h_p = last.squeeze(0)
            message = scatter(share * before, hop_link, dim=0, dim_size=len(h_l), reduce="sum")
            h_l = self.link_update(message, h_l)
        raw = self.correct(torch.relu(self.readout(torch.cat([after, h_l[hop_link], hop_x], dim=1))))
        unpacked = torch.empty_like(raw).index_copy(0, order.hops, raw)
        limit = self.config.limit
        return (limit * torch.tanh(unpacked / limit)).double()

    @staticmethod
    def apply_corrections(graph: PathGraph, r: Tensor) -> PathTensors:
        """Per-hop corrections [H, OUTPUTS] → paths: waits and their variances add up, survivals multiply."""
        paths = graph.path_x.size(0)

        def over_hops(values: Tensor) -> Tensor:
            summed: Tensor = scatter(values, graph.hop_path, dim=0, dim_size=paths, reduce="sum")
            return summed

        waits = over_hops(graph.hop_wait * r[:, 0].exp())
        variance = over_hops((graph.hop_wait_std * r[:, 1].exp()) ** 2) + graph.size_scv
        ln_blocking = (graph.hop_ln_blocking * r[:, 2].exp() + r[:, 3]).clamp(max=-1e-6)
        survival = over_hops(torch.log1p(-ln_blocking.exp()))
        return PathTensors(delay=1 + waits, jitter=(variance + 1e-12).sqrt(), loss=-torch.expm1(survival))


class FeatureScale(nn.Module):
    """Clamp features to the range seen in training, shift and scale them; before :meth:`fit`, nothing."""

    low: Tensor
    high: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        start = {"low": -torch.inf, "high": torch.inf, "mean": 0.0, "deviation": 1.0}
        for name, value in start.items():
            self.register_buffer(name, torch.full((features,), value))

    def fit(self, values: Tensor) -> None:
        """Take range, mean and deviation from the training set, [n, features]."""
        self.low.copy_(values.amin(0))
        self.high.copy_(values.amax(0))
        self.mean.copy_(values.mean(0))
        self.deviation.copy_(values.std(0).clamp(min=1e-3))

    def forward(self, values: Tensor) -> Tensor:
        """[n, features] → [n, features]."""
        return (values.clamp(self.low, self.high) - self.mean) / self.deviation


@dataclass(frozen=True)
class HopOrder:
    """How hops lie in a packed sequence: step by step, in each step the longest path first."""

    hops: Tensor  # [H] packed position → hop
    paths: Tensor  # [R] rank → path
    before: Tensor  # [H] row of [h_p ; states after each hop] that holds the state before the hop
    batch_sizes: Tensor  # paths that have an i-th hop

    @classmethod
    def of(cls, graph: PathGraph) -> HopOrder:
        """Sort the hops of a batch."""
        count = graph.path_x.size(0)
        lengths = torch.bincount(graph.hop_path, minlength=count)
        paths = torch.argsort(lengths, descending=True, stable=True)
        rank = torch.empty_like(paths).index_copy(0, paths, torch.arange(count))
        hops = torch.argsort(graph.hop_index * count + rank[graph.hop_path])
        batch_sizes = torch.bincount(graph.hop_index)
        # In [h_p ; after], step i finds its states where step i − 1 left them, and step 0 in h_p.
        starts = torch.cat([torch.zeros(1, dtype=torch.long), count + batch_sizes.cumsum(0) - batch_sizes])
        before = starts[graph.hop_index[hops]] + rank[graph.hop_path[hops]]
        return cls(hops=hops, paths=paths, before=before, batch_sizes=batch_sizes)


class RouteNet:
    """A trained network as a delay model."""

    name: ClassVar[str] = "routenet"

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.version = f"{checkpoint.provenance.recipe}-{checkpoint.digest}"
        self.prior = MG1K(size_scv=checkpoint.size_scv)
        self.module = RouteNetModule(checkpoint.config)
        self.module.load_state_dict(checkpoint.weights)
        self.module.eval()

    def predict(self, network: Network, traffic: Traffic, burstiness: Burstiness = POISSON) -> PathPrediction:
        """Predict all paths; where there is no path at all, zeros."""
        features = build_features(network, traffic, self.prior, burstiness)
        mean, jitter, loss, width = np.zeros((4, network.path_count))
        if features.routed.any():
            with torch.inference_mode(), one_thread():
                said = self.module(to_graph(features))
            queueing = said.delay.numpy() * features.transmission_s
            mean[features.routed] = queueing + features.propagation_s
            jitter[features.routed] = said.jitter.numpy() * features.transmission_s
            loss[features.routed] = said.loss.numpy()
            half = self.checkpoint.intervals.width(worst_load(features), bursty=burstiness.rate_scv > 0)
            width[features.routed] = interval_width(queueing, features.propagation_s, half)
        return PathPrediction(
            mean_s=mean,
            jitter_s=jitter,
            loss=loss,
            log_width=width,
            link_utilisation=features.queues.utilisation,
            out_of_range=self.checkpoint.safe_range.violations(operating_point(network, features.queues)),
        )


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: tensors are too small to share, and sums then come out the same everywhere."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def load(path: Path | None = None) -> RouteNet:
    """The model of a checkpoint file; without one, the model that is shipped with the package."""
    if path is not None:
        return RouteNet(read_checkpoint(path))
    with resources.as_file(resources.files("twin") / "weights" / SHIPPED) as shipped:
        return RouteNet(read_checkpoint(shipped))


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
