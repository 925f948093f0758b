"""Heartbeats: every service says every two seconds, and at once when it changes, how it is."""

from __future__ import annotations

import os
import time

from stream.publisher import Publisher
from twin.records import ComponentState, Heartbeat

INTERVAL_S = 2.0


class Heart:
    """The heartbeats of one component of this process. Beat from the loop whose life it attests."""

    def __init__(self, publisher: Publisher, component: str, *, interval_s: float = INTERVAL_S) -> None:
        self._publisher = publisher
        self._component = component
        self._interval_s = interval_s
        self._beat_at_s = float("-inf")
        self._said: tuple[ComponentState, str] | None = None

    def beat(self, state: ComponentState, detail: str = "", metrics: dict[str, float] | None = None) -> bool:
        """Publish if it is time or if state or detail changed; whether it was published."""
        now_s = time.monotonic()
        if self._said == (state, detail) and now_s - self._beat_at_s < self._interval_s:
            return False
        self._beat_at_s = now_s
        self._said = (state, detail)
        self._publisher.publish(
            Heartbeat(
                component=self._component,
                observed_at_ns=time.time_ns(),
                state=state,
                pid=os.getpid(),
                detail=detail,
                metrics=metrics or {},
            )
        )
        return True
