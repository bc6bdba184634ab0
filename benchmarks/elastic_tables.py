"""Tables of elastic inference: answers at unpredictable stops, what plans cost, live streams.

benchmarks/results/*.json ─► rows ─► benchmarks.tables
"""

from statistics import fmean

import numpy as np

from benchmarks.result import Rows
from benchmarks.summary import column, grouped, spread

PLANS = {
    "planner": "exact planner",
    "planner_hybrid": "EINet's hybrid search",
    "planner_random": "random search",
    "planner_perfect": "exact planner, confidences known",
    "static_25": "25 % of the exits",
    "static_50": "50 % of the exits",
    "static_100": "every exit",
    "confidence_90": "until 90 % sure",
    "confidence_95": "until 95 % sure",
    "confidence_99": "until 99 % sure",
    "single_exit": "last exit alone",
}
EARLY = 3  # exits seen, of those by which predictors are shown


def elastic_inference(rows: Rows) -> list[list[str]]:
    """Accuracy at uniform stops, over seeds, by network."""
    networks = grouped(rows, "dataset", "network")
    names = [f"{network}, {dataset}" for dataset, network in networks]
    table = [["which exits run", *names]]
    for plan, label in PLANS.items():
        cells = [
            spread(column(own, "accuracy")).text(100)
            for own in (_of(same, "plan", plan) for same in networks.values())
            if own
        ]
        if cells:
            table.append([label, *cells])
    seeds = [str(len(grouped(same, "seed"))) for same in networks.values()]
    return [*table, ["seeds", *seeds]]


def elastic_predictors(rows: Rows) -> list[list[str]]:
    """Mean absolute error of confidences to come, after one exit, ``EARLY``, and on average."""
    table = [["network", "predictor", "after one exit", f"after {EARLY}", "mean"]]
    for (dataset, network, name), own in grouped(rows, "dataset", "network", "predictor").items():
        cells = [_error(_of(own, "seen", seen)) for seen in (1, EARLY)]
        table.append([f"{network}, {dataset}", str(name).replace("_", " "), *cells, _error(own)])
    return table


def _error(rows: Rows) -> str:
    return f"{fmean(column(rows, 'mean_absolute_error')):.4f}" if rows else ""


def elastic_planner(rows: Rows) -> list[list[str]]:
    """Time of a plan, and the expected accuracy that a search gives away."""
    table = [["exits", "stops", "search", "p50, ms", "p99, ms", "gap, points", "worst gap"]]
    for row in rows:
        gaps = [f"{100 * float(row[key]):.3f}" for key in ("optimality_gap", "worst_gap")]
        times = [f"{float(row[key]):.4f}" for key in ("p50_ms", "p99_ms")]
        names = [str(row[key]) for key in ("exits", "stops", "planner")]
        table.append([*names, *times, *gaps])
    return table


def elastic_modes(rows: Rows) -> list[list[str]]:
    """Accuracy at the stop by mode, of uniform stops and of recorded ones."""
    kinds = grouped(rows, "stops")
    heads = [f"{head}, {kind}" for (kind,) in kinds for head in ("right", "answered", "edge, ms")]
    table = [["mode", *heads]]
    for (mode,) in grouped(rows, "mode"):
        cells: list[str] = []
        for same in kinds.values():
            own = _of(same, "mode", mode)
            cells += [_share(own, "accuracy"), _share(own, "answered"), _mean(own, "edge_ms")]
        table.append([str(mode), *cells])
    return table


def elastic_deadlines(rows: Rows) -> list[list[str]]:
    """Accuracy at a known deadline by mode, and the time that is used."""
    deadlines = grouped(rows, "deadline")
    table = [["mode", *(f"{float(share):.0%} of the whole" for (share,) in deadlines)]]
    for (mode,) in grouped(rows, "mode"):
        same = [_of(own, "mode", mode) for own in deadlines.values()]
        table.append([str(mode), *(_share(own, "accuracy") for own in same)])
    return table


def _share(rows: Rows, key: str) -> str:
    return f"{spread(column(rows, key)).text(100)} %" if rows else ""


def _mean(rows: Rows, key: str) -> str:
    return f"{fmean(column(rows, key)):.1f}" if rows else ""


def elastic_live(rows: Rows) -> list[list[str]]:
    """How the streams ended."""
    reached = [row for row in rows if row["reached"]]
    hung_up = [row for row in reached if not row["ended"]]
    late_ms = column(hung_up, "late_ms")
    with_exit = [row for row in reached if float(row["ran"])]
    empty = [row for row in with_exit if not float(row["held"])]
    return [
        ["streams", "hung up on", "compute over after, p50", "p99", "longest", "in hand"],
        [
            str(len(rows)),
            str(len(hung_up)),
            *(f"{np.quantile(late_ms, share):.1f} ms" for share in (0.5, 0.99, 1.0)),
            f"{len(with_exit) - len(empty)} of {len(with_exit)} whose first exit ran",
        ],
    ]


def _of(rows: Rows, key: str, value: object) -> Rows:
    return [row for row in rows if row[key] == value]
