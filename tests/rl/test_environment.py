import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from rl.environment import MOST, PERIODS_AFTER, SchedulingEnv, SchedulingVectorEnv
from xpi_ray.policies.learned import FEATURES, GAP, SHARPNESS, SHORTLIST
from xpi_ray.simulation import columns as at
from xpi_ray.simulation.cluster import Cluster, utilities
from xpi_ray.simulation.draw import draw_site

SITES, CLASSES = 2, 3


@pytest.fixture
def env(task):
    """Two sites of three classes each."""
    return SchedulingVectorEnv(task, SITES * CLASSES, seed=0)


def best(features):
    """What the forecast alone would choose."""
    return features[:, GAP].argmax(1)


def test_gymnasium_finds_no_fault_with_it(task):
    """Its own checker: spaces, seeds, types, the form of reset and step."""
    check_env(SchedulingEnv(task), skip_render_check=True)


def test_spaces_are_as_promised(env):
    """One row of features, one action and one reward for each class of each site."""
    features, info = env.reset(seed=1)
    assert features.shape == (6, FEATURES)
    assert info == {}
    for _ in range(env.task.periods):
        assert env.observation_space.contains(features)
        actions = env.action_space.sample()
        features, rewards, terminated, truncated, info = env.step(actions)
        assert (rewards.shape, terminated.shape, truncated.shape) == ((6,), (6,), (6,))
        assert np.isfinite(rewards).all()
        assert not terminated.any()
    assert env.single_action_space == gym.spaces.Discrete(SHORTLIST)


def test_an_episode_is_cut_off_and_the_next_begins_by_itself(env):
    """After the last period all are truncated; the step after that only draws new sites."""
    env.reset(seed=2)
    for episode in range(2):
        for period in range(env.task.periods):
            features, _, _, truncated, _ = env.step(np.zeros(6, np.int64))
            assert truncated.tolist() == [period == env.task.periods - 1] * 6, episode
        anew, rewards, terminated, truncated, _ = env.step(np.zeros(6, np.int64))
        assert not np.concatenate([rewards, terminated, truncated]).any()
        assert (anew != features).any()


def test_the_seed_decides_all(task):
    """Same seed and actions, same features and rewards; another seed, others."""

    def play(seed):
        env = SchedulingVectorEnv(task, 6)
        told = [env.reset(seed=seed)[0]]
        for step in range(2 * task.periods):
            features, rewards, *_ = env.step(np.full(6, step % SHORTLIST))
            told += [features, rewards]
        return np.concatenate([part.ravel() for part in told])

    assert (play(3) == play(3)).all()
    assert (play(3) != play(4)).any()


def test_the_forecasts_own_choice_is_worth_nothing_more(env):
    """Rewards count from there, so they are exactly 0 for it, and mostly not for others."""
    features, _ = env.reset(seed=5)
    others = 0
    for step in range(3 * env.task.periods):
        if step % 2:
            features, rewards, *_ = env.step(
                np.random.default_rng(step).integers(SHORTLIST, size=6)
            )
            others += (rewards != 0).sum()
        else:
            features, rewards, *_ = env.step(best(features))
            assert (rewards == 0).all()
    assert others > 6


def test_the_reward_is_what_a_class_brings_its_site(task):
    """By simulating here with and without each class's choice, and what comes after."""
    rng = np.random.default_rng(6)
    site = draw_site(task.setting, task.sources, 3.0, rng)
    env = SchedulingVectorEnv(task, 3)
    features, _ = env.reset(options={"sites": [site]})
    shortlists = [view.shortlist for view in env._views]
    actions, forecast = np.array([3, 11, 7]), best(features)
    _, rewards, *_ = env.step(actions)

    def worth(chosen):
        cluster = Cluster(task.setting, [site])
        cluster.advance(500.0)
        for until_ms, places in ((1_000.0, chosen), (3_500.0, forecast)):
            plans = [
                task.viewer.candidates[shortlist[place]].decision
                for shortlist, place in zip(shortlists, places, strict=True)
            ]
            cluster.set_plans(0, plans)
            cluster.advance(until_ms)
        arrived = cluster.requests[:, at.ARRIVED]
        rows = cluster.requests[(arrived >= 500) & (arrived < 1_000 + 500 * PERIODS_AFTER)]
        return utilities(rows, task.viewer.weights).sum()

    usual = len(site.arrivals) / (3 * (task.periods + 1))
    for number in range(3):
        without = actions.copy()
        without[number] = forecast[number]
        expected = SHARPNESS * (worth(actions) - worth(without)) / usual
        assert rewards[number] == pytest.approx(np.clip(expected, -MOST, MOST))
    assert rewards.any()


def test_a_site_is_shown_to_its_classes_and_no_other(task):
    """Rows of one site share the state but for the deadline; sites are as if alone."""
    rng = np.random.default_rng(7)
    sites = [draw_site(task.setting, task.sources, 3.0, rng) for _ in range(2)]
    both = SchedulingVectorEnv(task, 6).reset(options={"sites": sites})[0]
    for number, site in enumerate(sites):
        alone = SchedulingVectorEnv(task, 3).reset(options={"sites": [site]})[0]
        rows = both[3 * number : 3 * number + 3]
        assert rows == pytest.approx(alone, abs=0.3)  # the cloud's queue is shared
        assert (rows[0, :14] == rows[2, :14]).all()
        assert rows[0, 14] < rows[1, 14] < rows[2, 14]


@pytest.mark.parametrize(
    "actions",
    [
        np.full(6, SHORTLIST),
        np.full(6, -1),
        np.zeros(5, np.int64),
        np.zeros((6, 1), np.int64),
        np.zeros(6),
        np.full(6, np.nan),
    ],
    ids=["high", "low", "few", "shape", "float", "nan"],
)
def test_what_is_no_action_is_refused(env, actions):
    """And nothing happens."""
    env.reset(seed=0)
    before = env._cluster.now_ms
    with pytest.raises(ValueError, match=r"expected 6 whole numbers|must lie in 0\.\.11"):
        env.step(actions)
    assert env._cluster.now_ms == before


def test_a_step_before_a_reset_is_refused(env):
    """There is no site yet."""
    with pytest.raises(ValueError, match="reset the environment"):
        env.step(np.zeros(6, np.int64))


@pytest.mark.parametrize("count", [0, 4, -3])
def test_environments_come_in_whole_sites(task, count):
    """One for each class of each."""
    with pytest.raises(ValueError, match=f"expected a multiple of 3 environments.*got {count}"):
        SchedulingVectorEnv(task, count)


def test_a_single_site_plays_by_one_action(task):
    """All its classes take the same place; the reward is their mean."""
    one, many = SchedulingEnv(task), SchedulingVectorEnv(task, 3)
    features, _ = one.reset(seed=8)
    rows, _ = many.reset(seed=8)
    assert (features == rows[-1]).all()
    for period in range(task.periods):
        features, reward, terminated, truncated, _ = one.step(5)
        rows, rewards, *_ = many.step(np.full(3, 5))
        assert (features == rows[-1]).all()
        assert reward == pytest.approx(rewards.mean())
        assert (terminated, truncated) == (False, period == task.periods - 1)
