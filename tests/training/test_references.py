import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from xpi_ray.networks.architectures import lite12
from xpi_ray.networks.trunk import TrunkNetwork
from xpi_ray.training.losses import Manipulation
from xpi_ray.training.references import (
    block_features,
    can_map,
    fit_reference,
    map_channels,
    rank_channels,
)


def copy_of(module):
    """Every weight and statistic, as it is now."""
    return copy.deepcopy(module.state_dict())


def same(one, other):
    """Whether two states agree to the last bit."""
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("block", [1, 2, 3])
def test_a_reference_learns_to_read_features(
    make_network, spec, separable, make_reference, accuracy_of, block
):
    """From chance its accuracy rises, while the network that it reads stays as it is."""
    network = make_network(spec)
    before, reference = copy_of(network), make_reference(network, block)
    assert accuracy_of(reference.eval(), network, block, separable.validation) < 0.5
    fit_reference(reference, network, block, separable.train, torch.Generator(), steps=40)
    assert accuracy_of(reference, network, block, separable.validation) > 0.7
    assert same(before, network.state_dict())
    assert not reference.training
    assert not any(parameter.requires_grad for parameter in reference.parameters())


@pytest.mark.parametrize("block", [1, 3])
@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_mapped_channels_change_places(make_network, spec, separable, make_reference, block, data):
    """Chosen ones come first, those there already stay, and the reference does not notice.

    Nor does it when they change places for a second time.
    """
    network, images = make_network(spec), separable.validation.images[:8]
    this = network.block(block)
    k, channels = this.spec.branch_channels, this.spec.channels
    reference = make_reference(network, block).eval()
    for _ in range(2):
        before = block_features(network, images, block)
        answers = reference(before)
        chosen = data.draw(st.permutations(range(channels)), label="channels")[:k]
        map_channels(this, reference, chosen)
        after = block_features(network, images, block)
        for channel, old in enumerate(before.unbind(1)):
            found = [torch.allclose(new, old, atol=1e-5) for new in after.unbind(1)]
            if (channel < k) == (channel in chosen):
                assert found[channel]
            else:
                assert any(found[:k] if channel in chosen else found[k:])
        assert torch.allclose(reference(after), answers, atol=1e-5)


def test_the_last_block_has_nothing_to_map(make_network, spec, make_reference):
    """With k = C all channels are chosen and none moves."""
    network = make_network(spec)
    before = copy_of(network)
    map_channels(network.block(4), make_reference(network, 4), list(range(9))[::-1])
    assert same(before, network.state_dict())


@pytest.mark.parametrize(("block", "can"), [(1, True), (2, False), (3, True)])
def test_channels_on_an_identity_path_keep_their_places(make_network, spec, block, can):
    """Block 2 passes its carry on, so it is not to be mapped; the others make theirs anew."""
    network = make_network(spec)
    assert can_map(network.block(block)) == can


def test_a_trunks_channels_keep_their_places():
    """No block of a pretrained trunk is to be mapped."""
    network = TrunkNetwork(lite12(3, (8, 6), trunk_size=32))
    assert not any(can_map(block) for block in network.blocks)


class OneEyed(nn.Module):
    """Answers by the brightness of a single channel, against the mean of all samples."""

    def __init__(self, channel):
        super().__init__()
        self.channel = channel

    def forward(self, features):
        """Features (n, C, h, w) to logits (n, 5), of which the first two count."""
        seen = features[:, self.channel].mean((1, 2))
        return torch.stack([seen - 1, 1 - seen, *[torch.full_like(seen, -9)] * 3], dim=1)


@pytest.mark.parametrize("channel", [0, 5, 9])
def test_the_channel_that_alone_counts_ranks_first(make_network, spec, separable, channel):
    """It is among the top of every sample that the reference answers correctly."""
    network = make_network(spec)
    reference = OneEyed(channel)
    with torch.no_grad():
        seen = reference(block_features(network, separable.train.images, 1)).argmax(1)
    train = separable.train._replace(labels=seen)
    ranking = rank_channels(Manipulation(), reference, network, 1, train, torch.Generator())
    assert ranking.order()[0] == channel
    lit = block_features(network, train.images, 1)[:, channel].sum((1, 2)) > 0
    assert float(ranking.likelihood[channel]) == pytest.approx(lit.double().mean().item())
    assert ranking.likelihood.sum() == ranking.likelihood[channel]


@pytest.mark.parametrize(
    ("attribution", "likelihood"), [("integrated_gradients", 0), ("saliency", 1)]
)
def test_channels_are_ranked_by_the_manipulations_own_measure(
    make_network, spec, separable, attribution, likelihood
):
    """The gradient sees a channel that is always dark, where there is nothing to integrate."""
    network = make_network(spec)
    network.block(1).extractor.conv[1].bias[5] = -100
    train = separable.train._replace(labels=torch.ones_like(separable.train.labels))
    manipulation = Manipulation(attribution=attribution)
    ranking = rank_channels(manipulation, OneEyed(5), network, 1, train, torch.Generator())
    assert ranking.likelihood[5] == ranking.likelihood.sum() == likelihood


@pytest.mark.parametrize(("correct_only", "first"), [(True, 0), (False, 7)])
def test_samples_that_the_reference_mistakes_are_not_ranked(
    make_network, spec, separable, correct_only, first
):
    """Where all answers are wrong no channel is likelier than another, unless mistakes count."""
    network = make_network(spec)
    train = separable.train._replace(labels=torch.full_like(separable.train.labels, 4))
    manipulation = Manipulation(correct_only=correct_only)
    ranking = rank_channels(manipulation, OneEyed(7), network, 1, train, torch.Generator())
    others = [channel for channel in range(10) if channel != first]
    assert ranking.order().tolist() == [first, *others]
