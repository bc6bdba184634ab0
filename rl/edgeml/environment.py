"""EdgeML's task as a Gymnasium environment, on the simulator.

    actions (thresholds, partition) ─► plan ─► Cluster.advance(period) ─► Watch ─► Recent ─► state
                                                        └─► limits kept? how deep? ─► reward

Reward and limits are those of its code; section and unit of its paper were not at hand. What its
``pow_u`` of 1.5 counts the code does not tell, so it stands in the unit of ``POWER_OF_ALL``.
"""

import math
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from xpi_ray.bundle import Bundle
from xpi_ray.policies.base import Decision
from xpi_ray.policies.edgeml import (
    BOUND,
    PERIODS,
    POWER_OF_ALL,
    STATE,
    Actions,
    Recent,
    State,
    decision_of,
)
from xpi_ray.policies.observation import Observation, Watch
from xpi_ray.policies.plan import SloClass
from xpi_ray.policies.timetable import exits_of
from xpi_ray.profiles.energy import CORE_W, TRANSMIT_W, compute_j
from xpi_ray.profiles.table import Profile
from xpi_ray.simulation import columns as at
from xpi_ray.simulation.cluster import Cluster, Setting, seen
from xpi_ray.simulation.draw import Sources, draw_site

POWER_LIMIT = 1.5
UNANSWERED = 2.0
"""Deadlines that a request without an answer counts as having taken."""

Rows = NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """All that an episode is made of."""

    setting: Setting
    sources: Sources
    least_partition: int = 0
    """Blocks that must run at the edge."""
    prior: Observation = field(default_factory=Observation)
    """What a watch assumes before anything was seen."""
    period_s: float = 1.0
    periods: int = 30

    @property
    def exits(self) -> list[int]:
        """Numbers of the blocks that have one."""
        return [int(number) for number in exits_of(self.setting.outcomes)]

    @property
    def num_blocks(self) -> int:
        """N."""
        return len(self.setting.profile.block_ms)


def make_world(
    bundle: Bundle, classes: tuple[SloClass, ...], sources: Sources, least_partition: int = 0
) -> World:
    """What EdgeML's policy for a bundle is trained in; like EdgeML without best-effort answers.

    Args:
        bundle: Its profile, outcomes and static plan.
        classes: SLO classes.
        sources: Links and arrivals.
        least_partition: Blocks that must run at the edge.
    """
    static = bundle.manifest.static_plan
    setting = Setting(
        bundle.manifest.profiles["default"],
        bundle.population,
        classes,
        Decision(static.partition, static.thresholds, static.level),
        trusted=bundle.outcomes.edge_trusted(),
        fuses=bundle.network.fuses,
        best_effort=False,
        reroutes=False,
    )
    return World(setting, sources, least_partition)


class EdgeMLVectorEnv(gym.vector.VectorEnv[State, Actions, NDArray[Any]]):
    """All classes of several sites in one simulated cluster; each (site, class) is an environment.

    **Observation**, float32 (4,) in ±5: ``Recent.state``.

    **Action**, float32 (E,) in 0..1 for E exits: a threshold for each but the last, the partition.

    **Reward**: of the class's requests that ended in the period, the mean over the last three
    periods, as in the code: ((i + 1) / E)² if mean latency and power keep their limits, where i is
    the mean number of the exits that answered, 0 the first, over requests that kept them; if one is
    broken, minus 2/π of the arc tangent of the excess (latency in seconds); if both are, -2. The
    limit of latency is the class's deadline. A period without requests changes nothing.

    **Episode**: ``world.periods`` periods. It is truncated, never terminated; the sites are drawn
    anew for each, and the first period goes by the static plan.

    Args:
        world: What is simulated.
        num_envs: A multiple of the number of classes.
        seed: Of all that is drawn.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, world: World, num_envs: int, seed: int = 0) -> None:
        self._classes = sorted(world.setting.classes, key=lambda slo: slo.deadline_ms)
        if num_envs < 1 or num_envs % len(self._classes):
            raise ValueError(
                f"expected a multiple of {len(self._classes)} environments, one for each class of "
                f"each site, got {num_envs}"
            )
        self.num_envs, self.world = num_envs, world
        self._exits = world.exits
        self.single_observation_space = gym.spaces.Box(-BOUND, BOUND, (STATE,), np.float32)
        self.single_action_space = gym.spaces.Box(0.0, 1.0, (len(self._exits),), np.float32)
        batch = gym.vector.utils.batch_space
        self.observation_space = batch(self.single_observation_space, num_envs)
        self.action_space = batch(self.single_action_space, num_envs)
        self._rng = np.random.default_rng(seed)
        self._num_sites = num_envs // len(self._classes)
        self._cluster: Cluster | None = None
        self._edges: list[Profile] = []
        self._watches: list[Watch] = []
        self._recent: list[Recent] = []
        self._rewards: list[deque[float]] = []
        self._period = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[State, dict[str, Any]]:
        """Draw new sites."""
        del options
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        world, setting = self.world, self.world.setting
        duration_s = (world.periods + 1) * world.period_s
        sites = [
            draw_site(setting, world.sources, duration_s, self._rng) for _ in range(self._num_sites)
        ]
        enough = replace(setting.machines, replicas=setting.machines.replicas * len(sites))
        self._cluster = Cluster(replace(setting, machines=enough), sites)
        self._edges = [setting.profile.slowed(site.edge_slowdown) for site in sites]
        self._watches = [Watch(setting.profile, world.prior) for _ in sites]
        self._recent = [Recent(edge) for edge in self._edges]
        self._rewards = [deque(maxlen=PERIODS) for _ in range(self.num_envs)]
        self._period = 0
        self._pass()
        return self._states(), {}

    def step(
        self, actions: Actions
    ) -> tuple[State, NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Let one period pass under these plans.

        Raises:
            ValueError: Actions are not of the space, or the environment was not reset.
        """
        if self._cluster is None:
            raise ValueError("reset the environment before its first step")
        given = np.asarray(actions, np.float32)
        if given.shape != self.action_space.shape or not ((given >= 0) & (given <= 1)).all():
            raise ValueError(f"expected actions {self.action_space.shape} in 0..1, got {actions!r}")
        never = np.zeros(self.num_envs, np.bool_)
        if self._period > self.world.periods:  # the last step ended the episode
            states, _ = self.reset()
            return states, np.zeros(self.num_envs), never, never, {}
        classes = len(self._classes)
        plans = [
            decision_of(each, self._exits, self.world.num_blocks, self.world.least_partition)
            for each in given
        ]
        for site in range(self._num_sites):
            self._cluster.set_plans(site, plans[site * classes : (site + 1) * classes])
        ended = self._pass()
        for number, rewards in enumerate(self._rewards):
            rows = ended[number // classes]
            rows = rows[rows[:, at.SLO] == number % classes]
            if len(rows):
                slo, edge = self._classes[number % classes], self._edges[number // classes]
                rewards.append(reward(rows, self._exits, slo.deadline_ms, edge))
        means = np.array([np.mean(rewards) if rewards else 0.0 for rewards in self._rewards])
        over = np.full(self.num_envs, self._period > self.world.periods)
        return self._states(), means, never, over, {}

    def _pass(self) -> list[Rows]:
        """Let a period pass; the requests that ended in it, by site."""
        assert self._cluster is not None
        rows = self._cluster.advance(self._cluster.now_ms + 1000 * self.world.period_s)
        self._period += 1
        ended = [rows[rows[:, at.SITE] == site] for site in range(self._num_sites)]
        for watch, recent, part in zip(self._watches, self._recent, ended, strict=True):
            recent.see(watch.observe(seen(part), self.world.period_s))
        return ended

    def _states(self) -> State:
        return np.stack(
            [recent.state(slo.deadline_ms) for recent in self._recent for slo in self._classes]
        )


def reward(rows: Rows, exits: list[int], deadline_ms: float, edge: Profile) -> float:
    """What EdgeML's code gives for some requests.

    Args:
        rows: Requests of a class that ended, at least one.
        exits: Numbers of the blocks that have one.
        deadline_ms: The limit of latency.
        edge: Profile of the edge, unloaded; all its blocks are worth ``POWER_OF_ALL``.
    """
    answered = rows[:, at.EXIT] > 0
    latency_s = np.where(answered, rows[:, at.TOTAL], UNANSWERED * rows[:, at.DEADLINE]) / 1000
    power = POWER_OF_ALL * _energy_j(rows, edge) / compute_j(edge, len(edge.block_ms))
    limit_s = deadline_ms / 1000
    late_s, over = float(latency_s.mean()) - limit_s, float(power.mean()) - POWER_LIMIT
    if late_s > 0 and over > 0:
        return -2.0
    if late_s > 0 or over > 0:
        return -2 / math.pi * math.atan(late_s if late_s > 0 else over)
    kept = answered & (latency_s < limit_s) & (power < POWER_LIMIT)
    number = np.searchsorted(exits, rows[kept, at.EXIT])
    depth = float(number.mean()) if kept.any() else 0.0
    return ((depth + 1) / len(exits)) ** 2


def _energy_j(rows: Rows, edge: Profile) -> NDArray[np.float64]:
    """Of each request at the edge, by SAC-d's model (``profiles/energy.py``)."""
    busy_s = (rows[:, at.EDGE_MS] + rows[:, at.ENCODE_MS]) / 1000
    told = rows[:, at.LINK_BPS] > 0
    sending_s = np.where(told, 8 * rows[:, at.BYTES] / np.where(told, rows[:, at.LINK_BPS], 1), 0)
    energy_j: NDArray[np.float64] = CORE_W * edge.threads * busy_s + TRANSMIT_W * sending_s
    return energy_j
