"""The archive: everything acknowledged is in it, once, in order, whatever is killed or torn."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from topics_seen import messages_in, wait_for

from ndtwin.broker import EmbeddedBroker
from stream.admin import ensure_topics
from stream.archive import ARCHIVED, ArchiveWriter, run_archive
from stream.archive_files import SCHEMA, Damage, compact, expire, read_archive
from stream.consumer import Message
from stream.publisher import Publisher
from twin.errors import ConfigError
from twin.records import Heartbeat, NetworkEvent

HOUR_MS = 3_600_000
T0_MS = 1_700_000_000_000 // HOUR_MS * HOUR_MS
EVER = (0, 1 << 62)


def message(offset: int, at_ms: int = T0_MS, topic: str = "ndt.events", partition: int = 0) -> Message:
    return Message(topic, partition, offset, at_ms, b"k%d" % (offset % 3), b'{"n":%d}' % offset)


def write(directory: Path, messages: list[Message], epoch: str = "e1") -> None:
    writer = ArchiveWriter(directory)
    for one in messages:
        writer.add(one, epoch)
    writer.flush()
    assert writer.problem == ""


def read(
    directory: Path, topics: Sequence[str] = ("ndt.events",), between: tuple[int, int] = EVER
) -> list[Message]:
    return list(read_archive(directory, topics, *between))


# ------------------------------------------------------------------------------------------- files


def test_what_is_written_is_read_back_as_it_was(tmp_path: Path) -> None:
    """Keys, empty keys, empty and binary values, times and offsets survive."""
    odd = [
        Message("ndt.events", 0, 5, T0_MS, None, b""),
        Message("ndt.events", 0, 6, T0_MS + 1, b"", bytes(range(256))),
        Message("ndt.events", 3, 6, T0_MS + 2, "é".encode(), b"x" * 900_000),
    ]
    write(tmp_path, odd)
    assert read(tmp_path) == odd


def test_any_parquet_reader_opens_the_files_and_the_layout_is_by_topic_date_and_hour(tmp_path: Path) -> None:
    """Directories say topic, date and hour in UTC; columns are the documented ones, compressed with zstd."""
    write(tmp_path, [message(7), message(8)])
    [path] = tmp_path.rglob("*.parquet")
    assert path.relative_to(tmp_path).as_posix() == (
        "topic=ndt.events/date=2023-11-14/hour=22/part-0-7-8-e1.parquet"
    )
    parquet = pq.ParquetFile(path)
    assert parquet.schema_arrow.names == SCHEMA.names
    assert parquet.metadata.row_group(0).column(5).compression == "ZSTD"
    assert pq.read_table(path, partitioning=None)["offset"].to_pylist() == [7, 8]


def test_reading_merges_topics_partitions_and_epochs_by_time(tmp_path: Path) -> None:
    """The order is time, topic as given, partition, offset; equal times keep the order of topics."""
    first = [message(i, T0_MS + 10 * i) for i in range(4)]
    other = [message(i, T0_MS + 10 * i, "ndt.delays") for i in range(4)]
    second = [message(i, T0_MS + 10 * i, partition=1) for i in range(4)]
    later = [message(i, T0_MS + HOUR_MS + i) for i in range(2)]
    write(tmp_path, [*first, *other, *second])
    write(tmp_path, later, "e2")
    expected = [m for i in range(4) for m in (other[i], first[i], second[i])] + later
    assert read(tmp_path, ("ndt.delays", "ndt.events")) == expected


def test_within_a_partition_the_offset_decides_even_when_time_goes_back(tmp_path: Path) -> None:
    """A timestamp that steps back, across files and over the hour, does not reorder a partition."""
    times = [T0_MS - 5, T0_MS + 3, T0_MS - 2, T0_MS + 4, T0_MS + 4, T0_MS + 1]
    messages = [message(i, at_ms) for i, at_ms in enumerate(times)]
    write(tmp_path, messages[:2])
    write(tmp_path, messages[2:])
    assert read(tmp_path) == messages


def test_a_range_is_closed_below_and_open_above(tmp_path: Path) -> None:
    """from ≤ timestamp < to, to the nanosecond, over hours and days."""
    messages = [message(i, T0_MS + i * HOUR_MS // 2) for i in range(60)]
    write(tmp_path, messages)
    low, high = messages[3].timestamp_ms * 1_000_000, messages[50].timestamp_ms * 1_000_000
    assert read(tmp_path, between=(low, high)) == messages[3:50]
    assert read(tmp_path, between=(low + 1, high + 1)) == messages[4:51]
    assert read(tmp_path, between=(high, low)) == []


_lives = st.lists(st.tuples(st.integers(0, 12), st.booleans(), st.booleans()), max_size=4)


@settings(max_examples=25, deadline=None)
@given(lives=_lives)
def test_messages_written_again_after_a_crash_are_read_once(
    tmp_path_factory: pytest.TempPathFactory, lives: list[tuple[int, bool, bool]]
) -> None:
    """Whatever ranges a killed writer wrote twice, and whatever was compacted, each offset is read once."""
    directory = tmp_path_factory.mktemp("archive")
    messages = [message(i, T0_MS + i * HOUR_MS // 8) for i in range(12)]
    committed = 0
    for written_to, killed_before_commit, compacted in [*lives, (12, False, True)]:
        if written_to > committed:
            write(directory, messages[committed:written_to])
            committed = committed if killed_before_commit else written_to
        if compacted:
            compact(directory, ["ndt.events"], T0_MS + 100 * HOUR_MS)
    assert read(directory) == messages


def test_compaction_makes_one_file_an_hour_and_changes_nothing_that_is_read(tmp_path: Path) -> None:
    """Forty small files in two ended hours become two; the running hour is left alone."""
    messages = [message(i, T0_MS + i * HOUR_MS // 20) for i in range(50)]
    for one in messages:
        write(tmp_path, [one])
    removed = compact(tmp_path, ARCHIVED, T0_MS + 2 * HOUR_MS)
    assert removed == 40
    assert len(list(tmp_path.rglob("*.parquet"))) == 2 + 10
    assert read(tmp_path) == messages
    assert compact(tmp_path, ARCHIVED, T0_MS + 2 * HOUR_MS) == 0


def test_a_reader_goes_on_while_a_compaction_takes_its_files_away(tmp_path: Path) -> None:
    """The files listed at the start are gone when their turn comes: the merged one serves."""
    messages = [message(i, T0_MS + i) for i in range(30)]
    for one in messages:
        write(tmp_path, [one])
    damage = Damage()
    reading = read_archive(tmp_path, ["ndt.events"], *EVER, damage=damage)
    start = [next(reading) for _ in range(3)]
    compact(tmp_path, ARCHIVED, T0_MS + HOUR_MS)
    assert start + list(reading) == messages
    assert damage.files == []


def test_damaged_and_foreign_files_are_counted_and_skipped(tmp_path: Path) -> None:
    """A truncated file, an empty one, another table and a stray note cost themselves and nothing else."""
    for start in (0, 10, 20, 30):
        write(tmp_path, [message(i) for i in range(start, start + 10)])
    hour = next(tmp_path.rglob("hour=*"))
    torn = hour / "part-0-10-19-e1.parquet"
    torn.write_bytes(torn.read_bytes()[:-20])
    (hour / "part-0-20-29-e1.parquet").write_bytes(b"")
    pq.write_table(pa.table({"key": [b"k"]}), hour / "part-0-40-41-e1.parquet")
    (hour / "notes.txt").write_text("hello")
    (hour / ".part-0-1-2-e1.parquet.99.tmp").write_bytes(b"left by a killed writer")
    (tmp_path / "topic=ndt.events" / "date=yesterday").mkdir()
    damage = Damage()
    offsets = [m.offset for m in read_archive(tmp_path, ["ndt.events"], *EVER, damage=damage)]
    assert offsets == [*range(10), *range(30, 40)]
    assert sorted(path.name for path in damage.files) == [
        "notes.txt",
        "part-0-10-19-e1.parquet",
        "part-0-20-29-e1.parquet",
        "part-0-40-41-e1.parquet",
    ]


def test_a_damaged_file_is_not_compacted_away(tmp_path: Path) -> None:
    """Compaction keeps every file of a partition of which one cannot be read."""
    for start in (0, 10):
        write(tmp_path, [message(i) for i in range(start, start + 10)])
    torn = next(tmp_path.rglob("part-0-10-*"))
    torn.write_bytes(torn.read_bytes()[:100])
    names = sorted(path.name for path in tmp_path.rglob("*.*"))
    assert compact(tmp_path, ARCHIVED, T0_MS + HOUR_MS) == 0
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == names


def test_expiry_removes_whole_hours_that_are_old(tmp_path: Path) -> None:
    """Hours that ended before the limit go, with their empty days; later ones stay."""
    messages = [message(i, T0_MS + i * HOUR_MS) for i in range(5)]
    write(tmp_path, messages)
    assert expire(tmp_path, T0_MS + 3 * HOUR_MS) == 3
    assert read(tmp_path) == messages[3:]
    assert len(list(tmp_path.rglob("hour=*"))) == 2


def test_a_disk_that_refuses_keeps_messages_in_memory_until_it_does_not(tmp_path: Path) -> None:
    """Nothing is committed and nothing forgotten while files cannot be written; then everything is."""
    blocked = tmp_path / "topic=ndt.events"
    blocked.write_text("a file where a directory must be")
    writer = ArchiveWriter(tmp_path)
    for i in range(5):
        writer.add(message(i), "e1")
    assert writer.flush() == {}
    assert "cannot write" in writer.problem
    blocked.unlink()
    assert writer.flush() == {("ndt.events", 0): 5}
    assert (writer.problem, writer.held_bytes) == ("", 0)
    assert read(tmp_path) == [message(i) for i in range(5)]


def test_messages_carried_over_by_a_broker_restart_are_not_archived_again(tmp_path: Path) -> None:
    """What an earlier life of the broker held is archived already; its offset is passed all the same."""
    writer = ArchiveWriter(tmp_path)
    writer.add(Message("ndt.events", 0, 0, T0_MS, b"k", b"{}", carried=True), "e2")
    writer.add(message(1), "e2")
    assert writer.flush() == {("ndt.events", 0): 2}
    assert read(tmp_path) == [message(1)]
    assert writer.figures.carried == 1


# ------------------------------------------------------------------------------------------- the service


def event(number: int) -> NetworkEvent:
    return NetworkEvent(network="net", device="A", observed_at_ns=number, kind="link-down")


@contextmanager
def archiving(bootstrap: str, directory: Path) -> Iterator[None]:
    stop = threading.Event()
    options = {"partitions": 1, "stop": stop, "flush_s": 0.3}
    thread = threading.Thread(target=run_archive, args=(bootstrap, directory), kwargs=options)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(15)
        assert not thread.is_alive()


@pytest.mark.kafka
def test_the_service_archives_every_topic_but_health_to_the_end_of_the_log(
    embedded: EmbeddedBroker, tmp_path: Path
) -> None:
    """All archived topics, whatever their bytes; told to stop, it first reads to the end; epoch as told."""
    ensure_topics(embedded.bootstrap, 1)
    with Publisher(embedded.bootstrap, 1) as publisher:
        publisher.publish_all(event(i) for i in range(50))
        for topic in ARCHIVED:
            publisher.send(topic, b"\xff any bytes", key=None, partition=0)
        publisher.publish(Heartbeat(component="x", observed_at_ns=1, state="running"))
        publisher.flush()
        with archiving(embedded.bootstrap, tmp_path):
            wait_for(lambda: read(tmp_path), lambda found: len(found) == 51)
            publisher.publish_all(event(i) for i in range(50, 90))
            publisher.flush()
    assert read(tmp_path) == messages_in(embedded.bootstrap, "ndt.events")
    assert {m.topic for m in read(tmp_path, ARCHIVED)} == set(ARCHIVED)
    assert not (tmp_path / "topic=ndt.health").exists()
    assert all(path.stem.endswith(embedded.epoch) for path in tmp_path.rglob("*.parquet"))


@pytest.mark.kafka
def test_nothing_acknowledged_is_lost_or_doubled_when_the_archive_is_killed(
    embedded: EmbeddedBroker, tmp_path: Path
) -> None:
    """kill -9 while records stream in, at a random moment; a second life completes the archive."""
    ensure_topics(embedded.bootstrap, 1)
    script = Path(__file__).with_name("archive_worker.py")
    command = [sys.executable, str(script), embedded.bootstrap, str(tmp_path)]
    with Publisher(embedded.bootstrap, 1) as publisher:
        victim = subprocess.Popen(command)
        wait = threading.Event()
        produced = 0
        killed_after = None
        deadline_s = time.monotonic() + 60
        while produced < 400 or killed_after is None:
            assert time.monotonic() < deadline_s
            publisher.publish(event(produced))
            produced += 1
            wait.wait(0.01)
            if killed_after is None and produced > 50 and list(tmp_path.rglob("*.parquet")):
                wait.wait(random.uniform(0, 0.4))
                os.kill(victim.pid, signal.SIGKILL)
                victim.wait(5)
                killed_after = produced
        publisher.flush()
        with archiving(embedded.bootstrap, tmp_path):
            wait_for(lambda: read(tmp_path), lambda found: len(found) >= produced, timeout_s=40)
    assert read(tmp_path) == messages_in(embedded.bootstrap, "ndt.events")


@pytest.mark.kafka
def test_a_broker_that_came_back_empty_is_archived_under_its_own_epoch(
    embedded: EmbeddedBroker, tmp_path: Path
) -> None:
    """Offsets that start again from 0 do not hide behind those of the life before."""
    ensure_topics(embedded.bootstrap, 1)
    with Publisher(embedded.bootstrap, 1) as publisher:
        publisher.publish_all(event(i) for i in range(20))
        publisher.flush()
        with archiving(embedded.bootstrap, tmp_path):
            wait_for(lambda: read(tmp_path), lambda found: len(found) == 20)
            embedded.restart()
            ensure_topics(embedded.bootstrap, 1)
            publisher.publish_all(event(i) for i in range(20, 30))
            publisher.flush()
            found = wait_for(lambda: read(tmp_path), lambda found: len(found) == 30, timeout_s=30)
    assert [m.offset for m in found] == [*range(20), *range(10)]


def test_a_directory_that_cannot_be_is_a_wrong_configuration(tmp_path: Path) -> None:
    """A file in the place of the archive's directory is named, with the setting to change."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"archive\.directory"):
        run_archive("127.0.0.1:1", tmp_path / "file" / "archive", partitions=1, stop=threading.Event())
