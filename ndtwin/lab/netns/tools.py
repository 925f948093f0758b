"""The programs that a lab in namespaces is made of, their Debian packages, and how to run them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from twin.errors import PeerError, UsageError

SEARCH_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/lib/frr"
PACKAGES = (  # a program, or a pattern of the file that matters → Debian package
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("zebra", "frr"),
    ("ospfd", "frr"),
    ("/usr/lib/*/frr/modules/ospfd_snmp.so", "frr-snmp"),
    ("snmpd", "snmpd"),
    ("snmpset", "snmp"),
    ("lldpd", "lldpd"),
    ("softflowd", "softflowd"),
    ("sshd", "openssh-server"),
    ("netconfd", "netconfd"),
    ("/usr/lib/*/yuma/libietf-interfaces.so", "netconfd-module-ietf-interfaces"),
)
TIMEOUT_S = 30.0


def missing_packages(wanted: Iterable[tuple[str, str]] = PACKAGES) -> list[str]:
    """Debian packages that are not installed, in order."""
    return list(dict.fromkeys(package for name, package in wanted if not _found(name)))


def _found(name: str) -> bool:
    if name.startswith("/"):
        return any(Path("/").glob(name[1:]))
    return shutil.which(name, path=SEARCH_PATH) is not None


def check_ready(user: int | None = None, wanted: Iterable[tuple[str, str]] = PACKAGES) -> None:
    """UsageError in one line when this machine or this user cannot run the lab."""
    if (os.geteuid() if user is None else user) != 0:
        raise UsageError("ndtwin lab netns makes network namespaces: run it as root, or use ndtwin lab sim")
    if missing := missing_packages(wanted):
        raise UsageError(f"not installed: apt-get install {' '.join(missing)}")


def program(name: str) -> str:
    """The path of a program that :func:`check_ready` found."""
    path = shutil.which(name, path=SEARCH_PATH)
    if path is None:
        raise UsageError(f"{name} is not installed: see ndtwin doctor")
    return path


def environment(**own: str) -> Mapping[str, str]:
    """For programs that look for others."""
    return {"PATH": SEARCH_PATH, **own}


def run(
    *argv: str, lines: Iterable[str] = (), check: bool = True, env: Mapping[str, str] | None = None
) -> str:
    """Run a program that ends by itself, with lines on its standard input; PeerError with what it said."""
    done = subprocess.run(
        [program(argv[0]), *argv[1:]],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env=env,
    )
    if check and done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise PeerError(f"{' '.join(argv)} failed: {said[0] if said else f'exit code {done.returncode}'}")
    return done.stdout


def batch(command: str, space: str, lines: Iterable[str]) -> None:
    """Many ``ip`` or ``tc`` commands at once inside a namespace; an empty name: our own."""
    inside = ("-n", space) if space else ()
    run(command, *inside, "-batch", "-", lines=lines)
