"""Predict again what a change touches, and nothing else: for optimisers and for what-if.

    incremental = Incremental(load())
    before = incremental.predict(network, traffic)  # all of it
    after = incremental.update(network, other_traffic)  # finds out by itself what has changed
    incremental.rerun.flows  # so many flows were run again

Theory
------
A prediction runs flows over queues, T times. A flow must be run again where it has changed itself, or where a
queue on its way has: in what the queueing model says of it, or in its state at any of the T sweeps. It then
tells the queues something else, and so the change spreads from sweep to sweep and fades. :class:`Incremental`
keeps every sweep's states and what every hop told its queue, follows the change, and leaves out the flows
for which it is worth less than a tolerance.

*No drift.* What is left out is remembered as a debt of the flow (:mod:`twin.incremental_account`), which
grows with every change until the flow is run again. Sums over flows are made anew
(:mod:`twin.incremental_core`), or in double precision from terms of single precision.

*What is not followed.* Another topology, routing, scheduling or set of flows is predicted whole, as is a
change that touches most flows, and a state outside of what the model has seen: what a step is worth there
cannot be told.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from twin.checkpoint import Checkpoint
from twin.chunks import beside, each_chunk
from twin.errors import UsageError
from twin.features import Features, FlowTables, Loops, assemble
from twin.features_core import SURVIVAL
from twin.features_ways import Ways
from twin.incremental_account import Accounts
from twin.incremental_core import Crossings, Flags, add_up_links, touched_links, weigh
from twin.incremental_effect import LEAST, SAMPLE, Effects
from twin.incremental_prior import (
    SAME,
    OfferMemory,
    changed_flows,
    changed_wires,
    same_flows,
    same_ground,
)
from twin.incremental_seen import inlet_shares, seen_of
from twin.inference import RouteNet
from twin.inference_conclude import PREDICTED
from twin.inference_cpu import Array, CpuForward
from twin.inference_kernel import STATE, aligned, empty_aligned
from twin.models import PathPrediction
from twin.network import Floats, Ints, Network, Traffic
from twin.queueing import LinkQueues

TOLERANCE = 5e-5  # of queueing + transmission, of jitter, and of loss a hundredfold: what a flow may owe
MOST = 0.7  # of all flows: where a change touches more, predict all


@dataclass(frozen=True)
class Rerun:
    """What the last prediction took."""

    flows: int  # that were run again
    whole: str = ""  # why all of them were, if they were


@dataclass
class _Sweep:
    """One of the T sweeps along flows as it was last run."""

    h_q: Array  # [Q, STATE] of the queues, as the flows over them were last run with
    h_f: Array  # [F, STATE] of the flows, before their first hop
    kept: Array  # [H, STATE] what every hop told its queue; the last sweep tells nothing
    told: Floats  # [Q, STATE] their sums

    @classmethod
    def empty(cls, queues: int, flows: int, kept_hops: int) -> _Sweep:
        """Room for one, in which no queue is as it is and nothing was told."""
        return cls(
            h_q=np.full((queues, STATE), np.inf, np.float32),
            h_f=empty_aligned(flows, STATE),
            kept=aligned(np.zeros((kept_hops, STATE))),
            told=np.zeros((queues, STATE)),
        )


@dataclass
class _Memory:
    """One state of the network and all that its prediction took."""

    network: Network
    traffic: Traffic
    crossings: Crossings
    offers: OfferMemory
    loops: Loops
    queues: LinkQueues
    sums: Floats  # [Q, SUMS]
    inlet_rate: Floats  # [I]
    tables: FlowTables
    seen: Floats  # [Q, ·] what flows were last run with: of queues,
    inlet_seen: Floats  # [I] of inlets,
    overall_bits: float  # and of the network
    sweeps: list[_Sweep]
    read: Floats  # [F, heads + 2]
    ln_scale: Floats  # [F]
    predicted: Floats  # [PREDICTED, F]
    accounts: Accounts
    effects: Effects = field(init=False)

    def look(self, checkpoint: Checkpoint) -> None:
        """Find out what steps of queues do in this network, once all flows were run."""
        self.accounts.count()
        ways, last = self.loops.ways, self.sweeps[-1]
        routed = np.flatnonzero(ways.hops.lengths)
        some = routed[:: max(1, len(routed) // SAMPLE)]
        hops = ways.hops.offsets[some]
        queues = last.h_q[ways.queues[hops]]
        self.effects = Effects.of(checkpoint, last.h_f[some], queues, self.tables.hop[hops])


class Incremental:
    """A trained model that remembers its last prediction; satisfies :class:`twin.models.DelayModel`.

    What is updated differs from a prediction of all flows by less than 1e-4 in every delay and jitter, by
    about 1e-6 in every loss, and by a few hundredths in the widths of intervals.
    """

    def __init__(self, model: RouteNet, *, tolerance: float = TOLERANCE) -> None:
        if not isinstance(model.forward, CpuForward):
            raise UsageError("only what runs on the CPU's kernel is predicted incrementally: load it for cpu")
        self.model, self.forward = model, model.forward
        self.name, self.version = model.name, model.version
        self.tolerance = tolerance
        self.rerun = Rerun(0)
        self._memory: _Memory | None = None

    def predict(self, network: Network, traffic: Traffic) -> PathPrediction:
        """Predict all flows, and remember."""
        return self._whole(network, traffic, "asked for")

    def update(self, network: Network, traffic: Traffic) -> PathPrediction:
        """Predict from what is remembered; the arguments are the whole new state, not the change."""
        memory = self._memory
        if memory is None:
            return self._whole(network, traffic, "nothing is remembered")
        if not same_ground(memory.network, network):
            return self._whole(network, traffic, "another topology, routing or scheduling")
        if not same_flows(memory.traffic, traffic):
            return self._whole(network, traffic, "other flows")
        return self._follow(memory, network, traffic)

    def _whole(self, network: Network, traffic: Traffic, why: str) -> PathPrediction:
        """Predict all flows as if nothing were known."""
        self._memory = None  # nothing half done is remembered
        ways = Ways.of(network, traffic)
        crossings = Crossings.of(ways.hops.links, ways.queues, ways.hops.offsets, len(network.links))
        offers = OfferMemory(ways, crossings)
        queues = self.model.prior.solve(network, traffic, offers=offers)
        loops = Loops.of(network, traffic, self.model.prior.size_scv, queues)
        sums, inlet_rate = loops.add_up(self.model.threads)
        flows, hops = len(loops.pps), len(ways.queues)
        iterations = self.forward.config.iterations
        memory = _Memory(
            network=network,
            traffic=traffic,
            crossings=crossings,
            offers=offers,
            loops=loops,
            queues=queues,
            sums=sums,
            inlet_rate=inlet_rate,
            tables=FlowTables.empty(ways.hops),
            seen=seen_of(network, queues),
            inlet_seen=inlet_shares(loops, inlet_rate),
            overall_bits=loops.overall_bits,
            sweeps=[
                _Sweep.empty(len(loops.of_queue), flows, hops if t < iterations - 1 else 0)
                for t in range(iterations)
            ],
            read=np.empty((flows, self.forward.config.heads + 2)),
            ln_scale=np.empty(flows),
            predicted=np.empty((PREDICTED, flows)),
            accounts=Accounts.of(
                ways, crossings, network.queue_link, iterations + 1, self.tolerance, self.model.threads
            ),
        )
        odd = self.model.out_of_range(network, queues)
        prediction = self._run(memory, np.ones(flows, np.bool_), odd)
        memory.look(self.model.checkpoint)
        self._memory, self.rerun = memory, Rerun(flows, why)
        return prediction

    def _follow(self, memory: _Memory, network: Network, traffic: Traffic) -> PathPrediction:
        """Predict those flows that a change touches."""
        self._memory = None
        copy = beside(self.model.threads, memory.predicted.copy)  # what was handed out stays as it is
        changed, wires = changed_flows(memory.traffic, traffic), changed_wires(memory.network, network)
        memory.offers.begin(changed)
        try:
            queues = self.model.prior.solve(network, traffic, offers=memory.offers)
        except UsageError:
            self._memory = memory  # the state that was asked for cannot be; the one before still is
            raise
        if self.model.out_of_range(network, queues):
            return self._whole(network, traffic, "outside of what the model has seen")
        loops = Loops.of(network, traffic, self.model.prior.size_scv, queues)
        self._add_up(memory, network, loops, changed)
        memory.network, memory.traffic, memory.loops, memory.queues = network, traffic, loops, queues
        run = self._touched(memory, queues, changed, wires)
        whole = "the change touches most flows" if run.all() else ""
        memory.predicted = copy()
        prediction = self._run(memory, run)
        self._memory, self.rerun = memory, replace(self.rerun, whole=whole)
        return prediction

    def _add_up(self, memory: _Memory, network: Network, loops: Loops, changed: Ints) -> None:
        """Sum anew over the links that see other packets."""
        ways, crossings, survival = loops.ways, memory.crossings, loops.of_queue[:, SURVIVAL].copy()
        moved = np.abs(survival - memory.loops.of_queue[:, SURVIVAL]) > SAME
        by_link = (crossings.offsets, crossings.hops, crossings.flows, crossings.queues, ways.hops.offsets)
        touched = touched_links(
            changed, moved, network.queue_link, *by_link, ways.hops.links, len(network.links)
        )
        base = np.append(ways.inlet_base, len(ways.inlet_link))
        add_up_links(
            touched, *by_link, ways.queues, network.queue_offsets, ways.inlets, base, loops.pps, loops.vary,
            survival, memory.sums, memory.inlet_rate,
        )  # fmt: skip

    def _touched(self, memory: _Memory, queues: LinkQueues, changed: Ints, wires: Ints) -> Flags:
        """The flows that have changed or cross queues or ``wires`` (links) that have, [F]."""
        network, loops = memory.network, memory.loops
        run = np.zeros(len(loops.pps), np.bool_)
        run[changed] = True
        for link in wires:
            run[memory.crossings.over(link)] = True
        seen, inlet_seen = seen_of(network, queues), inlet_shares(loops, memory.inlet_rate)
        steps, inlet_steps = seen - memory.seen, inlet_seen - memory.inlet_seen
        inlet_queue = np.repeat(np.arange(len(seen)), np.diff(loops.ways.inlet_base, append=len(inlet_seen)))
        least = LEAST * self.tolerance
        moved = np.abs(steps).max(axis=1, initial=0.0) > least
        moved[inlet_queue[np.abs(inlet_steps) > least]] = True
        memory.accounts.charge_features(queues, moved, steps, inlet_steps, memory.tables.hop, run)
        overall = abs(np.log(loops.overall_bits / memory.overall_bits)) > self.tolerance
        if overall or np.count_nonzero(run) > MOST * len(run):
            run[:], moved[:] = True, True
            memory.overall_bits = loops.overall_bits
        memory.seen[moved] = seen[moved]
        memory.inlet_seen[moved[inlet_queue]] = inlet_seen[moved[inlet_queue]]
        memory.accounts.pay(0, np.flatnonzero(run))
        return run

    def _run(self, memory: _Memory, run: Flags, odd: tuple[str, ...] = ()) -> PathPrediction:
        """Run flows again, sweep by sweep more of them, as what they tell spreads."""
        network, loops, forward, sweeps = memory.network, memory.loops, self.forward, memory.sweeps
        flows = np.flatnonzero(run)
        loops.tabulate(flows, self.model.threads, memory.inlet_rate, memory.tables)
        features = assemble(network, memory.queues, loops, memory.sums, memory.inlet_rate, memory.tables)
        forward.embed_flows(flows, features.flow, sweeps[0].h_f)
        h_q = forward.embed_queues(features.queue)
        for level, (this, following) in enumerate(pairwise(sweeps), 1):
            flows = self._spread(memory, level, h_q, features, run)
            this.told += forward.tell(flows, features, h_q, this.h_f, following.h_f, this.kept)
            h_q = forward.update_queues(features, h_q, this.told.astype(np.float32))
        flows = self._spread(memory, len(sweeps), h_q, features, run)
        self._conclude(memory, flows, features, h_q)
        self.rerun = Rerun(len(flows))
        return self.model.prediction(memory.queues, memory.predicted, odd)

    def _spread(self, memory: _Memory, level: int, h_q: Array, features: Features, run: Flags) -> Ints:
        """The flows to run in a sweep: those of the sweep before, and those over queues that differ."""
        sweep, accounts = memory.sweeps[level - 1], memory.accounts
        if not run.all():
            worth = memory.effects.of_steps(
                h_q - sweep.h_q, memory.queues, features.ln_blocking, accounts.usual, self.tolerance
            )
            accounts.charge(level, worth, run)
            sweep.h_q[worth.moved] = h_q[worth.moved]
        if run.all():
            sweep.h_q[:] = h_q
        flows = np.flatnonzero(run)
        accounts.pay(level, flows)
        return flows

    def _conclude(self, memory: _Memory, flows: Ints, features: Features, h_q: Array) -> None:
        """Read out the last sweep of ``flows``."""
        sweep = memory.sweeps[-1]
        at_work = memory.accounts.at_work
        self.forward.read_out(flows, features, h_q, sweep.h_f, memory.read, memory.ln_scale, at_work)

        def weigh_some(_: int, low: int, high: int) -> None:
            weigh(
                flows[low:high], features.hops.offsets, features.hop_queue, features.wait_s,
                features.wait_std_s, memory.read, features.transmission_s, features.size_scv,
                memory.accounts.table,
            )  # fmt: skip

        each_chunk(len(flows), self.model.threads, weigh_some)
        said = self.forward.said(memory.read, memory.ln_scale)
        self.model.conclude(flows, memory.network, memory.traffic, features, said, memory.predicted)
