"""Records of many networks in, one StateUpdate a network and window out.

The pipeline is a :class:`stream.processor.Processor`. A StateUpdate's ``version`` is window end // window
length, so it is the same live, replayed and after a restart. Its ``offsets`` stay empty: where a window
closes depends on the order in which topics were read, and the update must not; the driver keeps offsets in
its checkpoint.

What does not fit goes out as DeadLetter, with the record's bytes: ``late`` (its window has closed; also
counted in the next update's quality) and ``future`` (event time more than the tolerance ahead of the
clock).
"""

from __future__ import annotations

import zlib

import msgspec

from stream.codec import encode
from stream.network import Input, NetworkRules, NetworkSnapshot, NetworkWindows
from stream.rates import RateRules
from stream.topics import BY_RECORD, key_of
from stream.windows import Verdict, WindowRules
from twin.errors import ConfigError, DecodeError
from twin.records import INPUT_RECORDS, DeadLetter, Record

_SNAPSHOT_FORMAT = 1
_REASONS = {
    Verdict.LATE: "late: the window it belongs to has closed",
    Verdict.FUTURE: "future: its event time is ahead of the log's clock; check the clock of who wrote it",
}


class PipelineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the stream is cut into windows. Defaults suit polls every 5 s."""

    window_s: float = 10.0
    lateness_s: float = 2.0
    settle_s: float = 0.5  # for a source's burst of records to be complete
    idle_timeout_s: float = 15.0
    future_tolerance_s: float = 60.0
    dormant_after_s: float = 600.0  # of silence of all sources: no more windows until one speaks
    prefer_snmp_s: float = 60.0  # NETCONF counters are used when SNMP was silent for longer
    min_coverage: float = 0.5  # of a window by poll intervals or flow bins
    max_interval_s: float = 120.0  # between two polls: a longer one says nothing about a window
    dedupe_s: float = 60.0  # how long after its window a record is still known again
    expire_after_s: float = 1800.0  # a device not heard of for longer leaves the graph
    keyframe_every: int = 6

    def __post_init__(self) -> None:
        if (
            min(self.window_s, self.idle_timeout_s - self.lateness_s, self.keyframe_every) <= 0
            or self.lateness_s < 0
        ):
            raise ConfigError(
                "pipeline: window_s and keyframe_every must be positive and lateness_s < idle_timeout_s"
            )

    def rules(self) -> NetworkRules:
        """The same in nanoseconds."""
        return NetworkRules(
            windows=WindowRules(
                length_ns=_ns(self.window_s),
                lateness_ns=_ns(self.lateness_s),
                settle_ns=_ns(self.settle_s),
                idle_ns=_ns(self.idle_timeout_s),
                future_ns=_ns(self.future_tolerance_s),
                dormant_ns=_ns(self.dormant_after_s),
            ),
            rates=RateRules(min_coverage=self.min_coverage, max_interval_ns=_ns(self.max_interval_s)),
            prefer_snmp_ns=_ns(self.prefer_snmp_s),
            dedupe_ns=_ns(self.dedupe_s),
            expire_ns=_ns(self.expire_after_s),
            keyframe_every=self.keyframe_every,
        )


class _Snapshot(msgspec.Struct, array_like=True):
    format: int
    settings: PipelineSettings
    now_ns: int
    networks: dict[str, NetworkSnapshot]


class NetworkPipeline:
    """The processor from input records to states."""

    def __init__(self, settings: PipelineSettings | None = None) -> None:
        self.settings = settings if settings is not None else PipelineSettings()
        self._rules = self.settings.rules()
        self._networks: dict[str, NetworkWindows] = {}
        self._now_ns = 0
        self.metrics: dict[str, float] = {"records": 0, "windows_closed": 0, "late": 0, "future": 0}

    def on_record(self, record: Record) -> list[Record]:
        """Take a record in; windows that it lets close go out, and the record itself when it does not fit."""
        if not isinstance(record, INPUT_RECORDS):
            return []
        network = self._networks.get(record.network)
        if network is None:
            network = self._networks[record.network] = NetworkWindows(record.network, self._rules)
        self.metrics["records"] += 1
        verdict = network.take(record, self._now_ns)
        refused: list[Record] = []
        if verdict is not Verdict.ACCEPTED:
            self.metrics[verdict.value] += 1
            refused.append(self._dead_letter(record, _REASONS[verdict]))
        return refused + self._close_due(network)

    def on_time(self, now_ns: int) -> list[Record]:
        """The log's clock moved; windows that it lets close go out. It never moves back."""
        self._now_ns = max(now_ns, self._now_ns)
        networks = (network for _, network in sorted(self._networks.items()))
        return [update for network in networks for update in self._close_due(network)]

    def _close_due(self, network: NetworkWindows) -> list[Record]:
        updates: list[Record] = list(network.close_due(self._now_ns))
        self.metrics["windows_closed"] += len(updates)
        return updates

    def _dead_letter(self, record: Input, reason: str) -> DeadLetter:
        return DeadLetter(
            source=BY_RECORD[type(record)].name,
            payload=encode(record),
            reason=reason,
            observed_at_ns=self._now_ns,
            key=key_of(record),
        )

    def snapshot(self) -> bytes:
        """All state. The networks' largest part, the devices' reports, is packed once, when it changes."""
        networks = {name: network.snapshot() for name, network in sorted(self._networks.items())}
        state = _Snapshot(_SNAPSHOT_FORMAT, self.settings, self._now_ns, networks)
        return zlib.compress(msgspec.msgpack.encode(state), 1)

    def restore(self, blob: bytes) -> None:
        """Become what :meth:`snapshot` described; DecodeError when it was of another format or settings."""
        try:
            state = msgspec.msgpack.decode(zlib.decompress(blob), type=_Snapshot)
        except (zlib.error, msgspec.MsgspecError) as error:
            raise DecodeError(f"pipeline snapshot is damaged or of another release: {error}") from error
        if (state.format, state.settings) != (_SNAPSHOT_FORMAT, self.settings):
            raise DecodeError("pipeline snapshot was taken with other settings: it starts afresh")
        self._now_ns = state.now_ns
        self._networks = {}
        for name, network in state.networks.items():
            self._networks[name] = NetworkWindows(name, self._rules)
            self._networks[name].restore(network)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
