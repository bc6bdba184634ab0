"""The scheduler's task as a Gymnasium environment, on the simulator.

    action (a place of the shortlist) ─► plan ─► Cluster.advance(period) ─► Watch ─► Viewer ─► view
                                                        └─► utilities ─► reward

SchedulingEnv is one class of one site; SchedulingVectorEnv is many at once, in one simulated
cluster, and is what training uses.
"""

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from rl.contest import TAIL_S, by_deadline
from rl.task import Task
from xpi_ray.policies.learned import BOUND, FEATURES, GAP, SHARPNESS, SHORTLIST, View
from xpi_ray.policies.observation import Observation, Watch
from xpi_ray.simulation import columns as at
from xpi_ray.simulation.cluster import Cluster, Site, seen, utilities
from xpi_ray.simulation.draw import draw_site

PERIODS_AFTER = 4  # in which what a plan leaves behind in queues counts
MOST = 100.0
"""Rewards are cut to it."""

Features = NDArray[np.float32]
Worth = NDArray[np.float64]


class SchedulingVectorEnv(gym.vector.VectorEnv[Features, NDArray[np.int64], NDArray[Any]]):
    """All classes of several sites; each (site, class) is one environment.

    The cloud has as many replicas more as there are sites: what all sites do at once in a trial
    must not look like what one of them brings about.

    **Observation**, float32 ``(FEATURES,)`` in -5..5: the state of the site over the last period
    (``Observation``: logarithms of slow-downs, waits, round trip, bandwidth in Mbit/s and its
    spread, arrivals; utilisation at edge and in cloud, deadlines, misses, exits, surety; the
    class's own deadline), then for each of the ``SHORTLIST`` plans, the best by forecast of each
    kind: 20 times what its utility lacks to the best one's, its probability to be in time, its
    accuracy, ln(latency / deadline), partition / N, level / 6. See ``policies/learned.py``.

    **Action**, ``Discrete(SHORTLIST)``: which of these plans the class's requests go by in the
    next period. A plan is a partition, a threshold for every exit, and a level.

    **Reward**: what the class's plan does to all of the site's requests, beside the plan with the
    best forecast: the worth of the requests that arrive in this period and the ``PERIODS_AFTER``
    next, less what it would be had this class alone gone by the forecast; times ``SHARPNESS``, over
    the requests of a class in a period at this site, in the mean; cut to -``MOST``..``MOST``. So
    the mean over all decisions is ``SHARPNESS`` times what sites' requests gain in the mean. Worth
    is ``Weights.utility``: 1 for an answer in time, 1 if it is right, -0.1 for 100 ms at the edge.
    Both are simulated from the same moment with the same requests, so that what differs between
    sites and moments is no noise; what the plan leaves behind in queues, and what it takes from the
    other classes, counts (difference rewards: Wolpert and Tumer, "Optimal payoff functions for
    members of collectives", 2001). In the later periods all go by the forecast's plans.

    **Episode**: ``task.periods`` periods of ``task.period_s``; the sites are drawn anew for each.
    It is truncated, never terminated. The first period goes by the static plan.

    Args:
        task: What is simulated.
        num_envs: A multiple of the number of classes.
        seed: Of all that is drawn.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, task: Task, num_envs: int, seed: int = 0) -> None:
        self._classes = by_deadline(task)
        if num_envs < 1 or num_envs % len(self._classes):
            raise ValueError(
                f"expected a multiple of {len(self._classes)} environments, one for each class of "
                f"each site, got {num_envs}"
            )
        self.num_envs = num_envs
        self.task = task
        self.single_observation_space = gym.spaces.Box(-BOUND, BOUND, (FEATURES,), np.float32)
        self.single_action_space = gym.spaces.Discrete(SHORTLIST)
        self.observation_space = gym.vector.utils.batch_space(
            self.single_observation_space, num_envs
        )
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, num_envs)
        self._rng = np.random.default_rng(seed)
        self._num_sites = num_envs // len(self._classes)
        self._cluster: Cluster | None = None
        self._watches: list[Watch] = []
        self._views: list[View] = []
        self._usual = np.ones(self._num_sites)  # requests of a class in a period
        self._period = 0
        self.observations: list[Observation] = []
        """The latest of each site."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Features, dict[str, Any]]:
        """Draw new sites; ``options`` may give them as ``sites``."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        sites = (options or {}).get("sites") or self._draw()
        machines = self.task.setting.machines
        enough = replace(machines, replicas=machines.replicas * len(sites))
        self._cluster = Cluster(replace(self.task.setting, machines=enough), sites)
        decisions = len(self._classes) * (self.task.periods + 1)
        self._usual = np.array([max(len(site.arrivals), 1) / decisions for site in sites])
        prior = self.task.prior
        self._watches = [Watch(self.task.setting.profile, prior) for _ in range(self._num_sites)]
        self._period = 0
        self._pass()
        return self._features(), {}

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Features, NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Let one period pass under these plans.

        Raises:
            ValueError: An action is not in 0..SHORTLIST - 1, or the environment was not reset.
        """
        if self._cluster is None:
            raise ValueError("reset the environment before its first step")
        plans = self.plans(np.asarray(actions))
        never = np.zeros(self.num_envs, np.bool_)
        if self._period > self.task.periods:  # the last step ended the episode
            features, _ = self.reset()
            return features, np.zeros(self.num_envs), never, never, {}
        rewards = self._rewards(plans)
        self._set_plans(self._cluster, plans)
        self._pass()
        over = np.full(self.num_envs, self._period > self.task.periods)
        return self._features(), rewards, never, over, {}

    def plans(self, actions: NDArray[Any]) -> NDArray[np.intp]:
        """Which of the viewer's candidates these actions mean, (num_envs,).

        Raises:
            ValueError: An action is not in 0..SHORTLIST - 1.
        """
        if actions.shape != (self.num_envs,) or not np.issubdtype(actions.dtype, np.integer):
            raise ValueError(f"expected {self.num_envs} whole numbers, got {actions!r}")
        if actions.min() < 0 or actions.max() >= SHORTLIST:
            raise ValueError(f"actions must lie in 0..{SHORTLIST - 1}, got {actions}")
        chosen = zip(self._views, actions, strict=True)
        return np.array([view.shortlist[action] for view, action in chosen])

    def _set_plans(self, cluster: Cluster, plans: NDArray[np.intp]) -> None:
        candidates, classes = self.task.viewer.candidates, len(self._classes)
        decisions = [candidates[plan].decision for plan in plans]
        for site in range(self._num_sites):
            cluster.set_plans(site, decisions[site * classes : (site + 1) * classes])

    def _rewards(self, plans: NDArray[np.intp]) -> Worth:
        """What each class's choice does to its site."""
        assert self._cluster is not None
        classes = len(self._classes)
        forecast = np.array([view.shortlist[view.features[GAP].argmax()] for view in self._views])
        gained = np.zeros(self.num_envs)
        chosen = self._worth(plans, forecast)
        for number in range(classes):
            without = plans.copy()
            without[number::classes] = forecast[number::classes]
            if (without != plans).any():
                gained[number::classes] = chosen - self._worth(without, forecast)
        rewards: Worth = SHARPNESS * gained / np.repeat(self._usual, classes)
        return rewards.clip(-MOST, MOST)

    def _worth(self, plans: NDArray[np.intp], after: NDArray[np.intp]) -> Worth:
        """Utility of each site's requests of this period and the next ones, if it went like this.

        Args:
            plans: In this period.
            after: In the next ones.
        """
        assert self._cluster is not None
        trial, period_ms = self._cluster.copy(), 1000 * self.task.period_s
        begins_ms = trial.now_ms
        ends_ms = begins_ms + (1 + PERIODS_AFTER) * period_ms
        self._set_plans(trial, plans)
        trial.advance(begins_ms + period_ms)
        self._set_plans(trial, after)
        trial.advance(ends_ms + 1000 * TAIL_S)
        rows = trial.requests[trial.arriving(begins_ms, ends_ms)]
        sites = rows[:, at.SITE].astype(np.intp)
        worth = utilities(rows, self.task.viewer.weights)
        return np.bincount(sites, worth, minlength=self._num_sites).astype(np.float64)

    def _pass(self) -> None:
        """Let a period pass, and look at what it told."""
        assert self._cluster is not None
        rows = self._cluster.advance(self._cluster.now_ms + 1000 * self.task.period_s)
        self._period += 1
        order = np.argsort(rows[:, at.SITE], kind="stable")
        bounds = np.searchsorted(rows[order, at.SITE], np.arange(self._num_sites + 1))
        told = seen(rows)
        self.observations = [
            watch.observe(told[order[start:end]], self.task.period_s)
            for watch, start, end in zip(self._watches, bounds, bounds[1:], strict=False)
        ]
        self._views = [
            self.task.viewer.view(observation, slo.deadline_ms)
            for observation in self.observations
            for slo in self._classes
        ]

    def _features(self) -> Features:
        return np.stack([view.features for view in self._views])

    def _draw(self) -> list[Site]:
        duration_s = (self.task.periods + 1) * self.task.period_s
        setting = self.task.setting
        return [
            draw_site(setting, self.task.sources, duration_s, self._rng)
            for _ in range(self._num_sites)
        ]


class SchedulingEnv(gym.Env[Features, np.int64]):
    """One site, whose classes all go by the place of the shortlist that the action names.

    Observation, action and episode are ``SchedulingVectorEnv``'s, seen by the class of the
    longest deadline; the reward is the mean over classes.
    """

    def __init__(self, task: Task, seed: int = 0) -> None:
        self._many = SchedulingVectorEnv(task, len(task.setting.classes), seed)
        self.observation_space = self._many.single_observation_space
        self.action_space = self._many.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Features, dict[str, Any]]:
        """Draw a new site."""
        super().reset(seed=seed)
        features, info = self._many.reset(seed=seed, options=options)
        return features[-1], info

    def step(self, action: np.int64) -> tuple[Features, float, bool, bool, dict[str, Any]]:
        """Let one period pass."""
        actions = np.full(self._many.num_envs, action)
        features, rewards, _, over, info = self._many.step(actions)
        return features[-1], float(rewards.mean()), False, bool(over[0]), info
