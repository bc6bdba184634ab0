import numpy as np
import pytest

from rl import online
from rl.lesson import SiteLog
from rl.online import Online, improved
from xpi_ray.errors import PlanError
from xpi_ray.policies.experience import Experience, pick
from xpi_ray.policies.learned import (
    FEATURES,
    GAP,
    SHORTLIST,
    STRICTNESSES,
    Learned,
    View,
    from_bytes,
)
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import SloClass

LAST = SHORTLIST - STRICTNESSES
"""The place of plans that stay at the edge, with the strictest thresholds."""
CLASSES = (SloClass(name="tight", deadline_ms=20), SloClass(name="relaxed", deadline_ms=300))


@pytest.fixture(scope="module")
def present(bundle, make_policy):
    """A policy's file for the small bundle."""
    return make_policy(bundle)


@pytest.fixture(scope="module")
def policy(bundle, present):
    """That policy."""
    return from_bytes(present, bundle.manifest.profiles["default"], bundle.candidates())


def experiences(policy, count, worth, seed=0):
    """What the policy tried, paid by ``worth`` of the place; places are near by forecast."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        features = rng.normal(size=FEATURES).clip(-5, 5).astype(np.float32)
        features[GAP] = -rng.uniform(0, 0.5, SHORTLIST)
        chosen = pick(policy, View(features, np.arange(SHORTLIST), 1.5), rng)
        found.append(Experience(chosen, worth(chosen.action) + rng.normal(0, 0.5)))
    return found


def test_what_paid_is_done_more_often(policy):
    """A place that is worth more is tried more often after the lesson, and others less."""
    paid = experiences(policy, 1_024, lambda action: 2.0 * (action == 3))
    learned = Learned(policy.viewer, improved(policy.layers, paid))
    share = [
        np.mean([each.pick.action == 3 for each in experiences(who, 2_000, float, seed=1)])
        for who in (policy, learned)
    ]
    assert share[1] > 1.15 * share[0]


def test_the_present_policy_is_left_as_it_is(policy):
    """A lesson works on a copy, and the same experience leads to the same copy."""
    before = [(weights.copy(), biases.copy()) for weights, biases in policy.layers]
    tried = experiences(policy, 64, float)
    first, again = (improved(policy.layers, tried) for _ in range(2))
    for old, layer, one, other in zip(before, policy.layers, first, again, strict=True):
        assert all(map(np.array_equal, old, layer))
        assert all(map(np.array_equal, one, other))
        assert not np.array_equal(one[0], old[0])


@pytest.fixture
def log(bundle):
    """A site as it was of late: an edge that needs 50 ms for it all, and a slow link."""
    rng = np.random.default_rng(0)
    slowdown = 50 / sum(bundle.manifest.profiles["default"].block_ms)
    seen = [
        Observation(
            edge_slowdown=slowdown, link_bps=rng.uniform(1e4, 9e4), round_trip_ms=9, arrivals_rps=8
        )
        for _ in range(12)
    ]
    return SiteLog(seen, [15.0, 30.0, 300.0, 900.0])


def bad_and_good(policy):
    """A policy that always runs it all at the edge, which takes too long, and the forecast."""
    forecast = [(0 * weights, 0 * biases) for weights, biases in policy.layers]
    bad = [
        *forecast[:-1],
        (forecast[-1][0], 50 * (np.arange(SHORTLIST) == LAST).astype(np.float32)),
    ]
    return bad, forecast


def test_a_better_policy_is_offered_and_a_worse_one_is_not(bundle, policy, log, monkeypatch):
    """What is offered is a file that can be adopted; a refusal says the gain that was not there."""
    bad, forecast = bad_and_good(policy)
    kept = range(len(bundle.candidates()))
    files = [online.to_bytes(layers, kept, policy.viewer.weights) for layers in (bad, forecast)]
    trainer = Online(bundle, CLASSES, period_s=1.0)
    monkeypatch.setattr(online, "improved", lambda layers, experiences: forecast)
    lesson = trainer.learn(files[0], [], [log])
    assert lesson.policy == files[1]
    assert lesson.facts["gain"] > lesson.facts["error"] >= 0
    monkeypatch.setattr(online, "improved", lambda layers, experiences: bad)
    lesson = trainer.learn(files[1], [], [log])
    assert lesson.policy is None
    assert lesson.facts["refused"] == "not better in rehearsal"
    assert lesson.facts["gain"] < 0


def test_a_whole_lesson_says_what_it_was_made_of(bundle, present, policy, log):
    """Experiences whose reward is no number are left out; the rest is judged."""
    tried = experiences(policy, 64, float)
    spoilt = [*tried, tried[0]._replace(reward=float("nan"))]
    lesson = Online(bundle, CLASSES, period_s=1.0).learn(present, spoilt, [log])
    assert lesson.facts["experiences"] == 64
    assert np.isfinite(lesson.facts["gain"])


def test_a_lesson_that_diverges_is_thrown_away(bundle, present, policy, log, monkeypatch):
    """Weights that are no numbers are never offered."""
    broken = [(weights, np.full_like(biases, np.nan)) for weights, biases in policy.layers]
    monkeypatch.setattr(online, "improved", lambda layers, experiences: broken)
    lesson = Online(bundle, CLASSES, period_s=1.0).learn(present, [], [log])
    assert lesson.policy is None
    assert lesson.facts["refused"] == "learning diverged"


def test_without_a_site_to_rehearse_nothing_is_offered(bundle, present, policy):
    """The reason is recorded."""
    tried = experiences(policy, 16, float)
    lesson = Online(bundle, CLASSES, period_s=1.0).learn(present, tried, [])
    assert lesson.policy is None
    assert "expected a site" in lesson.facts["refused"]


def test_a_policy_of_another_bundle_is_an_error(bundle):
    """It is not learned on."""
    with pytest.raises(PlanError):
        Online(bundle, CLASSES, period_s=1.0).learn(b"none", [], [])
