"""A cloud behind a slower link than the real one: a stand-in for the way from a real edge.

frame ─► its turn ─► as long as the trace takes to carry it ─► half a round trip ─► the cloud's call

Frames go one after the other, as in the simulator; answers are small and only travel. What the call
takes by itself comes on top.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

from xpi_ray.inference.cloud import CloudReply
from xpi_ray.inference.flow import CloudCall
from xpi_ray.link.traces import Trace


class ShapedCloud:
    """Delays each call by a trace, which begins with the first frame.

    Args:
        cloud: The call behind the link.
        trace: What the link carries, moment by moment.
        round_trip_ms: Added to every call, half before it and half after.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        cloud: CloudCall,
        trace: Trace,
        round_trip_ms: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._cloud = cloud
        self._trace = trace
        self._half_s = round_trip_ms / 2000
        self._clock = clock
        self._begun_s: float | None = None
        self._free_s = 0.0

    async def __call__(
        self, frame: bytes, thresholds: Sequence[float], budget_ms: float, traceparent: str
    ) -> CloudReply:
        """Call once the frame would have arrived, and bring the answer back."""
        if self._begun_s is None:
            self._begun_s = self._clock()
        now_s = self._clock() - self._begun_s
        self._free_s = self._trace.delivered_s(max(now_s, self._free_s), len(frame))
        await asyncio.sleep(self._free_s - now_s + self._half_s)
        reply = await self._cloud(frame, thresholds, budget_ms, traceparent)
        await asyncio.sleep(self._half_s)
        return reply
