"""The deep Q-network (Mnih et al., 2015) that the paper compares SAC-d with, of the same size."""

import copy

import torch
from torch import Tensor
from torch.nn import functional as F

from rl.sacd.agents import Agent, AgentConfig, Batch, descend, five_layers

LEAST_RANDOM = 0.05  # share of random actions
RANDOM_UNTIL = 0.5  # share of the training in which the random ones become few


class Dqn(Agent):
    """DQN with targets that follow softly."""

    def __init__(self, features: int, actions: int, config: AgentConfig) -> None:
        super().__init__(features, actions, config)
        self._values = five_layers(features, actions)
        self._targets = copy.deepcopy(self._values).requires_grad_(False)
        self._optimiser = torch.optim.Adam(self._values.parameters(), fused=True)

    def preferences(self, states: Tensor) -> Tensor:
        """Values."""
        values: Tensor = self._values(states)
        return values

    def explore(self, state: Tensor, progress: float) -> int:
        """Mostly the best; at random in a share that falls evenly."""
        if self._random.random() < max(LEAST_RANDOM, 1 - progress / RANDOM_UNTIL):
            return int(self._random.integers(self._actions))
        return int(self.preferences(state).argmax())

    def update(self, batch: Batch, rate: float) -> float:
        """One step on Huber's loss of the temporal difference."""
        with torch.no_grad():
            best = self._targets(batch.next_states).amax(1, keepdim=True)
            wanted = batch.rewards + self._config.discount * best
        found = self._values(batch.states).gather(1, batch.actions)
        descend(self._optimiser, F.smooth_l1_loss(found, wanted), rate)
        self.soften(self._targets, self._values)
        return float((wanted - found.detach()).mean())
