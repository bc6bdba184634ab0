from xpi_ray.policies.base import Decision
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import SloClass
from xpi_ray.policies.static import Static, plan_book

DECISION = Decision(2, (0.1, 0.2, 0.3), 1)


def test_nothing_changes_its_mind():
    """Whatever is seen, for whatever class, the decision is the one given."""
    policy = Static(DECISION)
    seen = [Observation(), Observation(link_bps=1, edge_slowdown=1e3)]
    classes = [SloClass(name="a", deadline_ms=1), SloClass(name="b", deadline_ms=1e6)]
    assert {policy.decide(o, slo) for o in seen for slo in classes} == {DECISION}


def test_a_book_holds_each_decision_under_its_class():
    """Every plan has the book's version, and what was decided for its class."""
    other = Decision(0, (1.0, 1.0, 1.0), 0)
    book = plan_book({"tight": DECISION, "relaxed": other}, version=9, lifetime_s=4.0)
    assert (book.version, book.lifetime_s) == (9, 4.0)
    for name, decision in {"tight": DECISION, "relaxed": other}.items():
        plan = book.plans[name]
        assert Decision(plan.partition, plan.thresholds, plan.level) == decision
