"""The policy's network in RLlib's forms, for PPO and for SAC.

features ─► Chooser ─► logits of the shortlist ─► layers_of ─► policy file

What the policy prefers is ``policies.learned.Learned.logits``; critics are RLlib's own.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.algorithms.sac.torch.default_sac_torch_rl_module import DefaultSACTorchRLModule
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT
from ray.rllib.core.rl_module.rl_module import RLModule
from torch import Tensor, nn

from xpi_ray.policies.learned import FEATURES, SHORTLIST, Layer

HIDDEN = (64, 64)
FIRST_SCALE = 0.01  # of the last layer at first, when all places are alike


class Chooser(nn.Module):
    """Logits of the shortlist."""

    def __init__(self) -> None:
        super().__init__()
        widths = (FEATURES, *HIDDEN, SHORTLIST)
        self.layers = nn.ModuleList(
            nn.Linear(width, following) for width, following in pairwise(widths)
        )
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.bias)
        last.weight.data *= FIRST_SCALE

    def forward(self, features: Tensor) -> Tensor:
        """(n, FEATURES) to (n, SHORTLIST)."""
        hidden = features
        for layer in self.layers[:-1]:
            hidden = layer(hidden).tanh()
        logits: Tensor = self.layers[-1](hidden)
        return logits


class Through(nn.Module):
    """Stands where RLlib wants an encoder before the policy's head."""

    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The observations as they are."""
        return {ENCODER_OUT: batch[Columns.OBS]}


class PPOModule(DefaultPPOTorchRLModule):  # type: ignore[misc]
    """PPO's module with a ``Chooser`` as its policy."""

    def setup(self) -> None:
        """Put it in place."""
        super().setup()
        self.encoder.actor_encoder, self.pi = Through(), Chooser()


class SACModule(DefaultSACTorchRLModule):  # type: ignore[misc]
    """SAC's module with a ``Chooser`` as its policy."""

    def setup(self) -> None:
        """Put it in place."""
        super().setup()
        self.pi_encoder, self.pi = Through(), Chooser()


def layers_of(module: RLModule) -> list[Layer]:
    """The policy's layers, as a policy file holds them."""
    return [
        (layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy())
        for layer in module.pi.layers
    ]


def set_layers(module: RLModule, layers: Sequence[Layer]) -> None:
    """Make a module's policy that of these layers."""
    for layer, (weights, biases) in zip(module.pi.layers, layers, strict=True):
        layer.weight.data.copy_(layer.weight.new_tensor(np.asarray(weights)))
        layer.bias.data.copy_(layer.bias.new_tensor(np.asarray(biases)))
