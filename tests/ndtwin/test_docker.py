"""The container deployment fits the product: commands, files, configuration and dashboard queries exist."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml  # type: ignore[import-untyped]  # ships no types

from collectors.inventory import load_inventory
from ndtwin.cli import app
from ndtwin.config import load_settings
from stream.influx_lines import FIELDS, TAGS

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "ndtwin"}
DASHBOARD = json.loads((DOCKER / "grafana" / "dashboards" / "ndtwin.json").read_text())
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"]}
QUERIES = {title: panel["targets"][0]["query"] for title, panel in PANELS.items()}
VARIABLES = {variable["name"]: variable["query"] for variable in DASHBOARD["templating"]["list"]}


@pytest.mark.parametrize("name", OURS)
def test_every_service_runs_a_command_that_exists(name: str) -> None:
    """Each word of a service's command is a command or a group of `ndtwin`."""
    command: Any = typer.main.get_command(app)
    for word in OURS[name]["command"]:
        assert word in command.commands, f"{name} runs `ndtwin {' '.join(OURS[name]['command'])}`"
        command = command.commands[word]
    assert not hasattr(command, "commands")


def test_the_whole_loop_is_deployed() -> None:
    """Every service that `ndtwin up` supervises has a container, and so has the sink."""
    commands = {service["command"][0] for service in OURS.values()}
    assert commands == {"lab", "collect", "stream", "twin", "detect", "archive", "serve", "sink"}


def test_everything_mounted_exists_or_is_a_declared_volume() -> None:
    """Bind mounts name files of the repository; the rest are volumes of the file."""
    for name, service in SERVICES.items():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (DOCKER / source).exists(), f"{name} mounts {source}"
            else:
                assert source in COMPOSE["volumes"], f"{name} mounts {source}"


def test_services_wait_for_services_that_exist() -> None:
    """depends_on and network_mode name services of the file; a health condition needs a health check."""
    for service in SERVICES.values():
        wanted = service.get("depends_on", {})
        for other in wanted:
            assert other in SERVICES
            if isinstance(wanted, dict) and wanted[other]["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other]
        assert service.get("network_mode", "service:lab").removeprefix("service:") in SERVICES


def test_only_ipfix_is_published_beyond_loopback() -> None:
    """Nothing that lacks a password can be reached from another host."""
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:") or (name, port) == ("collect", "4739:4739/udp")


@pytest.mark.parametrize("name", ["ndtwin.toml", "network.toml"])
def test_the_configuration_files_are_valid(name: str) -> None:
    """The product reads its own configuration, with the environment that compose gives."""
    env = OURS["stream"]["environment"]
    settings = load_settings(DOCKER / name, env={key: env[key] for key in ("NDTWIN_KAFKA", "NDTWIN_RUN_DIR")})
    assert settings.bootstrap == "kafka:9092"
    assert settings.broker.partitions == 4
    assert settings.run_path == Path("/data")


def test_the_example_inventory_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    """The collectors read the inventory that the compose file mounts."""
    monkeypatch.setenv("SNMP_COMMUNITY", "public")
    inventory = load_inventory(DOCKER / "inventory.toml")
    assert [device.name for device in inventory.devices] == ["par1", "lon1"]
    mounts = " ".join(OURS["collect"]["volumes"])
    assert tomllib.loads((DOCKER / "network.toml").read_text())["collect"]["inventory"] in mounts


def test_the_token_of_the_database_is_one() -> None:
    """Sink, database and dashboard read the same variable; the datasource names what the database sets up."""
    influx, grafana = SERVICES["influxdb"]["environment"], SERVICES["grafana"]["environment"]
    token = influx["DOCKER_INFLUXDB_INIT_ADMIN_TOKEN"]
    assert token == grafana["NDTWIN_INFLUX_TOKEN"] == OURS["sink"]["environment"]["NDTWIN_INFLUX_TOKEN"]
    [source] = yaml.safe_load(
        (DOCKER / "grafana" / "provisioning" / "datasources" / "influxdb.yaml").read_text()
    )["datasources"]
    assert source["url"] == OURS["sink"]["environment"]["NDTWIN_INFLUX_URL"]
    assert source["secureJsonData"]["token"] == "$NDTWIN_INFLUX_TOKEN"
    settings = load_settings(DOCKER / "ndtwin.toml", env={})
    organisation, bucket = source["jsonData"]["organization"], source["jsonData"]["defaultBucket"]
    assert (organisation, bucket) == (settings.influx.org, settings.influx.bucket)
    assert organisation == influx["DOCKER_INFLUXDB_INIT_ORG"]
    assert bucket == influx["DOCKER_INFLUXDB_INIT_BUCKET"]
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {source["uid"]}


@pytest.mark.parametrize("title", QUERIES)
def test_a_panel_asks_for_what_the_sink_writes(title: str) -> None:
    """Measurement, fields, tags and computed columns of every Flux query are those that exist."""
    query = QUERIES[title]
    [measurement] = re.findall(r'_measurement == "(\w+)"', query)
    assert set(re.findall(r'_field == "(\w+)"', query)) <= set(FIELDS[measurement])
    known = {*FIELDS[measurement], *TAGS[measurement], "_measurement", "_field", "_value", "_time"}
    known |= set(re.findall(r"r with (\w+):", query))
    columns = {
        name for listed in re.findall(r"\[([^\]]*)\]", query) for name in re.findall(r'"(\w+)"', listed)
    }
    assert set(re.findall(r"\br\.(\w+)", query)) | columns <= known
    assert re.findall(r'bucket: "(\w+)"', query) == ["ndtwin"]
    assert set(re.findall(r"\$\{(\w+)\}", query)) <= VARIABLES.keys()


def test_no_query_mixes_text_and_numbers_in_one_column() -> None:
    """Flux refuses to bring strings and floats into one table: a query asks for fields of one kind."""
    texts = {"state", "severity", "summary", "suspect"}
    for query in QUERIES.values():
        fields = set(re.findall(r'_field == "(\w+)"', query))
        assert fields <= texts or not fields & texts


def test_the_dashboard_covers_what_is_written_and_its_variables_are_tags() -> None:
    """Every measurement has a panel; variables list values of tags."""
    assert {m for query in QUERIES.values() for m in re.findall(r'_measurement == "(\w+)"', query)} == set(
        FIELDS
    )
    tags = {tag for names in TAGS.values() for tag in names}
    for query in VARIABLES.values():
        assert set(re.findall(r'tag: "(\w+)"', query)) <= tags
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [
        (x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])
    ]
    assert len(cells) == len(set(cells)), "panels overlap"
    assert max(x for x, _ in cells) < 24


def test_the_image_holds_the_packages_of_the_distribution() -> None:
    """The Dockerfile copies exactly the packages of the wheel and starts the console script."""
    text = (DOCKER / "Dockerfile").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert re.findall(r"^COPY (\w+) \1$", text, flags=re.M) == packages
    assert 'ENTRYPOINT ["ndtwin"]' in text
    assert "ndtwin" in project["project"]["scripts"]
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, flags=re.M)
    for source in " ".join(copied).split():
        assert (ROOT / source).exists()
        assert f"!{source}\n" in ignored


def test_compose_itself_accepts_the_file() -> None:
    """`docker compose config`, where the client has the plugin; it needs no daemon."""
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("docker compose is not installed; the other tests check the file's structure")
    for profile in ("lab", "network"):
        command = [
            docker,
            "compose",
            "-f",
            str(DOCKER / "compose.yaml"),
            "--profile",
            profile,
            "config",
            "-q",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
        assert done.returncode == 0, done.stderr
