"""More processes for flow export: they share the collector's port, and the kernel shares out the exporters.

The collector itself is worker 0 and polls the devices as well; workers 1 and up do nothing but flows, each
with its own publisher and heartbeat (``collect-flows-1``, …). A worker that dies is started again; what its
exporters send goes to the others meanwhile, who hold it until the templates come.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from collectors.inventory import Inventory, load_inventory
from collectors.listener import Share
from collectors.service import flow_listener
from collectors.stats import CollectorStats
from ndtwin import logs
from ndtwin.commands.common import stop_event_on_signals
from ndtwin.config import Settings
from ndtwin.processes import die_with_parent
from stream.health import Heart
from stream.publisher import Publisher
from twin.errors import NdtwinError

BEAT_S = 1.0
RESTART_S = 5.0  # between two starts of one worker
STOP_S = 10.0


def share_of(settings: Settings, inventory: Inventory, worker: int) -> Share:
    """Which of the inventory's processes this one is."""
    processes = inventory.ipfix.processes if inventory.ipfix is not None else 1
    return Share(worker, processes, Path(settings.run_path) / "flow-templates")


class FlowWorkers:
    """The workers 1 and up, while the block lasts."""

    def __init__(self, settings: Settings, inventory: Inventory) -> None:
        self._settings = settings
        self._context = multiprocessing.get_context("spawn")
        count = share_of(settings, inventory, 0).of
        self._started_s = dict.fromkeys(range(1, count), float("-inf"))
        self._processes: dict[int, multiprocessing.process.BaseProcess] = {}

    def check(self) -> None:
        """Start those that do not run."""
        for worker, started_s in self._started_s.items():
            process = self._processes.get(worker)
            if (process is None or not process.is_alive()) and time.monotonic() - started_s >= RESTART_S:
                if process is not None:
                    log = structlog.get_logger("ndtwin.collect")
                    log.warning(
                        "flow worker ended: it is started again", worker=worker, code=process.exitcode
                    )
                self._started_s[worker] = time.monotonic()
                self._processes[worker] = self._start(worker)

    def _start(self, worker: int) -> multiprocessing.process.BaseProcess:
        process = self._context.Process(
            target=run_worker, args=(self._settings, worker), name=f"collect-flows-{worker}", daemon=True
        )
        process.start()
        return process

    @property
    def pids(self) -> list[int]:
        """Of those that run."""
        return [process.pid for process in self._processes.values() if process.is_alive() and process.pid]

    def __enter__(self) -> Self:
        self.check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.join(STOP_S)
            if process.is_alive():
                process.kill()


def run_worker(settings: Settings, worker: int) -> None:
    """One worker, until SIGTERM."""
    die_with_parent()
    logs.configure()
    try:
        inventory = load_inventory(settings.inventory_path)
        component = f"collect-flows-{worker}"
        with Publisher(settings.bootstrap, settings.broker.partitions, client_id=component) as publisher:
            asyncio.run(_run(settings, inventory, worker, publisher))
    except NdtwinError as error:
        structlog.get_logger("ndtwin.collect").error("flow worker", worker=worker, reason=str(error))
        raise SystemExit(error.exit_code) from error


async def _run(settings: Settings, inventory: Inventory, worker: int, publisher: Publisher) -> None:
    stop, stats, heart = (
        stop_event_on_signals(),
        CollectorStats(),
        Heart(publisher, f"collect-flows-{worker}"),
    )
    share, bin_s = share_of(settings, inventory, worker), settings.pipeline.window_s / 2
    listener = flow_listener(inventory, publisher.publish, stats, share, bin_s=bin_s)
    listening = asyncio.create_task(listener.run())
    stopping = asyncio.create_task(stop.wait())
    while not (listening.done() or stopping.done()):
        heart.beat("running", metrics=stats.metrics())
        await asyncio.wait([listening, stopping], timeout=BEAT_S, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if listening.done():
        listening.result()  # its error ends us
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    heart.beat("stopped")
