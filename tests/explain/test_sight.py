import numpy as np
import pytest
import torch
from torch.nn import functional as F

from xpi_ray.exits.confidence import normalised_entropy
from xpi_ray.explain.importance import IntegratedGradients, channel_shares, skewness
from xpi_ray.explain.sight import Onward, attribute, explain_image

BLOCKS = [1, 2, 3, 4]


@pytest.fixture(scope="module")
def trained(spec, make_network):
    """The small network as a bundle holds it, not prepared."""
    return make_network(spec)


@pytest.fixture(scope="module")
def explanation(trained, images):
    """Of the first image."""
    return explain_image(trained, images[0].numpy(), steps=200)


def onward(network, image, block, last):
    """The rest of the network from a block on, and the block's features for an image."""
    state = network.start(image[None])
    for number in range(1, block):
        state = network.advance(state, number)
    return Onward(network, block, state.logits, last), network.features(state.carry, block)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_rest_of_the_network_is_the_network(trained, images, block):
    """From a block's own features it gives the exits that the whole network gives."""
    exits = trained(images[:1])
    for last in BLOCKS[block - 1 :]:
        rest, features = onward(trained, images[0], block, last)
        assert torch.allclose(rest(features), exits[last - 1].log_softmax(1), atol=1e-5)


def test_exits_answer_as_they_serve(trained, images, explanation):
    """Class, probability and entropy are those of the network's exits."""
    logits = torch.cat(trained(images[:1]))
    sights = explanation.sights
    assert [sight.exit for sight in sights] == BLOCKS
    assert [sight.label for sight in sights] == logits.argmax(1).tolist()
    best = logits.softmax(1).amax(1)
    assert [sight.probability for sight in sights] == pytest.approx(best.tolist(), abs=1e-5)
    entropy = normalised_entropy(logits.numpy())
    assert [sight.entropy for sight in sights] == pytest.approx(entropy.tolist(), abs=1e-5)


@pytest.mark.parametrize("block", BLOCKS)
def test_attributions_are_complete(trained, images, block):
    """They add up to what the features bring a class's log-probability, above zeros."""
    rest, features = onward(trained, images[0], block, 4)
    gained = rest(features) - rest(torch.zeros_like(features))
    for label in range(5):
        total = attribute(rest, features, label, steps=200).sum()
        assert total == pytest.approx(float(gained[0, label]), abs=0.02)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_share_agrees_with_that_of_training(trained, images, explanation, block):
    """It is the skewness that the in-graph integral finds with the rest as the reference."""
    rest, features = onward(trained, images[0], block, 4)
    label = torch.tensor([explanation.sights[-1].label])
    values = IntegratedGradients(steps=300)(rest, features, label).values
    k = trained.block(block).spec.branch_channels
    expected = float(skewness(channel_shares(values), k))
    assert explanation.sights[block - 1].branch_share == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_map_agrees_with_the_in_graph_integral(trained, images, explanation, block):
    """It holds the branch's channels, which are all that the exit reads, at the image's size."""
    rest, features = onward(trained, images[0], block, block)
    sight = explanation.sights[block - 1]
    values = IntegratedGradients(steps=300)(rest, features, torch.tensor([sight.label])).values
    assert not values[:, sight.branch_channels :].any()
    expected = F.interpolate(values.abs().sum(1, keepdim=True), (10, 6), mode="bilinear")[0, 0]
    assert sight.where.shape == (10, 6)
    assert np.allclose(sight.where, expected, atol=0.02 * float(expected.max()))


def test_a_branch_that_reads_everything_holds_everything(explanation):
    """The last block carries nothing, so its share is the whole."""
    last = explanation.sights[-1]
    assert last.branch_channels == last.channels
    assert last.branch_share == pytest.approx(1)


def test_the_mean_colour_tells_nothing(spec, make_network):
    """In an image of that colour alone no pixel counts; in another some do."""
    network = make_network(spec.model_copy(update={"mean": (0.2, 0.4, 0.6)}))
    plain = np.empty((3, 10, 6), np.uint8)
    plain[:] = np.array([51, 102, 153])[:, None, None]
    assert explain_image(network, plain, steps=5).importance.max() < 1e-4
    plain[:, 4, 3] = 255
    importance = explain_image(network, plain, steps=5).importance
    assert importance.argmax() == np.ravel_multi_index((4, 3), (10, 6))


def test_a_prepared_network_sees_the_same(network, images, explanation):
    """Folding the norms moves no map by more than rounding."""
    folded = explain_image(network, images[0].numpy(), steps=200)
    pairs = [(folded.importance, explanation.importance)]
    pairs += [(a.where, b.where) for a, b in zip(folded.sights, explanation.sights, strict=True)]
    for found, expected in pairs:
        assert np.allclose(found, expected, atol=1e-3 * expected.max())
