"""Active delay composed: the reflector as a service, the prober into Kafka, and one measurement by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from collectors.inventory import Inventory, Secret, load_inventory
from collectors.own_health import OwnHealth
from collectors.stamp.clock import OwnClock
from collectors.stamp.prober import Prober, prober_of
from collectors.stamp.reflecting import ReflectorService
from collectors.stamp.reflector import Reflector, ReflectorSettings
from collectors.stamp.tables import PORT, Probe, ProbeTable, is_address, probes_of
from collectors.stats import CollectorStats
from ndtwin.commands.common import stop_event_on_signals
from ndtwin.config import Settings
from stream.health import Heart
from stream.publisher import Publisher
from twin.errors import InventoryError, UsageError
from twin.records import PathDelay

BEAT_S = 1.0
_ONE_BIN_NS = 1 << 62  # longer than any measurement by hand


def endpoint(text: str, default_port: int = PORT) -> tuple[str, int]:
    """``ADDRESS:PORT``, ``[ADDRESS]:PORT`` or ``ADDRESS``."""
    bare = text.count(":") > 1 and not text.startswith("[")
    host, _, port = (text, "", "") if bare else text.partition("]:" if text.startswith("[") else ":")
    host = host.strip("[]")
    if not is_address(host) or (port and not (port.isdecimal() and int(port) <= 65535)):
        raise UsageError(f"{text!r} is not ADDRESS:PORT: write such as 192.0.2.1:862")
    return host, int(port) if port else default_port


def _key(reference: str | None) -> bytes:
    if reference is None:
        return b""
    try:
        return Secret(reference).reveal().encode()
    except ValueError as error:
        raise UsageError(f"--auth-key: {error}") from error


def _own_clock(state: str, error_s: float) -> OwnClock:
    if state not in ("kernel", "synchronised", "unsynchronised"):
        raise UsageError(f"--clock {state}: use kernel, synchronised or unsynchronised")
    return OwnClock(state, error_s)  # type: ignore[arg-type]  # just checked


def reflect_until_stopped(
    listen: Sequence[str],
    netns: Sequence[str],
    *,
    stateful: bool,
    auth_key: str | None,
    source_pps: float,
    total_pps: float,
    answer_short: bool,
    clock: str,
    clock_error_s: float,
    ready: Callable[[str], None],
) -> dict[str, int]:
    """Reflect at every address in every namespace until a signal; what became of all datagrams."""
    settings = ReflectorSettings(
        key=_key(auth_key),
        stateful=stateful,
        source_pps=source_pps,
        total_pps=total_pps,
        answer_short=answer_short,
    )
    service = ReflectorService(Reflector(settings), _own_clock(clock, clock_error_s))
    service.open([(*endpoint(one), space) for space in netns for one in listen])

    async def run() -> None:
        stop = stop_event_on_signals()
        ready(", ".join(f"{host}:{port}" for host, port in service.addresses))
        await service.run(stop)

    asyncio.run(run())
    return {**service.reflector.counts, "unsent": service.unsent}


def send_until_stopped(settings: Settings, sources: Sequence[str], *, netns: str) -> None:
    """The inventory's probes of some devices → Kafka until a signal."""
    inventory = load_inventory(settings.inventory_path)
    probes = [probe for probe in probes_of(inventory) if probe.source in sources]
    if netns:
        probes = [_inside(probe, netns) for probe in probes]
    if missing := set(sources) - {probe.source for probe in probes}:
        raise InventoryError(
            f"{settings.inventory_path}: no probe of {', '.join(sorted(missing))}: add [[probes]]"
        )
    with Publisher(settings.bootstrap, settings.broker.partitions, client_id="stamp") as publisher:
        asyncio.run(_send(settings, inventory, probes, publisher))


def _inside(probe: Probe, netns: str) -> Probe:
    return msgspec.structs.replace(probe, table=msgspec.structs.replace(probe.table, netns=netns))


async def _send(
    settings: Settings, inventory: Inventory, probes: Sequence[Probe], publisher: Publisher
) -> None:
    stats, health, stop = CollectorStats(), OwnHealth(), stop_event_on_signals()
    heart = Heart(publisher, "stamp-" + "-".join(sorted({probe.source for probe in probes}))[:60])
    bin_ns = int(settings.pipeline.window_s / 2 * 1e9)
    work = asyncio.create_task(prober_of(inventory, probes, publisher.publish, stats, bin_ns=bin_ns).run())
    while not stop.is_set() and not work.done():
        heart.beat(*health.look(stats, time.monotonic()))
        await asyncio.wait([work], timeout=BEAT_S)
    heart.beat("stopped")
    if work.done():
        await work
    work.cancel()
    await asyncio.wait([work])


def measure_once(
    to: str,
    *,
    count: int,
    rate_pps: float,
    auth_key: str | None,
    clock: str,
    clock_error_s: float,
    dscp: int,
    **table: Any,
) -> dict[str, Any]:
    """So many packets to one address: delays in seconds, losses, and what is to be known about them."""
    _own_clock(clock, clock_error_s)
    told = {"packets_per_s": rate_pps, "clock": clock, "clock_error_s": clock_error_s, **table}
    try:
        row = msgspec.convert({"source": "here", "target": to, **told}, ProbeTable)
    except msgspec.ValidationError as error:
        raise UsageError(str(error)) from error
    key = _key(auth_key)
    probe = Probe(
        source="here",
        target=to,
        address=endpoint(to),
        traffic_class=dscp,
        table=row,
        credentials="key" if key else "",
    )
    prober = Prober("", [probe], {"key": key}, lambda _: None, CollectorStats(), _ONE_BIN_NS)
    return asyncio.run(_measure(prober, count))


async def _measure(prober: Prober, count: int) -> dict[str, Any]:
    with prober.opened():
        lane = prober.lanes[0]
        await prober.pace(count)
        await asyncio.sleep(lane.probe.table.timeout_s)
    figures: dict[str, Any] = {"sent": lane.count("sent"), "received": lane.count("received")}
    if lane.trouble:
        figures["trouble"] = lane.trouble
    for measured in lane.bins.close(2 * _ONE_BIN_NS):
        told = {"forward": measured.forward, "backward": measured.backward, "round_trip": measured.round_trip}
        for name, delay in told.items():
            figures |= {f"{name}_{key}": value for key, value in _plain(delay).items()}
        figures["clock_offset_s"] = measured.offset_s
    return figures


_TOLD = (
    "mean_s",
    "min_s",
    "p50_s",
    "p95_s",
    "max_s",
    "jitter_s",
    "ipdv_s",
    "lost",
    "lost_forward",
    "lost_backward",
    "error_s",
)


def _plain(delay: PathDelay | None) -> Mapping[str, Any]:
    if delay is None:
        return {}
    known = {name: value for name in _TOLD if (value := getattr(delay, name)) is not None}
    if not delay.count:  # nothing came back: there is no delay to tell
        known = {name: value for name, value in known.items() if name.startswith("lost")}
    return {**known, "quality": list(delay.quality)}
