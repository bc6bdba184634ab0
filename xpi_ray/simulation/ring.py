"""What crossings took of late at each site: rings in the state's arrays.

engine ─► remember … recent ─► what the router keeps back for the next crossing
"""

from xpi_ray.inference.flow import kept_back_ms
from xpi_ray.simulation.state import RING, State

EDGE, LINK, CLOUD = 0, 1, 2
"""A site's rings: of the edge, of the link, and of the time in the cloud."""


def remember(state: State, site: int, ring: int, taken_ms: float) -> None:
    """Put a time in the place of the oldest."""
    state.crossings[site, ring, state.crossed[site, ring] % RING] = taken_ms
    state.crossed[site, ring] += 1


def recent(state: State, site: int, ring: int, prudence: float) -> float:
    """The time that this share of them keeps to, see ``kept_back_ms``."""
    count = min(state.crossed[site, ring], RING)
    rising = state.crossings[site, ring, :count].copy()
    for last in range(1, count):  # by insertion: a general sort takes the compiler seconds
        value, place = rising[last], last
        while place > 0 and rising[place - 1] > value:
            rising[place] = rising[place - 1]
            place -= 1
        rising[place] = value
    return kept_back_ms(rising, prudence)
