"""What each site's router knows of the edge's queue: rows of the state's ``backlog``.

engine ─► enter … leave ─► how long the next request is expected to wait there
"""

import numpy as np

from xpi_ray.inference.backlog import renewed_turn, turn_ms
from xpi_ray.simulation import columns as at
from xpi_ray.simulation.state import State

HERE, TURN, LEFT = 0, 1, 2
"""Requests that are there, what one takes, and when the last one that was answered left."""


def enter(state: State, row: np.ndarray, now: float) -> None:
    """A request comes to the edge."""
    state.backlog[int(row[at.SITE]), HERE] += 1
    row[at.AT_EDGE], row[at.CALLED] = 1, now


def leave(state: State, row: np.ndarray, now: float, replied: bool) -> None:
    """The edge is through with a request, if that was there, or the router waits no longer."""
    if not row[at.AT_EDGE]:
        return
    row[at.AT_EDGE] = 0
    backlog = state.backlog[int(row[at.SITE])]
    backlog[HERE] -= 1
    taken = turn_ms(row[at.CALLED] / 1000, backlog[LEFT] / 1000, now / 1000)
    if not replied:
        backlog[TURN] = renewed_turn(backlog[TURN], max(taken, backlog[TURN]))
    elif row[at.EDGE_BLOCKS] <= row[at.PARTITION]:
        backlog[TURN], backlog[LEFT] = renewed_turn(backlog[TURN], taken), now
