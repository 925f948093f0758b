"""One command for each service: what a container runs, and what `ndtwin up` supervises.

Each ends with SIGTERM or Ctrl-C, leaves nothing half done, and reports its life in ndt.health.
"""

from __future__ import annotations

import typer

from ndtwin import logs
from ndtwin.commands.common import ConfigOption, settings_from, stop_on_signals


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (collect, stream, twin, detect, archive, serve, sink):
        app.command()(command)


def collect(config: ConfigOption = None) -> None:
    """Read the devices of the inventory by SNMP, NETCONF and IPFIX into Kafka."""
    from ndtwin.services import run_collect

    logs.configure()
    run_collect(settings_from(config), stop_on_signals())


def stream(config: ConfigOption = None) -> None:
    """Turn records into the graph state of every network (Faust)."""
    from ndtwin.services import run_stream

    logs.configure()
    run_stream(settings_from(config))


def twin(config: ConfigOption = None) -> None:
    """Predict every path at every window."""
    from ndtwin.services import run_twin

    logs.configure()
    run_twin(settings_from(config), stop_on_signals())


def detect(config: ConfigOption = None) -> None:
    """Compare measured with predicted, raise and resolve alerts (Faust)."""
    from ndtwin.services import run_detect

    logs.configure()
    run_detect(settings_from(config))


def archive(config: ConfigOption = None) -> None:
    """Write every topic to Parquet files."""
    from ndtwin.services import run_archive_service

    logs.configure()
    run_archive_service(settings_from(config), stop_on_signals())


def serve(config: ConfigOption = None) -> None:
    """The HTTP API and the page."""
    from ndtwin.services import run_serve_service

    logs.configure()
    run_serve_service(settings_from(config))


def sink(config: ConfigOption = None) -> None:
    """Write delays, predictions, utilisation and alerts to InfluxDB."""
    from ndtwin.services import run_sink

    logs.configure()
    run_sink(settings_from(config), stop_on_signals())
