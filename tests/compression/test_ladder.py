import numpy as np
import pytest

from xpi_ray.compression.ladder import LAYERS, LEVELS, Ladder
from xpi_ray.errors import CodecError
from xpi_ray.training.packing import carries


def shapes(network):
    """Of the small network's carries."""
    return {partition: network.carry_shape(partition) for partition in range(1, 4)}


@pytest.mark.parametrize("partition", [1, 2, 3])
def test_each_level_is_smaller_and_coarser(ladder, network, images, partition):
    """Down the ladder bytes fall and the error grows, at every partition."""
    carry = carries(network, images)[partition][0]
    sizes, errors = [], []
    for level in range(LAYERS):
        segments = ladder.encode(carry, partition, level)
        sizes.append(sum(map(len, segments)))
        errors.append(np.abs(ladder.decode(segments, partition, level) - carry).max())
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)


def test_a_ladder_survives_its_arrays(ladder, network, images):
    """Read again for the same network, it sends the same bytes."""
    again = Ladder.from_arrays(ladder.to_arrays(), shapes(network))
    for partition, carry in carries(network, images).items():
        for level in range(LEVELS):
            sent = ladder.encode(carry[0], partition, level)
            assert again.encode(carry[0], partition, level) == sent


def test_a_ladder_of_another_network_is_refused(ladder, network):
    """Shapes must be those of the network's carries, and no partition may lack its codec."""
    with pytest.raises(CodecError, match=r"expected 5 layers of \(1, 2, 3\) after block 2"):
        Ladder.from_arrays(ladder.to_arrays(), {**shapes(network), 2: (1, 2, 3)})
    with pytest.raises(KeyError):
        Ladder.from_arrays(ladder.to_arrays(), {**shapes(network), 4: (1, 2, 3)})


def test_a_partition_without_a_transform_has_no_smaller_levels(network, images, transforms):
    """There the learned levels are the smallest of the others; elsewhere they are their own."""
    known = carries(network, images)
    ladder = Ladder.fit(known, {3: transforms[3]})
    assert [ladder.levels_at(partition) for partition in (1, 2, 3)] == [LAYERS, LAYERS, LEVELS]
    carry = known[1][0]
    smallest = ladder.encode(carry, 1, LAYERS - 1)
    arrived = ladder.decode(smallest, 1, LAYERS - 1)
    at_all = ladder.at_all_levels(carry, 1)
    for level in range(LAYERS, LEVELS):
        assert ladder.encode(carry, 1, level) == smallest == at_all[level][0]
        assert np.array_equal(ladder.decode(smallest, 1, level), arrived)
    learned = ladder.encode(known[3][0], 3, LAYERS)
    assert learned != ladder.encode(known[3][0], 3, LAYERS - 1)
    again = Ladder.from_arrays(ladder.to_arrays(), shapes(network))
    assert again.encode(known[3][0], 3, LAYERS) == learned
    assert again.encode(carry, 1, LAYERS) == smallest


@pytest.mark.parametrize("partition", [1, 2, 3])
def test_what_arrives_of_segments_has_a_level(ladder, network, images, partition):
    """All of them are worth what was sent; of fewer, only whole layers count."""
    carry = carries(network, images)[partition][0]
    sizes = {}
    for level in range(LEVELS):
        segments = ladder.encode(carry, partition, level)
        assert ladder.arrived_level(segments, partition, level) == level
        sizes[level] = len(segments)
    whole = ladder.encode(carry, partition, 0)
    for count in range(1, len(whole) + 1):
        worth = ladder.arrived_level(whole[:count], partition, 0)
        fits = [level for level in range(LAYERS) if sizes[level] <= count]
        assert worth == min(fits, default=LAYERS - 1)
    learned = ladder.encode(carry, partition, LAYERS)
    assert ladder.arrived_level(learned[:1], partition, LAYERS) == LEVELS - 1


def test_warming_up_changes_no_frame(ladder, network, images):
    """What is sent afterwards is what would have been sent before."""
    known = carries(network, images)
    before = {
        partition: ladder.encode(carry[0], partition, 2) for partition, carry in known.items()
    }
    ladder.warm_up(2)
    for partition, carry in known.items():
        assert ladder.encode(carry[0], partition, 2) == before[partition]
