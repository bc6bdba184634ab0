import pytest
import torch

from rl.sacd import measuring
from rl.sacd.alexnet import EXITS, LAYERS, AlexNet
from rl.sacd.costs import BITS
from rl.sacd.training import accuracies


@pytest.fixture(scope="module")
def network():
    """Untrained, folded; answers depend on the image."""
    torch.manual_seed(0)
    return AlexNet(2).fold()


@pytest.fixture(scope="module")
def found(network, noise):
    """Its costs, timed briefly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "CODED", 3)
        patch.setattr(measuring.layer_ms, "__defaults__", (2,))
        return measuring.measure(network, noise.validation)


def test_every_choice_is_measured_once(found):
    """Each exit's layers but the last at all bits, and the device alone."""
    assert len({row[:3] for row in found.rows}) == len(found.rows)
    assert len(found.rows) == sum(LAYERS) * len(BITS) + len(EXITS)


def test_more_bits_take_more_bytes(found):
    """At any place."""
    sizes = {row[:3]: row.payload_bytes for row in found.rows}
    for exit_, layers in zip(EXITS, LAYERS, strict=True):
        for partition in range(layers):
            small, middle, large = (sizes[(exit_, partition, bits)] for bits in BITS)
            assert 8 < small < middle < large


def test_a_partition_splits_the_same_time(found):
    """What runs before and after the place is always the whole path."""
    whole = {row.exit: row.before_ms for row in found.rows if row.bits == 0}
    for row in found.rows:
        assert row.before_ms + row.after_ms == pytest.approx(whole[row.exit])


@pytest.mark.parametrize(("exit_", "partition"), [(1, 7), (2, 9), (3, 0), (3, 6), (3, 14)])
def test_many_bits_keep_the_exact_answers(network, noise, exit_, partition):
    """16 bits lose nothing, wherever they cross and whichever exit is ahead."""
    exact = accuracies(network, noise.validation)
    reached = measuring.crossing_accuracies(network, noise.validation, exit_, partition, 16)
    assert exit_ in reached
    for own, accuracy in reached.items():
        assert accuracy == pytest.approx(exact[own - 1], abs=0.03)
