"""RouteNet: a graph neural network that corrects the queueing model, hop by hop. The model as its papers
write it, in torch, for training and for CUDA; :mod:`twin.inference` runs the same weights on a CPU.

Letters as in the papers: h_f flow states, h_q queue states, h_l links, T iterations, f_i the i-th hop of flow
f."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.data import Data
from torch_geometric.utils import scatter

from twin.checkpoint import LEAST_LN_SCALE, OTHERS, Checkpoint, RouteNetConfig
from twin.features import FLOW_FEATURES, HOP_FEATURES, Features
from twin.features_queues import QUEUE_FEATURES
from twin.inference_cpu import Said


class FlowGraph(Data):  # type: ignore[misc]  # torch_geometric ships no types
    """A bipartite graph of queues and flows whose edges are hops; torch_geometric.data.Batch batches it.

    queue_x [Q, ·], flow_x [F, ·], hop_x [H, ·]; hop_queue, hop_flow, hop_index [H]; queue_link, queue_part
    [Q]; the prior, in units of the flow's transmission time: hop_wait, hop_wait_std, hop_ln_blocking [H];
    size_scv [F]."""

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        """How far indices move when graphs are put into one batch."""
        if key == "queue_link":
            return int(value.max()) + 1  # every link has a queue
        sizes = {"hop_queue": "queue_x", "hop_flow": "flow_x"}
        return self[sizes[key]].size(0) if key in sizes else 0


def to_graph(features: Features) -> FlowGraph:
    """Features as tensors: tables in float32, the prior in float64 so that nothing is lost where nothing is
    corrected."""
    hop_flow = features.hops.hop_path
    index = np.arange(len(hop_flow)) - features.hops.offsets[:-1][hop_flow]
    per_hop = 1.0 / np.maximum(features.transmission_s[hop_flow], 1e-300)
    arrays = {
        "queue_x": features.queue,
        "flow_x": features.flow,
        "hop_x": features.hop,
        "hop_queue": features.hop_queue,
        "hop_flow": hop_flow,
        "hop_index": index,
        "queue_link": features.queue_link,
        "queue_part": features.queue_part,
        "hop_wait": features.wait_s[features.hop_queue] * per_hop,
        "hop_wait_std": features.wait_std_s[features.hop_queue] * per_hop,
        "hop_ln_blocking": features.ln_blocking[features.hop_queue],
        "size_scv": features.size_scv,
    }
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    return FlowGraph(num_nodes=len(features.queue), **tensors)


@dataclass(frozen=True)
class FlowTensors:
    """What the network says of the flows of a batch; delays and jitter ÷ the flow's transmission time."""

    delays: Tensor  # [F, heads] waits + transmission, by every head of the ensemble
    jitter: Tensor  # [F]
    loss: Tensor  # [F]
    ln_scale: Tensor  # [F] ln of the error to expect of ln delay


class RouteNetModule(nn.Module):
    """The message-passing network.

    RouteNet-Erlang (Ferriol-Galmés et al., INFOCOM 2022, arXiv 2202.13956, Algorithm 1) and RouteNet-Fermi
    (the same, IEEE/ACM ToN 2023, arXiv 2212.12070, Algorithm 1): for t = 1 … T

        h_l ← Σ_{q of l} part_q · h_q                                                        where t > 1
        h_q ← GRU(h_q, [Σ_{f_i in q} share_{f_i} · m_{f_i}, h_l])                              where t > 1
        h_f ← GRU over the hops i of f with input [h_{q(f_i)}, x_{f_i}];  m_{f_i} = h_f before hop i

    and a read-out per hop, r_{f_i} = MLP([h_f after hop i, h_q, x_{f_i}]).

    Differs in: (1) the read-out corrects a queueing model, delay_f = Σ_i W_{f_i}·exp(r_{f_i}) + transmission,
    so that an untrained network *is* the queueing model (its last layer starts at zero); (2) all inputs are
    dimensionless and clamped to what training saw; (3) messages to a queue are weighted by each flow's share
    of its packets, so that their sum does not grow with the size of the network; (4) a link is the
    load-weighted mean of its queues, not a GRU over them; their order is a feature; (5) T = 2 and 16-d
    states, as the prior already knows the loads; (6) the wait has several heads on one trunk, each trained on
    a resampling of the data of its own (bootstrap; Lee et al., arXiv 1511.06314), and h_f also tells the
    error to expect."""

    def __init__(self, config: RouteNetConfig) -> None:
        super().__init__()
        self.config = config
        state, hidden = config.state, config.hidden
        self.scale_queue = FeatureScale(len(QUEUE_FEATURES))
        self.scale_flow = FeatureScale(len(FLOW_FEATURES))
        self.scale_hop = FeatureScale(len(HOP_FEATURES))
        self.embed_queue = _mlp(len(QUEUE_FEATURES), hidden, state)
        self.embed_flow = _mlp(len(FLOW_FEATURES), hidden, state)
        self.flow_update = nn.GRUCell(state + len(HOP_FEATURES), state)
        self.queue_update = nn.GRUCell(2 * state, state)
        self.readout = nn.Linear(2 * state + len(HOP_FEATURES), hidden)
        self.correct = nn.Linear(hidden, config.heads + OTHERS)
        self.expect_error = _mlp(state, state, 1)
        for start in (*self.correct.parameters(), *self.expect_error[2].parameters()):
            nn.init.zeros_(start)

    def fit_scales(self, graphs: Sequence[FlowGraph]) -> None:
        """Take the ranges and scales of all features from the training set."""
        for name in ("queue", "flow", "hop"):
            scale: FeatureScale = getattr(self, f"scale_{name}")
            scale.fit(torch.cat([graph[f"{name}_x"] for graph in graphs]))

    def widen_scales(self, graphs: Sequence[FlowGraph]) -> None:
        """Let the ranges hold another training set too; the scales stay, as the weights have learnt them."""
        for name in ("queue", "flow", "hop"):
            scale: FeatureScale = getattr(self, f"scale_{name}")
            scale.widen(torch.cat([graph[f"{name}_x"] for graph in graphs]))

    def forward(self, graph: FlowGraph) -> FlowTensors:
        """Corrected delay, jitter and loss of every flow of the batch."""
        corrections, h_f = self.pass_messages(graph)
        return self.apply_corrections(graph, corrections, h_f)

    def pass_messages(self, graph: FlowGraph) -> tuple[Tensor, Tensor]:
        """Message passing and read-out: [H, heads + OTHERS] as the graph's hops lie; h_f [F, state]."""
        order = HopOrder.of(graph)
        hop_x = self.scale_hop(graph.hop_x)[order.hops]  # [H, ·] step after step
        hop_queue = graph.hop_queue[order.hops]
        share = graph.hop_x[order.hops, HOP_FEATURES.index("share")].unsqueeze(1)
        h_q = self.embed_queue(self.scale_queue(graph.queue_x))  # [Q, state]
        h_f = self.embed_flow(self.scale_flow(graph.flow_x))[order.flows]  # [F, state] longest first
        before = after = h_f
        for iteration in range(self.config.iterations):
            if iteration:
                message = scatter(share * before, hop_queue, dim=0, dim_size=len(h_q), reduce="sum")
                h_l = scatter(graph.queue_part.unsqueeze(1) * h_q, graph.queue_link, dim=0, reduce="sum")
                h_q = self.queue_update(torch.cat([message, h_l[graph.queue_link]], dim=1), h_q)
            before, after, h_f = self.along_flows(order, h_q, hop_queue, hop_x, h_f)
        raw = self.correct(torch.relu(self.readout(torch.cat([after, h_q[hop_queue], hop_x], dim=1))))
        unpacked = torch.empty_like(raw).index_copy(0, order.hops, raw)
        limit = self.config.limit
        corrections = limit * torch.tanh(unpacked / limit)
        return corrections.double(), torch.empty_like(h_f).index_copy(0, order.flows, h_f)

    def along_flows(
        self, order: HopOrder, h_q: Tensor, hop_queue: Tensor, hop_x: Tensor, h_f: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The GRU over the hops of all flows at once: h_f before and after every hop [H, state], and at the
        end.

        What the queues contribute to the gates is computed once a queue. Flows are sorted by length, so those
        that have an i-th hop are the first ones.
        """
        cell, state = self.flow_update, self.config.state
        w_queue, w_hop = cell.weight_ih[:, :state], cell.weight_ih[:, state:]
        gates = functional.linear(h_q, w_queue)[hop_queue] + functional.linear(hop_x, w_hop, cell.bias_ih)
        h, before, after, ended = h_f[: order.routed], [], [], [h_f[order.routed :]]
        for gate in torch.split(gates, order.sizes):
            ended.append(h[len(gate) :])
            h = h[: len(gate)]
            before.append(h)
            own = functional.linear(h, cell.weight_hh, cell.bias_hh)
            reset, update = torch.sigmoid(gate[:, : 2 * state] + own[:, : 2 * state]).chunk(2, dim=1)
            new = torch.tanh(gate[:, 2 * state :] + reset * own[:, 2 * state :])
            h = new + update * (h - new)
            after.append(h)
        last = torch.cat([h, *reversed(ended)])
        return (torch.cat(before), torch.cat(after), last) if before else (h_f[:0], h_f[:0], last)

    def apply_corrections(self, graph: FlowGraph, r: Tensor, h_f: Tensor) -> FlowTensors:
        """Per-hop corrections → flows: waits and their variances add up, survivals multiply."""
        flows, heads = graph.flow_x.size(0), self.config.heads

        def over_hops(values: Tensor) -> Tensor:
            summed: Tensor = scatter(values, graph.hop_flow, dim=0, dim_size=flows, reduce="sum")
            return summed

        waits = over_hops(graph.hop_wait.unsqueeze(1) * r[:, :heads].exp())
        variance = over_hops((graph.hop_wait_std * r[:, heads].exp()) ** 2) + graph.size_scv
        ln_blocking = (graph.hop_ln_blocking * r[:, heads + 1].exp() + r[:, heads + 2]).clamp(max=-1e-6)
        survival = over_hops(torch.log1p(-ln_blocking.exp()))
        ln_scale = self.expect_error(h_f).squeeze(1) + self.config.ln_scale
        return FlowTensors(
            delays=1 + waits,
            jitter=(variance + 1e-12).sqrt(),
            loss=-torch.expm1(survival),
            ln_scale=ln_scale.clamp(LEAST_LN_SCALE, self.config.most_ln_scale).double(),
        )


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

    def widen(self, values: Tensor) -> None:
        """Let the range hold these values too, [n, features]."""
        self.low.copy_(torch.minimum(self.low, values.amin(0)))
        self.high.copy_(torch.maximum(self.high, values.amax(0)))

    def forward(self, values: Tensor) -> Tensor:
        """[n, features] → [n, features]."""
        return (values.clamp(self.low, self.high) - self.mean) / self.deviation


@dataclass(frozen=True)
class HopOrder:
    """How hops lie one after the other: step by step, in each step the longest flow first."""

    hops: Tensor  # [H] position → hop
    flows: Tensor  # [F] rank → flow; those without a hop come last
    sizes: list[int]  # flows that have an i-th hop

    @property
    def routed(self) -> int:
        """How many flows have a hop."""
        return self.sizes[0] if self.sizes else 0

    @classmethod
    def of(cls, graph: FlowGraph) -> HopOrder:
        """Sort the hops of a batch."""
        count = graph.flow_x.size(0)
        lengths = torch.bincount(graph.hop_flow, minlength=count)
        flows = torch.argsort(lengths, descending=True, stable=True)
        rank = torch.empty_like(flows).index_copy(0, flows, torch.arange(count, device=flows.device))
        hops = torch.argsort(graph.hop_index * count + rank[graph.hop_flow])
        return cls(hops, flows, torch.bincount(graph.hop_index).tolist())


class TorchForward:
    """The module as the forward pass of :class:`twin.inference.RouteNet`, on any device of torch's."""

    def __init__(self, checkpoint: Checkpoint, device: str) -> None:
        self.device = torch.device(device)
        self.module = RouteNetModule(checkpoint.config)
        self.module.load_state_dict(
            {name: torch.from_numpy(array) for name, array in checkpoint.weights.items()}
        )
        self.module.eval().to(self.device)

    def __call__(self, features: Features) -> Said:
        """Seconds from ratios to the transmission time."""
        with torch.inference_mode():
            said = self.module(to_graph(features).to(self.device))
        seconds = features.transmission_s
        return Said(
            waits_s=(said.delays.cpu().numpy() - 1) * seconds[:, None],
            variance_s2=(said.jitter.cpu().numpy() ** 2 - features.size_scv) * seconds**2,
            ln_survival=np.log1p(-said.loss.cpu().numpy()),
            ln_scale=said.ln_scale.cpu().numpy(),
        )


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
