"""The configuration: one TOML file whose tables are the rooms' own settings, all of them optional.

Looked for at ``--config``, then ``$NDTWIN_CONFIG``, then ``ndtwin.toml`` in the current directory, then the
defaults below. Unknown keys are refused. Four environment variables override the file, because containers and
tests set them: NDTWIN_KAFKA (broker.bootstrap), NDTWIN_RUN_DIR (run_dir), NDTWIN_INFLUX_URL and
NDTWIN_INFLUX_TOKEN (the token is never written to a file by ndtwin).
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import tomli_w

from anomaly.settings import DetectorSettings
from collectors.flows.settings import ForeignFormat
from ndtwin.lab.netns.settings import NetnsSettings
from ndtwin.lab.settings import LabSettings
from stream.pipeline import PipelineSettings
from twin.calibration_learnt import CalibrationRules
from twin.errors import ConfigError


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the tables that belong to the front door."""


class BrokerSettings(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which Kafka. ``embedded`` starts one inside `ndtwin up`."""

    bootstrap: str = "embedded"
    port: int = 19092  # of the embedded broker, on 127.0.0.1
    partitions: int = 1
    memory_cap_mb: int = 1024  # the embedded broker is restarted under control beyond this


class FlowTopic(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Kafka topic into which another collector writes flows; ``bootstrap``: of another cluster."""

    topic: str
    format: ForeignFormat
    bootstrap: str = ""


class CollectSettings(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often devices are asked, and the inventory that names them (default: the one the lab writes)."""

    inventory: str = ""
    poll_s: float = 5.0
    flow_topics: tuple[FlowTopic, ...] = ()  # of pmacct or goflow2


class TwinSettings(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which model predicts: ``routenet``, ``mg1k`` or ``mm1b``; ``checkpoint``: other weights.

    ``calibrate``: the network's own measurements slowly correct it (:mod:`twin.calibration`).
    """

    model: str = "routenet"
    checkpoint: str = ""
    calibrate: bool = False


class ArchiveSettings(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the archive lies (default: in the run directory) and for how long; 0 keeps everything."""

    directory: str = ""
    retention_days: int = 0


class ServeSettings(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the API and the page listen. Nothing protects them: keep them on loopback or behind a proxy."""

    host: str = "127.0.0.1"
    port: int = 8080


class InfluxSettings(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """InfluxDB 2 or what takes its writes; an empty ``url`` means none. The token: NDTWIN_INFLUX_TOKEN."""

    url: str = ""
    org: str = "ndtwin"
    bucket: str = "ndtwin"


class Settings(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    run_dir: str = "run"
    lab_enabled: bool = True  # `ndtwin up` starts a lab; false: a real network by collect.inventory
    lab_kind: Literal["sim", "netns"] = "sim"  # netns: FRR routers in network namespaces; needs root
    broker: BrokerSettings = BrokerSettings()
    collect: CollectSettings = CollectSettings()
    pipeline: PipelineSettings = PipelineSettings()
    twin: TwinSettings = TwinSettings()
    detector: DetectorSettings = DetectorSettings()
    archive: ArchiveSettings = ArchiveSettings()
    serve: ServeSettings = ServeSettings()
    influx: InfluxSettings = InfluxSettings()
    lab: LabSettings = LabSettings()
    netns: NetnsSettings = NetnsSettings()

    @property
    def run_path(self) -> Path:
        """The run directory."""
        return Path(self.run_dir)

    @property
    def bootstrap(self) -> str:
        """The address that clients connect to."""
        embedded = self.broker.bootstrap == "embedded"
        return f"127.0.0.1:{self.broker.port}" if embedded else self.broker.bootstrap

    @property
    def inventory_path(self) -> Path:
        """The inventory that the collectors read."""
        return Path(self.collect.inventory) if self.collect.inventory else self.run_path / "inventory.toml"

    @property
    def checkpoint_path(self) -> Path | None:
        """The model's weights; None means those that are shipped."""
        return Path(self.twin.checkpoint) if self.twin.checkpoint else None

    @property
    def calibration_rules(self) -> CalibrationRules | None:
        """How the model is calibrated; None: not at all."""
        return CalibrationRules() if self.twin.calibrate else None

    @property
    def archive_path(self) -> Path:
        """The archive's directory."""
        return Path(self.archive.directory) if self.archive.directory else self.run_path / "archive"


Overrides = Mapping[str, object]  # from the command line: tables by name, None = not given


def load_settings(
    path: Path | None = None, overrides: Overrides | None = None, env: Mapping[str, str] = os.environ
) -> Settings:
    """File, then environment, then command line; ConfigError names the file and the key that is wrong."""
    if path is None and "NDTWIN_CONFIG" in env:
        path = Path(env["NDTWIN_CONFIG"])
    if path is None and Path("ndtwin.toml").exists():
        path = Path("ndtwin.toml")
    raw = _read(path) if path is not None else {}
    for variable, table, key in _OVERRIDES:
        if env.get(variable):
            (raw.setdefault(table, {}) if table else raw)[key] = env[variable]
    _merge(raw, overrides or {})
    try:
        settings = msgspec.convert(raw, Settings)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(error, path)) from error
    _check(settings, path)
    # One length of a window for everybody: the pipeline's.
    detector = msgspec.structs.replace(settings.detector, window_s=settings.pipeline.window_s)
    return msgspec.structs.replace(settings, detector=detector)


_OVERRIDES = (
    ("NDTWIN_KAFKA", "broker", "bootstrap"),
    ("NDTWIN_RUN_DIR", "", "run_dir"),
    ("NDTWIN_INFLUX_URL", "influx", "url"),
)


def write_settings(settings: Settings, path: Path) -> None:
    """Write the effective configuration, so that every service reads the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(tomli_w.dumps(_without_none(msgspec.to_builtins(settings))))


def _without_none(value: object) -> dict[str, object]:
    assert isinstance(value, dict)
    return {
        key: _without_none(entry) if isinstance(entry, dict) else entry
        for key, entry in value.items()
        if entry is not None
    }


def _merge(raw: dict[str, Any], overrides: Overrides) -> None:
    for key, value in overrides.items():
        if isinstance(value, Mapping):
            _merge(raw.setdefault(key, {}), value)
        elif value is not None:
            raw[key] = value


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"configuration {path} cannot be read ({error}): give another with --config"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"configuration {path} is not TOML: {error}") from error


def _explain(error: msgspec.ValidationError, path: Path | None) -> str:
    problem, _, place = str(error).partition(" - at `$.")
    problem = problem.replace("Object contains unknown field", "unknown key")
    known = f"; known keys: {', '.join(_known_keys(place.rstrip('`')))}" if "unknown key" in problem else ""
    origin = f"configuration {path or 'from the environment'}"
    return f"{origin}: {place.rstrip('`') or 'top level'}: {problem}{known}"


def _known_keys(place: str) -> list[str]:
    table = getattr(Settings(), place, Settings()) if place else Settings()
    return list(table.__struct_fields__)


def _check(settings: Settings, path: Path | None) -> None:
    origin = f"configuration {path or 'from the environment'}"
    if settings.broker.partitions < 1:
        raise ConfigError(f"{origin}: broker.partitions is {settings.broker.partitions}: give at least 1")
    if settings.twin.model not in ("routenet", "mg1k", "mm1b"):
        raise ConfigError(f"{origin}: twin.model is {settings.twin.model!r}: choose routenet, mg1k or mm1b")
    if settings.detector.window_s not in (DetectorSettings().window_s, settings.pipeline.window_s):
        raise ConfigError(f"{origin}: detector.window_s follows pipeline.window_s: remove it")
    if settings.collect.poll_s <= 0:
        raise ConfigError(
            f"{origin}: collect.poll_s is {settings.collect.poll_s}: give seconds greater than 0"
        )
