"""The simulator's engine: events in order of time, compiled.

    arrive ─► blocks at the edge ─► send ─► link ─► reach ─► batches in the cloud ─► reply ─► end
                      └───────────── sure, or out of time ─────────────────────────────► end

What a request does follows the server's own functions (``rules``). The edge works in order of
arrival, so all its blocks are decided as soon as a request arrives.
"""

import math

import numpy as np
from numba import njit

from xpi_ray.exits.rule import is_sure
from xpi_ray.inference.budget import allows
from xpi_ray.inference.flow import (
    ANSWER_MS,
    CLOUD_PRUDENCE,
    EDGE_LEAST_MS,
    EDGE_PRUDENCE,
    SPILL_PRUDENCE,
)
from xpi_ray.inference.pace import is_long, renewed
from xpi_ray.link.estimator import (
    LOG_DELAY,
    LOG_RATE,
    learn,
    learn_late,
    sendable_bytes,
    sending_ms,
    spread,
)
from xpi_ray.link.traces import delivered_s
from xpi_ray.simulation import columns as at
from xpi_ray.simulation import replica, rules
from xpi_ray.simulation.heap import (
    ARRIVE,
    BATCH,
    GIVE_UP,
    HELD,
    LATE,
    LEAVE,
    REACH,
    REPLY,
    SEND,
    pop,
    push,
)
from xpi_ray.simulation.replica import batch_ended, keep, reach
from xpi_ray.simulation.ring import CLOUD, EDGE, LINK, recent, remember
from xpi_ray.simulation.state import Costs, State
from xpi_ray.simulation.turns import HERE, TURN, enter, leave

JUST_MS = 1e-9  # before a request is given up

rules.register(__name__, replica.__name__)


@njit(cache=True)
def run(state: State, costs: Costs, until_ms: float) -> None:
    """Let everything happen that happens before ``until_ms``."""
    while state.counts[0] > 0 and state.heap_ms[0] < until_ms:
        now, kind, index = pop(state)
        if kind == ARRIVE:
            _arrive(state, costs, index)
        elif kind == BATCH:
            batch_ended(state, costs, now, index)
        elif state.requests[index, at.STATUS]:
            continue  # given up before, or answered before it was given up
        elif kind == LEAVE:
            _leave(state, costs, now, index)
        elif kind == LATE:
            leave(state, state.requests[index], now, False)
            _end(state, now, index, at.MISSED)
        elif kind == SEND:
            _send(state, costs, now, index)
        elif kind == REACH:
            reach(state, costs, now, index)
        elif kind == REPLY:
            _reply(state, costs, now, index)
        elif kind == HELD:
            _end_at_edge(state, costs, now, index)
        elif kind == GIVE_UP:
            _give_up(state, costs, now, index)


@njit(cache=True)
def _end(state: State, now: float, i: int, status: int) -> None:
    """A request has its answer, or none."""
    row = state.requests[i]
    row[at.STATUS] = status
    row[at.TOTAL] = now - row[at.ARRIVED]
    state.open_requests[int(row[at.SITE])] -= 1
    state.order[state.counts[1]] = i
    state.counts[1] += 1


@njit(cache=True)
def _status(row: np.ndarray, best_effort: bool) -> int:
    """How a request ends that has an exit in hand, whose entropy and correctness are in its row."""
    if row[at.COMPLETE]:
        return at.ANSWERED
    if best_effort:
        return at.BEST_EFFORT
    row[at.EXIT], row[at.CORRECT] = 0, 0
    return at.MISSED


@njit(cache=True)
def _end_at_edge(state: State, costs: Costs, now: float, i: int) -> None:
    """The best exit in hand is one of the edge's, if there is one."""
    row = state.requests[i]
    exit_ = int(row[at.EDGE_EXIT])
    row[at.EXIT], row[at.ENTROPY] = exit_, row[at.EDGE_ENTROPY]
    if exit_ == 0:
        _end(state, now, i, at.MISSED)
        return
    row[at.CORRECT] = costs.correct[int(row[at.SAMPLE]), exit_ - 1]
    _end(state, now, i, _status(row, costs.best_effort))


@njit(cache=True)
def _arrive(state: State, costs: Costs, site: int) -> None:
    """Read the request, and run its blocks at the edge."""
    i = state.next_arrival[site]
    state.next_arrival[site] += 1
    if i + 1 < state.last_arrival[site]:
        push(state, state.requests[i + 1, at.ARRIVED], ARRIVE, site)
    row = state.requests[i]
    arrived = row[at.ARRIVED]
    state.open_requests[site] += 1
    if state.open_requests[site] > costs.most_open:
        _end(state, arrived, i, at.OVERLOADED)
        return
    slo, num_blocks = int(row[at.SLO]), costs.edge_ms.shape[1]
    partition = state.plans[site, slo, 0]
    row[at.PARTITION], row[at.LEVEL] = partition, state.plans[site, slo, 1]
    row[at.THRESHOLDS] = state.plans[site, slo, 2]
    # The router reads it between the blocks of others, which so end that much later.
    work = costs.work_ms[site] * row[at.EDGE_FACTOR]
    called, now = arrived + work, max(arrived, state.edge_free[site]) + work
    state.edge_free[site] = now
    give_up = arrived + row[at.DEADLINE] - ANSWER_MS
    row[at.COMPLETE] = 0
    can_send = costs.reroutes and _can_send(state, costs, called, i)
    left = give_up - called
    doubtful = costs.reroutes and (state.silent[site] or (_is_image(costs, row) and not can_send))
    row[at.GOES_ON] = doubtful or costs.goes_on
    crosses = not (doubtful and state.crossing[site] > 0)
    row[at.EDGE_ENDS] = give_up
    if partition == 0 and crosses and called < give_up:
        push(state, called, SEND, i)
        return
    turn = state.backlog[site, TURN]
    wait = state.backlog[site, HERE] * turn
    if costs.reroutes and not allows(left, wait + turn):
        if can_send and crosses:
            row[at.PARTITION] = 0
            push(state, called, SEND, i)
            return
        if not allows(left, wait):
            push(state, called, LATE, i)
            return
    enter(state, row, called)
    now += costs.call_ms[site] * row[at.EDGE_FACTOR]
    state.edge_free[site] = now
    kept_back = max(recent(state, site, EDGE, EDGE_PRUDENCE), EDGE_LEAST_MS)
    ends, free = give_up - kept_back, now  # of its budget; when the next request can begin
    row[at.EDGE_ENDS] = ends
    if now >= give_up:  # before its turn
        push(state, max(called, give_up), LATE, i)
        return
    waited = now - called
    block, sure, long = 0, False, False
    thresholds = costs.thresholds[state.plans[site, slo, 2]]
    while block < (partition if crosses else num_blocks) and not sure:
        if block >= max(partition, 1) and _next_comes_ms(state, costs, i) <= now:
            break
        expected = state.edge_pace[site, block]
        if not allows(ends - now, expected):
            break
        taken = costs.edge_ms[site, block] * row[at.EDGE_FACTOR]
        state.edge_pace[site, block] = renewed(expected, taken)
        free, long = now + taken, long or is_long(expected)
        if long and free > ends:  # it is not waited for
            waited, now, row[at.EDGE_OVERRUN] = waited + ends - now, ends, 0.0
            break
        row[at.EDGE_OVERRUN], now = 0.0 if long else taken - expected, free
        entropy = costs.entropy[int(row[at.SAMPLE]), block]
        sure = is_sure(entropy, thresholds[block])
        block += 1
        if costs.exits[block - 1]:
            keep(row, at.EDGE_EXIT, block, entropy, costs.surest)
    row[at.EDGE_BLOCKS], row[at.EDGE_MS] = block, now - called - waited
    expected = state.edge_pace[site, num_blocks]  # to encode
    image = _is_image(costs, row)
    sends = crosses and block == partition and not sure and block < num_blocks
    sends = sends and (image or allows(ends - now, expected))
    if block == 0 and can_send and crosses:
        row[at.PARTITION], image, sends = 0, True, True
    if sends and not image:
        taken = costs.encode_ms[site] * row[at.EDGE_FACTOR]
        state.edge_pace[site, num_blocks] = renewed(expected, taken)
        free, long = now + taken, long or is_long(expected)
        sends = not (long and free > ends)
        if sends:
            row[at.ENCODE_MS], now = taken, free
            row[at.EDGE_OVERRUN] = 0.0 if long else taken - expected
        else:
            waited, now, row[at.EDGE_OVERRUN] = waited + ends - now, ends, 0.0
    state.edge_free[site] = free
    row[at.EDGE_WAIT] = waited
    row[at.COMPLETE] = sure or block == num_blocks
    if now > give_up:  # the reply comes too late, and its exits with it
        push(state, give_up, LATE, i)
    elif sends:
        push(state, now, SEND, i)
    else:
        push(state, now, LEAVE, i)


@njit(cache=True)
def _next_comes_ms(state: State, costs: Costs, i: int) -> float:
    """When the request after another reaches the site's edge; infinite if there is none."""
    site = int(state.requests[i, at.SITE])
    if i + 1 == state.last_arrival[site]:
        return math.inf
    return float(state.requests[i + 1, at.ARRIVED] + costs.work_ms[site])


@njit(cache=True)
def _is_image(costs: Costs, row: np.ndarray) -> bool:
    """Whether what crosses the link is the image, whatever ran at the edge."""
    whole = row[at.PARTITION] == 0
    return whole or (costs.images and row[at.LEVEL] == len(costs.frame_bytes) - 1)


@njit(cache=True)
def _can_send(state: State, costs: Costs, now: float, i: int) -> bool:
    """Whether the link likely carries the whole image in time for the cloud to answer."""
    row = state.requests[i]
    site, left = int(row[at.SITE]), row[at.ARRIVED] + row[at.DEADLINE] - ANSWER_MS - now
    link, size = state.link[site], costs.frame_bytes[int(row[at.LEVEL]), 0]
    sent = sending_ms(math.exp(link[LOG_RATE]), spread(link, now / 1000), size)
    in_cloud = recent(state, site, CLOUD, SPILL_PRUDENCE)
    return allows(float(left), sent + 1000 * math.exp(link[LOG_DELAY]) + in_cloud)


@njit(cache=True)
def _leave(state: State, costs: Costs, now: float, i: int) -> None:
    """The edge's reply is the answer."""
    row = state.requests[i]
    leave(state, row, now, True)
    remember(state, int(row[at.SITE]), EDGE, max(row[at.EDGE_OVERRUN], 0.0))
    _end_at_edge(state, costs, now, i)


@njit(cache=True)
def _send(state: State, costs: Costs, now: float, i: int) -> None:
    """Put the frame on the link, cut to what the link likely carries in time."""
    row = state.requests[i]
    site, partition, level = int(row[at.SITE]), int(row[at.PARTITION]), int(row[at.LEVEL])
    if row[at.AT_EDGE]:
        remember(state, site, EDGE, max(row[at.EDGE_OVERRUN], 0.0))
    leave(state, row, now, True)
    left = row[at.ARRIVED] + row[at.DEADLINE] - ANSWER_MS - now
    there = left - recent(state, site, LINK, CLOUD_PRUDENCE)
    if there <= 0:
        row[at.SENT] = now
        _hold(state, costs, now, i)
        return
    link = state.link[site]
    in_cloud_s = recent(state, site, CLOUD, 0.0) / 1000
    sending_s = left / 1000 - in_cloud_s - math.exp(link[LOG_DELAY])
    believed_spread = spread(link, now / 1000)
    most = sendable_bytes(math.exp(link[LOG_RATE]), believed_spread, sending_s)
    while level < costs.least_levels[level] and costs.frame_bytes[level, partition] > most:
        level += 1
    state.crossing[site] += 1
    row[at.CLOUD_FROM] = row[at.BLOCK] = 0.0 if _is_image(costs, row) else partition
    size = costs.frame_bytes[level, partition]
    row[at.LEVEL], row[at.BYTES], row[at.SENT], row[at.CLOUD_BUDGET] = level, size, now, there
    begins_s = max(now + row[at.HOP] / 2, state.link_free[site]) / 1000
    trace = costs.carried[costs.trace[site, 0] : costs.trace[site, 1]]
    shift_s, step_s = costs.trace_shift_s[site], costs.trace_step_s[site]
    sent_bytes = size / costs.trace_scale[site]
    through = 1000 * (delivered_s(trace, step_s, begins_s + shift_s, sent_bytes) - shift_s)
    state.link_free[site] = through
    push(state, through + costs.round_trip_ms[site] / 2, REACH, i)
    push(state, now + left, GIVE_UP, i)


@njit(cache=True)
def _reply(state: State, costs: Costs, now: float, i: int) -> None:
    """The router has the cloud's exits."""
    row = state.requests[i]
    site, partition, level = int(row[at.SITE]), int(row[at.PARTITION]), int(row[at.LEVEL])
    state.crossing[site] -= 1
    state.silent[site] = False
    in_cloud = row[at.CLOUD_WAIT] + row[at.DECODE_MS] + row[at.CLOUD_MS]
    row[at.LINK_MS] = max(now - row[at.SENT] - in_cloud, 0.0)
    remember(state, site, LINK, row[at.LINK_MS])
    remember(state, site, CLOUD, in_cloud)
    learn(state.link[site], row[at.SENT] / 1000, row[at.BYTES], row[at.LINK_MS] / 1000, 1.0)
    _tell_link(state, now, i)
    exit_ = int(row[at.CLOUD_EXIT])
    if exit_ == 0:  # the cloud had no time for any
        _hold(state, costs, now, i)
        return
    if row[at.GOES_ON]:
        _go_on(state, costs, now, i, False)
    compared = costs.surest or costs.edge_trusted[level, partition]
    if compared and row[at.EDGE_EXIT] > 0 and row[at.EDGE_ENTROPY] < row[at.CLOUD_ENTROPY]:
        _end_at_edge(state, costs, now, i)
        return
    sample = int(row[at.SAMPLE])
    row[at.EXIT], row[at.ENTROPY] = exit_, row[at.CLOUD_ENTROPY]
    row[at.CORRECT] = costs.resumed_correct[level, partition, sample, exit_ - 1]
    _end(state, now, i, _status(row, costs.best_effort))


@njit(cache=True)
def _give_up(state: State, costs: Costs, now: float, i: int) -> None:
    """No reply in time: the edge's exit answers, and the link is believed to be slower."""
    row = state.requests[i]
    site = int(row[at.SITE])
    state.crossing[site] -= 1
    state.silent[site] = True
    in_cloud = recent(state, site, CLOUD, 0.0)
    waited_s = (now - row[at.SENT] - in_cloud) / 1000
    learn_late(state.link[site], row[at.SENT] / 1000, row[at.BYTES], waited_s)
    _tell_link(state, now, i)
    row[at.COMPLETE] = 0
    row[at.BLOCK] = row[at.CLOUD_FROM]
    if row[at.GOES_ON]:
        _go_on(state, costs, now, i, True)
    _end_at_edge(state, costs, now, i)


@njit(cache=True)
def _hold(state: State, costs: Costs, now: float, i: int) -> None:
    """The cloud has no exit: the edge's answer, once it goes on no more if it does."""
    row = state.requests[i]
    if not row[at.GOES_ON]:
        _end_at_edge(state, costs, now, i)
        return
    row[at.LINK_MS] = row[at.CLOUD_WAIT] = row[at.DECODE_MS] = row[at.CLOUD_MS] = 0.0
    row[at.BLOCK] = row[at.CLOUD_FROM]
    give_up = row[at.ARRIVED] + row[at.DEADLINE] - ANSWER_MS
    ends = _go_on(state, costs, give_up, i, True)
    push(state, max(now, ends - JUST_MS), HELD, i)


@njit(cache=True)
def _go_on(state: State, costs: Costs, until: float, i: int, counts: bool) -> float:
    """What the edge comes to after it sent a request, until the next one wants it; its end.

    If it ``counts``, the request has it in hand; else the edge only learns how slow it is.
    """
    row = state.requests[i]
    site, block, now = int(row[at.SITE]), int(row[at.EDGE_BLOCKS]), float(row[at.SENT])
    thresholds, num_blocks = costs.thresholds[int(row[at.THRESHOLDS])], costs.edge_ms.shape[1]
    next_comes = _next_comes_ms(state, costs, i)
    while block < num_blocks:
        if next_comes <= now:
            return until
        expected = state.edge_pace[site, block]
        if not allows(row[at.EDGE_ENDS] - now, expected):
            return now
        taken = costs.edge_ms[site, block] * row[at.EDGE_FACTOR]
        state.edge_pace[site, block] = renewed(expected, taken)
        now += taken
        if now > until:
            return until
        entropy = costs.entropy[int(row[at.SAMPLE]), block]
        block += 1
        sure = is_sure(entropy, thresholds[block - 1])
        if counts:
            if costs.exits[block - 1]:
                keep(row, at.EDGE_EXIT, block, entropy, costs.surest)
            row[at.EDGE_BLOCKS] = block
            row[at.EDGE_MS] += taken
            row[at.COMPLETE] = sure or block == num_blocks
        if sure:
            break
    return float(now)


@njit(cache=True)
def _tell_link(state: State, now: float, i: int) -> None:
    row = state.requests[i]
    link = state.link[int(row[at.SITE])]
    row[at.LINK_BPS], row[at.ROUND_TRIP] = (
        math.exp(link[LOG_RATE]),
        1000 * math.exp(link[LOG_DELAY]),
    )
    row[at.SPREAD] = spread(link, now / 1000)
