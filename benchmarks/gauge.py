"""How quick is the edge's share of a processor just now?

    Rig ─► Gauge, a program in the edge's share ─► Xpi's full network, image by image ─► median, ms

What else the machine's owner lets run makes a processor quicker and slower by the hour. Before each
run the share is set by this, so that an edge is as weak as it was when it was measured.

    python -m benchmarks.gauge cifar10     # prints a median for every line that it reads
"""

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from statistics import median
from typing import Self

import torch

from benchmarks.hosts import TestbedError
from benchmarks.share import Share
from xpi_ray.bundle import Bundle

WARM_UPS, RUNS = 3, 15


class Gauge:
    """Use it as a context.

    Args:
        dataset: Whose network runs.
        share: That it runs in, beside what is limited there.
        core: The processor that it runs on.
    """

    def __init__(self, dataset: str, share: Share, core: int) -> None:
        self._dataset, self._share, self._core = dataset, share, core

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gauge", self._dataset],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with ExitStack() as stack:
            stack.push(self)
            self._said()  # it is ready; starting need not be slow
            self._share.add(self._process.pid)
            os.sched_setaffinity(self._process.pid, {self._core})
            stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def full_network_ms(self) -> float:
        """What the full network takes in the share as it is set; takes some of these times.

        Raises:
            TestbedError: The program has ended.
        """
        assert self._process.stdin is not None
        self._process.stdin.write("run\n")
        self._process.stdin.flush()
        return float(self._said())

    def _said(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise TestbedError("the gauge of the edge's share ended; what it said is above")
        return str(line)


@torch.inference_mode()
def main() -> None:
    """Say that all is ready, then measure for each line that comes."""
    torch.set_num_threads(1)
    network = Bundle.load(sys.argv[1]).network.prepare()
    image = torch.randint(256, (1, 3, *network.image_size), dtype=torch.uint8)
    network(image)
    print("ready", flush=True)
    for _ in sys.stdin:
        taken_ms = []
        for _ in range(WARM_UPS + RUNS):
            begun_s = time.perf_counter()
            network(image)
            taken_ms.append(1000 * (time.perf_counter() - begun_s))
        print(median(taken_ms[WARM_UPS:]), flush=True)


if __name__ == "__main__":
    main()
