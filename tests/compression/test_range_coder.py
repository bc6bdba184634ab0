import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.compression.context_model import ContextModel, lattice, neighbours, steps_of
from xpi_ray.compression.range_coder import RangeCoder
from xpi_ray.compression.symbol_model import Alphabet, ChannelModel, frequencies, to_tables
from xpi_ray.errors import CodecError

MODELS = [ChannelModel, ContextModel]
by_model = pytest.mark.parametrize("kind", MODELS, ids=lambda kind: kind.name)
ALPHABETS = st.sampled_from([2, 3, 8, 16, 17, 40, 256, 4096, 65_536])
SHAPES = st.tuples(*[st.integers(1, 6)] * 3)


def smooth(count=60, shape=(12, 8, 8), alphabet=8, seed=0):
    """Symbols of carries whose neighbours and channels are alike, most of them small."""
    rng = np.random.default_rng(seed)
    height, width = shape[1:]
    noise = rng.normal(size=(count, 3, height + 2, width + 2))
    noise = sum(noise[..., y : y + height, x : x + width] for y in range(3) for x in range(3)) / 3
    mixing = np.random.default_rng(99).normal(size=(shape[0], 3)) / 1.7
    values = np.einsum("ck,nkyx->ncyx", mixing, noise) + 0.2 * rng.normal(size=(count, *shape))
    symbols = np.rint(values.clip(0) * alphabet / 4).clip(0, alphabet - 1)
    return symbols.astype(np.uint8 if alphabet <= 256 else np.uint16)


def entropy_bytes(symbols):
    """Of each channel's own histogram over all samples (n, C, h, w), a sample."""
    total = 0.0
    for channel in symbols.swapaxes(0, 1):
        counts = np.unique(channel, return_counts=True)[1]
        total += (counts * np.log2(counts.sum() / counts)).sum() / 8
    return total / len(symbols)


def mean_bytes(coder, symbols, alphabet):
    return np.mean([len(coder.encode(each, alphabet)) for each in symbols])


@by_model
@given(shape=SHAPES, alphabet=ALPHABETS, data=st.data())
def test_round_trip_is_exact_for_any_carry(kind, shape, alphabet, data):
    """Any symbols come back, those that no training carry had included."""
    dtype = np.uint8 if alphabet <= 256 else np.uint16
    elements = st.integers(0, alphabet - 1)
    model = kind.fit(data.draw(npst.arrays(dtype, (2, *shape), elements=elements)), alphabet)
    coder = RangeCoder(model)
    symbols = data.draw(npst.arrays(dtype, shape, elements=elements))
    decoded = coder.decode(coder.encode(symbols, alphabet), shape, alphabet)
    assert decoded.dtype == dtype
    assert (decoded == symbols).all()


@by_model
@pytest.mark.parametrize("alphabet", [2, 16, 256])
@pytest.mark.parametrize("seen", ["zeros", "ones", "all"])
def test_degenerate_carries_come_back(kind, alphabet, seen):
    """From a model of one symbol or of all: zeros, the highest symbol everywhere, noise."""
    rng, shape = np.random.default_rng(0), (9, 5, 7)
    training = {
        "zeros": np.zeros((3, *shape), np.uint8),
        "ones": np.ones((3, *shape), np.uint8),
        "all": rng.integers(0, alphabet, (3, *shape), np.uint8),
    }[seen]
    coder = RangeCoder(kind.fit(training, alphabet))
    noise = rng.integers(0, alphabet, shape, np.uint8)
    for symbols in (np.zeros(shape, np.uint8), np.full(shape, alphabet - 1, np.uint8), noise):
        data = coder.encode(symbols, alphabet)
        assert (coder.decode(data, shape, alphabet) == symbols).all()


@pytest.mark.parametrize("alphabet", [4, 16, 256])
def test_order_0_meets_the_entropy_of_its_channels(alphabet):
    """Within 2 % and a byte of the histograms' entropy, where model and carries agree."""
    symbols = smooth(200, alphabet=alphabet)
    coder = RangeCoder(ChannelModel.fit(symbols, alphabet))
    bound = entropy_bytes(symbols)
    assert bound < mean_bytes(coder, symbols, alphabet) < 1.02 * bound + 2


@pytest.mark.parametrize(("alphabet", "share"), [(4, 0.85), (16, 0.85), (256, 0.95)])
def test_contexts_go_below_the_entropy_of_order_0(alphabet, share):
    """On other carries than it was fitted to, by a seventh; less with low bits, which are noise."""
    coder = RangeCoder(ContextModel.fit(smooth(400, alphabet=alphabet), alphabet))
    other = smooth(50, alphabet=alphabet, seed=1)
    assert mean_bytes(coder, other, alphabet) < share * entropy_bytes(other)


@pytest.mark.parametrize("alphabet", [4, 16, 256])
def test_noise_costs_little_more_than_its_entropy(alphabet):
    """Where contexts tell nothing they cost at most 2 % and a byte."""
    noise = np.random.default_rng(0).integers(0, alphabet, (300, 8, 8, 8), np.uint8)
    coder = RangeCoder(ContextModel.fit(noise[:250], alphabet))
    bound = noise[0].size * np.log2(alphabet) / 8
    assert mean_bytes(coder, noise[250:], alphabet) < 1.02 * bound + 2


@by_model
def test_arrays_make_the_same_coder(kind):
    """A model from its arrays writes the same bytes, and the arrays are few and small."""
    symbols = smooth()
    model = kind.fit(symbols, 8)
    arrays = model.to_arrays()
    assert sum(array.nbytes for array in arrays.values()) < 3_000
    again = RangeCoder(kind.from_arrays(arrays))
    for each in symbols[:5]:
        assert again.encode(each, 8) == RangeCoder(model).encode(each, 8)


@by_model
def test_damaged_arrays_are_refused(kind):
    """Arrays that are cut, of another type or of another alphabet make no model."""
    arrays = kind.fit(smooth(5), 8).to_arrays()
    for name in arrays.keys() - {"shape"}:
        for wrong in (arrays[name][1:], arrays[name].astype(np.float32)):
            with pytest.raises(CodecError, match="expected"):
                kind.from_arrays(arrays | {name: wrong})
    with pytest.raises(CodecError, match="expected"):
        kind.from_arrays(arrays | {"shape": np.array([12, 8, 8, 9], np.int32)})


@by_model
def test_segments_are_coded_apart(kind):
    """Each part of a carry's channels has a model and is decoded without the others."""
    symbols = smooth()
    for part in (slice(0, 3), slice(3, 12)):
        coder = RangeCoder(kind.fit(symbols[:, part], 8))
        data = coder.encode(symbols[0, part], 8)
        assert (coder.decode(data, symbols[0, part].shape, 8) == symbols[0, part]).all()


def test_a_step_reads_nothing_that_is_not_decoded():
    """Contexts stay when this step's tokens, and those of later ones, become others."""
    model = ContextModel.fit(smooth(shape=(9, 7, 6)), 8)
    rng = np.random.default_rng(0)
    known = np.zeros((9, 43))
    for number, step in enumerate(model.steps):
        future = rng.integers(0, 8, known.shape) * np.append(np.ones(42), 0)
        for earlier in model.steps[:number]:
            place = (earlier.channels, earlier.positions)
            future[place] = known[place]
        assert (model.rows(number, future) == model.rows(number, known)).all()
        here = known[step.channels, step.positions]
        here[...] = rng.integers(0, 8, here.shape)


@given(shape=SHAPES)
def test_steps_take_every_symbol_once(shape):
    """All channels and positions, whatever the shape."""
    seen = np.zeros((shape[0], shape[1] * shape[2]), int)
    for step in steps_of(shape):
        assert seen[step.channels, step.positions].size
        seen[step.channels, step.positions] += 1
    assert (seen == 1).all()
    order = np.concatenate(lattice(*shape[1:]))
    assert sorted(order) == list(range(shape[1] * shape[2]))


def test_neighbours_are_those_beside_before_those_across():
    """Of a 4 x 4 carry, in the last step four beside; in the second those across; 16 is none."""
    order = np.append(np.concatenate(lattice(4, 4)), -1)
    first, second, last = steps_of((1, 4, 4))

    def found(step, position):
        places = neighbours(step, order[:-1], 4)
        column = order[step.positions].tolist().index(position)
        return sorted(order[places[:, column]].tolist())

    assert found(first, 0) == [-1, -1, -1, -1]
    assert found(second, 5) == [0, 2, 8, 10]
    assert found(second, 15) == [-1, -1, -1, 10]
    assert found(last, 6) == [2, 5, 7, 10]
    assert found(last, 3) == [-1, -1, 2, 7]


@given(st.integers(2, 65_536), st.data())
def test_tokens_and_plain_bits_make_every_symbol(size, data):
    """Tokens cut the alphabet into stretches of powers of two, of one symbol each up to 16."""
    alphabet = Alphabet.of(size)
    symbol = data.draw(st.integers(0, size - 1))
    token = alphabet.token_of[symbol]
    assert 0 <= symbol - alphabet.first[token] < 2 ** int(alphabet.plain_bits[token])
    assert len(alphabet.first) <= 40
    assert alphabet.token_of[size - 1] == len(alphabet.first) - 1
    if symbol < 16:
        assert token == symbol


@given(npst.arrays(np.int64, (3, 7), elements=st.integers(0, 10**6)))
def test_table_entries_are_near_their_share(counts):
    """Every frequency is above 0, and within 1/31 of its share where that is not tiny."""
    found = frequencies(to_tables(counts))
    wanted = (counts + 0.05) / (counts + 0.05).sum(1, keepdims=True) * 2**19
    assert (found >= 16).all()
    assert found.sum(1).max() < 2**24
    assert (np.abs(found / np.maximum(wanted, 16) - 1) <= 1 / 31).all()


@by_model
@pytest.mark.parametrize(
    ("shape", "alphabet"), [((12, 8, 7), 8), ((12, 8, 8), 4), ((2**16, 2**16, 2**16), 8)]
)
def test_only_what_was_learnt_is_coded(kind, shape, alphabet):
    """Another shape or alphabet is refused before anything is made of its size."""
    coder = RangeCoder(kind.fit(smooth(5), 8))
    with pytest.raises(CodecError, match="as the model"):
        coder.decode(bytes(8), shape, alphabet)
    with pytest.raises(CodecError, match="as the model"):
        coder.encode(np.zeros((12, 8, 7), np.uint8), alphabet)


@by_model
def test_symbols_beyond_the_alphabet_are_not_coded(kind):
    """The encoder refuses them."""
    coder = RangeCoder(kind.fit(smooth(5), 8))
    with pytest.raises(CodecError, match="below 8, got 8"):
        coder.encode(np.full((12, 8, 8), 8, np.uint8), 8)


@pytest.mark.parametrize("alphabet", [3, 8, 100, 4096])
@by_model
@given(data=st.binary(max_size=120))
def test_garbage_raises_codec_error_only(alphabet, kind, data):
    """Random bytes decode to symbols of the alphabet, or raise CodecError."""
    check_hostile(RangeCoder(kind.fit(smooth(3, (5, 4, 4), alphabet), alphabet)), data, alphabet)


@by_model
@pytest.mark.parametrize("word", [b"\0\0\0\0", b"\xff\xff\xff\xff"])
@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_extreme_words_raise_codec_error_only(kind, word, count):
    """So do no words at all, zeros and ones."""
    check_hostile(RangeCoder(kind.fit(smooth(3, (5, 4, 4), 100), 100)), word * count, 100)


def check_hostile(coder, data, alphabet):
    try:
        decoded = coder.decode(data, (5, 4, 4), alphabet)
    except CodecError:
        return
    assert decoded.shape == (5, 4, 4)
    assert (decoded < alphabet).all()


@by_model
def test_many_bytes_behind_the_symbols_are_refused(kind):
    """More than an encoder could have written are noticed."""
    symbols = smooth(5)
    coder = RangeCoder(kind.fit(symbols, 8))
    data = coder.encode(symbols[0], 8)
    with pytest.raises(CodecError, match="expected symbols that end where"):
        coder.decode(data + bytes(20), (12, 8, 8), 8)
