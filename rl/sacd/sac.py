"""Soft actor-critic for discrete actions, SAC-d (Christodoulou, 2019; the paper's equations 7-11).

    states ─► policy ─► probabilities ─┬─► expectation over all actions, no sampling
    states ─► critic ─► values ────────┘

One critic, as the paper has it: it takes no more to learn, and the lower value of two, as in
Christodoulou's, would hold against an action that it was seldom tried.
"""

import copy
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from rl.sacd.agents import Agent, AgentConfig, Batch, descend, five_layers


class SacD(Agent):
    """SAC-d.

    The paper does not give the target entropy. Christodoulou's 0.98 ln |A| cannot be met by any
    policy that is better than a random one when there are 189 actions, so the temperature grows
    without end; ``entropy_share`` of ln |A| lets the policy settle, on as many choices as three
    equal ones on average over states. (0.05 came to much the same choices.)
    """

    def __init__(
        self, features: int, actions: int, config: AgentConfig, entropy_share: float = 0.2
    ) -> None:
        super().__init__(features, actions, config)
        self._policy = five_layers(features, actions)
        self._critic = five_layers(features, actions)
        self._targets = copy.deepcopy(self._critic).requires_grad_(False)
        self._log_temperature = torch.tensor(math.log(0.1), requires_grad=True)
        self._entropy = entropy_share * math.log(actions)
        self._of_policy = torch.optim.Adam(self._policy.parameters(), fused=True)
        self._of_critic = torch.optim.Adam(self._critic.parameters(), fused=True)
        self._of_temperature = torch.optim.Adam([self._log_temperature], fused=True)

    def preferences(self, states: Tensor) -> Tensor:
        """Logits of the policy."""
        logits: Tensor = self._policy(states)
        return logits

    def explore(self, state: Tensor, progress: float) -> int:
        """Draw from the policy."""
        del progress
        return int(torch.multinomial(self._policy(state).softmax(1), 1))

    def update(self, batch: Batch, rate: float) -> float:
        """Critic by equations 8 and 9, policy by 10, temperature by 11."""
        temperature = self._log_temperature.detach().exp()
        with torch.no_grad():
            following = self._policy(batch.next_states).log_softmax(1)
            soft = self._targets(batch.next_states) - temperature * following
            value = (following.exp() * soft).sum(1, keepdim=True)
            wanted = batch.rewards + self._config.discount * value
        values = self._critic(batch.states)
        found = values.gather(1, batch.actions)
        descend(self._of_critic, F.mse_loss(found, wanted), rate)
        logits = self._policy(batch.states).log_softmax(1)
        cost = temperature * logits - values.detach()
        descend(self._of_policy, (logits.exp() * cost).sum(1).mean(), rate)
        entropy = -(logits.exp() * logits).sum(1).detach().mean()
        excess = self._log_temperature.exp() * (entropy - self._entropy)
        descend(self._of_temperature, excess, rate)
        self.soften(self._targets, self._critic)
        return float((wanted - found.detach()).mean())
