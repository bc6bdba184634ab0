import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from rl.sacd.environment import EPISODE_STEPS, CoInference
from rl.sacd.reward import LEAST_BPS, MOST_BPS, ON_DEVICE
from xpi_ray.errors import PlanError


@pytest.fixture
def environment(model):
    """One whose bandwidth changes."""
    return CoInference(model)


def test_it_is_a_gymnasium_environment(environment):
    """By gymnasium's own checker."""
    check_env(environment, skip_render_check=True)


def test_rewards_are_those_of_the_bandwidth_that_was_seen(environment, model):
    """The state before the action tells the bandwidth at which it is judged."""
    state, _ = environment.reset(seed=3)
    for action in (0, 50, ON_DEVICE, 188):
        bandwidth_bps = environment.bandwidth_bps
        assert state[3] == pytest.approx(np.sqrt(bandwidth_bps / MOST_BPS))
        state, reward, _, _, info = environment.step(action)
        expected = model.outcomes(bandwidth_bps).of(action)
        assert reward == info["reward"] == expected.reward
        assert state[2] == pytest.approx(expected.accuracy)


def test_all_bandwidths_are_visited_low_ones_more(environment):
    """In 300 episodes every ninth of the feature comes up, and half lies below 3 MB/s."""
    seen = []
    environment.reset(seed=0)
    for _ in range(300 * EPISODE_STEPS):
        seen.append(environment.bandwidth_bps)
        if environment.step(0)[3]:
            environment.reset()
    assert LEAST_BPS <= min(seen) < 1.1 * LEAST_BPS
    assert MOST_BPS >= max(seen) > 0.99 * MOST_BPS
    counts, _ = np.histogram(np.sqrt(np.array(seen) / MOST_BPS), 9, (0.03, 1))
    assert counts.min() > len(seen) / 10
    assert np.mean(np.array(seen) < 0.3 * MOST_BPS) > 0.5


def test_a_seed_gives_the_same_episode(model):
    """Bandwidths and rewards."""

    def play():
        environment = CoInference(model)
        environment.reset(seed=5)
        return [environment.step(action)[1] for action in range(20)]

    assert play() == play()


def test_a_fixed_bandwidth_stays(model):
    """For the sweep."""
    environment = CoInference(model, 8e6)
    environment.reset(seed=0)
    environment.step(0)
    assert environment.bandwidth_bps == 8e6


@pytest.mark.parametrize("action", [-1, 189])
def test_an_action_out_of_range_is_named(environment, action):
    """With the range."""
    environment.reset(seed=0)
    with pytest.raises(PlanError, match=rf"0\.\.188, got {action}"):
        environment.step(action)
