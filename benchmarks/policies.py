"""How good are learned plans beside rules, fixed plans and full knowledge?

    python -m benchmarks.policies --ppo runs/policy-ppo-0 … --sac runs/policy-sac-0 …

On traces that no training has seen, with the bundle's network on test images: for each trace, sites
are drawn (machine, load, deadlines, round trip), and each policy runs each of them for
``--duration`` seconds, with the same requests. Sites count alike, whatever their load. Sides:

- ``ppo``, ``sac``: the trained policies, one side for each training's seed;
- ``forecast``: the plan with the best forecast, which is where training begins;
- ``greedy``: least latency that meets the deadline, the first scheduler;
- ``fixed``: the best plan for each class that never changes, chosen in hindsight for each trace;
- ``static``: the bundle's own plan;
- ``oracle``: every period the best of all plans by full knowledge of what is to come, labels too.

Writes ``benchmarks/results/policies.json``.
"""

import argparse
import hashlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.progress import Progress
from safetensors.numpy import load_file, save_file

from benchmarks.result import write
from rl.contest import Rows, by_deadline, drive, facts, fixed, oracle, untrained
from rl.task import Task, make_task, read_sources
from xpi_ray.bundle import Bundle
from xpi_ray.link.traces import Trace
from xpi_ray.policies.base import Decision, Policy
from xpi_ray.policies.greedy import LeastLatency
from xpi_ray.policies.learned import from_bytes, read
from xpi_ray.policies.plan import SLO_CLASSES
from xpi_ray.profiles.measure import measure_outcomes
from xpi_ray.profiles.outcomes import Outcomes
from xpi_ray.simulation import columns as at
from xpi_ray.simulation.cluster import Site, utilities
from xpi_ray.simulation.draw import draw_site
from xpi_ray.training.data import load

TEST_IMAGES = 5_000
RESUMED = 5_000
SEED = 7
KEYS = ("reward", "deadline_satisfaction", "accuracy", "edge_ms")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ppo", type=Path, nargs="*", default=[], help="folders of trainings")
    parser.add_argument("--sac", type=Path, nargs="*", default=[], help="folders of trainings")
    parser.add_argument("--bundle", help="folder or name; the default one if left out")
    parser.add_argument("--draws", type=int, default=8, help="sites drawn for each trace")
    parser.add_argument("--duration", type=float, default=180.0, help="seconds of each run")
    arguments = parser.parse_args()
    bundle = Bundle.load(arguments.bundle)
    _, test = read_sources()
    task = make_task(bundle, SLO_CLASSES, test, outcomes=outcomes_of(bundle))
    sides = policies(bundle, task, {"ppo": arguments.ppo, "sac": arguments.sac})
    rows = []
    with Progress() as progress:
        total = len(test.traces) * arguments.draws
        bar = progress.add_task("sites", total=total)
        for number, trace in enumerate(test.traces):
            sites = draw(task, trace, number, arguments.draws, arguments.duration)
            found = contest(task, sides, sites, arguments.duration, lambda: progress.advance(bar))
            for (policy, seed), each in found.items():
                means = {key: round(float(np.mean([one[key] for one in each])), 5) for key in KEYS}
                rows.append({"policy": policy, "trace": trace.name, "seed": seed, **means})
    settings = {
        "bundle": bundle.digest.hex(),
        "draws": arguments.draws,
        "duration_s": arguments.duration,
        "test_images": TEST_IMAGES,
        "weights": task.viewer.weights.model_dump(),
        "plans": len(task.viewer.candidates),
    }
    print(write("policies", settings, rows, SEED))


def policies(
    bundle: Bundle, task: Task, folders: dict[str, list[Path]]
) -> dict[tuple[str, int], Policy]:
    """The sides that decide by what they see, by name and training seed."""
    manifest = bundle.manifest
    profile = manifest.profiles["default"]
    thresholds = [calibration.thresholds for calibration in manifest.calibrations]
    sides: dict[tuple[str, int], Policy] = {
        ("greedy", 0): LeastLatency(profile, bundle.levelled(), thresholds),
        ("forecast", 0): untrained(task.viewer),
    }
    for name, runs in folders.items():
        for seed, folder in enumerate(runs):
            data = read(folder / "policy.safetensors")
            sides[name, seed] = from_bytes(data, profile, bundle.candidates())
    return sides


def draw(task: Task, trace: Trace, number: int, count: int, duration_s: float) -> list[Site]:
    """The same sites whenever it is asked."""
    setting = task.setting
    return [
        draw_site(
            setting,
            task.sources,
            duration_s,
            np.random.default_rng([SEED, number, site]),
            trace,
        )
        for site in range(count)
    ]


def contest(
    task: Task,
    sides: dict[tuple[str, int], Policy],
    sites: list[Site],
    duration_s: float,
    advance: Callable[[], None],
) -> dict[tuple[str, int], list[dict[str, float]]]:
    """Facts of every side at every site."""
    found: dict[tuple[str, int], list[dict[str, float]]] = defaultdict(list)
    weights = task.viewer.weights
    best = best_fixed(task, sites)
    static = [task.setting.static] * len(task.setting.classes)
    for site in sites:
        runs: dict[tuple[str, int], Rows] = {
            key: drive(task, site, policy, duration_s) for key, policy in sides.items()
        }
        runs["fixed", 0] = fixed(task, site, best)
        runs["static", 0] = fixed(task, site, static)
        runs["oracle", 0] = oracle(task, site, duration_s)
        for key, rows in runs.items():
            found[key].append(facts(rows, weights))
        advance()
    return found


def best_fixed(task: Task, sites: list[Site]) -> list[Decision]:
    """For each class the plan that would have been best for it over all these sites."""
    classes = by_deadline(task)
    worth = np.zeros((len(task.viewer.candidates), len(classes)))
    for number, candidate in enumerate(task.viewer.candidates):
        for site in sites:
            rows = fixed(task, site, [candidate.decision] * len(classes))
            each = utilities(rows, task.viewer.weights)
            index = rows[:, at.SLO].astype(np.intp)
            worth[number] += np.bincount(index, each, minlength=len(classes)) / len(rows)
    return [task.viewer.candidates[number].decision for number in worth.argmax(0)]


def outcomes_of(bundle: Bundle) -> Outcomes:
    """Of the bundle's network on test images; kept beside the runs, as it takes a while."""
    # Neither profile nor policy matter: what held-out images did tells networks and codecs apart.
    known = hashlib.sha256(bundle.outcomes.resumed_entropy.tobytes()).hexdigest()[:16]
    path = Path("runs") / f"outcomes-{known}.safetensors"
    if not path.exists():
        test = load(bundle.manifest.name).test
        images, labels = test.images[:TEST_IMAGES], test.labels[:TEST_IMAGES]
        network = bundle.network.prepare()
        measured = measure_outcomes(network, bundle.ladder, images, labels, RESUMED)
        path.parent.mkdir(exist_ok=True)
        save_file(dict(measured.to_arrays()), path)
    return Outcomes.from_arrays(dict(load_file(path)))


if __name__ == "__main__":
    main()
