"""The edge's executor in the router's process: requests in turn, and what may run between them."""

import asyncio
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from deployments.args import SiteArgs
from deployments.edge import EdgeExecutor
from xpi_ray.inference.edge import Way
from xpi_ray.policies.plan import Plan

AMPLE_MS = 60_000.0
GOES_ON = Way(goes_on=True)


@pytest.fixture
def executor(bundle_folder):
    """An edge that goes on while frames are in flight."""
    threads = torch.get_num_threads()
    yield EdgeExecutor(SiteArgs(bundle=str(bundle_folder)))
    torch.set_num_threads(threads)


@pytest.fixture
def ask(images):
    """Runs a request that is never sure; it splits after block 2 if not told otherwise."""

    async def ask(executor, partition=2, way=GOES_ON):
        plan = Plan(version=0, partition=partition, thresholds=(0.0,) * 4, level=0)
        return await executor.run(images[0].numpy(), plan, AMPLE_MS, "", way)

    return ask


async def moments(count=50):
    """Let everything run that can."""
    for _ in range(count):
        await asyncio.sleep(0.001)


async def test_an_answer_leaves_before_the_next_blocks_begin(executor, ask, monkeypatch):
    """What follows a reply on the event loop, a few turns long, comes before another's blocks."""
    network, happened = executor._side._network, []
    advance = network.advance

    def recorded(state, block):
        happened.append(block)
        return advance(state, block)

    monkeypatch.setattr(network, "advance", recorded)

    async def answer(name):
        await ask(executor, partition=4)
        for _ in range(4):
            await asyncio.sleep(0)
        happened.append(name)

    await asyncio.gather(answer("first"), answer("second"))
    assert happened == [1, 2, 3, 4, "first", 1, 2, 3, 4, "second"]


@pytest.fixture
def slow(executor, monkeypatch):
    """An edge that expects blocks to take long; they wait until the loop lets them go."""
    executor._side._pace._step_ms[:] = [50.0] * 5
    advance, gate, ran = executor._side._network.advance, threading.Semaphore(0), []

    def waiting(state, block):
        assert gate.acquire(timeout=60)
        ran.append(block)
        return advance(state, block)

    monkeypatch.setattr(executor._side._network, "advance", waiting)
    return SimpleNamespace(executor=executor, gate=gate, ran=ran)


async def test_long_blocks_leave_the_loop_free(slow, ask):
    """They would wait for ever if the loop that lets them go waited for them."""
    request = asyncio.ensure_future(ask(slow.executor, partition=4))
    for block in range(1, 5):
        slow.gate.release()
        while len(slow.ran) < block:
            await moments(1)
    reply = await request
    assert (reply.blocks, reply.complete) == (4, True)


async def test_a_block_that_is_not_done_in_time_is_not_waited_for(slow, images):
    """The exits before it answer; the next request begins when it is done."""
    plan = Plan(version=0, partition=4, thresholds=(0.0,) * 4, level=0)
    slow.gate.release()
    reply = await slow.executor.run(images[0].numpy(), plan, 300.0, "")
    assert [exit_.exit for exit_ in reply.exits] == slow.ran == [1]
    assert (reply.blocks, reply.complete, reply.frame) == (1, False, b"")
    assert 0 <= reply.overrun_ms < reply.wait_ms
    next_one = asyncio.ensure_future(slow.executor.run(images[0].numpy(), plan, AMPLE_MS, ""))
    await moments(5)
    assert slow.ran == [1]
    slow.gate.release(5)
    assert (await next_one).complete
    assert slow.ran == [1, 2, 1, 2, 3, 4]


async def test_a_frame_that_is_not_made_in_time_is_left_out(slow, ask, images, monkeypatch):
    """The edge's exits answer, and the next request gets its turn after that."""
    plan = Plan(version=0, partition=2, thresholds=(0.0,) * 4, level=0)
    ladder, begins = slow.executor._side._ladder, threading.Event()
    encode = ladder.encode
    monkeypatch.setattr(ladder, "encode", lambda *each: begins.wait(60) and encode(*each))
    slow.gate.release(4)
    reply = await slow.executor.run(images[0].numpy(), plan, 300.0, "")
    assert (reply.blocks, reply.complete, reply.frame) == (2, False, b"")
    begins.set()
    assert (await ask(slow.executor)).frame


async def test_what_must_not_cross_goes_on_here(slow, images):
    """To the last block if nobody else is here; else the next one's turn comes after block p."""
    plan = Plan(version=0, partition=2, thresholds=(0.0,) * 4, level=0)
    requests = [
        asyncio.ensure_future(
            slow.executor.run(images[0].numpy(), plan, AMPLE_MS, "", Way(crosses=False))
        )
        for _ in range(2)
    ]
    await moments(5)
    slow.gate.release(8)
    replies = [await each for each in requests]
    assert [(each.blocks, each.complete) for each in replies] == [(2, False), (4, True)]
    assert not any(each.crosses for each in replies)


async def test_it_goes_on_only_where_a_frame_is_in_flight(executor, ask):
    """And only if it is told to; what goes to another process never has more to run."""
    assert (await ask(executor)).rest is not None
    assert (await ask(executor, partition=4)).rest is None
    assert (await ask(executor, way=Way())).rest is None


async def test_later_blocks_run_while_nobody_is_here(executor, ask):
    """To the last one, and the reply tells of all."""
    first = await ask(executor)
    await first.rest.go_on()
    reply = first.rest.reply()
    assert (reply.blocks, reply.complete, reply.frame) == (4, True, b"")
    assert reply.exits[:2] == first.exits
    assert reply.edge_ms > first.edge_ms


async def test_a_request_may_begin_while_its_image_is_in_flight(executor, images):
    """Then all of its blocks are such that others come before."""
    plan = Plan(version=0, partition=0, thresholds=(0.0,) * 4, level=0)
    rest = executor.begin(images[0].numpy(), plan, AMPLE_MS)
    assert rest.reply().blocks == 0
    await rest.go_on()
    assert (rest.reply().blocks, rest.reply().complete) == (4, True)


async def test_no_block_begins_that_would_be_late(executor, images):
    """The budget is looked at before each, as at every block."""
    plan = Plan(version=0, partition=0, thresholds=(0.0,) * 4, level=0)
    rest = executor.begin(images[0].numpy(), plan, 0.0)
    await rest.go_on()
    assert rest.reply().blocks == 0


async def test_later_blocks_wait_for_other_requests(executor, ask):
    """As long as one is here, at work or waiting, none runs; then they go on."""
    rest = (await ask(executor)).rest
    async with executor._turn:  # as if a request were at work
        other = asyncio.ensure_future(ask(executor))
        await moments(1)
        going = asyncio.ensure_future(rest.go_on())
        await moments()
        assert rest.reply().blocks == 2
        assert not other.done()
    assert (await other).blocks == 2
    await going
    assert rest.reply().blocks == 4


async def test_of_several_the_oldest_goes_on_first(executor, ask):
    """Sharing the time would make all of them late; one that is stopped lets the next one on."""
    rests = [(await ask(executor)).rest for _ in range(3)]
    goings = [asyncio.ensure_future(rest.go_on()) for rest in rests]
    while not goings[0].done():
        assert [rest.reply().blocks for rest in rests[1:]] == [2, 2]
        await asyncio.sleep(0)
    goings[1].cancel()
    await goings[2]
    assert [rest.reply().blocks for rest in rests] == [4, 2, 4]
    with pytest.raises(asyncio.CancelledError):
        await goings[1]


async def test_a_request_that_is_given_up_does_not_stand_in_the_way(executor, ask):
    """Nor does one that fails: later blocks of others go on."""
    rest = (await ask(executor)).rest
    async with executor._turn:
        waits = asyncio.ensure_future(ask(executor))
        await moments(1)
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
    with pytest.raises(AttributeError):
        await executor.run(np.zeros((3, 10, 6), np.uint8), None, AMPLE_MS, "")
    await rest.go_on()
    assert rest.reply().blocks == 4
