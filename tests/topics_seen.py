"""Looking at topics from a test: what lies in one now, and waiting until it is what it should be."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from stream.consumer import Message, Reader, decode_message
from twin.records import Record, StateUpdate

T = TypeVar("T")
R = TypeVar("R", bound=Record)


def state(version: int, network: str = "net") -> StateUpdate:
    """A state update that says nothing."""
    return StateUpdate(
        network=network,
        version=version,
        window_start_ns=0,
        window_end_ns=1,
        keyframe=True,
        topology_version=1,
    )


def messages_in(bootstrap: str, topic: str) -> list[Message]:
    """Every message of a topic, partition after partition."""
    with Reader(bootstrap, [topic]) as reader:
        return list(reader.iterate_to_end())


def records_in(bootstrap: str, topic: str, kind: type[R]) -> list[R]:
    """Every record of one kind in a topic."""
    records = [decode_message(message) for message in messages_in(bootstrap, topic)]
    return [record for record in records if isinstance(record, kind)]


def wait_for(look: Callable[[], T], wanted: Callable[[T], bool], timeout_s: float = 20.0) -> T:
    """Look until it is as wanted; AssertionError with the last sight when it does not become so."""
    deadline_s = time.monotonic() + timeout_s
    while not wanted(found := look()):
        assert time.monotonic() < deadline_s, f"not within {timeout_s} s: {found!r}"
        time.sleep(0.3)
    return found
