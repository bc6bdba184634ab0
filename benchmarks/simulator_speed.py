"""How many requests does the simulator get through in a second, and does its cost grow evenly?

    python -m benchmarks.simulator_speed

From one site to a thousand, each with its own trace, machine and load, on one core; a replica in
the cloud for every 16 sites. What is timed is the engine: sites are drawn, and it is compiled,
beforehand. Without real traces it draws links of constant rates. Writes
``benchmarks/results/simulator_speed.json``.
"""

import argparse
import dataclasses
import time

import numpy as np
from rich.progress import track

from benchmarks.result import write
from rl.task import make_task, read_sources
from xpi_ray.bundle import Bundle
from xpi_ray.link.traces import Trace, trace_folder
from xpi_ray.policies.plan import SLO_CLASSES
from xpi_ray.simulation.cluster import Cluster, Machines
from xpi_ray.simulation.draw import Sources, draw_site

SITES = (1, 3, 10, 30, 100, 300, 1_000)
SITES_PER_REPLICA = 16
REQUESTS = 200_000
"""About as many in each run: fewer sites run for longer."""
RATES_BPS = (0.5e6, 2e6, 8e6)
RATE_RPS = 12.0  # about, of a drawn site


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    sources = _sources()
    task = make_task(Bundle.load(), SLO_CLASSES, sources)
    rows = []
    for count in track(SITES, "sites"):
        duration_s = REQUESTS / RATE_RPS / count
        rng = np.random.default_rng(count)
        machines = Machines(replicas=-(-count // SITES_PER_REPLICA))
        setting = dataclasses.replace(task.setting, machines=machines)
        sites = [draw_site(setting, sources, duration_s, rng) for _ in range(count)]
        Cluster(setting, sites[:1]).advance(1_000)  # compiles
        for repeat in range(arguments.repeats):
            cluster = Cluster(setting, sites)
            started = time.perf_counter()
            ended = len(cluster.advance(np.inf))
            seconds = time.perf_counter() - started
            rows.append(
                {
                    "sites": count,
                    "repeat": repeat,
                    "requests": ended,
                    "simulated_s": round(duration_s, 3),
                    "seconds": round(seconds, 4),
                }
            )
    print(write("simulator_speed", {"repeats": arguments.repeats}, rows))


def _sources() -> Sources:
    """Recorded links, or where there are none, links that carry what they always carry."""
    steady = [np.ones(7_200)]
    if trace_folder() is not None:
        return Sources(read_sources()[1].traces, steady)
    return Sources([Trace(f"{bps:g}", 1.0, np.full(60, bps)) for bps in RATES_BPS], steady)


if __name__ == "__main__":
    main()
