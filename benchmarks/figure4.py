"""How do Xpi and its peers compare, on two hosts with a weak edge and real links?

    python -m benchmarks.figure4 [--short] [--datasets …] [--traces …] [--seeds …] [--loads …]

The poster's Figure 4 and more, on the testbed (benchmarks/testbed.py): every system answers the
same test images at the same times with the same deadlines over the same links. Systems take turns,
so that none has the machine's better hours. Loads are multiples of the requests a second that the
edge holds with the full network. A run that is there is not repeated; records lie in
``runs/figure4``. ``--short`` is the same in small, in a folder of its own.

Writes ``figure4.json``; and for plots ``figure4_latency.json`` (quantiles), ``figure4_exits.json``
(which exit answered where) and ``figure4_bandwidth.json`` (by the link's rate while a request had
time), over all traces and seeds.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.campaign import (
    SEEDS,
    TRACES,
    WARM_UP_S,
    Asking,
    Campaign,
    Run,
    add_options,
    there,
)
from benchmarks.replies import Replies
from benchmarks.result import Row, write
from benchmarks.systems import PEERS, System, peer
from xpi_ray.link.traces import Trace

LOADS = (0.3, 0.75, 1.5)
QUANTILES = (*(n / 100 for n in range(5, 100, 5)), 0.98, 0.99, 1.0)
BANDWIDTHS_BPS = (0.0, 1e5, 3e5, 1e6, 3e6, 1e7, np.inf)
SHORT = {  # what --short makes of the options
    "datasets": ["cifar10"],
    "traces": list(TRACES[:1]),
    "seeds": list(SEEDS[:1]),
    "loads": [LOADS[1]],
    "duration": 25.0,
    "warm_up": 6.0,
    "folder": Path("runs") / "figure4_short",
}


class Ran(NamedTuple):
    """A run, and the link that it met."""

    system: System
    asking: Asking
    run: Run
    link_bps: NDArray[np.float64]
    """Mean of the trace while each request had time."""


def main() -> None:
    """Run what is not there, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_options(parser)
    parser.add_argument("--loads", nargs="+", type=float, default=list(LOADS))
    parser.add_argument("--systems", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--warm-up", type=float, default=WARM_UP_S, help="seconds, not counted")
    parser.add_argument("--short", action="store_true", help="in under ten minutes")
    options = parser.parse_args()
    if options.short:
        vars(options).update(SHORT)
    ran: list[Ran] = []
    with Campaign(options.folder, options.warm_up, options.duration) as campaign:
        for dataset in options.datasets:
            systems = there(peer(name, dataset) for name in options.systems)
            for system, asking, run in campaign.all(systems, askings(options)):
                work = campaign.workload(dataset, asking)
                link_bps = rates(run.counted, work.trace, work.start_s)
                ran.append(Ran(system, asking, run, link_bps))
        settings = {
            **campaign.settings(options.datasets),
            "bundles": bundles(ran),
            "short": options.short,
            "took_s": round(sum(each.run.facts["took_s"] for each in ran)),
        }
    name = "figure4_short" if options.short else "figure4"
    print(write(name, settings, [each.run.row() for each in ran]))
    for part, rows in (("latency", latency), ("exits", exits), ("bandwidth", bandwidth)):
        print(write(f"{name}_{part}", settings, list(rows(ran))))


def askings(options: argparse.Namespace) -> list[list[Asking]]:
    """What is asked of every system, in groups: all traces of a seed and load."""
    return [
        [Asking(trace, seed, load) for trace in options.traces]
        for seed in options.seeds
        for load in options.loads
    ]


def bundles(ran: Sequence[Ran]) -> dict[str, str]:
    """Digests, by data set and system."""
    systems = {f"{each.system.dataset}/{each.system.name}": each.system for each in ran}
    return {name: system.load().digest.hex() for name, system in systems.items()}


def rates(replies: Replies, trace: Trace, start_s: float) -> NDArray[np.float64]:
    """What the link could carry, in the mean from when a request was due to its deadline."""
    begins_s = start_s + replies.due_s
    return np.array(
        [
            trace.mean_bps(begin_s, begin_s + deadline_ms / 1000)
            for begin_s, deadline_ms in zip(
                begins_s.tolist(), replies.deadline_ms.tolist(), strict=True
            )
        ]
    )


def latency(ran: Sequence[Ran]) -> Iterator[Row]:
    """Quantiles over the requests that were answered, by system and load; and how many were."""
    for key, same in _by_load(ran).items():
        latency_ms = np.concatenate([each.run.counted.latency_ms for each in same])
        answered = np.isfinite(latency_ms)
        if answered.any():
            found_ms = np.quantile(latency_ms[answered], QUANTILES)
            for quantile, each_ms in zip(QUANTILES, found_ms.tolist(), strict=True):
                share = quantile * float(answered.mean())
                yield {**_named(key), "share": round(share, 4), "latency_ms": round(each_ms, 2)}


def exits(ran: Sequence[Ran]) -> Iterator[Row]:
    """Share of requests by the exit that answered, and its tier; exit 0: none did."""
    for key, same in _by_load(ran).items():
        found = np.concatenate([each.run.counted.exit for each in same])
        at_edge = np.concatenate([each.run.counted.at_edge for each in same])
        for exit_ in np.unique(found).tolist():
            tiers = {"edge": at_edge, "cloud": ~at_edge} if exit_ else {"none": ~at_edge}
            for tier, chosen in tiers.items():
                share = float(((found == exit_) & chosen).mean())
                if share:
                    yield {**_named(key), "exit": exit_, "tier": tier, "share": round(share, 5)}


def bandwidth(ran: Sequence[Ran]) -> Iterator[Row]:
    """Requests in time by what the link carried."""
    for key, same in _by_load(ran).items():
        link_bps = np.concatenate([each.link_bps for each in same])
        in_time = np.concatenate([each.run.counted.in_time for each in same])
        band = np.digitize(link_bps, BANDWIDTHS_BPS) - 1
        for number in np.unique(band).tolist():
            chosen = band == number
            yield {
                **_named(key),
                "from_bps": BANDWIDTHS_BPS[number],
                "mean_bps": round(float(link_bps[chosen].mean())),
                "requests": int(chosen.sum()),
                "deadline_satisfaction": round(float(in_time[chosen].mean()), 4),
            }


def _by_load(ran: Sequence[Ran]) -> dict[tuple[str, str, float], list[Ran]]:
    groups: dict[tuple[str, str, float], list[Ran]] = {}
    for each in ran:
        key = each.system.name, each.system.dataset, each.asking.load
        groups.setdefault(key, []).append(each)
    return groups


def _named(key: tuple[str, str, float]) -> Row:
    return dict(zip(("system", "dataset", "load"), key, strict=True))


if __name__ == "__main__":
    main()
