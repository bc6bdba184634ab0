import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.profiles.energy import (
    CORE_HZ,
    CORE_W,
    K0,
    TRANSMIT_W,
    compute_j,
    edge_energy_j,
    transmission_j,
)
from xpi_ray.profiles.table import Profile

PROFILE = Profile(machine="a toaster", threads=1, block_ms=(3, 5, 2), encode_ms=4, decode_ms=1)


def test_a_core_that_computes_draws_its_watts():
    """Equation 1 over a second of blocks is the power that its constant was made from."""
    assert compute_j(PROFILE, 3) == pytest.approx(CORE_W * 0.010)
    assert pytest.approx(0.925) == CORE_W
    assert pytest.approx(2.74e-28, rel=0.01) == K0


def test_compute_is_a_sum_over_layers():
    """Equation 1 by hand: k0 f² times each block's cycles."""
    cycles = [CORE_HZ * ms / 1000 for ms in PROFILE.block_ms]
    for blocks in range(4):
        assert compute_j(PROFILE, blocks) == pytest.approx(
            sum(K0 * CORE_HZ**2 * each for each in cycles[:blocks])
        )


def test_sending_takes_power_for_as_long_as_it_lasts():
    """Equation 2: a megabyte over 8 Mbit/s is a second at the transmitter's power."""
    assert transmission_j(1e6, 8e6) == pytest.approx(TRANSMIT_W)
    assert transmission_j(0, 8e6) == 0


@given(
    blocks=st.integers(0, 3),
    frame_bytes=st.floats(0, 1e6),
    bandwidth_bps=st.floats(1e3, 1e9),
    factor=st.floats(1, 50),
)
def test_a_request_costs_both(blocks, frame_bytes, bandwidth_bps, factor):
    """Equation 3; a carry is encoded only where one is sent, and a weaker edge pays more."""
    whole = edge_energy_j(PROFILE, blocks, frame_bytes, bandwidth_bps)
    encoding = CORE_W * PROFILE.encode_ms / 1000 if blocks and frame_bytes else 0
    parts = (compute_j(PROFILE, blocks), encoding, transmission_j(frame_bytes, bandwidth_bps))
    assert whole == pytest.approx(sum(parts))
    weaker = PROFILE.slowed(factor)
    assert edge_energy_j(weaker, blocks, frame_bytes, bandwidth_bps) >= whole * (1 - 1e-9)


def test_threads_are_cores():
    """Two cores for the same time take twice the energy."""
    two = PROFILE.model_copy(update={"threads": 2})
    assert compute_j(two, 2) == pytest.approx(2 * compute_j(PROFILE, 2))
