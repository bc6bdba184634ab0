import pytest

from deployments import policy_store
from deployments.policy_store import PolicyStore
from xpi_ray.policies.plan import Plan, PlanBook


def book(version):
    """A book of one plan."""
    plan = Plan(version=version, partition=1, thresholds=(0.5,), level=0)
    return PlanBook(plans={"tight": plan}, lifetime_s=10)


@pytest.fixture
def store(clock, monkeypatch):
    """A store as a plain object, on a fake clock."""
    monkeypatch.setattr(policy_store.time, "monotonic", clock)
    return PolicyStore()


def test_an_empty_store_knows_nothing(store):
    """There is no book for any site, and the version to go on from is 0."""
    assert store.get("site-1") is None
    assert store.version() == 0


def test_late_comers_get_the_newest_book_and_its_age(store, clock):
    """Age counts from when the book was put, and starts anew with the next one."""
    store.put("site-1", book(1))
    clock.sleep_ms(2_500)
    assert store.get("site-1") == (book(1), pytest.approx(2.5))
    store.put("site-1", book(2))
    clock.sleep_ms(500)
    assert store.get("site-1") == (book(2), pytest.approx(0.5))


def test_sites_do_not_share_books(store):
    """Each site has its own; the version is the highest of all."""
    store.put("site-1", book(5))
    store.put("site-2", book(4))
    assert store.get("site-1")[0].version == 5
    assert store.get("site-2")[0].version == 4
    assert store.get("site-3") is None
    assert store.version() == 5
