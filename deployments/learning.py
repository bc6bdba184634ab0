"""Learning while serving: what was tried is kept, taught on, promoted, watched, and taken back.

    Choice, records ─► Ledger ─► Experience… ─► teach ─► Lesson ─► Decider.adopt ─► on probation
                                                                        ▲ the one before, if worse

A promotion needs two things: the new policy is better in a simulator set to what the sites saw of
late, and afterwards the live requests are not worth less. Nothing here waits for the trainer.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence

import numpy as np

from deployments.deciding import Choice, Decider, name_of
from deployments.journal import Journal
from rl.lesson import Lesson, SiteLog
from xpi_ray.bundle import Bundle
from xpi_ray.policies.experience import Experience, Ledger
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import SloClass
from xpi_ray.profiles.surety import Surety
from xpi_ray.telemetry.records import RequestRecord

logger = logging.getLogger("ray.serve")

LESSON = 256  # new experiences after which there is a lesson
MOST_EXPERIENCES = 4_096  # of one policy, the latest; a lesson is of all of them
PERIODS = 30  # before a promotion and after it, whose rewards are compared
SOONEST = 10  # periods after which a promotion may be taken back
LATE_S = 3.0  # within which nearly all requests of a plan have been reported
TIMEOUT_S = 300.0  # of a lesson

Teach = Callable[[bytes, Sequence[Experience], Sequence[SiteLog]], Awaitable[Lesson]]


class _Site:
    """What is kept of one site."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.observations: deque[Observation] = deque(maxlen=60)
        self.deadlines_ms: deque[float] = deque(maxlen=1_000)


class Learning:
    """Goes on learning the decider's policy, which must be a learned one.

    Args:
        decider: Whose policy is replaced.
        bundle: What is served.
        period_s: Time between decisions.
        journal: Takes promotions, refusals, failures and roll-backs.
        teach: Makes a lesson of the policy's file, its experiences and the sites; may take long,
            fail or never come back.
    """

    def __init__(
        self, decider: Decider, bundle: Bundle, period_s: float, journal: Journal, teach: Teach
    ) -> None:
        assert decider.learned is not None
        self._decider = decider
        self._journal = journal
        self._teach = teach
        self._weights = decider.learned.viewer.weights
        self._surety = Surety(bundle.outcomes)
        self._patience = math.ceil(LATE_S / period_s) + 1
        self._sites: dict[str, _Site] = {}
        self._experiences: deque[Experience] = deque(maxlen=MOST_EXPERIENCES)
        self._new = 0
        self._rewards: deque[float] = deque(maxlen=PERIODS)
        self._fresh: list[float] = []
        self._lesson: asyncio.Task[Lesson] | None = None
        self._before: tuple[bytes, tuple[float, ...]] | None = None
        self._failed = False

    def see(
        self,
        site: str,
        observation: Observation,
        records: Sequence[RequestRecord],
        version: int,
        choices: Mapping[SloClass, Choice],
    ) -> None:
        """Take in a site's period and what was decided after it; trouble here stays here."""
        try:
            self._see(site, observation, records)
            for slo, choice in choices.items():
                if choice.pick is None:  # a rule decided, as the policy could not
                    self._failed = True
                    continue
                self._sites[site].ledger.enter(version, slo.name, choice.pick)
        except Exception:
            logger.exception("nothing was learned from %s in this period", site)

    def advance(self) -> None:
        """After each period of all sites: begin or end a lesson, judge a promotion."""
        try:
            self._advance()
        except Exception:
            logger.exception("no lesson in this period")

    def _see(self, name: str, observation: Observation, records: Sequence[RequestRecord]) -> None:
        if name not in self._sites:
            self._sites[name] = _Site(self._ledger())
        site = self._sites[name]
        site.observations.append(observation)
        site.deadlines_ms.extend(record.deadline_ms for record in records)
        settled = site.ledger.settle(records)
        self._experiences.extend(settled)
        self._new += len(settled)
        self._fresh.extend(each.reward for each in settled)

    def _advance(self) -> None:
        if self._fresh:
            self._rewards.append(float(np.mean(self._fresh)))
            self._fresh = []
        if self._before is not None:
            self._judge(*self._before)
        elif self._lesson is not None:
            if self._lesson.done():
                lesson, self._lesson = self._lesson, None
                self._close(lesson)
        elif self._new >= LESSON and len(self._rewards) == PERIODS:
            self._new = 0
            logs = [SiteLog([*s.observations], [*s.deadlines_ms]) for s in self._sites.values()]
            call = self._teach(self._decider.file, [*self._experiences], logs)
            self._lesson = asyncio.ensure_future(asyncio.wait_for(call, TIMEOUT_S))

    def _close(self, task: "asyncio.Task[Lesson]") -> None:
        """Take what a lesson brought; whatever is wrong with it, the present policy stays."""
        present = self._decider.name
        try:
            lesson = task.result()
            if lesson.policy is None:
                self._journal.write("refusal", policy=present, **lesson.facts)
                return
            before = self._decider.file
            self._decider.adopt(lesson.policy)
        except (Exception, asyncio.CancelledError) as err:
            logger.warning("the lesson failed, the policy %s stays: %r", present, err)
            self._journal.write("failure", policy=present, reason=repr(err))
            return
        self._before = (before, tuple(self._rewards))
        self._take_up("promotion", before=present, **lesson.facts)

    def _judge(self, before: bytes, rewards: Sequence[float]) -> None:
        """Take a promotion back as soon as its requests are clearly worth less, or it fails."""
        if self._failed:
            self._take_back(before, reason="it could not decide")
            return
        now, then = np.array(self._rewards), np.array(rewards)
        if len(now) < SOONEST:
            return
        change = float(now.mean() - then.mean())
        error = float(np.sqrt(now.var(ddof=1) / len(now) + then.var(ddof=1) / len(then)))
        if change < -2 * error:
            self._take_back(before, change=change, error=error)
        elif len(now) == PERIODS:
            self._before = None
            self._journal.write("kept", policy=self._decider.name, change=change, error=error)

    def _take_back(self, before: bytes, **facts: float | str) -> None:
        worse = self._decider.name
        self._decider.adopt(before)
        self._before = None
        self._take_up("roll_back", before=worse, **facts)
        logger.warning("the policy %s was taken back: %s", worse, facts)

    def _take_up(self, kind: str, **facts: float | str) -> None:
        """Begin anew with another policy; decisions of the one before are let go."""
        self._experiences.clear()
        self._rewards.clear()
        self._fresh, self._new, self._failed = [], 0, False
        for site in self._sites.values():
            site.ledger = self._ledger()
        self._journal.keep(self._decider.file)
        self._journal.write(kind, policy=name_of(self._decider.file), **facts)

    def _ledger(self) -> Ledger:
        return Ledger(self._weights, self._surety, self._patience)
