"""The edge's executor with requests that may be stopped at any time."""

import asyncio
import threading
from dataclasses import replace

import pytest
import torch

from deployments.args import SiteArgs
from deployments.edge import EdgeExecutor
from xpi_ray.elastic import planner
from xpi_ray.elastic.stop_times import StopTimes
from xpi_ray.errors import NotFoundError
from xpi_ray.inference.elastic import ElasticEnd
from xpi_ray.policies.plan import Plan

PATIENT = StopTimes.uniform(1e6)


@pytest.fixture
def executor(bundle_folder):
    """An edge whose bundle knows what plans go by."""
    threads = torch.get_num_threads()
    yield EdgeExecutor(SiteArgs(bundle=str(bundle_folder)))
    torch.set_num_threads(threads)


@pytest.fixture
def slow(executor, monkeypatch):
    """Makes the edge's blocks wait until they are let go; they are thought to take long."""
    executor._pace._step_ms[:] = [50.0] * 5
    gate, begun, ran = threading.Semaphore(0), [], []
    for name in ("advance", "skip_exit"):
        run = getattr(executor._network, name)

        def waiting(state, block, run=run):
            begun.append(block)
            assert gate.acquire(timeout=60)
            ran.append(block)
            return run(state, block)

        monkeypatch.setattr(executor._network, name, waiting)
    gate.begun, gate.ran = begun, ran
    return gate


def stream(executor, images):
    return executor.stream(images[0].numpy(), PATIENT, 0.0, "")


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


async def test_exits_come_and_then_the_end(executor, images):
    """A stream gives exits in order, and last how it ended."""
    *exits, end = [part async for part in stream(executor, images)]
    numbers = [part.answer.exit for part in exits]
    assert numbers == sorted(set(numbers))
    assert isinstance(end, ElasticEnd)
    assert end.is_complete
    assert not executor._running


def test_plans_are_compiled_before_the_first_stream(bundle_folder, monkeypatch):
    """Making the edge makes a plan, so no request waits for the compiler."""
    plans = []
    exact = planner._exact
    monkeypatch.setattr(planner, "_exact", lambda *args: plans.append(args) or exact(*args))
    EdgeExecutor(SiteArgs(bundle=str(bundle_folder)))
    assert plans


async def test_an_exit_comes_before_the_next_block_is_done(executor, slow, images):
    """The caller has exit 1 while block 2 runs."""
    parts = stream(executor, images)
    slow.release()
    first = await anext(parts)
    assert first.answer.exit == 1
    for _ in range(3):
        slow.release()
    assert isinstance([part async for part in parts][-1], ElasticEnd)


async def test_who_closes_the_stream_stops_the_compute(executor, slow, images):
    """After the stream is closed no block runs but the one that did, and the edge is free."""
    parts = stream(executor, images)
    slow.release()
    await anext(parts)
    await parts.aclose()
    for _ in range(8):
        slow.release()
    await until(lambda: not executor._turn.locked())
    assert len(slow.ran) <= 2
    assert not executor._running
    assert isinstance([part async for part in stream(executor, images)][-1], ElasticEnd)


async def test_a_pre_emption_ends_streams_at_once(executor, slow, images):
    """It does not wait for the block that runs; what came before stays, and the end tells."""
    parts = stream(executor, images)
    slow.release()
    await anext(parts)
    await until(lambda: executor._preempting is not None)
    assert await executor.preempt() == 1
    (end,) = [part async for part in parts]  # no block was let go
    assert not end.is_complete
    assert end.blocks == 1
    for _ in range(4):
        slow.release()


async def test_a_pre_emption_ends_requests_with_deadlines_too(executor, slow, images):
    """They answer with the exits that they hold."""
    plan = Plan(version=0, partition=4, thresholds=(0.0,) * 4, level=0)
    asking = asyncio.create_task(executor.run(images[0].numpy(), plan, 60_000.0, ""))
    slow.release()
    await until(lambda: slow.begun == [1, 2])
    await until(lambda: executor._preempting is not None)
    assert await executor.preempt() == 1
    reply = await asking
    assert [exit_.exit for exit_ in reply.exits] == [1]
    assert not reply.complete
    assert not reply.frame
    for _ in range(4):
        slow.release()


async def test_nothing_is_pre_empted_where_nothing_runs(executor, images):
    """A pre-emption of an idle edge ends no request, nor a later one."""
    assert await executor.preempt() == 0
    assert [part async for part in stream(executor, images)][-1].is_complete


async def test_streams_take_turns_with_other_requests(executor, images):
    """Ten streams at once all come to their end."""

    async def run():
        return [part async for part in stream(executor, images)][-1]

    ends = await asyncio.gather(*(run() for _ in range(10)))
    assert all(end.is_complete for end in ends)


async def test_a_bundle_without_facts_has_no_elastic_mode(bundle, images, tmp_path):
    """The error says what is missing and what to do."""
    replace(bundle, elastic=None).save(tmp_path)
    executor = EdgeExecutor(SiteArgs(bundle=str(tmp_path)))
    with pytest.raises(NotFoundError, match="xpi train"):
        await anext(stream(executor, images))
