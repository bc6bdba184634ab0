"""How should a plan be encoded as an action?

    python -m benchmarks.encodings [--algorithms ppo sac] [--seeds 0 1 2]

A plan is a partition, a set of thresholds and a level; RLlib's SAC takes ``Discrete`` and ``Box``
only. Each encoding is trained with the same observations, rewards, settings, decisions and seeds.
What the policy is at the end drives over the validation sites, always by its best action; ``gain``
is how much more a request is worth there than by the forecast alone, in units of utility. Encodings
of K plans:

- ``shortlist``: a place of the shortlist, 12 plans, by two layers of 64 with tanh, as shipped;
- ``shortlist_forecast``: likewise, but the network corrects the forecast: what each plan is said to
  lack to the best one is added to its logit, so that training begins with the forecast's choices;
- ``every_plan``: one of K;
- ``box``: three numbers in 0..1, how far partition, strictness of thresholds (0: the strictest) and
  level lie between the least and the greatest that any plan has. It means the plan that is nearest
  to that point (Euclid's distance; of several the first).

PPO and SAC explore a box by RLlib's Gaussian, SAC's is squashed. SAC's target of entropy is, as in
training, a share of the logarithm of the number of actions, and for the box RLlib's -3.

Writes ``benchmarks/results/encodings.json``. A run that ended leaves its row in ``runs/encodings``
and is not run again for the same bundle, plans, decisions and sites; after a change of rewards,
features or settings empty that folder.
"""

import argparse
import hashlib
import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.algorithms.sac.torch.default_sac_torch_rl_module import DefaultSACTorchRLModule
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchSquashedGaussian
from ray.rllib.core.rl_module.rl_module import RLModule, RLModuleSpec
from ray.rllib.utils.spaces.space_utils import unsquash_action
from ray.tune.registry import register_env
from rich.progress import Progress
from safetensors.numpy import save as save_arrays
from torch import Tensor

from benchmarks.result import Row, write
from rl.contest import untrained
from rl.environment import SchedulingVectorEnv
from rl.module import Chooser, PPOModule, SACModule
from rl.task import Task, make_task, read_sources
from rl.training import (
    SITES,
    TARGET_ENTROPY,
    VALIDATION_SITES,
    Algorithms,
    configure,
    quiet_ray,
    validate,
)
from xpi_ray.bundle import Bundle
from xpi_ray.policies.base import Decision
from xpi_ray.policies.catalogue import Candidate
from xpi_ray.policies.learned import GAP, SHORTLIST, View, Viewer
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import SLO_CLASSES, SloClass

RUNS = Path("runs/encodings")
SHIPPED, CORRECTED = "shortlist", "shortlist_forecast"
GREED = 5.0
"""By which a corrected forecast is multiplied in training, which alters no preference: what is met
there is then what mostly the preferred plans lead to, and not what plans next to random would."""


class Corrector(Chooser):
    """Logits of the shortlist: what the forecast says, corrected, times ``GREED``."""

    def forward(self, features: Tensor) -> Tensor:
        """(n, FEATURES) to (n, SHORTLIST)."""
        return GREED * (super().forward(features) + features[:, GAP])


class CorrectingPPO(PPOModule):
    """PPO's module with a ``Corrector`` as its policy."""

    def setup(self) -> None:
        """Put it in place."""
        super().setup()
        self.pi = Corrector()


class CorrectingSAC(SACModule):
    """SAC's module with a ``Corrector`` as its policy."""

    def setup(self) -> None:
        """Put it in place."""
        super().setup()
        self.pi = Corrector()


PLAIN = {"ppo": DefaultPPOTorchRLModule, "sac": DefaultSACTorchRLModule}
CORRECTING = {"ppo": CorrectingPPO, "sac": CorrectingSAC}


class Run(NamedTuple):
    """One training."""

    algorithm: Algorithms
    encoding: str
    seed: int
    steps: int
    """Decisions."""
    sites: int
    """Simulated at once."""


class Encoding(NamedTuple):
    """What an action is, and which plan it means."""

    space: Box | Discrete[np.int64]
    plan: Callable[[View, Any], int]
    """From what a class is shown and an action to one of the viewer's candidates."""


def shortlist(viewer: Viewer) -> Encoding:
    """A place of the shortlist."""
    return Encoding(Discrete(SHORTLIST), lambda view, action: int(view.shortlist[action]))


def every_plan(viewer: Viewer) -> Encoding:
    """A candidate, whatever is shown."""
    return Encoding(Discrete(len(viewer.candidates)), lambda view, action: int(action))


def box(viewer: Viewer) -> Encoding:
    """A point, which means the candidate nearest to it."""
    points = coordinates(viewer.candidates)

    def nearest(view: View, action: NDArray[np.float32]) -> int:
        return int(((points - action) ** 2).sum(1).argmin())

    return Encoding(Box(0.0, 1.0, (points.shape[1],), np.float32), nearest)


def coordinates(candidates: Sequence[Candidate]) -> NDArray[np.float64]:
    """Partition, strictness and level of each, (K, 3), from the least, 0, to the greatest, 1."""
    points = np.array(
        [(each.decision.partition, each.strictness, each.decision.level) for each in candidates]
    )
    least = points.min(0)
    scaled: NDArray[np.float64] = (points - least) / np.maximum(points.max(0) - least, 1)
    return scaled


ENCODINGS: dict[str, Callable[[Viewer], Encoding]] = {
    SHIPPED: shortlist,
    CORRECTED: shortlist,
    "every_plan": every_plan,
    "box": box,
}


class EncodedEnv(SchedulingVectorEnv):
    """The environment with actions of another form.

    Args:
        task: What is simulated.
        encoding: Of plans.
        num_envs: A multiple of the number of classes.
        seed: Of all that is drawn.
    """

    def __init__(self, task: Task, encoding: Encoding, num_envs: int, seed: int = 0) -> None:
        super().__init__(task, num_envs, seed)
        self._encoding = encoding
        self.single_action_space = encoding.space
        self.action_space = batch_space(encoding.space, num_envs)

    def plans(self, actions: NDArray[Any]) -> NDArray[np.intp]:
        """Which of the viewer's candidates these actions mean, (num_envs,)."""
        chosen = zip(self._views, actions, strict=True)
        return np.array([self._encoding.plan(view, action) for view, action in chosen])


class Trained:
    """Decides by the best action of RLlib's module.

    Args:
        viewer: Makes the features.
        encoding: Of plans.
        module: After training.
    """

    def __init__(self, viewer: Viewer, encoding: Encoding, module: RLModule) -> None:
        self._viewer, self._encoding, self._module = viewer, encoding, module

    def decide(self, observation: Observation, slo: SloClass) -> Decision:
        """The plan that the best action means."""
        view = self._viewer.view(observation, slo.deadline_ms)
        plan = self._encoding.plan(view, self.action(view.features))
        return self._viewer.candidates[plan].decision

    def action(self, features: NDArray[np.float32]) -> NDArray[Any]:
        """The most likely one, or of a Gaussian its mean, as the environment takes it."""
        batch = {Columns.OBS: torch.from_numpy(features)[None]}
        with torch.no_grad():
            told = self._module.forward_inference(batch)[Columns.ACTION_DIST_INPUTS]
        distribution = self._module.get_inference_action_dist_cls().from_logits(told)
        best = distribution.to_deterministic().sample()[0]
        if isinstance(distribution, TorchSquashedGaussian):
            best = best.tanh()  # RLlib gives the mean from before (its issue 51544)
        action: NDArray[Any] = unsquash_action(best.numpy(), self._encoding.space)
        return action


def main() -> None:
    """Train, judge and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps-ppo", type=int, default=200_000, help="decisions of each run")
    parser.add_argument("--steps-sac", type=int, default=60_000, help="decisions of each run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--algorithms", nargs="+", choices=list(PLAIN), default=list(PLAIN))
    parser.add_argument("--sites", type=int, default=SITES, help="simulated at once in training")
    arguments = parser.parse_args()
    steps = {"ppo": arguments.steps_ppo, "sac": arguments.steps_sac}
    runs = [
        Run(algorithm, encoding, seed, steps[algorithm], arguments.sites)
        for algorithm, encoding, seed in product(arguments.algorithms, ENCODINGS, arguments.seeds)
    ]
    bundle = Bundle.load()
    train, _ = read_sources()
    task = make_task(bundle, SLO_CLASSES, train)
    facts = {"measured": measured(bundle), "plans": len(task.viewer.candidates)}
    facts["validation_sites"] = VALIDATION_SITES
    forecast = float(validate(task, untrained(task.viewer)).mean())
    warnings.filterwarnings("ignore", message=".*Overriding environment")  # one more algorithm
    torch.set_num_threads(1)
    quiet_ray()
    rows: list[Row] = []
    with Progress() as progress:
        bar = progress.add_task("decisions", total=sum(run.steps for run in runs))
        for run in runs:
            progress.update(bar, description=f"{run.algorithm}, {run.encoding}, seed {run.seed}")
            advance = partial(progress.advance, bar)
            rows.append(kept(run, facts, partial(measure, task, run, forecast), advance))
    settings = {**facts, "steps": steps, "sites": arguments.sites, "forecast": round(forecast, 5)}
    settings["weights"] = task.viewer.weights.model_dump()
    print(write("encodings", settings, rows))


def measured(bundle: Bundle) -> str:
    """A digest of what the simulator knows of a bundle; its policy, for one, is nothing to it."""
    known = bundle.manifest.to_json() + save_arrays(bundle.outcomes.to_arrays())
    return hashlib.sha256(known).hexdigest()[:16]


def kept(
    run: Run,
    facts: Mapping[str, object],
    measure: Callable[[Callable[[int], None]], Row],
    advance: Callable[[int], None],
) -> Row:
    """The row of a run that ended before, or else of a new one, which is kept.

    Args:
        run: Which.
        facts: All else that the row depends on, but for the code.
        measure: Called if need be.
        advance: Told of decisions that are done.
    """
    path = RUNS / f"{run.algorithm}-{run.encoding}-{run.seed}.json"
    basis = {**facts, **run._asdict()}
    if path.is_file():
        found = json.loads(path.read_text())
        if found["basis"] == basis:
            advance(run.steps)
            return dict(found["row"])
    row = measure(advance)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"basis": basis, "row": row}) + "\n")
    return row


def measure(task: Task, run: Run, forecast: float, advance: Callable[[int], None]) -> Row:
    """Train and judge.

    Args:
        task: For both.
        run: What to train.
        forecast: What a request is worth on the validation sites by the forecast alone.
        advance: Told of decisions that are done.
    """
    encoding = ENCODINGS[run.encoding](task.viewer)
    trainer = configured(task, run, encoding).build_algo()
    done, seconds = 0, 0.0
    while done < run.steps:
        before, started = done, time.perf_counter()
        done = int(trainer.train()["num_env_steps_sampled_lifetime"])
        seconds += time.perf_counter() - started
        advance(min(done, run.steps) - before)
    worth = validate(task, Trained(task.viewer, encoding, trainer.get_module()))
    trainer.stop()
    return {
        "algorithm": run.algorithm,
        "encoding": run.encoding,
        "seed": run.seed,
        "gain": round(float(worth.mean()) - forecast, 6),
        "seconds": round(seconds, 1),
        "actions": str(encoding.space),
    }


def configured(task: Task, run: Run, encoding: Encoding) -> AlgorithmConfig:
    """RLlib's settings as in training, but for actions and, where it's RLlib's own, the network."""
    num_envs = run.sites * len(task.setting.classes)
    config = configure(task, run.algorithm, run.seed, num_envs, run.steps)
    name = f"xpi-{run.encoding}"
    register_env(
        name, lambda context: EncodedEnv(task, encoding, context["num_envs"], context["seed"])
    )
    config.environment(name)
    if run.encoding != SHIPPED:
        network = config.rl_module_spec.model_config
        modules = CORRECTING if run.encoding == CORRECTED else PLAIN
        spec = RLModuleSpec(module_class=modules[run.algorithm], model_config=network)
        config.rl_module(rl_module_spec=spec)
    if run.algorithm == "sac":
        space, share = encoding.space, TARGET_ENTROPY
        target = share * float(np.log(space.n)) if isinstance(space, Discrete) else "auto"
        config.training(target_entropy=target)
    return config


if __name__ == "__main__":
    main()
