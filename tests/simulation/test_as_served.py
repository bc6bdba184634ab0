import asyncio
import selectors
import time

import numpy as np
import pytest

from xpi_ray.compression.ladder import LEVELS
from xpi_ray.compression.one_level import FLOAT32, OneLevel
from xpi_ray.inference.budget import Budget
from xpi_ray.inference.cloud import CloudSide
from xpi_ray.inference.edge import EdgeSide, Rest
from xpi_ray.inference.flow import Flow
from xpi_ray.inference.pace import Pace, is_long
from xpi_ray.link.traces import Trace
from xpi_ray.networks.progressive import ProgressiveNetwork
from xpi_ray.policies.base import Decision
from xpi_ray.policies.observation import SEEN
from xpi_ray.policies.plan import Plan, SloClass
from xpi_ray.profiles.measure import measure_outcomes
from xpi_ray.profiles.table import Profile
from xpi_ray.simulation import columns as at
from xpi_ray.simulation.cluster import Cluster, Setting, seen
from xpi_ray.telemetry.tracing import Tracing

DIGEST = b"8 bytes."
COUNT, APART_MS = 50, 400.0
PROFILE = Profile(
    machine="a toaster", threads=1, block_ms=(4.0, 7.0, 5.0, 9.0), encode_ms=3.0, decode_ms=2.0
)
STATUSES = {at.ANSWERED: "complete", at.BEST_EFFORT: "best_effort", at.MISSED: "missed"}


class Jumping(selectors.SelectSelector):
    """Lets an event loop jump to its next timer instead of waiting for it."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def select(self, timeout=None):
        """Let the time pass at once."""
        self.clock.now_s += max(timeout or 0.0, 0.0)
        return super().select(0)


class Timed(ProgressiveNetwork):
    """A network and a ladder that take the profile's time, times a factor, of a fake clock."""

    def __init__(self, network, ladder, clock):
        super().__init__()
        self.network, self.ladder, self.clock = network, ladder, clock
        self.factor = self.slowdown = 1.0
        self.start_ms = 0.0
        self.num_classes, self.image_size = network.num_classes, network.image_size
        self.fuses = network.fuses
        self.levels, self.arrived_level = ladder.levels, ladder.arrived_level

    num_blocks = 4

    def carry_shape(self, partition):
        """As in the wrapped network."""
        return self.network.carry_shape(partition)

    def start(self, images):
        """Read an image, which the cloud decodes first."""
        self.clock.sleep_ms(self.start_ms * self.factor)
        return self.network.start(images)

    def advance(self, state, block):
        """Run the block."""
        self.clock.sleep_ms(PROFILE.block_ms[block - 1] * self.slowdown * self.factor)
        return self.network.advance(state, block)

    def encode(self, *carry):
        """Make segments."""
        self.clock.sleep_ms(PROFILE.encode_ms * self.factor)
        return self.ladder.encode(*carry)

    def decode(self, *segments):
        """Make a carry of them."""
        self.clock.sleep_ms(PROFILE.decode_ms * self.factor)
        return self.ladder.decode(*segments)


class Server:
    """The real router, edge and cloud for one request at a time, over an emulated link."""

    def __init__(self, system, setting, site, clock):
        self.edge_machine = Timed(*system, clock)
        self.cloud_machine = Timed(*system, clock)
        self.edge_machine.slowdown = site.edge_slowdown
        self.cloud_machine.start_ms = PROFILE.decode_ms
        sides = (
            (side, machine, machine, DIGEST, Pace(block_ms, PROFILE.encode_ms))
            for side, machine, block_ms in (
                (EdgeSide, self.edge_machine, np.array(PROFILE.block_ms) * site.edge_slowdown),
                (CloudSide, self.cloud_machine, PROFILE.block_ms),
            )
        )
        (edge_side, *edge), (cloud_side, *cloud) = sides
        trusted = setting.outcomes.edge_trusted()
        self.edge_side, self.cloud_side = edge_side(*edge), cloud_side(*cloud, trusted)
        self.site, self.clock, self.link_free_s, self.number = site, clock, 0.0, 0
        self.image_bytes = int(setting.outcomes.frame_bytes[0, 0])
        self.flow = Flow(
            self.edge,
            self.cloud,
            DIGEST,
            Tracing("router"),
            best_effort=setting.best_effort,
            answers=setting.answers,
            goes_on=setting.goes_on,
            reroutes=setting.reroutes,
            begin=lambda *request: self.rest(
                self.edge_side.start(*request[:2], Budget(request[2], self.clock))
            ),
            levels=system[1].levels,
        )

    async def edge(self, pixels, plan, budget_ms, _, way):
        """Run blocks 1..p; their time passes on the loop, that of long ones beside it."""
        budget = Budget(budget_ms, self.clock)
        run, long, reply = self.edge_side.start(pixels, plan, budget), False, None
        if not way.crosses:
            run.go_on()
        while reply is None:
            long = long or is_long(run.expected_ms)
            held, left_ms, before_s = run.reply(), budget.left_ms, self.clock()
            reply = None if run.step() else run.reply()
            if not await self.pass_(before_s, left_ms if long else np.inf):
                return held._replace(wait_ms=left_ms, overrun_ms=0.0)
        reply = reply._replace(overrun_ms=0.0) if long else reply
        return reply._replace(rest=self.rest(run)) if way.goes_on and reply.crosses else reply

    def rest(self, run):
        """Later blocks, while the frame crosses; a block counts when its time has passed."""
        run.go_on()
        held = run.reply()

        async def go_on():
            nonlocal held
            stepped = True
            while stepped:
                before_s = self.clock()
                stepped = run.step()
                await self.pass_(before_s)
                held = run.reply()

        return Rest(go_on, lambda: held)

    async def cloud(self, frame, thresholds, budget_ms, _):
        """Cross the link, run blocks p+1..N, and come back."""
        hop_s = self.site.hops_ms[self.number] / 2000
        begins_s = max(self.clock() + hop_s, self.link_free_s)
        self.link_free_s = self.site.trace.delivered_s(begins_s, len(frame))
        back_s = self.site.round_trip_ms / 2000
        await asyncio.sleep(self.link_free_s + back_s - self.clock())
        side, before_s = self.cloud_side, self.clock()
        job = side.admit(frame, thresholds, Budget(budget_ms, self.clock))
        try:
            await self.pass_(before_s)
            while side.waiting:
                before_s = self.clock()
                batch = side.pick()
                side.advance(batch)
                await self.pass_(before_s)
                side.settle(batch)
            reply = job.reply()
            await asyncio.sleep(back_s + hop_s)
        finally:
            side.drop(job)
        return reply

    async def pass_(self, before_s, left_ms=np.inf):
        """Let what a machine just took pass for all, so that timers ring when they should.

        No more than what is left of a budget, where there is one; whether that was enough.
        """
        taken_s, left_s = self.clock() - before_s, max(left_ms, 0.0) / 1000
        self.clock.now_s = before_s
        await asyncio.sleep(min(taken_s, left_s))
        return taken_s <= left_s

    async def serve(self, pixels, decision):
        """The record of every request of the site."""
        plan, records = Plan(version=1, **decision._asdict()), []
        for number, arrived_ms in enumerate(self.site.arrivals):
            self.number = number
            self.edge_machine.factor = self.site.edge_factors[number]
            self.cloud_machine.factor = self.site.cloud_factors[number]
            await asyncio.sleep(arrived_ms / 1000 - self.clock())
            budget = Budget(self.site.deadlines_ms[number], self.clock)
            self.clock.sleep_ms(self.site.work_ms * self.site.edge_factors[number])
            file = bytes(self.image_bytes)  # of the size that the simulator knows, and never sent
            answer = await self.flow.answer(pixels, plan, budget, file=file)
            records.append(answer.record("", "", ""))
        return records


@pytest.fixture
def serve(clock, monkeypatch):
    """Serves a site's requests in fake time."""
    monkeypatch.setattr(time, "perf_counter", clock)
    clock.now_s = 0.0

    def serve(system, setting, site, pixels):
        loop = asyncio.SelectorEventLoop(Jumping(clock))
        monkeypatch.setattr(loop, "time", clock)
        server = Server(system, setting, site, clock)
        try:
            return loop.run_until_complete(server.serve(pixels, setting.static))
        finally:
            loop.close()

    return serve


@pytest.fixture
def compare(images, make_site, serve):
    """Serves requests one by one, simulates them too, and compares all that is seen of each.

    Deadlines from too short to ample, a link with stalls, frames that are cut or given up.
    """

    def compare(system, partition, level, leave_at, **told):
        seed = partition + 10 * level + (leave_at or 0)
        rng = np.random.default_rng(seed)
        chosen = rng.integers(len(images))
        image = images[chosen : chosen + 1]
        outcomes = measure_outcomes(*system, image, image[:, 0, 0, 0].long() % 5, 1)
        outcomes = outcomes.with_images() if system[1].levels == LEVELS else outcomes
        thresholds = tuple(1.0 if exit_ == leave_at else 0.0 for exit_ in range(1, 5))
        decision = Decision(partition, thresholds, level)
        site = make_site(
            100 + APART_MS * np.arange(COUNT),
            samples=0,
            deadlines_ms=rng.uniform(3, 200, COUNT),
            edge_factors=np.exp(rng.normal(0, 0.3, COUNT)),
            cloud_factors=np.exp(rng.normal(0, 0.3, COUNT)),
            hops_ms=rng.uniform(0, 4, COUNT),
            trace=Trace("stalls", 0.5, rng.exponential(1.0, 30) ** 3 * 2e4),
            round_trip_ms=9.0,
            edge_slowdown=1.3,
        )
        classes = (SloClass(name="all", deadline_ms=100),)
        fuses = system[0].fuses
        setting = Setting(PROFILE, outcomes, classes, decision, fuses=fuses, **told)
        cluster = Cluster(setting, [site])
        cluster.advance(np.inf)
        rows, records = cluster.requests, serve(system, setting, site, image[0].numpy())
        assert [STATUSES[status] for status in rows[:, at.STATUS]] == [r.status for r in records]
        totals_ms = [record.total_ms for record in records]
        assert rows[:, at.TOTAL] == pytest.approx(totals_ms, abs=1e-6)
        seen_too = seen(rows)
        for name in SEEN.names:
            served = [float(getattr(record, name)) for record in records]
            if name == "entropy":  # logits cross the link as half floats, and no answer is unsure
                served = [r.entropy if r.exit else 0.0 for r in records]
                assert seen_too[name] == pytest.approx(served, abs=3e-3), name
            else:
                assert seen_too[name] == pytest.approx(served, rel=1e-6, abs=1e-6), name
        crossed = seen_too["link_bps"] > 0
        sizes = [record.frame_bytes for record in records]
        assert rows[:, at.BYTES][crossed] == pytest.approx(np.array(sizes)[crossed])
        assert len(set(rows[:, at.STATUS])) > 1
        return rows

    return compare


LEAVING = pytest.mark.parametrize("leave_at", [None, 2, 3])


@LEAVING
@pytest.mark.parametrize(
    ("partition", "level"),
    [(0, 4), (1, 4), (2, 5), (2, 6), (3, 5), (4, 0), (1, LEVELS), (3, LEVELS)],
)
def test_a_request_alone_goes_as_it_is_served(compare, network, ladder, partition, level, leave_at):
    """The router's own code says the same of every request as the simulator."""
    compare((network, ladder), partition, level, leave_at)


@LEAVING
@pytest.mark.parametrize("partition", range(5))
def test_so_it_does_where_the_edge_goes_on(compare, plain_network, partition, leave_at):
    """While every frame is in flight, as SPINN's does, and the surest exit answers."""
    shapes = {block: plain_network.carry_shape(block) for block in range(1, 4)}
    ladder = OneLevel(dict.fromkeys(shapes, FLOAT32), shapes)
    told = {"goes_on": True, "reroutes": False, "answers": "surest"}
    compare((plain_network, ladder), partition, 0, leave_at, **told)


TOLD = pytest.mark.parametrize("best_effort", [True, False])
WHICH = pytest.mark.parametrize("answers", ["last", "surest"])


@TOLD
@WHICH
@pytest.mark.parametrize(("partition", "level"), [(0, 4), (2, 5), (3, 6), (4, 0), (2, LEVELS)])
def test_so_it_does_where_the_site_is_told_other_things(
    compare, network, ladder, partition, level, best_effort, answers
):
    """No unsure exit may answer, or the surest one does."""
    told = {"best_effort": best_effort, "answers": answers}
    rows = compare((network, ladder), partition, level, None, **told)
    assert best_effort or not (rows[:, at.STATUS] == at.BEST_EFFORT).any()


@TOLD
@WHICH
@LEAVING
@pytest.mark.parametrize("partition", range(5))
def test_so_it_does_with_a_plain_network_of_few_exits(
    compare, plain_network, partition, leave_at, best_effort, answers
):
    """Exits 2 and 4 alone: frames hold no logits, and at a partition there may be none in hand."""
    shapes = {block: plain_network.carry_shape(block) for block in range(1, 4)}
    ladder = OneLevel(dict.fromkeys(shapes, FLOAT32), shapes)
    told = {"best_effort": best_effort, "answers": answers}
    rows = compare((plain_network, ladder), partition, 0, leave_at, **told)
    assert set(rows[:, at.EXIT]) <= {0, 2, 4}
