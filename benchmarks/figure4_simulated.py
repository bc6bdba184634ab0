"""Does the simulator tell beforehand what the testbed then measures?

    python -m benchmarks.figure4_simulated [--short]

    runs of figure4 ─► the same requests, link, bundle and policy ─► simulated ─► beside measured

What it knows of the machines was measured before all runs, on the full network alone
(``EdgeFacts``): how much slower blocks are at the edge and in the cloud, what a request costs
beside them. Test images' outcomes are measured once for each bundle and kept. What Ray itself sends
over the link is not modelled.

Writes ``benchmarks/results/figure4_simulated.json``.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress
from safetensors.numpy import load_file, save_file

from benchmarks.campaign import FACTS, FOLDER, Run, read
from benchmarks.edge_facts import EdgeFacts
from benchmarks.figure4 import SHORT
from benchmarks.load_generator import Asked, read_requests
from benchmarks.result import Row, write
from benchmarks.rig import ONE_WAY_MS, REQUESTS
from benchmarks.systems import PEERS, System, peer
from benchmarks.workload import pool, sources, splits
from deployments.args import SiteArgs
from deployments.deciding import Decider, prior
from xpi_ray.bundle import Bundle
from xpi_ray.link.traces import Trace
from xpi_ray.policies.base import Decision
from xpi_ray.policies.observation import Watch
from xpi_ray.profiles.measure import measure_outcomes
from xpi_ray.profiles.outcomes import Outcomes
from xpi_ray.simulation import columns as at
from xpi_ray.simulation.cluster import Cluster, Setting, Site, seen
from xpi_ray.simulation.draw import HOP_SHAPE, SCATTER

LEAST_ENTROPY = np.float32(1e-8)

Floats = NDArray[np.float64]


def main() -> None:
    """Predict every run that was made, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--short", action="store_true", help="of `figure4 --short`")
    parser.add_argument("--folder", type=Path, help="where runs are kept")
    options = parser.parse_args()
    folder = options.folder or (SHORT["folder"] if options.short else FOLDER)
    traces = sources().traces
    rows: list[Row] = []
    with Progress() as progress:
        runs = list(made(folder))
        for system, path in progress.track(runs, description="runs"):
            facts = EdgeFacts(**json.loads((folder / system.dataset / "edge.json").read_text()))
            run = read(path)
            asked = read_requests(path / REQUESTS)
            found = Prediction(system, facts, folder).of(run, asked, traces[run.facts["trace"]])
            rows.append(_beside(run, found, facts))
    name = "figure4_short_simulated" if options.short else "figure4_simulated"
    print(write(name, {"runs": len(rows)}, rows))


def made(folder: Path) -> Iterator[tuple[System, Path]]:
    """Every run of a peer, system by system."""
    for path in sorted(folder.glob(f"*/*/*/{FACTS}")):
        dataset, name = path.parts[-4:-2]
        if name in PEERS:
            yield peer(name, dataset), path.parent


class Prediction:
    """One system in the simulator.

    Args:
        system: Its bundle must be there.
        facts: What the machines are like.
        folder: Where outcomes are kept.
    """

    def __init__(self, system: System, facts: EdgeFacts, folder: Path) -> None:
        self._system, self._facts = system, facts
        self._bundle = system.load()
        args = system.site_args(facts.as_told())
        self._classes = sorted(args.slo_classes, key=lambda slo: slo.deadline_ms)
        self._setting = Setting(
            self._bundle.manifest.profiles["default"],
            self._bundle.levelled(_above_0(outcomes_of(self._bundle, system.dataset, folder))),
            tuple(self._classes),
            _static(self._bundle, args),
            trusted=self._bundle.outcomes.edge_trusted(),
            fuses=self._bundle.network.fuses,
            best_effort=args.best_effort,
            answers=args.answers,
            goes_on=args.goes_on,
            reroutes=args.reroutes,
        )

    def of(self, run: Run, asked: list[Asked], trace: Trace) -> Floats:
        """The simulated requests' rows, in the order in which they are due."""
        total_s = run.facts["warm_up_s"] + run.facts["duration_s"]
        cluster = Cluster(self._setting, [self._site(run, asked, trace)])
        told = self._facts.as_told()
        args = self._system.scheduler_args(told)
        if args is not None:
            decider = Decider(args, self._bundle)
            profile = self._bundle.manifest.profiles["default"]
            watch = Watch(profile, prior(args, profile))
            for _ in range(int(total_s / args.period_s)):
                rows = cluster.advance(cluster.now_ms + 1000 * args.period_s)
                observation = watch.observe(seen(rows), args.period_s)
                choices = [decider.decide(observation, slo) for slo in self._classes]
                cluster.set_plans(0, [choice.decision for choice in choices])
        cluster.advance(np.inf)
        return cluster.requests

    def _site(self, run: Run, asked: list[Asked], trace: Trace) -> Site:
        facts, count = self._facts, len(asked)
        rng = np.random.default_rng(run.facts["seed"])
        place = {number: index for index, number in enumerate(pool(self._system.dataset).tolist())}

        def scatter(factor: float) -> Floats:
            return factor * np.exp(rng.normal(-(SCATTER**2) / 2, SCATTER, count))

        return Site(
            arrivals=1000 * np.array([each.due_s for each in asked]) + facts.http_ms,
            samples=np.array([place[each.image] for each in asked]),
            deadlines_ms=np.array([each.deadline_ms for each in asked]) - facts.router_ms,
            edge_factors=scatter(1.0),
            cloud_factors=scatter(facts.cloud_slowdown),
            hops_ms=rng.gamma(HOP_SHAPE, facts.hop_ms / HOP_SHAPE, count),
            trace=trace,
            trace_shift_s=run.facts["start_s"],
            round_trip_ms=2 * ONE_WAY_MS,
            edge_slowdown=facts.slowdown,
            encode_slowdown=facts.slowdown,
            work_ms=0.0,
            call_ms=facts.work_ms,
        )


def outcomes_of(bundle: Bundle, dataset: str, folder: Path) -> Outcomes:
    """Of the pool's test images, in its order; measured once."""
    path = folder / dataset / f"outcomes-{bundle.digest.hex()}.safetensors"
    if not path.exists():
        test, numbers = splits(dataset).test, pool(dataset)
        images, labels = test.images[numbers], test.labels[numbers]
        network = bundle.network.prepare()
        found = measure_outcomes(network, bundle.ladder, images, labels, len(numbers))
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(found.to_arrays()), path)
    return Outcomes.from_arrays(dict(load_file(path)))


def _above_0(outcomes: Outcomes) -> Outcomes:
    """Undo what 16 bits made of small entropies: 0 is sure by any threshold, even by 0."""
    entropy, resumed = (
        np.maximum(each, LEAST_ENTROPY) for each in (outcomes.entropy, outcomes.resumed_entropy)
    )
    return outcomes._replace(entropy=entropy, resumed_entropy=resumed)


def _static(bundle: Bundle, args: SiteArgs) -> Decision:
    """What holds before the scheduler has decided, as the router has it."""
    plan = bundle.manifest.static_plan
    partition = plan.partition if args.partition is None else args.partition
    thresholds = plan.thresholds if args.early_exit else (0.0,) * len(plan.thresholds)
    return Decision(partition, thresholds, plan.level)


def _beside(run: Run, rows: Floats, facts: EdgeFacts) -> Row:
    """A run's prediction and what was measured."""
    until_ms = 1000 * (run.facts["warm_up_s"] + run.facts["duration_s"])
    arrived = rows[:, at.ARRIVED] - facts.http_ms
    rows = rows[(arrived >= 1000 * run.facts["warm_up_s"]) & (arrived < until_ms)]
    simulated, measured = simulated_facts(rows, facts), run.counted.facts()
    row: dict[str, Any] = {
        key: run.facts[key] for key in ("system", "dataset", "trace", "seed", "load")
    }
    for key in simulated:
        short = "satisfaction" if key == "deadline_satisfaction" else key
        row[f"simulated_{short}"], row[f"measured_{short}"] = simulated[key], measured[key]
    return row


def simulated_facts(rows: Floats, facts: EdgeFacts) -> dict[str, float]:
    """The figures of simulated requests, by the names of measured ones."""
    answered = rows[:, at.EXIT] > 0
    latency_ms = rows[:, at.TOTAL] + facts.router_ms + facts.http_ms
    in_time = answered & (latency_ms <= rows[:, at.DEADLINE] + facts.router_ms)

    def mean(values: Floats) -> float:
        return round(float(values.mean()), 4) if values.size else 0.0

    return {
        "deadline_satisfaction": mean(in_time),
        "accuracy": mean(rows[in_time, at.CORRECT]),
        "p50_ms": _percentile(latency_ms[answered], 50),
        "p95_ms": _percentile(latency_ms[answered], 95),
        "mean_exit": mean(rows[answered, at.EXIT]),
        "crossed": mean(rows[:, at.BYTES] > 0),
    }


def _percentile(values: Floats, share: float) -> float:
    return round(float(np.percentile(values, share)), 2) if values.size else 0.0


if __name__ == "__main__":
    main()
