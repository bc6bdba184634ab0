import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from xpi_ray.policies.change_points import ChangePoints

GUESS, TRUST, SPREAD, HAZARD = 2.0, 0.3, 0.5, 0.2


def evidence(values):
    """How likely a run's values are, one after the other (Murphy 2007, section 3)."""
    mean, trust, shape, rate = GUESS, TRUST, 1.0, SPREAD**2
    product = 1.0
    for value in values:
        scale = math.sqrt(rate * (trust + 1) / (trust * shape))
        product *= student.pdf(value, 2 * shape, mean, scale)
        rate += trust * (value - mean) ** 2 / (2 * (trust + 1))
        mean = (trust * mean + value) / (trust + 1)
        trust, shape = trust + 1, shape + 0.5
    return product


def by_all_segmentations(values):
    """Chances of the present run's length, by trying every way to cut the series into runs."""
    chances = np.zeros(len(values) + 1)
    for ends in itertools.product([False, True], repeat=len(values)):
        chance, run = 1.0, []
        for value, end in zip(values, ends, strict=True):
            run.append(value)
            chance *= HAZARD if end else 1 - HAZARD
            if end:
                chance *= evidence(run)
                run = []
        chances[len(run)] += chance * evidence(run)
    return chances / chances.sum()


@settings(max_examples=25)
@given(st.lists(st.floats(-5, 8), min_size=1, max_size=7))
def test_run_lengths_are_those_of_all_segmentations(values):
    """Exactly, for series so short that all can be tried."""
    found = ChangePoints(GUESS, TRUST, SPREAD, HAZARD)
    for value in values:
        found.see(value)
    assert found.run_lengths == pytest.approx(by_all_segmentations(values), abs=1e-9)


def test_the_mean_follows_each_step():
    """Soon after a step it is the new level's, and as exact as that many values allow."""
    rng = np.random.default_rng(0)
    levels = (14.0, 11.0, 16.0, 15.0)
    found = ChangePoints(first_guess=10.0)
    for level in levels:
        for number in range(60):
            found.see(level + rng.normal(0, 0.1))
            if number >= 3:
                assert found.mean == pytest.approx(level, abs=0.25)


def test_a_steady_series_is_one_run():
    """The likeliest run has all values; its mean is next to theirs."""
    found = ChangePoints(first_guess=0.0)
    for number in range(100):
        found.see(5 + 0.1 * (-1) ** number)
    assert found.run_lengths.argmax() == 100
    assert found.mean == pytest.approx(5, abs=0.01)


def test_long_runs_take_no_more_room():
    """Beyond the longest nothing grows, chances still sum to 1, and a step is still seen."""
    found = ChangePoints(first_guess=0.0, longest=20)
    for number in range(200):
        found.see(3 + 0.1 * (-1) ** number)
    assert len(found.run_lengths) == 21
    assert found.run_lengths.sum() == pytest.approx(1)
    assert found.mean == pytest.approx(3, abs=0.05)
    for _ in range(5):
        found.see(7.0)
    assert found.mean == pytest.approx(7, abs=0.1)
