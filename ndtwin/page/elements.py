"""The page's own elements: Vue components of ours that show one dictionary each and tell what was picked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nicegui.element import Element
from nicegui.events import GenericEventArguments

Payload = dict[str, Any]
Handlers = Mapping[str, Callable[[Payload], None]]


class Panel(Element):
    """Shows ``data``; sends nothing when it is shown what it shows already."""

    def __init__(self, data: Payload, handlers: Handlers) -> None:
        super().__init__()
        self._props["data"] = data
        for event, handler in handlers.items():
            self.on(event, _payload_of(handler))

    def show(self, data: Payload) -> None:
        """Push new data to the browser."""
        if data != self._props["data"]:
            self._props["data"] = data
            self.update()


class TopBar(Panel, component="static/top_bar.js"):
    """Name, window clock, figures, health."""


class TopologyMap(Panel, component="static/topology_map.js"):
    """The map."""


class AlertList(Panel, component="static/alert_list.js"):
    """Alerts with their suspects."""


class PathTable(Panel, component="static/path_table.js"):
    """Paths, measured beside predicted."""


class ClassQueues(Panel, component="static/class_queues.js"):
    """The class queues of the link shown."""


class Journal(Panel, component="static/journal.js"):
    """What happened lately."""


def _payload_of(handler: Callable[[Payload], None]) -> Callable[[GenericEventArguments], None]:
    def handle(event: GenericEventArguments) -> None:
        handler(event.args if isinstance(event.args, dict) else {})

    return handle
