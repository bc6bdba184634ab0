import asyncio
import threading

import pytest
import torch

from deployments.worker import Worker


async def test_functions_run_beside_the_loop():
    """The result comes from another thread, with positional and named arguments."""
    worker = Worker(threads=1)
    here = threading.get_ident()
    there = await worker.run(threading.get_ident)
    assert there != here
    assert await worker.run(threading.get_ident) == there
    assert await worker.run(int, "ff", base=16) == 255


async def test_the_loop_goes_on_meanwhile():
    """A function that waits for the loop does not wait for ever."""
    worker, called = Worker(threads=1), threading.Event()
    running = asyncio.create_task(worker.run(called.wait, 10))
    await asyncio.sleep(0)
    called.set()
    assert await running


async def test_one_at_a_time_in_order_of_arrival():
    """No function begins before the one that came earlier has ended."""
    worker, steps = Worker(threads=1), []

    def step(number):
        steps.append(("begin", number))
        steps.append(("end", number))
        return number

    assert await asyncio.gather(*(worker.run(step, number) for number in range(20))) == [*range(20)]
    assert steps == [(what, number) for number in range(20) for what in ("begin", "end")]


async def test_errors_come_to_the_caller():
    """What a function raises is raised where it was asked for, and the worker goes on."""
    worker = Worker(threads=1)
    with pytest.raises(ZeroDivisionError):
        await worker.run(lambda: 1 / 0)
    assert await worker.run(lambda: 1) == 1


async def test_a_worker_has_its_own_number_of_threads():
    """Two workers of one process compute on as many threads as each was given."""
    one, two = Worker(threads=1), Worker(threads=2)
    assert await two.run(torch.get_num_threads) == 2
    assert await one.run(torch.get_num_threads) == 1
    assert await two.run(torch.get_num_threads) == 2
