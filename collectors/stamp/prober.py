"""The sender's service: every probe of this process, paced in one loop, its bins told as delay reports.

All probes share one grid of bins and one closing time (the longest time-out), so that what one source
measured in a bin is told in one burst, at one ``observed_at_ns``: the stream takes the first report after a
window's end as the word that nothing more will come. A source without news says so.

Trouble stays with its probe: a target that does not answer is told once, and goes on being asked at its rate.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from collectors.inventory import Inventory
from collectors.schedule import SILENT_AFTER
from collectors.stamp.bins import Measured, ProbeBins, ProbeLabel
from collectors.stamp.clock import OwnClock
from collectors.stamp.lane import REJECTIONS, Lane
from collectors.stamp.pace import Pace
from collectors.stamp.sender import SenderSession, SessionSettings
from collectors.stamp.tables import Probe
from collectors.stamp.timestamps import NS_PER_S
from collectors.stats import CollectorStats
from twin.records import DelayReport, Direction, NetworkEvent, PathDelay, Record

Emit = Callable[[Record], None]
TICK_S = 0.1
LOG = "ndtwin.collect"
_LONGEST_SLEEP_S = 0.5
_TOLD = 5  # probes of one event told by name


@dataclass
class Prober:
    """All probes of one process."""

    network: str
    probes: Sequence[Probe]
    keys: Mapping[str, bytes] = field(repr=False)  # by name of the credential set
    emit: Emit
    stats: CollectorStats
    bin_ns: int
    lanes: list[Lane] = field(default_factory=list)
    _told_until_ns: int = 0
    _steps: OwnClock = field(default_factory=OwnClock)
    _clocks: dict[tuple[str, float, str], OwnClock] = field(default_factory=dict)

    async def run(self) -> None:
        """Send, receive and tell until cancelled."""
        with self.opened():
            async with asyncio.TaskGroup() as group:
                group.create_task(self.pace())
                group.create_task(self._tell())

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """The probes at work, until the end of the block."""
        self.lanes = [self._lane(number, probe) for number, probe in enumerate(self.probes)]
        try:
            yield
        finally:
            for lane in self.lanes:
                lane.close()

    def _lane(self, number: int, probe: Probe) -> Lane:
        table = probe.table
        settings = [
            SessionSettings(
                ssid=(number * table.flows + flow) % 0xFFFF + 1,
                key=self.keys[probe.credentials] if probe.credentials else b"",
                dscp=probe.traffic_class,
                payload_octets=probe.payload_octets,
                form=table.timestamps,
                timeout_s=table.timeout_s,
            )
            for flow in range(table.flows)
        ]
        label = ProbeLabel(
            source=probe.source,
            target=probe.target,
            packet_bits=probe.packet_bits,
            traffic_class=probe.traffic_class,
            flows=table.flows,
            stateful=probe.stateful,
        )
        return Lane(
            probe=probe,
            sessions=[SenderSession(one) for one in settings],
            pace=Pace(table.packets_per_s, table.stream),
            bins=ProbeBins(label, bin_ns=self.bin_ns, timeout_ns=self._timeout_ns),
            clock=self._clocks.setdefault(
                (table.clock, table.clock_error_s, table.timestamps),
                OwnClock(table.clock, table.clock_error_s, table.timestamps),
            ),
        )

    @property
    def _timeout_ns(self) -> int:
        return int(max(probe.table.timeout_s for probe in self.probes) * NS_PER_S)

    async def pace(self, packets: int | None = None) -> None:
        """Send every probe's packets when they are due; so many of each, or for ever."""
        begin_ns = time.monotonic_ns()
        due = [(lane.pace.start(begin_ns), number) for number, lane in enumerate(self.lanes)]
        heapq.heapify(due)
        while due:
            wait_s = (due[0][0] - time.monotonic_ns()) / NS_PER_S
            await asyncio.sleep(min(max(wait_s, 0.0), _LONGEST_SLEEP_S))
            now_ns = time.monotonic_ns()
            if due[0][0] > now_ns:
                continue
            lane = self.lanes[due[0][1]]
            before = lane.pace.skipped
            if lane.pace.take(now_ns):
                lane.send()
            elif lane.pace.skipped > before:
                lane.bins.skipped(time.time_ns(), lane.pace.skipped - before)
            if packets is not None and lane.count("sent") >= packets:
                heapq.heappop(due)
            else:
                heapq.heapreplace(due, (lane.pace.due_ns or now_ns, due[0][1]))

    # ------------------------------------------------------------------ what is told

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.tick(time.time_ns())

    def tick(self, now_ns: int) -> None:
        """Tell the bins that are complete."""
        if self._steps.stepped():
            for lane in self.lanes:
                lane.bins.stepped()
        end_ns = (now_ns - self._timeout_ns) // self.bin_ns * self.bin_ns
        if end_ns <= self._told_until_ns:
            return
        self._told_until_ns = end_ns
        self._count()
        measured: dict[str, list[tuple[Lane, Measured]]] = {lane.probe.source: [] for lane in self.lanes}
        news: dict[tuple[str, str], list[str]] = {}  # (device, kind of event) → details
        for lane in self.lanes:
            for one in lane.bins.close(now_ns):
                measured[lane.probe.source].append((lane, one))
                for device, kind, detail in self._judge(lane, one):
                    news.setdefault((device, kind), []).append(detail)
        for (device, kind), details in news.items():
            self._event(device, kind, details, now_ns)
        for source, found in measured.items():
            for report in self._reports(source, found, now_ns):
                self.emit(report)

    def _reports(
        self, source: str, found: Sequence[tuple[Lane, Measured]], now_ns: int
    ) -> Iterator[DelayReport]:
        """What one source measured: its own paths one-way, those back to it, and round trips."""
        forward = tuple(one.forward for _, one in found if one.forward is not None)
        round_trip = tuple(one.round_trip for _, one in found if one.round_trip is not None)
        if forward:
            yield self._report(source, "one-way", forward, now_ns)
        backward: dict[str, list[PathDelay]] = {}
        for lane, one in found:
            if one.backward is not None:
                backward.setdefault(lane.probe.target, []).append(one.backward)
        for target, delays in sorted(backward.items()):
            yield self._report(target, "one-way", tuple(delays), now_ns, reporter=source)
        if round_trip or not forward:  # no news is told too: somebody waits for it
            yield self._report(source, "round-trip", round_trip, now_ns)

    def _report(
        self,
        device: str,
        direction: Direction,
        delays: tuple[PathDelay, ...],
        now_ns: int,
        reporter: str = "",
    ) -> DelayReport:
        flags = {flag for delay in delays for flag in delay.quality if flag in ("clock-step", "probe-gap")}
        return DelayReport(
            network=self.network,
            device=device,
            observed_at_ns=now_ns,
            method="stamp",
            direction=direction,
            delays=delays,
            quality=tuple(sorted(flags)),
            reporter=reporter,
        )

    def _judge(self, lane: Lane, one: Measured) -> Iterator[tuple[str, str, str]]:
        """(device, kind, detail) of what changed: a target fell silent or came back, a clock was lost."""
        probe, name = lane.probe, lane.bins.label.name
        rejected = lane.rejected()
        lane.silent_bins = 0 if one.answered else lane.silent_bins + (one.sent > 0)
        if lane.silent_bins == SILENT_AFTER and not lane.silent:
            lane.silent = True
            yield probe.source, "probe-silent", f"{name}: {lane.trouble or _why_silent(one, rejected)}"
        elif lane.silent and one.answered:
            lane.silent = False
            yield probe.source, "probe-back", name
        if lane.synchronised and one.synchronised is False:
            ours = lane.clock.estimate().synchronised
            yield (probe.target if ours else probe.source), "clock-unsynchronised", f"{name}: round trips now"
        if one.synchronised is not None:
            lane.synchronised = one.synchronised
        (self.stats.silent.add if lane.silent else self.stats.silent.discard)(f"{name}/stamp")
        if one.offset_s is not None:
            self.stats.probes.clock_offset_s[name] = one.offset_s

    def _event(self, device: str, kind: str, details: Sequence[str], now_ns: int) -> None:
        """One event, and one line, whatever the number of probes that it happened to."""
        detail = "; ".join(details[:_TOLD]) + (f"; and {len(details) - _TOLD} more" * (len(details) > _TOLD))
        structlog.get_logger(LOG).warning("probe", device=device, what=kind, detail=detail)
        self.emit(
            NetworkEvent(network=self.network, device=device, observed_at_ns=now_ns, kind=kind, detail=detail)
        )

    def _count(self) -> None:
        counts = self.stats.probes
        counts.sent, counts.received, counts.unsent = (
            sum(lane.count(name) for lane in self.lanes) for name in ("sent", "received", "unsent")
        )
        counts.skipped = sum(lane.pace.skipped for lane in self.lanes)
        counts.rejected = sum(lane.count(why) for lane in self.lanes for why in REJECTIONS)


def _why_silent(one: Measured, rejected: Mapping[str, int]) -> str:
    if one.refused:
        return "nobody listens there"
    told = ", ".join(f"{number} {reason}" for reason, number in rejected.items())
    return f"replies that are not to be believed ({told})" if told else "no reply"


def prober_of(
    inventory: Inventory, probes: Sequence[Probe], emit: Emit, stats: CollectorStats, *, bin_ns: int
) -> Prober:
    """The prober of some of an inventory's probes, with their keys."""
    keys = {}
    for name in {probe.credentials for probe in probes if probe.credentials}:
        secret = inventory.credentials[name].auth_key
        keys[name] = secret.reveal().encode() if secret is not None else b""
    return Prober(inventory.network, probes, keys, emit, stats, bin_ns)
