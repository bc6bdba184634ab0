"""How long does one decision take, in the scheduler's own process?

    python -m benchmarks.decision_time [--policy FILE]

One SLO class under random observations, policy by policy in turns; Python's garbage collector is
left on, as it is in the scheduler. There, all classes are decided for under one observation, and
share some of the work: ``learned_together`` is the time for them all, divided by their number.
Writes ``benchmarks/results/decision_time.json``.
"""

import argparse
import time
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.result import write
from xpi_ray.bundle import Bundle
from xpi_ray.errors import PlanError
from xpi_ray.policies.base import Policy
from xpi_ray.policies.greedy import LeastLatency
from xpi_ray.policies.learned import from_bytes, read
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import SLO_CLASSES

WARM_UPS = 200


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", help="folder or name; the default one if left out")
    parser.add_argument("--policy", type=Path, help="a policy's file; none: the bundle's own")
    parser.add_argument("--observations", type=int, default=5_000, help="of each repeat")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    bundle = Bundle.load(arguments.bundle)
    manifest = bundle.manifest
    data = read(arguments.policy) if arguments.policy else bundle.policy
    if data is None:
        raise PlanError("the bundle holds no policy; give one with --policy")
    profile = manifest.profiles["default"]
    thresholds = [calibration.thresholds for calibration in manifest.calibrations]
    learned = from_bytes(data, profile, bundle.candidates())
    policies: dict[str, tuple[Policy, int]] = {
        "learned": (learned, 1),
        "learned_together": (learned, len(SLO_CLASSES)),
        "least_latency": (LeastLatency(profile, bundle.levelled(), thresholds), 1),
    }
    observations = random_observations(arguments.observations, np.random.default_rng(0))
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in policies}
    for _ in range(arguments.repeats):
        for name, (policy, together) in policies.items():
            times[name].append(percentiles_ms(policy, observations, together))
    rows = [
        {
            "policy": name,
            "p50_ms": round(median(p50 for p50, _ in each), 4),
            "p99_ms": round(median(p99 for _, p99 in each), 4),
        }
        for name, each in times.items()
    ]
    settings = {"observations": arguments.observations, "repeats": arguments.repeats}
    print(write("decision_time", settings, rows))


def percentiles_ms(
    policy: Policy, observations: list[Observation], together: int
) -> tuple[float, float]:
    """Median and 99th percentile of a decision, of ``together`` under each observation."""
    times = []
    for number, observation in enumerate([*observations[:WARM_UPS], *observations]):
        classes = [SLO_CLASSES[(number + i) % len(SLO_CLASSES)] for i in range(together)]
        started = time.perf_counter()
        for slo in classes:
            policy.decide(observation, slo)
        times.append((time.perf_counter() - started) / together)
    p50, p99 = np.percentile(times[WARM_UPS:], [50, 99])
    return 1000 * float(p50), 1000 * float(p99)


def random_observations(count: int, rng: np.random.Generator) -> list[Observation]:
    """Machines, links and loads of all kinds."""
    return [
        Observation(
            edge_slowdown=float(np.exp(rng.uniform(0, 3))),
            link_bps=float(np.exp(rng.uniform(np.log(1e5), np.log(1e8)))),
            round_trip_ms=float(rng.uniform(1, 100)),
            arrivals_rps=float(rng.uniform(1, 60)),
        )
        for _ in range(count)
    ]


if __name__ == "__main__":
    main()
