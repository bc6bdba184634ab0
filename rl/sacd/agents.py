"""What SAC-d and the DQN beside it share: size, memory, and how they meet an environment.

environment ─► Agent.learn ─► steps so far ─► update ─► … ─► Agent.act, greedy
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xpi_ray.errors import PlanError, TrainingError

WIDTH = 64
MEAN_RATE = 0.5  # that the mean reward moves by, of the mean temporal difference
Environment = gymnasium.Env[NDArray[np.float32], Any]


@dataclass(frozen=True)
class AgentConfig:
    """Of both agents; rates and sizes that the paper gives are its own (section IV-A3)."""

    steps: int = 30_000
    discount: float = 0.99
    learning_rate: float = 1e-3
    seed: int = 0
    batch: int = 256
    first_steps: int = 1_000
    """Random ones, before anything is learned."""
    update_every: int = 2
    """Steps."""
    target_share: float = 0.005
    """That targets move towards what is learned at every update."""


class Batch(NamedTuple):
    """Steps to learn from: states (n, F), actions (n, 1), rewards (n, 1), next states (n, F)."""

    states: Tensor
    actions: Tensor
    rewards: Tensor
    next_states: Tensor


class Agent(ABC):
    """Learns which action is best in which state.

    Both learn how rewards differ from their mean, which the temporal differences move (Naik et
    al., "Reward Centering", RLC 2024): in an environment without end that changes no choice, but
    with a discount of 0.99 the mean makes values thousands of times what two actions differ by.
    The mean moves fast: behind a slow one (0.01) all values climbed throughout the training, and
    what actions differ by was lost in that. Learning rates fall evenly to 0, so that differences of
    a percent of the reward settle.

    Args:
        features: F, of a state.
        actions: Their number.
        config: How to learn.
    """

    def __init__(self, features: int, actions: int, config: AgentConfig) -> None:
        torch.manual_seed(config.seed)
        self._features, self._actions = features, actions
        self._config = config
        self._random = np.random.default_rng(config.seed)

    def act(self, state: NDArray[np.float32]) -> int:
        """The best action as far as is known.

        Raises:
            PlanError: The state has another shape, or a feature that is not finite.
        """
        return int(self.preferences(self.checked(state)).argmax())

    def learn(self, environment: Environment) -> Iterator[float]:
        """Learn for the configured steps; gives each step's reward as it comes.

        Raises:
            TrainingError: The environment gave a state or a reward that is not finite.
        """
        config = self._config
        mean = 0.0
        states = np.zeros((config.steps, 2, self._features), np.float32)
        actions, rewards = (
            np.zeros((config.steps, 1), np.int64),
            np.zeros((config.steps, 1), np.float32),
        )
        state, _ = environment.reset(seed=config.seed)
        for step in range(config.steps):
            if step < config.first_steps:
                action = int(self._random.integers(self._actions))
            else:
                with torch.inference_mode():
                    action = self.explore(self.checked(state), step / config.steps)
            following, reward, _, over, _ = environment.step(action)
            if not (np.isfinite(following).all() and np.isfinite(float(reward))):
                raise TrainingError(
                    f"step {step}: expected finite figures, got {following, reward}"
                )
            states[step], actions[step], rewards[step] = (state, following), action, reward
            state = environment.reset()[0] if over else following
            if step >= config.first_steps and step % config.update_every == 0:
                index = self._random.integers(step + 1, size=config.batch)
                drawn = states[index, 0], actions[index], rewards[index] - np.float32(mean)
                rate = config.learning_rate * (1 - step / config.steps)
                error = self.update(Batch(*map(torch.from_numpy, (*drawn, states[index, 1]))), rate)
                mean += MEAN_RATE * error
            yield float(reward)

    def checked(self, state: NDArray[np.float32]) -> Tensor:
        """A state as a tensor (1, F); PlanError if it is none."""
        if np.shape(state) != (self._features,) or not np.isfinite(state).all():
            raise PlanError(f"expected {self._features} finite features, got {state}")
        return torch.from_numpy(state)[None]

    def soften(self, targets: nn.Module, learned: nn.Module) -> None:
        """Move targets a little towards what is learned."""
        with torch.no_grad():
            for target, new in zip(targets.parameters(), learned.parameters(), strict=True):
                target.lerp_(new, self._config.target_share)

    @abstractmethod
    def preferences(self, states: Tensor) -> Tensor:
        """What greedy choices go by, (n, actions); higher is better."""

    @abstractmethod
    def explore(self, state: Tensor, progress: float) -> int:
        """An action to learn from, ``progress`` (0..1) of the training done."""

    @abstractmethod
    def update(self, batch: Batch, rate: float) -> float:
        """Take one step of gradient descent; returns the mean temporal difference."""


def descend(optimiser: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    """Take one step at a learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def five_layers(inputs: int, outputs: int) -> nn.Sequential:
    """Five fully connected layers (section IV-A3)."""
    sizes = (inputs, *[WIDTH] * 4)
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, outputs))
