from dataclasses import asdict

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rl.module import Chooser, PPOModule, SACModule, layers_of, set_layers
from xpi_ray.policies.learned import FEATURES, SHORTLIST, Learned

BATCH = torch.randn(9, FEATURES, generator=torch.Generator().manual_seed(0)).clip(-5, 5)


@pytest.fixture(params=[PPOModule, SACModule])
def module(request):
    """As RLlib makes it."""
    torch.manual_seed(1)
    spec = RLModuleSpec(
        module_class=request.param,
        observation_space=Box(-5, 5, (FEATURES,), np.float32),
        action_space=Discrete(SHORTLIST),
        model_config={**asdict(DefaultModelConfig(vf_share_layers=False)), "twin_q": True},
    )
    return spec.build()


def scramble(module):
    """Give every layer of the policy random weights."""
    for parameter in module.pi.parameters():
        torch.nn.init.normal_(parameter, std=0.3)


def test_at_first_all_places_are_alike():
    """So that a training tries all of them."""
    torch.manual_seed(0)
    assert Chooser()(BATCH).abs().max() < 0.1


def test_what_is_trained_is_what_is_served(task, module):
    """Logits of RLlib's module are those of the policy that its layers make."""
    scramble(module)
    policy = Learned(task.viewer, layers_of(module))
    served = policy.logits(BATCH.numpy())
    assert module.pi(BATCH).detach().numpy() == pytest.approx(served, abs=1e-4)
    with torch.no_grad():
        said = module.forward_inference({Columns.OBS: BATCH})[Columns.ACTION_DIST_INPUTS]
    assert said.numpy() == pytest.approx(served, abs=1e-4)


def test_layers_go_in_as_they_came_out(task, module):
    """Those of another module make it decide the same; they are copies."""
    scramble(module)
    layers = layers_of(module)
    other = Chooser()
    module.pi, theirs = other, module.pi
    set_layers(module, layers)
    assert torch.equal(module.pi(BATCH), theirs(BATCH))
    before = [weights.copy() for weights, _ in layers]
    scramble(module)
    assert all((a == b).all() for a, (b, _) in zip(before, layers, strict=True))


def test_other_numbers_of_layers_are_refused(module):
    """They would be of another network."""
    with pytest.raises(ValueError, match="zip"):
        set_layers(module, layers_of(module)[:-1])
