"""How well is the link's bandwidth known, a second ahead, on real traces?

    python -m benchmarks.estimator [--traces FOLDER]

trace ─► replay: frames, FIFO, delay ─► estimator ─► predictions against the trace's next second

Frames of 0.5 to 8 kB arrive one by one (``poisson``, 10 a second), in ``bursts`` (2 to 10 at once,
1.5 times a second) or one by one with ``gaps`` (after one in 50 nothing for 10 s in the mean). The
link delivers them in order at the trace's capacity, at most 8 under way, others are not sent.
Beside that a frame takes 40 ms there and back, a jitter of 1 ms in the mean, and one in 200
stalls in the cloud, unreported, for 0.3 s in the mean. The 5G traces are of downlinks; a twentieth
of their capacity stands in for an uplink. The estimator's model and constants were chosen on
``CHOSEN_ON``; ``SEEN`` showed a fault of it, mended by what made-up links of constant rate said;
the others are held out.

Each estimator is asked on every full second (``second``, from the 5th on) and after every sample
(``sample``) for the mean capacity of the second to come; a row has the relative errors and the
share of truths in the stated 80 % interval. Seconds in which the link carried nothing are left out
of both, and counted. Writes ``benchmarks/results/estimator.json``.
"""

import argparse
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from rich.progress import Progress

from benchmarks.result import Rows, write
from xpi_ray.link.estimator import LinkEstimator
from xpi_ray.link.traces import Trace, read, trace_folder

CHOSEN_ON = (
    "ATT-LTE-driving-2016.up",
    "TMobile-UMTS-driving.up",
    "5g_trace_105_driving",
    "5g_trace_116_walking",
    "5g_trace_17_walking",
    "5g_trace_28_walking",
    "5g_trace_39_driving",
)
SEEN = ("TMobile-LTE-short.up",)
DOWNLINK_SCALE = 0.05
ARRIVALS = ("poisson", "bursts", "gaps")
FRAME_BYTES = (500, 8_000)
ONE_WAY_S, JITTER_S, STALL_S = 0.02, 0.001, 0.3
STALLED_SHARE = 0.005
MOST_UNDER_WAY = 8
FIRST_SECOND = 5


class Sample(NamedTuple):
    """A frame and its answer, as the router sees them."""

    replied_s: float
    sent_s: float
    size_bytes: int

    @property
    def taken_s(self) -> float:
        """From sending until the answer."""
        return self.replied_s - self.sent_s


class Belief(NamedTuple):
    """A prediction, with its 80 % interval where the estimator states one."""

    bandwidth_bps: float
    interval_bps: tuple[float, float] | None = None


class Estimator(Protocol):
    """What is compared."""

    def observe(self, sample: Sample) -> None:
        """Learn from an answer."""
        ...

    def predict(self, now_s: float) -> Belief:
        """The next second's mean capacity."""
        ...


class Smoothed:
    """Bytes over time, exponentially smoothed; ``weight`` 1 keeps the last sample alone.

    Args:
        weight: Of the newest, 0..1.
        less_delay: Take the smallest time ever seen from each time first.
    """

    def __init__(self, weight: float, less_delay: bool = False) -> None:
        self._weight = weight
        self._less_delay = less_delay
        self._least_s = float("inf")
        self._bps: float | None = None

    def observe(self, sample: Sample) -> None:
        """Take in one rate."""
        self._least_s = min(self._least_s, sample.taken_s)
        sending_s = sample.taken_s - (self._least_s if self._less_delay else 0.0)
        if sending_s > 0:
            bps = 8 * sample.size_bytes / sending_s
            before = bps if self._bps is None else self._bps
            self._bps = before + self._weight * (bps - before)

    def predict(self, now_s: float) -> Belief:
        """The average, whatever the time."""
        return Belief(10e6 if self._bps is None else self._bps)


class Kalman:
    """The library's estimator."""

    def __init__(self) -> None:
        self._estimator = LinkEstimator()

    def observe(self, sample: Sample) -> None:
        """Learn."""
        self._estimator.observe(sample.sent_s, sample.size_bytes, sample.taken_s)

    def predict(self, now_s: float) -> Belief:
        """Median, and the quantiles at 10 and 90 %."""
        found = self._estimator.estimate(now_s)
        return Belief(found.bandwidth_bps, (found.quantile_bps(0.1), found.quantile_bps(0.9)))


ESTIMATORS: dict[str, Callable[[], Estimator]] = {
    "last_sample": lambda: Smoothed(1.0),
    "ewma": lambda: Smoothed(0.2),
    "ewma_less_delay": lambda: Smoothed(0.2, less_delay=True),
    "kalman": Kalman,
}


def arrivals(process: str, duration_s: float, rng: random.Random) -> Iterator[float]:
    """Times at which a frame is ready to be sent, ascending."""
    now_s = 0.0
    while True:
        now_s += rng.expovariate(1.5 if process == "bursts" else 10)
        if process == "gaps" and rng.random() < 1 / 50:
            now_s += rng.expovariate(1 / 10)
        if now_s >= duration_s:
            return
        yield from [now_s] * (rng.randint(2, 10) if process == "bursts" else 1)


def replay(trace: Trace, process: str, seed: int) -> list[Sample]:
    """Send frames over the trace once; the answers in the order in which they come."""
    rng = random.Random(f"{trace.name} {process} {seed}")
    samples: list[Sample] = []
    under_way: list[float] = []
    free_s = 0.0
    for sent_s in arrivals(process, trace.duration_s, rng):
        under_way = [replied_s for replied_s in under_way if replied_s > sent_s]
        if len(under_way) == MOST_UNDER_WAY:
            continue
        size = rng.randint(*FRAME_BYTES)
        free_s = trace.delivered_s(max(sent_s + ONE_WAY_S, free_s), size)
        replied_s = free_s + ONE_WAY_S + rng.expovariate(1 / JITTER_S)
        if rng.random() < STALLED_SHARE:
            replied_s += rng.expovariate(1 / STALL_S)
        under_way.append(replied_s)
        samples.append(Sample(replied_s, sent_s, size))
    return sorted(samples)


def judge(trace: Trace, samples: list[Sample], estimator: Estimator) -> Rows:
    """Ask after every sample and on every second; a row's figures for each."""
    last_s = trace.duration_s - 1
    told = [(sample.replied_s, sample) for sample in samples if sample.replied_s <= last_s]
    asked = [(float(second), None) for second in range(FIRST_SECOND, int(last_s) + 1)]
    found: dict[str, list[tuple[float, Belief]]] = {"second": [], "sample": []}
    for now_s, sample in sorted([*told, *asked], key=lambda event: event[0]):
        if sample is not None:
            estimator.observe(sample)
        truth = trace.mean_bps(now_s, now_s + 1)
        found["sample" if sample else "second"].append((truth, estimator.predict(now_s)))
    return [{"asked": asked, **_figures(pairs)} for asked, pairs in found.items()]


def _figures(pairs: list[tuple[float, Belief]]) -> dict[str, float | int | str]:
    alive = [(truth, belief) for truth, belief in pairs if truth > 0]
    errors = [abs(belief.bandwidth_bps - truth) / truth for truth, belief in alive]
    figures: dict[str, float | int | str] = {
        "predictions": len(alive),
        "nothing_carried": len(pairs) - len(alive),
        "error_median": round(float(np.median(errors)), 4),
        "error_p90": round(float(np.quantile(errors, 0.9)), 4),
    }
    bounds = [(truth, belief.interval_bps) for truth, belief in alive if belief.interval_bps]
    if bounds:
        within = np.mean([low <= truth <= high for truth, (low, high) in bounds])
        figures["within_80"] = round(float(within), 4)
    return figures


def links(folder: Path) -> Iterator[Trace]:
    """All traces of the folder, downlinks scaled."""
    for path in sorted((folder / "uplink").glob("*.up")):
        yield read(path)
    for path in sorted((folder / "5g").iterdir()):
        yield read(path).scaled(DOWNLINK_SCALE)


def use(name: str) -> str:
    """What part a trace had in making the estimator: ``chosen_on``, ``seen`` or ``held_out``."""
    return "chosen_on" if name in CHOSEN_ON else "seen" if name in SEEN else "held_out"


def main() -> None:
    """Replay and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--traces", type=Path, default=trace_folder(), help="folder with uplink/ and 5g/"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.traces is None:
        parser.error("no ../shared/traces; set XPI_TRACES_DIR or --traces to a folder of traces")
    rows: Rows = []
    with Progress() as progress:
        for trace in progress.track(list(links(arguments.traces)), description="traces"):
            for process in ARRIVALS:
                samples = replay(trace, process, arguments.seed)
                key: dict[str, float | int | str] = {
                    "trace": trace.name,
                    "use": use(trace.name),
                    "arrivals": process,
                }
                for name, make in ESTIMATORS.items():
                    figures = judge(trace, samples, make())
                    rows += [{**key, "estimator": name, **row} for row in figures]
    settings = {"downlink_scale": DOWNLINK_SCALE}
    print(write("estimator", settings, rows, arguments.seed))


if __name__ == "__main__":
    main()
