"""STAMP over real sockets: prober and reflector, a relay that loses and delays, namespaces."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest
import structlog
from collector_peers import SECRETS, eventually

from collectors.inventory import Inventory, check_secrets, parse_inventory
from collectors.service import run_collectors
from collectors.stamp import sockets
from collectors.stamp.clock import STAMPING_ERROR_S, OwnClock
from collectors.stamp.prober import prober_of
from collectors.stamp.reflecting import ReflectorService
from collectors.stamp.reflector import Reflector, ReflectorSettings
from collectors.stamp.tables import probes_of
from collectors.stats import CollectorStats
from twin.errors import InventoryError
from twin.records import DelayReport, NetworkEvent, PathDelay, Record

S = 1_000_000_000
SYNCHRONISED = 'clock = "synchronised"'


@asynccontextmanager
async def reflecting(
    settings: ReflectorSettings | None = None, clock: OwnClock | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[ReflectorService]:
    """A reflector on a port of its own."""
    service = ReflectorService(Reflector(settings or ReflectorSettings()), clock or OwnClock("synchronised"))
    service.open([(host, 0, "")])
    stop = asyncio.Event()
    task = asyncio.create_task(service.run(stop))
    try:
        yield service
    finally:
        stop.set()
        await task


class Relay(asyncio.DatagramProtocol):
    """A real UDP hop: loses every n-th packet on the way there and back, and holds the others for a while."""

    def __init__(
        self, target: tuple[str, int], *, lose_there: int = 0, lose_back: int = 0, hold_s: float = 0.0
    ):
        self._target = target
        self._lose = {"there": lose_there, "back": lose_back}
        self._seen: defaultdict[str, int] = defaultdict(int)
        self._hold_s = hold_s
        self._client: tuple[str, int] | None = None
        self.lost: defaultdict[str, int] = defaultdict(int)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready."""
        self._transport = transport

    def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
        """Pass on, or lose."""
        way = "back" if source == self._target else "there"
        if way == "there":
            self._client = source
        self._seen[way] += 1
        if self._lose[way] and self._seen[way] % self._lose[way] == 0:
            self.lost[way] += 1
            return
        to = self._target if way == "there" else self._client
        asyncio.get_running_loop().call_later(self._hold_s, self._transport.sendto, data, to)  # type: ignore[attr-defined]  # a datagram transport


def inventory(
    port: int, probe: str = "", stamp: str = "", more: str = "", target: str = "127.0.0.1"
) -> Inventory:
    """WA probes NY, which reflects at a port."""
    return parse_inventory(
        f"""
network = "net"
{more}
[[devices]]
name = "WA"
address = "192.0.2.1"
ipfix = true
[[devices]]
name = "NY"
address = "{target}"
stamp = {{ port = {port}{stamp} }}
[ipfix]
listen = "127.0.0.1:0"
[[probes]]
source = "WA"
target = "*"
packets_per_s = 50.0
timeout_s = 0.3
{probe}
"""
    )


@asynccontextmanager
async def probing(
    known: Inventory, stats: CollectorStats | None = None, bin_s: float = 0.5
) -> AsyncIterator[list[Record]]:
    """The inventory's probes, running."""
    log: list[Record] = []
    prober = prober_of(known, probes_of(known), log.append, stats or CollectorStats(), bin_ns=int(bin_s * S))
    task = asyncio.create_task(prober.run())
    try:
        yield log
    finally:
        task.cancel()
        await asyncio.wait([task])


def delays(log: list[Record], direction: str, device: str = "WA") -> list[PathDelay]:
    """What was told of one device's paths that rests on packets."""
    reports = [
        r for r in log if isinstance(r, DelayReport) and (r.direction, r.device) == (direction, device)
    ]
    return [delay for report in reports for delay in report.delays if delay.count]


def events(log: list[Record]) -> list[str]:
    """Kinds of events, in order."""
    return [record.kind for record in log if isinstance(record, NetworkEvent)]


async def test_synchronised_clocks_give_both_directions() -> None:
    """WA tells its own path, and NY's back to it under NY's name with itself as reporter."""
    async with reflecting() as service, probing(inventory(service.addresses[0][1], SYNCHRONISED)) as log:
        await eventually(lambda: len(delays(log, "one-way", "NY")) >= 2)
    forward, backward = delays(log, "one-way")[0], delays(log, "one-way", "NY")[0]
    assert (forward.destination, backward.destination) == ("NY", "WA")
    assert 0 < forward.mean_s < 0.2
    assert forward.clock_synchronised is True
    assert forward.packet_bits == 128 * 8
    assert forward.error_s == pytest.approx(2 * STAMPING_ERROR_S, rel=0.05)
    assert {r.reporter for r in log if isinstance(r, DelayReport) and r.device == "NY"} == {"WA"}
    assert delays(log, "round-trip") == []
    by_time: defaultdict[int, set[str]] = defaultdict(set)
    for record in log:
        if isinstance(record, DelayReport):
            by_time[record.observed_at_ns].add(record.device)
    assert {"WA", "NY"} in by_time.values()  # one burst, one time


async def test_a_clock_that_is_not_synchronised_leaves_round_trips() -> None:
    """The same packets, told as round trips; and once, who lost its clock."""
    clock = OwnClock("synchronised")
    async with (
        reflecting(clock=clock) as service,
        probing(inventory(service.addresses[0][1], SYNCHRONISED)) as log,
    ):
        await eventually(lambda: delays(log, "one-way"))
        clock.state = "unsynchronised"
        await eventually(lambda: delays(log, "round-trip"))
        await eventually(lambda: "clock-unsynchronised" in events(log))
    trip = delays(log, "round-trip")[-1]
    assert (trip.destination, trip.clock_synchronised) == ("NY", False)
    told = [r.device for r in log if isinstance(r, NetworkEvent)]
    assert told == ["NY"]


async def test_losses_are_told_by_direction_and_delay_is_what_the_relay_adds() -> None:
    """Every 5th packet lost on the way there, every 7th on the way back, 20 ms each way."""
    async with reflecting() as service:
        loop = asyncio.get_running_loop()
        relay = Relay(service.addresses[0], lose_there=5, lose_back=7, hold_s=0.02)
        transport, _ = await loop.create_datagram_endpoint(lambda: relay, local_addr=("127.0.0.1", 0))
        port = transport.get_extra_info("sockname")[1]
        async with probing(inventory(port, SYNCHRONISED, ", stateful = true")) as log:
            await eventually(lambda: len(delays(log, "one-way")) >= 4)
        transport.close()
    told = delays(log, "one-way")
    sent, came = sum(d.sent or 0 for d in told), sum(d.count for d in told)
    forward, backward = (sum(getattr(d, f"lost_{way}") or 0 for d in told) for way in ("forward", "backward"))
    assert forward == pytest.approx(sent / 5, abs=2)
    assert backward == pytest.approx((sent - forward) / 7, abs=2)
    assert sent - came == pytest.approx(forward + backward, abs=3)  # the last bin's end is not told yet
    assert min(d.min_s or 0.0 for d in told) >= 0.02
    assert sum(d.lost or 0 for d in told) == forward
    assert sum(d.lost or 0 for d in delays(log, "one-way", "NY")) == backward


async def test_classes_flows_and_sizes_are_as_the_inventory_says() -> None:
    """Two classes over three source ports; the reflector sees the DSCP and answers in it."""
    seen: set[tuple[int, int]] = set()

    class Watching(Reflector):
        def reflect(self, datagram, arrival, clock):  # type: ignore[no-untyped-def]  # only looks
            seen.add((arrival.dscp, arrival.source[1]))
            return super().reflect(datagram, arrival, clock)

    service = ReflectorService(Watching(ReflectorSettings()), OwnClock("synchronised"))
    service.open([("127.0.0.1", 0, "")])
    stop = asyncio.Event()
    task = asyncio.create_task(service.run(stop))
    probe = f"classes = [0, 46]\nflows = 3\npacket_octets = 400\n{SYNCHRONISED}"
    async with probing(inventory(service.addresses[0][1], probe)) as log:
        await eventually(lambda: {d.traffic_class for d in delays(log, "one-way")} == {0, 46})
        await eventually(lambda: len(seen) == 6)
    stop.set()
    await task
    assert {dscp for dscp, _ in seen} == {0, 46}
    told = delays(log, "one-way")
    assert {d.packet_bits for d in told} == {3200.0}
    assert max(d.flows for d in told) == 3
    assert all("class-remarked" not in d.quality for d in told)


async def test_authenticated_over_ipv6_from_the_wildcard() -> None:
    """The reflector answers from the address it was asked at, or the connected sender would hear nothing."""
    if not socket.has_ipv6 or not _has_ipv6_loopback():
        pytest.skip("no IPv6 on this machine's loopback")
    key = SECRETS["T_AUTH"].encode()
    more = '[credentials.probes]\nauth_key = "env:T_AUTH"'
    async with reflecting(ReflectorSettings(key=key), host="::") as service:
        known = inventory(
            service.addresses[0][1], SYNCHRONISED, ', credentials = "probes"', more, target="::1"
        )
        check_secrets(known)
        async with probing(known) as log:
            await eventually(lambda: delays(log, "one-way"))
        assert delays(log, "one-way")[0].packet_bits == (112 + 48) * 8


async def test_the_ipv4_wildcard_answers_from_the_address_that_was_asked() -> None:
    """127.0.0.9 is asked, and 127.0.0.9 answers."""
    async with (
        reflecting(host="0.0.0.0") as service,
        probing(inventory(service.addresses[0][1], target="127.0.0.9")) as log,
    ):
        await eventually(lambda: delays(log, "round-trip") or delays(log, "one-way"))


async def test_a_wrong_key_is_silence_for_us_and_a_number_for_them() -> None:
    """Nothing is answered, the target is told as silent once, no secret in any record."""
    more = '[credentials.probes]\nauth_key = "env:T_WRONG"'
    stats = CollectorStats()
    async with reflecting(ReflectorSettings(key=b"the right one")) as service:
        known = inventory(service.addresses[0][1], stamp=', credentials = "probes"', more=more)
        async with probing(known, stats) as log:
            await eventually(lambda: "probe-silent" in events(log))
            await asyncio.sleep(1.2)
        assert service.reflector.counts["unsigned"] >= 20
        assert service.reflector.sessions == 0
        with structlog.testing.capture_logs() as lines:
            for _ in range(3):
                service.complain(time.monotonic() + 100)
    assert [(line["reason"][:7], line["packets"] >= 20) for line in lines] == [("no HMAC", True)]
    assert events(log) == ["probe-silent"]
    assert stats.silent == {"WA->NY/stamp"}
    assert SECRETS["T_WRONG"] not in repr(log)


async def test_replies_that_are_not_signed_are_silence_with_its_reason() -> None:
    """We have a key and they have none: what they send back is not believed, and that is said once."""
    more = '[credentials.probes]\nauth_key = "env:T_AUTH"'
    async with reflecting() as service:
        port, classes = service.addresses[0][1], f"classes = {list(range(7))}"
        known = inventory(port, classes, stamp=', credentials = "probes"', more=more)
        async with probing(known) as log:
            await eventually(lambda: "probe-silent" in events(log))
            await asyncio.sleep(1.2)
    told = [record.detail for record in log if isinstance(record, NetworkEvent)]
    assert "WA->NY: replies that are not to be believed" in told[0]
    assert "malformed" in told[0]
    assert len(told) <= 3  # seven probes, one event for all that fell silent in one bin


async def test_a_target_without_listener_is_told_and_its_return_too() -> None:
    """ICMP's port unreachable is heard; losses are counted; the probe goes on at its rate."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    stats = CollectorStats()
    async with probing(inventory(port), stats) as log:
        await eventually(lambda: "probe-silent" in events(log))
        service = ReflectorService(Reflector(ReflectorSettings()), OwnClock())
        service.open([("127.0.0.1", port, "")])
        stop = asyncio.Event()
        task = asyncio.create_task(service.run(stop))
        await eventually(lambda: "probe-back" in events(log))
        stop.set()
        await task
    silent = next(r for r in log if isinstance(r, NetworkEvent))
    assert "nobody listens" in silent.detail
    lost = [d for r in log if isinstance(r, DelayReport) for d in r.delays if not d.count and d.sent]
    assert lost[0].lost == lost[0].sent
    assert "no-listener" in lost[0].quality
    assert stats.metrics()["probes_sent"] > 0


async def test_a_probe_that_cannot_be_sent_yet_harms_nobody_and_goes_when_it_can() -> None:
    """A source address that is not there: told with the reason, tried again; the probe beside it runs."""
    async with reflecting() as service:
        port = service.addresses[0][1]
        wrong = (
            '[[probes]]\nsource = "WA"\ntarget = "NY"\nclasses = [8]\nclock = "unsynchronised"\n'
            'source_address = "192.0.2.77"'
        )
        known = inventory(port, SYNCHRONISED + "\n" + wrong)
        prober = prober_of(known, probes_of(known), (log := []).append, CollectorStats(), bin_ns=S // 2)
        task = asyncio.create_task(prober.run())
        await eventually(lambda: delays(log, "one-way") and "probe-silent" in events(log))
        silent = next(r for r in log if isinstance(r, NetworkEvent))
        assert "UDP 192.0.2.77:0 to 127.0.0.1" in silent.detail
        mended = msgspec.structs.replace(prober.lanes[1].probe.table, source_address="127.0.0.5")
        prober.lanes[1].probe = msgspec.structs.replace(prober.lanes[1].probe, table=mended)
        await eventually(lambda: "probe-back" in events(log) and delays(log, "round-trip"))
        task.cancel()
        await asyncio.wait([task])
    assert {delay.traffic_class for delay in delays(log, "round-trip")} == {8}


async def test_a_standstill_of_the_program_is_a_gap_and_no_flood() -> None:
    """The event loop is held up for a second: what was due is skipped, and said to be."""
    stats = CollectorStats()
    async with reflecting() as service, probing(inventory(service.addresses[0][1]), stats) as log:
        await eventually(lambda: delays(log, "round-trip") or delays(log, "one-way"))
        before = stats.probes.sent
        time.sleep(1.0)  # noqa: ASYNC251  # the very thing that is tested
        await asyncio.sleep(0.25)
        assert stats.probes.sent - before < 30
        await eventually(
            lambda: any("probe-gap" in d.quality for r in log if isinstance(r, DelayReport) for d in r.delays)
        )
    assert stats.metrics()["probes_skipped"] >= 20


async def test_the_collector_runs_the_probes_that_are_its_own() -> None:
    """`ndtwin collect` probes beside its polls, but for what is marked remote."""
    log: list[Record] = []
    stop, stats = asyncio.Event(), CollectorStats()
    async with reflecting() as service:
        port = service.addresses[0][1]
        remote = '[[probes]]\nsource = "NY"\ntarget = "*"\nremote = true'
        with pytest.raises(InventoryError):
            inventory(port, '[[probes]]\nsource = "WA"\ntarget = "WA"')
        known = inventory(port, SYNCHRONISED + "\n" + remote)
        task = asyncio.create_task(
            run_collectors(known, log.append, poll_s=1.0, window_s=1.0, stop=stop, stats=stats)
        )
        await eventually(lambda: delays(log, "one-way") and stats.probes.received)
        stop.set()
        await task
    assert {r.device for r in log if isinstance(r, DelayReport)} == {"WA", "NY"}
    assert stats.metrics()["probes_received"] > 0


def _has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


# ---------------------------------------------------------------------------------------------- inventory


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"probe": 'source_address = "here"'}, "source_address: 'here' is not an IP address"),
        ({"probe": "packets_per_s = 1000.0"}, "packets_per_s"),
        ({"probe": "packet_octets = 9000"}, "bit/s to one target"),
        ({"probe": "flows = 0"}, "flows: 0 is out of range: use 1 to 16"),
        ({"probe": "classes = [64]"}, "classes: are DSCPs from 0 to 63"),
        ({"probe": "colour = 1"}, "unknown key `colour`"),
        ({"stamp": ', credentials = "x"'}, "no set 'x'"),
        (
            {"stamp": ', credentials = "x"', "more": '[credentials.x]\ncommunity = "env:T"'},
            "STAMP needs auth_key",
        ),
        ({"port": 0}, "0 is no port"),
    ],
)
def test_every_mistake_in_the_tables_is_one_clear_line(change: dict[str, object], problem: str) -> None:
    """The place, what is wrong, what to do."""
    probe = str(change.get("probe", ""))
    arguments = {"port": 862, **change}
    if "packets_per_s" in probe:  # written once only
        with pytest.raises(InventoryError, match=re.escape(problem)):
            parse_inventory(_flooding(probe))
        return
    with pytest.raises(InventoryError, match=re.escape(problem)) as failure:
        inventory(**arguments)  # type: ignore[arg-type]  # a table's row
    assert "\n" not in str(failure.value)


def _flooding(rate: str) -> str:
    return f"""
network = "net"
[[devices]]
name = "WA"
address = "192.0.2.1"
stamp = {{}}
[[devices]]
name = "NY"
address = "192.0.2.2"
stamp = {{}}
[[probes]]
source = "WA"
target = "NY"
{rate}
"""


def test_all_of_a_sender_s_probes_together_are_bounded() -> None:
    """Many modest probes are a flood too."""
    rows = "".join(
        f'[[devices]]\nname = "N{i}"\naddress = "192.0.2.{i + 10}"\nstamp = {{}}\n' for i in range(60)
    )
    text = _flooding("packets_per_s = 50.0").replace('target = "NY"', 'target = "*"\nclasses = [0, 46]')
    with pytest.raises(InventoryError, match=r"WA sends 6100 packets/s in all: 5000 are the most"):
        parse_inventory(text.replace("[[probes]]", rows + "[[probes]]"))


def test_a_namespace_that_is_not_there_is_one_line() -> None:
    """And our own namespace is left as it was."""
    before = os.readlink("/proc/self/ns/net")
    with pytest.raises(InventoryError, match="network namespace 'no-such' cannot be entered"):
        sockets.open_socket(("127.0.0.1", 0), netns="no-such")
    assert os.readlink("/proc/self/ns/net") == before


# ------------------------------------------------------------------------------------- network namespaces


@pytest.mark.live
@pytest.mark.alone
def test_one_process_measures_from_within_namespaces(need_tool: Callable[[str], str]) -> None:
    """A prober outside sends from one namespace to a reflector in another; both sockets are made inside."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    ip = need_tool("ip")
    a, b = f"ndt-a{os.getpid()}", f"ndt-b{os.getpid()}"
    steps = [
        f"netns add {a}",
        f"netns add {b}",
        f"link add va netns {a} type veth peer name vb netns {b}",
        f"-n {a} addr add 192.0.2.1/24 dev va",
        f"-n {b} addr add 192.0.2.2/24 dev vb",
        f"-n {a} link set va up",
        f"-n {b} link set vb up",
    ]
    try:
        for step in steps:
            made = subprocess.run([ip, *step.split()], capture_output=True, text=True, check=False)
            if made.returncode and "netns add" in step:
                pytest.skip(f"no network namespaces here: {made.stderr.strip()}")
            assert made.returncode == 0, made.stderr
        asyncio.run(_between(a, b))
    finally:
        for name in (a, b):
            subprocess.run([ip, "netns", "del", name], capture_output=True, check=False)


async def _between(a: str, b: str) -> None:
    service = ReflectorService(Reflector(ReflectorSettings()), OwnClock("synchronised"))
    service.open([("0.0.0.0", 862, b)])
    stop = asyncio.Event()
    task = asyncio.create_task(service.run(stop))
    known = inventory(862, f'netns = "{a}"\n{SYNCHRONISED}', target="192.0.2.2")
    async with probing(known) as log:
        await eventually(lambda: delays(log, "one-way"))
    stop.set()
    await task
