import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xpi_ray.profiles.outcomes import NO_EXIT, Outcomes
from xpi_ray.profiles.surety import BINS, Surety

EXITS, LEVELS = 3, 2


def make_outcomes(seed, samples=400, digits=3):
    """Outcomes of exits that are right with the chance 1 - entropy / 2, less after a link."""
    rng = np.random.default_rng(seed)
    entropy = rng.random((samples, EXITS)).round(digits).astype(np.float32)
    correct = rng.random((samples, EXITS)) < 1 - entropy / 2
    shape = (LEVELS, EXITS, samples, EXITS)
    resumed_entropy = rng.random(shape).round(digits).astype(np.float32)
    resumed_correct = rng.random(shape) < 0.5 - resumed_entropy / 2
    return Outcomes(
        entropy, correct, resumed_entropy, resumed_correct, np.ones((LEVELS, EXITS), np.float32)
    )


@settings(max_examples=50)
@given(
    seed=st.integers(0, 1_000),
    samples=st.integers(1, 300),
    digits=st.integers(0, 3),
    exit_=st.integers(1, EXITS),
)
def test_the_mean_over_all_samples_is_the_accuracy(seed, samples, digits, exit_):
    """Nothing is lost between bins, however few or alike the entropies are."""
    outcomes = make_outcomes(seed, samples, digits)
    surety = Surety(outcomes)
    chances = [surety.likely_right(exit_, value) for value in outcomes.entropy[:, exit_ - 1]]
    assert np.mean(chances) == pytest.approx(outcomes.accuracy()[exit_ - 1])
    assert all(0 <= chance <= 1 for chance in chances)


def test_each_bin_tells_the_share_that_was_right_in_it():
    """Samples of one chance are a bin's worth, and their share right is that chance."""
    outcomes = make_outcomes(0, samples=4_000)
    surety = Surety(outcomes)
    chances = np.array([surety.likely_right(1, value) for value in outcomes.entropy[:, 0]])
    for chance in np.unique(chances):
        within = chances == chance
        assert abs(within.sum() - 4_000 / BINS) < 40
        assert outcomes.correct[within, 0].mean() == pytest.approx(chance)


def test_a_surer_exit_is_right_more_often():
    """The chance follows the truth that the outcomes were drawn from."""
    surety = Surety(make_outcomes(1, samples=20_000))
    for entropy in (0.0, 0.25, 0.5, 0.75, 1.0):
        assert surety.likely_right(2, entropy) == pytest.approx(1 - entropy / 2, abs=0.06)


def test_what_crossed_a_link_has_shares_of_its_own():
    """Each level and partition has its own; what stayed at the edge knows nothing of them."""
    outcomes = make_outcomes(2, samples=20_000)
    surety = Surety(outcomes)
    assert surety.likely_right(3, 0.5, (1, 2)) == pytest.approx(0.25, abs=0.06)
    assert surety.likely_right(3, 0.5) == pytest.approx(0.75, abs=0.06)
    for crossed in ((0, 1), (1, 1)):
        values = outcomes.resumed_entropy[(*crossed, slice(None), 2)]
        mean = np.mean([surety.likely_right(3, value, crossed) for value in values])
        assert mean == pytest.approx(outcomes.resumed_correct[(*crossed, slice(None), 2)].mean())


@pytest.mark.parametrize(("exit_", "crossed"), [(4, None), (3, (2, 1)), (3, (0, 3))])
def test_what_is_not_there_is_an_error(exit_, crossed):
    """An exit, level or partition beyond the outcomes is not guessed at."""
    with pytest.raises(IndexError):
        Surety(make_outcomes(0)).likely_right(exit_, 0.5, crossed)


def test_a_block_without_an_exit_is_never_right():
    """Whatever is asked of it, with a link before it or not."""
    outcomes = make_outcomes(3)
    for entropies in (outcomes.entropy, outcomes.resumed_entropy):
        entropies[..., 1] = NO_EXIT
    for rights in (outcomes.correct, outcomes.resumed_correct):
        rights[..., 1] = False
    surety = Surety(outcomes)
    for entropy in (0.0, 0.5, NO_EXIT):
        assert surety.likely_right(2, entropy) == surety.likely_right(2, entropy, (0, 1)) == 0
