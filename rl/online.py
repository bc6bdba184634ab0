"""Learning on from live experience: PPO's learner on a copy of the policy, then a rehearsal.

    policy in force, Experience…, SiteLog… ─► Online.learn ─► Lesson: a better policy, or why not

It keeps nothing between lessons that its death could lose: each brings all that it needs.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from safetensors.numpy import load
from torch import Tensor

from rl.lesson import Lesson, SiteLog
from rl.module import HIDDEN, Chooser, PPOModule, layers_of, set_layers
from rl.rehearsal import rehearse
from rl.task import Task
from xpi_ray.bundle import Bundle
from xpi_ray.errors import DataError
from xpi_ray.policies.base import Decision
from xpi_ray.policies.experience import BARRED, Experience
from xpi_ray.policies.learned import FEATURES, SHORTLIST, Layer, Learned, from_bytes, to_bytes
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import SloClass
from xpi_ray.simulation.cluster import Setting
from xpi_ray.simulation.draw import Sources

EPOCHS, MINIBATCH, LEARNING_RATE = 10, 128, 3e-4
GRADIENT_CLIP = 0.5
REWARD_BOUND = 40.0  # SHARPNESS times the range of a request's utility
MODULE = "default_policy"


class BarredChooser(Chooser):
    """A ``Chooser`` that is shown what was allowed too: (n, FEATURES + SHORTLIST)."""

    def forward(self, shown: Tensor) -> Tensor:
        """Logits as when the choice was made, so that probabilities can be compared."""
        said = super().forward(shown[:, :FEATURES])
        return said - BARRED * (1 - shown[:, FEATURES:])


class OnlineModule(PPOModule):
    """PPO's module for experience."""

    def setup(self) -> None:
        """Put the policy in place."""
        super().setup()
        self.pi = BarredChooser()


class Online:
    """Improves policies of one bundle; in a process of its own, as it computes for seconds.

    Args:
        bundle: What is served.
        classes: SLO classes.
        period_s: Time between decisions.
    """

    def __init__(self, bundle: Bundle, classes: Sequence[SloClass], period_s: float) -> None:
        self._profile = bundle.manifest.profiles["default"]
        self._candidates = bundle.candidates()
        static = bundle.manifest.static_plan
        fallback = Decision(static.partition, static.thresholds, static.level)
        self._setting = Setting(self._profile, bundle.levelled(), tuple(classes), fallback)
        self._period_s = period_s

    def learn(
        self, present: bytes, experiences: Sequence[Experience], sites: Sequence[SiteLog]
    ) -> Lesson:
        """Improve a copy of the present policy, and offer it if it is better in rehearsal.

        Args:
            present: File of the policy in force, which made the experiences.
            experiences: Those that are no numbers are left out.
            sites: As they were of late.

        Raises:
            PlanError: The present policy is none for this bundle.
        """
        policy = from_bytes(present, self._profile, self._candidates)
        usable = [each for each in experiences if np.isfinite(each.reward)]
        facts: dict[str, float | str] = {"experiences": len(usable)}
        layers = improved(policy.layers, usable)
        if not all(np.isfinite(part).all() for layer in layers for part in layer):
            return Lesson(None, {**facts, "refused": "learning diverged"})
        task = Task(
            self._setting, policy.viewer, (), Sources([], []), Observation(), self._period_s
        )
        try:
            gain = rehearse(task, sites, Learned(policy.viewer, layers), policy)
        except DataError as err:
            return Lesson(None, {**facts, "refused": str(err)})
        facts |= {"gain": gain.mean, "error": gain.error}
        if not gain.sure:
            return Lesson(None, {**facts, "refused": "not better in rehearsal"})
        kept = load(present)["kept"].tolist()
        return Lesson(to_bytes(layers, kept, policy.viewer.weights), facts)


def improved(layers: Sequence[Layer], experiences: Sequence[Experience]) -> list[Layer]:
    """A copy of the layers after PPO's update on these experiences; they may have diverged."""
    learner = _learner()
    module = learner.module[MODULE]
    set_layers(module, layers)
    episodes = [_episode(each) for each in experiences]
    learner.update(
        training_data=TrainingData(episodes=episodes),
        timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: len(episodes)},
        num_epochs=EPOCHS,
        minibatch_size=min(MINIBATCH, len(episodes)),
        shuffle_batch_per_epoch=True,
    )
    return layers_of(module)


def _learner() -> Learner:
    """RLlib's learner alone, without environment, runners or Ray."""
    torch.manual_seed(0)
    observations = gym.spaces.Box(-5, 5, (FEATURES + SHORTLIST,), np.float32)
    hidden = DefaultModelConfig(
        fcnet_hiddens=list(HIDDEN), fcnet_activation="tanh", vf_share_layers=False
    )
    config = (
        PPOConfig()
        .environment(observation_space=observations, action_space=gym.spaces.Discrete(SHORTLIST))
        .training(
            gamma=0.0,
            lr=LEARNING_RATE,
            grad_clip=GRADIENT_CLIP,
            vf_clip_param=REWARD_BOUND,
            entropy_coeff=0.0,
        )
        .learners(num_learners=0)
        .rl_module(rl_module_spec=RLModuleSpec(module_class=OnlineModule, model_config=hidden))
        .debugging(seed=0, log_level="ERROR")
    )
    learner: Any = config.build_learner()
    return learner


def _episode(experience: Experience) -> SingleAgentEpisode:
    """One step long: a reward counts all that its decision did."""
    chosen = experience.pick
    shown = np.concatenate([chosen.features, chosen.allowed.astype(np.float32)])
    logits = chosen.logits.astype(np.float64)
    log_chance = logits[chosen.action] - np.logaddexp.reduce(logits)
    return SingleAgentEpisode(
        observations=[shown, shown],
        actions=[chosen.action],
        rewards=[float(np.clip(experience.reward, -REWARD_BOUND, REWARD_BOUND))],
        terminated=True,
        len_lookback_buffer=0,
        extra_model_outputs={
            Columns.ACTION_LOGP: [np.float32(log_chance)],
            Columns.ACTION_DIST_INPUTS: [chosen.logits],
        },
    )
