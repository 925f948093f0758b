"""Talking to a lab that runs: what `ndtwin lab fault`, the drill and the doctor use."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path
from typing import Any

import msgspec

from ndtwin.lab.fault_records import FaultKind, FaultRecord
from twin.errors import PeerError, UsageError

SOCKET_NAME = "lab.sock"
TIMEOUT_S = 10.0


class Faults(msgspec.Struct, frozen=True):
    """What GET /faults tells."""

    kinds: list[FaultKind]
    active: list[FaultRecord]


class LabClient:
    """The lab of a run directory. PeerError when none runs there, UsageError when it refuses."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / SOCKET_NAME

    def status(self) -> dict[str, Any]:
        """What runs and whether it keeps up: ``lag_s``, ``network``, ``nodes``, …"""
        return msgspec.json.decode(self._ask("GET", "/status"), type=dict[str, Any])

    def faults(self) -> Faults:
        """The faults there are and those that are on."""
        return msgspec.json.decode(self._ask("GET", "/faults"), type=Faults)

    def start(self, fault: str, target: str | None = None, magnitude: float | None = None) -> FaultRecord:
        """Inject a fault; the lab chooses a target and a magnitude where none is given."""
        wish = msgspec.json.encode({"fault": fault, "target": target, "magnitude": magnitude})
        return msgspec.json.decode(self._ask("POST", "/faults", wish), type=FaultRecord)

    def stop(self, fault_id: str) -> FaultRecord:
        """Undo a fault."""
        return msgspec.json.decode(self._ask("DELETE", f"/faults/{fault_id}"), type=FaultRecord)

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        connection = _UnixConnection(self._path)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            absent = isinstance(error, FileNotFoundError | ConnectionRefusedError)  # the usual case
            raise PeerError(
                f"no lab answers in {self._path.parent}{'' if absent else f' ({error})'}: "
                "start `ndtwin up` or `ndtwin lab sim`, or name the run directory of one (--run-dir)"
            ) from error
        finally:
            connection.close()
        if response.status >= 400:
            raise _refusal(response.status, answer)
        return answer


def _refusal(status: int, answer: bytes) -> Exception:
    try:
        reason = msgspec.json.decode(answer, type=dict[str, str])["error"]
    except (msgspec.DecodeError, KeyError):
        return PeerError(f"the lab answered {status}: {answer[:200]!r}")
    return UsageError(reason)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("lab", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        """http.client's call."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
