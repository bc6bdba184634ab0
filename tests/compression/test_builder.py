"""A bundle's codec by its name."""

from typing import get_args

import numpy as np
import pytest
import torch

from xpi_ray.compression.builder import CodecName, codec_from_arrays, fit_codec
from xpi_ray.compression.deepcod import DeepCod
from xpi_ray.compression.ladder import LAYERS, LEVELS
from xpi_ray.errors import CodecError
from xpi_ray.training.packing import carries

NAMES = get_args(CodecName)


@pytest.fixture(scope="module")
def known(network, images):
    """Carries of the small network by partition."""
    return carries(network, images)


@pytest.fixture(scope="module")
def shapes(known):
    """Theirs."""
    return {partition: each.shape[1:] for partition, each in known.items()}


@pytest.fixture(scope="module")
def make(known):
    """Makes a codec by its name; DeepCOD's is for partition 2."""
    torch.manual_seed(0)
    deepcods = {2: DeepCod(known[2].shape[1], 3)}

    def make(name):
        return fit_codec(name, known, deepcods=deepcods if name == "deepcod" else None)

    return make


@pytest.mark.parametrize("name", NAMES)
def test_a_codec_survives_its_arrays(make, known, shapes, name):
    """Made again by its name, it sends the same at every partition and level."""
    codec = make(name)
    again = codec_from_arrays(name, codec.to_arrays(), shapes)
    assert again.levels == codec.levels == (LAYERS if name == "ladder" else 1)
    for partition, each in known.items():
        assert again.levels_at(partition) == codec.levels_at(partition)
        sent, same = (one.at_all_levels(each[0], partition) for one in (codec, again))
        assert [segments for segments, _ in sent] == [segments for segments, _ in same]
        for (segments, arrived), level in zip(
            sent, range(codec.levels_at(partition)), strict=False
        ):
            found = again.decode(segments, partition, level)
            assert (found.shape, found.dtype) == (shapes[partition], np.float32)
            np.testing.assert_array_equal(found, arrived)


def test_the_ladder_has_learned_levels_with_transforms(known, transforms):
    """As ``Ladder.fit`` gives them."""
    assert fit_codec("ladder", known, transforms).levels == LEVELS


def test_deepcod_sends_after_its_own_block_alone(make, known):
    """Elsewhere there is no level, and measurements take the carry as it is."""
    codec = make("deepcod")
    assert [codec.levels_at(partition) for partition in known] == [0, 1, 0]
    for partition, each in known.items():
        ((_, arrived),) = codec.at_all_levels(each[0], partition)
        assert np.array_equal(arrived, each[0]) == (partition != 2)


def test_deepcod_needs_a_trained_network(known):
    """Of a block that has a carry."""
    with pytest.raises(CodecError, match=r"after some of blocks \[1, 2, 3\], got them after \[\]"):
        fit_codec("deepcod", known)
    with pytest.raises(CodecError, match=r"got them after \[4\]"):
        fit_codec("deepcod", known, deepcods={4: DeepCod(9, 2)})


@pytest.mark.parametrize("name", NAMES)
def test_arrays_of_another_codec_are_refused(make, shapes, name):
    """So that a manifest's name and a bundle's codecs cannot differ unseen."""
    for other in set(NAMES) - {name}:
        arrays = make(other).to_arrays()
        if not arrays and name in ("float32", "shuffled_lz4"):
            continue  # neither has any
        with pytest.raises((CodecError, KeyError)):
            codec_from_arrays(name, arrays, shapes)
