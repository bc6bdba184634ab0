"""What a request takes to each exit from each partition, as profiled: the peers' common model.

    edge's and cloud's Profile, frame sizes ─► Timetable ─ link, slow-downs ─► latency (N + 1, N)

Edgent's Algorithm 1, SPINN's profiler and Neurosurgeon's search all add up the same parts: layers
before the partition on one machine, what crosses, layers behind it on the other. They split behind
layers, the product behind blocks. Queues are in none of them.
"""

import numpy as np
from numpy.typing import NDArray

from xpi_ray.policies.base import Decision
from xpi_ray.profiles.outcomes import Outcomes
from xpi_ray.profiles.table import Profile

Array = NDArray[np.float64]


class Timetable:
    """Times of all plans without compression levels: frames are those of level 0.

    Args:
        edge: Profile of the edge, unloaded.
        cloud: Of the cloud.
        outcomes: Whose mean frame sizes count.
    """

    def __init__(self, edge: Profile, cloud: Profile, outcomes: Outcomes) -> None:
        num_blocks = len(edge.block_ms)
        partitions = np.arange(num_blocks + 1)[:, None]
        exits = np.arange(1, num_blocks + 1)
        crosses = exits > partitions
        at_edge_ms = np.append(0.0, np.cumsum(edge.block_ms))
        in_cloud_ms = np.append(0.0, np.cumsum(cloud.block_ms))
        encoded = crosses & (partitions > 0)  # before block 1 the image itself crosses
        self.edge_ms: Array = at_edge_ms[np.minimum(partitions, exits)] + encoded * edge.encode_ms
        """Work at the edge, (N + 1, N): partition 0..N, exit 1..N."""
        beyond_ms = in_cloud_ms[exits] - in_cloud_ms[np.minimum(partitions, exits)]
        self._cloud_ms = beyond_ms + crosses * cloud.decode_ms
        self._crosses = crosses
        self._bits = np.append(8.0 * outcomes.frame_bytes[0], 0.0)[:, None] * crosses

    def latency_ms(
        self,
        link_bps: float,
        crossing_ms: float,
        edge_slowdown: float = 1.0,
        cloud_slowdown: float = 1.0,
    ) -> Array:
        """Time to each exit, (N + 1, N): partition 0..N, exit 1..N.

        Args:
            link_bps: What the link carries, above 0.
            crossing_ms: What a call to the cloud takes beside sending and work.
            edge_slowdown: Times at the edge over its profile's.
            cloud_slowdown: Likewise in the cloud.
        """
        over_link_ms = self._bits * (1000 / link_bps) + self._crosses * crossing_ms
        work_ms: Array = self.edge_ms * edge_slowdown + self._cloud_ms * cloud_slowdown
        return work_ms + over_link_ms


def leaving_at(exit_: int, partition: int, num_blocks: int) -> Decision:
    """The plan by which every request leaves at one exit: threshold 1 there and 0 elsewhere."""
    thresholds = tuple(float(number == exit_) for number in range(1, num_blocks + 1))
    return Decision(partition, thresholds, 0)


def exits_of(outcomes: Outcomes) -> NDArray[np.intp]:
    """Numbers, 1..N, of the blocks that have an exit."""
    return np.flatnonzero(outcomes.exits) + 1
