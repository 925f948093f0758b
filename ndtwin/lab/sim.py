"""The driver: a thread that plays the simulator in real time and keeps the devices up to date.

1. Simulated time 0 is a whole second of the wall clock, so that every second, and every probe period (a
   multiple of its length since the epoch), begins and ends at the same instants as the collectors'
   windows.
2. The thread advances the simulator to "now" in steps of some 40 ms (the simulator lets the GIL go),
   stopping at every whole second, where it hands a :class:`Second` to its listener and sets the traffic's
   rates for the next one.
3. What changes the network (faults, reconvergence) runs on this thread between two steps, by
   :meth:`Driver.call` or :meth:`Driver.later`. Nobody else touches the simulator; agents only read
   counters.
4. When the simulator cannot keep up it goes on as fast as it can, its records keep the simulated instants,
   and the driver says by how much it is behind (``lag_s``, a warning in the log). It never skips and never
   invents.

Routing reconverges ``convergence_s`` after a link went down or came back; until then packets meet a dead
link, as they do in a real network. Routes forced by a fault lie on top of what the routing protocol
computes.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import count
from queue import Empty, SimpleQueue
from typing import TypeVar

import numpy as np
import structlog

from ndtwin.lab.addressing import Addressing
from ndtwin.lab.device import Device, OperationResult
from ndtwin.lab.flows import FlowPlan
from ndtwin.lab.second import Deltas, Period, Second
from ndtwin.lab.world import World
from twin.network import Floats, Network
from twin.routing import shortest_paths
from twin.simulator import Simulator

T = TypeVar("T")
SECOND_NS = 1_000_000_000
LAG_WARNING_S = 1.0
LAG_WARNING_EVERY_S = 10.0
IP_UDP_OCTETS = 28  # headers around a probe's payload; RTTMON tells the payload
_log = structlog.get_logger("ndtwin.lab")


@dataclass(frozen=True)
class Timing:
    """How the driver moves."""

    step_s: float = 0.04
    convergence_s: float = 1.0
    probe_period_s: int = 5


class Driver(threading.Thread):
    """See the module's docstring."""

    def __init__(
        self,
        plan: FlowPlan,
        rates: Callable[[float], Floats],
        *,
        seed: int,
        addressing: Addressing,
        weights: Floats | None = None,
        timing: Timing = Timing(),
    ) -> None:
        super().__init__(name="lab-simulator", daemon=True)
        self.plan, self.timing, self.network = plan, timing, plan.network
        self.simulator = Simulator(plan.network, plan.flows(), seed=seed)
        self.world = World(plan.network, self.simulator, plan, addressing, time.time_ns)
        self.world.add_operations(
            frequency_s=timing.probe_period_s,
            packets=max(1, round(plan.probe_pps * timing.probe_period_s)),
            packet_octets=round(plan.probe_bits / 8) - IP_UDP_OCTETS,
        )
        self.routed = plan.network
        self.forced: dict[tuple[int, int], int] = {}  # (node, destination) → link, set by faults
        self.probe_scale = np.ones(len(self.network.nodes))  # what each device's probes are multiplied by
        self.on_second: Callable[[Second], None] = lambda second: None
        self.failure: BaseException | None = None
        self._rates, self._weights = rates, weights
        self._pps = np.array([flow.pps for flow in plan.flows()])
        self._up = np.ones(len(self.network.links), dtype=np.bool_)
        self._deltas = Deltas(self.simulator)
        self._probes = Period(plan.probe_slice())
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._stopping = threading.Event()
        self._start_ns = 0
        self._warned_s = -LAG_WARNING_EVERY_S

    # ------------------------------------------------------------------ for other threads

    @property
    def playing(self) -> bool:
        """Has the clock been started?"""
        return self._start_ns > 0

    @property
    def devices(self) -> list[Device]:
        """The devices, in the order of the network's nodes."""
        return self.world.devices

    @property
    def back(self) -> list[int]:
        """For every link the one back over the same cable."""
        return self.world.back

    @property
    def lag_s(self) -> float:
        """By how much the simulator is behind the wall clock; a step's length is no lag."""
        return max(0.0, self._elapsed_s() - self.simulator.now_s) if self.playing else 0.0

    def traffic_bps(self) -> Floats:
        """What customers offer on every path in this second, [P]."""
        bits = np.array([flow.sizes.mean_bits for flow in self.plan.traffic])
        offered: Floats = self._pps[self.plan.traffic_slice()] * bits
        return offered

    def call(self, action: Callable[[], T]) -> Future[T]:
        """Run something on the driver's thread between two steps."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(action())
            except Exception as error:  # handed to whoever waits for the future
                future.set_exception(error)

        self._calls.put(run)
        return future

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopping.set()
        if self.is_alive():
            self.join()

    # ------------------------------------------------------------------ the loop

    def run(self) -> None:
        """The thread. What breaks it is kept in ``failure`` for whoever supervises."""
        try:
            self._set_rates(0.0)
            self.simulator.advance(0.0)  # compiles on the first run, before the clock starts
            self._start_ns = (time.time_ns() // SECOND_NS + 1) * SECOND_NS
            while not self._stopping.wait(self._pause_s()):
                self._step()
        except Exception as error:
            self.failure = error
            _log.error("simulator-failed", reason=str(error))
            raise

    def _pause_s(self) -> float:
        due_s = self.simulator.now_s + self.timing.step_s - self._elapsed_s()
        return max(0.0, due_s)

    def _elapsed_s(self) -> float:
        return (time.time_ns() - self._start_ns) / SECOND_NS

    def _step(self) -> None:
        self._run_calls()
        sim, boundary_s = self.simulator, float(int(self.simulator.now_s) + 1)
        goal_s = min(self._elapsed_s(), boundary_s, self._later[0][0] if self._later else boundary_s)
        if goal_s > sim.now_s:
            sim.advance(goal_s)
        while self._later and self._later[0][0] <= sim.now_s:
            heapq.heappop(self._later)[2]()
        if sim.now_s == boundary_s:
            self._finish_second(int(boundary_s))
        self._watch_lag()

    def _run_calls(self) -> None:
        while True:
            try:
                action = self._calls.get_nowait()
            except Empty:
                return
            action()

    def _watch_lag(self) -> None:
        lag_s, elapsed_s = self.lag_s, self._elapsed_s()
        if lag_s > LAG_WARNING_S and elapsed_s - self._warned_s > LAG_WARNING_EVERY_S:
            self._warned_s = elapsed_s
            hint = "lower lab.packet_hops_per_s or lab.probe_pps"
            _log.warning("lab-behind", lag_s=round(lag_s, 2), hint=hint)

    def _finish_second(self, second: int) -> None:
        end_ns = self._start_ns + second * SECOND_NS
        packets, octets, lost = self._deltas.take()
        delays = self.simulator.take_delays()
        self._probes.add(delays, lost)
        if (end_ns // SECOND_NS) % self.timing.probe_period_s == 0:
            self._finish_period(end_ns)
        self._set_rates(float(second))
        self.on_second(Second(end_ns - SECOND_NS, end_ns, packets, octets, delays, self.routed))

    def _finish_period(self, end_ns: int) -> None:
        """New results of all operations; a period begun in the middle counts for nothing."""
        if self._probes.seconds == self.timing.probe_period_s:
            for node, device in enumerate(self.devices):
                first = device.operations and device.operations[0].result is None
                self._set_results(node, device, end_ns)
                if first:
                    device.changed()  # the tables of latest results get their rows
        self._probes.clear()

    def _set_results(self, node: int, device: Device, end_ns: int) -> None:
        scale = float(self.probe_scale[node])
        for operation in device.operations:
            far = operation.index - 1
            forward = self._probes.one_way(self._path(node, far), scale)
            backward = self._probes.one_way(self._path(far, node), scale)
            operation.result = OperationResult(end_ns, forward, backward)

    def _path(self, source: int, destination: int) -> int:
        return source * (len(self.devices) - 1) + destination - (destination > source)

    def _set_rates(self, time_s: float) -> None:
        self._pps[self.plan.traffic_slice()] = self._rates(time_s)
        self.simulator.set_rates(self._pps)

    # ------------------------------------------------------- changing the network (driver's thread)

    def later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do something after so much simulated time."""
        heapq.heappush(self._later, (self.simulator.now_s + delay_s, next(self._order), action))

    def set_hidden_rate(self, path: int, pps: float) -> None:
        """Traffic on a path that no flow record shows; in force from now on."""
        self._pps[self.plan.hidden(path)] = pps
        self.simulator.set_rate(self.plan.hidden(path), pps)

    def set_cable(self, link: int, up: bool) -> None:
        """Both directions of a link go down, or come back; routing follows after the convergence time."""
        for i in (link, self.world.back[link]):
            self._up[i] = up
            self.simulator.set_link(i, up=up)
            interface = self.world.source_interfaces[i]
            device = self.devices[self.network.source_index[i]]
            device.set_oper(interface, up)
            device.lsas_originated += 1
        for device in self.devices:
            device.lsas_received += 2
        self.later(self.timing.convergence_s, self.converge)

    def converge(self) -> None:
        """Shortest paths over the links that are up, with the forced routes on top."""
        links = tuple(
            replace(link, up=bool(up)) for link, up in zip(self.network.links, self._up, strict=True)
        )
        next_link = shortest_paths(self.network.nodes, links, self._weights)
        for (node, destination), link in self.forced.items():
            next_link[node, destination] = link
        changed = np.argwhere(next_link != self.routed.next_link)
        for node, destination in changed:
            self.simulator.set_next_link(int(node), int(destination), int(next_link[node, destination]))
        before, self.routed = self.routed, replace(self.routed, links=links, next_link=next_link)
        self.world.set_routes(self.routed, self._rerouted(before))

    def _rerouted(self, before: Network) -> list[int]:
        """Nodes whose route table differs: other next hops, other distances, or a cable that came or went."""
        network = self.network
        rows = (before.next_link != self.routed.next_link).any(axis=1)
        moved = np.flatnonzero(before.paths.lengths != self.routed.paths.lengths)
        rows[moved // (len(network.nodes) - 1)] = True
        for one, other, node in zip(before.links, self.routed.links, network.source_index, strict=True):
            rows[node] |= one.up != other.up
        return [int(node) for node in np.flatnonzero(rows)]
