"""Flow topics of other collectors (pmacct, goflow2) → our flow reports: Kafka in, Kafka out.

Reading begins at the end of the topics, each time: what was written while nobody read belongs to windows that
have closed, and what was read twice would count twice. What cannot be read, and what comes from an exporter
that the inventory does not know, goes to the dead letters, bounded per second as the listener's does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from collectors.flows.aggregate import FlowAggregator, Granularity
from collectors.flows.foreign import read_foreign
from collectors.flows.settings import FlowTable
from collectors.inventory import Inventory
from collectors.listener import MAX_LETTERS_PER_S, TICK_S
from collectors.stats import CollectorStats
from ndtwin.config import FlowTopic, Settings
from stream.consumer import Message, Reader, dead_letter
from twin.errors import DecodeError, PeerError
from twin.records import Record

RETRY_S = 5.0
_POLL_S, _POLL_MESSAGES = 0.2, 5_000
_WORKER = 1_000  # marks our reports as other than those of the listener's processes


class ForeignFlows:
    """Messages of one topic → reports. No I/O."""

    def __init__(
        self,
        topic: FlowTopic,
        inventory: Inventory,
        emit: Callable[[Record], None],
        stats: CollectorStats,
        bin_ns: int,
    ) -> None:
        table = inventory.ipfix or FlowTable()
        choice = Granularity(table.longest_prefix_v4, table.longest_prefix_v6, table.per_class)
        self._topic = topic
        self._devices = {device.address: device.name for device in inventory.devices}
        self._emit = emit
        self._stats = stats
        self._flows = FlowAggregator(
            inventory.network, self._devices, bin_ns=bin_ns, granularity=choice, worker=_WORKER
        )
        self._letters: tuple[int, int] = (0, 0)  # (second, letters in it)

    def take(self, message: Message, now_ns: int) -> None:
        """One message of the topic."""
        self._stats.datagrams += 1
        try:
            batches = read_foreign(self._topic.format, message.payload)
        except DecodeError as error:
            self._stats.undecoded_datagrams += 1
            self._dead_letter(message, str(error), now_ns)
            return
        for batch in batches:
            if batch.address not in self._devices:
                self._stats.unknown_datagrams += 1
                self._dead_letter(message, f"exporter {batch.address} is not in the inventory", now_ns)
                continue
            self._stats.flow_records += len(batch)
            self._flows.add(batch, now_ns)

    def tick(self, now_ns: int) -> None:
        """Emit what is due."""
        for record in self._flows.close(now_ns):
            self._emit(record)

    def _dead_letter(self, message: Message, reason: str, now_ns: int) -> None:
        second = now_ns // 1_000_000_000
        used = self._letters[1] if self._letters[0] == second else 0
        self._letters = (second, used + 1)
        if used < MAX_LETTERS_PER_S:
            self._emit(dead_letter(message, reason))


async def run_flow_topics(
    settings: Settings, inventory: Inventory, emit: Callable[[Record], None], stats: CollectorStats
) -> None:
    """Every topic of the configuration, until cancelled."""
    topics = (_run(topic, settings, inventory, emit, stats) for topic in settings.collect.flow_topics)
    await asyncio.gather(asyncio.Event().wait(), *topics)


async def _run(
    topic: FlowTopic,
    settings: Settings,
    inventory: Inventory,
    emit: Callable[[Record], None],
    stats: CollectorStats,
) -> None:
    bin_ns = int(settings.pipeline.window_s / 2 * 1e9)
    flows = ForeignFlows(topic, inventory, emit, stats, bin_ns)
    complaint = ""
    while True:
        try:
            await _read(topic, settings, flows)
        except PeerError as error:
            if str(error) != complaint:
                complaint = str(error)
                log = structlog.get_logger("ndtwin.collect")
                log.warning("flow topic cannot be read", topic=topic.topic, reason=complaint)
        await asyncio.sleep(RETRY_S)


async def _read(topic: FlowTopic, settings: Settings, flows: ForeignFlows) -> None:
    bootstrap = topic.bootstrap or settings.bootstrap
    reader = await asyncio.to_thread(Reader, bootstrap, [topic.topic], rewind=0)
    ticked_s = time.monotonic()
    try:
        while True:
            for message in await asyncio.to_thread(reader.poll, _POLL_S, _POLL_MESSAGES):
                flows.take(message, time.time_ns())
            if time.monotonic() - ticked_s >= TICK_S:
                ticked_s = time.monotonic()
                flows.tick(time.time_ns())
    finally:
        await asyncio.shield(asyncio.to_thread(reader.close))
