"""How many devices are read at once: the collector's own bound, which no silent device can use up.

A poll enters the gate after its device has answered once and leaves it when it is done. What waits for its
turn until its deadline is not the device's fault: it raises :class:`Overrun`, so that nobody is called
silent because the collector has too much to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Overrun(TimeoutError):
    """The collector did not get round to a device in time."""


class Gate:
    """At most ``width`` polls inside."""

    def __init__(self, width: int) -> None:
        self._turns = asyncio.Semaphore(width)
        self.inside = 0
        self.most = 0  # inside at once, so far

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and keep it."""
        try:
            await self._turns.acquire()
        except asyncio.CancelledError as error:
            raise Overrun from error
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            yield
        finally:
            self.inside -= 1
            self._turns.release()
