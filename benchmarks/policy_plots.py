"""Plots of scheduling policies and of what they are trained and judged by.

benchmarks/results/*.json ─► rows ─► policy_plots ─► benchmarks.plots
"""

from collections.abc import Iterator
from itertools import cycle, product
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.palette import COLOURS, Style
from benchmarks.policy_tables import (
    LATENCY_GOAL,
    METRICS,
    NAMES,
    PHASES,
    SATISFACTION_GOAL,
    SHARES,
)
from benchmarks.result import Rows
from benchmarks.summary import column, grouped, spread
from xpi_ray.policies.learned import SHARPNESS

POLICIES: dict[str, Style] = {
    "oracle": {"color": "black", "marker": "*"},
    "fixed": {"color": COLOURS[4], "marker": "D"},
    "ppo": {"color": COLOURS[3], "marker": "o"},
    "sac": {"color": COLOURS[2], "marker": "s"},
    "forecast": {"color": COLOURS[0], "marker": "^"},
    "greedy": {"color": COLOURS[5], "marker": "v"},
    "static": {"color": COLOURS[6], "marker": "P"},
}
BASIS = "forecast"  # where training begins
NEAR = ("fixed", "ppo", "sac")  # those that differ little from it
LINES = ("-", "--", ":", "-.")  # of seeds
JUDGED = {"p50_ms": "o", "p95_ms": "s", "deadline_satisfaction": "D"}  # metrics that have goals

SMOOTHED_S = 3  # seconds that misses over time are a mean of


def learning_curves(rows: Rows) -> Iterator[tuple[str, Figure]]:
    """Validation over decisions, a line for each training."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axis = figure.subplots()
    axis.axhline(0, color="black", linewidth=0.8, label="the forecast alone")
    for (policy, seed), run in grouped(rows, "policy", "seed").items():
        style = {**POLICIES[str(policy)], "linestyle": LINES[int(seed) % len(LINES)]}
        label = f"{NAMES[str(policy)]}, seed {seed}"
        axis.plot(
            column(run, "steps"), column(run, "validation"), label=label, markersize=4, **style
        )
    axis.set(xlabel="decisions", ylabel=f"beyond the forecast (1/{SHARPNESS:g} of utility)")
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    yield "learning_curves", figure


def policies(rows: Rows) -> Iterator[tuple[str, Figure]]:
    """Reward by trace, means and extremes over seeds; close up, what is near to the forecast."""
    traces = [str(trace) for (trace,) in grouped(rows, "trace")]
    shown = [name for name in POLICIES if any(row["policy"] == name for row in rows)]
    basis = {str(r["trace"]): float(r["reward"]) for r in rows if r["policy"] == BASIS}
    figure = Figure(figsize=(11, 1.2 + 0.75 * len(traces)), layout="constrained")
    whole, close = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for place, name in enumerate(shown):
        own = grouped([row for row in rows if row["policy"] == name], "trace")
        rewards = [column(own[(trace,)], "reward") for trace in traces]
        shift = 0.7 * ((place + 0.5) / len(shown) - 0.5)
        y = [row + shift for row in range(len(traces))]
        style = {**POLICIES[name], "label": NAMES[name]}
        _ranges(whole, rewards, y, style)
        if name in NEAR:
            gains = [
                [1000 * (reward - basis[trace]) for reward in each]
                for trace, each in zip(traces, rewards, strict=True)
            ]
            _ranges(close, gains, y, style)
    close.axvline(0, color=POLICIES[BASIS]["color"], linestyle="--")
    whole.set_yticks(range(len(traces)), traces)
    whole.invert_yaxis()
    whole.set_xlabel("reward of a request")
    close.set_xlabel("thousandths beyond the best forecast, untrained")
    for axis in (whole, close):
        axis.grid(axis="x", alpha=0.3)
        for border in np.arange(len(traces) - 1) + 0.5:
            axis.axhline(border, color="black", linewidth=0.5, alpha=0.3)
    handles, labels = whole.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small")
    yield "policies", figure


def _ranges(axis: Axes, each: list[list[float]], y: list[float], style: Style) -> None:
    """Points at the means of each list, with bars from its least to its greatest."""
    means = [fmean(values) for values in each]
    least, greatest = ([f(values) for values in each] for f in (min, max))
    bars = np.subtract(means, least), np.subtract(greatest, means)
    axis.errorbar(means, y, xerr=bars, linestyle="", markersize=5, capsize=2, **style)


def drift(rows: Rows) -> Iterator[tuple[str, Figure]]:
    """Misses in each phase and seconds to recover, means and deviations over repeats."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    missed, recovery = figure.subplots(1, 2)
    sides = grouped(rows, "side").items()
    for place, ((side,), own) in enumerate(sides):
        by_phase = {str(phase): same for (phase,), same in grouped(own, "phase").items()}
        shift = 0.7 * ((place + 0.5) / len(sides) - 0.5)
        style: Style = {"color": COLOURS[place], "width": 0.7 / len(sides), "capsize": 2}
        for axis, key, scale, shown in (
            (missed, "missed", 100, PHASES),
            (recovery, "recovery_s", 1, PHASES[1:]),
        ):
            found = [spread(column(by_phase[phase], key)) for phase in shown]
            heights, deviations = ([scale * s[i] for s in found] for i in (0, 1))
            places = np.arange(len(shown)) + shift
            axis.bar(places, heights, yerr=deviations, label=str(side), **style)
    missed.set_xticks(range(len(PHASES)), [f"{phase} the drift" for phase in PHASES])
    missed.set_ylabel("requests not answered in time (%)")
    recovery.set_xticks(range(len(PHASES) - 1), ["from its beginning", "from its end"])
    recovery.set_ylabel("seconds to recover")
    for axis in (missed, recovery):
        axis.set_ylim(bottom=0)
        axis.grid(axis="y", alpha=0.3)
    missed.legend(fontsize="small")
    yield "drift", figure


def drift_seconds(rows: Rows) -> Iterator[tuple[str, Figure]]:
    """Misses over time, in the mean of repeats and of ``SMOOTHED_S``; the drift is shaded."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axis = figure.subplots()
    for ((side,), own), colour in zip(grouped(rows, "side").items(), COLOURS, strict=False):
        seconds = grouped(own, "second")
        missed, requests = (
            np.array([sum(column(each, key)) for each in seconds.values()])
            for key in ("missed", "requests")
        )
        missed, requests = (
            np.convolve(each, np.ones(SMOOTHED_S), "same") for each in (missed, requests)
        )
        axis.plot(100 * missed / np.maximum(requests, 1), label=str(side), color=colour)
    drifting = [row["second"] for row in rows if row["phase"] == PHASES[1]]
    axis.axvspan(min(drifting), max(drifting) + 1, color="0.93", zorder=0)
    axis.set_xlabel("seconds; shaded: a tenth of the bandwidth, three times the load")
    axis.set_ylabel("requests not answered in time (%)")
    axis.set_ylim(bottom=0)
    axis.grid(axis="y", alpha=0.3)
    axis.legend(fontsize="small")
    yield "drift_seconds", figure


def simulator_fidelity(rows: Rows) -> Iterator[tuple[str, Figure]]:
    """Simulated over measured latencies and shares in time; bands are the goals."""
    scenarios = dict(zip(grouped(rows, "scenario"), cycle(COLOURS), strict=False))
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    latency, in_time = figure.subplots(1, 2)
    for ((scenario,), colour), row in product(scenarios.items(), rows):
        if row["scenario"] == scenario and row["metric"] in JUDGED:
            key = str(row["metric"])
            axis, scale = (in_time, 100) if key in SHARES else (latency, 1)
            x, y = (scale * float(row[side]) for side in ("measured", "simulated"))
            axis.plot(x, y, JUDGED[key], color=colour)
    latency.set(xscale="log", yscale="log")
    for axis, unit in ((latency, "latency (ms)"), (in_time, "answered in time (%)")):
        least, most = _alike(axis)
        ends = np.array([least, most])
        goal = LATENCY_GOAL * ends if axis is latency else 100 * SATISFACTION_GOAL
        axis.fill_between(ends, ends - goal, ends + goal, color="black", alpha=0.1, linewidth=0)
        axis.plot(ends, ends, color="black", linewidth=0.8)
        axis.set(xlim=(least, most), ylim=(least, most), aspect="equal")
        axis.set(xlabel=f"measured {unit}", ylabel=f"simulated {unit}")
        axis.grid(alpha=0.3)
    for axis in (latency.xaxis, latency.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    handles = [
        *(Line2D([], [], color=c, linewidth=4, label=str(s)) for (s,), c in scenarios.items()),
        *(
            Line2D([], [], color="black", linestyle="", marker=marker, label=METRICS[key])
            for key, marker in JUDGED.items()
        ),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    yield "simulator_fidelity", figure


def _alike(axis: Axes) -> tuple[float, float]:
    """The least and the greatest of both scales."""
    limits = (*axis.get_xlim(), *axis.get_ylim())
    return min(limits), max(limits)
