"""What becomes of requests while nothing crosses the link, and how soon is all as before?

    python -m benchmarks.cable_pull [--datasets …] [--seeds …]

On the testbed as figure4 is, at a light load over a link of constant rate. After ``CALM_S`` the
cable is pulled for 5 s, again and again, with ``BETWEEN_S`` between; what was under way is lost.
Phases: ``before`` the first pull, ``during`` one, ``after`` one until the next. Time to normal is
from the cable's being back until the first window of ``WINDOW_S`` in which the share in time is no
more than ``NEAR`` below that before (benchmarks/drift.py), 0 if none is.

Writes ``benchmarks/results/cable_pull.json``.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.campaign import WARM_UP_S, Asking, Campaign, Run, add_options, there
from benchmarks.drift import recovery_s
from benchmarks.replies import Replies
from benchmarks.result import Row, write
from benchmarks.rig import CUT_S
from benchmarks.systems import PEERS, peer
from benchmarks.testbed_measure import constant
from benchmarks.workload import Sources, sources

FOLDER = Path("runs") / "cable_pull"
MBPS = 4.0
LOAD = 0.5
CALM_S, BETWEEN_S, PULLS = 20.0, 20.0, 3
PHASES = ("before", "during", "after")


def main() -> None:
    """Run what is not there, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_options(parser)
    parser.add_argument("--systems", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.set_defaults(folder=FOLDER)
    options = parser.parse_args()
    link = constant(MBPS)
    drawn_from = Sources({link.name: link}, sources().recordings)
    duration_s = CALM_S + PULLS * (CUT_S + BETWEEN_S)
    rows: list[Row] = []
    with Campaign(options.folder, WARM_UP_S, duration_s, drawn_from) as campaign:
        for dataset in options.datasets:
            groups = [[Asking(link.name, seed, LOAD)] for seed in options.seeds]
            systems = there(peer(name, dataset) for name in options.systems)
            for _, _, run in campaign.all(systems, groups, pulls_s()):
                rows += judge(run)
        settings = {
            **campaign.settings(options.datasets),
            "mbps": MBPS,
            "load": LOAD,
            "pulled_s": CUT_S,
            "pulls": PULLS,
        }
    print(write("cable_pull", settings, rows))


def pulls_s() -> list[float]:
    """When the cable is pulled, since a run began."""
    return [WARM_UP_S + CALM_S + number * (CUT_S + BETWEEN_S) for number in range(PULLS)]


def judge(run: Run) -> Iterator[Row]:
    """A row for each phase, over all pulls."""
    cuts_s, counted = run.facts["cuts_s"], run.counted
    since_s = counted.due_s[:, None] - np.array(cuts_s)
    during = ((since_s >= 0) & (since_s < CUT_S)).any(1)
    after = ((since_s >= CUT_S) & (since_s < CUT_S + BETWEEN_S)).any(1) & ~during
    before = counted.due_s < cuts_s[0]
    usual = float(counted.in_time[before].mean())
    for phase, chosen in zip(PHASES, (before, during, after), strict=True):
        figures = counted.where(chosen).facts()
        row: dict[str, object] = {
            **{key: run.facts[key] for key in ("system", "dataset", "seed")},
            "phase": phase,
            **figures,
        }
        if phase == "after":
            found = [_recovery_s(counted, cut_s + CUT_S, usual) for cut_s in cuts_s]
            row["recovery_s"] = round(float(np.mean(found)), 2)
        yield row


def _recovery_s(replies: Replies, mended_s: float, usual: float) -> float:
    """From when the cable was back."""
    own = replies.during(mended_s, mended_s + BETWEEN_S)
    return recovery_s(own.due_s - mended_s, own.in_time, usual, BETWEEN_S)


if __name__ == "__main__":
    main()
