import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from xpi_ray.networks.progressive import ProgressiveNetwork, State
from xpi_ray.profiles.layers import Layer, Regressions, layer_profile, measure_layers
from xpi_ray.profiles.measure import count_macs
from xpi_ray.profiles.table import Profile


class Layered(ProgressiveNetwork):
    """Two blocks of known layers."""

    num_classes = 5
    image_size = (8, 6)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.classifier = nn.Linear(4, 5)

    @property
    def num_blocks(self):
        """Two."""
        return 2

    def advance(self, state, block):
        """A strided convolution; then one of groups of one channel, and a classifier."""
        if block == 1:
            features = F.relu(self.conv(state.carry.float()))
            return State(features, features.new_empty((len(features), 0)))
        features = self.depthwise(state.carry)
        pooled = features.mean(dim=(2, 3))
        return State(features[:, :2], self.classifier(pooled))

    def carry_shape(self, partition):
        """Not asked for."""
        raise NotImplementedError


@pytest.fixture(scope="module")
def layered():
    """The network, prepared."""
    torch.manual_seed(0)
    return Layered().prepare()


IMAGES = torch.randint(0, 256, (3, 3, 8, 6), dtype=torch.uint8)


def test_layers_are_told_with_their_papers_features(layered):
    """In order, with their block; views and empty tensors are none."""
    found = measure_layers(layered, IMAGES, repeats=3)
    assert [(layer.block, layer.kind) for layer in found] == [
        (1, "elementwise"),  # to float
        (1, "convolution"),
        (1, "elementwise"),  # relu
        (2, "convolution"),
        (2, "pooling"),
        (2, "dense"),
    ]
    image, half = 3 * 8 * 6, 4 * 4 * 3
    strided, grouped = (3 / 2) ** 2 * 4, 3**2
    assert [layer.features for layer in found] == [
        (image,),
        (image, strided, image * strided),
        (half,),
        (half, grouped, half * grouped),
        (half, 4.0),
        (4.0, 5.0),
    ]
    assert all(layer.ms > 0 for layer in found)


def test_a_convolutions_third_feature_is_its_multiplications(layered):
    """As torch counts them."""
    found = measure_layers(layered, IMAGES, repeats=1)
    products = [layer.features[-1] for layer in found if layer.kind == "convolution"]
    dense = 4 * 5
    assert np.cumsum([products[0], products[1] + dense]).tolist() == count_macs(layered)


def test_regressions_find_what_made_the_times():
    """Times that are linear in the features come back exactly, each kind by itself."""
    rng = np.random.default_rng(0)
    weights = {"convolution": (3e-4, 2e-3, 1e-6, 0.1), "pooling": (1e-3, 5e-3, 0.02)}
    layers = [
        Layer(1, kind, tuple(features), float(np.append(features, 1.0) @ found))
        for kind, found in weights.items()
        for features in rng.uniform(1, 1e4, (12, len(found) - 1))
    ]
    regressions = Regressions(layers)
    for layer in layers:
        assert regressions.predict_ms(layer.kind, layer.features) == pytest.approx(layer.ms)
    with pytest.raises(KeyError):
        regressions.predict_ms("dense", (1.0, 1.0))


def test_no_time_is_predicted_below_zero():
    """A line through falling times ends at 0."""
    layers = [Layer(1, "elementwise", (size,), 10.0 - size) for size in (1.0, 5.0, 9.0)]
    assert Regressions(layers).predict_ms("elementwise", (100.0,)) == 0


def test_a_profile_is_predicted_with_its_error(network, images):
    """Block times are the sums of their layers'; all else stays the measured profile's."""
    measured = Profile(
        machine="a toaster", threads=1, block_ms=(1.0, 2.0, 3.0, 4.0), encode_ms=0.5, decode_ms=0.2
    )
    found = layer_profile(network, images, measured, repeats=3)
    assert len(found.profile.block_ms) == 4
    assert all(ms > 0 for ms in found.profile.block_ms)
    assert found.profile.machine == "a toaster, predicted from layers"
    same = {"threads", "slowdown", "encode_ms", "decode_ms"}
    assert found.profile.model_dump(include=same) == measured.model_dump(include=same)
    expected = np.abs(np.array(found.profile.block_ms) - measured.block_ms).mean() / 2.5
    assert found.block_error == pytest.approx(expected, abs=1e-3)
    assert 0 <= found.layer_error < 10
