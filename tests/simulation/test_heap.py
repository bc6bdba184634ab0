import heapq
from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.simulation.heap import pop, push


@given(
    st.lists(
        st.one_of(
            st.none(), st.tuples(st.floats(0, 1e9), st.integers(0, 7), st.integers(0, 2**40 - 1))
        ),
        max_size=60,
    )
)
def test_the_earliest_comes_first(steps):
    """As from the standard library's heap, whatever is pushed and popped."""
    state = SimpleNamespace(
        counts=np.zeros(2, np.int64), heap_ms=np.zeros(60), heap_event=np.zeros(60, np.int64)
    )
    twin = []
    for step in [*steps, *[None] * len(steps)]:
        if step is not None:
            push(state, *step)
            heapq.heappush(twin, step)
        elif twin:
            found = tuple(value.item() for value in pop(state))
            assert found[0] == twin[0][0]
            twin.remove(found)
            heapq.heapify(twin)
    assert state.counts[0] == len(twin)
