import asyncio
import time

import numpy as np
import pytest

from xpi_ray.inference.cloud import CloudReply
from xpi_ray.inference.shaped import ShapedCloud
from xpi_ray.link.traces import Trace

REPLY = CloudReply((), 0, False, False, 0.0, 0.0, 0.0)


class Cloud:
    """Answers at once, and notes when it was asked."""

    def __init__(self, now):
        self.now, self.asked_s = now, []

    async def __call__(self, frame, thresholds, budget_ms, traceparent):
        """Answer."""
        self.asked_s.append(self.now())
        return REPLY


@pytest.fixture
def timed():
    """Seconds since the test began."""
    begun_s = time.perf_counter()
    return lambda: time.perf_counter() - begun_s


async def send(shaped, size):
    return await shaped(bytes(size), (), 1_000.0, "")


async def test_a_frame_takes_as_long_as_the_trace_says(timed):
    """1,000 bytes at 80 kbit/s take 100 ms, and the round trip comes on top."""
    cloud = Cloud(timed)
    shaped = ShapedCloud(cloud, Trace("steady", 1.0, np.array([80e3])), 40.0, timed)
    begun_s = timed()
    assert await send(shaped, 1_000) is REPLY
    assert cloud.asked_s[0] - begun_s >= 0.12
    assert timed() - begun_s >= 0.14


async def test_frames_wait_for_each_other(timed):
    """Three frames sent at once arrive one after the other, in their order."""
    cloud = Cloud(timed)
    shaped = ShapedCloud(cloud, Trace("steady", 1.0, np.array([800e3])), 0.0, timed)
    begun_s = timed()
    await asyncio.gather(*(send(shaped, size) for size in (5_000, 2_000, 3_000)))
    arrived_s = np.array(cloud.asked_s) - begun_s
    assert (arrived_s >= np.array([0.05, 0.07, 0.1]) - 0.001).all()


async def test_a_trace_begins_with_the_first_frame(timed):
    """However late that is: the first second's rate is the first frame's."""
    cloud = Cloud(timed)
    now = lambda: timed() + 3_600.5  # noqa: E731
    shaped = ShapedCloud(cloud, Trace("falling", 1.0, np.array([8e6, 8e3])), 0.0, now)
    begun_s = timed()
    await asyncio.wait_for(send(shaped, 10_000), 0.9)
    assert cloud.asked_s[0] - begun_s >= 0.009
