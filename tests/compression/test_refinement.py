import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.compression.refinement import RefinementModel
from xpi_ray.errors import CodecError

SHAPE = (5, 4, 6)
by_across = pytest.mark.parametrize("across", [False, True])


def layers(count=60, seed=0):
    """Symbols at a coarse step, and their digits; fine ones are alike in space and channels."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(count, 1, SHAPE[1] + 1, SHAPE[2] + 1))
    smooth = (base[..., 1:, 1:] + base[..., :-1, 1:] + base[..., 1:, :-1]) * 2
    fine = np.rint((smooth + 0.3 * rng.normal(size=(count, *SHAPE))).clip(0)).astype(np.int32)
    coarse = (fine + 1) // 3
    return coarse, (fine - 3 * coarse).astype(np.int8)


def coded_bytes(model, coarse, digits):
    return np.mean(
        [len(model.encode(d, model.rows(c))) for c, d in zip(coarse, digits, strict=True)]
    )


@by_across
@given(data=st.data())
def test_any_digits_come_back(across, data):
    """Of any symbols, large and negative ones included, and of any part of the channels."""
    model = RefinementModel.fit(*layers(), across=across)
    coarse = data.draw(npst.arrays(np.int32, SHAPE, elements=st.integers(-(2**20), 2**20)))
    digits = data.draw(npst.arrays(np.int8, SHAPE, elements=st.integers(-1, 1)))
    part = slice(0, data.draw(st.integers(1, SHAPE[0])))
    rows = model.rows(coarse)[part]
    assert (model.decode(model.encode(digits[part], rows), rows) == digits[part]).all()


@by_across
def test_the_model_survives_its_arrays(across):
    """Read again, it chooses the same tables."""
    model = RefinementModel.fit(*layers(), across=across)
    again = RefinementModel.from_arrays(model.to_arrays())
    coarse, digits = layers(5, seed=1)
    for c, d in zip(coarse, digits, strict=True):
        assert again.encode(d, again.rows(c)) == model.encode(d, model.rows(c))


def test_contexts_beat_the_digits_own_distribution():
    """Neighbours save bytes against an ideal coder without contexts; other channels, more."""
    coarse, digits = layers(400)
    test_coarse, test_digits = layers(50, seed=1)
    counts = np.unique(test_digits, return_counts=True)[1]
    plain = (counts * np.log2(counts.sum() / counts)).sum() / 8 / len(test_digits)
    alone, asked = (
        coded_bytes(RefinementModel.fit(coarse, digits, across=across), test_coarse, test_digits)
        for across in (False, True)
    )
    assert asked < alone < 0.95 * plain


@pytest.mark.parametrize("data", [b"", b"123", b"1234", bytes(400)])
def test_other_bytes_are_digits_or_refused(data):
    """They give digits, or CodecError."""
    model = RefinementModel.fit(*layers(), across=False)
    rows = model.rows(layers(1, seed=2)[0][0])
    try:
        digits = model.decode(data, rows)
    except CodecError:
        return
    assert set(np.unique(digits)) <= {-1, 0, 1}


@pytest.mark.parametrize("name", ["own", "across", "offsets", "tables"])
def test_arrays_that_do_not_fit_are_refused(name):
    """A model from a damaged bundle does not load."""
    arrays = RefinementModel.fit(*layers(), across=True).to_arrays()
    with pytest.raises(CodecError, match="expected arrays"):
        RefinementModel.from_arrays({**arrays, name: arrays[name][:-1]})
