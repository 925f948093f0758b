"""Puts the page at ``/`` of the API's own server. Everything it loads comes from this server."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from nicegui import ui

from ndtwin.api.store import Store
from ndtwin.page.dashboard import Dashboard

STATIC = Path(__file__).parent / "static"
FAVICON = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">
<rect width="32" height="32" rx="7" fill="#0b0f14"/><g fill="none" stroke-width="3">
<circle cx="12" cy="16" r="7.5" stroke="#ffc857"/>
<circle cx="20" cy="16" r="7.5" stroke="#5ec8f2"/></g></svg>"""


def mount_page(app: FastAPI, store: Store) -> None:
    """Serve the page of ``store``. One server in a process: NiceGUI keeps its pages process-wide."""
    style = (STATIC / "style.css").read_text()

    @ui.page("/", title="ndtwin")
    def page() -> None:
        ui.add_css(style)
        Dashboard(store)

    ui.run_with(
        app,
        title="ndtwin",
        favicon=FAVICON,
        dark=True,
        tailwind=False,
        binding_refresh_interval=None,  # nothing is bound: without it an idle page costs nothing
        show_welcome_message=False,
    )
