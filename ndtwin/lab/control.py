"""The lab's control: HTTP and JSON over a unix socket in the run directory (only its owner can reach it).

| request | answer |
| --- | --- |
| GET /status | what runs and whether it keeps up |
| GET /faults | ``{"kinds": […], "active": […]}`` |
| POST /faults ``{"fault", "target"?, "magnitude"?}`` | the fault as started |
| DELETE /faults/ID | the fault as stopped |

What the caller got wrong is answered by 400 (404 for an unknown id) and ``{"error": one line}``.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from ndtwin.lab.fault_desk import FaultDesk
from ndtwin.lab.fault_records import FaultRecord, UnknownFaultError
from twin.errors import UsageError

Call = Callable[[Callable[[], FaultRecord]], Future[FaultRecord]]
MOST_PATH_OCTETS = 107  # sun_path (unix(7))


class FaultRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /faults."""

    fault: str
    target: str | None = None
    magnitude: float | None = None


class Control:
    """The requests. ``call`` runs an action where the network may be changed."""

    def __init__(self, call: Call, faults: FaultDesk[Any], status: Callable[[], dict[str, object]]) -> None:
        self._call, self._faults, self._status = call, faults, status

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application()
        app.router.add_get("/status", self._get_status)
        app.router.add_get("/faults", self._get_faults)
        app.router.add_post("/faults", self._post_fault)
        app.router.add_delete("/faults/{id}", self._delete_fault)
        return app

    async def _get_status(self, request: web.Request) -> web.Response:
        return _json({**self._status(), "faults": self._faults.active()})

    async def _get_faults(self, request: web.Request) -> web.Response:
        return _json({"kinds": self._faults.kinds(), "active": self._faults.active()})

    async def _post_fault(self, request: web.Request) -> web.Response:
        try:
            wish = msgspec.json.decode(await request.read(), type=FaultRequest)
        except msgspec.DecodeError as error:
            return _json({"error": f"not a fault request: {error}"}, status=400)
        return await self._run(lambda: self._faults.start(wish.fault, wish.target, wish.magnitude))

    async def _delete_fault(self, request: web.Request) -> web.Response:
        fault_id = request.match_info["id"]
        return await self._run(lambda: self._faults.stop(fault_id))

    async def _run(self, action: Callable[[], FaultRecord]) -> web.Response:
        try:
            record: FaultRecord = await asyncio.wrap_future(self._call(action))
            return _json(record)
        except UnknownFaultError as error:
            return _json({"error": str(error)}, status=404)
        except UsageError as error:
            return _json({"error": str(error)}, status=400)


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")


async def serve_control(control: Control, path: Path) -> web.AppRunner:
    """Listen; UsageError when a lab runs there already. The caller cleans up what this returns."""
    _check_free(path)
    runner = web.AppRunner(control.application(), access_log=None)
    await runner.setup()
    umask = os.umask(0o077)
    try:
        await web.UnixSite(runner, str(path)).start()
    finally:
        os.umask(umask)
    return runner


def _check_free(path: Path) -> None:
    """A socket left behind by a lab that died is removed; one that answers is not."""
    if len(os.fsencode(path)) > MOST_PATH_OCTETS:
        raise UsageError(f"{path} is too long for a unix socket: choose a shorter run directory")
    if not path.exists():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise UsageError(f"a lab runs already in {path.parent}: stop it or choose another run directory")
    path.unlink()
