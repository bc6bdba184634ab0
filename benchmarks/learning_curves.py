"""How does what a policy is worth grow while it learns?

    python -m benchmarks.learning_curves --ppo runs/policy-ppo-0 … --sac runs/policy-sac-0 …

Gathers the curves that ``xpi train-policy`` left in its runs' folders: reward beside the forecast
alone on validation sites, times ``SHARPNESS``. Writes ``benchmarks/results/learning_curves.json``.
"""

import argparse
import csv
import math
from pathlib import Path

from benchmarks.result import write


def main() -> None:
    """Gather and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ppo", type=Path, nargs="*", default=[], help="folders of trainings")
    parser.add_argument("--sac", type=Path, nargs="*", default=[], help="folders of trainings")
    arguments = parser.parse_args()
    rows = [
        {"policy": policy, "seed": seed, **row}
        for policy in ("ppo", "sac")
        for seed, folder in enumerate(getattr(arguments, policy))
        for row in curve(folder / "curve.csv")
    ]
    print(write("learning_curves", {}, rows))


def curve(path: Path) -> list[dict[str, float | int]]:
    """The points of a training at which it was validated."""
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if not math.isnan(float(row["validation"]))]
    return [
        {
            "steps": int(row["steps"]),
            "seconds": round(float(row["seconds"]), 1),
            "validation": round(float(row["validation"]), 4),
        }
        for row in rows
    ]


if __name__ == "__main__":
    main()
