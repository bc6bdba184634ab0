"""Puts the present results into the READMEs, from the files that the benchmarks wrote.

python -m benchmarks.tables

benchmarks/results/*.json ─► tables ─► between `<!-- table: name -->` and `<!-- end -->`
"""

import json
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import fmean, median

from benchmarks.result import FOLDER, Rows
from benchmarks.summary import baseline, column, equal_accuracy, grouped, same_level, spread

ROOT = Path(__file__).parent.parent
DOCUMENTS = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")
SHOWN_EXITS = (1, 4, 8, 12)  # of a training


def exits(rows: Rows) -> list[list[str]]:
    """Accuracy and cost of each exit."""
    table = [["exit", "test accuracy", "MMAC", "frame at 8 bits", "frame at 4 bits"]]
    for row in rows:
        sizes = [f"{row[f'frame_bytes_level_{level}']:,.0f} B" for level in (1, 2)]
        last = row is rows[-1]
        table.append(
            [
                str(row["exit"]),
                f"{float(row['accuracy']):.2%}",
                f"{float(row['cumulative_macs']) / 1e6:.1f}",
                *(["none"] * 2 if last else sizes),
            ]
        )
    return table


def parity(rows: Rows) -> list[list[str]]:
    """Medians over the repeats, and what they are relative to bare Serve's."""
    table = [["side", "in flight", "p50 ms", "p95 ms", "requests/s", "to bare Serve's"]]
    for concurrency in dict.fromkeys(row["concurrency"] for row in rows):
        rates = {}
        for side in dict.fromkeys(row["side"] for row in rows):
            runs = [r for r in rows if r["side"] == side and r["concurrency"] == concurrency]
            p50, p95, rate = (
                median(float(run[key]) for run in runs)
                for key in ("p50_ms", "p95_ms", "requests_per_s")
            )
            rates[side] = rate
            cells = [f"`{side}`", str(concurrency), f"{p50:.2f}", f"{p95:.2f}", f"{rate:.0f}"]
            table.append([*cells, ""])
        for line, rate in zip(table[-len(rates) :], rates.values(), strict=True):
            line[-1] = f"{rate / rates['bare_serve']:.2f} x"
    return table


def plan_push(rows: Rows) -> list[list[str]]:
    """Time until all have acknowledged."""
    table = [["router replicas", "p50 ms", "p95 ms", "pushes"]]
    for row in rows:
        table.append([str(row[key]) for key in ("routers", "p50_ms", "p95_ms", "pushes")])
    return table


def partitions(rows: Rows) -> list[list[str]]:
    """Accuracy and bytes at each split."""
    table = [["partition", "images", "accuracy", "mean frame", "answered by the cloud"]]
    for row in rows:
        accuracy, size = f"{float(row['accuracy']):.1%}", f"{row['frame_bytes_mean']:,} B"
        cells = [str(row["partition"]), str(row["images"]), accuracy, size]
        table.append([*cells, str(row["answered_by_cloud"])])
    return table


def block_overhead(rows: Rows) -> list[list[str]]:
    """Medians over the repeats."""
    table = [["side", "p50 ms", "to the whole network's"]]
    for side in dict.fromkeys(row["side"] for row in rows):
        runs = [row for row in rows if row["side"] == side]
        p50, ratio = (median(float(run[key]) for run in runs) for key in ("p50_ms", "ratio"))
        table.append([f"`{side}`", f"{p50:.2f}", f"{ratio:.3f} x"])
    return table


def training_ablation(rows: Rows) -> list[list[str]]:
    """Accuracy over seeds, and behind it the points to plain training on the same seeds."""
    shown = [exit_ for exit_ in SHOWN_EXITS if any(row["exit"] == exit_ for row in rows)]
    table = [["training", "seeds", *(f"exit {exit_}" for exit_ in shown), "mean of all exits"]]
    by_training = {str(name): own for (name,), own in grouped(rows, "training").items()}
    for name, own in by_training.items():
        plain = by_training.get(baseline(name), [])
        cells = [_beside(_by_seed(own, exit_), _by_seed(plain, exit_)) for exit_ in (*shown, None)]
        table.append([f"`{name}`", str(len(grouped(own, "seed"))), *cells])
    return table


def _by_seed(rows: Rows, exit_: int | None) -> dict[int, float]:
    """Accuracy of an exit, or the mean over all, by seed."""
    kept = [row for row in rows if exit_ in (row["exit"], None)]
    seeds = grouped(kept, "seed").items()
    return {int(seed): fmean(column(own, "accuracy")) for (seed,), own in seeds}


def _beside(own: dict[int, float], plain: dict[int, float]) -> str:
    """``own`` in percent, with its lead over ``plain`` in points."""
    text = spread(own.values()).text(100)
    leads = [100 * (own[seed] - plain[seed]) for seed in own if seed in plain]
    return f"{text} ({fmean(leads):+.2f})" if leads and own != plain else text


def skewness(rows: Rows) -> list[list[str]]:
    """Skewness of each block, means over seeds, and what they come to over all blocks."""
    blocks = sorted({int(row["block"]) for row in rows})
    head = ["network", "training", "reference", *map(str, blocks), "mean"]
    head += ["disorder violations", "misplaced"]
    table = [head]
    for key, own in grouped(rows, "dataset", "network", "training", "reference").items():
        dataset, network, training, reference = map(str, key)
        by_block = grouped(own, "block")
        each = [f"{fmean(column(by_block[(b,)], 'skewness')):.2f}" for b in blocks]
        seeds = [fmean(column(same, "skewness")) for same in grouped(own, "seed").values()]
        violations, misplaced = (
            fmean(column(own, key)) for key in ("disorder_violation_rate", "misplaced_share")
        )
        names = [f"{network}, {dataset}", f"`{training}`", reference]
        table.append([*names, *each, spread(seeds).text(), f"{violations:.1%}", f"{misplaced:.1%}"])
    return table


def carry_rate(rows: Rows) -> list[list[str]]:
    """Bytes at plain training's accuracy less half a point, relative to plain training's."""
    head = ["network", "training", "best accuracy", "reached at", "frame", "symbols' entropy"]
    table = [[*head, "frame at the same level"]]
    for (dataset, network), same in grouped(rows, "dataset", "network").items():
        frames, entropies = (equal_accuracy(same, s) for s in ("bytes_mean", "entropy_bytes"))
        levels_alike = same_level(same, "bytes_mean")
        for (training,), own in grouped(same, "training").items():
            found = frames.get(str(training), {})
            reached = sum(math.isfinite(ratio) for ratio in found.values())
            levels = grouped(own, "partition", "level").values()
            best = max(fmean(column(level, "accuracy")) for level in levels)
            others = entropies.get(str(training), {})
            alike = levels_alike.get(str(training), [])
            cells = [_median(ratios) for ratios in (found.values(), others.values(), alike)]
            names = [f"{network}, {dataset}", f"`{training}`", f"{best:.2%}"]
            table.append([*names, f"{reached} of {len(found)}", *cells])
    return table


def _median(ratios: Iterable[float]) -> str:
    """The median of ratios, those where an accuracy is not reached counted as infinite."""
    middle = median([*ratios] or [math.inf])
    return f"{middle:.2f} x" if math.isfinite(middle) else "not reached"


def importance(rows: Rows) -> list[list[str]]:
    """Agreement with Captum."""
    head = ["attribution", "block", "m", "completeness gap, mean", "median"]
    table = [[*head, "correlation of channel shares", "their relative L1 difference"]]
    for row in rows:
        keys = ("completeness_gap_mean", "completeness_gap_median")
        gaps = [f"{float(row[key]):.2%}" if key in row else "" for key in keys]
        shares = [f"{float(row['correlation']):.4f}", f"{float(row['relative_l1']):.4f}"]
        steps = str(row.get("steps", ""))
        table.append([f"`{row['attribution']}`", str(row["block"]), steps, *gaps, *shares])
    return table


def training_cost(rows: Rows) -> list[list[str]]:
    """Medians over the repeats."""
    table = [
        ["training", "ms a step", "s to make a block ready", "s an epoch", "to plain training's"]
    ]
    for (side,), own in grouped(rows, "side").items():
        step, ready, epoch, ratio = (
            median(column(own, key)) for key in ("step_ms", "ready_s", "epoch_s", "ratio")
        )
        cells = [f"{step:.0f}", f"{ready:.1f}", f"{epoch:.0f}", f"{ratio:.2f} x"]
        table.append([f"`{side}`", *cells])
    return table


TABLES: dict[str, Callable[[Rows], list[list[str]]]] = {
    "exits_cifar10": exits,
    "exits_cifar10_xai_distilled_quantized": exits,
    "exits_cifar100": exits,
    "exits_tiny_imagenet": exits,
    "parity": parity,
    "plan_push": plan_push,
    "partitions": partitions,
    "block_overhead": block_overhead,
    "training_ablation": training_ablation,
    "skewness": skewness,
    "carry_rate": carry_rate,
    "importance": importance,
    "training_cost": training_cost,
}


def markdown(table: list[list[str]]) -> str:
    """A table of cells, the first row its head."""
    lines = ["| " + " | ".join(row) + " |" for row in table]
    lines.insert(1, "|" + "---|" * len(table[0]))
    return "\n".join(lines)


def fill(text: str) -> str:
    """The text with every marked table made anew."""

    def replace(match: re.Match[str]) -> str:
        path = FOLDER / f"{match[1]}.json"
        if not path.is_file():
            return match[0]
        body = markdown(TABLES[match[1]](json.loads(path.read_text())["rows"]))
        return f"<!-- table: {match[1]} -->\n{body}\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->.*?<!-- end -->", replace, text, flags=re.DOTALL)


def main() -> None:
    """Fill all tables."""
    for document in DOCUMENTS:
        document.write_text(fill(document.read_text()))
        print(document)


if __name__ == "__main__":
    main()
