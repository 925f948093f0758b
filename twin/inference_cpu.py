"""RouteNet's forward pass on a CPU, without torch: weights arranged for the fused kernel, and its runs.

Chunks of flows run on threads (the kernels hold no lock); what comes out does not depend on how many.
Networks of a few thousand flows run on one thread: they are done before others wake.

Letters as in :class:`twin.routenet.RouteNetModule`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from twin.checkpoint import LEAST_LN_SCALE, MOST_LN_SCALE, Checkpoint, RouteNetConfig
from twin.errors import CheckpointError
from twin.features import Features
from twin.inference_kernel import CHUNKS, HEADS, HIDDEN, OUTPUTS, STATE, affine, chunks, halved, last, sweep
from twin.network import Floats

SMALL = 5_000  # flows: below, threads cost more than they bring
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Said:
    """What the network says of every flow, in seconds."""

    waits_s: Floats  # [F, heads] sum of the waits, by every head of the ensemble
    variance_s2: Floats  # [F] of the waits
    ln_survival: Floats  # [F]
    ln_scale: Floats  # [F] ln of the error to expect of ln(queueing + transmission)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="routenet")


def each_chunk(flows: int, threads: int, work: Callable[[int, int, int], None]) -> None:
    """Call work(number of the chunk, first flow, end) for all chunks; the first error of any is raised."""
    parts = [(number, low, high) for number, (low, high) in enumerate(chunks(flows))]
    if threads == 1 or flows < SMALL:
        for part in parts:
            work(*part)
        return
    for done in [_pool(threads).submit(work, *part) for part in parts]:
        done.result()


def fits(config: RouteNetConfig) -> bool:
    """Whether the kernel was compiled for these sizes."""
    return (config.state, config.hidden) == (STATE, HIDDEN) and 1 <= config.heads <= HEADS


class CpuForward:
    """Features → sums over the hops of every flow."""

    def __init__(self, checkpoint: Checkpoint, threads: int) -> None:
        config, self.w, self.threads = checkpoint.config, checkpoint.weights, threads
        if not fits(config):
            raise CheckpointError(
                f"the kernel takes states of {STATE}, hidden layers of {HIDDEN} and at most {HEADS} heads,"
                f" not {config.state}, {config.hidden} and {config.heads}: let torch run it"
            )
        self.turned = {
            name: np.ascontiguousarray(array.T) for name, array in self.w.items() if array.ndim == 2
        }
        self.config = config
        self.gru = _Gru.of(checkpoint)
        self.read = _Readout.of(checkpoint)

    def __call__(self, features: Features) -> Said:
        """T sweeps along all flows with T − 1 updates of all queues between them; the last reads out."""
        h_q = self._mlp("embed_queue", self._scaled("queue", features.queue))
        h_f = np.empty((len(features.flow), self.config.state), np.float32)

        def embed(_: int, low: int, high: int) -> None:
            h_f[low:high] = self._mlp("embed_flow", self._scaled("flow", features.flow[low:high]))

        each_chunk(len(h_f), self.threads, embed)
        for _ in range(self.config.iterations - 1):
            h_q = self._update_queues(features, h_q, self._messages(features, h_q, h_f))
        return self._read_out(features, h_q, h_f)

    def _messages(self, features: Features, h_q: Array, h_f: Array) -> Array:
        """Run the GRU along all flows; what queues are told, [Q, state], summed in the order of chunks."""
        told = np.zeros((CHUNKS, *h_q.shape), np.float32)
        gru = self.gru.arguments(h_q)

        def run(chunk: int, low: int, high: int) -> None:
            sweep(features.hop_queue, features.hops.offsets, low, high, features.hop, *gru, h_f, told[chunk])

        each_chunk(len(h_f), self.threads, run)
        return np.asarray(told.sum(axis=0))

    def _update_queues(self, features: Features, h_q: Array, message: Array) -> Array:
        """GRU cell of all queues, input [message, h_l]."""
        links = int(features.queue_link[-1]) + 1 if len(h_q) else 0
        h_l = np.zeros((links, h_q.shape[1]), np.float32)
        np.add.at(h_l, features.queue_link, features.queue_part[:, None] * h_q)
        told = np.concatenate([message, h_l[features.queue_link]], axis=1)
        into = affine(told, self.turned["queue_update.weight_ih"], self.w["queue_update.bias_ih"])
        own = affine(h_q, self.turned["queue_update.weight_hh"], self.w["queue_update.bias_hh"])
        (r_in, z_in, n_in), (r, z, n) = np.split(into, 3, axis=1), np.split(own, 3, axis=1)
        reset, update = _sigmoid(r_in + r), _sigmoid(z_in + z)
        new = np.tanh(n_in + reset * n)
        return np.asarray(new + update * (h_q - new))

    def _read_out(self, features: Features, h_q: Array, h_f: Array) -> Said:
        heads = self.config.heads
        sums, ln_scale = np.zeros((len(h_f), heads + 2)), np.empty(len(h_f))
        prior = np.column_stack([features.wait_s, features.wait_std_s, features.ln_blocking])
        gru, read = self.gru.arguments(h_q), self.read.arguments(h_q)
        limit = np.float32(self.config.limit)

        def run(_: int, low: int, high: int) -> None:
            hops = (features.hop_queue, features.hops.offsets, low, high, features.hop)
            last(*hops, *gru, h_f, *read, heads, limit, prior, sums)
            ln_scale[low:high] = self._mlp("expect_error", h_f[low:high])[:, 0] + self.config.ln_scale

        each_chunk(len(h_f), self.threads, run)
        return Said(
            waits_s=sums[:, :heads],
            variance_s2=sums[:, heads],
            ln_survival=sums[:, heads + 1],
            ln_scale=np.clip(ln_scale, LEAST_LN_SCALE, MOST_LN_SCALE),
        )

    def _scaled(self, table: str, values: Array) -> Array:
        low, high, mean, deviation = (
            self.w[f"scale_{table}.{part}"] for part in ("low", "high", "mean", "deviation")
        )
        return np.asarray((np.clip(values, low, high) - mean) / deviation)

    def _mlp(self, name: str, values: Array) -> Array:
        hidden = affine(values, self.turned[f"{name}.0.weight"], self.w[f"{name}.0.bias"], relu=True)
        return affine(hidden, self.turned[f"{name}.2.weight"], self.w[f"{name}.2.bias"])


@dataclass(frozen=True)
class _Gru:
    """The GRU along flows, input [h_q ; x], its weights as :mod:`twin.inference_kernel` wants them.

    The biases of the reset and update gates meet on the queue's side, as does what scaling x subtracts.
    """

    low: Array
    high: Array
    w_queue: Array
    bias: Array
    w_hop: Array
    b_new: Array
    w_state: Array

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> _Gru:
        w, state = checkpoint.weights, checkpoint.config.state
        mean, deviation = w["scale_hop.mean"], w["scale_hop.deviation"]
        w_in = halved(w["flow_update.weight_ih"], state)
        bias, bias_state = (halved(w[f"flow_update.bias_{side}"], state) for side in ("ih", "hh"))
        bias[: 2 * state] += bias_state[: 2 * state]
        w_hop = w_in[:, state:] / deviation
        return cls(
            low=w["scale_hop.low"],
            high=w["scale_hop.high"],
            w_queue=np.ascontiguousarray(w_in[:, :state].T),
            bias=bias - w_hop @ mean,
            w_hop=np.ascontiguousarray(w_hop.T),
            b_new=bias_state[2 * state :],
            w_state=np.ascontiguousarray(halved(w["flow_update.weight_hh"], state).T),
        )

    def arguments(self, h_q: Array) -> tuple[Array, ...]:
        """low, high, gates, w_hop, b_new, w_state."""
        return self.low, self.high, affine(h_q, self.w_queue, self.bias), self.w_hop, self.b_new, self.w_state


@dataclass(frozen=True)
class _Readout:
    """The read-out of a hop, input [h_f ; h_q ; x], as :mod:`twin.inference_kernel` wants it."""

    w_state: Array
    w_queue: Array
    w_hop: Array
    bias: Array
    w_out: Array
    b_out: Array

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> _Readout:
        w, state = checkpoint.weights, checkpoint.config.state
        first = w["readout.weight"]
        w_hop = first[:, 2 * state :] / w["scale_hop.deviation"]
        return cls(
            w_state=np.ascontiguousarray(first[:, :state].T),
            w_queue=np.ascontiguousarray(first[:, state : 2 * state].T),
            w_hop=np.ascontiguousarray(w_hop.T),
            bias=np.asarray(w["readout.bias"] - w_hop @ w["scale_hop.mean"]),
            w_out=_spread(w["correct.weight"].T, checkpoint.config.heads),
            b_out=_spread(w["correct.bias"], checkpoint.config.heads),
        )

    def arguments(self, h_q: Array) -> tuple[Array, ...]:
        """read, w_read_hop, w_read_state, w_out, b_out."""
        return affine(h_q, self.w_queue, self.bias), self.w_hop, self.w_state, self.w_out, self.b_out


def _spread(outputs: Array, heads: int) -> Array:
    """[…, heads + 3] with room for HEADS heads."""
    spread = np.zeros((*outputs.shape[:-1], OUTPUTS), np.float32)
    spread[..., :heads] = outputs[..., :heads]
    spread[..., HEADS:] = outputs[..., heads:]
    return spread


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * np.tanh(0.5 * x) + 0.5)
