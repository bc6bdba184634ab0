import pytest

from benchmarks import ablated
from xpi_ray.bundle import Bundle
from xpi_ray.compression.ladder import LAYERS


@pytest.fixture(scope="module")
def whole():
    """The packaged bundle, with learned levels and a learned policy."""
    return Bundle.load("cifar10")


@pytest.mark.parametrize("part", ablated.MADE)
def test_a_bundle_without_a_part_can_be_served(whole, part, tmp_path):
    """It holds together once it was saved, with the same weights and a policy that fits it."""
    ablated.MADE[part](whole).save(tmp_path)
    found = Bundle.load(tmp_path)
    weights = found.network.state_dict()
    assert all((weights[name] == each).all() for name, each in whole.network.state_dict().items())
    profile = found.manifest.profiles["default"]
    policy = ablated.from_bytes(found.policy, profile, found.candidates())
    plans = [each.decision for each in policy.viewer.candidates]
    if part == "learned_compression":
        assert found.ladder.levels == len(found.outcomes.frame_bytes) == LAYERS
        assert all(plan.level <= LAYERS for plan in plans)  # that many is the image itself
        assert found.thresholds() == whole.thresholds()
    elif part == "images":
        assert not any(each.sends_image for each in policy.viewer.candidates)
        assert found.thresholds() == whole.thresholds()
    else:
        assert {threshold for plan in plans for threshold in plan.thresholds} == {0.0}
        assert set(found.manifest.static_plan.thresholds) == {0.0}
