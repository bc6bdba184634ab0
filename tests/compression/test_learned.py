"""Latents of carries, in segments."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from xpi_ray.compression.learned import ENDS, LEAN, SEGMENTS, LearnedCodec
from xpi_ray.compression.transform import LATENTS
from xpi_ray.errors import CodecError
from xpi_ray.training.packing import carries


@pytest.fixture(scope="module")
def carry(network, images):
    """Of the first block, (12, C, 5, 3)."""
    return carries(network, images)[1]


@pytest.fixture(scope="module")
def transform(transforms):
    """After the first block, with weights of 16 bits."""
    return copy.deepcopy(transforms[1]).half().float()


@pytest.fixture(scope="module")
def codec(transform, carry):
    """Of that transform."""
    return LearnedCodec.fit(transform, carry)


def restored(transform, carry, count):
    """What the first ``count`` latents, rounded with a lean to 0, make of carries."""
    with torch.inference_mode():
        exact = transform.analyse(torch.from_numpy(carry))
        latents = torch.where(exact < 0, -1, 1) * (exact.abs() + 0.5 - LEAN).floor()
        latents[:, count:] = 0
        return transform.synthesise(latents, carry.shape[2:]).numpy()


@pytest.mark.parametrize("segments", range(1, SEGMENTS + 1))
def test_what_arrives_is_made_of_rounded_latents(codec, transform, carry, segments):
    """The coder loses nothing: each carry is the synthesis of the latents that were sent."""
    for each in carry:
        arrived = codec.decode(codec.encode(each, segments))
        expected = restored(transform, each[None], ENDS[segments])[0]
        np.testing.assert_allclose(arrived, expected, atol=1e-3 * np.abs(expected).max())
        assert arrived.flags.writeable


def test_fewer_segments_are_leading_ones(codec, carry):
    """A frame that is cut is the frame that would have been sent for the next level."""
    whole = codec.encode(carry[0], SEGMENTS)
    assert len(whole) == SEGMENTS
    assert codec.encode(carry[0], 1) == whole[:1]


def test_a_codec_survives_its_arrays(codec, carry):
    """Read again, it sends the same bytes and decodes them to the same carry."""
    again = LearnedCodec.from_arrays(codec.to_arrays(), carry.shape[1:])
    for each in carry:
        sent = codec.encode(each, SEGMENTS)
        assert again.encode(each, SEGMENTS) == sent
        np.testing.assert_array_equal(again.decode(sent), codec.decode(sent))


def test_a_codec_of_other_carries_is_refused(codec, carry):
    """The transform must have the carry's channels, the models the latents' shape."""
    with pytest.raises(RuntimeError, match="size mismatch"):
        LearnedCodec.from_arrays(codec.to_arrays(), (3, 5, 3))
    with pytest.raises(CodecError, match=r"expected models .*\(6, 10, 2\)"):
        LearnedCodec.from_arrays(codec.to_arrays(), (carry.shape[1], 20, 3))


@given(st.data())
def test_carries_unlike_any_seen_are_cut(codec, carry, data):
    """Any finite carry can be sent, however large, and what arrives is finite."""
    shape = carry.shape[1:]
    values = st.floats(-(2.0**100), 2.0**100, width=32)
    each = data.draw(arrays(np.float32, shape, elements=values))
    assert np.isfinite(codec.decode(codec.encode(each, SEGMENTS))).all()


def test_values_that_are_not_finite_are_refused(codec, carry):
    """One of them is enough."""
    for value in (np.nan, np.inf):
        broken = carry[0].copy()
        broken[0, 0, 0] = value
        with pytest.raises(CodecError, match="finite"):
            codec.encode(broken, SEGMENTS)


@given(st.lists(st.binary(max_size=64), max_size=4))
def test_bytes_of_strangers_decode_or_are_refused(codec, carry, segments):
    """Random segments make a finite carry or a CodecError, nothing else."""
    try:
        found = codec.decode(segments)
    except CodecError:
        return
    assert found.shape == carry.shape[1:]
    assert np.isfinite(found).all()


def test_all_latents_are_in_a_segment():
    """Segments follow on each other, from the first latent to the last."""
    assert ENDS[0] == 0
    assert ENDS[-1] == LATENTS
    assert list(ENDS) == sorted(set(ENDS))
