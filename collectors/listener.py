"""The flow listener: sockets that are never in the way, in front of the sans-IO decoder and aggregator.

Flow export is mostly UDP and nobody asks twice, so the receive buffer is as large as the kernel lets it be,
and every wake-up of the event loop empties it up to a bound of time. What cannot be decoded goes to
the dead letters with its bytes, bounded per second, and is one event of its exporter: a broken exporter must
not drown the topic. IPFIX over TCP is taken from exporters of the inventory alone, a few connections each.

Several processes may share the port (SO_REUSEPORT): the kernel keeps what comes from one address and port on
one of them, so a transport session and its templates stay together. Templates are kept in a file each, and
every process begins with what all of them knew.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from collectors.flows import cache
from collectors.flows.aggregate import FlowAggregator, Granularity
from collectors.flows.burst import Burst, feed_burst
from collectors.flows.decoder import Exporter, FlowSession
from collectors.flows.egress import EgressWatch
from collectors.flows.framing import Framer
from collectors.flows.settings import FlowDirection, FlowTable
from collectors.receive import SLOTS, Receiver, open_socket, plain_address, receiver_of, taken
from collectors.snmp.wire import message_id
from collectors.stats import CollectorStats
from twin.errors import DecodeError
from twin.records import DeadLetter, NetworkEvent, Record

PAUSE_S = 0.005  # between the first datagram and reading: the receive buffer holds a hundred times as much
MIN_AT_ONCE = 16  # datagrams, where some are hostile: one of 64 KiB may take 30 ms
MAX_DRAIN_S = 0.05  # per wake-up, about, so that polls get their turn
MAX_GATHERED = 16_384  # records; what is less is handed on at the next tick
MAX_LETTERS_PER_S = 20  # of strangers, and as many of exporters
MAX_COMPLAINTS = 1024  # unknown exporters of whom we told once
MAX_CONNECTIONS = 16  # TCP, per exporter
QUIET_NS = 60_000_000_000  # an exporter without faults for so long is told anew
TICK_S = 0.25
SAVE_S = 10.0
OLDEST_CACHE_NS = 3600 * 1_000_000_000  # an exporter has long changed or sent its templates again
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
LOG = "ndtwin.collect"
_IS_SNMP = "an SNMP message, not kept: it may hold a community. Have traps sent to the port of [traps]"


@dataclass(frozen=True)
class Share:
    """Which of several processes this one is, and where templates are kept (None: nowhere)."""

    worker: int = 0
    of: int = 1
    cache_directory: Path | None = None


class FlowListener:
    """Receives, decodes, aggregates, emits."""

    def __init__(
        self,
        network: str,
        devices: Mapping[str, str],
        emit: Callable[[Record], None],
        stats: CollectorStats,
        *,
        table: FlowTable | None = None,
        bin_ns: int,
        clock: Callable[[], int],
        share: Share | None = None,
        directions: Mapping[str, FlowDirection] | None = None,
    ) -> None:
        self._network = network
        self._devices = devices  # exporter address → device
        self._emit = emit
        self._stats = stats
        self._clock = clock
        self._table = table or FlowTable()
        self._share = share or Share()
        self._session = FlowSession()
        choice = Granularity(
            self._table.longest_prefix_v4, self._table.longest_prefix_v6, self._table.per_class
        )
        directions = directions or {}  # device → what the inventory says of its flowDirection
        self._flows = FlowAggregator(
            network,
            devices,
            bin_ns=bin_ns,
            granularity=choice,
            worker=self._share.worker,
            undirected=[name for name, choice in directions.items() if choice == "ignore"],
        )
        self._egress = EgressWatch(directions)
        self._lost_before: Counter[str] = Counter()
        self._unread_before: Counter[str] = Counter()
        self._letters: Counter[bool] = Counter()  # of this second, of strangers and of exporters
        self._letters_s = 0
        self._strangers: set[str] = set()
        self._faulty_ns: dict[str, int] = {}  # exporter → its last fault
        self._untemplated_ns: dict[str, int] = {}  # exporter → when it last left something unreadable
        self._connections: Counter[str] = Counter()
        self._at_once = SLOTS  # datagrams that are received together
        self._conversations: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Listen until cancelled."""
        _keep_memory()
        self._load()
        with open_socket(self._table.endpoint, shared=self._share.of > 1) as sock:
            server = await self._serve_tcp(sock.getsockname()[:2]) if self._table.tcp else None
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._read(sock))
                    group.create_task(self._keep_time())
            finally:
                if server is not None:
                    server.close()
                    await self._hang_up()
                self._save()

    async def _keep_time(self) -> None:
        saved_at_s = time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            self.tick()
            if self._session.changed and time.monotonic() - saved_at_s >= SAVE_S:
                saved_at_s = time.monotonic()
                self._save()

    # ------------------------------------------------------------------------------------ receiving

    async def _read(self, sock: socket.socket) -> None:
        """Wait for a datagram, let some more come, and read them all: many cost little more than one."""
        loop, readable, receiver = asyncio.get_running_loop(), asyncio.Event(), receiver_of(sock)
        while True:
            loop.add_reader(sock.fileno(), readable.set)
            try:
                await readable.wait()
            finally:
                loop.remove_reader(sock.fileno())
            readable.clear()
            await asyncio.sleep(PAUSE_S)
            self._drain(receiver)

    def _drain(self, receiver: Receiver) -> None:
        """Read until there is nothing or the time is up; fewer at once where they take long to read."""
        began_s = now_s = time.perf_counter()
        more = True
        while more and now_s - began_s < MAX_DRAIN_S:
            most = self._at_once
            more = self.take_in(receiver.receive(most)) == most
            before_s, now_s = now_s, time.perf_counter()
            if now_s - before_s > MAX_DRAIN_S:
                self._at_once = max(most // 4, MIN_AT_ONCE)
            elif now_s - before_s < MAX_DRAIN_S / 4:
                self._at_once = min(most * 2, SLOTS)
        if self._session.gathered_records >= MAX_GATHERED:
            self._take()

    def take_in(self, burst: Burst) -> int:
        """Everything of a burst; how many datagrams that were."""
        known = np.array([exporter[0] in self._devices for exporter in burst.exporters], dtype=bool)
        ours = None
        if not known.all():
            ours = np.flatnonzero(known[burst.senders])
            for k in np.flatnonzero(~known[burst.senders]).tolist():
                self.receive(burst.datagram(k), burst.sender(k))
        self._stats.datagrams += len(burst) if ours is None else len(ours)
        for k, error in feed_burst(self._session, burst, ours):
            self._fault(burst.datagram(k), burst.sender(k), error)
        return len(burst)

    def receive(self, message: bytes | memoryview, sender: Exporter) -> bool:
        """Take one datagram, or one message of a TCP stream; whether it could be decoded."""
        self._stats.datagrams += 1
        if sender[0] not in self._devices:
            self._stats.unknown_datagrams += 1
            self._tell_stranger(sender)
            self._dead_letter(message, sender, "exporter is not in the inventory", self._clock())
            return False
        try:
            self._session.feed(message, sender)
        except DecodeError as error:
            self._fault(message, sender, error)
            return False
        return True

    def _take(self) -> None:
        """Hand what was received on to be summed."""
        now_ns = self._clock()
        for batch in self._session.take():
            self._stats.flow_records += len(batch)
            self._flows.add(batch, now_ns)

    async def _serve_tcp(self, endpoint: tuple[str, int]) -> asyncio.Server:
        host, port = endpoint
        try:
            return await asyncio.start_server(
                self._connected, host, port, limit=65536, reuse_port=self._share.of > 1
            )
        except OSError as error:
            raise taken(endpoint, error, "tcp ") from error

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One exporter's connection, until it ends or sends what is no IPFIX (RFC 7011 section 10.4)."""
        task = asyncio.current_task()
        assert task is not None
        self._conversations.add(task)
        task.add_done_callback(self._conversations.discard)
        peer = writer.get_extra_info("peername")
        exporter = (plain_address(peer[0]), peer[1], "tcp")
        with contextlib.closing(writer):
            if exporter[0] not in self._devices:
                self._tell_stranger(exporter)
                return
            if self._connections[exporter[0]] >= MAX_CONNECTIONS:
                return
            _keep_alive(writer.get_extra_info("socket"))
            self._connections[exporter[0]] += 1
            try:
                await self._read_stream(reader, exporter)
            finally:
                self._connections[exporter[0]] -= 1
                self._take()
                self._session.forget(exporter)

    async def _hang_up(self) -> None:
        """End what goes on over TCP."""
        tasks = list(self._conversations)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read_stream(self, reader: asyncio.StreamReader, exporter: Exporter) -> None:
        framer = Framer()
        data = b"."
        while data:
            try:
                data = await reader.read(65536)
            except ConnectionError:  # the exporter restarted: as good as an end
                return
            try:
                if not all(self.receive(message, exporter) for message in framer.feed(data)):
                    return
            except DecodeError as error:
                self._fault(data, exporter, error)
                return
            if self._session.gathered_records >= MAX_GATHERED:
                self._take()

    # --------------------------------------------------------------------------------------- telling

    def tick(self) -> None:
        """Tell losses, and emit what is due."""
        self._take()
        now_ns = self._clock()
        for address, more in _growth(self._session.lost_records, self._lost_before):
            self._flows.lost(address, more)
            self._stats.lost_flow_records += more
            if more > 0:
                self._emit(
                    self._event(address, "sequence-gap", f"{more} flow records lost on the way", now_ns)
                )
        for address, more in _growth(self._session.unread_sets, self._unread_before):
            self._stats.unread_flow_sets += more
            self._flows.flawed(address, "flows-without-template", now_ns)
            if now_ns - self._untemplated_ns.get(address, -QUIET_NS) >= QUIET_NS:
                detail = (
                    "data sets could not be read: their templates have not come; have them sent more often"
                )
                self._emit(self._event(address, "flows-without-template", detail, now_ns))
            self._untemplated_ns[address] = now_ns
        for record in self._flows.close(now_ns):
            self._emit(record)
        self._tell_egress(now_ns)

    def _tell_egress(self, now_ns: int) -> None:
        """Count what flowDirection left out, and say whose records it leaves out by the half."""
        more, remarkable = self._egress.look(self._flows.directions())
        self._stats.egress_flow_records += more
        for device, told, left_out in remarkable:
            detail = (
                f"{left_out} of {told} flow records say that they leave (flowDirection 1): not counted; "
                'set flow_direction = "ignore" if it exports no packet twice, "trust" if it does'
            )
            _log().warning("exporter", device=device, problem=detail)
            self._emit(
                NetworkEvent(
                    network=self._network,
                    device=device,
                    observed_at_ns=now_ns,
                    kind="flows-egress",
                    detail=detail,
                )
            )

    def _fault(self, message: bytes | memoryview, sender: Exporter, error: DecodeError) -> None:
        """What cannot be decoded: counted, kept, and told once for as long as it goes on."""
        now_ns = self._clock()
        if message_id(bytes(message)) is not None:
            error = DecodeError(_IS_SNMP)
        self._stats.undecoded_datagrams += 1
        self._flows.flawed(sender[0], "flows-undecoded", now_ns)
        if now_ns - self._faulty_ns.get(sender[0], -QUIET_NS) >= QUIET_NS:
            problem = f"sends what cannot be decoded, kept as dead letters: {error}"
            _log().warning("exporter", exporter=f"{sender[0]}:{sender[1]}", problem=problem)
            self._emit(self._event(sender[0], "flows-undecoded", str(error), now_ns))
        self._faulty_ns[sender[0]] = now_ns
        self._dead_letter(message, sender, str(error), now_ns)

    def _tell_stranger(self, sender: Exporter) -> None:
        if sender[0] not in self._strangers and len(self._strangers) < MAX_COMPLAINTS:
            self._strangers.add(sender[0])
            problem = "no device with ipfix = true has its address: add it to the inventory"
            _log().warning("exporter", exporter=f"{sender[0]}:{sender[1]}", problem=problem)

    def _event(self, address: str, kind: str, detail: str, now_ns: int) -> NetworkEvent:
        return NetworkEvent(
            network=self._network,
            device=self._devices[address],
            observed_at_ns=now_ns,
            kind=kind,
            detail=detail,
        )

    def _dead_letter(self, message: bytes | memoryview, sender: Exporter, reason: str, now_ns: int) -> None:
        """Keep what could not be read; but for SNMP sent to the wrong port, which holds a community."""
        known, second = sender[0] in self._devices, now_ns // 1_000_000_000
        if self._letters_s != second:
            self._letters_s = second
            self._letters.clear()
        self._letters[known] += 1
        if self._letters[known] <= MAX_LETTERS_PER_S:
            source = f"{'tcp' if sender[2:] else 'udp'}:{sender[0]}:{sender[1]}"
            payload = bytes(message)
            if message_id(payload) is not None:
                payload, reason = b"", _IS_SNMP
            self._emit(DeadLetter(source=source, payload=payload, reason=reason, observed_at_ns=now_ns))

    # ------------------------------------------------------------------------------ templates on disk

    def _load(self) -> None:
        directory, now_ns = self._share.cache_directory, self._clock()
        for path in sorted(directory.glob("flow-templates-*.json")) if directory else []:
            try:
                if path.stat().st_size > cache.MAX_OCTETS:
                    raise DecodeError("it is too large")
                oldest_ns = now_ns - OLDEST_CACHE_NS
                cache.load(self._session, path.read_bytes(), now_ns, oldest_ns=oldest_ns, known=self._devices)
            except (OSError, DecodeError) as error:
                _log().warning("kept templates are not used", file=str(path), reason=str(error))

    def _save(self) -> None:
        """Write the file beside and put it in place: a crash leaves the old one."""
        directory = self._share.cache_directory
        if directory is None or not self._session.changed:
            return
        self._session.changed = False
        path = directory / f"flow-templates-{self._share.worker}.json"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            beside = path.with_suffix(".new")
            beside.write_bytes(cache.dump(self._session, self._clock()))
            beside.replace(path)
        except OSError as error:
            _log().warning("templates cannot be kept", file=str(path), reason=str(error))


def _growth(now: Counter[str], before: Counter[str]) -> list[tuple[str, int]]:
    """What changed since the last look, which ``before`` remembers."""
    grown = [(address, count - before[address]) for address, count in now.items() if count != before[address]]
    before.update(dict(grown))
    return grown


def _log() -> Any:
    return structlog.get_logger(LOG)


def _keep_memory() -> None:
    """Arrays come and go by the hundred a second: giving pages back each time costs more than the sums."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, 64 << 20)


def _keep_alive(connection: socket.socket) -> None:
    """An exporter that vanished without a word is noticed after some two hours and lets its place go."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
