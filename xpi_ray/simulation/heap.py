"""The events that are to come, the earliest first: a binary heap in the state's arrays.

engine ─► push … pop ─► engine

An event is its kind and, in the lower bits, the number of the site, request or replica.
"""

from xpi_ray.simulation.state import State

# Kinds of events: at a site, a replica, or of a request.
ARRIVE, BATCH, LEAVE, LATE, SEND, REACH, REPLY, GIVE_UP, HELD = 0, 1, 2, 3, 4, 5, 6, 7, 8
BITS = 40
MASK = (1 << BITS) - 1


def push(state: State, time_ms: float, kind: int, index: int) -> None:
    """Let something happen at a time."""
    place = state.counts[0]
    state.counts[0] += 1
    while place > 0:
        above = (place - 1) >> 1
        if state.heap_ms[above] <= time_ms:
            break
        state.heap_ms[place] = state.heap_ms[above]
        state.heap_event[place] = state.heap_event[above]
        place = above
    state.heap_ms[place] = time_ms
    state.heap_event[place] = (kind << BITS) | index


def pop(state: State) -> tuple[float, int, int]:
    """Take out the earliest event: its time, kind and index."""
    first_ms, first = state.heap_ms[0], state.heap_event[0]
    state.counts[0] -= 1
    count = state.counts[0]
    last_ms, last = state.heap_ms[count], state.heap_event[count]
    place = 0
    while True:
        below = 2 * place + 1
        if below >= count:
            break
        if below + 1 < count and state.heap_ms[below + 1] < state.heap_ms[below]:
            below += 1
        if last_ms <= state.heap_ms[below]:
            break
        state.heap_ms[place] = state.heap_ms[below]
        state.heap_event[place] = state.heap_event[below]
        place = below
    state.heap_ms[place], state.heap_event[place] = last_ms, last
    return first_ms, first >> BITS, first & MASK
