"""Draws the present results, from the files that the benchmarks wrote.

python -m benchmarks.plots

benchmarks/results/*.json ─► plots ─► docs/results/*.png
"""

import json
import re
from collections.abc import Callable, Iterator
from itertools import cycle, product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from benchmarks import comparison_plots
from benchmarks.palette import COLOURS, MARKERS, Style
from benchmarks.policy_plots import (
    drift,
    drift_seconds,
    learning_curves,
    policies,
    simulator_fidelity,
)
from benchmarks.result import FOLDER, Rows
from benchmarks.summary import PLAIN, XAI, column, grouped, spread

PICTURES = Path(__file__).parent.parent / "docs" / "results"
DPI = 85

PANELS = {
    "what is trained": r"^(?!.*_(rho|k)_)",
    "target skewness ρ (0.8 where no other)": rf"^({PLAIN}|{XAI})$|_rho_",
    "share of branch channels (20 % where no other)": rf"^({PLAIN}|{XAI})$|_k_",
}
PARTITIONS = (1, 3, 4, 6, 8, 11)  # of which the carries are drawn
DRAWN_POINTS = 12  # below the best accuracy; what is worse serves nobody
FAMILIES: dict[str, Any] = {"minmax": "-", "centres": ":"}  # of levels

# Exits of MSDNet (Huang et al., ICLR'18) on CIFAR-10 as the page of siddsax/visualizemsdnet lists
# them, over multiply-adds of its ten-exit network for CIFAR-100 as read from a figure of BoostNet
# (Yu et al., AAAI'23): million multiply-adds, accuracy in percent.
MSDNET_CIFAR10 = (
    *((15, 90.80), (25, 92.33), (38, 93.18), (52, 93.76), (62, 94.14)),
    *((74, 94.13), (88, 94.27), (100, 94.22), (110, 94.21), (122, 94.17)),
)

SENT = {  # quantisers and coder of each curve
    "ladder, layers": ("step", "ladder"),
    "ladder, latents": ("latents", "ladder"),
    "min-max, context model": (r"minmax\d+", "context"),
    "min-max, Huffman": (r"minmax\d+", "huffman"),
    "min-max, shuffled LZ4": (r"minmax\d+", "lz4-shuffled"),
    "centres, LZW": (r"centres\d+", "lzw"),
    "centres, context model": (r"centres\d+", "context"),
}

SWEPT: dict[str, Style] = {  # policies of the bandwidth sweep
    "best": {"label": "best of all choices", "color": "black", "linestyle": "--", "zorder": 3},
    "on_device": {"label": "on the device", "color": COLOURS[6], "linestyle": ":"},
    "sacd": {"label": "SAC-d", "color": COLOURS[0], "linewidth": 4},  # to be seen below DQN's
    "dqn": {"label": "DQN", "color": COLOURS[1]},
}
TICKS = (0.01, 0.2, 0.5, 1, 2, 3, 4, 6, 8, 10)  # MB/s
CHOICE = {"exit": "exit", "partition": "layers on device", "bits": "bits (0: none)"}


def exits_cifar10(rows: Rows) -> Iterator[tuple[str, Figure]]:
    """Accuracy over multiply-accumulates of the packaged network, beside MSDNet's."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axis = figure.subplots()
    macs, accuracies = (np.array(column(rows, key)) for key in ("cumulative_macs", "accuracy"))
    axis.plot(macs / 1e6, 100 * accuracies, marker="o", markersize=4, label="packaged network")
    style: Style = {
        "color": "black",
        "linestyle": "--",
        "marker": ".",
        "label": "MSDNet, published",
    }
    axis.plot(*zip(*MSDNET_CIFAR10, strict=True), **style)
    axis.set(xlabel="million multiply-accumulates up to the exit", ylabel="test accuracy (%)")
    _logarithmic(axis)
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small", loc="lower right")
    yield "exits_cifar10", figure


def training_ablation(rows: Rows) -> Iterator[tuple[str, Figure]]:
    """Accuracy over multiply-accumulates, mean and standard deviation over seeds."""
    names = [str(name) for (name,) in grouped(rows, "training")]
    panels = {title: [n for n in names if re.search(rule, n)] for title, rule in PANELS.items()}
    panels = {title: shown for title, shown in panels.items() if set(shown) - {PLAIN, XAI}}
    figure = Figure(figsize=(5 * max(1, len(panels)), 4.4), layout="constrained")
    axes = figure.subplots(1, max(1, len(panels)), sharey=True, squeeze=False)[0]
    for axis, (title, shown) in zip(axes, (panels or {"": names}).items(), strict=True):
        for name, style in _styles(shown).items():
            _band(axis, [row for row in rows if row["training"] == name], name, style)
        axis.set(title=title, xlabel="million multiply-accumulates up to the exit")
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small", loc="lower right")
    axes[0].set_ylabel("test accuracy of the exit (%)")
    yield "training_ablation", figure


def _band(axis: Axes, rows: Rows, name: str, style: Style) -> None:
    """One training's exits."""
    exits = [
        (column(own, "cumulative_macs")[0] / 1e6, spread(column(own, "accuracy")))
        for own in grouped(rows, "exit").values()
    ]
    x = np.array([macs for macs, _ in exits])
    mean, deviation = (100 * np.array([s[i] for _, s in exits]) for i in (0, 1))
    axis.plot(x, mean, label=name, markersize=4, **style)
    axis.fill_between(x, mean - deviation, mean + deviation, alpha=0.18, color=style["color"])


def carry_rate(rows: Rows) -> Iterator[tuple[str, Figure]]:
    """Accuracy over bytes: a picture for each network and data set, a panel for each partition."""
    for (dataset, network), same in grouped(rows, "dataset", "network").items():
        names = [str(name) for (name,) in grouped(same, "training")]
        styles = _styles([name for name in names if not re.search("_(rho|k)_", name)])
        partitions = [p for p in PARTITIONS if any(row["partition"] == p for row in same)]
        figure = Figure(figsize=(11, 6.4), layout="constrained")
        axes = figure.subplots(2, -(-len(partitions) // 2), sharey=True, squeeze=False).flat
        for axis, partition in zip(axes, partitions, strict=False):
            here = [row for row in same if row["partition"] == partition]
            for name, style in styles.items():
                _levels(axis, [row for row in here if row["training"] == name], style)
            axis.set_title(f"after block {partition}", fontsize="medium")
            axis.set_xlabel("bytes of a frame")
            _logarithmic(axis)
            axis.grid(alpha=0.3)
        best = 100 * max(column(same, "accuracy"))
        axes[0].set_ylim(bottom=max(axes[0].get_ylim()[0], best - DRAWN_POINTS))
        figure.supylabel("accuracy of the last exit (%)")
        figure.legend(handles=_legend(styles), loc="outside lower center", ncols=5)
        figure.suptitle(f"{network}, {dataset}: the carry crosses the link")
        yield f"carry_rate_{network}_{dataset}", figure


def codecs(rows: Rows) -> Iterator[tuple[str, Figure]]:
    """Accuracy over bytes of the ladder and of other systems' ways, a panel for each partition."""
    partitions = [p for p in PARTITIONS if any(row["partition"] == p for row in rows)]
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    axes = figure.subplots(2, -(-len(partitions) // 2), sharey=True, squeeze=False).flat
    for axis, partition in zip(axes, partitions, strict=False):
        here = [row for row in rows if row["partition"] == partition]
        exact, edge = (100 * float(here[0][f"{key}_accuracy"]) for key in ("exact", "edge"))
        axis.axhline(exact, color="black", linewidth=0.8, linestyle="--", label="exact carries")
        axis.axhline(edge, color="black", linewidth=0.8, linestyle=":", label="the edge's exit")
        for (name, (family, coder)), colour, marker in zip(
            SENT.items(), COLOURS, MARKERS, strict=False
        ):
            points = sorted(
                (float(row["bytes_mean"]), 100 * float(row["accuracy"]))
                for row in here
                if row.get("coder") == coder and re.fullmatch(family, str(row["quantiser"]))
            )
            sizes, accuracies = zip(*points, strict=True) if points else ((), ())
            axis.plot(sizes, accuracies, color=colour, marker=marker, markersize=4, label=name)
        axis.set_title(f"after block {partition}", fontsize="medium")
        axis.set_xlabel("bytes of a carry")
        _logarithmic(axis)
        axis.grid(alpha=0.3)
    best = 100 * max(column(rows, "accuracy"))
    axes[0].set_ylim(best - DRAWN_POINTS, best + 1)
    figure.supylabel("accuracy of the last exit (%)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    yield "codecs", figure


def sacd_sweep(rows: Rows) -> Iterator[tuple[str, Figure]]:
    """Latency and accuracy over bandwidth, means and extremes over seeds; every seed's choices."""
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    axes = figure.subplot_mosaic([["latency", "accuracy", key] for key in CHOICE], sharex=True)
    for (policy,), own in grouped(rows, "policy").items():
        by_rate = grouped(own, "bandwidth_bps")
        roots = [np.sqrt(float(bps) / 8e6) for (bps,) in by_rate]  # shows both ends
        style = SWEPT[str(policy)]
        for axis, key, scale in (("latency", "latency_ms", 1), ("accuracy", "accuracy", 100)):
            each = [scale * np.array(column(same, key)) for same in by_rate.values()]
            axes[axis].plot(roots, [found.mean() for found in each], **style)
            low, high = ([f(found) for found in each] for f in (np.min, np.max))
            axes[axis].fill_between(roots, low, high, alpha=0.2, color=style["color"])
        for key, seed in product(CHOICE, grouped(own, "seed").values()):
            if policy != "on_device":  # which has none
                axes[key].plot(roots, column(seed, key), drawstyle="steps-mid", **style)
    for key, title in CHOICE.items():
        axes[key].set(ylabel=title, ymargin=0.15)
        axes[key].yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes["latency"].set(ylabel="latency (ms)", yscale="log")
    axes["latency"].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes["latency"].yaxis.set_major_formatter("{x:g}")
    axes["latency"].yaxis.set_minor_formatter(NullFormatter())
    axes["accuracy"].set(ylabel="test accuracy (%)")
    for axis in axes.values():
        axis.set_xticks(np.sqrt(TICKS), [f"{tick:g}" for tick in TICKS])
        axis.grid(alpha=0.3)
    for key in ("latency", "accuracy", [*CHOICE][-1]):
        axes[key].set_xlabel("bandwidth (MB/s)")
    axes["latency"].legend(fontsize="small")
    yield "sacd_sweep", figure


def _logarithmic(axis: Axes) -> None:
    """Scale x by its logarithm, with 1 and 3 of each decade written out."""
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.xaxis.set_minor_formatter(NullFormatter())


def _levels(axis: Axes, rows: Rows, style: Style) -> None:
    """One training's levels at one partition."""
    for family, line in FAMILIES.items():
        levels = grouped([r for r in rows if str(r["level"]).startswith(family)], "level").values()
        x = [spread(column(level, "bytes_mean")).mean for level in levels]
        y = [100 * spread(column(level, "accuracy")).mean for level in levels]
        axis.plot(x, y, markersize=4, **{**style, "linestyle": line})


def _legend(styles: dict[str, Style]) -> list[Line2D]:
    """Trainings by marker, families of levels by line."""
    trainings = [
        Line2D([], [], label=name, color=style["color"], marker=style["marker"], linestyle="")
        for name, style in styles.items()
    ]
    return trainings + [
        Line2D([], [], label=f"{family} levels", color="black", linestyle=line)
        for family, line in FAMILIES.items()
    ]


def _styles(names: list[str]) -> dict[str, Style]:
    """Colour, marker and line of each training: plain black, XAI the first colour everywhere."""
    others = sorted((name for name in names if name != PLAIN), key=lambda name: name != XAI)
    styles = {
        name: {"color": colour, "marker": marker, "linestyle": "-"}
        for name, colour, marker in zip(others, cycle(COLOURS), cycle(MARKERS), strict=False)
    }
    plain = {PLAIN: {"color": "black", "marker": ".", "linestyle": "--"}} if PLAIN in names else {}
    return plain | styles


PLOTS: dict[str, Callable[[Rows], Iterator[tuple[str, Figure]]]] = {
    "exits_cifar10": exits_cifar10,
    "training_ablation": training_ablation,
    "carry_rate": carry_rate,
    "codecs": codecs,
    "sacd_sweep": sacd_sweep,
    "policies": policies,
    "learning_curves": learning_curves,
    "drift": drift,
    "drift_seconds": drift_seconds,
    "simulator_fidelity": simulator_fidelity,
    **comparison_plots.COMPARISON,
}


def main() -> None:
    """Draw all results that there are."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name, draw in PLOTS.items():
        path = FOLDER / f"{comparison_plots.SOURCES.get(name, name)}.json"
        if path.is_file():
            for title, figure in draw(json.loads(path.read_text())["rows"]):
                figure.savefig(PICTURES / f"{title}.png", dpi=DPI)
                print(PICTURES / f"{title}.png")


if __name__ == "__main__":
    main()
