"""What the documents name exists: commands with options, files, modules, records; the configuration loads."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import typer.main

from ndtwin.cli import app
from ndtwin.config import Settings, load_settings
from twin import records

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ROOMS = "twin|collectors|anomaly|stream|ndtwin"
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def code(page: Path) -> Iterator[str]:
    """Every piece of code of a page: inline, and line by line where it is fenced."""
    text = page.read_text()
    for _, block in FENCED.findall(text):
        yield from block.replace("\\\n", " ").splitlines()
    yield from (found.replace("\n", " ") for found in re.findall(r"`([^`]+)`", FENCED.sub("", text)))


def told(page: Path) -> list[str]:
    """The command lines of a page, each from `ndtwin` on."""
    lines = (re.match(r"(?:\$ |sudo |\.venv/bin/)*(ndtwin [a-z].*)", line.strip()) for line in code(page))
    return [line[1] for line in lines if line]


def wrong(line: str) -> str:
    """What is wrong with a command line; nothing when every part of it exists."""
    words = shlex.split(line, comments=True)[1:]
    command = typer.main.get_command(app)
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        name = words.pop(0).rstrip(",")
        if name not in command.commands:
            return f"no command {name!r}" if name.islower() and name.isalpha() else ""
        command = command.commands[name]
    options = {option for one in command.params for option in one.opts}
    asked = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    return ", ".join(f"no option {option}" for option in sorted(asked - options - {"--help"}))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_command_lines_in_the_documents_are_understood(page: Path) -> None:
    """Every command with its subcommand and options, as written."""
    assert {line: why for line in told(page) if (why := wrong(line))} == {}


def test_the_readme_gives_commands_to_try() -> None:
    """The test above has something to test: the README's commands are found, and a wrong one is refused."""
    assert ".venv/bin/ndtwin lab fault start link-delay" in (ROOT / "README.md").read_text()
    assert "ndtwin lab fault start link-delay" in told(ROOT / "README.md")
    assert wrong("ndtwin lab fault begin") == "no command 'begin'"
    assert wrong("ndtwin replay --since T") == "no option --since"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_modules_and_records_that_the_documents_name_exist(page: Path) -> None:
    """``room/file.py``, ``room.module.name`` and ``Record.field``."""
    missing = []
    for name in code(page):
        if re.fullmatch(rf"(?:{ROOMS}|tests|docs|examples)(?:/[\w.-]+)+/?", name):
            missing += [] if (ROOT / name).exists() else [name]
        elif re.fullmatch(rf"(?:{ROOMS})(?:\.\w+)+(?:\(\))?", name):
            missing += [] if is_module(name.removesuffix("()")) or is_setting(name) else [name]
        elif re.fullmatch(r"[A-Z]\w+\.[a-z_]+", name) and hasattr(records, name.partition(".")[0]):
            record, _, field = name.partition(".")
            missing += [] if field in getattr(records, record).__struct_fields__ else [name]
    assert missing == []


def is_module(name: str) -> bool:
    """Whether a dotted name is a module, or is defined in one."""
    path = ROOT / name.replace(".", "/")
    if path.with_suffix(".py").exists() or path.is_dir():
        return True
    module = path.parent.with_suffix(".py")
    return module.exists() and re.search(rf"\b{path.name}\b", module.read_text()) is not None


def is_setting(name: str) -> bool:
    """Whether a dotted name is one of the configuration, such as ``twin.calibrate``."""
    section, _, key = name.partition(".")
    found = getattr(Settings(), section, None)
    return isinstance(found, msgspec.Struct) and key in found.__struct_fields__


def test_the_configuration_in_the_readme_loads(tmp_path: Path) -> None:
    """As written: names that do not exist are refused by the loader."""
    (block,) = [body for kind, body in FENCED.findall((ROOT / "README.md").read_text()) if kind == "toml"]
    file = tmp_path / "ndtwin.toml"
    file.write_text(block)
    config = load_settings(file, env={})
    assert not config.lab_enabled
    assert config.broker.bootstrap == "kafka1:9092,kafka2:9092"
