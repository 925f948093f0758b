"""The thread that reads the topics into the store.

It takes every partition for itself and begins :data:`REWIND` messages before the end, so that a fresh page
shows history at once. A broker that is away is tried again; a message that cannot be decoded is counted and
told.
"""

from __future__ import annotations

import threading
import time

from ndtwin.api.store import Store
from stream.client import logger
from stream.consumer import Message, Reader, dead_letter, decode_message
from twin.errors import DecodeError, PeerError
from twin.records import DeadLetter

TOPICS = ("ndt.state", "ndt.predictions", "ndt.alerts", "ndt.health", "ndt.events", "ndt.deadletter")
REWIND = 400
RETRY_S = 2.0
_LOG = logger("serve")


class Feed:
    """Start it, read from the store, stop it."""

    def __init__(self, store: Store, bootstrap: str) -> None:
        self._store = store
        self._bootstrap = bootstrap
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ndtwin-feed", daemon=True)
        self.problem = "connecting"  # why nothing is read now; empty while reading

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Stop and wait for the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def take(self, message: Message) -> None:
        """One message into the store; what cannot be decoded becomes a dead letter there."""
        record = decode_message(message)
        if isinstance(record, DeadLetter) and message.topic != "ndt.deadletter":
            _LOG.warning(
                "message not decodable", topic=message.topic, offset=message.offset, reason=record.reason
            )
        try:
            self._store.apply(record, timestamp_ms=message.timestamp_ms)
        except DecodeError as error:
            _LOG.warning("record not usable", topic=message.topic, offset=message.offset, reason=str(error))
            self._store.apply(dead_letter(message, str(error)))
        self._store.note_delay(message.topic, max(0.0, time.time() - message.timestamp_ms / 1000))

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._read()
            except PeerError as error:
                if self.problem != str(error):
                    _LOG.warning("cannot read", reason=str(error))
                self.problem = str(error)
                self._stop.wait(RETRY_S)

    def _read(self) -> None:
        with Reader(self._bootstrap, TOPICS, rewind=REWIND) as reader:
            self.problem = ""
            while not self._stop.is_set():
                for message in reader.poll(timeout_s=0.5, limit=200):
                    self.take(message)
