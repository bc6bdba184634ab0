"""What the scheduler is trained for: a bundle's network, the plans, and the world around it.

Bundle, traces ─► make_task ─► Task ─► environment, benchmarks
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xpi_ray.bundle import Bundle
from xpi_ray.errors import DataError
from xpi_ray.link.traces import Trace, read, trace_folder
from xpi_ray.policies.base import Decision
from xpi_ray.policies.learned import Viewer, worth_keeping
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import SloClass
from xpi_ray.policies.utility import Weights
from xpi_ray.profiles.outcomes import Outcomes
from xpi_ray.simulation.arrivals import read_counts
from xpi_ray.simulation.cluster import Setting
from xpi_ray.simulation.draw import Sources

UPLINK_SHARE = 1 / 50  # of a 5G downlink, where it stands in for an uplink
TEST_TRACES = (
    "ATT-LTE-driving.up",
    "TMobile-LTE-short.up",
    "5g_trace_4_walking",
    "5g_trace_60_walking",
    "5g_trace_82_walking",
    "5g_trace_93_driving",
)
"""Judged on and never trained on: whole traces, one of each kind at least."""
DAY_S = 86_400


@dataclass(frozen=True)
class Task:
    """All that an episode is made of."""

    setting: Setting
    viewer: Viewer
    kept: tuple[int, ...]
    """Which of all candidates the viewer chooses from."""
    sources: Sources
    prior: Observation
    """What a watch assumes before anything was seen."""
    period_s: float = 1.0
    periods: int = 30


def make_task(
    bundle: Bundle,
    classes: Sequence[SloClass],
    sources: Sources,
    weights: Weights | None = None,
    outcomes: Outcomes | None = None,
) -> Task:
    """The task of scheduling for a bundle.

    Args:
        bundle: Its profile, plans and outcomes.
        classes: SLO classes.
        sources: Links and arrivals.
        weights: What counts; the default's if none are given.
        outcomes: Of other images than the bundle's, for requests to bring; plans are chosen by
            the bundle's all the same. None: the bundle's population.
    """
    weights = weights or Weights()
    profile, static = bundle.manifest.profiles["default"], bundle.manifest.static_plan
    found = bundle.candidates()
    kept = worth_keeping(profile, found, weights)
    viewer = Viewer(profile, [found[index] for index in kept], weights)
    fallback = Decision(static.partition, static.thresholds, static.level)
    setting = Setting(
        profile,
        outcomes or bundle.population,
        tuple(classes),
        fallback,
        trusted=bundle.outcomes.edge_trusted(),
        fuses=bundle.network.fuses,
    )
    return Task(setting, viewer, tuple(kept), sources, Observation())


def read_sources(folder: Path | None = None) -> tuple[Sources, Sources]:
    """Links and arrivals to train with, and those to judge by; no trace is in both.

    Arrivals to train with are the first of two recorded days; to judge by, the second and an hour
    of another service.

    Args:
        folder: With ``uplink``, ``5g`` and ``arrivals``; None: ``trace_folder()``.

    Raises:
        DataError: There is no such folder, or it lacks traces.
    """
    folder, links = read_links(folder)
    train, test = _split(links)
    days = read_counts(folder / "arrivals" / "twitter_days_1_2.txt")
    if len(days) <= DAY_S:
        raise DataError(
            f"expected more than a day of counts in twitter_days_1_2.txt, got {len(days)} s"
        )
    hour = read_counts(folder / "arrivals" / "azure_code.csv")
    return Sources(train, [days[:DAY_S]]), Sources(test, [days[DAY_S:], hour])


def read_links(folder: Path | None = None) -> tuple[Path, list[Trace]]:
    """The folder of traces, and all its links; 5G's downlinks are scaled to stand in for uplinks.

    Args:
        folder: With ``uplink`` and ``5g``; None: ``trace_folder()``.

    Raises:
        DataError: There is no such folder.
    """
    folder = folder or trace_folder()
    if folder is None:
        raise DataError("no folder of traces; set XPI_TRACES_DIR to one with uplink and arrivals")
    links = [read(path) for path in sorted((folder / "uplink").glob("*.up"))]
    links += [read(path).scaled(UPLINK_SHARE) for path in sorted((folder / "5g").glob("5g_*"))]
    return folder, links


def _split(traces: Sequence[Trace]) -> tuple[list[Trace], list[Trace]]:
    test = [trace for trace in traces if trace.name in TEST_TRACES]
    train = [trace for trace in traces if trace.name not in TEST_TRACES]
    if not (train and test):
        raise DataError(
            f"expected traces to train with and some of {', '.join(TEST_TRACES)} to judge by, got "
            f"{', '.join(trace.name for trace in traces) or 'none'}"
        )
    return train, test
