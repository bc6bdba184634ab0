import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from xpi_ray.profiles.table import Profile

SOUND = {
    "machine": "a toaster",
    "threads": 1,
    "block_ms": (1.0, 2.0),
    "encode_ms": 0,
    "decode_ms": 1,
}
BATCHED = {
    **SOUND,
    "batch_ms": ((1.0, 1.5, 2.5, 5.0, 9.0), (2.0, 4.0, 8.0, 16.0, 15.0)),
    "batch_p95_ms": ((2.0,) * 5, (3.0,) * 5),
}


def test_a_profile_survives_json():
    """A manifest gives back the profile that was written."""
    for profile in (Profile(**SOUND), Profile(**BATCHED), Profile(**BATCHED).slowed(0.3)):
        assert Profile.model_validate_json(profile.model_dump_json()) == profile


@pytest.mark.parametrize(
    "change",
    [
        {"threads": 0},
        {"block_ms": ()},
        {"block_ms": (1.0, math.inf)},
        {"block_ms": (1.0, -1.0)},
        {"encode_ms": -1},
        {"decode_ms": math.nan},
        {"slowdown": 0},
        {"ms": 1},
        {"batch_ms": ()},
        {"batch_p95_ms": ()},
        {"batch_ms": ((1.0,) * 5,)},
        {"batch_p95_ms": ((1.0,) * 5, (1.0,) * 4)},
        {"batch_ms": ((1.0,) * 5, (1.0, 2.0, math.nan, 3.0, 4.0))},
        {"batch_p95_ms": ((1.0,) * 5, (1.0, 2.0, -3.0, 3.0, 4.0))},
    ],
)
def test_what_no_machine_measures_is_refused(change):
    """No threads or blocks, times that are none, rows that do not fit, unknown keys."""
    with pytest.raises(ValidationError):
        Profile(**{**BATCHED, **change})


@pytest.mark.parametrize("measured", [SOUND, BATCHED])
@given(factor=st.floats(0.01, 100))
def test_a_weaker_machine_takes_longer_for_all(measured, factor):
    """Every time has the factor, which it tells; slowed back, it takes what it took."""
    profile = Profile(**measured)
    slowed = profile.slowed(factor)
    for before, after in zip(times(profile), times(slowed), strict=True):
        assert after == pytest.approx(before * factor)
    assert slowed.threads == profile.threads
    assert slowed.slowdown == pytest.approx(factor)
    assert factor == 1 or f"{factor:g} times weaker" in slowed.machine
    assert times(slowed.slowed(1 / slowed.slowdown)) == pytest.approx(times(profile))


def times(profile):
    """All times of a profile in one list."""
    rows = [profile.block_ms, *profile.batch_ms, *profile.batch_p95_ms]
    return [ms for row in rows for ms in row] + [profile.encode_ms, profile.decode_ms]


@pytest.mark.parametrize("factor", [0, -1, math.inf, math.nan])
def test_no_machine_is_that_weak(factor):
    """A factor that is not finite and above 0 is refused."""
    with pytest.raises(ValueError, match="factor above 0"):
        Profile(**SOUND).slowed(factor)


def test_a_stand_in_as_it_is_tells_nothing():
    """The factor 1 changes nothing, the machine's name neither."""
    assert Profile(**BATCHED).slowed(1) == Profile(**BATCHED)


def test_a_batch_takes_what_was_measured():
    """At measured sizes exactly that, between them on a line, and beyond them it goes on."""
    profile = Profile(**BATCHED)
    for block, row in enumerate(profile.batch_ms, start=1):
        for size, ms in zip(Profile.BATCH_SIZES, row, strict=True):
            assert profile.batched_ms(block, size) == pytest.approx(ms)
    assert profile.batched_ms(1, 3) == pytest.approx(2.0)
    assert profile.batched_ms(1, 12) == pytest.approx(7.0)
    assert profile.batched_ms(1, 32) == pytest.approx(17.0)
    assert profile.batched_ms(2, 64) == pytest.approx(15.0)  # quicker with more is noise


@given(images=st.integers(1, 1000))
def test_unmeasured_batches_take_as_long_as_their_images(images):
    """An old bundle's profile has single images only."""
    assert Profile(**SOUND).batched_ms(2, images) == pytest.approx(images * 2.0)


@pytest.mark.parametrize(("block", "images"), [(0, 1), (3, 1), (1, 0), (-1, 4)])
@pytest.mark.parametrize("measured", [SOUND, BATCHED])
def test_no_such_block_or_batch(measured, block, images):
    """Blocks are 1..N and a batch has an image."""
    with pytest.raises(ValueError, match=r"block of 1\.\.2"):
        Profile(**measured).batched_ms(block, images)


@given(total_ms=st.floats(1e-3, 1e5))
def test_a_profile_of_another_machine_is_brought_to_this_one(total_ms):
    """Near its own total it is left alone, else its blocks add up to what they take here."""
    profile = Profile(**BATCHED)
    fitted = profile.fitted(total_ms)
    if 1.01 < total_ms < 8.99:
        assert fitted is profile
    elif not 0.99 < total_ms < 9.01:
        assert sum(fitted.block_ms) == pytest.approx(total_ms)
