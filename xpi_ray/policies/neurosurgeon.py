"""Neurosurgeon (ASPLOS'17): the partition of least latency, and no early exit.

    layers' regressions ─► Timetable ─ bandwidth, cloud's load ─► least latency ─► Decision

From the paper: regressions of a layer's time on its shape predict both machines; the cloud's load
stretches its times (the paper's K); the best of all partitions is taken, those at both ends too,
whatever the deadline. From memory, as the text was not at hand: that the load is a factor. Chosen:
what a call takes beside sending counts with the bandwidth, which the paper measures from end to
end; blocks are what it splits between, as the product does.
"""

from xpi_ray.policies.base import Decision
from xpi_ray.policies.observation import Observation
from xpi_ray.policies.plan import SloClass
from xpi_ray.policies.timetable import Timetable


class Neurosurgeon:
    """Least latency to the last exit.

    Args:
        timetable: By the regressions of both machines.
        least_partition: Blocks that must run at the edge; the paper's is 0.
    """

    def __init__(self, timetable: Timetable, least_partition: int = 0) -> None:
        self._timetable = timetable
        self._least = least_partition

    def decide(self, observation: Observation, slo: SloClass) -> Decision:
        """Choose by bandwidth and the cloud's load alone."""
        del slo
        latency_ms = self._timetable.latency_ms(
            observation.link_bps,
            observation.round_trip_ms,
            cloud_slowdown=observation.cloud_slowdown,
        )
        partition = self._least + int(latency_ms[self._least :, -1].argmin())
        return Decision(partition, (0.0,) * latency_ms.shape[1], 0)
