import math

import gymnasium as gym
import numpy as np
import pytest

from rl.edgeml.environment import (
    POWER_LIMIT,
    UNANSWERED,
    EdgeMLVectorEnv,
    World,
    make_world,
    reward,
)
from xpi_ray.policies.edgeml import POWER_OF_ALL, STATE, decision_of
from xpi_ray.profiles.energy import CORE_W, TRANSMIT_W
from xpi_ray.profiles.table import Profile
from xpi_ray.simulation import columns as at

EXITS = [1, 3, 4]
EDGE = Profile(
    machine="a toaster", threads=1, block_ms=(10.0, 20.0, 30.0, 40.0), encode_ms=1, decode_ms=1
)


@pytest.fixture
def world(task):
    """Four periods of half a second, three classes, as the other policies' small task."""
    return World(task.setting, task.sources, period_s=task.period_s, periods=task.periods)


@pytest.fixture
def env(world):
    """Two sites of three classes each."""
    return EdgeMLVectorEnv(world, 6, seed=0)


def rows(*requests):
    """Rows of requests: exit, time it took, time of work at the edge."""
    found = np.zeros((len(requests), at.COUNT))
    for row, (exit_, total_ms, edge_ms) in zip(found, requests, strict=True):
        row[at.EXIT], row[at.TOTAL], row[at.EDGE_MS], row[at.DEADLINE] = (
            exit_,
            total_ms,
            edge_ms,
            80,
        )
    return found


def test_within_both_limits_depth_counts():
    """The mean number of the exits that answered in time, over all exits, squared."""
    asked = rows((1, 10, 5), (4, 30, 40), (3, 70, 40))  # the last is late by itself
    assert reward(asked, EXITS, 50.0, EDGE) == pytest.approx(((0 + 2) / 2 + 1) ** 2 / 9)
    assert reward(rows((4, 10, 5)), EXITS, 50.0, EDGE) == 1


def test_late_requests_cost_by_how_late_they_are():
    """In seconds; one without an answer counts as twice its deadline."""
    assert reward(rows((4, 300, 5)), EXITS, 50.0, EDGE) == pytest.approx(
        -2 / math.pi * math.atan(0.25)
    )
    missed = (50 / 2 + UNANSWERED * 80 / 2) - 50
    assert reward(rows((1, 50, 5), (0, 80, 5)), EXITS, 50.0, EDGE) == pytest.approx(
        -2 / math.pi * math.atan(missed / 1000)
    )


def test_power_has_its_own_limit():
    """Work at the edge and sending, over what all blocks take; both limits broken is the worst."""
    busy = rows((4, 30, 200))
    excess = POWER_OF_ALL * 2 - POWER_LIMIT
    assert reward(busy, EXITS, 50.0, EDGE) == pytest.approx(-2 / math.pi * math.atan(excess))
    sends = rows((4, 30, 0))
    sends[0, at.BYTES], sends[0, at.LINK_BPS] = 250_000, 1e6
    share = TRANSMIT_W * 2.0 / (CORE_W * 0.1)
    excess = POWER_OF_ALL * share - POWER_LIMIT
    assert reward(sends, EXITS, 50.0, EDGE) == pytest.approx(-2 / math.pi * math.atan(excess))
    assert reward(rows((4, 300, 200)), EXITS, 50.0, EDGE) == -2


def test_spaces_are_as_promised(env):
    """A state, an action for each exit and a reward for each class of each site."""
    states, info = env.reset(seed=1)
    assert (states.shape, info) == ((6, STATE), {})
    assert env.single_action_space == gym.spaces.Box(0.0, 1.0, (4,), np.float32)
    for period in range(env.world.periods):
        assert env.observation_space.contains(states)
        states, rewards, terminated, truncated, _ = env.step(env.action_space.sample())
        assert (rewards.shape, terminated.any()) == ((6,), False)
        assert ((rewards >= -2) & (rewards <= 1)).all()
        assert truncated.tolist() == [period == env.world.periods - 1] * 6
    anew, rewards, terminated, truncated, _ = env.step(env.action_space.sample())
    assert not np.concatenate([rewards, terminated, truncated]).any()
    assert (anew != states).any()


def test_the_seed_decides_all(world):
    """Same seed and actions, same states and rewards; another seed, others."""

    def play(seed):
        env = EdgeMLVectorEnv(world, 6)
        told = [env.reset(seed=seed)[0]]
        for step in range(2 * world.periods):
            states, rewards, *_ = env.step(np.full((6, 4), step % 5 / 4, np.float32))
            told += [states, rewards]
        return np.concatenate([part.ravel() for part in told])

    assert (play(3) == play(3)).all()
    assert (play(3) != play(4)).any()


def test_rewards_are_means_over_three_periods_of_the_classs_requests(env):
    """As computed again from the rows that ended; plans are those that the actions mean."""
    env.reset(seed=2)
    classes = sorted(env.world.setting.classes, key=lambda slo: slo.deadline_ms)
    history = [[] for _ in range(6)]
    actions = np.linspace(0, 1, 24, dtype=np.float32).reshape(6, 4)
    for _ in range(env.world.periods):
        before = int(env._cluster._state.counts[1])
        _, rewards, *_ = env.step(actions)
        state = env._cluster._state
        ended = state.requests[state.order[before : int(state.counts[1])]]
        for number in range(6):
            mine = ended[(ended[:, at.SITE] == number // 3) & (ended[:, at.SLO] == number % 3)]
            if len(mine):
                slo, edge = classes[number % 3], env._edges[number // 3]
                history[number].append(reward(mine, [1, 2, 3, 4], slo.deadline_ms, edge))
            expected = np.mean(history[number][-3:]) if history[number] else 0
            assert rewards[number] == pytest.approx(expected)
            plan = decision_of(actions[number], [1, 2, 3, 4], 4, 0)
            set_plan = state.plans[number // 3, number % 3]
            assert set_plan[:2].tolist() == [plan.partition, 0]
            assert env._cluster._costs.thresholds[set_plan[2]].tolist() == list(plan.thresholds)


@pytest.mark.parametrize("wrong", [np.zeros((6, 3)), np.full((6, 4), 1.5), np.full((6, 4), np.nan)])
def test_actions_outside_the_space_are_refused(env, wrong):
    """Neither another shape nor values beyond 0..1; nor any before the first reset."""
    with pytest.raises(ValueError, match="reset"):
        env.step(np.zeros((6, 4), np.float32))
    env.reset()
    with pytest.raises(ValueError, match=r"0\.\.1"):
        env.step(wrong)
    with pytest.raises(ValueError, match="multiple of 3"):
        EdgeMLVectorEnv(env.world, 4)


def test_a_world_is_made_of_a_bundle(bundle, task):
    """Its classes, population, exits and static plan; the least partition is kept to."""
    world = make_world(bundle, task.setting.classes, task.sources, least_partition=2)
    assert world.setting.outcomes is bundle.population
    assert (world.exits, world.num_blocks) == ([1, 2, 3, 4], 4)
    assert world.setting.static.partition == bundle.manifest.static_plan.partition
    env = EdgeMLVectorEnv(world, 3)
    env.reset(seed=0)
    env.step(np.zeros((3, 4), np.float32))
    assert (env._cluster._state.plans[0, :, 0] == 2).all()
