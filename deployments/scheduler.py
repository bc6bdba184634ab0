"""The scheduler: every period, from what the routers saw to new plans on every router.

Router ─ report(records) ─► Watch ─► Decider ─► PlanBook ─► PolicyStore
                                        │          └─ broadcast ─► every router replica ─► ack
                                        └─► Journal, Learning ─► Trainer
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.args import SchedulerArgs, site_app_name
from deployments.deciding import Decider, prior
from deployments.journal import Journal, plan_entry, seed_of, start_of
from deployments.learning import Learning
from deployments.policy_store import open_store
from deployments.trainer import TrainerHandle
from xpi_ray.bundle import Bundle
from xpi_ray.policies.observation import Watch, seen
from xpi_ray.policies.plan import PlanBook
from xpi_ray.policies.static import plan_book
from xpi_ray.telemetry.records import RequestRecord

logger = logging.getLogger("ray.serve")

RECENT_PUSHES = 1_000


class _Site:
    """What the scheduler keeps of one site."""

    def __init__(self, name: str, watch: Watch) -> None:
        self.watch = watch
        self.records: list[RequestRecord] = []
        self.routers: DeploymentHandle = DeploymentHandle("Router", site_app_name(name))


class Scheduler:
    """Decides for every site that reports; a site that is new is known by its first report."""

    def __init__(self, args: SchedulerArgs) -> None:
        self._args = args
        self._bundle = Bundle.load(args.bundle)
        self._decider = Decider(args, self._bundle)
        path = None if args.journal is None else Path(args.journal)
        self._journal = Journal(path, start_of(args, self._bundle))
        if self._decider.file:
            self._journal.keep(self._decider.file)
        self._learning: Learning | None = None
        if args.learn and self._decider.learned is not None:
            teach = TrainerHandle(args)
            self._learning = Learning(
                self._decider, self._bundle, args.period_s, self._journal, teach
            )
        elif args.learn:
            logger.warning("nothing is learned: there is no learned policy to go on from")
        self._store = open_store()
        self._sites: dict[str, _Site] = {}
        self._version = 0
        self._pushes_ms: deque[float] = deque(maxlen=RECENT_PUSHES)
        self._loop: asyncio.Task[None] | None = None

    async def report(self, site: str, records: Sequence[RequestRecord]) -> None:
        """Take in what a router of ``site`` saw since its last report."""
        if site not in self._sites:
            self._sites[site] = _Site(site, self._watch())
        self._sites[site].records.extend(records)
        if self._loop is None or self._loop.done():
            self._loop = asyncio.create_task(self._run())

    async def recent_pushes_ms(self) -> list[float]:
        """Time of each recent push until every router replica of the site had acknowledged."""
        return list(self._pushes_ms)

    async def recent_entries(self) -> list[dict[str, Any]]:
        """The journal's latest entries, also where it is not written to a file."""
        return list(self._journal.tail)

    async def _run(self) -> None:
        self._version = max(self._version, await self._store.version.remote())
        while True:
            for name, site in list(self._sites.items()):
                try:
                    await self._schedule(name, site)
                except Exception:  # one site's trouble must not stop the others' plans
                    logger.exception("no new plans for %s in this period", name)
            if self._learning is not None:
                self._learning.advance()
            await asyncio.sleep(self._args.period_s)

    async def _schedule(self, name: str, site: _Site) -> None:
        records, site.records = site.records, []
        try:
            observation = site.watch.observe(seen(records), self._args.period_s)
        except ValueError:  # a record with values that are none; they must not stay
            site.watch = self._watch()
            raise
        version = self._version + 1
        tries = self._learning is not None
        choices = {
            slo: self._decider.decide(
                observation, slo, seed_of(version, slo) if tries else None, name
            )
            for slo in self._args.slo_classes
        }
        decisions = {slo.name: choice.decision for slo, choice in choices.items()}
        book = plan_book(decisions, version, self._args.lifetime_s)
        self._version = version
        if self._learning is not None:
            self._learning.see(name, observation, records, version, choices)
        self._journal.write(
            "decision",
            site=name,
            version=version,
            tries=tries,
            observation=observation.model_dump(),
            plans={slo.name: plan_entry(slo, choice) for slo, choice in choices.items()},
        )
        await self._store.put.remote(name, book)
        await self._push(site, book)

    def _watch(self) -> Watch:
        profile = self._bundle.manifest.profiles["default"]
        return Watch(profile, prior(self._args, profile))

    async def _push(self, site: _Site, book: PlanBook) -> None:
        started = time.perf_counter()
        push = site.routers.broadcast("set_plans", book)
        held = await push.results_async(timeout_s=self._args.period_s)
        self._pushes_ms.append((time.perf_counter() - started) * 1000)
        # A scheduler that lost its count together with the store goes on from the routers'.
        self._version = max(self._version, *held)
