"""Structured logs on stderr: one line an event, logger ``ndtwin.<component>``, other libraries' lines alike.

On a terminal the lines are coloured for people; otherwise (files, containers) they are plain ``key=value``
text, or JSON with ``NDTWIN_LOG=json``.
"""

from __future__ import annotations

import logging
import os
import sys

import structlog

# Chatty at INFO, and what they say there is their own business.
_QUIET = (
    "aiokafka",
    "faust",
    "mode",
    "asyncssh",
    "ncclient",
    "paramiko",
    "httpx",
    "uvicorn.access",
    "numba",
    "Rx",
)


def configure(level: int = logging.INFO) -> None:
    """Set up logging for a process; call it once, at the start of a command."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,  # modules make their loggers at import, before this runs
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_renderer())
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def _renderer() -> list[structlog.typing.Processor]:
    drop = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if os.environ.get("NDTWIN_LOG") == "json":
        return [drop, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    # structlog's own tracebacks show what variables held, and some hold secrets.
    plain = structlog.dev.plain_traceback
    colours = sys.stderr.isatty()
    return [drop, structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=0, exception_formatter=plain)]
