"""The services: rooms joined to Kafka, each with a heartbeat. What `ndtwin collect` and so on run."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from contextlib import suppress

from anomaly.processor import DivergenceProcessor
from collectors.inventory import load_inventory
from collectors.own_health import OwnHealth
from collectors.service import run_collectors
from collectors.stats import CollectorStats
from ndtwin.commands.common import stop_event_on_signals
from ndtwin.config import Settings
from ndtwin.flow_topics import run_flow_topics
from ndtwin.flow_workers import FlowWorkers, share_of
from ndtwin.serve import run_serve
from stream.app import MakeProcessor, run_app
from stream.archive import run_archive
from stream.health import Heart
from stream.influx import run_influx_sink
from stream.pipeline import NetworkPipeline
from stream.predictor import run_predictor
from stream.publisher import Publisher
from stream.topics import INPUT_TOPICS
from twin.errors import ConfigError

BEAT_S = 1.0
_FLUSH_S = 5.0  # how long offsets of flow topics wait for the reports; then for the next turn
DETECT_TOPICS = ("ndt.state", "ndt.predictions")


def run_collect(settings: Settings, stop: threading.Event) -> None:
    """Devices → Kafka until ``stop``."""
    inventory = load_inventory(settings.inventory_path)
    stats = CollectorStats()
    with (
        Publisher(settings.bootstrap, settings.broker.partitions, client_id="collect") as publisher,
        FlowWorkers(settings, inventory) as workers,
    ):
        heart = Heart(publisher, "collect")

        async def run() -> None:
            ended = asyncio.Event()
            beats = asyncio.create_task(_beat(heart, stats, workers, stop, ended))
            topics = asyncio.create_task(
                run_flow_topics(
                    settings, inventory, publisher.publish, stats, lambda: publisher.flush(_FLUSH_S) == 0
                )
            )
            topics.add_done_callback(lambda _: ended.set())  # it never ends by itself: something is wrong
            await run_collectors(
                inventory,
                publisher.publish,
                poll_s=settings.collect.poll_s,
                window_s=settings.pipeline.window_s,
                stop=ended,
                stats=stats,
                share=share_of(settings, inventory, 0),
                identities=settings.run_path / "identities.json",
            )
            await beats
            topics.cancel()
            with suppress(asyncio.CancelledError):
                await topics

        asyncio.run(run())
        heart.beat("stopped")


async def _beat(
    heart: Heart, stats: CollectorStats, workers: FlowWorkers, stop: threading.Event, ended: asyncio.Event
) -> None:
    """Tell how it goes until the signal comes, then end the collectors."""
    health = OwnHealth()
    while not (stop.is_set() or ended.is_set()):
        heart.beat(*health.look(stats, time.monotonic()))
        workers.check()
        await asyncio.sleep(BEAT_S)
    ended.set()


def run_stream(settings: Settings) -> None:
    """Records → states, in Faust, until SIGTERM or SIGINT."""
    _run_faust(settings, "stream", INPUT_TOPICS, lambda: NetworkPipeline(settings.pipeline))


def run_detect(settings: Settings) -> None:
    """States and predictions → alerts, in Faust, until SIGTERM or SIGINT."""
    _run_faust(settings, "detect", DETECT_TOPICS, lambda: DivergenceProcessor(settings.detector))


def _run_faust(settings: Settings, component: str, topics: tuple[str, ...], make: MakeProcessor) -> None:
    with Publisher(settings.bootstrap, settings.broker.partitions, client_id=component) as publisher:
        heart = Heart(publisher, component)
        heart.beat("starting")
        data_dir = settings.run_path / "faust" / component
        data_dir.mkdir(parents=True, exist_ok=True)
        run_app(
            f"ndtwin-{component}",
            settings.bootstrap,
            topics,
            make,
            partitions=settings.broker.partitions,
            on_status=lambda metrics: _tell_faust(heart, metrics),
            data_dir=data_dir,
        )
        heart.beat("stopped")


def _tell_faust(heart: Heart, metrics: dict[str, float]) -> None:
    waits = metrics.get("partitions", 0) == 0
    heart.beat("starting" if waits else "running", "waits for its partitions" if waits else "", metrics)


def run_twin(settings: Settings, stop: threading.Event) -> None:
    """States → predictions until ``stop``."""
    run_predictor(
        settings.bootstrap,
        partitions=settings.broker.partitions,
        model=settings.twin.model,
        checkpoint=settings.checkpoint_path,
        rules=settings.calibration_rules,
        stop=stop,
    )


def run_archive_service(settings: Settings, stop: threading.Event) -> None:
    """Every topic → Parquet files until ``stop``."""
    run_archive(
        settings.bootstrap,
        settings.archive_path,
        partitions=settings.broker.partitions,
        retention_days=settings.archive.retention_days,
        stop=stop,
    )


def run_serve_service(settings: Settings) -> None:
    """API and page until SIGTERM or SIGINT."""
    with Publisher(settings.bootstrap, settings.broker.partitions, client_id="serve") as publisher:
        asyncio.run(_serve(settings, Heart(publisher, "serve")))


async def _serve(settings: Settings, heart: Heart) -> None:
    stop = stop_event_on_signals()
    serving = asyncio.create_task(run_serve(settings.serve, settings.bootstrap, stop))
    while not serving.done():
        heart.beat("running")
        await asyncio.wait([serving], timeout=BEAT_S)
    heart.beat("stopped")
    await serving


def run_sink(settings: Settings, stop: threading.Event) -> None:
    """States, predictions and alerts → InfluxDB until ``stop``; ConfigError when none is configured."""
    if not settings.influx.url:
        raise ConfigError("influx.url is not set: write it into the configuration, or set NDTWIN_INFLUX_URL")
    run_influx_sink(
        settings.bootstrap,
        partitions=settings.broker.partitions,
        url=settings.influx.url,
        token=os.environ.get("NDTWIN_INFLUX_TOKEN", ""),
        org=settings.influx.org,
        bucket=settings.influx.bucket,
        stop=stop,
    )
