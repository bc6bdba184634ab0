import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.errors import PlanError
from xpi_ray.policies.experience import NEAR, Ledger, Pick, pick, worth
from xpi_ray.policies.learned import FEATURES, GAP, SHARPNESS, SHORTLIST, View, from_bytes
from xpi_ray.policies.utility import Weights
from xpi_ray.profiles.surety import Surety

WEIGHTS = Weights(satisfaction=1, accuracy=1, edge_cost=0.1)


@pytest.fixture(scope="module")
def policy(bundle, make_policy):
    """A policy of random layers for the small bundle."""
    return from_bytes(make_policy(bundle), bundle.manifest.profiles["default"], bundle.candidates())


@pytest.fixture(scope="module")
def surety(bundle):
    """Of the small bundle's exits."""
    return Surety(bundle.outcomes)


def make_view(seed, spread=2.0):
    """What a policy could be shown; the forecast holds place ``seed % SHORTLIST`` for the best."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=FEATURES).clip(-5, 5).astype(np.float32)
    gaps = -rng.uniform(0, spread, SHORTLIST)
    gaps[seed % SHORTLIST] = 0
    features[GAP] = gaps
    return View(features, np.arange(SHORTLIST), 1.5)


@given(seed=st.integers(0, 10_000))
def test_without_chance_the_preferred_place_is_taken(policy, seed):
    """It is the one that ``Learned.decide`` would take, and no other was allowed."""
    view = make_view(seed)
    chosen = pick(policy, view)
    assert chosen.action == policy.logits(view.features).argmax()
    assert np.flatnonzero(chosen.allowed).tolist() == [chosen.action]
    assert chosen.expected == view.best


@given(seed=st.integers(0, 10_000))
def test_only_what_is_nearly_as_good_by_forecast_is_tried(policy, seed):
    """Beside the preferred place; the same chance makes the same choice."""
    view = make_view(seed)
    first, again = (pick(policy, view, np.random.default_rng(seed)) for _ in range(2))
    assert first.action == again.action
    near = view.features[GAP] >= -SHARPNESS * NEAR
    preferred = int(policy.logits(view.features).argmax())
    assert near[first.action] or first.action == preferred
    assert first.allowed[first.action]
    assert first.allowed.sum() == (near | (np.arange(SHORTLIST) == preferred)).sum()


def test_places_are_tried_as_often_as_the_policy_says(policy):
    """The shares of many draws are the probabilities that the logits stand for."""
    view = make_view(3, spread=0.5)
    rng = np.random.default_rng(0)
    picks = [pick(policy, view, rng) for _ in range(4_000)]
    counts = np.bincount([each.action for each in picks], minlength=SHORTLIST)
    odds = np.exp(picks[0].logits.astype(np.float64))
    expected = odds / odds.sum()
    assert np.abs(counts / 4_000 - expected).max() < 4 * np.sqrt(0.25 / 4_000)


def test_a_policy_that_says_no_numbers_is_refused(policy):
    """Rather than a wrong plan, there is an error."""
    view = make_view(0)
    features = view.features.copy()
    features[0] = np.nan
    with pytest.raises(PlanError, match="no numbers"):
        pick(policy, view._replace(features=features))


def test_an_answer_in_time_is_worth_its_chance_to_be_right(surety, make_record):
    """Less what the edge worked for it."""
    expected = 1 + surety.likely_right(2, 0.3) - 0.1 * 12 / 100
    assert worth(make_record(encode_ms=2.0), WEIGHTS, surety) == pytest.approx(expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"budget_left_ms": -0.1},
        {"status": "missed", "exit": 0, "tier": ""},
        {"status": "unavailable", "exit": 0, "tier": ""},
    ],
)
def test_without_an_answer_in_time_only_the_cost_is_left(surety, changes, make_record):
    """A right answer that is late is worth nothing."""
    assert worth(make_record(**changes), WEIGHTS, surety) == pytest.approx(-0.1 * 10 / 100)


def test_the_clouds_answer_is_judged_by_the_level_that_arrived(surety, make_record):
    """An image that was sent whole is judged as if it had not been; it loses nothing."""
    far = make_record(tier="cloud", exit=4, partition=2, cloud_from=2, level=1)
    right = surety.likely_right(4, 0.3, (1, 2))
    assert worth(far, WEIGHTS, surety) == pytest.approx(1 + right - 0.01)
    right = surety.likely_right(4, 0.3)
    for partition, level in [(0, 1), (2, 7)]:
        image = make_record(tier="cloud", exit=4, partition=partition, level=level)
        assert worth(image, WEIGHTS, surety) == pytest.approx(1 + right - 0.01)


@pytest.fixture
def chosen():
    """Some pick."""
    zeros = np.zeros(SHORTLIST, np.float32)
    return Pick(np.zeros(FEATURES, np.float32), zeros == 0, zeros, 4, 1.5)


def test_a_decision_is_paid_for_its_own_requests(surety, chosen, make_record):
    """Those of other versions and classes do not count, and late reports do."""
    ledger = Ledger(WEIGHTS, surety, patience=1)
    ledger.enter(7, "tight", chosen)
    mine, late = make_record(), make_record(status="missed", exit=0)
    others = [make_record(plan_version=6), make_record(slo_class="relaxed", entropy=1.0)]
    assert ledger.settle([mine, *others]) == []
    (experience,) = ledger.settle([late, *others])
    mean = (worth(mine, WEIGHTS, surety) + worth(late, WEIGHTS, surety)) / 2
    assert experience.pick is chosen
    assert experience.reward == pytest.approx(SHARPNESS * (mean - 1.5))
    assert ledger.settle([mine]) == []


def test_a_decision_without_requests_teaches_nothing(surety, chosen, make_record):
    """It is forgotten in silence."""
    ledger = Ledger(WEIGHTS, surety, patience=0)
    ledger.enter(7, "tight", chosen)
    assert ledger.settle([make_record(plan_version=3)]) == []
    assert ledger.settle([make_record()]) == []
