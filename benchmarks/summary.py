"""What rows say together, for tables and plots.

benchmarks/results/*.json ─► rows ─► grouped, spread, equal_accuracy ─► tables, plots
"""

import math
import re
from collections.abc import Iterable
from statistics import fmean, stdev
from typing import NamedTuple

from benchmarks.result import Rows

PLAIN = "plain_joint"
XAI = "xai_joint"  # of which the ablation varies ρ and k / C
TOLERANCE = 0.005  # accuracy within which two networks count as equal


class Spread(NamedTuple):
    """What repeats of one figure say."""

    mean: float
    deviation: float
    """Standard deviation of the sample; 0 for a single value."""
    repeats: int

    def text(self, scale: float = 1.0, digits: int = 2) -> str:
        """Mean ± deviation, the latter only where there are two values or more."""
        mean = f"{self.mean * scale:.{digits}f}"
        return f"{mean} ± {self.deviation * scale:.{digits}f}" if self.repeats > 1 else mean


def spread(values: Iterable[float]) -> Spread:
    """Mean and deviation of one or more values."""
    found = list(values)
    return Spread(fmean(found), stdev(found) if len(found) > 1 else 0.0, len(found))


def grouped(rows: Rows, *keys: str) -> dict[tuple[float | int | str, ...], Rows]:
    """The rows by their values of ``keys``, groups and rows in the order in which they come."""
    groups: dict[tuple[float | int | str, ...], Rows] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


def column(rows: Rows, key: str) -> list[float]:
    """One number of every row."""
    return [float(row[key]) for row in rows]


def baseline(training: str) -> str:
    """What a training is compared with.

    It is the plain training of the same network, its own for another share of branch channels; or,
    where the explainable-AI losses are not all that was added, the training without these.
    """
    if training.endswith("distilled_quantized"):
        return "distilled_quantized"
    share = re.search(r"_k_\d+$", training)
    return PLAIN + (share[0] if share else "")


def equal_accuracy(rows: Rows, size: str) -> dict[str, dict[int, float]]:
    """The least that must cross the link for the baseline's accuracy, relative to the baseline.

    At each partition, the accuracy to reach is the best that the baseline has there at any level,
    less half a point; of each training counts the smallest level that reaches it. Figures are
    means over seeds.

    Args:
        rows: Of ``carry_rate``, of one network and data set.
        size: Key of the size: ``bytes_mean`` or ``entropy_bytes``.

    Returns:
        By training and partition: its size divided by its baseline's; infinite where it reaches
        that accuracy at no level.
    """
    points: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for (training, partition, _), same in grouped(rows, "training", "partition", "level").items():
        point = fmean(column(same, size)), fmean(column(same, "accuracy"))
        points.setdefault((str(training), int(partition)), []).append(point)
    ratios: dict[str, dict[int, float]] = {}
    for (training, partition), own in points.items():
        plain = points.get((baseline(training), partition))
        if plain is not None:
            wanted = max(accuracy for _, accuracy in plain) - TOLERANCE
            ratio = _least(own, wanted) / _least(plain, wanted)
            ratios.setdefault(training, {})[partition] = ratio
    return ratios


def same_level(rows: Rows, size: str) -> dict[str, list[float]]:
    """What crosses the link at each partition and level, relative to the baseline at the same.

    Rows and size are those of ``equal_accuracy``; accuracy is left aside.
    """
    groups = grouped(rows, "training", "partition", "level").items()
    sizes = {key: fmean(column(same, size)) for key, same in groups}
    ratios: dict[str, list[float]] = {}
    for (training, *crossing), own in sizes.items():
        plain = sizes.get((baseline(str(training)), *crossing))
        if plain is not None:
            ratios.setdefault(str(training), []).append(own / plain)
    return ratios


def _least(points: list[tuple[float, float]], wanted: float) -> float:
    """The smallest size with the wanted accuracy; the margin is for rounded figures."""
    return min((size for size, found in points if found >= wanted - 1e-9), default=math.inf)
