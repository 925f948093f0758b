"""Fixtures that all packages share: the Kafka broker, and the rule for tools that Debian ships."""

from __future__ import annotations

import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from ndtwin.broker import EmbeddedBroker
from ndtwin.ports import free_port
from stream.admin import ensure_topics


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Chromium before those that make interfaces, since the kernel takes a while to remove them."""
    items.sort(key=lambda item: item.get_closest_marker("browser") is None)


@pytest.fixture
def own_logging() -> Iterator[None]:
    """A test may set up logging; afterwards it is as it was."""
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**before)


@pytest.fixture(scope="session")
def need_tool() -> Callable[[str], str]:
    """Give the path of a Debian tool; without it the test fails in CI and is skipped elsewhere."""

    def need(tool: str) -> str:
        path = shutil.which(tool)
        if path is not None:
            return path
        message = f"{tool} is not installed: run `make debian-test-packages`"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)

    return need


@pytest.fixture
def port() -> int:
    """A free TCP port."""
    return free_port()


@pytest.fixture(scope="session")
def external_kafka(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """A Kafka from outside: NDTWIN_KAFKA, else a container if Docker answers, else None. Says which."""
    given = os.environ.get("NDTWIN_KAFKA")
    container = None if given else _start_container()
    bootstrap = given or (container.get_bootstrap_server() if container else None)
    kind = "NDTWIN_KAFKA" if given else "testcontainers" if container else "the embedded broker"
    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(f"\nkafka: {kind} {bootstrap or ''}")
    yield bootstrap
    if container is not None:
        container.stop()


def _start_container() -> Any:
    if not _docker_answers():
        return None
    from testcontainers.kafka import KafkaContainer

    return KafkaContainer("apache/kafka:4.0.0").with_kraft().start()


def _docker_answers() -> bool:
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not host.startswith("unix://"):
        return True  # whoever names a remote Docker means it
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        return probe.connect_ex(host.removeprefix("unix://")) == 0


@pytest.fixture(scope="module")
def kafka(external_kafka: str | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker that has the topics of the table (1 partition): external, else a fresh one per module."""
    if external_kafka is not None:
        ensure_topics(external_kafka, 1)
        yield external_kafka
        return
    log: Path = tmp_path_factory.mktemp("broker") / "broker.log"
    with EmbeddedBroker(port=free_port(), log=log) as broker:
        ensure_topics(broker.bootstrap, 1)
        yield broker.bootstrap


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    """A running embedded broker of this test's own, without topics."""
    with EmbeddedBroker(port=free_port(), log=tmp_path / "broker.log") as broker:
        yield broker
