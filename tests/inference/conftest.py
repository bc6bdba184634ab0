"""The small network's edge and cloud, and time that passes only when a block runs."""

import asyncio
import re

import numpy as np
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from xpi_ray.compression.ladder import LEVELS
from xpi_ray.compression.one_level import FLOAT32, OneLevel
from xpi_ray.errors import DeadlineError, OverloadError, UnavailableError
from xpi_ray.inference.budget import Budget
from xpi_ray.inference.cloud import CloudSide
from xpi_ray.inference.edge import EdgeSide, Rest
from xpi_ray.inference.flow import Flow
from xpi_ray.inference.pace import Pace
from xpi_ray.networks.progressive import ProgressiveNetwork
from xpi_ray.policies.plan import Plan
from xpi_ray.telemetry.tracing import Tracing

DIGEST = b"8 bytes."
NEVER_TRUSTED = np.zeros((LEVELS, 4), np.bool_)


class Ticking(ProgressiveNetwork):
    """A network each of whose blocks takes the same time of a fake clock."""

    def __init__(self, network, clock, block_ms):
        super().__init__()
        self.network, self.clock, self.block_ms = network, clock, block_ms
        self.num_classes, self.image_size = network.num_classes, network.image_size
        self.fuses = network.fuses
        self.ran = []
        """(block, batch size) of each call."""

    @property
    def num_blocks(self):
        """As in the wrapped network."""
        return self.network.num_blocks

    def carry_shape(self, partition):
        """As in the wrapped network."""
        return self.network.carry_shape(partition)

    def advance(self, state, block):
        """Run the block and let its time pass."""
        self.ran.append((block, len(state.carry)))
        self.clock.sleep_ms(self.block_ms)
        return self.network.advance(state, block)


@pytest.fixture(scope="session")
def plain_ladder(plain_network):
    """Sends the plain network's carries as they are."""
    shapes = {partition: plain_network.carry_shape(partition) for partition in range(1, 4)}
    return OneLevel(dict.fromkeys(shapes, FLOAT32), shapes)


@pytest.fixture
def ticking(network, clock):
    """The small network; each block takes 10 ms of the fake clock."""
    return Ticking(network, clock, 10.0)


@pytest.fixture
def edge(ticking, ladder):
    """An edge that expects a little less than 10 ms of each block."""
    return EdgeSide(ticking, ladder, DIGEST, Pace([9.0] * 4))


@pytest.fixture
def plain_ticking(plain_network, clock):
    """The plain network likewise."""
    return Ticking(plain_network, clock, 10.0)


@pytest.fixture
def plain_edge(plain_ticking, plain_ladder):
    """An edge of the plain network."""
    return EdgeSide(plain_ticking, plain_ladder, DIGEST, Pace([9.0] * 4))


@pytest.fixture
def plain_cloud(plain_ticking, plain_ladder):
    """A cloud of the plain network, told to trust a surer edge wherever it knows of one."""
    trusted = np.ones((1, 4), np.bool_)
    return CloudSide(plain_ticking, plain_ladder, DIGEST, Pace([9.0] * 4), trusted)


@pytest.fixture
def make_cloud(ticking, ladder):
    """Makes a cloud that expects a little less than 10 ms of each block."""

    def make(max_batch=8, edge_trusted=NEVER_TRUSTED):
        return CloudSide(ticking, ladder, DIGEST, Pace([9.0] * 4), edge_trusted, max_batch)

    return make


@pytest.fixture
def cloud(make_cloud):
    """A cloud with nothing to do."""
    return make_cloud()


@pytest.fixture(scope="session")
def make_plan():
    """Makes a plan that leaves at one exit and no other, or at none before the last."""

    def make(partition, leave_at=None, level=0):
        thresholds = tuple(1.0 if exit_ == leave_at else 0.0 for exit_ in range(1, 5))
        return Plan(version=3, partition=partition, thresholds=thresholds, level=level)

    return make


@pytest.fixture(scope="session")
def pixels(images):
    """One image, uint8 (3, 10, 6)."""
    return images[0].numpy()


@pytest.fixture(scope="session")
def check_refusal():
    """What holds where no exit answers: the error, and what its record tells."""
    statuses = {
        DeadlineError: "missed",
        OverloadError: "overloaded",
        UnavailableError: "unavailable",
    }

    def check(answer, error, message):
        assert type(answer.error) is error
        assert re.search(message, str(answer.error))
        record = answer.record("r-1", "toy", "tight")
        assert (record.status, record.exit, record.tier) == (statuses[error], 0, "")
        assert record.total_ms + record.budget_left_ms == pytest.approx(record.deadline_ms, abs=1)

    return check


class Tiers:
    """A real edge and a real cloud in this process, which can be told to fail or to dawdle."""

    def __init__(self, network, ladder):
        self.edge_side = EdgeSide(network, ladder, DIGEST, Pace([0.01] * 4))
        self.trusted = np.zeros((ladder.levels, 4), np.bool_)
        self.cloud_side = CloudSide(network, ladder, DIGEST, Pace([0.01] * 4), self.trusted)
        self.fault = {"edge": None, "cloud": None}
        """An error to raise, or seconds to wait first."""
        self.budgets_ms = {"edge": [], "cloud": []}
        """What each call was given."""
        self.asked = []
        """(tier, traceparent) of each call."""
        self.frames = []
        self.given_up = []
        """Tiers whose call was taken back."""
        self.beyond = None
        """Blocks that the edge comes to while a frame is in flight, if it goes on then."""

    async def edge(self, pixels, plan, budget_ms, traceparent, way):
        """Run blocks 1..p."""
        self.budgets_ms["edge"].append(budget_ms)
        await self.meet("edge", traceparent)
        run = self.edge_side.start(pixels, plan, Budget(budget_ms))
        if not way.crosses:
            run.go_on()
        while run.step():
            pass
        reply = run.reply()
        return reply if self.beyond is None else reply._replace(rest=self.rest(run))

    def begin(self, pixels, plan, budget_ms):
        """Run blocks from the first one on while the image is in flight."""
        return self.rest(self.edge_side.start(pixels, plan, Budget(budget_ms)))

    def rest(self, run):
        """The blocks behind the partition."""
        run.go_on()

        async def go_on():
            for _ in range(self.beyond):
                await asyncio.sleep(0)
                if not run.step():
                    return
            await asyncio.sleep(3_600)

        return Rest(go_on, run.reply)

    async def cloud(self, frame, thresholds, budget_ms, traceparent):
        """Run blocks p+1..N."""
        self.frames.append(frame)
        self.budgets_ms["cloud"].append(budget_ms)
        await self.meet("cloud", traceparent)
        budget = Budget(budget_ms)
        job = self.cloud_side.admit(frame, thresholds, budget)
        while self.cloud_side.waiting:
            batch = self.cloud_side.pick()
            self.cloud_side.advance(batch)
            self.cloud_side.settle(batch)
        return job.reply()

    async def meet(self, tier, traceparent):
        """Let the fault happen."""
        self.asked.append((tier, traceparent))
        fault = self.fault[tier]
        if isinstance(fault, Exception):
            raise fault
        try:
            await asyncio.sleep(fault or 0)
        except asyncio.CancelledError:
            self.given_up.append(tier)
            raise


@pytest.fixture
def exporter():
    """Keep spans in memory."""
    return InMemorySpanExporter()


@pytest.fixture
def tiers(network, ladder):
    """Edge and cloud, both well."""
    return Tiers(network, ladder)


@pytest.fixture
def plain_tiers(plain_network, plain_ladder):
    """Likewise, of the plain network."""
    return Tiers(plain_network, plain_ladder)


@pytest.fixture
def tracing(exporter):
    """Trace into memory."""
    tracing = Tracing("router", exporter)
    yield tracing
    tracing.close()


@pytest.fixture
def flow(tiers, tracing):
    """The router's side of a request."""
    return Flow(tiers.edge, tiers.cloud, DIGEST, tracing)
