"""The service that people and programs see: topics → store → API and page, on one port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import Protocol

import uvicorn

from ndtwin.api.app import Shutdown, create_app
from ndtwin.api.feed import Feed
from ndtwin.api.store import Store
from ndtwin.api.whatif import WhatIfDesk
from ndtwin.config import ServeSettings
from ndtwin.page.mount import mount_page
from stream.client import logger
from twin.errors import UsageError

BACKLOG = 128
STOP_GRACE_S = 3
STOP_POLL_S = 0.2
_LOG = logger("serve")


class StopFlag(Protocol):
    """An asyncio.Event or a threading.Event."""

    def is_set(self) -> bool:
        """Whether to stop."""
        ...


async def run_serve(
    settings: ServeSettings, bootstrap: str, stop: StopFlag, *, store: Store | None = None
) -> None:
    """Serve until ``stop``. UsageError when the port is taken; a broker that is away is waited for.

    1. bind the port; 2. read the topics on a thread of its own; 3. answer; 4. on ``stop`` end event streams,
    then connections, then the reader.
    """
    listener = bind(settings.host, settings.port)
    store, shutdown, desk = store or Store(), Shutdown(), WhatIfDesk()
    feed = Feed(store, bootstrap)
    app = create_app(store, desk=desk, shutdown=shutdown)
    mount_page(app, store)
    server = _Server(
        uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=STOP_GRACE_S
        )
    )
    feed.start()
    watcher = asyncio.create_task(_stop_with(stop, server, shutdown))
    _LOG.info("listening", url=f"http://{settings.host}:{settings.port}/")
    try:
        await server.serve(sockets=[listener])
    finally:
        shutdown.begin()
        watcher.cancel()
        await asyncio.to_thread(feed.stop)
        desk.close()
        listener.close()


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; UsageError with one line when that cannot be."""
    try:
        listener = socket.create_server((host, port), backlog=BACKLOG)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise UsageError(
            f"cannot listen on {host}:{port} ({reason}): stop what uses the port, or set serve.port"
        ) from error
    listener.setblocking(False)
    return listener


class _Server(uvicorn.Server):
    """Uvicorn without its own signal handlers: whoever runs the service stops it."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]  # uvicorn's own annotation differs between releases
        yield


async def _stop_with(stop: StopFlag, server: uvicorn.Server, shutdown: Shutdown) -> None:
    while not stop.is_set():  # noqa: ASYNC110  the flag may be a thread's: nothing to await
        await asyncio.sleep(STOP_POLL_S)
    shutdown.begin()
    server.should_exit = True
