import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.errors import PlanError
from xpi_ray.policies.keeper import PlanKeeper, class_index
from xpi_ray.policies.plan import Plan, PlanBook, SloClass

STATIC = Plan(version=0, partition=2, thresholds=(0.1, 0.2, 1.0), level=1)
CLASSES = [
    SloClass(name="standard", deadline_ms=100),
    SloClass(name="relaxed", deadline_ms=1_000),
    SloClass(name="tight", deadline_ms=20),
]


def book(version, lifetime_s=10.0, **changes):
    """Return a book whose plans differ by class: tight stays at the edge, relaxed does not."""
    plan = STATIC.model_copy(update={"version": version, **changes})
    parts = {"tight": 3, "standard": 1, "relaxed": 0}
    plans = {name: plan.model_copy(update={"partition": p}) for name, p in parts.items()}
    return PlanBook(plans=plans, lifetime_s=lifetime_s)


@pytest.fixture
def keeper(clock):
    """A keeper for three blocks and two levels that was given nothing yet."""
    return PlanKeeper(STATIC, CLASSES, 3, 2, clock)


def partition(keeper, deadline_ms=100):
    """The partition that a request of the deadline gets."""
    return keeper.plan_for(deadline_ms)[1].partition


def test_before_any_book_the_static_plan_holds(keeper):
    """Every class gets the static plan, of version 0."""
    assert [keeper.plan_for(ms) for ms in (20, 100, 1_000)] == [
        ("tight", STATIC), ("standard", STATIC), ("relaxed", STATIC)
    ]  # fmt: skip
    assert keeper.version == 0


@pytest.mark.parametrize(
    ("deadline_ms", "name", "expected"),
    [
        (1, "tight", 3), (20, "tight", 3), (99.9, "tight", 3), (100, "standard", 1),
        (999, "standard", 1), (1_000, "relaxed", 0), (1e9, "relaxed", 0),
    ],
)  # fmt: skip
def test_a_deadline_falls_into_its_band(keeper, deadline_ms, name, expected):
    """A class takes deadlines from its own up to the next; the tightest takes shorter ones."""
    keeper.adopt(book(1))
    found, plan = keeper.plan_for(deadline_ms)
    assert (found, plan.partition, plan.version) == (name, expected, 1)


@given(
    st.lists(st.floats(1, 1e4), min_size=1, max_size=6),
    st.lists(st.floats(0.1, 1e5), max_size=20),
)
def test_many_deadlines_fall_into_their_bands_at_once(classes_ms, deadlines_ms):
    """Each into the last class that is no longer; shorter ones than all into the first."""
    classes_ms = sorted(classes_ms)
    deadlines_ms = np.array(deadlines_ms + classes_ms)
    found = class_index(np.array(classes_ms), deadlines_ms)
    for deadline_ms, index in zip(deadlines_ms, found, strict=True):
        expected = 0
        for number, class_ms in enumerate(classes_ms):
            if class_ms <= deadline_ms:
                expected = number
        assert index == expected


def test_the_newest_book_wins(keeper):
    """Books that come late or twice change nothing, and the version in hand is acknowledged."""
    assert keeper.adopt(book(5)) == 5
    assert keeper.adopt(book(4, level=0)) == 5
    assert keeper.adopt(book(5, level=0)) == 5
    assert keeper.plan_for(100)[1].level == 1
    assert keeper.adopt(book(6, level=0)) == 6
    assert keeper.plan_for(100)[1].level == 0


def test_an_old_book_gives_way_to_the_static_plan(keeper, clock):
    """After its lifetime the static plan holds again, until a newer book comes."""
    keeper.adopt(book(1, lifetime_s=10))
    clock.sleep_ms(9_999)
    assert partition(keeper) == 1
    clock.sleep_ms(2)
    assert keeper.plan_for(100) == ("standard", STATIC)
    assert keeper.version == 1
    keeper.adopt(book(2))
    assert partition(keeper) == 1


def test_age_counts_towards_the_lifetime(keeper, clock):
    """A book that comes from the store has lived already."""
    keeper.adopt(book(1, lifetime_s=10), age_s=8)
    clock.sleep_ms(1_999)
    assert partition(keeper) == 1
    clock.sleep_ms(2)
    assert partition(keeper) == STATIC.partition


def test_an_older_book_does_not_prolong_the_newer(keeper, clock):
    """What is refused leaves the lifetime alone."""
    keeper.adopt(book(2, lifetime_s=1))
    keeper.adopt(book(1, lifetime_s=100))
    clock.sleep_ms(1_001)
    assert partition(keeper) == STATIC.partition


@pytest.mark.parametrize(
    "bad",
    [
        book(9, level=2),
        book(9, thresholds=(0.5,) * 4),
        PlanBook(plans={"tight": STATIC, "relaxed": STATIC}, lifetime_s=1),
    ],
    ids=["level", "thresholds", "class"],
)
def test_a_book_that_does_not_fit_is_refused_whole(keeper, bad):
    """The book in hand stays, as does its version."""
    keeper.adopt(book(1))
    with pytest.raises(PlanError):
        keeper.adopt(bad)
    assert (keeper.version, partition(keeper)) == (1, 1)


def test_a_missing_class_is_named(keeper):
    """The message lists the classes that have no plan."""
    with pytest.raises(PlanError, match="no plan for relaxed, standard"):
        keeper.adopt(PlanBook(plans={"tight": STATIC}, lifetime_s=1))


def test_a_static_plan_that_does_not_fit_is_refused(clock):
    """A router does not start with a plan that it could not fall back to."""
    with pytest.raises(PlanError, match="expected 4 thresholds"):
        PlanKeeper(STATIC, CLASSES, 4, 2, clock)
