"""Puts the present results into the READMEs, from the files that the benchmarks wrote.

python -m benchmarks.tables

benchmarks/results/*.json ─► tables ─► between `<!-- table: name -->` and `<!-- end -->`
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.result import FOLDER

ROOT = Path(__file__).parent.parent
DOCUMENTS = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")

Rows = list[dict[str, float | int | str]]


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


TABLES: dict[str, Callable[[Rows], list[list[str]]]] = {
    "exits_cifar10": exits,
    "parity": parity,
    "plan_push": plan_push,
    "partitions": partitions,
    "block_overhead": block_overhead,
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


if __name__ == "__main__":
    for document in DOCUMENTS:
        document.write_text(fill(document.read_text()))
        print(document)
