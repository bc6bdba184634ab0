import gymnasium
import numpy as np
import pytest

from rl.sacd.agents import AgentConfig
from rl.sacd.dqn import Dqn
from rl.sacd.sac import SacD
from xpi_ray.errors import PlanError, TrainingError

STEPS = 1_500
AGENTS = pytest.mark.parametrize("agent", [SacD, Dqn])


class Bandit(gymnasium.Env):
    """Of six arms; the one that pays depends on the sign of the first of two features."""

    def __init__(self, level=0.0):
        self.observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(6)
        self.level = level

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.state, {}

    def step(self, action):
        paid = float(action == (4 if self.state[0] > 0 else 1))
        self.reset()
        return self.state, self.level + paid, False, False, {}


def trained(agent, seed=0, steps=STEPS, level=0.0):
    """An agent that learned the bandit, and its rewards."""
    learner = agent(2, 6, AgentConfig(steps=steps, first_steps=200, batch=64, seed=seed))
    return learner, list(learner.learn(Bandit(level)))


@AGENTS
@pytest.mark.parametrize("level", [0, 10])
def test_a_bandit_is_learned(agent, level):
    """After seconds nearly all greedy choices are right, however much all of them pay."""
    learner, rewards = trained(agent, level=level)
    assert len(rewards) == STEPS
    states = np.random.default_rng(0).uniform(-1, 1, (200, 2)).astype(np.float32)
    right = [learner.act(state) == (4 if state[0] > 0 else 1) for state in states]
    assert np.mean(right) > 0.9


@AGENTS
def test_a_seed_gives_the_same_learning(agent):
    """Step by step; another one does not."""
    first, again, other = (trained(agent, seed, steps=300)[1] for seed in (0, 0, 1))
    assert first == again != other


@AGENTS
@pytest.mark.parametrize("state", [[0.1, np.nan], [0.1], [0.1, 0.2, 0.3], [np.inf, 0]])
def test_a_state_that_is_none_is_refused(agent, state):
    """NaN, infinity, or another number of features."""
    with pytest.raises(PlanError, match="expected 2 finite features"):
        agent(2, 6, AgentConfig()).act(np.array(state, np.float32))


@AGENTS
def test_a_reward_that_is_none_stops_learning(agent):
    """With its step, before it spoils the network."""
    with pytest.raises(TrainingError, match="step 0"):
        next(agent(2, 6, AgentConfig()).learn(Bandit(np.nan)))
