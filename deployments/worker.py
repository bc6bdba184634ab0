"""The one thread of a replica that computes, beside the event loop that answers.

event loop ─► Worker.run(function) ─► thread with its own number of torch threads ─► result
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


class Worker:
    """Runs functions one after the other; torch's thread count is per calling thread.

    Args:
        threads: Threads that each function's tensor operations may use.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(1, "xpi", torch.set_num_threads, (threads,))

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run ``function`` in the thread and wait for it."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: function(*args, **kwargs))
