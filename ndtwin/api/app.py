"""The HTTP API, version 1. Every answer is computed from the store when asked; nothing here keeps state.

Addresses are below ``/api/v1``; ``/metrics`` stands where Prometheus looks for it. The OpenAPI document is at
``/api/v1/openapi.json`` and a plain page of it at ``/api/v1/docs``: no script is loaded from anywhere.
"""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Annotated, Literal

from fastapi import APIRouter, FastAPI, Header, Path, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, StreamingResponse
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from ndtwin.api import problems, views
from ndtwin.api import schema as s
from ndtwin.api.docs import docs_page
from ndtwin.api.frames import Frame
from ndtwin.api.live import state_events
from ndtwin.api.metrics import RequestCounter, StoreCollector, exposition
from ndtwin.api.store import Store, UnknownName
from ndtwin.api.whatif import WhatIfDesk

PREFIX = "/api/v1"
DESCRIPTION = """What the network does, what its digital twin expects, and where the two part company.

Times are nanoseconds since the Unix epoch (`_ns`), delays seconds (`_s`), rates bit/s (`_bps`). A link is
named `SOURCE->TARGET`, a path `SOURCE->DESTINATION`. Errors are RFC 9457 problems: see `detail`."""

NetworkName = Annotated[str, Path(description="a network of `GET /networks`", examples=["nsfnet"])]


class Shutdown:
    """Tells endless answers that the server stops."""

    def __init__(self) -> None:
        self.begun = False

    def begin(self) -> None:
        """From now on event streams end."""
        self.begun = True


def create_app(store: Store, *, desk: WhatIfDesk | None = None, shutdown: Shutdown | None = None) -> FastAPI:
    """The application over one store; ``desk`` answers what-if questions, ``shutdown`` ends event streams."""
    app = FastAPI(
        title="ndtwin",
        version=version("ndtwin"),
        description=DESCRIPTION,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    registry = CollectorRegistry()
    registry.register(StoreCollector(store))
    app.add_middleware(RequestCounter, registry=registry)
    problems.install(app)
    for router in (
        _networks(store),
        _alerts_and_health(store),
        _whatif(store, desk or WhatIfDesk()),
        _stream(store, shutdown or Shutdown()),
    ):
        app.include_router(router, responses=problems.RESPONSES)
    app.include_router(_plain(registry))
    return app


def shown_frame(store: Store, name: str) -> Frame:
    """The window to show of a network; UnknownName when there is no such network or no window yet."""
    frame = store.network(name).shown
    if frame is None:
        waiting = store.network(name).waiting_for or "the first window has not closed"
        raise UnknownName(f"network {name!r} has no window yet: {waiting}")
    return frame


def only_network(store: Store, name: str | None) -> str:
    """The network meant when none was named: the only one there is."""
    if name is not None:
        return store.network(name).name
    names = store.networks()
    if len(names) != 1:
        raise UnknownName(f"say which network: known are {', '.join(names) or 'none yet'}")
    return names[0]


def _networks(store: Store) -> APIRouter:
    router = APIRouter(prefix=PREFIX, tags=["networks"])

    @router.get("/networks")
    def networks() -> list[s.NetworkOut]:
        """All networks."""
        return [views.network_out(store.network(name)) for name in store.networks()]

    @router.get("/networks/{network}/state")
    def state(network: NetworkName) -> s.StateOut:
        """Nodes and links in the newest window, with load, capacity and what the figures suffer from."""
        return views.state_out(shown_frame(store, network))

    @router.get("/networks/{network}/paths")
    def paths(
        network: NetworkName,
        source: str | None = None,
        destination: str | None = None,
        sort: Literal["residual", "measured", "predicted", "traffic", "name"] = "residual",
        limit: Annotated[int, Query(ge=1, le=100_000)] = 500,
    ) -> s.PathsOut:
        """Paths, measured beside predicted, the farthest outside its interval first."""
        frame = shown_frame(store, network)
        chosen = views.select_paths(frame, source=source, destination=destination, sort=sort)
        rows = [views.path_out(frame, int(p)) for p in chosen[:limit]]
        return s.PathsOut(network=network, window=views.window_out(frame), total=len(chosen), paths=rows)

    @router.get("/networks/{network}/paths/{source}/{destination}/history")
    def path_history(network: NetworkName, source: str, destination: str) -> s.PathHistoryOut:
        """One path through the windows kept: every method's measurement, the prediction and its interval."""
        return views.path_history_out(
            store.network(network), shown_frame(store, network), source, destination
        )

    @router.get("/networks/{network}/predictions")
    def predictions(network: NetworkName) -> s.PredictionsOut:
        """The newest prediction, path by path."""
        return views.predictions_out(shown_frame(store, network))

    return router


def _alerts_and_health(store: Store) -> APIRouter:
    router = APIRouter(prefix=PREFIX, tags=["alerts and health"])

    @router.get("/alerts")
    def alerts(
        network: str | None = None,
        state: Literal["pending", "firing", "acknowledged", "resolved"] | None = None,
    ) -> list[s.AlertOut]:
        """Alerts, firing first, with their ranked suspects."""
        lives = store.alerts(network)
        return [views.alert_out(life) for life in lives if state in (None, life.alert.state)]

    @router.get("/alerts/{fingerprint}")
    def alert(fingerprint: str) -> s.AlertOut:
        """One alert."""
        return views.alert_out(store.alert(fingerprint))

    @router.get("/health", responses={503: {"model": s.HealthOut}})
    def health(response: Response) -> s.HealthOut:
        """How every component of ndtwin is: 200 when all run, 503 otherwise."""
        answer = views.health_out(store, time.time_ns())
        response.status_code = 200 if answer.healthy else 503
        return answer

    return router


def _whatif(store: Store, desk: WhatIfDesk) -> APIRouter:
    router = APIRouter(prefix=PREFIX, tags=["what if"])

    @router.post("/whatif")
    async def whatif(question: s.WhatIfIn) -> s.WhatIfOut:
        """Delays of all paths if links were down, weights or capacities other, or traffic more: on a copy."""
        frame = shown_frame(store, only_network(store, question.network))
        return await desk.ask(frame, question)

    return router


def _stream(store: Store, shutdown: Shutdown) -> APIRouter:
    router = APIRouter(prefix=PREFIX, tags=["streams"])

    def wanted(name: str | None) -> str | None:
        return name if name is not None or not store.networks() else only_network(store, None)

    @router.get(
        "/stream/state",
        response_class=StreamingResponse,
        responses={
            200: {
                "content": {"text/event-stream": {}},
                "description": "events `state`: FreshStateOut as JSON",
            }
        },
    )
    async def stream_state(
        network: str | None = None, last_event_id: Annotated[int | None, Header()] = None
    ) -> StreamingResponse:
        """Server-Sent Events: every window with its prediction; id = version, `Last-Event-ID` resumes."""
        if network is not None:
            store.network(network)
        wanted(network)
        events = state_events(store, lambda: wanted(network), last_event_id, lambda: shutdown.begun)
        return StreamingResponse(
            events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
        )

    return router


def _plain(registry: CollectorRegistry) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/metrics")
    def metrics() -> PlainTextResponse:
        return PlainTextResponse(exposition(registry), media_type=CONTENT_TYPE_LATEST)

    @router.get(f"{PREFIX}/docs")
    def docs(request: Request) -> HTMLResponse:
        return HTMLResponse(docs_page(request.app.openapi()))

    @router.api_route("/api/{rest:path}", methods=["GET", "POST", "PUT", "DELETE", "PATCH"])
    def nothing_here(rest: str) -> JSONResponse:
        raise HTTPException(404, f"no such address: see {PREFIX}/docs")

    return router
