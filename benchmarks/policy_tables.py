"""Tables of scheduling policies: what they are worth, live too, how quick, what they are judged by.

benchmarks/results/*.json ─► rows ─► benchmarks.tables
"""

import math
from statistics import fmean, median

from benchmarks.result import Rows
from benchmarks.summary import column, grouped, spread

NAMES = {
    "oracle": "full knowledge (the ceiling)",
    "fixed": "best fixed plan in hindsight",
    "ppo": "PPO",
    "sac": "SAC",
    "forecast": "best forecast, untrained",
    "greedy": "least latency (greedy)",
    "static": "the bundle's static plan",
}
ENCODINGS = {
    "shortlist_forecast": "shortlist, the forecast corrected",
    "shortlist": "shortlist",
    "every_plan": "every plan",
    "box": "partition, strictness and level in a box",
}

PHASES = ("before", "during", "after")  # the drift
METRICS = {  # of the simulator's fidelity
    "p50_ms": "p50, ms",
    "p95_ms": "p95, ms",
    "deadline_satisfaction": "in time",
    "mean_exit": "mean exit",
    "crossed": "crossed the link",
}
SHARES = ("deadline_satisfaction", "crossed")
LATENCY_GOAL, SATISFACTION_GOAL = 0.10, 0.03  # that simulated ones may differ by
GOALS = {
    **dict.fromkeys(("p50_ms", "p95_ms"), f"within {LATENCY_GOAL:.0%}"),
    "deadline_satisfaction": f"within {100 * SATISFACTION_GOAL:g} points",
}


def policies(rows: Rows) -> list[list[str]]:
    """Means over traces, and over seeds where there are several with their range."""
    table = [["policy", "reward", "of the oracle's", "in time", "accuracy", "edge, ms a request"]]
    ceiling = fmean(column([row for row in rows if row["policy"] == "oracle"], "reward"))
    for name, label in NAMES.items():
        own = [row for row in rows if row["policy"] == name]
        if not own:
            continue
        rewards = [
            fmean(column([row for row in own if row["seed"] == seed], "reward"))
            for seed in dict.fromkeys(row["seed"] for row in own)
        ]
        reward = fmean(rewards)
        spread = f" ({min(rewards):.4f} to {max(rewards):.4f})" if len(rewards) > 1 else ""
        in_time, accuracy, edge_ms = (
            fmean(column(own, key)) for key in ("deadline_satisfaction", "accuracy", "edge_ms")
        )
        cells = [label, f"{reward:.4f}{spread}", f"{reward / ceiling:.1%}", f"{in_time:.2%}"]
        table.append([*cells, f"{accuracy:.2%}", f"{edge_ms:.1f}"])
    return table


def policies_by_trace(rows: Rows) -> list[list[str]]:
    """Reward and share of deadlines met, trace by trace; means over seeds."""
    shown = [name for name in NAMES if any(row["policy"] == name for row in rows)]
    table = [["trace", *(NAMES[name] for name in shown)]]
    for trace in dict.fromkeys(str(row["trace"]) for row in rows):
        cells = [f"`{trace}`"]
        for name in shown:
            own = [row for row in rows if row["trace"] == trace and row["policy"] == name]
            in_time = fmean(column(own, "deadline_satisfaction"))
            cells.append(f"{fmean(column(own, 'reward')):.4f}, {in_time:.2%}")
        table.append(cells)
    return table


def decision_time(rows: Rows) -> list[list[str]]:
    """One decision in the scheduler's process."""
    table = [["policy", "p50, ms", "p99, ms"]]
    for row in rows:
        table.append([f"`{row['policy']}`", *(f"{row[key]:.3f}" for key in ("p50_ms", "p99_ms"))])
    return table


def simulator_speed(rows: Rows) -> list[list[str]]:
    """Medians over the repeats."""
    table = [["sites", "requests", "seconds", "requests a second"]]
    for (sites,), runs in grouped(rows, "sites").items():
        seconds = median(column(runs, "seconds"))
        requests = int(runs[0]["requests"])
        cells = [str(sites), f"{requests:,}", f"{seconds:.2f}", f"{requests / seconds:,.0f}"]
        table.append(cells)
    return table


def learning_curves(rows: Rows) -> list[list[str]]:
    """The best validation of each training, and what it took."""
    table = [["algorithm", "seed", "best validation", "at decision", "decisions", "minutes"]]
    for (policy, seed), run in grouped(rows, "policy", "seed").items():
        best, last = max(run, key=lambda row: float(row["validation"])), run[-1]
        cells = [NAMES[str(policy)], str(seed), f"{float(best['validation']):+.3f}"]
        cells += [f"{best['steps']:,}", f"{last['steps']:,}"]
        table.append([*cells, f"{float(last['seconds']) / 60:.1f}"])
    return table


def encodings(rows: Rows) -> list[list[str]]:
    """Thousandths of utility beyond the forecast alone over seeds, and the minutes of a run."""
    shown = [name for name in ("ppo", "sac") if any(row["algorithm"] == name for row in rows)]
    heads = [head for name in shown for head in (f"{NAMES[name]}: gain", "minutes")]
    table = [["encoding", "actions", "seeds", *heads]]
    for name, label in ENCODINGS.items():
        own = [row for row in rows if row["encoding"] == name]
        if not own:
            continue
        cells = [label, f"`{own[0]['actions']}`", str(len(grouped(own, "seed")))]
        for algorithm in shown:
            runs = [row for row in own if row["algorithm"] == algorithm]
            gain = spread(column(runs, "gain")).text(1000, 1) if runs else ""
            minutes = f"{fmean(column(runs, 'seconds')) / 60:.1f}" if runs else ""
            cells += [gain, minutes]
        table.append(cells)
    return table


def drift(rows: Rows) -> list[list[str]]:
    """Percent missed in each phase, and seconds to recover, over repeats."""
    head = ["side", "repeats", *(f"missed {phase}, %" for phase in PHASES)]
    head += ["accuracy during, %", "in time and right, %"]
    table = [[*head, "recovery during, s", "recovery after, s"]]
    for (side,), own in grouped(rows, "side").items():
        by_phase = {str(phase): same for (phase,), same in grouped(own, "phase").items()}
        cells = [f"`{side}`", str(len(grouped(own, "repeat")))]
        cells += [spread(column(by_phase[name], "missed")).text(100, 1) for name in PHASES]
        during = by_phase["during"]
        # It is NaN where nothing was answered in time.
        known = [row for row in during if math.isfinite(float(row["accuracy"]))]
        cells.append(spread(column(known, "accuracy")).text(100, 1) if known else "")
        both = [(1 - float(row["missed"])) * float(row["accuracy"]) for row in known]
        cells.append(spread(both + [0.0] * (len(during) - len(known))).text(100, 1))
        recovery = [spread(column(by_phase[name], "recovery_s")) for name in PHASES[1:]]
        table.append([*cells, *(each.text(digits=1) for each in recovery)])
    return table


def simulator_fidelity(rows: Rows) -> list[list[str]]:
    """Shares differ in points, all else in percent of what was measured."""
    table = [["scenario", "metric", "simulated", "measured", "difference", "goal"]]
    for row in rows:
        metric = str(row["metric"])
        simulated, measured = float(row["simulated"]), float(row["measured"])
        if metric in SHARES:
            figures = [f"{simulated:.1%}", f"{measured:.1%}"]
            difference = f"{100 * (simulated - measured):+.1f} points"
        else:
            figures = [f"{simulated:.2f}", f"{measured:.2f}"]
            difference = f"{simulated / measured - 1:+.1%}"
        names = [f"`{row['scenario']}`", METRICS[metric]]
        table.append([*names, *figures, difference, GOALS.get(metric, "")])
    return table
