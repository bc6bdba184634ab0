import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.compression.layered import COARSEST, REFINEMENTS, LayeredCodec
from xpi_ray.errors import CodecError

SHAPE = (6, 5, 4)
LAYERS = 1 + REFINEMENTS


def carries(count=40, shape=SHAPE, seed=0):
    """Carries that are alike in space and across channels, half of their values zero."""
    rng = np.random.default_rng(seed)
    rough = rng.normal(size=(count, shape[0], shape[1] + 1, shape[2] + 1))
    smooth = rough[..., 1:, 1:] + rough[..., :-1, 1:] + rough[..., 1:, :-1]
    smooth[:, 1:] += smooth[:, :-1]
    return smooth.clip(0).astype(np.float32)


@pytest.fixture(scope="module")
def codec():
    """One that was fitted to such carries and read again from its arrays."""
    return LayeredCodec.from_arrays(LayeredCodec.fit(carries()).to_arrays())


def step_of(layers):
    """The step of the finest of so many layers."""
    return (
        COARSEST * float(np.sqrt(np.square(carries(), dtype=np.float64).mean())) / 3 ** (layers - 1)
    )


@pytest.mark.parametrize("layers", range(1, LAYERS + 1))
def test_an_error_is_at_most_half_a_step(codec, layers):
    """With every layer the step is a third, and no value is further off than half of it."""
    for carry in carries(5, seed=1):
        arrived = codec.decode(codec.encode(carry, layers))
        assert arrived.dtype == np.float32
        assert np.abs(arrived - carry).max() <= step_of(layers) / 2 * (1 + 1e-5)


def test_fewer_layers_are_the_first_of_more(codec):
    """What is sent at a coarse level begins what is sent at a finer one, but for values halfway."""
    carry = carries(1, seed=2)[0]
    finest = codec.encode(carry, LAYERS)
    for layers in range(1, LAYERS):
        assert codec.encode(carry, layers) == finest[: 2 * layers - 1]


def test_any_leading_segments_make_a_carry(codec):
    """Each further half of the channels brings the carry closer; no prefix is useless."""
    carry = carries(1, seed=3)[0]
    segments = codec.encode(carry, LAYERS)
    errors = [
        np.square(codec.decode(segments[:count]) - carry).mean()
        for count in range(1, len(segments) + 1)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 1000


def test_half_a_layer_refines_half_of_the_channels(codec):
    """The first half of the channels is as with the layer, the others as without it."""
    segments = codec.encode(carries(1, seed=4)[0], 3)
    half, coarse, fine = (codec.decode(segments[:count]) for count in (4, 3, 5))
    assert (half[:3] == fine[:3]).all()
    assert (half[3:] == coarse[3:]).all()


def test_layers_cost_no_more_than_half_again_their_entropy(codec):
    """Bytes grow with the layers, and known carries take less than one bit for each digit of 3."""
    sizes = [
        np.mean([sum(map(len, codec.encode(each, layers))) for each in carries()])
        for layers in range(1, LAYERS + 1)
    ]
    assert sizes == sorted(sizes)
    digits = np.prod(SHAPE)
    assert np.diff(sizes).max() < digits * np.log2(3) / 8 + 2 * 8  # two words for each half


@given(
    carry=npst.arrays(
        np.float32, SHAPE, elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_nan=False)
    ),
    layers=st.integers(1, LAYERS),
)
def test_any_finite_carry_comes_back_within_the_range(codec, carry, layers):
    """Values beyond twice what training held are cut; all others are half a step off at most."""
    arrived = codec.decode(codec.encode(carry, layers))
    lowest, highest = arrived.min(), arrived.max()
    inside = (carry >= lowest) & (carry <= highest)
    assert (np.abs(arrived - carry)[inside] <= step_of(layers) / 2 * (1 + 1e-5)).all()
    assert np.abs(arrived).max() < 100


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(codec, bad):
    """A carry with NaN or infinity is not encoded."""
    carry = np.zeros(SHAPE, np.float32)
    carry[1, 2, 3] = bad
    with pytest.raises(CodecError, match="finite"):
        codec.encode(carry, 1)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 4, 4), (2, 1, 7), (7, 3, 1)])
def test_small_shapes_come_back(shape):
    """One channel, one row, one position: whatever there is, is coded."""
    codec = LayeredCodec.fit(carries(20, shape))
    carry = carries(1, shape, seed=5)[0]
    segments = codec.encode(carry, LAYERS)
    assert np.abs(codec.decode(segments) - carry).max() < 0.2


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5])
def test_constant_carries_come_back(value):
    """Training carries that never differ make a codec too."""
    same = np.full((4, *SHAPE), value, np.float32)
    codec = LayeredCodec.fit(same)
    arrived = codec.decode(codec.encode(same[0], LAYERS))
    assert arrived == pytest.approx(same[0], abs=0.02 * max(abs(value), 1))


@given(segments=st.lists(st.binary(max_size=60), max_size=12))
def test_random_segments_decode_or_are_refused(codec, segments):
    """Whatever bytes come, there is a carry of the right shape or CodecError."""
    try:
        arrived = codec.decode(segments)
    except CodecError:
        return
    assert arrived.shape == SHAPE
    assert np.isfinite(arrived).all()


def test_models_of_another_shape_are_refused(codec):
    """A ladder from a damaged bundle does not load."""
    arrays = codec.to_arrays()
    other = LayeredCodec.fit(carries(10, (3, 5, 4))).to_arrays()
    mixed = {**arrays, **{key: other[key] for key in other if key.startswith("2.")}}
    with pytest.raises(CodecError, match="one shape"):
        LayeredCodec.from_arrays(mixed)
    with pytest.raises(CodecError, match="step"):
        LayeredCodec.from_arrays({**arrays, "step": np.array([0.0])})
