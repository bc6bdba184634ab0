"""The simulator's cloud, compiled: a replica's queue, and its batches block by block.

    engine ─► reach ─► newcomers ─► decoded jobs ─► batch_ended ─► done ─► heap ─► engine

As ``CloudExecutor`` has it, by the server's own functions (``rules``).
"""

import numpy as np
from numba import njit

from xpi_ray.exits.rule import is_sure
from xpi_ray.inference.budget import allows
from xpi_ray.inference.cloud import pressing
from xpi_ray.inference.pace import renewed
from xpi_ray.simulation import columns as at
from xpi_ray.simulation import rules
from xpi_ray.simulation.heap import BATCH, REPLY, push
from xpi_ray.simulation.state import Costs, State

rules.register(__name__)

JOBS, NEWCOMERS, RUNNING, BLOCK = 0, 1, 2, 3  # columns of a replica's queue


@njit(cache=True)
def reach(state: State, costs: Costs, now: float, i: int) -> None:
    """Line up at the replica with the fewest requests."""
    row = state.requests[i]
    row[at.REACHED], row[at.BLOCK] = now, row[at.CLOUD_FROM]
    replica = 0
    for other in range(1, len(state.queue)):
        if _load(state, other) < _load(state, replica):
            replica = other
    count = state.queue[replica, NEWCOMERS]
    if count == state.newcomers.shape[1]:
        return  # as if lost: the router gives it up
    state.newcomers[replica, count] = i
    state.queue[replica, NEWCOMERS] += 1
    if state.queue[replica, BLOCK] == 0:
        _drive(state, costs, now, replica)


@njit(cache=True)
def batch_ended(state: State, costs: Costs, now: float, replica: int) -> None:
    """Each exit is sure, or the last, or its job waits for the next block."""
    queue, jobs = state.queue[replica], state.jobs[replica]
    block, taken = queue[BLOCK], state.batch_ms[replica]
    if queue[RUNNING] == 1:
        pace = state.cloud_pace[replica]
        pace[block - 1] = renewed(pace[block - 1], taken)
    for place in range(queue[RUNNING]):
        i = state.batch[replica, place]
        row = state.requests[i]
        if row[at.STATUS]:  # given up meanwhile
            continue
        row[at.CLOUD_MS] += taken
        row[at.BLOCK] = block
        sample, partition = int(row[at.SAMPLE]), int(row[at.PARTITION])
        entropy = costs.resumed_entropy[int(row[at.LEVEL]), partition, sample, block - 1]
        if costs.exits[block - 1] and block > row[at.EDGE_BLOCKS]:
            keep(row, at.CLOUD_EXIT, block, entropy, costs.surest)
        row[at.COMPLETE] = block == len(costs.cloud_ms) or is_sure(
            entropy, costs.thresholds[int(row[at.THRESHOLDS]), block - 1]
        )
        if row[at.COMPLETE]:
            _done(state, costs, now, i)
            for other in range(queue[JOBS]):
                if jobs[other] == i:
                    jobs[other] = -1
    _close_gaps(queue, jobs)
    _drive(state, costs, now, replica)


@njit(cache=True)
def keep(row: np.ndarray, tier: int, exit_: int, entropy: float, surest: bool) -> None:
    """Of a tier's exits the last one counts, or the surest, and of equally sure ones the last."""
    if surest and row[tier] > 0 and row[tier + 1] < entropy:
        return
    row[tier], row[tier + 1] = exit_, entropy


@njit(cache=True)
def _load(state: State, replica: int) -> int:
    return int(state.queue[replica, JOBS] + state.queue[replica, NEWCOMERS])


@njit(cache=True)
def _drive(state: State, costs: Costs, now: float, replica: int) -> None:
    """Decode newcomers, then begin the batch that is most pressing."""
    queue, jobs = state.queue[replica], state.jobs[replica]
    for place in range(queue[NEWCOMERS]):
        i = state.newcomers[replica, place]
        row = state.requests[i]
        if row[at.STATUS] or queue[JOBS] == len(jobs):
            continue
        row[at.DECODE_MS] = costs.decode_ms * row[at.CLOUD_FACTOR]
        now += row[at.DECODE_MS]
        jobs[queue[JOBS]] = i
        queue[JOBS] += 1
    queue[NEWCOMERS] = 0
    _drop_given_up(state, queue, jobs)
    queue[RUNNING], queue[BLOCK] = 0, 0
    left_ms = np.empty(len(jobs))
    blocks = np.empty(len(jobs), np.int64)
    while queue[JOBS] > 0 and queue[RUNNING] == 0:
        for place in range(queue[JOBS]):
            row = state.requests[jobs[place]]
            left_ms[place] = row[at.CLOUD_BUDGET] - (now - row[at.REACHED])
            blocks[place] = int(row[at.BLOCK])
        most = min(state.batch.shape[1], costs.cloud_ms.shape[1])
        chosen = pressing(left_ms[: queue[JOBS]], blocks[: queue[JOBS]], most)
        block = blocks[chosen[0]]
        for place in chosen:
            if allows(left_ms[place], state.cloud_pace[replica, block]):
                state.batch[replica, queue[RUNNING]] = jobs[place]
                queue[RUNNING] += 1
            else:
                _done(state, costs, now, jobs[place])
                jobs[place] = -1
        _close_gaps(queue, jobs)
    if queue[RUNNING]:
        queue[BLOCK] = block + 1
        factor = state.requests[state.batch[replica, 0], at.CLOUD_FACTOR]
        state.batch_ms[replica] = costs.cloud_ms[block, queue[RUNNING] - 1] * factor
        push(state, now + state.batch_ms[replica], BATCH, replica)


@njit(cache=True)
def _drop_given_up(state: State, queue: np.ndarray, jobs: np.ndarray) -> None:
    for place in range(queue[JOBS]):
        if state.requests[jobs[place], at.STATUS]:
            jobs[place] = -1
    _close_gaps(queue, jobs)


@njit(cache=True)
def _close_gaps(queue: np.ndarray, jobs: np.ndarray) -> None:
    kept = 0
    for place in range(queue[JOBS]):
        if jobs[place] >= 0:
            jobs[kept] = jobs[place]
            kept += 1
    queue[JOBS] = kept


@njit(cache=True)
def _done(state: State, costs: Costs, now: float, i: int) -> None:
    """The cloud's reply goes back."""
    row = state.requests[i]
    in_cloud = now - row[at.REACHED]
    row[at.CLOUD_WAIT] = max(in_cloud - row[at.DECODE_MS] - row[at.CLOUD_MS], 0.0)
    back = costs.round_trip_ms[int(row[at.SITE])] / 2 + row[at.HOP] / 2
    push(state, now + back, REPLY, i)
