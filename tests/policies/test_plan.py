import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from xpi_ray.errors import PlanError
from xpi_ray.policies.plan import Plan, PlanBook, SloClass

PLAN = Plan(version=3, partition=2, thresholds=(0.1, 0.2, 1.0), level=1)


@given(thresholds=st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_any_shares_are_thresholds(thresholds):
    """A plan with thresholds in 0..1 is one, and survives JSON to the last bit."""
    plan = Plan(version=0, partition=0, thresholds=tuple(thresholds), level=0)
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -0.001, 1.001])
def test_a_threshold_out_of_range_is_named(bad):
    """NaN, infinities and what lies outside 0..1 are refused with the exit's number."""
    with pytest.raises(ValidationError, match=r"threshold 2 must lie in 0\.\.1"):
        Plan(version=0, partition=0, thresholds=(0.5, bad), level=0)


@pytest.mark.parametrize(
    "change", [{"version": -1}, {"partition": -1}, {"level": -1}, {"thresholds": ()}, {"bits": 8}]
)
def test_impossible_plans_are_refused(change):
    """Negative numbers, no thresholds and unknown keys are errors."""
    with pytest.raises(ValidationError):
        Plan.model_validate({**PLAN.model_dump(), **change})


def test_a_plan_does_not_change():
    """A plan cannot be assigned to."""
    with pytest.raises(ValidationError, match="frozen"):
        PLAN.partition = 1


@pytest.mark.parametrize("partition", range(4))
def test_every_partition_of_the_network_fits(partition):
    """0 sends the image, N stays at the edge."""
    PLAN.model_copy(update={"partition": partition}).check(3, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"partition": 4}, "partition 4 is beyond the last block, 3"),
        ({"thresholds": (0.5,) * 2}, "expected 3 thresholds, one for every exit, got 2"),
        ({"thresholds": (0.5,) * 4}, "expected 3 thresholds, one for every exit, got 4"),
        ({"level": 2}, r"level 2 is not on the ladder 0\.\.1"),
    ],
)
def test_a_plan_for_another_network_is_refused(change, message):
    """What names a block, an exit or a level that is not there says which."""
    with pytest.raises(PlanError, match=message):
        PLAN.model_copy(update=change).check(3, 2)


def test_a_book_is_of_one_version():
    """The version of a book is that of all its plans; two versions are refused."""
    newer = PLAN.model_copy(update={"version": 4})
    assert PlanBook(plans={"a": PLAN, "b": PLAN}, lifetime_s=1).version == 3
    with pytest.raises(ValidationError, match=r"one version, got \[3, 4\]"):
        PlanBook(plans={"a": PLAN, "b": newer}, lifetime_s=1)


@pytest.mark.parametrize("values", [{"plans": {}}, {"lifetime_s": 0}, {"lifetime_s": -1}])
def test_an_empty_or_dead_book_is_refused(values):
    """A book has a plan and a time to live."""
    with pytest.raises(ValidationError):
        PlanBook(**{"plans": {"a": PLAN}, "lifetime_s": 1, **values})


@pytest.mark.parametrize("values", [{"name": ""}, {"deadline_ms": 0}, {"deadline_ms": -5}])
def test_an_impossible_class_is_refused(values):
    """A class has a name and a deadline."""
    with pytest.raises(ValidationError):
        SloClass(**{"name": "tight", "deadline_ms": 20, **values})
