import asyncio

import numpy as np
import pytest
from safetensors.numpy import load, save

from deployments import learning as module
from deployments.args import SchedulerArgs
from deployments.deciding import Decider, name_of
from deployments.journal import Journal
from deployments.learning import LESSON, PERIODS, SOONEST, Learning
from rl.lesson import Lesson
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import SloClass
from xpi_ray.telemetry.records import RequestRecord

CLASSES = tuple(SloClass(name=f"class-{number}", deadline_ms=50 + number) for number in range(12))
FACTS = {"experiences": 300, "gain": 0.1, "error": 0.01}


class Site:
    """A scheduler with one site, whose requests fare as they are told."""

    def __init__(self, bundle, policy, teach):
        self.decider = Decider(SchedulerArgs(), bundle.with_policy(policy))
        self.journal = Journal(None, {})
        self.calls = []

        async def called(*call):
            self.calls.append(call)
            return await teach(*call)

        self.learning = Learning(self.decider, bundle, 1.0, self.journal, called)
        self.rng = np.random.default_rng(0)
        self.version = 0
        self.records = []

    async def period(self, in_time=0.9):
        """One period, and what the requests in it become."""
        self.version += 1
        seen = Observation(edge_slowdown=2.0, arrivals_rps=12)
        choices = {
            slo: self.decider.decide(seen, slo, [self.version, number])
            for number, slo in enumerate(CLASSES)
        }
        self.learning.see("site-1", seen, self.records, self.version, choices)
        self.records = [self.request(slo, in_time) for slo in CLASSES]
        self.learning.advance()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def request(self, slo, in_time):
        """A request that is answered in time with this chance."""
        answered = bool(self.rng.random() < in_time)
        return RequestRecord(
            request_id="1",
            model="m",
            slo_class=slo.name,
            deadline_ms=slo.deadline_ms,
            status="complete" if answered else "missed",
            exit=3 if answered else 0,
            tier="edge" if answered else "",
            entropy=0.2,
            plan_version=self.version,
            partition=3,
            level=0,
            edge_ms=5.0,
            total_ms=10.0,
            budget_left_ms=10.0 if answered else -1.0,
        )

    def kinds(self):
        """What the journal tells."""
        return [entry["kind"] for entry in self.journal.tail][1:]


@pytest.fixture
def first(bundle, make_policy):
    """The policy at first."""
    return make_policy(bundle, 0)


@pytest.fixture
def second(bundle, make_policy):
    """What a lesson brings."""
    return make_policy(bundle, 1)


@pytest.fixture
def start(bundle, first):
    """A site that is taught as given."""
    return lambda teach: Site(bundle, first, teach)


def brings(lesson):
    """Teaching that comes to this."""

    async def teach(present, experiences, sites):
        return lesson

    return teach


async def until(site, kind, most=200, **period):
    """Let periods pass until the journal has such an entry; returns it."""
    for _ in range(most):
        await site.period(**period)
        if kind in site.kinds():
            return site.journal.tail[-1]
    raise AssertionError(f"no {kind} in {most} periods, but {site.kinds()}")


async def test_a_better_policy_is_promoted_and_kept(start, first, second):
    """After a lesson of enough experience, and as live requests fare no worse."""
    site = start(brings(Lesson(second, FACTS)))
    entry = await until(site, "promotion")
    assert site.decider.file == second
    assert (entry["policy"], entry["before"]) == (name_of(second), name_of(first))
    assert entry["gain"] == FACTS["gain"]
    (present, experiences, (log,)), *_ = site.calls
    assert present == first
    assert len(experiences) >= LESSON
    assert len(log.observations) >= PERIODS
    assert set(log.deadlines_ms) == {slo.deadline_ms for slo in CLASSES}
    await until(site, "kept")
    assert site.decider.file == second
    assert len(site.calls) == 1  # none while it was on probation
    assert site.kinds() == ["promotion", "kept"]


async def test_a_policy_that_does_worse_live_is_taken_back(start, first, second):
    """Soon after the promotion, by itself; the trainer is taught on the policy before again."""
    site = start(brings(Lesson(second, FACTS)))
    await until(site, "promotion")
    promoted = site.version
    entry = await until(site, "roll_back", in_time=0.3)
    assert SOONEST <= site.version - promoted < PERIODS
    assert site.decider.file == first
    assert (entry["policy"], entry["before"]) == (name_of(first), name_of(second))
    assert entry["change"] < -2 * entry["error"]
    await until(site, "promotion", in_time=0.9)
    assert [call[0] for call in site.calls] == [first] * len(site.calls)


async def test_a_promoted_policy_that_cannot_decide_is_taken_back(start, first, second):
    """At once, though no request can say what it is worth."""
    huge = {"biases1": np.full(64, 9.0, "f"), "weights2": np.full((12, 64), 3e38, "f")}
    site = start(brings(Lesson(save({**load(second), **huge}), FACTS)))
    await until(site, "promotion")
    promoted = site.version
    with np.errstate(all="ignore"):
        entry = await until(site, "roll_back")
    assert site.version - promoted == 1
    assert entry["reason"] == "it could not decide"
    assert site.decider.file == first


async def test_a_lesson_without_gain_changes_nothing(start, first):
    """It is recorded with its reason, and the next lesson waits for new experience."""
    site = start(brings(Lesson(None, {"refused": "not better in rehearsal"})))
    entry = await until(site, "refusal")
    assert entry["refused"] == "not better in rehearsal"
    assert entry["policy"] == name_of(first)
    count = len(site.calls[0][1])
    await until(site, "refusal")
    for _ in range(2 + LESSON // len(CLASSES)):
        await site.period()
    assert len(site.calls) == 2
    assert len(site.calls[1][1]) >= count + LESSON


@pytest.mark.parametrize(
    "error", [RuntimeError("it died"), asyncio.CancelledError(), MemoryError()]
)
async def test_a_trainer_that_fails_changes_nothing(start, first, error):
    """Whatever it raises is recorded, decisions go on, and it is asked again."""

    async def teach(*call):
        raise error

    site = start(teach)
    entry = await until(site, "failure")
    assert type(error).__name__ in entry["reason"]
    for _ in range(40):
        await site.period()
    assert site.decider.file == first
    assert len(site.calls) >= 2


async def test_a_trainer_that_hangs_holds_nobody_up(start, first, monkeypatch):
    """Periods go on meanwhile; after some time it is given up."""
    monkeypatch.setattr(module, "TIMEOUT_S", 0.01)
    given_up = asyncio.Event()

    async def teach(*call):
        try:
            await asyncio.sleep(3_600)
        finally:
            given_up.set()

    site = start(teach)
    while not site.calls:
        await site.period()
    for _ in range(5):
        await site.period()
    await given_up.wait()
    entry = await until(site, "failure")
    assert "TimeoutError" in entry["reason"]
    assert site.decider.file == first


@pytest.mark.parametrize("file", [b"", b"nonsense"])
async def test_a_lesson_that_brings_no_policy_is_a_failure(start, first, file):
    """What cannot be used is not adopted."""
    site = start(brings(Lesson(file, FACTS)))
    assert "PlanError" in (await until(site, "failure"))["reason"]
    assert site.decider.file == first


async def test_trouble_with_learning_stays_there(start, caplog):
    """A record that the outcomes know nothing of is logged, and the period goes on."""
    site = start(brings(Lesson(None, {})))
    await site.period()
    for record in site.records:
        object.__setattr__(record, "exit", 99)
    await site.period()
    await site.period()
    assert "nothing was learned from site-1" in caplog.text
