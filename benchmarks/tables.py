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

from benchmarks import comparison_tables, testbed_tables
from benchmarks.elastic_tables import (
    elastic_deadlines,
    elastic_inference,
    elastic_live,
    elastic_modes,
    elastic_planner,
    elastic_predictors,
)
from benchmarks.policy_tables import (
    decision_time,
    drift,
    encodings,
    learning_curves,
    policies,
    policies_by_trace,
    simulator_fidelity,
    simulator_speed,
)
from benchmarks.result import FOLDER, Rows
from benchmarks.sacd_tables import sacd_costs, sacd_exits, sacd_summary, sacd_sweep
from benchmarks.summary import baseline, column, equal_accuracy, grouped, same_level, spread

ROOT = Path(__file__).parent.parent
DOCUMENTS = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")
SHOWN_EXITS = (1, 4, 8, 12)  # of a training
SHOWN_LEVELS = (2, 3, 4, 5, 6)
MIDDLE = 6  # partition
OTHERS = {  # quantiser and coder, after the systems' papers
    "SPINN (8 bits, shuffled, LZ4)": ("minmax8", "lz4-shuffled"),
    "SAC-d, JALAD (4 bits, Huffman)": ("minmax4", "huffman"),
    "AgileNN, Xpi (8 centres, LZW)": ("centres8", "lzw"),
}
SOURCES = {name: "codecs" for name in ("codecs_coders", "codecs_time")}
SOURCES["sacd_summary"] = "sacd_sweep"
SOURCES["policies_by_trace"] = "policies"
SOURCES |= comparison_tables.SOURCES | testbed_tables.SOURCES


def exits(rows: Rows) -> list[list[str]]:
    """Accuracy and cost of each exit."""
    table = [["exit", "test accuracy", "MMAC"]]
    for row in rows:
        cost = f"{float(row['cumulative_macs']) / 1e6:.1f}"
        table.append([str(row["exit"]), f"{float(row['accuracy']):.2%}", cost])
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


def estimator(rows: Rows) -> list[list[str]]:
    """Relative errors on full seconds, means over the kinds of arrivals."""
    names = list(dict.fromkeys(str(row["estimator"]) for row in rows))
    table = [["trace", "use", *(f"`{name}`" for name in names), "within 80 %", "dead seconds"]]
    seconds = [row for row in rows if row["asked"] == "second"]
    for (trace, part), same in grouped(seconds, "trace", "use").items():
        cells = []
        for own in grouped(same, "estimator").values():
            middle, high = (fmean(column(own, f"error_{key}")) for key in ("median", "p90"))
            cells.append(f"{middle:.2f} / {high:.2f}")
        within = fmean(float(row["within_80"]) for row in same if "within_80" in row)
        dead = str(same[0]["nothing_carried"])
        table.append([str(trace), str(part).replace("_", " "), *cells, f"{within:.0%}", dead])
    return table


def codecs(rows: Rows) -> list[list[str]]:
    """The ladder beside what other systems send, at every partition: bytes and accuracy."""
    table = [["after block", "exact", *OTHERS, *(f"level {level}" for level in SHOWN_LEVELS)]]
    for (partition,), same in grouped(rows, "partition").items():
        cells = [str(partition), f"{float(same[0]['exact_accuracy']):.1%}"]
        wanted = [
            *({"quantiser": quantiser, "coder": coder} for quantiser, coder in OTHERS.values()),
            *({"coder": "ladder", "level": level} for level in SHOWN_LEVELS),
        ]
        for facts in wanted:
            row = next((r for r in same if all(r.get(k) == v for k, v in facts.items())), None)
            cells.append(_payload(row) if row else "")
        table.append(cells)
    return table


def codecs_coders(rows: Rows) -> list[list[str]]:
    """Every quantiser with every coder, in the middle of the network."""
    same = [row for row in rows if row["partition"] == MIDDLE and "bound_bytes" in row]
    coders = list(dict.fromkeys(str(row["coder"]) for row in same))
    head = ["quantiser", "accuracy", *(f"`{coder}`" for coder in coders)]
    table = [[*head, "entropy of channels"]]
    for (quantiser,), own in grouped(same, "quantiser").items():
        sizes = [f"{float(row['bytes_mean']):,.0f}" for row in own]
        bound = f"{float(own[0]['bound_bytes']):,.0f}"
        table.append([f"`{quantiser}`", f"{float(own[0]['accuracy']):.1%}", *sizes, bound])
    return table


def frame_prefix(rows: Rows) -> list[list[str]]:
    """Accuracy by the fraction of a frame that arrives."""
    cut = [row for row in rows if row["level"] in SHOWN_LEVELS]
    fractions = list(dict.fromkeys(float(row["fraction"]) for row in cut))
    arrive = [f"{fraction:.0%} arrive" for fraction in fractions]
    table = [["after block", "level", "edge's exit", *arrive]]
    for (partition, level), own in grouped(cut, "partition", "level").items():
        edge = f"{float(own[0]['edge_accuracy']):.1%}"
        cells = [f"{float(row['accuracy']):.1%}" for row in own]
        table.append([str(partition), str(level), edge, *cells])
    return table


def codecs_time(rows: Rows) -> list[list[str]]:
    """Milliseconds to encode and to decode, on one core."""
    ladder = [row for row in rows if row.get("coder") == "ladder"]
    levels = list(dict.fromkeys(str(row["level"]) for row in ladder))
    table = [["after block", "blocks before", *(f"level {level}" for level in levels)]]
    for (partition,), own in grouped(ladder, "partition").items():
        cells = {
            str(row["level"]): f"{float(row['encode_ms']):.2f} + {float(row['decode_ms']):.2f}"
            for row in own
        }
        found = [cells.get(level, "") for level in levels]
        table.append([str(partition), f"{float(own[0]['blocks_ms']):.2f}", *found])
    return table


def _payload(row: dict[str, object]) -> str:
    """Bytes and accuracy of one way to send a carry."""
    return f"{row['bytes_mean']:,.0f} B, {row['accuracy']:.1%}"


def deepcod(rows: Rows) -> list[list[str]]:
    """A learned encoder and decoder, and the ladder's levels: bytes and accuracy."""
    coders = ("lzw", "huffman", "packed", "context")
    table = [["after block", "what is sent", "accuracy", "LZW", "Huffman", "3 bits each", "ranges"]]
    for row in rows:
        accuracy = f"{float(row['accuracy']):.2%}"
        if "level" in row:
            cells = [f"level {row['level']}", accuracy, "", "", "", f"{row['bytes_mean']:,.0f} B"]
        else:
            sizes = [f"{row[f'bytes_{coder}']:,.0f} B" for coder in coders]
            cells = [f"{row['channels']} channels", accuracy, *sizes]
        table.append([str(row["partition"]), *cells])
    return table


def fuzz(rows: Rows) -> list[list[str]]:
    """What the fuzzer tried."""
    table = [["reader", "inputs", "crashes", "longest, ms", "most memory"]]
    for row in rows:
        memory = f"{float(row['most_bytes']) / 2**20:.1f} MiB"
        cells = [f"{row['inputs']:,}", str(row["crashes"]), str(row["longest_ms"]), memory]
        table.append([f"`{row['target']}`", *cells])
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
    "estimator": estimator,
    "codecs": codecs,
    "codecs_coders": codecs_coders,
    "codecs_time": codecs_time,
    "frame_prefix": frame_prefix,
    "deepcod": deepcod,
    "fuzz": fuzz,
    "sacd_exits": sacd_exits,
    "sacd_costs": sacd_costs,
    "sacd_sweep": sacd_sweep,
    "sacd_summary": sacd_summary,
    "policies": policies,
    "policies_by_trace": policies_by_trace,
    "decision_time": decision_time,
    "learning_curves": learning_curves,
    "encodings": encodings,
    "simulator_speed": simulator_speed,
    "simulator_fidelity": simulator_fidelity,
    "drift": drift,
    "elastic_inference": elastic_inference,
    "elastic_predictors": elastic_predictors,
    "elastic_planner": elastic_planner,
    "elastic_modes": elastic_modes,
    "elastic_live": elastic_live,
    "elastic_deadlines": elastic_deadlines,
    **comparison_tables.COMPARISON,
    **testbed_tables.TESTBED,
}


def markdown(table: list[list[str]]) -> str:
    """A table of cells, the first row its head."""
    lines = ["| " + " | ".join(row) + " |" for row in table]
    lines.insert(1, "|" + "---|" * len(table[0]))
    return "\n".join(lines)


def fill(text: str) -> str:
    """The text with every marked table made anew."""

    def replace(match: re.Match[str]) -> str:
        path = FOLDER / f"{SOURCES.get(match[1], match[1])}.json"
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
