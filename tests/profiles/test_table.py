import pytest
from pydantic import ValidationError

from xpi_ray.profiles.table import Profile

SOUND = {
    "machine": "a toaster",
    "threads": 1,
    "block_ms": (1.0, 2.0),
    "encode_ms": 0,
    "decode_ms": 1,
}


def test_a_profile_survives_json():
    """A manifest gives back the profile that was written."""
    profile = Profile(**SOUND)
    assert Profile.model_validate_json(profile.model_dump_json()) == profile


@pytest.mark.parametrize(
    "change", [{"threads": 0}, {"block_ms": ()}, {"encode_ms": -1}, {"decode_ms": -1}, {"ms": 1}]
)
def test_what_no_machine_measures_is_refused(change):
    """No threads, no blocks, negative times and unknown keys are errors."""
    with pytest.raises(ValidationError):
        Profile(**{**SOUND, **change})
