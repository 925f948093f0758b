"""What numba keeps of compiled code, and when it is compiled anew."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MODULES = {
    "constants.py": "STEP = 1\n",
    "deeper.py": "from constants import STEP\nfrom twin.compiled import compiled\n"
    "@compiled\ndef deep(x: int) -> int:\n    return x + STEP\n",
    "outer.py": "from deeper import deep\nfrom twin.compiled import compiled\n"
    "@compiled\ndef run(x: int) -> int:\n    return deep(x)\n",
    "use.py": "import outer\nprint(outer.run(1), sum(outer.run.stats.cache_misses.values()))\n",
}


def used(folder: Path) -> tuple[int, int]:
    """What a fresh process computes, and how many functions it compiled."""
    path = os.pathsep.join([str(folder), str(Path(__file__).parents[2])])
    environment = {**os.environ, "PYTHONPATH": path, "NUMBA_CACHE_DIR": str(folder / "kept")}
    said = subprocess.run(
        [sys.executable, str(folder / "use.py")], env=environment, capture_output=True, text=True, check=True
    )
    result, compiled = said.stdout.split()
    return int(result), int(compiled)


@pytest.mark.parametrize(
    ("file", "text", "result"),
    [
        ("constants.py", "STEP = 10\n", 11),
        ("deeper.py", MODULES["deeper.py"].replace("x + STEP", "x + 2 * STEP"), 3),
    ],
)
def test_what_changes_elsewhere_is_compiled_anew(tmp_path: Path, file: str, text: str, result: int) -> None:
    """A constant two files away, or a function of another file: both are compiled in."""
    for name, source in MODULES.items():
        (tmp_path / name).write_text(source)
    assert used(tmp_path) == (2, 1)
    assert used(tmp_path) == (2, 0)
    (tmp_path / file).write_text(text)
    assert used(tmp_path) == (result, 1)
    assert used(tmp_path) == (result, 0)
