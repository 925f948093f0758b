"""RouteNet's forward pass on a CPU, without torch: weights arranged for the fused kernel, and its runs.

Chunks of flows run on threads (:mod:`twin.chunks`). Every step takes the flows to run, so that
:mod:`twin.incremental` can run those alone that a change touches.

Letters as in :class:`twin.routenet.RouteNetModule`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin.checkpoint import OTHERS, Checkpoint, RouteNetConfig
from twin.chunks import chunk_count, each_chunk
from twin.errors import CheckpointError
from twin.features import Features
from twin.inference_kernel import (
    HEADS,
    HIDDEN,
    OUTPUTS,
    STATE,
    aligned,
    embed,
    empty_aligned,
    halved,
    last,
    sweep,
)
from twin.inference_queues import embed_queues, to_gates, to_hidden, update_queues
from twin.network import Floats, Ints

Array = NDArray[np.float32]
Bits = NDArray[np.int32]
NOTHING_KEPT = np.empty((0, STATE), np.float32)
NOT_ASKED = np.empty(0, np.int32)


@dataclass(frozen=True)
class Said:
    """What the network says of every flow, in seconds."""

    waits_s: Floats  # [F, heads] sum of the waits, by every head of the ensemble
    variance_s2: Floats  # [F] of the waits
    ln_survival: Floats  # [F]
    ln_scale: Floats  # [F] ln of the error to expect of ln(queueing + transmission)


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
        self.config = config
        self.flows = _Perceptron.of(checkpoint, "flow")
        self.queues = _Perceptron.of(checkpoint, "queue")
        self.error = (
            aligned(self.w["expect_error.0.weight"].T),
            self.w["expect_error.0.bias"],
            aligned(self.w["expect_error.2.weight"].T),
            self.w["expect_error.2.bias"] + np.float32(config.ln_scale),
        )
        self.gru = _Gru.of(checkpoint)
        self.update = _QueueGru.of(checkpoint)
        self.read = _Readout.of(checkpoint)

    def __call__(self, features: Features) -> Said:
        """T sweeps along all flows with T − 1 updates of all queues between them; the last reads out."""
        everyone = np.arange(len(features.flow))
        h_q = self.embed_queues(features.queue)
        h_f = empty_aligned(len(everyone), STATE)
        self.embed_flows(everyone, features.flow, h_f)
        for _ in range(self.config.iterations - 1):
            told = self.tell(everyone, features, h_q, h_f, h_f)
            h_q = self.update_queues(features, h_q, told)
        sums, ln_scale = np.empty((len(h_f), self.config.heads + 2)), np.empty(len(h_f))
        self.read_out(everyone, features, h_q, h_f, sums, ln_scale)
        return self.said(sums, ln_scale)

    def embed_queues(self, queue_x: Array) -> Array:
        """h_q of all queues before anything is told, [Q, STATE]."""
        h_q = empty_aligned(len(queue_x), STATE)
        embed_queues(queue_x, *self.queues.arguments(), h_q)
        return h_q

    def embed_flows(self, flows: Ints, flow_x: Array, h_f: Array) -> None:
        """h_f of ``flows`` before their first hop."""

        def run(_: int, low: int, high: int) -> None:
            embed(flows[low:high], flow_x, *self.flows.arguments(), h_f)

        each_chunk(len(flows), self.threads, run)

    def tell(
        self,
        flows: Ints,
        features: Features,
        h_q: Array,
        h_in: Array,
        h_out: Array,
        kept: Array = NOTHING_KEPT,
    ) -> Array:
        """Run the GRU along ``flows``; what queues are told, [Q, STATE], beyond what was ``kept`` of it."""
        told = aligned(np.zeros((chunk_count(len(flows)), *h_q.shape), np.float32))
        hops, gru = (features.hop_queue, features.hops.offsets, features.hop), self.gru.arguments(h_q)

        def run(chunk: int, low: int, high: int) -> None:
            sweep(flows[low:high], *hops, *gru, h_in, h_out, told[chunk], kept)

        each_chunk(len(flows), self.threads, run)
        return np.asarray(told.sum(axis=0))

    def update_queues(self, features: Features, h_q: Array, message: Array) -> Array:
        """GRU cell of all queues, input [message, h_l]."""
        after = empty_aligned(*h_q.shape)
        h_l = aligned(np.zeros((len(features.queues.link_load), STATE)))
        update_queues(
            h_q, message, features.queue_link, features.queue_part, h_l, *self.update.arguments(), after
        )
        return after

    def read_out(
        self,
        flows: Ints,
        features: Features,
        h_q: Array,
        h_f: Array,
        sums: Floats,
        ln_scale: Floats,
        at_work: Bits = NOT_ASKED,
    ) -> None:
        """The last sweep: sums over the hops of ``flows`` [F, heads + 2], their expected errors [F], and
        which hidden units were at work, [H], if that is asked for."""
        prior = np.column_stack([features.wait_s, features.wait_std_s, features.ln_blocking])
        hops = (features.hop_queue, features.hops.offsets, features.hop)
        layers = (*self.gru.arguments(h_q), h_f, *self.read.arguments(h_q), *self.error)
        config = self.config
        limits = config.heads, np.float32(config.limit), config.most_ln_scale

        def run(_: int, low: int, high: int) -> None:
            last(flows[low:high], *hops, *layers, *limits, prior, sums, ln_scale, at_work)

        each_chunk(len(flows), self.threads, run)

    def said(self, sums: Floats, ln_scale: Floats) -> Said:
        """What :meth:`read_out` has written, by name."""
        heads = self.config.heads
        return Said(
            waits_s=sums[:, :heads],
            variance_s2=sums[:, heads],
            ln_survival=sums[:, heads + 1],
            ln_scale=ln_scale,
        )


@dataclass(frozen=True)
class _Perceptron:
    """Scaled features through two layers. A feature that never varied has a scale of a thousand and more, so
    its mean goes first: folded into the weights it would cost the digits of the others."""

    low: Array
    high: Array
    mean: Array
    per_deviation: Array
    w_1: Array
    b_1: Array
    w_2: Array
    b_2: Array

    @classmethod
    def of(cls, checkpoint: Checkpoint, table: str) -> _Perceptron:
        w, name = checkpoint.weights, f"embed_{table}"
        return cls(
            low=w[f"scale_{table}.low"],
            high=w[f"scale_{table}.high"],
            mean=w[f"scale_{table}.mean"],
            per_deviation=np.float32(1.0) / w[f"scale_{table}.deviation"],
            w_1=aligned(w[f"{name}.0.weight"].T),
            b_1=aligned(w[f"{name}.0.bias"]),
            w_2=aligned(w[f"{name}.2.weight"].T),
            b_2=aligned(w[f"{name}.2.bias"]),
        )

    def arguments(self) -> tuple[Array, ...]:
        """low, high, mean, per_deviation, w_1, b_1, w_2, b_2."""
        scale = self.low, self.high, self.mean, self.per_deviation
        return *scale, self.w_1, self.b_1, self.w_2, self.b_2


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
    b_state: Array
    w_state: Array

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> _Gru:
        w, state = checkpoint.weights, checkpoint.config.state
        mean, deviation = w["scale_hop.mean"], w["scale_hop.deviation"]
        w_in = halved(w["flow_update.weight_ih"], state)
        bias, b_state = _biases(w, "flow_update", state)
        w_hop = w_in[:, state:] / deviation
        return cls(
            low=w["scale_hop.low"],
            high=w["scale_hop.high"],
            w_queue=aligned(w_in[:, :state].T),
            bias=bias - w_hop @ mean,
            w_hop=aligned(w_hop.T),
            b_state=b_state,
            w_state=aligned(halved(w["flow_update.weight_hh"], state).T),
        )

    def arguments(self, h_q: Array) -> tuple[Array, ...]:
        """low, high, gates, w_hop, b_state, w_state."""
        gates = to_gates(h_q, self.w_queue, self.bias)
        return self.low, self.high, gates, self.w_hop, self.b_state, self.w_state


@dataclass(frozen=True)
class _QueueGru:
    """The GRU cell of queues, input [message ; h_l]; biases as in :class:`_Gru`."""

    w_message: Array
    w_link: Array
    bias: Array
    w_state: Array
    b_state: Array

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> _QueueGru:
        w, state = checkpoint.weights, checkpoint.config.state
        w_in = halved(w["queue_update.weight_ih"], state)
        bias, b_state = _biases(w, "queue_update", state)
        return cls(
            w_message=aligned(w_in[:, :state].T),
            w_link=aligned(w_in[:, state:].T),
            bias=bias,
            w_state=aligned(halved(w["queue_update.weight_hh"], state).T),
            b_state=b_state,
        )

    def arguments(self) -> tuple[Array, ...]:
        """w_message, w_link, bias, w_state, b_state."""
        return self.w_message, self.w_link, self.bias, self.w_state, self.b_state


def _biases(w: Mapping[str, Array], name: str, state: int) -> tuple[Array, Array]:
    """The biases of a GRU from its input and from its state: those of the reset and update gates meet."""
    bias, own = (halved(w[f"{name}.bias_{side}"], state) for side in ("ih", "hh"))
    bias[: 2 * state] += own[: 2 * state]
    own[: 2 * state] = 0.0
    return aligned(bias), aligned(own)


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
            w_state=aligned(first[:, :state].T),
            w_queue=aligned(first[:, state : 2 * state].T),
            w_hop=aligned(w_hop.T),
            bias=np.asarray(w["readout.bias"] - w_hop @ w["scale_hop.mean"]),
            w_out=_spread(w["correct.weight"].T, checkpoint.config.heads),
            b_out=_spread(w["correct.bias"], checkpoint.config.heads),
        )

    def arguments(self, h_q: Array) -> tuple[Array, ...]:
        """read, w_read_hop, w_read_state, w_out, b_out."""
        return to_hidden(h_q, self.w_queue, self.bias), self.w_hop, self.w_state, self.w_out, self.b_out


def _spread(outputs: Array, heads: int) -> Array:
    """[…, heads + OTHERS] with room for HEADS heads, and zeros up to OUTPUTS."""
    spread = aligned(np.zeros((*outputs.shape[:-1], OUTPUTS)))
    spread[..., :heads] = outputs[..., :heads]
    spread[..., HEADS : HEADS + OTHERS] = outputs[..., heads:]
    return spread
