"""Plots of Xpi beside its peers.

benchmarks/results/*.json ─► rows ─► comparison_plots ─► benchmarks.plots, benchmarks.report
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from benchmarks.comparison_tables import DATASETS, NAMES, PARTS, PHASES, SIDES, over_seeds
from benchmarks.palette import COLOURS, MARKERS, Style
from benchmarks.policy_tables import LATENCY_GOAL, SATISFACTION_GOAL
from benchmarks.result import Rows
from benchmarks.summary import column, grouped

OTHERS = [name for name in NAMES if name != "xpi"]
SYSTEMS: dict[str, Style] = {
    "xpi": {"color": "black", "marker": "*", "linewidth": 2.5, "zorder": 3},
    **{
        name: {
            "color": COLOURS[number % len(COLOURS)],
            "marker": MARKERS[number % (len(MARKERS) - 2)],
            "linestyle": "-" if number < len(COLOURS) else "--",
        }
        for number, name in enumerate(OTHERS)
    },
}
"""Xpi is black, and whom it is compared with has the colours."""
EDGE, CLOUD, NOBODY = COLOURS[0], COLOURS[4], COLOURS[6]
WANTED = 0.95  # of requests in time, for a capacity
MIDDLE = 0.75  # the load of latencies and exits, or else the one that is nearest


def figure4(rows: Rows) -> Iterator[tuple[str, Figure]]:
    """The poster's Figure 4: accuracy and deadline satisfaction, mean and deviation over seeds."""
    figure, axes = _panels(rows, 2, (11, 3.6))
    bars = {
        "accuracy": "accuracy of what was in time (%)",
        "deadline_satisfaction": "answered in time (%)",
    }
    for (dataset, own), line in zip(_datasets(rows), axes, strict=True):
        by_system = _systems(own)
        for axis, (key, label) in zip(line, bars.items(), strict=True):
            found = [over_seeds(same, key) for same in by_system.values()]
            _bars(
                axis,
                list(by_system),
                [s.mean * 100 for s in found],
                [s.deviation * 100 for s in found],
            )
            lowest = min(100 * (s.mean - s.deviation) for s in found)
            axis.set(title=DATASETS[dataset], ylabel=label, ylim=(max(0, lowest - 10), None))
    yield "figure4", figure


def figure4_costs(rows: Rows) -> Iterator[tuple[str, Figure]]:
    """What a request costs: bytes over the link, processor time at the edge."""
    figure, axes = _panels(rows, 2, (11, 3.6))
    bars = {"frame_bytes": "bytes of frames, a request", "edge_cpu_ms": "edge's CPU, ms a request"}
    for (dataset, own), line in zip(_datasets(rows), axes, strict=True):
        by_system = _systems(own)
        for axis, (key, label) in zip(line, bars.items(), strict=True):
            found = [over_seeds(same, key) for same in by_system.values()]
            _bars(axis, list(by_system), [s.mean for s in found], [s.deviation for s in found])
            axis.set(title=DATASETS[dataset], ylabel=label)
    yield "figure4_costs", figure


def figure4_load(rows: Rows) -> Iterator[tuple[str, Figure]]:
    """In time, and right and in time, over the load."""
    figure, axes = _panels(rows, 2, (11, 4.2))
    lines = {"deadline_satisfaction": "in time (%)", "right_in_time": "right and in time (%)"}
    for (dataset, own), line in zip(_datasets(rows), axes, strict=True):
        for axis, (key, label) in zip(line, lines.items(), strict=True):
            for system, same in _systems(own).items():
                by_load = sorted(grouped(same, "load").items())
                shares = [100 * over_seeds(each, key).mean for _, each in by_load]
                axis.plot([float(load) for (load,), _ in by_load], shares, **_line(system))
            axis.set(title=DATASETS[dataset], ylabel=label)
            axis.set_xlabel("load, to what the edge holds with the full network")
            axis.grid(alpha=0.3)
    _legend(figure, rows)
    yield "figure4_load", figure


def figure4_latency(rows: Rows) -> Iterator[tuple[str, Figure]]:
    """Share of all requests that were answered within a time, at a middle load."""
    figure, axes = _panels(rows, 1, (7.5, 4.2))
    for (dataset, own), (axis,) in zip(_datasets(rows), axes, strict=True):
        load, middle = _middle(own)
        for system, same in _systems(middle).items():
            style = {**_line(system), "marker": ""}
            axis.plot(column(same, "latency_ms"), 100 * np.array(column(same, "share")), **style)
        axis.set(title=f"{DATASETS[dataset]}, load {load:g}", xlim=(0, 700), ylim=(0, 102))
        axis.axvspan(100, 500, color="0.94", zorder=0)
        axis.set(xlabel="latency (ms); shaded: deadlines", ylabel="of all requests (%)")
        axis.grid(alpha=0.3)
    _legend(figure, rows)
    yield "figure4_latency", figure


def figure4_bandwidth(rows: Rows) -> Iterator[tuple[str, Figure]]:
    """In time by what the link carried meanwhile, over all loads."""
    figure, axes = _panels(rows, 1, (7.5, 4.2))
    for (dataset, own), (axis,) in zip(_datasets(rows), axes, strict=True):
        for system, same in _systems(own).items():
            points = []
            for each in grouped(same, "from_bps").values():
                weights = column(each, "requests")
                mbps = np.average(column(each, "mean_bps"), weights=weights) / 1e6
                in_time = np.average(column(each, "deadline_satisfaction"), weights=weights)
                points.append((max(float(mbps), 0.01), 100 * float(in_time)))
            axis.plot(*zip(*sorted(points), strict=True), **_line(system))
        axis.set(title=DATASETS[dataset], xscale="log", ylabel="in time (%)")
        axis.set_xlabel("what the link carried while a request had time (Mbit/s)")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.grid(alpha=0.3)
    _legend(figure, rows)
    yield "figure4_bandwidth", figure


def figure4_exits(rows: Rows) -> Iterator[tuple[str, Figure]]:
    """Which exit answered, and where it ran, at a middle load; a picture for each data set."""
    for dataset, own in _datasets(rows):
        load, middle = _middle(own)
        by_system = _systems(middle)
        columns = 5
        lines = -(-len(by_system) // columns)
        figure = Figure(figsize=(12, 0.8 + 2.1 * lines), layout="constrained")
        axes = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flat
        for axis, (system, same) in zip(axes, by_system.items(), strict=False):
            below: dict[int, float] = {}
            for row in same:
                exit_, share = int(row["exit"]), 100 * float(row["share"])
                colour = {"edge": EDGE, "cloud": CLOUD}.get(str(row["tier"]), NOBODY)
                axis.bar(exit_, share, bottom=below.get(exit_, 0.0), color=colour)
                below[exit_] = below.get(exit_, 0.0) + share
            axis.set_title(NAMES[system], fontsize="medium")
            axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axis.grid(axis="y", alpha=0.3)
        for axis in list(axes)[len(by_system) :]:
            axis.set_axis_off()
        figure.supxlabel("exit that answered; 0: none did")
        figure.supylabel("of all requests (%)")
        figure.suptitle(f"{DATASETS[dataset]}, load {load:g}")
        handles = [
            Line2D([], [], color=colour, linewidth=6, label=label)
            for colour, label in ((EDGE, "at the edge"), (CLOUD, "in the cloud"), (NOBODY, "none"))
        ]
        figure.legend(handles=handles, loc="outside lower right", ncols=3, fontsize="small")
        yield f"figure4_exits_{dataset}", figure


def capacity(rows: Rows) -> Iterator[tuple[str, Figure]]:
    """Requests a second that are held."""
    figure, axes = _panels(rows, 1, (7.5, 3.6))
    for (dataset, own), (axis,) in zip(_datasets(rows), axes, strict=True):
        by_system = _systems(own)
        found = [float(same[0]["requests_per_s_at_95"]) for same in by_system.values()]
        _bars(axis, list(by_system), found)
        axis.set(title=DATASETS[dataset], ylabel=f"requests a second\nat {WANTED:.0%} in time")
    yield "capacity", figure


def ablation(rows: Rows) -> Iterator[tuple[str, Figure]]:
    """Right and in time without each part."""
    figure, axes = _panels(rows, 1, (7.5, 3.6))
    for (dataset, own), (axis,) in zip(_datasets(rows), axes, strict=True):
        parts = {str(part): same for (part,), same in grouped(own, "without").items()}
        shown = [part for part in PARTS if part in parts]
        found = [over_seeds(parts[part], "right_in_time") for part in shown]
        places = np.arange(len(shown))
        colours = ["black" if part == "nothing" else COLOURS[1] for part in shown]
        means, deviations = ([100 * s[i] for s in found] for i in (0, 1))
        axis.barh(places, means, xerr=deviations, color=colours, capsize=2, ecolor="0.4")
        axis.set_yticks(places, [PARTS[part] for part in shown])
        axis.invert_yaxis()
        axis.set(title=DATASETS[dataset], xlabel="right and in time (%)", ylabel="without")
        axis.set_xlim(left=max(0, min(means) - 10))
        axis.grid(axis="x", alpha=0.3)
    yield "ablation", figure


def cable_pull(rows: Rows) -> Iterator[tuple[str, Figure]]:
    """In time before, during and after."""
    figure, axes = _panels(rows, 1, (7.5, 3.6))
    for (dataset, own), (axis,) in zip(_datasets(rows), axes, strict=True):
        by_system = _systems(own)
        for place, phase in enumerate(PHASES):
            same = [[row for row in each if row["phase"] == phase] for each in by_system.values()]
            found = [over_seeds(each, "deadline_satisfaction") for each in same]
            x = np.arange(len(found)) + 0.27 * (place - 1)
            heights, deviations = ([100 * s[i] for s in found] for i in (0, 1))
            colour = (COLOURS[2], COLOURS[3], COLOURS[1])[place]
            style: Style = {"color": colour, "ecolor": "0.4", "capsize": 1, "label": phase}
            axis.bar(x, heights, 0.25, yerr=deviations, **style)
        _ticks(axis, list(by_system))
        axis.set(title=DATASETS[dataset], ylabel="in time (%)")
        axis.grid(axis="y", alpha=0.3)
        axis.legend(fontsize="small", loc="lower left")
    yield "cable_pull", figure


def figure4_simulated(rows: Rows) -> Iterator[tuple[str, Figure]]:
    """Predicted over measured, a point for each run; bands are the goals."""
    figure = Figure(figsize=(10, 5), layout="constrained")
    in_time, latency = figure.subplots(1, 2)
    for system, own in _systems(rows).items():
        for axis, key, scale in ((in_time, "satisfaction", 100), (latency, "p50_ms", 1)):
            simulated, measured = (scale * np.array(column(own, f"{side}_{key}")) for side in SIDES)
            style = {**_line(system), "linestyle": "", "linewidth": 1, "markersize": 4}
            axis.plot(measured, simulated, **style)
    for axis, unit in ((in_time, "in time (%)"), (latency, "p50 (ms)")):
        limits = (*axis.get_xlim(), *axis.get_ylim())
        ends = np.array([max(min(limits), 0), max(limits)])
        goal = 100 * SATISFACTION_GOAL if axis is in_time else LATENCY_GOAL * ends
        axis.fill_between(ends, ends - goal, ends + goal, color="black", alpha=0.1, linewidth=0)
        axis.plot(ends, ends, color="black", linewidth=0.8)
        axis.set(xlim=ends, ylim=ends, aspect="equal")
        axis.set(xlabel=f"measured {unit}", ylabel=f"predicted {unit}")
        axis.grid(alpha=0.3)
    _legend(figure, rows)
    yield "figure4_simulated", figure


def _datasets(rows: Rows) -> list[tuple[str, Rows]]:
    groups = {str(name): own for (name,), own in grouped(rows, "dataset").items()}
    return [(name, groups[name]) for name in DATASETS if name in groups]


def _systems(rows: Rows) -> dict[str, Rows]:
    groups = {str(name): own for (name,), own in grouped(rows, "system").items()}
    return {name: groups[name] for name in NAMES if name in groups}


def _middle(rows: Rows) -> tuple[float, Rows]:
    """The load that is nearest to the middle, and its rows."""
    loads = sorted({float(row["load"]) for row in rows}, key=lambda load: abs(load - MIDDLE))
    return loads[0], [row for row in rows if row["load"] == loads[0]]


def _panels(
    rows: Rows, columns: int, size: tuple[float, float]
) -> tuple[Figure, Sequence[Sequence[Axes]]]:
    """A line of panels for each data set."""
    lines = len(_datasets(rows))
    figure = Figure(figsize=(size[0], size[1] * lines), layout="constrained")
    axes: Sequence[Sequence[Axes]] = figure.subplots(lines, columns, squeeze=False)
    return figure, axes


def _bars(
    axis: Axes, systems: list[str], heights: list[float], deviations: list[float] | None = None
) -> None:
    colours = [SYSTEMS[name]["color"] for name in systems]
    axis.bar(range(len(systems)), heights, yerr=deviations, color=colours, capsize=2, ecolor="0.4")
    _ticks(axis, systems)
    axis.grid(axis="y", alpha=0.3)


def _ticks(axis: Axes, systems: list[str]) -> None:
    labels = [NAMES[name] for name in systems]
    axis.set_xticks(range(len(systems)), labels, rotation=35, ha="right", fontsize="small")


def _line(system: str) -> Style:
    return {"markersize": 5, "label": NAMES[system], **SYSTEMS[system]}


def _legend(figure: Figure, rows: Rows) -> None:
    handles = [Line2D([], [], **_line(system)) for system in _systems(rows)]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize="small")


COMPARISON: dict[str, Callable[[Rows], Iterator[tuple[str, Figure]]]] = {
    "figure4": figure4,
    "figure4_costs": figure4_costs,
    "figure4_load": figure4_load,
    "figure4_latency": figure4_latency,
    "figure4_bandwidth": figure4_bandwidth,
    "figure4_exits": figure4_exits,
    "capacity": capacity,
    "ablation": ablation,
    "cable_pull": cable_pull,
    "figure4_simulated": figure4_simulated,
}
SOURCES = {"figure4_costs": "figure4", "figure4_load": "figure4"}
"""The result that a plot is made of, where it has another name."""
