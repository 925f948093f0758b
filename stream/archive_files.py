"""The archive on disk: Parquet files by topic and hour, written, read back in order, compacted.

Layout
------
``DIR/topic=NAME/date=YYYY-MM-DD/hour=HH/part-PARTITION-FIRST-LAST-EPOCH.parquet``, by the Kafka timestamp in
UTC, zstd, columns topic, partition, offset, timestamp_ms, key, value: any Parquet reader opens it.

Invariants
----------
- A file is complete or absent: written under another name, flushed to the disk, then renamed.
- A file holds *all* messages of its partition, epoch and hour with offsets in [FIRST, LAST]. So two files of
  one name hold the same, writing one again is harmless, and of overlapping files any may serve.
- (epoch, topic, partition, offset) names a message. What was written twice, because a writer was killed
  between the file and the commit of its offsets, or during a compaction, is read once.
"""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stream.client import logger
from stream.consumer import Message
from stream.topics import BY_NAME
from twin.errors import DecodeError

SCHEMA = pa.schema(
    [
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("timestamp_ms", pa.int64()),
        ("key", pa.binary()),
        ("value", pa.binary()),
    ]
)
HOUR_MS = 3_600_000
ROW_GROUP_MESSAGES = 2_000
_NAME = re.compile(r"part-(\d+)-(\d+)-(\d+)-(.+)\.parquet")
_BEING_WRITTEN = ".tmp"
_LOG = logger("archive")


@dataclass(frozen=True, order=True)
class ArchiveFile:
    """One file, and what its name tells."""

    first: int
    last: int
    partition: int
    epoch: str
    path: Path

    @classmethod
    def parse(cls, path: Path) -> ArchiveFile | None:
        """What the name tells; None when it is not the name of an archive file."""
        match = _NAME.fullmatch(path.name)
        if match is None:
            return None
        partition, first, last = (int(text) for text in match.groups()[:3])
        return cls(first, last, partition, match.group(4), path)


@dataclass
class Damage:
    """What could not be read. One line of log each, and never a reason to stop."""

    files: list[Path] = field(default_factory=list)

    def note(self, path: Path, reason: str) -> None:
        """Count and tell it."""
        self.files.append(path)
        _LOG.error("archive file skipped", path=str(path), reason=reason.splitlines()[0] if reason else "")


def hour_directory(directory: Path, topic: str, timestamp_ms: int) -> Path:
    """Where a message of that time lies."""
    at = datetime.fromtimestamp(timestamp_ms // 1000, UTC)
    return directory / f"topic={topic}" / f"date={at:%Y-%m-%d}" / f"hour={at:%H}"


def hour_of(hour: Path) -> int:
    """The first millisecond of an hour's directory; ValueError when the path is not one."""
    text = f"{hour.parent.name.removeprefix('date=')}T{hour.name.removeprefix('hour=')}"
    return int(datetime.strptime(text, "%Y-%m-%dT%H").replace(tzinfo=UTC).timestamp() * 1000)


def hours(directory: Path, topic: str) -> list[Path]:
    """The hours of a topic that exist, oldest first."""
    return sorted(path for path in (directory / f"topic={topic}").glob("date=*/hour=*") if _is_hour(path))


def _is_hour(path: Path) -> bool:
    try:
        hour_of(path)
    except ValueError:
        return False
    return True


# ------------------------------------------------------------------------------------------- writing


def write_file(hour: Path, epoch: str, messages: Sequence[Message]) -> Path:
    """Write messages of one partition and hour, in the order of their offsets; durable on return."""
    first, last = messages[0], messages[-1]
    path = hour / f"part-{first.partition}-{first.offset}-{last.offset}-{epoch}.parquet"
    _write_rows(
        path, (messages[i : i + ROW_GROUP_MESSAGES] for i in range(0, len(messages), ROW_GROUP_MESSAGES))
    )
    return path


def _write_rows(path: Path, groups: Iterable[Sequence[Message]]) -> None:
    """All or nothing: when ``groups`` raises, no file comes to be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}{_BEING_WRITTEN}")
    try:
        with beside.open("wb") as file:
            with pq.ParquetWriter(
                file, SCHEMA, compression="zstd", use_dictionary=["topic", "key"]
            ) as writer:
                for group in groups:
                    writer.write_table(_table(group))
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _table(messages: Sequence[Message]) -> pa.Table:
    columns = {
        "topic": [m.topic for m in messages],
        "partition": [m.partition for m in messages],
        "offset": [m.offset for m in messages],
        "timestamp_ms": [m.timestamp_ms for m in messages],
        "key": [m.key for m in messages],
        "value": [m.payload for m in messages],
    }
    return pa.table(columns, schema=SCHEMA)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ------------------------------------------------------------------------------------------- reading


def read_archive(
    directory: Path, topics: Iterable[str], from_ns: int, to_ns: int, *, damage: Damage | None = None
) -> Iterator[Message]:
    """The messages with ``from_ns ≤ timestamp < to_ns``, each once, merged by time.

    The order is (timestamp, topic in the order given, partition, offset), where a timestamp that goes back
    within a partition counts as the newest before it: within a partition the offset decides, as it did live.
    Files are read a row group at a time.
    """
    damage = damage if damage is not None else Damage()
    low_ms, high_ms = -(-from_ns // 1_000_000), -(-to_ns // 1_000_000)
    streams = [
        _ranked(_partition_stream(files, damage, low_ms, high_ms), rank)
        for rank, topic in enumerate(topics)
        for files in _streams_of(directory, topic, low_ms, high_ms, damage).values()
    ]
    for _, message in heapq.merge(*streams, key=lambda ranked: ranked[0]):
        yield message


Rank = tuple[int, int, int, int]


def _ranked(messages: Iterator[Message], topic_rank: int) -> Iterator[tuple[Rank, Message]]:
    newest_ms = 0
    for message in messages:
        newest_ms = max(newest_ms, message.timestamp_ms)
        yield (newest_ms, topic_rank, message.partition, message.offset), message


def _streams_of(
    directory: Path, topic: str, low_ms: int, high_ms: int, damage: Damage
) -> dict[tuple[str, int], list[ArchiveFile]]:
    """(epoch, partition) → its files that may hold something in the range, by first offset."""
    streams: dict[tuple[str, int], list[ArchiveFile]] = {}
    for hour in hours(directory, topic):
        if hour_of(hour) < high_ms and hour_of(hour) + HOUR_MS > low_ms:
            for file in files_in(hour, damage):
                streams.setdefault((file.epoch, file.partition), []).append(file)
    return {key: sorted(files) for key, files in sorted(streams.items())}


def files_in(hour: Path, damage: Damage) -> list[ArchiveFile]:
    """The archive files of one hour, by first offset; what else lies there is noted, not read."""
    found = []
    for path in sorted(hour.iterdir()):
        file = ArchiveFile.parse(path)
        if file is not None:
            found.append(file)
        elif not path.name.endswith(_BEING_WRITTEN):
            damage.note(path, "not a file of this archive: move it elsewhere")
    return sorted(found)


def _partition_stream(
    files: Sequence[ArchiveFile], damage: Damage, low_ms: int, high_ms: int
) -> Iterator[Message]:
    """One epoch of one partition in the order of offsets, each once. A file is opened when its turn comes."""
    waiting = list(reversed(files))
    rows: list[tuple[int, int, Message, Iterator[Message]]] = []  # heap: offset, serial, message, rest
    done = -1
    while waiting or rows:
        while waiting and (not rows or waiting[-1].first <= rows[0][0]):
            _push(rows, _rows(waiting.pop(), damage))
        if not rows:
            continue
        offset, _, message, rest = heapq.heappop(rows)
        _push(rows, rest)
        if offset > done:
            done = offset
            if low_ms <= message.timestamp_ms < high_ms:
                yield message


def _push(rows: list[tuple[int, int, Message, Iterator[Message]]], rest: Iterator[Message]) -> None:
    message = next(rest, None)
    if message is not None:
        heapq.heappush(rows, (message.offset, id(rest), message, rest))


def _rows(file: ArchiveFile, damage: Damage) -> Iterator[Message]:
    """The rows of one file, a row group at a time; a damaged file ends early."""
    try:
        with pq.ParquetFile(file.path) as parquet:
            if not parquet.schema_arrow.equals(SCHEMA):
                damage.note(file.path, f"columns {parquet.schema_arrow.names} are not those of the archive")
                return
            for group in range(parquet.num_row_groups):
                yield from _messages(parquet.read_row_group(group))
    except FileNotFoundError:
        yield from _merged_rows(file, damage)
    except (pa.ArrowException, OSError) as error:
        damage.note(file.path, f"damaged: {error}")


def _merged_rows(file: ArchiveFile, damage: Damage) -> Iterator[Message]:
    """The rows of a file that a compaction took away since the directory was listed."""
    for other in files_in(file.path.parent, damage):
        same = (other.partition, other.epoch) == (file.partition, file.epoch)
        if same and other.first <= file.first and other.last >= file.last:
            yield from (m for m in _rows(other, damage) if file.first <= m.offset <= file.last)
            return
    damage.note(file.path, "gone while the archive was read")


def _messages(table: pa.Table) -> Iterator[Message]:
    names = [field.name for field in SCHEMA]
    for topic, partition, offset, timestamp_ms, key, value in zip(
        *(table.column(name).to_pylist() for name in names), strict=True
    ):
        yield Message(topic, partition, offset, timestamp_ms, key, value)


# ------------------------------------------------------------------------------------------- upkeep


def compact(directory: Path, topics: Iterable[str], before_ms: int) -> int:
    """Make one file of the files of every partition in every hour that ended before; give how many went."""
    removed = 0
    for topic in topics:
        for hour in hours(directory, topic):
            if hour_of(hour) + HOUR_MS <= before_ms:
                removed += _compact_hour(hour)
    return removed


def _compact_hour(hour: Path) -> int:
    streams: dict[tuple[str, int], list[ArchiveFile]] = {}
    for file in files_in(hour, Damage()):
        streams.setdefault((file.epoch, file.partition), []).append(file)
    return sum(_merge(hour, files, Damage()) for files in streams.values() if len(files) > 1)


def _merge(hour: Path, files: list[ArchiveFile], damage: Damage) -> int:
    """Several files into one. Nothing is removed unless every file could be read."""
    last = max(file.last for file in files)
    path = hour / f"part-{files[0].partition}-{files[0].first}-{last}-{files[0].epoch}.parquet"
    try:
        _write_rows(path, _groups(_sound(_partition_stream(files, damage, 0, 1 << 62), damage)))
    except DecodeError:
        return 0  # noted in ``damage``; the files stay as they are
    old = [file.path for file in files if file.path != path]
    for one in old:
        one.unlink()
    return len(old)


def _sound(messages: Iterator[Message], damage: Damage) -> Iterator[Message]:
    yield from messages
    if damage.files:
        raise DecodeError(f"{damage.files[0]} cannot be read")


def _groups(messages: Iterator[Message]) -> Iterator[list[Message]]:
    group: list[Message] = []
    for message in messages:
        group.append(message)
        if len(group) == ROW_GROUP_MESSAGES:
            yield group
            group = []
    if group:
        yield group


def expire(directory: Path, before_ms: int) -> int:
    """Remove the hours that ended before; give how many files went."""
    removed = 0
    for topic in BY_NAME:
        for hour in hours(directory, topic):
            if hour_of(hour) + HOUR_MS <= before_ms:
                for path in list(hour.iterdir()):
                    path.unlink()
                    removed += 1
                hour.rmdir()
                if not any(hour.parent.iterdir()):
                    hour.parent.rmdir()
    return removed
