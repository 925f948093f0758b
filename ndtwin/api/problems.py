"""Errors as RFC 9457 problem details: a status, and one sentence on what is wrong and what would be right."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ndtwin.api.schema import ProblemOut
from ndtwin.api.store import UnknownName
from twin.errors import NdtwinError, UsageError

MEDIA_TYPE = "application/problem+json"
TITLES = {
    404: "Not found",
    405: "Method not allowed",
    422: "Not a valid request",
    500: "Internal error",
    503: "Not ready",
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    404: {"model": ProblemOut, "description": "An unknown name; the detail lists the known ones."},
    422: {"model": ProblemOut, "description": "A request that cannot be understood; the detail says why."},
}


def problem(status: int, detail: str) -> JSONResponse:
    """One problem."""
    body = ProblemOut(title=TITLES.get(status, "Error"), status=status, detail=detail)
    return JSONResponse(body.model_dump(), status_code=status, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every error of the API as a problem."""
    app.add_exception_handler(NdtwinError, _on_ndtwin_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)


async def _on_ndtwin_error(_request: Request, error: Exception) -> JSONResponse:
    table = ((UnknownName, 404), (UsageError, 422), (NdtwinError, 503))
    return problem(next(status for kind, status in table if isinstance(error, kind)), str(error))


async def _on_validation_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return problem(422, "; ".join(_sentence(e) for e in jsonable_encoder(error.errors())))


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, f"{request.method} {request.url.path}: {error.detail}")


def _sentence(error: dict[str, Any]) -> str:
    place = ".".join(str(part) for part in error["loc"] if part not in ("body", "query", "path"))
    given = error.get("input")
    shown = f", not {given!r}" if isinstance(given, str | int | float) and not isinstance(given, bool) else ""
    message = str(error["msg"])
    return f"{place or 'body'}: {message[0].lower()}{message[1:]}{shown}"
