"""The loops of :mod:`twin.incremental`, compiled: which flows cross a link, and sums over the flows of some
links alone.

Sums are made anew, over the flows of a link in their order, rather than corrected: so no number of changes
lets them drift, and a queue that nothing crosses any more is as empty as one that nothing ever crossed.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import expm1

import numpy as np
from numba.cpython.unsafe.numbers import trailing_zeros
from numpy.typing import NDArray

from twin.compiled import compiled
from twin.features_core import BURST, BURST_TIME, REGULAR, REGULAR_OWN, SQUARES, TINY, Table
from twin.network import Floats, Ints
from twin.queueing_flows import BPS, PPS, RATE_MEMORY, RATE_VARIANCE, UNLIKE, UNLIKE_PAIRS
from twin.queueing_flows import REGULAR as REGULAR_GAPS
from twin.queueing_flows import SQUARES as SQUARE_SIZES

Flags = NDArray[np.bool_]
Bits = NDArray[np.int32]


@dataclass(frozen=True)
class Crossings:
    """The hops over every link, in the order of their flows: those of link l begin at offsets[l]."""

    offsets: Ints  # [L + 1]
    hops: Ints  # [H]
    flows: Ints  # [H] of these hops
    queues: Ints  # [H] of these hops

    @classmethod
    def of(cls, links: Ints, queues: Ints, hop_offsets: Ints, count: int) -> Crossings:
        """Sort all hops [H] by their links."""
        offsets = np.concatenate([[0], np.cumsum(np.bincount(links, minlength=count))])
        flow = np.repeat(np.arange(len(hop_offsets) - 1), np.diff(hop_offsets))
        hops = _sorted(links, offsets)
        return cls(offsets, hops, flow[hops], queues[hops])

    def over(self, link: int) -> Ints:
        """The flows over a link, in order."""
        return self.flows[self.offsets[link] : self.offsets[link + 1]]


@compiled
def _sorted(links: Ints, offsets: Ints) -> Ints:
    """A stable counting sort."""
    free = offsets[:-1].copy()
    hops = np.empty(links.shape[0], np.int64)
    for hop in range(links.shape[0]):
        hops[free[links[hop]]] = hop
        free[links[hop]] += 1
    return hops


# Columns of a flow's account: what a queue's wait (s), the variance of it (s²) and a loss of its own make of
# it, relatively; and what it owes, first in its features, then in the queues' states of every sweep.
OF_WAIT, OF_VARIANCE, OF_LOSS, OWED = range(4)
# Of what is owed: of the delay and of the jitter, with signs, and what is unsure of either.
DELAY, JITTER, UNSURE_DELAY, UNSURE_JITTER = range(4)
DEBTS = 4
DELAY_ALLOWED = 2.0  # as much as of jitter: estimates of delay are closer
# Of what changes of a queue are worth: of wait (s), variance (s²) and ln of what is lost; of ln wait and ln
# deviation by way of a flow's state, and how much of that is unsure; and the queue's wait and variance.
ON_WAIT, ON_VARIANCE, ON_LOSS, UNSURE_OF_BOTH, STATE_ON_WAIT, STATE_ON_DEVIATION = range(6)
UNSURE_WAIT, UNSURE_DEVIATION, WAIT, VARIANCE = range(6, 10)
WORTH = 10
TOLD = 0.3  # a step of a flow's features is worth at least so much: queues are told, where it waits or not
KEPT = 0.7  # of a step of its state a flow takes on to the next hop


@compiled
def owe(
    flows: Ints, offsets: Ints, queues: Bits, worth: Table, at_work: Bits, usual: Bits, matter: Bits,
    terms: Table, lasting: np.float32, accounts: Floats, level: int, limit: float, run: Flags,
) -> None:  # fmt: skip
    """Charge ``flows`` for changes of queues at ``level``; those that owe more than ``limit`` are to run.

    A flow that runs from some level on pays for that and all higher ones.

    ``worth`` [Q, WORTH]: what changes of a queue do to its wait (s) and to the variance of it (s²) by the
    hidden units that are at work for most hops, as ``usual`` [Q] tells bit by bit; where ``at_work`` [H]
    differs in one that ``matter`` [Q] tells, ``terms`` [Q, 2, HIDDEN] add to both. What a change does to a
    flow's state, later hops feel too, by as much as their waits and variances are; all that is unsure. So
    much of it as is ``lasting`` is in the state yet when the next sweep reads out all hops.
    """
    zero, kept, at_level = np.float32(0.0), np.float32(KEPT), OWED + DEBTS * level
    for flow in flows:
        if run[flow]:
            continue
        wait, variance, unsure_wait, unsure_variance, lost = zero, zero, zero, zero, zero
        state_wait, state_deviation, doubt_wait, doubt_deviation = zero, zero, zero, zero
        of_flow = zero
        for hop in range(offsets[flow], offsets[flow + 1]):
            queue = queues[hop]  # no views of rows here: numba would count references to each
            of_wait, of_variance = worth[queue, WAIT], worth[queue, VARIANCE]
            state_wait, state_deviation = kept * state_wait, kept * state_deviation
            doubt_wait = kept * doubt_wait + worth[queue, UNSURE_WAIT]
            doubt_deviation = kept * doubt_deviation + worth[queue, UNSURE_DEVIATION]
            wait += worth[queue, ON_WAIT] + of_wait * state_wait
            variance += worth[queue, ON_VARIANCE] + of_variance * state_deviation
            lost += worth[queue, ON_LOSS]
            state_wait += worth[queue, STATE_ON_WAIT]
            state_deviation += worth[queue, STATE_ON_DEVIATION]
            unsure_of_both = worth[queue, UNSURE_OF_BOTH]
            unsure_wait += of_wait * (unsure_of_both + doubt_wait)
            unsure_variance += of_variance * (unsure_of_both + doubt_deviation)
            of_flow = max(of_flow, unsure_of_both)
            odd = matter[queue] & (at_work[hop] ^ usual[queue])  # mostly none: no branch that goes astray
            while odd != 0:
                unit = trailing_zeros(odd)
                wait += terms[queue, 0, unit]
                variance += terms[queue, 1, unit]
                odd &= odd - 1
        if wait == 0.0 and variance == 0.0 and unsure_wait == 0.0 and lost == 0.0:
            continue
        accounts[flow, at_level + DELAY] += wait * accounts[flow, OF_WAIT]
        accounts[flow, at_level + JITTER] += variance * accounts[flow, OF_VARIANCE]
        told = TOLD * of_flow
        told_wait = told + lasting * (abs(state_wait) + doubt_wait)
        told_deviation = told + lasting * (abs(state_deviation) + doubt_deviation)
        accounts[flow, at_level + UNSURE_DELAY] += unsure_wait * accounts[flow, OF_WAIT] + told_wait
        accounts[flow, at_level + UNSURE_JITTER] += (
            lost * accounts[flow, OF_LOSS] + unsure_variance * accounts[flow, OF_VARIANCE] + told_deviation
        )
        run[flow] = _debt(accounts, flow, level) > limit


@compiled
def _debt(accounts: Floats, flow: int, level: int) -> float:
    """What a flow owes at ``level`` and below."""
    delay, jitter, unsure_delay, unsure_jitter = 0.0, 0.0, 0.0, 0.0
    for below in range(OWED, OWED + DEBTS * (level + 1), DEBTS):
        delay += accounts[flow, below + DELAY]
        jitter += accounts[flow, below + JITTER]
        unsure_delay += accounts[flow, below + UNSURE_DELAY]
        unsure_jitter += accounts[flow, below + UNSURE_JITTER]
    return max((abs(delay) + unsure_delay) / DELAY_ALLOWED, abs(jitter) + unsure_jitter)


@compiled
def settle(accounts: Floats, flows: Ints, first: int, end: int) -> None:
    """Nothing is owed any more by ``flows`` in columns first … end − 1."""
    for flow in flows:
        for column in range(first, end):
            accounts[flow, column] = 0.0


@compiled
def over_queues(
    moved: Flags, queue_link: Ints, begins: Ints, flow_at: Ints, queue_at: Ints, count: int, few: int
) -> Ints:
    """The flows, of ``count``, that cross ``moved`` queues [Q]; all where the links of these queues have more
    than ``few`` hops."""
    over, hops, link = np.zeros(count, np.bool_), 0, -1
    for queue in range(moved.shape[0]):
        if moved[queue] and queue_link[queue] != link:
            link = queue_link[queue]
            hops += begins[link + 1] - begins[link]
            if hops > few:
                return np.arange(count)
            for at in range(begins[link], begins[link + 1]):
                if moved[queue_at[at]]:
                    over[flow_at[at]] = True
    return np.flatnonzero(over)


@compiled
def owe_shares(
    moved: Flags, of_share: Floats, of_inlet: Floats, queue_link: Ints, begins: Ints, hops: Ints,
    flow_at: Ints, queue_at: Ints, inlets: Ints, hop_x: Table, wait_s: Floats, wait_std_s: Floats,
    accounts: Floats,
) -> None:  # fmt: skip
    """Charge the flows over ``moved`` queues for steps in ln of all packets there, [Q], worth the flow's
    share of the queue, and in the share of their inlet, [I]."""
    for queue in range(moved.shape[0]):
        if not moved[queue]:
            continue
        link, wait, variance = queue_link[queue], wait_s[queue], wait_std_s[queue] ** 2
        for at in range(begins[link], begins[link + 1]):
            if queue_at[at] == queue:
                account, hop = accounts[flow_at[at]], hops[at]
                step = hop_x[hop, 0] * of_share[queue] + of_inlet[inlets[hop]]
                account[OWED + UNSURE_DELAY] += step * max(wait * account[OF_WAIT], TOLD)
                account[OWED + UNSURE_JITTER] += step * max(variance * account[OF_VARIANCE], TOLD)


@compiled
def weigh(
    flows: Ints, offsets: Ints, queues: Ints, wait_s: Floats, wait_std_s: Floats, sums: Floats,
    transmission_s: Floats, size_scv: Floats, accounts: Floats,
) -> None:  # fmt: skip
    """Fill in what steps of queues are worth to ``flows``: of queueing + transmission, of the variance of the
    delay (half of it is the jitter's, twice that of a deviation), and of what is lost, a hundredfold.

    The prior's waits are scaled to what was predicted, ``sums`` as in twin.inference_kernel.
    """
    heads = sums.shape[1] - 2
    for flow in flows:
        wait, variance = TINY, TINY
        for hop in range(offsets[flow], offsets[flow + 1]):
            wait += wait_s[queues[hop]]
            variance += wait_std_s[queues[hop]] ** 2
        waits = sums[flow, :heads].mean()
        own = size_scv[flow] * transmission_s[flow] ** 2
        accounts[flow, OF_WAIT] = waits / wait / max(waits + transmission_s[flow], TINY)
        accounts[flow, OF_VARIANCE] = sums[flow, heads] / variance / max(sums[flow, heads] + own, TINY)
        accounts[flow, OF_LOSS] = -100.0 * expm1(sums[flow, heads + 1])


@compiled
def touched_links(
    changed: Ints, moved: Flags, queue_link: Ints, begins: Ints, hops: Ints, flow_at: Ints, queue_at: Ints,
    offsets: Ints, links: Ints, count: int,
) -> Flags:  # fmt: skip
    """Which links [L] see other packets: those of the ``changed`` flows, and those behind a queue that lets
    through another share than before (``moved`` [Q])."""
    touched = np.zeros(count, np.bool_)
    for flow in changed:
        for hop in range(offsets[flow], offsets[flow + 1]):
            touched[links[hop]] = True
    for queue in range(moved.shape[0]):
        if moved[queue]:
            link = queue_link[queue]
            for at in range(begins[link], begins[link + 1]):
                if queue_at[at] == queue:
                    for hop in range(hops[at] + 1, offsets[flow_at[at] + 1]):
                        touched[links[hop]] = True
    return touched


@compiled
def _rate_at(flow: int, hop: int, first: int, queues: Ints, pps: Floats, survival: Floats) -> float:
    """Packets/s of a flow that reach a hop."""
    rate = pps[flow]
    for before in range(first, hop):
        rate *= survival[queues[before]]
    return float(rate)


@compiled
def offer_links(
    touched: Flags, begins: Ints, hops: Ints, flow_at: Ints, queue_at: Ints, offsets: Ints, links: Ints,
    queues: Ints, queue_offsets: Ints, pps: Floats, bits: Floats, size_scv: Floats, gap_scv: Floats,
    rate_scv: Floats, rate_time_s: Floats, survival: Floats, inlet_offsets: Ints, inlet_rank: Ints,
    offered: Floats, came: Floats,
) -> None:  # fmt: skip
    """What twin.queueing_flows.offer finds, of the ``touched`` links [L] alone."""
    poisson = gap_scv.shape[0] == 0
    for link in range(touched.shape[0]):
        if not touched[link]:
            continue
        offered[queue_offsets[link] : queue_offsets[link + 1]] = 0.0
        came[inlet_offsets[link] : inlet_offsets[link + 1]] = 0.0
        for at in range(begins[link], begins[link + 1]):
            hop, flow, queue = hops[at], flow_at[at], queue_at[at]
            if pps[flow] <= 0.0:
                continue
            rate, mean = _rate_at(flow, hop, offsets[flow], queues, pps, survival), bits[flow]
            if hop > offsets[flow]:
                came[inlet_offsets[link] + inlet_rank[links[hop - 1]]] += rate
            offered[queue, PPS] += rate
            offered[queue, BPS] += rate * mean
            offered[queue, SQUARE_SIZES] += rate * (mean * mean * (1.0 + size_scv[flow]))
            if not poisson:
                variance, regular = rate * rate * mean * mean * rate_scv[flow], 1.0 - gap_scv[flow]
                offered[queue, RATE_VARIANCE] += variance
                offered[queue, RATE_MEMORY] += variance * rate_time_s[flow]
                offered[queue, REGULAR_GAPS] += rate * regular
                offered[queue, UNLIKE] += rate * abs(regular)
                offered[queue, UNLIKE_PAIRS] += rate * rate * (1.0 + rate_scv[flow]) * abs(regular)


@compiled
def add_up_links(
    touched: Flags, begins: Ints, hops: Ints, flow_at: Ints, queue_at: Ints, offsets: Ints, queues: Ints,
    queue_offsets: Ints, inlets: Ints, inlet_base: Ints, pps: Floats, vary: Floats, survival: Floats,
    sums: Floats, inlet_rate: Floats,
) -> None:  # fmt: skip
    """What twin.features_core.add_up finds, of the ``touched`` links [L] alone."""
    poisson = vary.shape[0] == 0
    for link in range(touched.shape[0]):
        if not touched[link]:
            continue
        first, end = queue_offsets[link], queue_offsets[link + 1]
        sums[first:end] = 0.0
        inlet_rate[inlet_base[first] : inlet_base[end]] = 0.0
        for at in range(begins[link], begins[link + 1]):
            hop, flow, queue = hops[at], flow_at[at], queue_at[at]
            rate = _rate_at(flow, hop, offsets[flow], queues, pps, survival)
            inlet_rate[inlets[hop]] += rate
            sums[queue, SQUARES] += rate * rate
            if not poisson:
                regular, burst = 1.0 - vary[flow, 0], vary[flow, 1]
                sums[queue, REGULAR] += rate * regular
                sums[queue, REGULAR_OWN] += rate * rate * regular
                sums[queue, BURST] += rate * rate * burst
                sums[queue, BURST_TIME] += rate * rate * burst * vary[flow, 2]
