"""The environment that SAC-d learns in: another bandwidth and a choice at every step.

    action ─► outcome at this step's bandwidth ─► reward
                       └─► T, e, acc, and the next bandwidth B ─► observation (equation 5)

The paper does not say how bandwidth moves in training. Here it is drawn anew at every step, as
the square of an even number: all of 0..10 MB/s comes up, low bandwidths most, since there the best
choice changes within 0.1 MB/s. (A bandwidth that wanders slowly would make what follows a step,
which no choice alters, far noisier than what two choices differ by.)
"""

from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rl.sacd.costs import ACTIONS
from rl.sacd.reward import LEAST_BPS, MOST_BPS, ON_DEVICE, Model, Outcome
from xpi_ray.errors import PlanError

EPISODE_STEPS = 64
FEATURES = 4

Observation = NDArray[np.float32]


class CoInference(gymnasium.Env[Observation, int]):
    """One device and its link.

    Observations are {T, e, acc, B} (4,), each within 0..1: the least latency over the last one's,
    the last energy over the most that is allowed (1 if more), the last accuracy, and the square
    root of B over the highest. Actions are numbers of ``ACTIONS``.

    Args:
        model: What choices lead to.
        bandwidth_bps: Keeps the bandwidth there; without it, it is drawn. ``fixed_bps``
            changes it from the next step on.
    """

    def __init__(self, model: Model, bandwidth_bps: float | None = None) -> None:
        self.observation_space = gymnasium.spaces.Box(0, 1, (FEATURES,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(len(ACTIONS))
        self._model = model
        self._scales = model.least_latency_ms, model.most_energy_j
        self.fixed_bps = bandwidth_bps
        self._steps = 0
        self.bandwidth_bps = bandwidth_bps or MOST_BPS

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin at any bandwidth; the last choice was to run the whole network on the device."""
        super().reset(seed=seed, options=options)
        self._steps = 0
        self._draw()
        return self._observe(self._model.outcomes(self.bandwidth_bps).of(ON_DEVICE)), {}

    def step(self, action: int) -> tuple[Observation, SupportsFloat, bool, bool, dict[str, Any]]:
        """Act at the present bandwidth, then draw the next; ``info`` is the outcome.

        Raises:
            PlanError: There is no such action.
        """
        if not 0 <= action < len(ACTIONS):
            raise PlanError(f"expected an action of 0..{len(ACTIONS) - 1}, got {action}")
        outcome = self._model.outcomes(self.bandwidth_bps).of(int(action))
        self._draw()
        self._steps += 1
        over = self._steps >= EPISODE_STEPS
        return self._observe(outcome), outcome.reward, False, over, outcome._asdict()

    def _draw(self) -> None:
        drawn_bps = MOST_BPS * self.np_random.uniform(np.sqrt(LEAST_BPS / MOST_BPS), 1) ** 2
        self.bandwidth_bps = self.fixed_bps or float(np.clip(drawn_bps, LEAST_BPS, MOST_BPS))

    def _observe(self, outcome: Outcome) -> Observation:
        least_ms, most_j = self._scales
        return np.array(
            [
                least_ms / max(outcome.latency_ms, least_ms),
                min(outcome.energy_j / most_j, 1),
                outcome.accuracy,
                np.sqrt(self.bandwidth_bps / MOST_BPS),
            ],
            np.float32,
        )
