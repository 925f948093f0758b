"""The repository tests itself: rooms, wheel, vocabulary, documents."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from ndtwin.schemas import documents

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {"twin", "collectors", "anomaly", "stream", "ndtwin"}


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_rooms_import_only_what_the_design_allows() -> None:
    """The import-linter contracts in pyproject.toml hold."""
    done = run(str(Path(sys.executable).with_name("lint-imports")), "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_vocabulary_imports_without_torch_and_numpy() -> None:
    """A collector can use twin.records without paying for the twin."""
    code = "import sys, twin.records; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'numba')))"
    assert run(sys.executable, "-c", code).returncode == 0


def test_the_help_needs_no_torch() -> None:
    """`ndtwin --help` does not load the model libraries."""
    code = "import sys, ndtwin.cli; sys.exit(any(m in sys.modules for m in ('torch', 'faust', 'nicegui')))"
    assert run(sys.executable, "-c", code).returncode == 0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    directory = tmp_path_factory.mktemp("wheel")
    done = run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(directory), ".")
    assert done.returncode == 0, done.stderr
    (file,) = directory.glob("ndtwin-*.whl")
    return zipfile.ZipFile(file).namelist()


def test_the_wheel_contains_exactly_the_five_packages(wheel: list[str]) -> None:
    """Nothing else lands at the top level of an installation."""
    assert {name.split("/")[0] for name in wheel if ".dist-info/" not in name} == ROOMS


def test_the_wheel_carries_weights_and_page(wheel: list[str]) -> None:
    """An installed ndtwin predicts and shows: checkpoint and page files are in the wheel."""
    assert any(name.startswith("twin/weights/") and not name.endswith(".py") for name in wheel)
    assert any(name.startswith("ndtwin/page/static/") for name in wheel)


def test_no_installed_distribution_owns_a_file_of_ours() -> None:
    """`stream` and `collectors` exist on PyPI; none of them is installed over ours."""
    from importlib.metadata import packages_distributions

    owners = packages_distributions()
    assert {room: set(owners.get(room, ["ndtwin"])) for room in ROOMS} == {room: {"ndtwin"} for room in ROOMS}


def test_every_dependency_is_fixed_by_the_constraints() -> None:
    """constraints.txt names a version for everything that pyproject.toml asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    fixed = {_name(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    assert {_name(requirement) for requirement in wanted} - fixed == set()


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower().replace("_", "-")


@pytest.mark.parametrize("name", sorted(documents()))
def test_the_schemas_are_generated_from_the_records(name: str) -> None:
    """docs/schemas is what `ndtwin schemas` writes today."""
    assert (ROOT / "docs" / "schemas" / name).read_text() == documents()[name], "run `ndtwin schemas`"


def test_every_reference_of_the_asyncapi_document_resolves() -> None:
    """No dangling $ref."""
    document = json.loads(documents()["asyncapi.json"])
    for reference in re.findall(r'"\$ref": "#/([^"]+)"', documents()["asyncapi.json"]):
        node = document
        for part in reference.split("/"):
            node = node[part.replace("~1", "/")]


def _markdown() -> list[Path]:
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("page", _markdown(), ids=lambda page: page.name)
def test_links_between_documents_lead_somewhere(page: Path) -> None:
    """Relative links and pictures in the documents exist."""
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_is_short() -> None:
    """A newcomer reads one screen, not a book."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160


def test_documents_name_only_commands_that_exist() -> None:
    """Every `ndtwin COMMAND` in the documents is a command."""
    from typer.main import get_command

    from ndtwin.cli import app

    known = set(get_command(app).commands)  # type: ignore[attr-defined]  # a click Group
    for page in [*_markdown(), ROOT / "Makefile"]:
        for command in re.findall(r"`(?:\$ )?ndtwin ([a-z-]+)", page.read_text()):
            assert command in known, f"{page.name} names `ndtwin {command}`"
