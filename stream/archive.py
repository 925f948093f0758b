"""Every topic → Parquet: what a replay reads, and what stays when a broker forgets.

Nothing acknowledged is lost (law 4). Steps of a flush, every :data:`FLUSH_S` or :data:`FLUSH_BYTES`:

1. every (topic, partition, hour) in memory becomes one file, flushed to the disk and renamed into place;
2. the offsets after them are committed;
3. memory is released.

Killed before 2, the group reads the same messages again and writes them again; the reader of the archive
takes each once (:mod:`stream.archive_files`). A disk that cannot be written stops nothing but the archive:
it says so, keeps what it holds, reads no more than :data:`HELD_BYTES`, and tries again. When told to stop it
reads to the end of the log first, so that a controlled restart of the embedded broker loses nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from stream import client
from stream.archive_files import HOUR_MS, compact, expire, hour_directory, write_file
from stream.consumer import Message, Place, Reader
from stream.health import Heart
from stream.publisher import Publisher
from stream.topics import DAY_MS, TOPICS
from twin.errors import ConfigError, NdtwinError

ARCHIVED = tuple(topic.name for topic in TOPICS if topic.archived)
GROUP = "ndtwin-archive"
FLUSH_S = 10.0
FLUSH_BYTES = 8 << 20
HELD_BYTES = 64 << 20
COMPACT_EVERY_S = 600.0
COMPACT_AFTER_MS = HOUR_MS // 6  # an hour is merged when it is over by ten minutes: stragglers have come
DRAIN_S = 5.0
_LOG = client.logger("archive")


@dataclass
class ArchiveFigures:
    """What the archive did."""

    messages: int = 0
    files: int = 0
    bytes: int = 0
    carried: int = 0  # left out: an earlier life of the broker had them, and so has the archive


class ArchiveWriter:
    """Messages in memory until :meth:`flush` makes files of them."""

    def __init__(self, directory: Path) -> None:
        self.figures = ArchiveFigures()
        self.held_bytes = 0
        self.problem = ""
        self._directory = directory
        self._held: dict[tuple[Path, int, str], list[Message]] = {}
        self._next: dict[Place, int] = {}

    def add(self, message: Message, epoch: str) -> None:
        """Hold a message; one that is held already, and comes again with a partition, changes nothing."""
        if message.offset < self._next.get(message.place, 0):
            return
        self._next[message.place] = message.offset + 1
        if message.carried:
            self.figures.carried += 1
            return
        hour = hour_directory(self._directory, message.topic, message.timestamp_ms)
        self._held.setdefault((hour, message.partition, epoch), []).append(message)
        self.held_bytes += len(message.payload) + len(message.key or b"")

    def flush(self) -> dict[Place, int]:
        """Step 1 and 3; the offsets to commit, none while the disk refuses (``problem`` says why)."""
        for part in list(self._held):
            try:
                self._write(part)
            except OSError as error:
                self.problem = f"cannot write to {self._directory}: {error.strerror or error}"
                _LOG.error("archive waits", reason=self.problem)
                return {}
        self.problem = ""
        self.held_bytes = 0
        done, self._next = self._next, {}
        return done

    def _write(self, part: tuple[Path, int, str]) -> None:
        hour, _, epoch = part
        path = write_file(hour, epoch, self._held[part])
        self.figures.messages += len(self._held.pop(part))
        self.figures.files += 1
        self.figures.bytes += path.stat().st_size


@dataclass
class _Clockwork:
    """When the next flush and the next upkeep are due."""

    flush_s: float
    flushed_at_s: float = field(default_factory=time.monotonic)
    compacted_at_s: float = 0.0

    def flush_due(self, writer: ArchiveWriter) -> bool:
        return time.monotonic() - self.flushed_at_s >= self.flush_s or writer.held_bytes >= FLUSH_BYTES


class _Archive:
    """One run of the service."""

    def __init__(self, reader: Reader, directory: Path, flush_s: float, retention_days: int) -> None:
        self.writer = ArchiveWriter(directory)
        self._reader = reader
        self._directory = directory
        self._tenure = (reader.epoch, reader.owned)
        self._clockwork = _Clockwork(flush_s)
        self._retention_days = retention_days

    def step(self) -> None:
        """Read, and flush and tidy when it is time."""
        if self.writer.held_bytes < HELD_BYTES:
            self._read()
        else:
            time.sleep(0.2)
        if self._clockwork.flush_due(self.writer):
            self.flush()
            self._tidy()

    def _read(self) -> int:
        messages = self._reader.poll()
        tenure = (self._reader.epoch, self._reader.owned)
        if tenure != self._tenure:  # another log, or others read on: a file holds all of its range
            self.writer.flush()
            self._tenure = tenure
        for message in messages:
            self.writer.add(message, self._reader.epoch)
        return len(messages)

    def flush(self) -> None:
        """Steps 1 to 3 of the module's docstring."""
        done = self.writer.flush()
        owned = {place: offset for place, offset in done.items() if place in self._reader.owned}
        if owned:
            self._reader.commit(owned)
        self._clockwork.flushed_at_s = time.monotonic()

    def drain(self) -> None:
        """Read on to the end of the log, within :data:`DRAIN_S`, and flush."""
        deadline_s = time.monotonic() + DRAIN_S
        while (self._read() or not self._reader.at_end()) and time.monotonic() < deadline_s:
            pass
        self.flush()

    def _tidy(self) -> None:
        if time.monotonic() - self._clockwork.compacted_at_s < COMPACT_EVERY_S:
            return
        self._clockwork.compacted_at_s = time.monotonic()
        now_ms = time.time_ns() // 1_000_000
        merged = compact(self._directory, ARCHIVED, now_ms - COMPACT_AFTER_MS)
        old = expire(self._directory, now_ms - self._retention_days * DAY_MS) if self._retention_days else 0
        if merged or old:
            _LOG.info("archive tidied", files_merged=merged, files_expired=old)


def run_archive(
    bootstrap: str,
    directory: Path,
    *,
    partitions: int,
    stop: Event,
    group: str = GROUP,
    flush_s: float = FLUSH_S,
    retention_days: int = 0,
) -> ArchiveFigures:
    """Archive until ``stop`` is set; 0 days keeps everything. ConfigError when there can be no directory."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"archive {directory} cannot be made ({error.strerror}): set archive.directory"
        ) from error
    with (
        Publisher(bootstrap, partitions, client_id="archive") as publisher,
        Reader(bootstrap, ARCHIVED, group=group) as reader,
    ):
        heart = Heart(publisher, "archive")
        archive = _Archive(reader, directory, flush_s, retention_days)
        while not stop.is_set():
            archive.step()
            problem = archive.writer.problem
            heart.beat("degraded" if problem else "running", problem, _metrics(archive.writer))
        archive.drain()
        heart.beat("stopped", archive.writer.problem, _metrics(archive.writer))
        if archive.writer.problem:
            raise NdtwinError(archive.writer.problem)
        return archive.writer.figures


def _metrics(writer: ArchiveWriter) -> dict[str, float]:
    figures = writer.figures
    return {
        "messages": float(figures.messages),
        "files": float(figures.files),
        "bytes": float(figures.bytes),
        "held_bytes": float(writer.held_bytes),
    }
