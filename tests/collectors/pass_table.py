"""A `pass_persist` program for net-snmp's snmpd: serves the rows of a file, each "OID TYPE VALUE".

Protocol (snmpd.conf(5), PASS-THROUGH): PING is answered by PONG; get and getnext are followed by an OID and
answered by OID, type and value, each on a line, or by NONE.
"""

from __future__ import annotations

import bisect
import sys
from pathlib import Path

Oid = tuple[int, ...]


def read(path: Path) -> list[tuple[Oid, str, str]]:
    """The rows in the order of their OIDs."""
    rows = (line.split(" ", 2) for line in path.read_text().splitlines())
    return sorted((oid_of(oid), kind, value) for oid, kind, value in rows)


def oid_of(text: str) -> Oid:
    """Dotted text, with or without a leading dot."""
    return tuple(int(part) for part in text.strip(".").split("."))


def answer(rows: list[tuple[Oid, str, str]], command: str, asked: Oid) -> str:
    """What snmpd is told: the row asked for, or the one after it."""
    oids = [row[0] for row in rows]
    at = bisect.bisect_right(oids, asked) if command == "getnext" else bisect.bisect_left(oids, asked)
    if at == len(rows) or (command == "get" and oids[at] != asked):
        return "NONE"
    oid, kind, value = rows[at]
    return f".{'.'.join(map(str, oid))}\n{kind}\n{value}"


def main() -> None:
    """Answer until snmpd closes the pipe."""
    rows = read(Path(sys.argv[1]))
    for line in sys.stdin:
        command = line.strip().lower()
        reply = answer(rows, command, oid_of(sys.stdin.readline())) if command != "ping" else "PONG"
        print(reply, flush=True)


if __name__ == "__main__":
    main()
