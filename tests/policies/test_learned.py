from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from xpi_ray.errors import PlanError
from xpi_ray.policies.catalogue import candidates
from xpi_ray.policies.forecast import Forecast
from xpi_ray.policies.learned import (
    FEATURES,
    GAP,
    MAX_FILE_BYTES,
    SHARPNESS,
    SHORTLIST,
    Learned,
    Viewer,
    from_bytes,
    kind_of,
    read,
    to_bytes,
    worth_keeping,
)
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import SloClass
from xpi_ray.policies.utility import Weights
from xpi_ray.profiles.table import Profile

PROFILE = Profile(
    machine="a toaster", threads=1, block_ms=(1.0, 2.0, 3.0, 4.0), encode_ms=0.5, decode_ms=0.25
)
THRESHOLDS = ((0.2, 0.2, 0.2, 1.0), (0.5, 0.5, 0.5, 1.0), (0.8, 0.8, 0.8, 1.0))
WEIGHTS = Weights(accuracy=2.0)
OBSERVATIONS = st.builds(
    Observation,
    edge_slowdown=st.floats(0.01, 1e3),
    cloud_slowdown=st.floats(0.01, 1e3),
    edge_wait_ms=st.floats(0, 1e5),
    cloud_wait_ms=st.floats(0, 1e5),
    encode_ms=st.floats(0, 1e3),
    round_trip_ms=st.floats(0, 1e5),
    link_bps=st.floats(1e-3, 1e12),
    link_spread=st.floats(0, 10),
    arrivals_rps=st.floats(0, 1e5),
    edge_utilisation=st.floats(0, 1e3),
    mean_deadline_ms=st.floats(1e-3, 1e6),
    missed=st.floats(0, 1),
)


def make_layers(widths=(FEATURES, 16, SHORTLIST), seed=0, scale=1.0):
    """Random layers."""
    rng = np.random.default_rng(seed)
    return [
        (
            (scale * rng.normal(size=(out, width))).astype(np.float32),
            rng.normal(size=out).astype(np.float32),
        )
        for width, out in pairwise(widths)
    ]


@pytest.fixture(scope="module")
def plans(make_outcomes):
    """All plans of a make-believe network."""
    return candidates(make_outcomes(0), THRESHOLDS)


@pytest.fixture(scope="module")
def viewer(plans):
    """Of all of them."""
    return Viewer(PROFILE, plans, WEIGHTS)


@settings(max_examples=60)
@given(observation=OBSERVATIONS, deadline_ms=st.floats(0.1, 1e5), seed=st.integers(0, 9))
def test_whatever_is_seen_the_decision_is_a_candidate(
    plans, viewer, observation, deadline_ms, seed
):
    """Features are finite and bounded, and of each kind the best by forecast is on the list."""
    view = viewer.view(observation, deadline_ms)
    assert view.features.shape == (FEATURES,)
    assert view.features.dtype == np.float32
    assert (np.abs(view.features) <= 5).all()
    utility = Forecast(PROFILE, viewer.candidates, WEIGHTS).predict(observation, deadline_ms)[0]
    kinds = np.array([kind_of(candidate, 4) for candidate in viewer.candidates])
    for kind, place in enumerate(view.shortlist):
        assert kinds[place] == kind
        assert utility[place] == utility[kinds == kind].max()
    assert view.best == utility.max()
    gaps = SHARPNESS * (utility[view.shortlist] - utility.max())
    assert view.features[GAP] == pytest.approx(gaps.clip(-5, 5), abs=1e-4)
    policy = Learned(viewer, make_layers(seed=seed))
    decision = policy.decide(observation, SloClass(name="any", deadline_ms=deadline_ms))
    assert decision in {candidate.decision for candidate in plans}


def test_the_logits_are_layers_with_tanh(viewer):
    """By hand, for one and for many."""
    rng = np.random.default_rng(0)
    (first, bias), (last, end) = make_layers()
    policy = Learned(viewer, [(first, bias), (last, end)])
    features = rng.normal(size=(5, FEATURES)).astype(np.float32)
    for row, found in zip(features, policy.logits(features), strict=True):
        hidden = [np.tanh(bias[k] + row @ first[k]) for k in range(16)]
        said = [end[k] + hidden @ last[k] for k in range(SHORTLIST)]
        assert found == pytest.approx(said, abs=1e-4)
        assert found == pytest.approx(policy.logits(row), abs=1e-5)


def test_a_policy_survives_its_file(plans, tmp_path):
    """What is read decides as what was written, from the plans that were kept."""
    kept = [i for i, c in enumerate(plans) if c.decision.level != 2]
    layers = make_layers((FEATURES, 8, 9, SHORTLIST))
    path = tmp_path / "policy"
    path.write_bytes(to_bytes(layers, kept, WEIGHTS))
    policy = from_bytes(read(path), PROFILE, plans)
    assert policy.viewer.weights == WEIGHTS
    assert {c.decision for c in policy.viewer.candidates} == {plans[i].decision for i in kept}
    twin = Learned(Viewer(PROFILE, [plans[i] for i in kept], WEIGHTS), layers)
    features = np.random.default_rng(0).normal(size=(20, FEATURES)).astype(np.float32)
    assert (policy.logits(features) == twin.logits(features)).all()


def rewritten(plans, drop="", **changes):
    """A policy's file with some tensors changed."""
    tensors = load(to_bytes(make_layers(), range(len(plans)), WEIGHTS))
    tensors.update({name: np.asarray(value) for name, value in changes.items()})
    return save({name: value for name, value in tensors.items() if name != drop})


WRONG = np.zeros((SHORTLIST, 16), np.float32)
NO_POLICY = "this is no policy file"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": [1]}, "reads observations of version 1, this server makes version 2"),
        ({"version": 1}, NO_POLICY),
        ({"version": [np.inf]}, NO_POLICY),
        ({"kept": [0, 10_000]}, "of a bundle with other plans than these 30"),
        ({"kept": [0, -1]}, "of a bundle with other plans"),
        ({"kept": [0, 1]}, r"expected plans of 12 kinds .* got kinds \[0, 9\]"),
        ({"kept": 3}, NO_POLICY),
        ({"kept": [[0, 1]]}, NO_POLICY),
        ({"kept": [0.5]}, NO_POLICY),
        ({"utility": [1.0, 2.0]}, NO_POLICY),
        ({"utility": 1.0}, NO_POLICY),
        ({"utility": [1.0, 1.0, np.nan]}, NO_POLICY),
        ({"utility": [1.0, np.inf, 1.0]}, NO_POLICY),
        ({"drop": "kept"}, NO_POLICY),
        ({"drop": "biases1"}, NO_POLICY),
        ({"drop": "weights1"}, "expected 12 outputs of the policy, got 16"),
        ({"weights0": WRONG}, r"layer 0 of the policy has the shapes \(12, 16\)"),
        ({"weights1": np.full_like(WRONG, np.nan)}, "layer 1 of the policy holds values that are"),
        ({"biases1": np.zeros((SHORTLIST, 2), np.float32)}, "layer 1 of the policy"),
        ({"biases1": np.float32(0)}, "layer 1 of the policy"),
    ],
)
def test_what_is_no_policy_for_this_bundle_is_refused(plans, change, message):
    """Another version or bundle, shapes that do not fit, values that are none."""
    with pytest.raises(PlanError, match=message):
        from_bytes(rewritten(plans, **change), PROFILE, plans)


@settings(max_examples=60)
@given(junk=st.binary(max_size=200), cut=st.integers(0, 2_000), flip=st.integers(0, 400))
def test_junk_is_refused(plans, junk, cut, flip):
    """No bytes at all, others, a file cut short or with a changed head: an error, and no other."""
    good = to_bytes(make_layers(), range(len(plans)), WEIGHTS)
    with pytest.raises(PlanError):
        from_bytes(junk, PROFILE, plans)
    with pytest.raises(PlanError):
        from_bytes(good[: len(good) - 1 - cut], PROFILE, plans)
    changed = bytearray(good)
    changed[flip] ^= 1
    with suppress(PlanError):
        from_bytes(bytes(changed), PROFILE, plans)


def test_a_file_that_is_not_there_or_huge_is_refused(tmp_path):
    """Before it is read."""
    with pytest.raises(PlanError, match="cannot be read"):
        read(tmp_path / "nowhere")
    (tmp_path / "huge").write_bytes(b"0" * (MAX_FILE_BYTES + 1))
    with pytest.raises(PlanError, match="too large for a policy"):
        read(tmp_path / "huge")


def test_a_kind_without_plans_is_refused(plans):
    """Every kind needs one."""
    with pytest.raises(PlanError, match="expected plans of 12 kinds"):
        Viewer(PROFILE, [plan for plan in plans if plan.decision.partition > 1], WEIGHTS)


def test_the_plans_worth_keeping_hold_the_best_ones(plans):
    """In conditions that nobody tried, hardly anything is lost; each kind has at least one."""
    kept = worth_keeping(PROFILE, plans, WEIGHTS)
    assert kept == sorted(set(kept)) == worth_keeping(PROFILE, plans, WEIGHTS)
    assert {kind_of(plans[index], 4) for index in kept} == set(range(SHORTLIST))
    forecast, rng, lost = Forecast(PROFILE, plans, WEIGHTS), np.random.default_rng(9), []
    for _ in range(300):
        observation = Observation(
            edge_slowdown=np.exp(rng.uniform(0, 3)),
            link_bps=np.exp(rng.uniform(10, 18)),
            link_spread=rng.uniform(0.3, 1.5),
            round_trip_ms=rng.uniform(1, 100),
        )
        utility = forecast.predict(observation, np.exp(rng.uniform(3, 7))).utility
        lost.append(utility.max() - utility[kept].max())
    assert np.mean(lost) < 1e-3


@pytest.mark.parametrize("blocks", [4, 5, 12])
def test_a_kind_is_a_quarter_and_a_strictness(make_outcomes, blocks):
    """Quarters are of nearly equal size; what stays at the edge is of the last."""
    plan = candidates(make_outcomes(0), THRESHOLDS)[0]
    kinds = [
        kind_of(plan._replace(decision=plan.decision._replace(partition=p), strictness=s), blocks)
        for s in range(5)
        for p in range(blocks + 1)
    ]
    assert set(kinds) == set(range(SHORTLIST))
    quarters = np.bincount(np.array(kinds[1 : blocks + 1]) // 3)
    assert quarters.max() - quarters.min() <= 1
    assert kinds[0] == kinds[1]
