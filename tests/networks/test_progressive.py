import pytest
import torch
from torch import nn

from xpi_ray.networks.progressive import ProgressiveNetwork, State


class Doubling(ProgressiveNetwork):
    """A user's own network: block i doubles the carry, exit i tells its mean and its block."""

    num_classes = 2
    image_size = (2, 2)

    def __init__(self):
        super().__init__()
        self.unused = nn.Linear(1, 1)

    @property
    def num_blocks(self):
        """Three."""
        return 3

    def carry_shape(self, partition):
        """Always that of the image."""
        return (3, 2, 2)

    def advance(self, state, block):
        """Double."""
        carry = 2 * state.carry.float()
        mean = carry.mean(dim=(1, 2, 3))
        return State(carry, torch.stack([mean, torch.full_like(mean, block)], dim=1))


class Sparse(Doubling):
    """Likewise, without an exit after block 2."""

    exits = (1, 3)

    def advance(self, state, block):
        """Double, and answer where there is an exit."""
        state = super().advance(state, block)
        return state if block in self.exits else State(state.carry, state.logits[:, :0])


def test_a_network_of_ones_own_fits_by_the_contract():
    """Forward runs the blocks in order, each on what the one before it left."""
    images = torch.ones(2, 3, 2, 2, dtype=torch.uint8)
    exits = Doubling()(images)
    assert [exit_.tolist() for exit_ in exits] == [[[2, 1]] * 2, [[4, 2]] * 2, [[8, 3]] * 2]
    assert Doubling().exits == (1, 2, 3)
    assert Doubling().fuses


def test_only_exits_that_there_are_answer():
    """Forward leaves out blocks that have none."""
    exits = Sparse()(torch.ones(2, 3, 2, 2, dtype=torch.uint8))
    assert [exit_.tolist() for exit_ in exits] == [[[2, 1]] * 2, [[8, 3]] * 2]


def test_an_exit_may_be_skipped():
    """The carry goes on; logits are those that came in where blocks fuse, and else none."""
    network, images = Doubling(), torch.ones(2, 3, 2, 2, dtype=torch.uint8)
    first = network.advance(network.start(images), 1)
    after = network.skip_exit(first, 2)
    assert torch.equal(after.carry, network.advance(first, 2).carry)
    assert torch.equal(after.logits, first.logits)
    network.fuses = False
    assert network.skip_exit(first, 2).logits.shape == (2, 0)


@pytest.mark.parametrize("kind", ["network", "plain_network"])
def test_later_exits_do_not_need_a_skipped_one(kind, images, request):
    """A network runs on without it; where exits do not fuse, later ones say the same."""
    network = request.getfixturevalue(kind)
    with torch.inference_mode():
        whole, skipped = network.start(images), network.start(images)
        for block in range(1, network.num_blocks + 1):
            skips = block < network.num_blocks
            skipped = (network.skip_exit if skips else network.advance)(skipped, block)
            whole = network.advance(whole, block)
            assert torch.allclose(whole.carry, skipped.carry, atol=1e-6)
    assert skipped.logits.shape == whole.logits.shape
    if not network.fuses:
        assert torch.allclose(whole.logits, skipped.logits, atol=1e-6)


def test_the_start_holds_the_images_and_no_exit():
    """Before block 1 the carry is the images themselves, and the logits are empty."""
    images = torch.zeros(5, 3, 2, 2, dtype=torch.uint8)
    state = Doubling().start(images)
    assert state.carry is images
    assert (state.logits.shape, state.logits.dtype) == ((5, 0), torch.float32)


def test_preparing_freezes():
    """A prepared network is in eval mode and asks for no gradients."""
    network = Doubling().train().prepare()
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_the_contract_must_be_met():
    """A network without blocks cannot be made."""
    with pytest.raises(TypeError, match="abstract"):
        ProgressiveNetwork()


def test_finishing_runs_the_blocks_that_are_left():
    """From every partition the answer is the last exit's, and after the last block nothing runs."""
    network, images = Doubling(), torch.ones(2, 3, 2, 2, dtype=torch.uint8)
    state = network.start(images)
    for partition in range(4):
        if partition:
            state = network.advance(state, partition)
        assert network.finish(state, partition).tolist() == [[8, 3]] * 2
