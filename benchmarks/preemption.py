"""When a competing load takes the processor from a job, recorded on this machine.

    arrivals ─► competitor: decodes a photo for each ─┐ one core, the job with the least priority
                job: a busy loop that reads the clock ─┴─► Preemptions ─► stops of requests

Whatever else the machine does counts too, if it keeps the job waiting for ``LEAST_MS``.
"""

import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xpi_ray.compression.image import decode_image

PHOTO = Path(__file__).parent.parent / "tests" / "data" / "cat.jpg"
SIZE = (224, 224)
LEAST_MS = 0.5
LEAST_PRIORITY = 19  # nice

Floats = NDArray[np.float64]


class Preemptions(NamedTuple):
    """What a job saw."""

    began_ms: Floats
    """When it lost the processor, since the recording began, ascending."""
    ended_ms: Floats
    """When it had it back."""

    def stops_ms(self, count: int, rng: np.random.Generator) -> Floats:
        """Times after which requests are stopped, those that begin first first.

        Args:
            count: How many requests; left out are those that would begin while the job waits.
            rng: Draws when they begin, at any time evenly.
        """
        begins_ms = np.sort(rng.uniform(self.ended_ms[0], self.began_ms[-1], count))
        following = np.searchsorted(self.began_ms, begins_ms)
        runs = begins_ms >= self.ended_ms[following - 1]
        return (self.began_ms[following] - begins_ms)[runs]


def record(arrivals_ms: Floats, core: int = 0) -> Preemptions:
    """Let both run until the last arrival; needs no privileges.

    Args:
        arrivals_ms: When the competitor gets something to do, ascending.
        core: That both run on.
    """
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Barrier(2)
    seen, told = spawn.Pipe(duplex=False)
    competitor = spawn.Process(target=compete, args=(arrivals_ms, core, ready))
    job = spawn.Process(target=watch, args=(float(arrivals_ms[-1]), core, ready, told))
    for process in (competitor, job):
        process.start()
    gaps = np.array(seen.recv())
    for process in (competitor, job):
        process.join()
    return Preemptions(*gaps.T)


def compete(arrivals_ms: Floats, core: int, ready: "multiprocessing.synchronize.Barrier") -> None:
    """Decode a photo for each arrival, one after the other."""
    os.sched_setaffinity(0, {core})
    photo = PHOTO.read_bytes()
    decode_image(photo, SIZE)
    ready.wait()
    began_s = time.perf_counter()
    for due_ms in arrivals_ms:
        time.sleep(max(began_s + due_ms / 1000 - time.perf_counter(), 0))
        decode_image(photo, SIZE)


def watch(
    duration_ms: float, core: int, ready: "multiprocessing.synchronize.Barrier", told: Connection
) -> None:
    """Tell begin and end of every pause of ``LEAST_MS``, in ms, once the time is over."""
    os.sched_setaffinity(0, {core})
    os.nice(LEAST_PRIORITY)
    ready.wait()
    gaps: list[tuple[float, float]] = []
    began_s = last_s = time.perf_counter()
    while last_s < began_s + duration_ms / 1000:
        now_s = time.perf_counter()
        if now_s - last_s >= LEAST_MS / 1000:
            gaps.append((1000 * (last_s - began_s), 1000 * (now_s - began_s)))
        last_s = now_s
    told.send(gaps)
