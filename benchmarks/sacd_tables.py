"""Tables of SAC-d as published, of which `tables` fills in the README.

benchmarks/results/sacd_*.json ─► sacd_tables ─► tables
"""

from statistics import fmean

from benchmarks.result import Rows
from benchmarks.summary import column, grouped, spread

SHOWN_RATES = (0.01, 0.1, 0.2, 0.5, 1, 2, 4, 6, 7, 8, 9, 10)  # MB/s
PUBLISHED = (0.787, 0.817, 0.836)  # of the three exits, section IV-A1


def sacd_sweep(rows: Rows) -> list[list[str]]:
    """Latency, accuracy and choice at some bandwidths; the choice of the first seed."""
    policies = [str(policy) for (policy,) in grouped(rows, "policy")]
    table = [["MB/s", *(f"`{policy}`" for policy in policies)]]
    for (bandwidth,), same in grouped(rows, "bandwidth_bps").items():
        if float(bandwidth) / 8e6 in SHOWN_RATES:
            cells = [
                f"{_figures(own)}; exit {own[0]['exit']}, after {own[0]['partition']}"
                + (f", {own[0]['bits']} bits" if own[0]["bits"] else "")
                for own in grouped(same, "policy").values()
            ]
            table.append([f"{float(bandwidth) / 8e6:g}", *cells])
    return table


def _figures(rows: Rows) -> str:
    """Mean latency and accuracy over seeds."""
    latency, accuracy = (fmean(column(rows, key)) for key in ("latency_ms", "accuracy"))
    return f"{latency:.2f} ms, {accuracy:.1%}"


def sacd_summary(rows: Rows) -> list[list[str]]:
    """What each policy comes to over the sweep, and at its highest bandwidth."""
    most = max(column(rows, "bandwidth_bps"))
    top = grouped(rows, "policy", "bandwidth_bps")
    alone = fmean(column(top["on_device", most], "latency_ms"))
    head = ["policy", "seeds", "mean reward", "of the best", "mean accuracy", "at 10 MB/s"]
    table = [[*head, "faster there than on the device, each seed"]]
    by_policy = grouped(rows, "policy")
    best = fmean(column(by_policy[("best",)], "reward"))
    for (policy,), own in by_policy.items():
        rewards = spread(fmean(column(same, "reward")) for same in grouped(own, "seed").values())
        fast = [f"{alone / latency:.1f} x" for latency in column(top[policy, most], "latency_ms")]
        cells = [rewards.text(digits=4), f"{rewards.mean / best:.1%}"]
        cells += [f"{fmean(column(own, 'accuracy')):.2%}", _figures(top[policy, most])]
        table.append([f"`{policy}`", str(rewards.repeats), *cells, ", ".join(fast)])
    return table


def sacd_costs(rows: Rows) -> list[list[str]]:
    """What crosses on the way to the last exit: bytes, and points of accuracy lost."""
    last = max(int(row["exit"]) for row in rows)
    exact = next(float(r["accuracy"]) for r in rows if r["exit"] == last and not r["bits"])
    same = [row for row in rows if row["exit"] == last and row["bits"]]
    bits = list(dict.fromkeys(row["bits"] for row in same))
    table = [["after layer", "float32", *(f"{each} bits" for each in bits)]]
    for (partition,), own in grouped(same, "partition").items():
        raw = float(own[0]["exact_bytes"])
        cells = [
            f"{float(row['payload_bytes']):,.0f} B (1/{raw / float(row['payload_bytes']):.1f}), "
            f"{100 * (float(row['accuracy']) - exact):+.2f}"
            for row in own
        ]
        table.append([f"{partition}, {own[0]['layer']}", f"{raw:,.0f} B", *cells])
    return table


def sacd_exits(rows: Rows) -> list[list[str]]:
    """Accuracy beside the paper's."""
    table = [["exit", "layers", "test accuracy", "published"]]
    for row, published in zip(rows, PUBLISHED, strict=True):
        accuracy = f"{float(row['accuracy']):.1%}"
        table.append([str(row["exit"]), str(row["layers"]), accuracy, f"{published:.1%}"])
    return table
