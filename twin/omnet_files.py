"""Finding the OMNeT++ records in folders and archives, without unpacking anything to disk.

A *data folder* holds ``graphs/``, ``routings/`` and results, each a ``results_*.tar.gz`` or the folder that
comes out of one. Data folders lie anywhere in a *container*, which is a folder or an archive. An archive is
read twice from its beginning: the members come in any order, and a record needs its graph and its routing.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import IO

from twin.errors import DataError

NEEDED = ("input_files.txt", "traffic.txt", "simulationResults.txt", "linkUsage.txt", "stability.txt")
RESULT_FILES = (*NEEDED, "flowSimulationResults.txt")
_ARCHIVES = (".tar.gz", ".tgz", ".tar")


@dataclass(frozen=True)
class Part:
    """A file of a container."""

    path: PurePosixPath
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Results:
    """The text files of one results folder, line i of each about record i."""

    name: str  # path of the results folder
    folder: PurePosixPath  # the data folder
    lines: dict[str, list[str]]  # file name → lines


def containers(path: Path) -> Iterator[Path]:
    """The archives of a folder, 75 before 100, then the folder itself; or the one archive."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if path.is_dir():
        yield from (file for file in _files(path) if is_archive(file.name) and not _is_results(file))
    elif not is_archive(path.name):
        raise DataError(f"{path} is neither a folder nor a .tar.gz: is it the OMNeT++ format?")
    yield path


def companions(container: Path) -> dict[PurePosixPath, str]:
    """The text of every graph and routing of a container."""
    return {
        part.path: text_of(part.read())
        for part in _parts(container)
        if part.path.parent.name in {"graphs", "routings"}
    }


def results(container: Path) -> Iterator[Results]:
    """All results of a container, archive after archive."""
    for folder, group in groupby(_parts(container), key=lambda part: part.path.parent):
        loose: dict[str, list[str]] = {}
        for part in group:
            if _is_results(part.path):
                yield from _packed(f"{container}: {part.path}", folder, part.read())
            elif part.path.name in RESULT_FILES:
                loose[part.path.name] = _lines(part.read())
        if loose:
            yield Results(str(folder), folder.parent, loose)


def is_archive(name: str) -> bool:
    """Whether a file's name is that of an archive."""
    return name.endswith(_ARCHIVES)


def text_of(content: bytes) -> str:
    """Bytes as text; what is no UTF-8 fails later, as a number or a word that is none."""
    return content.decode("utf-8", errors="replace")


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn what a truncated or foreign archive raises into one line that names it."""
    try:
        yield
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{where} is truncated or no archive: {' '.join(str(error).split())}") from None


def _is_results(path: Path | PurePosixPath) -> bool:
    return path.name.startswith("results") and is_archive(path.name)


def _packed(where: str, folder: PurePosixPath, content: bytes) -> Iterator[Results]:
    """The results folders inside one results archive."""
    with reading(where):
        parts = [(part.path, part.read()) for part in _members(where, io.BytesIO(content))]
    for inner, group in groupby(parts, key=lambda part: part[0].parent):
        lines = {path.name: _lines(text) for path, text in group if path.name in RESULT_FILES}
        if lines:
            yield Results(str(folder / inner.name), folder, lines)


def _parts(container: Path) -> Iterator[Part]:
    if container.is_dir() or _is_results(container):
        root, files = _loose(container)
        for file in files:
            yield Part(PurePosixPath(file.relative_to(root)), partial(_guarded, str(file), file.read_bytes))
    else:
        with reading(str(container)), container.open("rb") as opened:
            yield from _members(str(container), opened)


def _loose(container: Path) -> tuple[Path, list[Path]]:
    """A data folder and its files; of one results archive or folder: itself, and the graphs beside it."""
    if not _is_results(container) and not (container / "traffic.txt").exists():
        files = [file for file in _files(container) if not is_archive(file.name) or _is_results(file)]
        return container, [file for file in files if not _unpacked(file).is_dir()]
    root = container.parent
    own = _files(container) if container.is_dir() else [container]
    return root, [*own, *_files(root / "graphs"), *_files(root / "routings")]


def _members(where: str, file: IO[bytes]) -> Iterator[Part]:
    """The files of an archive in their order; each is to be read before the next is asked for."""
    with tarfile.open(fileobj=file, mode="r:*") as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isfile() else None
            if stream is not None:
                yield Part(
                    PurePosixPath(member.name), partial(_guarded, f"{where}: {member.name}", stream.read)
                )


def _guarded(where: str, read: Callable[[], bytes]) -> bytes:
    with reading(where):
        return read()


def _unpacked(archive: Path) -> Path:
    """The folder that comes out of a results archive."""
    return archive.with_name(archive.name.split(".")[0])


def _files(folder: Path) -> list[Path]:
    """All files below a folder, in an order people expect: 75 before 100."""
    found = [Path(parent) / name for parent, _, names in os.walk(folder) for name in names]
    return sorted(found, key=lambda file: [_number_first(word) for word in re.split(r"(\d+)", str(file))])


def _number_first(word: str) -> tuple[int, str]:
    return (int(word), "") if word.isdecimal() else (-1, word)


def _lines(content: bytes) -> list[str]:
    return text_of(content).rstrip("\n").split("\n")
