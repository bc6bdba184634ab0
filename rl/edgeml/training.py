"""Trains EdgeML's policy on the simulator, with RLlib's SAC in the place of DDPG.

World ─► EdgeMLVectorEnv ─► RLlib ─► validation ─► the best policy's file

RLlib has no DDPG any more. SAC is its nearest relative there: off-policy, an actor and critics
with slowly following targets, a replay buffer, continuous actions, on the same states, actions and
rewards. Where DDPG adds Gaussian noise to a deterministic actor, SAC has a distribution that a
bonus for entropy keeps wide; served is its mean, which is as deterministic. Haarnoja et al. (2018)
find it at least as good as DDPG throughout, so it does EdgeML no harm.

Of EdgeML's code are the discount 0.9, the targets' rate 0.01, the batch of 64, the buffer of 10,000
decisions and the actor's one hidden layer of 300. The learning rates are SAC's usual 3e-4 (there
1e-4), as what counts here is the best policy that can be had.
"""

import csv
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.algorithms.sac.torch.default_sac_torch_rl_module import DefaultSACTorchRLModule
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModule, RLModuleSpec
from ray.tune.registry import register_env
from torch import Tensor, nn

from rl.edgeml.environment import EdgeMLVectorEnv, World
from rl.module import Through, layers_of
from xpi_ray.policies.edgeml import HIDDEN, STATE, act, to_bytes
from xpi_ray.policies.learned import Layer

ENVIRONMENT = "edgeml"
SITES = 8  # in one simulated cluster, each with all classes
STEPS = 60_000
VALIDATION_SITES = 24
VALIDATION_SEED = 1_000_003
VALIDATE_EVERY = 6_000  # decisions


class Progress(NamedTuple):
    """One row of the learning curve."""

    steps: int
    """Decisions so far."""
    seconds: float
    """Of training and validation."""
    validation: float
    """Mean reward on the validation sites, with the distribution's mean always."""


class Actor(nn.Module):
    """Mean and logarithm of the standard deviation of each action before it is squashed."""

    def __init__(self, actions: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(STATE, HIDDEN), nn.Linear(HIDDEN, 2 * actions)])

    def forward(self, states: Tensor) -> Tensor:
        """(n, STATE) to (n, 2 · actions)."""
        said: Tensor = self.layers[1](self.layers[0](states).relu())
        return said


class EdgeMLModule(DefaultSACTorchRLModule):  # type: ignore[misc]
    """SAC's module with EdgeML's actor."""

    def setup(self) -> None:
        """Put it in place."""
        super().setup()
        self.pi_encoder, self.pi = Through(), Actor(self.action_space.shape[0])


def train(
    world: World, folder: Path, seed: int = 0, steps: int = STEPS, sites: int = SITES
) -> Iterator[Progress]:
    """Train; the folder gets the curve and, at every row that is the best so far, the policy.

    Args:
        world: What to train in.
        folder: For ``curve.csv`` and ``policy.safetensors``.
        seed: Of networks, sites and actions.
        steps: Decisions in all.
        sites: Simulated at a time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    num_envs = sites * len(world.setting.classes)
    algorithm: Algorithm = configure(world, seed, num_envs, steps).build_algo()
    started, best = time.perf_counter(), -np.inf
    try:
        with (folder / "curve.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(Progress._fields)
            done = 0
            while done < steps:
                done = int(algorithm.train()["num_env_steps_sampled_lifetime"])
                layers = actor_of(algorithm.get_module())
                validation = validate(world, layers)
                if validation > best:
                    best = validation
                    data = to_bytes(layers, world.exits, world.num_blocks)
                    (folder / "policy.safetensors").write_bytes(data)
                row = Progress(done, time.perf_counter() - started, validation)
                writer.writerow(row)
                file.flush()
                yield row
    finally:
        algorithm.stop()


def configure(world: World, seed: int, num_envs: int, steps: int) -> AlgorithmConfig:
    """RLlib's settings, all in this process."""
    register_env(
        ENVIRONMENT,
        lambda context: EdgeMLVectorEnv(world, context["num_envs"], context.get("seed", 0)),
    )
    hidden = DefaultModelConfig(fcnet_hiddens=[HIDDEN], fcnet_activation="relu")
    config: AlgorithmConfig = (
        SACConfig()
        .training(
            actor_lr=3e-4,
            critic_lr=3e-4,
            alpha_lr=3e-4,
            lr=None,
            gamma=0.9,
            tau=0.01,
            initial_alpha=0.1,
            target_entropy=-float(len(world.exits)),
            train_batch_size_per_learner=64,
            training_intensity=8.0,
            num_steps_sampled_before_learning_starts=min(2_000, steps // 4),
            replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": 10_000},
        )
        .environment(ENVIRONMENT, env_config={"seed": seed})
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=num_envs,
            gym_env_vectorize_mode="vector_entry_point",
            rollout_fragment_length=1,
        )
        .learners(num_learners=0)
        .rl_module(rl_module_spec=RLModuleSpec(module_class=EdgeMLModule, model_config=hidden))
        .debugging(seed=seed, log_level="ERROR")
        .reporting(min_sample_timesteps_per_iteration=min(VALIDATE_EVERY, steps))
    )
    return config


def actor_of(module: RLModule) -> list[Layer]:
    """The actor's layers, as a policy file holds them: of the last one the means alone."""
    first, (weights, biases) = layers_of(module)
    actions = len(biases) // 2
    return [first, (weights[:actions], biases[:actions])]


def validate(world: World, layers: list[Layer], seed: int = VALIDATION_SEED) -> float:
    """Mean reward of a policy over an episode of sites drawn from the world's traces."""
    environment = EdgeMLVectorEnv(world, VALIDATION_SITES * len(world.setting.classes))
    states, _ = environment.reset(seed=seed)
    rewards = []
    for _ in range(world.periods):
        states, reward, *_ = environment.step(act(layers, states))
        rewards.append(reward.mean())
    return float(np.mean(rewards))
