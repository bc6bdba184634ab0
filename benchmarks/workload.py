"""What a run of the comparison asks for: requests, and the link that they meet, drawn by a seed.

    traces, arrivals, test split, seed ─► Workload ─► requests file ─► load_generator
                                             └──────► Link.replay, simulator

All systems get the same. Arrivals keep a recording's shape at another mean rate, deadlines are
drawn evenly from the Xpi paper's 100 to 500 ms, images from a part of the test split.
"""

import json
import zipfile
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.drift import png
from benchmarks.load_generator import Asked
from rl.task import DAY_S, read_links
from xpi_ray.errors import DataError
from xpi_ray.link.traces import Trace
from xpi_ray.simulation.arrivals import Times, read_counts, recorded
from xpi_ray.training.data import Splits, load

DEADLINES_MS = (100.0, 500.0)
POOL = {"cifar10": 5_000, "tiny_imagenet": 2_000}
"""Images of the test split that requests bring: as many as the simulator can be told all about."""
POOL_SEED = 6


class Workload(NamedTuple):
    """One run's requests and link."""

    dataset: str
    seed: int
    trace: Trace
    """Of the link, both ways."""
    start_s: float
    """Where in the trace the run begins."""
    arrivals: str
    """Name of the recording whose shape the arrivals have."""
    rate_rps: float
    """Their mean rate."""
    asked: tuple[Asked, ...]
    warm_up_s: float
    """Requests that are due earlier are not counted."""
    duration_s: float
    """Of what is counted."""

    @property
    def total_s(self) -> float:
        """Of all, warm-up included."""
        return self.warm_up_s + self.duration_s

    def write(self, path: Path) -> None:
        """Write the requests as the load generator reads them."""
        path.write_text("".join(json.dumps(list(each)) + "\n" for each in self.asked))


class Sources(NamedTuple):
    """What workloads are drawn from, by name."""

    traces: Mapping[str, Trace]
    recordings: Mapping[str, Times]
    """Requests per second."""


def sources(folder: Path | None = None) -> Sources:
    """All links and arrivals of a folder.

    5G's downlinks are scaled to stand in for uplinks, as where policies are trained. Of a
    recording longer than a day the first day is left out: policies were trained with it.

    Args:
        folder: With ``uplink``, ``5g`` and ``arrivals``; None: ``trace_folder()``.

    Raises:
        DataError: There is no such folder, or nothing in it.
    """
    folder, traces = read_links(folder)
    counts = {path.stem: read_counts(path) for path in sorted((folder / "arrivals").glob("*.*"))}
    recordings = {
        name: each[DAY_S:] if len(each) > DAY_S else each for name, each in counts.items()
    }
    if not (traces and recordings):
        raise DataError(f"expected traces in {folder}/uplink or 5g and recordings in arrivals")
    return Sources({trace.name: trace for trace in traces}, recordings)


def make(
    drawn_from: Sources,
    dataset: str,
    trace: str,
    seed: int,
    rate_rps: float,
    warm_up_s: float,
    duration_s: float,
) -> Workload:
    """Draw a workload; the same arguments give the same, whatever the system.

    Args:
        drawn_from: Links and arrivals; seeds take the recordings in turn.
        dataset: Of the images.
        trace: Name of the link's.
        seed: Of all chance.
        rate_rps: Mean rate of arrivals.
        warm_up_s: Before requests count.
        duration_s: In which they count.

    Raises:
        DataError: There is no such trace.
    """
    if trace not in drawn_from.traces:
        raise DataError(f"no trace {trace}; there are {', '.join(drawn_from.traces)}")
    link = drawn_from.traces[trace]
    names = list(drawn_from.recordings)
    arrivals = names[seed % len(names)]
    rng = np.random.default_rng([seed, zlib.crc32(trace.encode()), round(1e6 * rate_rps)])
    times_s = (
        recorded(drawn_from.recordings[arrivals], rate_rps, warm_up_s + duration_s, rng) / 1000
    )
    numbers = pool(dataset)[rng.integers(POOL[dataset], size=len(times_s))]
    deadlines_ms = rng.uniform(*DEADLINES_MS, len(times_s))
    data = splits(dataset)
    return Workload(
        dataset=dataset,
        seed=seed,
        trace=link,
        start_s=float(rng.uniform(0, link.duration_s)),
        arrivals=arrivals,
        rate_rps=rate_rps,
        asked=tuple(
            Asked(round(due_s, 6), number, data.classes[data.test.labels[number]], deadline_ms)
            for due_s, number, deadline_ms in zip(
                times_s.tolist(), numbers.tolist(), deadlines_ms.round(3).tolist(), strict=True
            )
        ),
        warm_up_s=warm_up_s,
        duration_s=duration_s,
    )


@lru_cache
def splits(dataset: str) -> Splits:
    """A data set, read once."""
    return load(dataset)


@lru_cache
def pool(dataset: str) -> NDArray[np.int64]:
    """Numbers of the test images that requests bring, in random order that never changes."""
    count = len(splits(dataset).test.labels)
    return np.random.default_rng(POOL_SEED).permutation(count)[: POOL[dataset]]


def write_images(dataset: str, path: Path) -> None:
    """Write the pool's images as an archive of PNG files, unless it is there."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    images = splits(dataset).test.images
    begun = path.with_suffix(".part")
    with zipfile.ZipFile(begun, "w") as archive:
        for number in pool(dataset).tolist():
            archive.writestr(f"{number}.png", png(images[number].numpy()))
    begun.rename(path)
