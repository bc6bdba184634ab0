"""All that a simulated cluster is at one moment: arrays that the engine reads and writes.

Cluster makes them ─► engine.run changes them ─► Cluster reads what was answered

Letters: S sites, R cloud replicas, q requests of the whole run, C SLO classes, N blocks, L levels.
Times are in milliseconds since the run began, if not said otherwise.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RING = 32
"""Recent crossings kept, as many as the router keeps."""


class State(NamedTuple):
    """One cluster."""

    requests: Floats
    """(q, columns.COUNT), by site and then by time of arrival."""
    order: Ints
    """Requests in the order in which they ended, (q,)."""
    counts: Ints
    """(2,): events in the heap, requests that ended."""
    heap_ms: Floats
    heap_event: Ints
    next_arrival: Ints
    """(S,)"""
    last_arrival: Ints
    """(S,): one beyond the site's last request."""
    edge_free: Floats
    link_free: Floats
    open_requests: Ints
    crossing: Ints
    """(S,): requests that wait for the cloud."""
    backlog: Floats
    """(S, 3): as ``Backlog`` has it, requests at the edge, what one takes, when the last left."""
    silent: NDArray[np.bool_]
    """(S,): whether the last of them waited in vain."""
    link: Floats
    """(S, estimator.SIZE)"""
    crossings: Floats
    """(S, 3, RING): of the edge, of the cloud, and time in the cloud."""
    crossed: Ints
    """(S, 3): how many ever."""
    edge_pace: Floats
    """(S, N + 1): of blocks, and to encode."""
    cloud_pace: Floats
    """(R, N)"""
    plans: Ints
    """(S, C, 3): partition, level, and which of ``Costs.thresholds``."""
    jobs: Ints
    """(R, J): requests that the replica has decoded, in order of arrival."""
    newcomers: Ints
    """(R, J): those that it has not."""
    batch: Ints
    """(R, B): that run now."""
    queue: Ints
    """(R, 4): number of jobs, of newcomers, of those in the batch, the batch's block (0 idle)."""
    batch_ms: Floats
    """(R,): what the running batch takes."""


class Costs(NamedTuple):
    """What does not change while a cluster runs."""

    edge_ms: Floats
    """(S, N)"""
    encode_ms: Floats
    """(S,)"""
    work_ms: Floats
    """(S,): of the router's loop for one request, beside blocks."""
    call_ms: Floats
    """(S,): of the edge's loop for one that comes to it, beside blocks."""
    round_trip_ms: Floats
    """(S,)"""
    thresholds: Floats
    """All that any plan had, (·, N): requests keep theirs when plans change."""
    cloud_ms: Floats
    """(N, B): of a batch of 1..B."""
    decode_ms: float
    carried: Floats
    """All traces, one after the other: bits until each step's end."""
    trace: Ints
    """(S, 2): where the site's trace begins and ends in ``carried``."""
    trace_step_s: Floats
    trace_shift_s: Floats
    """(S,): where in its trace a site begins."""
    trace_scale: Floats
    """(S,)"""
    most_open: int
    """Requests that a router takes at a time."""
    best_effort: bool
    """Whether an exit answers that is neither sure nor the last."""
    goes_on: bool
    """As ``SiteArgs`` has it."""
    reroutes: bool
    """As ``SiteArgs`` has it."""
    surest: bool
    """Whether the surest exit answers, instead of the last one."""
    images: bool
    """Whether the last level is of whole images."""
    exits: NDArray[np.bool_]
    """Which blocks have one, (N,)."""
    least_levels: Ints
    """(L,): the coarsest level that a frame of each level can be cut to."""
    entropy: NDArray[np.float32]
    """(m, N)"""
    correct: NDArray[np.float32]
    """Likewise; chances instead of flags where outcomes are smoothed."""
    resumed_entropy: NDArray[np.float32]
    """(L, N, m, N)"""
    resumed_correct: NDArray[np.float32]
    frame_bytes: Floats
    """(L, N)"""
    edge_trusted: NDArray[np.bool_]
    """(L, N)"""
