"""When a series changed its mean: Bayesian online change-point detection.

value a period ─► ChangePoints.see ─► how long the present run may be ─► mean of the likeliest

Adams and MacKay, "Bayesian Online Changepoint Detection" (2007), Algorithm 1, with a constant
hazard and a normal distribution of unknown mean and variance in each run; the predictive of a run
is then Student's t (Murphy, "Conjugate Bayesian analysis of the Gaussian distribution", 2007).
"""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class ChangePoints:
    """The posterior of the run's length, and what is known of the run if it is so long.

    Defaults are for logarithms of a bandwidth, one a second.

    Args:
        first_guess: Mean that a run is expected to have before it was seen.
        trust: How many values that guess is worth, above 0.
        spread: Standard deviation that is expected within a run, above 0.
        hazard: Chance that a run ends with any value, 0..1 and neither.
        longest: Runs beyond it count as this long, at least 1.
    """

    def __init__(
        self,
        first_guess: float,
        trust: float = 0.01,
        spread: float = 0.2,
        hazard: float = 1 / 60,
        longest: int = 300,
    ) -> None:
        self._prior = first_guess
        self._hazard = hazard
        lengths = np.arange(longest + 1)
        # Normal-gamma after so many values; its other two parameters depend on the values.
        self._trust = trust + lengths
        self._shape = 1.0 + lengths / 2
        self._constant = np.array(
            [
                math.lgamma(shape + 0.5) - math.lgamma(shape) - 0.5 * math.log(2 * math.pi * shape)
                for shape in self._shape
            ]
        )
        self._first_rate = spread**2
        self._log_chance = np.zeros(1)
        self._means = np.array([first_guess])
        self._rates = np.array([self._first_rate])

    @property
    def run_lengths(self) -> Array:
        """Chance that the present run has 0, 1, … values; they sum to 1."""
        return np.exp(self._log_chance)

    @property
    def mean(self) -> float:
        """Of the likeliest run; the first guess before any value."""
        return float(self._means[self._log_chance.argmax()])

    def see(self, value: float) -> None:
        """Take in the next value, a finite number."""
        count = len(self._means)
        trust, shape = self._trust[:count], self._shape[:count]
        away = value - self._means
        variance = self._rates * (trust + 1) / (trust * shape)
        likely = self._constant[:count] - 0.5 * np.log(variance)
        likely -= (shape + 0.5) * np.log1p(away**2 / (2 * shape * variance))
        joint = self._log_chance + likely
        ended = np.logaddexp.reduce(joint) + math.log(self._hazard)
        log_chance = np.append(ended, joint + math.log1p(-self._hazard))
        means = np.append(self._prior, self._means + away / (trust + 1))
        rates = np.append(self._first_rate, self._rates + trust * away**2 / (2 * (trust + 1)))
        if len(means) > len(self._trust):  # the two longest become one
            log_chance[-2] = np.logaddexp(log_chance[-2], log_chance[-1])
            log_chance, means, rates = log_chance[:-1], means[:-1], rates[:-1]
        self._log_chance = log_chance - np.logaddexp.reduce(log_chance)
        self._means, self._rates = means, rates
