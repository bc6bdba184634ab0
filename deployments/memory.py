"""Keeps the garbage collector of a replica's process out of its requests' way.

EdgeExecutor, CloudExecutor, Router ─ once they are ready ─► settle
"""

import gc


def settle() -> None:
    """Let collections pass over all that is there by now, which stays as long as the process.

    PyTorch, Ray and the model are 300,000 objects. To look at them all takes a server more than
    100 ms, and a weak edge the time of many requests.
    """
    gc.collect()
    gc.freeze()
