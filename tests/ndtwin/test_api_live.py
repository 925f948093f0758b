"""The stream of fresh state: which windows are sent, when, and how a client resumes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from rehearsal import Rehearsal, feed

from ndtwin.api import live
from ndtwin.api.live import ready_after, state_events
from ndtwin.api.store import Store
from twin.records import Prediction, StateUpdate


def store_with(windows: list[tuple[StateUpdate, Prediction]], *, predicted: int) -> Store:
    """All states, and the predictions of the first ``predicted``."""
    store = Store()
    for i, (state, prediction) in enumerate(windows):
        feed(store, [state, prediction] if i < predicted else [state])
    return store


def test_which_windows_are_ready() -> None:
    """Predicted ones, and those that a newer one has overtaken; the newest alone to a client that begins."""
    windows = list(Rehearsal().windows(4))
    versions = [state.version for state, _ in windows]
    frames = store_with(windows, predicted=2).network("nsfnet").frames
    table = [
        (None, versions[2:3]),  # the newest ready one: overtaken without a prediction
        (versions[0], versions[1:3]),
        (versions[2], []),
        (versions[0] - 100, versions[:3]),  # older than the history reaches
    ]
    for last_version, expected in table:
        assert [frame.version for frame in ready_after(frames, last_version)] == expected


async def next_event(events: AsyncIterator[str]) -> str:
    """The next event with data."""
    async with asyncio.timeout(10):
        async for text in events:
            if "data:" in text:
                return text
    raise AssertionError("the stream ended")


def version_of(event: str) -> int:
    """The id of an event."""
    return int(event.split("id: ")[1].partition("\n")[0])


async def test_a_client_follows_and_resumes() -> None:
    """It gets the newest window, then each when its prediction comes; another resumes after its id."""
    windows = list(Rehearsal().windows(3))
    store = store_with(windows[:1], predicted=1)
    events = state_events(store, lambda: "nsfnet", None, lambda: False)
    assert version_of(await next_event(events)) == windows[0][0].version
    feed(store, [windows[1][0]])
    waiting = asyncio.create_task(next_event(events))
    await asyncio.sleep(3 * live.POLL_S)
    assert not waiting.done()  # the state alone is not yet fresh state
    feed(store, [windows[1][1]])
    assert version_of(await waiting) == windows[1][0].version
    await events.aclose()  # type: ignore[attr-defined]  # it is a generator

    feed(store, windows[2])
    resumed = state_events(store, lambda: "nsfnet", windows[0][0].version, lambda: False)
    assert [version_of(await next_event(resumed)) for _ in range(2)] == [s.version for s, _ in windows[1:]]
    await resumed.aclose()  # type: ignore[attr-defined]  # it is a generator


async def test_a_stream_that_begins_before_the_loop_waits_for_it() -> None:
    """No network yet: the stream begins with the first window; it ends when the server stops."""
    store, stopping = Store(), False
    name = lambda: (store.networks() or (None,))[0]  # noqa: E731
    events = state_events(store, name, None, lambda: stopping)
    waiting = asyncio.create_task(next_event(events))
    await asyncio.sleep(2 * live.POLL_S)
    feed(store, Rehearsal().window())
    assert version_of(await waiting) == Rehearsal().first_version
    stopping = True
    assert [text async for text in events] == []
