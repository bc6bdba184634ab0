import pytest

from benchmarks.peers import MADE, exits_at, rescaled
from benchmarks.systems import PEERS, XPI
from xpi_ray.profiles.table import Profile


def test_every_peer_has_its_bundle():
    """What systems are deployed with is what is made, and nothing else."""
    assert {wiring.bundle for name, wiring in PEERS.items() if name != XPI} == set(MADE)


@pytest.mark.parametrize(
    ("shares", "exits"), [((), []), ((0.15, 0.9), [1, 3]), ((0.5, 0.55), [2]), ((0.0, 1.0), [1, 3])]
)
def test_exits_are_nearest_to_their_shares(shares, exits):
    """The last block is none of them, as it has an exit anyway; two shares may have one."""
    assert exits_at([10, 50, 80, 100], shares) == exits


def test_a_rescaled_profile_is_the_other_machines_own():
    """Every time is longer, and it says of itself that it is no stand-in for a slower one."""
    profile = Profile(machine="here", threads=1, block_ms=(1.0, 2.0), encode_ms=3.0, decode_ms=4.0)
    found = rescaled(profile, 2.0, "there")
    assert (found.machine, found.slowdown) == ("there", 1.0)
    assert (found.block_ms, found.encode_ms, found.decode_ms) == ((2.0, 4.0), 6.0, 8.0)
