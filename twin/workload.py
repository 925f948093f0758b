"""What enters the network: flows, the sizes of their packets, and when those packets arrive.

An arrival process is a *gap* process run on a stretched clock. The gap (exponential: Poisson; constant: CBR;
exponential and correlated; or out of a trace) is counted in mean gaps, and the clock runs at pps · level(t).
Level 1 for ever gives plain Poisson or CBR; a level that jumps between two values gives on-off traffic (the
interrupted Poisson process) and the two-state MMPP; one that is redrawn from a lognormal law gives
autocorrelated traffic with any burstiness. The time average of every level is 1, so ``pps`` is always the
mean rate.

Fischer and Meier-Hellstern, "The Markov-modulated Poisson process (MMPP) cookbook", Performance Evaluation
18, 1993. Cario and Nelson, "Autoregressive to anything: time-series input processes for simulation",
Operations Research Letters 19, 1996. Ferriol-Galmés et al., "RouteNet-Erlang", INFOCOM 2022, whose
autocorrelated exponentials are the same process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from math import erfc, factorial, inf, isfinite, log, pi, sqrt

import numpy as np

from twin.errors import TopologyError
from twin.scheduling import CLASSES


def check_positive(what: str, value: float, unit: str) -> None:
    """Refuse zero, negative, infinite and NaN values."""
    if not (isfinite(value) and value > 0):
        raise TopologyError(f"{what} is {value} {unit}: give a positive number")


def check_not_negative(what: str, value: float, unit: str) -> None:
    """Refuse negative, infinite and NaN values."""
    if not (isfinite(value) and value >= 0):
        raise TopologyError(f"{what} is {value} {unit}: give zero or a positive number")


@dataclass(frozen=True)
class PacketSizes:
    """Packet sizes in whole bits: a table of (size, probability), exponential with a mean, or a sequence."""

    bits: tuple[int, ...]
    probabilities: tuple[float, ...]
    exponential: bool = False
    in_order: bool = False

    def __post_init__(self) -> None:
        if not self.bits or len(self.bits) != len(self.probabilities):
            raise TopologyError("packet sizes need one probability for every size")
        for bits, share in zip(self.bits, self.probabilities, strict=True):
            check_positive("packet size", bits, "bit")
            check_not_negative("probability of a packet size", share, "")
        if abs(sum(self.probabilities) - 1) > 1e-9:
            raise TopologyError(f"probabilities of packet sizes sum to {sum(self.probabilities)}: make it 1")
        if max(self.bits) > 2**24:
            raise TopologyError(f"packet size {max(self.bits)} bit: no packet is longer than 2 MiB")

    @classmethod
    def fixed(cls, bits: float) -> PacketSizes:
        """Every packet has ``bits`` bits."""
        return cls.discrete([bits], [1.0])

    @classmethod
    def bimodal(cls, small_bits: float, large_bits: float, small_share: float = 0.5) -> PacketSizes:
        """Two sizes: acknowledgements and full frames."""
        return cls.discrete([small_bits, large_bits], [small_share, 1 - small_share])

    @classmethod
    def discrete(cls, bits: Sequence[float], probabilities: Sequence[float]) -> PacketSizes:
        """Any table of sizes."""
        for size in bits:
            check_positive("packet size", size, "bit")
        return cls(tuple(max(1, round(size)) for size in bits), tuple(map(float, probabilities)))

    @classmethod
    def of_mean(cls, mean_bits: float) -> PacketSizes:
        """Exponential sizes, rounded up to whole bits: what M/M/1 assumes."""
        check_positive("mean packet size", mean_bits, "bit")
        return cls((round(mean_bits),), (1.0,), exponential=True)

    @classmethod
    def sequence(cls, bits: Sequence[float]) -> PacketSizes:
        """These sizes one after the other, over and over: those of a recorded trace."""
        table = cls.discrete(bits, [1 / len(bits)] * len(bits)) if bits else cls((), ())
        return cls(table.bits, table.probabilities, in_order=True)

    @property
    def mean_bits(self) -> float:
        """Mean size."""
        return sum(size * share for size, share in zip(self.bits, self.probabilities, strict=True))

    @property
    def squared_variation(self) -> float:
        """Variance over squared mean (cs²): what Pollaczek and Khinchine ask for."""
        if self.exponential:
            return 1.0
        second = sum(size**2 * share for size, share in zip(self.bits, self.probabilities, strict=True))
        return second / self.mean_bits**2 - 1


@dataclass(frozen=True)
class Modulation:
    """The law of the level: two states (values, mean stays), or lognormal (sigma, mean stay), or none."""

    kind: int = 0  # 0 none, 1 two states, 2 lognormal
    levels: tuple[float, float] = (1.0, 1.0)
    stays_s: tuple[float, float] = (inf, inf)
    sigma: float = 0.0
    opening_pps: float = 0.0  # of the packets that open the times in the first state


@dataclass(frozen=True)
class Gaps:
    """The law of the gaps: exponential, constant, exponential and correlated, or a trace in mean gaps."""

    kind: int = 0  # in the order just told: twin.simulator_records
    memory: float = 0.0  # of the normal process behind correlated gaps
    trace: tuple[float, ...] = ()
    repeat: bool = False


@dataclass(frozen=True)
class Poisson:
    """Independent arrivals: exponential gaps."""

    gaps = Gaps()

    @property
    def modulation(self) -> Modulation:
        """None."""
        return Modulation()


@dataclass(frozen=True)
class Cbr:
    """Equal gaps from a random phase."""

    gaps = Gaps(kind=1)

    @property
    def modulation(self) -> Modulation:
        """None."""
        return Modulation()


@dataclass(frozen=True)
class OnOff:
    """Poisson at pps · (on + off) / on while on, silent while off; both last exponential times.

    ``regular``: equal gaps while on, what is left of one at the end of a time on being kept for the next.
    ``opening``: a packet more at the very start of every time on; the others become rarer, so that pps stays
    the mean rate (unless it is less than one packet in on + off: then there are no opening packets). Both
    together fit the counts and delays of on-off flows in the RouteNet data sets made with OMNeT++.
    """

    mean_on_s: float
    mean_off_s: float
    regular: bool = False
    opening: bool = False

    def __post_init__(self) -> None:
        check_positive("mean_on_s", self.mean_on_s, "s")
        check_positive("mean_off_s", self.mean_off_s, "s")

    @property
    def gaps(self) -> Gaps:
        """Exponential or constant."""
        return Gaps(kind=int(self.regular))

    @property
    def modulation(self) -> Modulation:
        """Two states, one of them silent."""
        on_s, off_s = self.mean_on_s, self.mean_off_s
        opening_pps = 1 / (on_s + off_s) if self.opening else 0.0
        return Modulation(1, ((on_s + off_s) / on_s, 0.0), (on_s, off_s), opening_pps=opening_pps)


@dataclass(frozen=True)
class Mmpp:
    """Poisson whose rate jumps between two values in the proportion high : low, staying exponential times."""

    ratio: float
    mean_high_s: float
    mean_low_s: float
    gaps = Gaps()

    def __post_init__(self) -> None:
        check_positive("ratio", self.ratio, "")
        check_positive("mean_high_s", self.mean_high_s, "s")
        check_positive("mean_low_s", self.mean_low_s, "s")

    @property
    def modulation(self) -> Modulation:
        """Two states whose time average is 1."""
        total_s = self.mean_high_s + self.mean_low_s
        low = total_s / (self.ratio * self.mean_high_s + self.mean_low_s)
        return Modulation(1, (self.ratio * low, low), (self.mean_high_s, self.mean_low_s))


@dataclass(frozen=True)
class Modulated:
    """Poisson at pps · a lognormal level (mean 1, log-deviation ``sigma``), redrawn every ``mean_s``."""

    sigma: float
    mean_s: float
    gaps = Gaps()

    def __post_init__(self) -> None:
        check_not_negative("sigma", self.sigma, "")
        check_positive("mean_s", self.mean_s, "s")

    @property
    def modulation(self) -> Modulation:
        """Lognormal levels."""
        return Modulation(2, (1.0, 1.0), (self.mean_s, self.mean_s), self.sigma)


@dataclass(frozen=True)
class Autocorrelated:
    """Exponential gaps of which each resembles the one before: lag-1 correlation from −0.64 to 1."""

    correlation: float

    def __post_init__(self) -> None:
        if not LEAST_CORRELATION < self.correlation < 1:
            raise TopologyError(
                f"correlation of gaps is {self.correlation}: exponential gaps can have "
                f"{LEAST_CORRELATION:.3f} to 1, the ends excluded"
            )

    @property
    def modulation(self) -> Modulation:
        """None."""
        return Modulation()

    @property
    def gaps(self) -> Gaps:
        """Exponential by way of a normal AR(1) process."""
        return Gaps(kind=2, memory=_memory_for(self.correlation))


LEAST_CORRELATION = 1 - pi**2 / 6  # of two exponentials: that of −ln U and −ln(1 − U)
HERMITE_TERMS = 30


@cache
def _hermite_weights() -> tuple[float, ...]:
    """Lag-1 correlation of the gaps = Σ weight_k · memory^k, k = 1, 2, …: squared Hermite coefficients.

    Of h(z) = −ln(1 − Φ(z)), the exponential gap that belongs to a normal z (Cario and Nelson, 1996, eq. 4).
    """
    z, weight = np.polynomial.hermite_e.hermegauss(80)
    gap = np.array([-log(0.5 * erfc(x / sqrt(2))) for x in z])
    weight = weight / sqrt(2 * pi)
    terms = np.polynomial.hermite_e.hermevander(z, HERMITE_TERMS)[:, 1:]
    squares = (weight * gap) @ terms
    return tuple(float(c) ** 2 / factorial(k) for k, c in enumerate(squares, start=1))


@cache
def _memory_for(correlation: float) -> float:
    """The AR(1) coefficient that gives gaps this lag-1 correlation, by bisection."""
    low, high = -1.0, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        reached = sum(weight * middle**k for k, weight in enumerate(_hermite_weights(), start=1))
        low, high = (middle, high) if reached < correlation else (low, middle)
    return (low + high) / 2


@dataclass(frozen=True)
class Trace:
    """Packets at recorded times: the gap before each of them, over and over or once.

    A flow with ``pps = trace.pps`` plays it as it was recorded, one with another rate faster or slower. Give
    the flow ``PacketSizes.sequence`` of the recorded sizes to play these too.
    """

    gaps_s: tuple[float, ...]
    repeat: bool = True

    def __post_init__(self) -> None:
        for gap_s in self.gaps_s:
            check_not_negative("gap of a trace", gap_s, "s")
        check_positive("length of a trace", sum(self.gaps_s), "s")

    @property
    def pps(self) -> float:
        """Its own mean rate."""
        return len(self.gaps_s) / sum(self.gaps_s)

    @property
    def modulation(self) -> Modulation:
        """None."""
        return Modulation()

    @cached_property
    def gaps(self) -> Gaps:
        """The recorded ones, in mean gaps."""
        pps = self.pps
        return Gaps(kind=3, trace=tuple(gap_s * pps for gap_s in self.gaps_s), repeat=self.repeat)


Arrivals = Poisson | Cbr | OnOff | Mmpp | Modulated | Autocorrelated | Trace
POISSON = Poisson()


@dataclass(frozen=True)
class Flow:
    """Packets from one node to another (indices into ``Network.nodes``) at a mean rate."""

    source: int
    destination: int
    pps: float
    sizes: PacketSizes
    arrivals: Arrivals = POISSON
    service_class: int = 0

    def __post_init__(self) -> None:
        check_not_negative(f"rate of flow {self.source}->{self.destination}", self.pps, "packets/s")
        if not 0 <= self.service_class < CLASSES:
            raise TopologyError(f"class of service {self.service_class}: there are {CLASSES}, from 0")
        if self.source == self.destination:
            raise TopologyError(f"flow from node {self.source} to itself: no packet of it enters the network")
