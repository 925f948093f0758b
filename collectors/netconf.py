"""One device by NETCONF over SSH (RFC 6241, RFC 6242) → records.

The mapping is a pure function over XML (:mod:`collectors.netconf_models`); the session is bounded in time and
octets (:mod:`collectors.netconf_session`). ncclient blocks, so a poll runs in a thread of a bounded pool;
whoever calls sets the deadline, and a session that fails is thrown away. Notifications are gathered by the
session and read with the next poll: on the session itself where the device lets requests and notifications
share one (:interleave, RFC 5277 section 6), else on a second.

Every open session costs two threads here and one of the device's sessions, so only ``MOST_OPEN`` stay open
between polls; what is beyond logs in for every poll.

A NETCONF sample has no sysUpTime, and its discontinuity time is a date: ``discontinuity_at_ns`` counts from
the Unix epoch here. Only whether it moved matters, and the stream compares samples of one source.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import structlog

from collectors.inventory import Device, Inventory
from collectors.netconf_events import event_of
from collectors.netconf_models import (
    Model,
    Result,
    addresses_of,
    announced,
    delays_of,
    interfaces_of,
    neighbours_of,
    queues_of,
    results_of,
    routes_of,
)
from collectors.netconf_session import NetconfSession
from collectors.netconf_xml import parse_reply
from twin.records import (
    DelayReport,
    DeviceSample,
    DeviceTopology,
    InterfaceCounters,
    NetworkEvent,
    PathDelay,
    Record,
)

MOST_OPEN = 256
TOPOLOGY_NS = 30 * 10**9
STALE_NS = 300 * 10**9  # nothing tells how often a test runs; the usual ones do once a minute
_NOTIFICATION = "urn:ietf:params:netconf:capability:notification:1.0"
_INTERLEAVE = "urn:ietf:params:netconf:capability:interleave:1.0"
_log = structlog.get_logger("ndtwin.collect")


class OpenSessions:
    """How many sessions stay open between polls."""

    def __init__(self, most: int = MOST_OPEN) -> None:
        self._most = most
        self._holders: set[int] = set()
        self._lock = threading.Lock()

    def may_stay(self, holder: int) -> bool:
        """Whether a holder's session may stay open; a place once given is kept."""
        with self._lock:
            if len(self._holders) < self._most:
                self._holders.add(holder)
            return holder in self._holders


@dataclass(frozen=True)
class Reading:
    """What one poll gave."""

    sample: DeviceSample
    others: tuple[Record, ...] = ()  # topology and delays
    events: tuple[NetworkEvent, ...] = ()


def parse_interfaces(reply: bytes) -> tuple[InterfaceCounters, ...]:
    """An <rpc-reply> or <data> → its interfaces, by name; DecodeError when it is not what it should be."""
    return interfaces_of(parse_reply(reply))


@dataclass
class NetconfPoller:
    """Reads one device; ``read`` blocks, so call it in a thread."""

    network: str
    device: Device
    session: NetconfSession
    clock: Callable[[], int]
    tells_topology: bool = True  # false where SNMP tells it
    open_sessions: OpenSessions = field(default_factory=OpenSessions)
    _notifier: NetconfSession | None = None
    _models: tuple[Model, ...] = ()
    _topology_at_ns: int = 0
    _results: frozenset[Result] = frozenset()  # of probes, as last read
    _news_at_ns: int = 0

    @classmethod
    def of(
        cls,
        inventory: Inventory,
        device: Device,
        *,
        timeout_s: float,
        clock: Callable[[], int],
        open_sessions: OpenSessions | None = None,
    ) -> NetconfPoller:
        """The poller of a device that has ``netconf``."""
        assert device.netconf is not None, "callers pass devices with netconf"
        credentials = inventory.credentials[device.netconf.credentials]
        session = NetconfSession(
            address=device.address,
            port=device.netconf.port,
            credentials=credentials,
            known_hosts=inventory.path(credentials.host_key_file or "~/.ssh/known_hosts"),
            key_file=inventory.path(credentials.key_file) if credentials.key_file else None,
            timeout_s=timeout_s,
        )
        return cls(
            inventory.network,
            device,
            session,
            clock,
            tells_topology=device.snmp is None,
            open_sessions=open_sessions or OpenSessions(),
        )

    def sample(self) -> DeviceSample:
        """The sample of one poll."""
        return self.read().sample

    def read(self) -> Reading:
        """One poll. TimeoutError when silent, DeviceError when refused: the session is closed then."""
        try:
            if self.session.open():
                self._begin()
            events = tuple(self._events())
            sample, others = self._get()
        except Exception as error:
            explained = self.session.explain(error)
            self.close()
            raise explained from error
        if not self.open_sessions.may_stay(id(self)):
            self.close()
        return Reading(sample, others, events)

    def cut(self) -> None:
        """Break the connection from another thread: whatever ``read`` waits for fails at once."""
        for session in (self.session, self._notifier):
            if session is not None:
                session.cut()

    def close(self) -> None:
        """End the sessions, whatever state they are in."""
        self.session.close()
        if self._notifier is not None:
            self._notifier.close()
            self._notifier = None

    # ------------------------------------------------------------------ a new session

    def _begin(self) -> None:
        """What the device can tell, and its notifications where the inventory wants them."""
        assert self.device.netconf is not None
        told = self.session.capabilities
        self._models = announced(told)
        if not self.device.netconf.notifications or _NOTIFICATION not in told:
            return
        subscriber = self.session
        if _INTERLEAVE not in told:
            subscriber = self._notifier = replace(self.session, _manager=None, _socket=None)
            subscriber.open()
        if refusal := subscriber.subscribe():
            _log.warning("netconf-no-notifications", device=self.device.name, reason=refusal)

    # ------------------------------------------------------------------ reading

    def _events(self) -> Iterator[NetworkEvent]:
        source = self._notifier or self.session
        for notification in source.notifications():
            event = event_of(notification, self.network, self.device.name, self.clock())
            if event is not None:
                yield event

    def _get(self) -> tuple[DeviceSample, tuple[Record, ...]]:
        before_ns = self.clock()
        begin = time.perf_counter()
        topology = self.tells_topology and before_ns - self._topology_at_ns >= TOPOLOGY_NS
        filters = [one for model in self._models if topology or not model.topology for one in model.filters]
        reply = self.session.get(filters)
        observed_at_ns = (before_ns + self.clock()) // 2
        root = parse_reply(reply)
        found = interfaces_of(root)
        sample = DeviceSample(
            network=self.network,
            device=self.device.name,
            observed_at_ns=observed_at_ns,
            source="netconf",
            poll_duration_s=time.perf_counter() - begin,
            interfaces=found,
            queues=queues_of(root),
        )
        others: list[Record] = []
        if topology:
            self._topology_at_ns = before_ns
            others.append(
                DeviceTopology(
                    network=self.network,
                    device=self.device.name,
                    observed_at_ns=observed_at_ns,
                    source="netconf",
                    neighbours=neighbours_of(root, self.device.name),
                    addresses=addresses_of(root),
                    routes=routes_of(root),
                )
            )
        delays, results = delays_of(root, observed_at_ns, self._results), results_of(root)
        if delays or results:
            others.append(self._delay_report(delays, results, observed_at_ns))
        return sample, tuple(others)

    def _delay_report(
        self, delays: tuple[PathDelay, ...], results: frozenset[Result], observed_at_ns: int
    ) -> DelayReport:
        """No news is told too; and when there was none for so long that the tests must have stopped."""
        if results != self._results or delays:
            self._results, self._news_at_ns = results, observed_at_ns
        stale = observed_at_ns - self._news_at_ns > STALE_NS
        return DelayReport(
            network=self.network,
            device=self.device.name,
            observed_at_ns=observed_at_ns,
            method="openconfig-probes",
            direction="round-trip",
            delays=delays,
            quality=("delays-stale",) if stale else (),
        )
