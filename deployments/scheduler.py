"""The scheduler: every period, from what the routers saw to new plans on every router.

Router ─ report(records) ─► Watch ─► Policy ─► PlanBook ─► PolicyStore
                                                   └─ broadcast ─► every router replica ─► ack
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence

from ray.serve.handle import DeploymentHandle

from deployments.args import SchedulerArgs, site_app_name
from deployments.policy_store import open_store
from xpi_ray.bundle import Bundle
from xpi_ray.errors import PlanError
from xpi_ray.policies.base import Decision, Policy
from xpi_ray.policies.greedy import LeastLatency
from xpi_ray.policies.observation import Observation, Watch
from xpi_ray.policies.plan import PlanBook
from xpi_ray.policies.static import Static, plan_book
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
        self._policy = _policy(args, self._bundle)
        self._store = open_store()
        self._sites: dict[str, _Site] = {}
        self._version = 0
        self._pushes_ms: deque[float] = deque(maxlen=RECENT_PUSHES)
        self._loop: asyncio.Task[None] | None = None

    async def report(self, site: str, records: Sequence[RequestRecord]) -> None:
        """Take in what a router of ``site`` saw since its last report."""
        if site not in self._sites:
            prior = Observation(
                edge_slowdown=self._args.edge_slowdown, round_trip_ms=self._args.round_trip_ms
            )
            watch = Watch(self._bundle.manifest.profiles["default"], prior)
            self._sites[site] = _Site(site, watch)
        self._sites[site].records.extend(records)
        if self._loop is None or self._loop.done():
            self._loop = asyncio.create_task(self._run())

    async def recent_pushes_ms(self) -> list[float]:
        """Time of each recent push until every router replica of the site had acknowledged."""
        return list(self._pushes_ms)

    async def _run(self) -> None:
        self._version = max(self._version, await self._store.version.remote())
        while True:
            for name, site in list(self._sites.items()):
                try:
                    await self._schedule(name, site)
                except Exception:  # one site's trouble must not stop the others' plans
                    logger.exception("no new plans for %s in this period", name)
            await asyncio.sleep(self._args.period_s)

    async def _schedule(self, name: str, site: _Site) -> None:
        records, site.records = site.records, []
        observation = site.watch.observe(records, self._args.period_s)
        book = self._decide(observation)
        await self._store.put.remote(name, book)
        await self._push(site, book)

    def _decide(self, observation: Observation) -> PlanBook:
        """Ask the policy, and refuse what it says where that is not a plan for this network."""
        decisions = {
            slo.name: self._policy.decide(observation, slo) for slo in self._args.slo_classes
        }
        book = plan_book(decisions, self._version + 1, self._args.lifetime_s)
        outcomes = self._bundle.outcomes
        for plan in book.plans.values():
            plan.check(self._bundle.network.num_blocks, len(outcomes.frame_bytes))
        self._version = book.version
        return book

    async def _push(self, site: _Site, book: PlanBook) -> None:
        started = time.perf_counter()
        push = site.routers.broadcast("set_plans", book)
        held = await push.results_async(timeout_s=self._args.period_s)
        self._pushes_ms.append((time.perf_counter() - started) * 1000)
        # A scheduler that lost its count together with the store goes on from the routers'.
        self._version = max(self._version, *held)


def _policy(args: SchedulerArgs, bundle: Bundle) -> Policy:
    manifest = bundle.manifest
    if args.policy == "static":
        plan = manifest.static_plan
        return Static(Decision(plan.partition, plan.thresholds, plan.level))
    if args.least_partition > bundle.network.num_blocks:
        raise PlanError(
            f"least_partition {args.least_partition} is beyond the last block, "
            f"{bundle.network.num_blocks}"
        )
    thresholds = [calibration.thresholds for calibration in manifest.calibrations]
    profile = manifest.profiles["default"]
    return LeastLatency(profile, bundle.outcomes, thresholds, args.least_partition)
