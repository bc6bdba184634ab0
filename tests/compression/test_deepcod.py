"""DeepCOD's encoder, centres and decoder as a codec of one partition's carries."""

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.compression.coders import LzwCoder, pack
from xpi_ray.compression.deepcod import BITS, CENTRES, LZW, PACKED, DeepCod, DeepCodCodec
from xpi_ray.errors import CodecError

SHAPE = (6, 5, 3)
LARGE = (6, 32, 32)


@pytest.fixture(scope="module")
def network():
    """Untrained, with centres spread over its latents and statistics that matter."""
    torch.manual_seed(0)
    network = DeepCod(SHAPE[0], 4)
    with torch.no_grad():
        network.centres.initialise(network.analyse(torch.randn(32, *SHAPE)))
        for part in network.decoder.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.2)
                part.running_var.uniform_(0.1, 0.4)
        for attention in (network.decoder[1], network.decoder[3]):
            attention.share.fill_(0.5)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def codec(network):
    """Of that network."""
    return DeepCodCodec(network)


def carry_of(shape=SHAPE, seed=0):
    """Noise."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def symbols_of(network, carry):
    """What is to be sent of a carry, as training has it: the nearest centre's number."""
    with torch.inference_mode():
        latents = network.analyse(torch.from_numpy(carry)[None])[0]
        distances = (latents[..., None] - network.centres.ascending()).abs()
        return distances.argmin(-1).numpy().astype(np.uint8)


@pytest.mark.parametrize("shape", [SHAPE, (6, 8, 8), (6, 1, 1), (6, 4, 7)])
def test_what_arrives_is_what_training_sees(codec, network, shape):
    """The coder loses nothing: a carry arrives as the network in one call restores it."""
    carry = carry_of(shape)
    arrived = codec.decode(codec.encode(carry), shape)
    with torch.inference_mode():
        expected = network(torch.from_numpy(carry)[None])[0].numpy()
    np.testing.assert_allclose(arrived, expected, rtol=1e-4, atol=1e-4)
    assert arrived.shape == shape
    assert arrived.dtype == np.float32
    assert arrived.flags.writeable


def test_few_symbols_go_at_three_bits_each(codec, network):
    """LZW makes more of them, so they are packed behind their mark."""
    carry = carry_of()
    symbols = symbols_of(network, carry)
    assert symbols.shape == (4, 3, 2)
    assert symbols.max() < CENTRES
    assert codec.encode(carry) == PACKED + pack(symbols, BITS)


def test_symbols_that_repeat_go_through_lzw(codec, network):
    """A flat carry's are few kinds in long runs; they come back all the same."""
    carry = np.zeros(LARGE, np.float32)
    payload, symbols = codec.encode(carry), symbols_of(network, carry)
    assert payload == LZW + LzwCoder().encode(symbols, CENTRES)
    assert len(payload) < len(pack(symbols, BITS))
    with torch.inference_mode():
        expected = network(torch.from_numpy(carry)[None])[0].numpy()
    np.testing.assert_allclose(codec.decode(payload, LARGE), expected, rtol=1e-4, atol=1e-4)


@given(st.integers(0, 2**32 - 1), st.floats(0, 100))
def test_a_payload_is_never_larger_than_packed(codec, seed, amplitude):
    """But for the mark."""
    payload = codec.encode(carry_of(seed=seed) * np.float32(amplitude))
    assert len(payload) <= 1 + (4 * 3 * 2 * BITS + 7) // 8


def test_a_codec_survives_its_arrays(codec):
    """Read again, it sends the same bytes and restores the same carry."""
    again = DeepCodCodec.from_arrays(codec.to_arrays(), SHAPE)
    carry = carry_of()
    payload = codec.encode(carry)
    assert again.encode(carry) == payload
    np.testing.assert_array_equal(again.decode(payload, SHAPE), codec.decode(payload, SHAPE))


def test_the_network_stays_as_it_was():
    """One that is still in training can be judged as a codec."""
    network = DeepCod(6, 2).train()
    DeepCodCodec(network)
    assert network.training
    assert all(weights.requires_grad for weights in network.parameters())


def test_arrays_of_another_form_are_refused(codec):
    """The encoder must read the carry's channels, and all weights must be there and finite."""
    arrays = codec.to_arrays()
    with pytest.raises(RuntimeError, match="size mismatch"):
        DeepCodCodec.from_arrays(arrays, (5, 5, 3))
    with pytest.raises(RuntimeError, match="Missing key"):
        DeepCodCodec.from_arrays({"encoder.bias": arrays["encoder.bias"]}, SHAPE)
    with pytest.raises(KeyError):
        DeepCodCodec.from_arrays({}, SHAPE)
    with pytest.raises(CodecError, match="to leave a channel, got 0"):
        DeepCodCodec.from_arrays({"encoder.bias": np.zeros(0, np.float32)}, SHAPE)
    spoilt = {**arrays, "centres.values": np.full(CENTRES, np.nan, np.float32)}
    with pytest.raises(CodecError, match="finite weights"):
        DeepCodCodec.from_arrays(spoilt, SHAPE)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(codec, bad):
    """One of them is enough."""
    carry = carry_of()
    carry[1, 2, 0] = bad
    with pytest.raises(CodecError, match="finite"):
        codec.encode(carry)


@pytest.mark.parametrize("shape", [SHAPE, LARGE])
def test_every_truncation_is_refused(codec, shape):
    """No prefix of a payload decodes, packed or through LZW."""
    payload = codec.encode(np.zeros(shape, np.float32) if shape == LARGE else carry_of())
    assert payload[:1] == (LZW if shape == LARGE else PACKED)
    for size in range(len(payload)):
        with pytest.raises(CodecError):
            codec.decode(payload[:size], shape)


@given(mark=st.sampled_from([b"", LZW, PACKED]), data=st.binary(max_size=64))
def test_bytes_of_strangers_decode_or_are_refused(codec, mark, data):
    """Random bytes make a finite carry or a CodecError, nothing else."""
    decode_or_refuse(codec, mark + data, SHAPE)


@given(data=st.data())
def test_flipped_bits_decode_or_are_refused(codec, data):
    """So does a good payload with a bit changed, of either kind."""
    shape = data.draw(st.sampled_from([SHAPE, (6, 16, 16)]))
    carry = data.draw(st.sampled_from([carry_of(shape), np.zeros(shape, np.float32)]))
    payload = bytearray(codec.encode(carry))
    place = data.draw(st.integers(0, 8 * len(payload) - 1))
    payload[place // 8] ^= 1 << place % 8
    decode_or_refuse(codec, bytes(payload), shape)


def decode_or_refuse(codec, payload, shape):
    """Check what comes of a stranger's payload."""
    try:
        arrived = codec.decode(payload, shape)
    except CodecError:
        return
    assert arrived.shape == shape
    assert np.isfinite(arrived).all()


@pytest.mark.parametrize("mark", [LZW, PACKED])
def test_huge_shapes_are_refused_by_their_size(codec, mark):
    """A few bytes where billions of symbols are expected are not begun with."""
    with pytest.raises(CodecError, match="expected"):
        codec.decode(mark + bytes(64), (6, 2**20, 2**20))


def test_threads_share_one_codec(network):
    """Encoded and decoded at once in several threads, every carry arrives as in one."""
    codec = DeepCodCodec(copy.deepcopy(network))
    carries = [carry_of((6, 8, 8), seed) for seed in range(48)]

    def cross(carry):
        payload = codec.encode(carry)
        return payload, codec.decode(payload, carry.shape)

    expected = [cross(carry) for carry in carries]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(cross, carries))
    for (payload, arrived), (same, carry) in zip(found, expected, strict=True):
        assert payload == same
        np.testing.assert_array_equal(arrived, carry)
