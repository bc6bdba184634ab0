"""Two machines, their timetable, and outcomes of a network with exits after some blocks only."""

import pytest

from xpi_ray.policies.timetable import Timetable
from xpi_ray.profiles.table import Profile


@pytest.fixture(scope="session")
def edge():
    """The edge's profile."""
    return Profile(
        machine="a toaster", threads=1, block_ms=(9.0, 5.0, 8.0, 6.0), encode_ms=2.0, decode_ms=3.0
    )


@pytest.fixture(scope="session")
def cloud():
    """The cloud's profile."""
    return Profile(
        machine="an oven", threads=1, block_ms=(1.0, 2.0, 3.0, 2.0), encode_ms=0.5, decode_ms=0.25
    )


@pytest.fixture(scope="session")
def make_sparse(make_outcomes):
    """Makes outcomes where block 1 has no exit."""

    def make(seed):
        outcomes = make_outcomes(seed)
        entropy, correct = outcomes.entropy.copy(), outcomes.correct.copy()
        resumed_entropy = outcomes.resumed_entropy.copy()
        resumed_correct = outcomes.resumed_correct.copy()
        entropy[:, 0], resumed_entropy[..., 0] = 2.0, 2.0
        correct[:, 0], resumed_correct[..., 0] = False, False
        return outcomes._replace(
            entropy=entropy,
            correct=correct,
            resumed_entropy=resumed_entropy,
            resumed_correct=resumed_correct,
        )

    return make


@pytest.fixture(scope="session")
def make_timetable(edge, cloud):
    """Makes the timetable of both machines."""

    def make(outcomes):
        return Timetable(edge, cloud, outcomes)

    return make


@pytest.fixture(scope="session")
def latency_ms(edge, cloud):
    """Adds up, block by block, what a request takes that leaves at an exit."""

    def add(outcomes, partition, exit_, link_bps, crossing_ms, slow_edge=1.0, slow_cloud=1.0):
        total = 0.0
        for block in range(1, exit_ + 1):
            if block == partition + 1:
                if partition:
                    total += edge.encode_ms * slow_edge
                total += crossing_ms + float(outcomes.frame_bytes[0, partition]) * 8e3 / link_bps
                total += cloud.decode_ms * slow_cloud
            if block <= partition:
                total += edge.block_ms[block - 1] * slow_edge
            else:
                total += cloud.block_ms[block - 1] * slow_cloud
        return total

    return add
