import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.profiles.outcomes import NO_EXIT, Outcomes

HALVES = st.integers(0, 2048).map(lambda value: value / 2048)  # what 16 bits hold exactly


@st.composite
def outcomes(draw):
    """Outcomes of any sizes."""
    samples, exits, levels = (draw(st.integers(1, 4)) for _ in range(3))
    resumed = draw(st.integers(1, samples))

    def flat(shape, dtype, elements):
        return draw(npst.arrays(dtype, shape, elements=elements))

    deep = (levels, exits, resumed, exits)
    whole = Outcomes(
        flat((samples, exits), np.float32, HALVES),
        flat((samples, exits), np.bool_, st.booleans()),
        flat(deep, np.float32, HALVES),
        flat(deep, np.bool_, st.booleans()),
        flat((levels, exits), np.float32, st.floats(0, 1e6, width=32)),
    )
    for partition in range(exits):  # what ran before the link is as it was
        before = slice(partition if partition else exits)
        whole.resumed_entropy[:, partition, :, before] = whole.entropy[:resumed, before]
        whole.resumed_correct[:, partition, :, before] = whole.correct[:resumed, before]
    for block in draw(st.sets(st.integers(0, exits - 2))) if exits > 1 else ():
        for entropies in (whole.entropy, whole.resumed_entropy):
            entropies[..., block] = NO_EXIT
        for rights in (whole.correct, whole.resumed_correct):
            rights[..., block] = False
    return whole


@given(original=outcomes())
def test_arrays_give_back_the_outcomes(original):
    """Types, shapes and values come back, and which exits there are, as exact as 16 bits are."""
    restored = Outcomes.from_arrays(original.to_arrays())
    assert restored.images is original.images is False
    for before, after in zip(original[:-1], restored[:-1], strict=True):
        assert after.dtype == before.dtype
        assert np.array_equal(before, after)
    assert np.array_equal(restored.exits, original.exits)


@given(original=outcomes())
def test_of_an_image_nothing_is_lost(original):
    """A further level has whole images: all exits as they were, one size, and no exit with them."""
    found = original.with_images()
    levels, _, count, _ = original.resumed_entropy.shape
    assert found.images
    assert len(found.frame_bytes) == len(found.resumed_entropy) == levels + 1
    assert (found.resumed_entropy[-1] == original.entropy[:count]).all()
    assert (found.resumed_correct[-1] == original.correct[:count]).all()
    assert (found.frame_bytes[-1] == original.frame_bytes[0, 0]).all()
    assert (found.edge_trusted()[:-1] == original.edge_trusted()).all()
    assert not found.edge_trusted()[-1].any()
    for name in ("resumed_entropy", "resumed_correct", "frame_bytes"):
        assert (getattr(found, name)[:-1] == getattr(original, name)).all()


@given(found=outcomes())
def test_a_block_without_an_exit_is_told_by_its_entropies(found):
    """Its accuracy is 0, it is not trusted over the last one, and the last always is there."""
    assert found.exits[-1]
    assert found.exits.tolist() == [entropy < NO_EXIT for entropy in found.entropy[0].tolist()]
    for block in np.flatnonzero(~found.exits):
        assert found.accuracy()[block] == 0
        assert not found.edge_trusted()[:, block + 1].any()


def test_entropies_lose_less_than_a_thousandth():
    """16 bits are enough for a threshold."""
    entropy = np.linspace(0, 1, 999, dtype=np.float32).reshape(-1, 3)
    flags = np.zeros_like(entropy, np.bool_)
    empty = np.zeros((1, 3, 1, 3), np.float32)
    original = Outcomes(entropy, flags, empty, empty > 0, np.zeros((1, 3), np.float32))
    restored = Outcomes.from_arrays(original.to_arrays())
    assert np.abs(restored.entropy - entropy).max() < 1e-3


@pytest.mark.parametrize("name", Outcomes._fields[:-1])
def test_a_missing_array_is_named(bundle, name):
    """Arrays without one of the five do not make outcomes."""
    arrays = bundle.outcomes.to_arrays()
    del arrays[name]
    with pytest.raises(KeyError, match=name):
        Outcomes.from_arrays(arrays)


def test_accuracy_is_of_each_exit(bundle):
    """The share of right answers, exit by exit."""
    correct = bundle.outcomes.correct
    assert bundle.outcomes.accuracy() == [
        sum(column) / len(column) for column in correct.T.tolist()
    ]


def test_the_edge_is_trusted_where_the_surer_exit_is_right_more_often():
    """Sample by sample: the edge's exit answers where it is surer; partition 0 has none."""
    rng = np.random.default_rng(3)
    samples, exits, levels, resumed = 40, 4, 3, 25
    entropy = rng.random((samples, exits)).astype(np.float32)
    correct = rng.random((samples, exits)) < 0.6
    after = rng.random((levels, exits, resumed, exits)).astype(np.float32)
    right = rng.random((levels, exits, resumed, exits)) < 0.6
    sizes = np.ones((levels, exits), np.float32)
    found = Outcomes(entropy, correct, after, right, sizes).edge_trusted()
    assert found.shape == (levels, exits)
    assert not found[:, 0].any()
    for level in range(levels):
        for partition in range(1, exits):
            chosen = [
                correct[i, partition - 1]
                if entropy[i, partition - 1] < after[level, partition, i, -1]
                else right[level, partition, i, -1]
                for i in range(resumed)
            ]
            more = sum(chosen) > right[level, partition, :, -1].sum()
            assert found[level, partition] == more
    assert found.any()
    assert not found[:, 1:].all()
