"""Trains a policy on the simulator with RLlib's PPO or SAC; can be stopped and resumed.

Task ─► SchedulingVectorEnv ─► RLlib ─► checkpoints, validation ─► the best policy's file
"""

import csv
import json
import logging
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import ray
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.tune.registry import register_env
from tensorboardX import SummaryWriter

from rl.contest import drive, untrained
from rl.environment import SchedulingVectorEnv, Worth
from rl.module import PPOModule, SACModule, layers_of
from rl.task import Task
from xpi_ray.policies.base import Policy
from xpi_ray.policies.learned import SHARPNESS, SHORTLIST, Layer, Learned, to_bytes
from xpi_ray.simulation.cluster import utilities
from xpi_ray.simulation.draw import draw_site

Algorithms = Literal["ppo", "sac"]
ENVIRONMENT = "xpi-scheduling"
SITES = 16  # in one simulated cluster, each with all classes
GAMMA = 0.0  # a reward counts all that its plans did, and the next period brings new ones
STEPS = {"ppo": 600_000, "sac": 250_000}
VALIDATION_SEED = 1_000_003
VALIDATION_SITES = 192
VALIDATE_EVERY_S = 60.0
TARGET_ENTROPY = 0.3  # of ln(SHORTLIST): 0.98, as is usual, is next to deciding at random


class Progress(NamedTuple):
    """One row of the learning curve."""

    steps: int
    """Decisions so far."""
    seconds: float
    """Of training, over all sessions."""
    mean_reward: float
    """Per decision, while exploring."""
    validation: float
    """``SHARPNESS`` times how much more requests of the validation sites are worth with the best
    action always than by the forecast alone; NaN where not measured."""
    entropy: float
    """Of the policy in training, natural logarithm."""


class Training:
    """One run in a folder of its own, which it goes on from.

    Args:
        task: What to train for.
        algorithm: PPO or SAC.
        seed: Of networks, sites and actions.
        folder: For checkpoints, curve and policy.
        steps: Decisions in all; the default depends on the algorithm.
    """

    def __init__(
        self,
        task: Task,
        algorithm: Algorithms,
        seed: int,
        folder: Path,
        steps: int | None = None,
        sites: int = SITES,
    ) -> None:
        self._task, self._folder = task, folder
        self.steps = steps or STEPS[algorithm]
        self._num_envs = sites * len(task.setting.classes)
        folder.mkdir(parents=True, exist_ok=True)
        self._checkpoint = folder / "checkpoint"
        self._curve = folder / "curve.csv"
        self._state = folder / "state.json"
        self.policy_path = folder / "policy.safetensors"
        self._done, self._seconds, self._best = 0, 0.0, 0.0
        forecast = untrained(task.viewer)
        self._forecast_worth = validate(task, forecast)
        torch.set_num_threads(1)
        config = configure(task, algorithm, seed, self._num_envs, self.steps)
        self._algorithm: Algorithm = config.build_algo()
        if self._state.exists() and self._checkpoint.exists():
            self._resume()
        else:  # the best until another is better
            self._keep(forecast.layers)

    def run(self) -> Iterator[Progress]:
        """Train to the end, a row at a time."""
        new = not self._curve.exists() or self._done == 0
        if not new:
            self._trim()
        validated_s = -np.inf
        with (
            self._curve.open("w" if new else "a", newline="") as file,
            SummaryWriter(str(self._folder / "tensorboard")) as board,
        ):
            writer = csv.writer(file)
            if new:
                writer.writerow(Progress._fields)
            while self._done < self.steps:
                started = time.perf_counter()
                result = self._algorithm.train()
                self._done = int(result["num_env_steps_sampled_lifetime"])
                self._seconds += time.perf_counter() - started
                validation = float("nan")
                if self._seconds - validated_s > VALIDATE_EVERY_S or self._done >= self.steps:
                    validated_s = self._seconds
                    validation = self._validate()
                row = Progress(
                    self._done, self._seconds, _mean_reward(result), validation, _entropy(result)
                )
                writer.writerow(row)
                file.flush()
                for name, value in row._asdict().items():
                    if np.isfinite(value):
                        board.add_scalar(name, value, self._done)
                yield row

    def facts(self) -> dict[str, float]:
        """Decisions and seconds so far, and the best validation."""
        return {"steps": self._done, "seconds": self._seconds, "best": self._best}

    def close(self) -> None:
        """Free what RLlib holds."""
        self._algorithm.stop()

    def _validate(self) -> float:
        """Judge the policy, keep it if it is the best so far, and make a checkpoint."""
        layers = layers_of(self._algorithm.get_module())
        worth = validate(self._task, Learned(self._task.viewer, layers))
        validation = SHARPNESS * (worth - self._forecast_worth).mean()
        if validation > self._best:
            self._best = float(validation)
            self._keep(layers)
        self._algorithm.save_to_path(str(self._checkpoint.resolve()))
        self._state.write_text(json.dumps(self.facts()))
        return float(validation)

    def _keep(self, layers: Sequence[Layer]) -> None:
        weights = self._task.viewer.weights
        self.policy_path.write_bytes(to_bytes(layers, self._task.kept, weights))

    def _trim(self) -> None:
        """Forget what the curve tells of decisions after the checkpoint: they come again."""
        head, *lines = self._curve.read_text().splitlines()
        kept = [line for line in lines if int(line.partition(",")[0]) <= self._done]
        self._curve.write_text("\n".join([head, *kept, ""]))

    def _resume(self) -> None:
        facts = json.loads(self._state.read_text())
        self._algorithm.restore_from_path(str(self._checkpoint.resolve()))
        self._done, self._seconds, self._best = facts["steps"], facts["seconds"], facts["best"]


def configure(
    task: Task, algorithm: Algorithms, seed: int, num_envs: int, steps: int
) -> AlgorithmConfig:
    """RLlib's settings, all in this process: simulating is quicker than handing over to others."""
    register_env(
        ENVIRONMENT,
        lambda context: SchedulingVectorEnv(task, context["num_envs"], context.get("seed", 0)),
    )
    hidden = DefaultModelConfig(
        fcnet_hiddens=[64, 64], fcnet_activation="tanh", vf_share_layers=False
    )
    config: AlgorithmConfig
    if algorithm == "ppo":
        config = PPOConfig().training(
            train_batch_size_per_learner=128 * num_envs,
            minibatch_size=min(1024, 128 * num_envs),
            num_epochs=6,
            lr=[[0, 5e-4], [steps, 1e-5]],
            entropy_coeff=[[0, 0.01], [steps, 0.0]],
            vf_clip_param=10.0,
            grad_clip=0.5,
        )
        module: type = PPOModule
    else:
        config = SACConfig().training(
            actor_lr=3e-4,
            critic_lr=1e-3,
            alpha_lr=1e-3,
            initial_alpha=0.1,
            lr=None,
            train_batch_size_per_learner=512,
            num_steps_sampled_before_learning_starts=4_000,
            target_entropy=TARGET_ENTROPY * float(np.log(SHORTLIST)),
            tau=0.02,
            training_intensity=4.0,
            replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": 100_000},
        )
        module = SACModule
    return (
        config.training(gamma=GAMMA)
        .environment(ENVIRONMENT, env_config={"seed": seed})
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=num_envs,
            gym_env_vectorize_mode="vector_entry_point",
            rollout_fragment_length="auto" if algorithm == "ppo" else 1,
        )
        .learners(num_learners=0)
        .rl_module(rl_module_spec=RLModuleSpec(module_class=module, model_config=hidden))
        .debugging(seed=seed, log_level="ERROR")
        .reporting(min_sample_timesteps_per_iteration=128 * num_envs)
    )


def validate(task: Task, policy: Policy, seed: int = VALIDATION_SEED) -> Worth:
    """Mean utility of requests at each site, drawn from the task's traces; 0 if there are none."""
    duration_s = task.periods * task.period_s
    setting = task.setting
    rewards = []
    for site in range(VALIDATION_SITES):
        rng = np.random.default_rng([seed, site])
        drawn = draw_site(setting, task.sources, duration_s, rng)
        rows = drive(task, drawn, policy, duration_s)
        rewards.append(utilities(rows, task.viewer.weights).sum() / max(len(rows), 1))
    return np.array(rewards)


def quiet_ray() -> None:
    """Start Ray in this process, as RLlib wants it, without its messages and warnings."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    logging.getLogger("ray").setLevel(logging.ERROR)
    if not ray.is_initialized():
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address="127.0.0.1",
        )


def _mean_reward(result: dict[str, Any]) -> float:
    runners = result.get("env_runners", {})
    return float(runners.get("episode_return_mean", np.nan)) / max(
        float(runners.get("episode_len_mean", np.nan) or np.nan), 1.0
    )


def _entropy(result: dict[str, Any]) -> float:
    learner = result.get("learners", {}).get("default_policy", {})
    return float(learner.get("entropy", np.nan))
