"""Server-Sent Events: every new window, once it has its prediction, for programs that act on fresh state.

The event's id is the window's version. A client that reconnects sends it as ``Last-Event-ID`` (browsers and
SSE clients do so by themselves) and gets what it missed, as far as the history reaches. A window whose
prediction never came is sent without one as soon as the next window is there, so that a dead predictor delays
nobody by more than a window.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence

from ndtwin.api.frames import Frame
from ndtwin.api.store import Store
from ndtwin.api.views import fresh_out

POLL_S = 0.2
KEEPALIVE_S = 15.0
RETRY_MS = 2000


def ready_after(frames: Sequence[Frame], last_version: int | None) -> list[Frame]:
    """The windows to send after ``last_version``, oldest first; at first the newest that is ready."""
    ready = [f for i, f in enumerate(frames) if f.predicted is not None or i < len(frames) - 1]
    if last_version is None:
        return ready[-1:]
    sent = [i for i, f in enumerate(ready) if f.version == last_version]
    return ready[sent[-1] + 1 :] if sent else [f for f in ready if f.version > last_version]


def event(frame: Frame) -> str:
    """One window as one event."""
    return f"id: {frame.version}\nevent: state\ndata: {fresh_out(frame).model_dump_json()}\n\n"


async def state_events(
    store: Store, network: Callable[[], str | None], last_version: int | None, stopping: Callable[[], bool]
) -> AsyncIterator[str]:
    """The event stream of one client; ``network`` names its network once that is known."""
    yield f"retry: {RETRY_MS}\n\n"
    revision, spoke_s = -1, time.monotonic()
    while not stopping():
        if store.revision != revision and (name := network()) is not None:
            revision = store.revision
            for frame in ready_after(store.network(name).frames, last_version):
                yield await asyncio.to_thread(event, frame)
                last_version, spoke_s = frame.version, time.monotonic()
        if time.monotonic() - spoke_s > KEEPALIVE_S:
            yield ": waiting for the next window\n\n"
            spoke_s = time.monotonic()
        await asyncio.sleep(POLL_S)
