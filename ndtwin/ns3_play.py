"""Play a scenario in ns-3, in a process of its own: ``python -m ndtwin.ns3_play SCENARIO``.

ns-3 has one simulation a process and no way back from a failed assertion, so nobody imports this; what the
file holds and what is said on stdout is told in ``ns3_network.cc``.

The wheel's own bindings (``from ns import ns``) read the headers of all modules, for half a minute. Here
cppyy compiles that one file against the few that it needs, so that no packet passes through Python.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import cppyy

MODULES = ("core", "network", "internet", "applications", "point-to-point")


def play(scenario: str) -> str:
    """What ns-3 says of a scenario."""
    spec = find_spec("ns3")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("ns3 is not installed")
    root = Path(spec.submodule_search_locations[0])
    cppyy.add_include_path(str(root / "include"))
    for module in MODULES:
        (library,) = (root / "lib64").glob(f"libns3*-{module}.so")
        cppyy.load_library(str(library))
    cppyy.cppdef(Path(__file__).with_name("ns3_network.cc").read_text(encoding="utf-8"))
    return str(cppyy.gbl.ndtwin.Play(scenario))


if __name__ == "__main__":
    sys.stdout.write(play(Path(sys.argv[1]).read_text(encoding="utf-8")))
