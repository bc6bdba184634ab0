"""How many requests a second can each system take before one in twenty is late or lost?

    python -m benchmarks.capacity [--datasets …] [--traces …] [--seeds …]

On the testbed as figure4 is, over the same links. For each system the load is bisected between
``LEAST`` and ``MOST`` times what the edge holds with the full network, ``STEPS`` times, for the
highest at which 95 % of the requests, over all traces and seeds, are answered by their deadlines;
0 where even the least load is too much. The ratio is to Xpi's.

Writes ``benchmarks/results/capacity.json``.
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.campaign import WARM_UP_S, Asking, Campaign, add_options, there
from benchmarks.result import Row, write
from benchmarks.systems import PEERS, XPI, System, peer

WANTED = 0.95
LEAST, MOST = 0.1, 12.8
STEPS = 6  # so that neighbours are 8 % apart
FOLDER = Path("runs") / "capacity"


def main() -> None:
    """Run what is not there, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_options(parser)
    parser.set_defaults(folder=FOLDER, seeds=[0])
    parser.add_argument("--systems", nargs="+", default=list(PEERS), choices=list(PEERS))
    options = parser.parse_args()
    rows: list[Row] = []
    with Campaign(options.folder, WARM_UP_S, options.duration) as campaign:
        for dataset in options.datasets:
            holds_rps = campaign.edge(dataset).holds_rps
            found = {
                system.name: holds_rps * _of(campaign, system, options.traces, options.seeds)
                for system in there(peer(name, dataset) for name in options.systems)
            }
            rows += [
                {
                    "system": name,
                    "dataset": dataset,
                    "requests_per_s_at_95": round(rps, 3),
                    **({"to_xpi": round(rps / found[XPI], 3)} if found.get(XPI) else {}),
                }
                for name, rps in found.items()
            ]
        settings = {
            **campaign.settings(options.datasets),
            "traces": options.traces,
            "seeds": options.seeds,
            "least": LEAST,
            "most": MOST,
            "steps": STEPS,
        }
    print(write("capacity", settings, rows))


def _of(campaign: Campaign, system: System, traces: list[str], seeds: list[int]) -> float:
    """The highest load that a system takes."""

    def satisfaction(load: float) -> float:
        askings = [Asking(trace, seed, load) for seed in seeds for trace in traces]
        in_time = [campaign.run(system, asking).counted.in_time for asking in askings]
        return float(np.concatenate(in_time).mean())

    return highest(satisfaction)


def highest(satisfaction: Callable[[float], float]) -> float:
    """Bisect, by the load's logarithm, for the highest load at which enough are in time.

    Args:
        satisfaction: Share in time at a load; taken to fall.

    Returns:
        That load; 0 if there is none, ``MOST`` if it is no less.
    """
    if satisfaction(LEAST) < WANTED:
        return 0.0
    low, high = LEAST, MOST
    for _ in range(STEPS):
        middle = round(math.sqrt(low * high), 4)
        if satisfaction(middle) >= WANTED:
            low = middle
        else:
            high = middle
    return low


if __name__ == "__main__":
    main()
