import pytest
import torch

from xpi_ray.errors import DataError, TrainingError
from xpi_ray.networks.efficientnet import imagenet_weights
from xpi_ray.networks.xpi import XpiNetwork
from xpi_ray.networks.zoo import ZOO
from xpi_ray.training.networks import (
    ARCHITECTURES,
    FROZEN_BLOCKS,
    colour_statistics,
    find_architecture,
    load_weights,
)
from xpi_ray.training.recipes import RECIPES
from xpi_ray.training.trainer import CHECKPOINT


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in ZOO])
def test_every_architecture_is_built_for_the_data_set(name, separable):
    """It has twelve blocks, as many classes and images of the size; its training is a recipe."""
    kind = find_architecture(name)
    network = kind.build(separable)
    assert (network.num_blocks, network.num_classes) == (12, 5)
    assert network.image_size == (10, 6)
    assert network.exits == ((12,) if name.startswith("single") else tuple(range(1, 13)))
    assert kind.training in RECIPES
    assert kind.peak_learning_rate > 0


@pytest.mark.parametrize("name", ["b_alexnet", "msdnet21"])
def test_networks_of_the_zoo_are_built_for_the_data_set(name, separable):
    """At full width, with its classes, its images and their colours."""
    kind = find_architecture(name)
    network = kind.build(separable)
    assert (network.num_classes, network.image_size) == (5, (10, 6))
    mean, std = colour_statistics(separable.train.images)
    assert (network.spec.mean, network.spec.std) == (mean, std)
    fresh = ZOO[name](5, (10, 6), mean, std)
    assert network.spec == fresh.spec
    assert kind.training in RECIPES


@pytest.mark.parametrize("name", ["lite12", "plain_lite12", "single_lite12"])
def test_a_trunk_begins_with_features_that_are_kept(name, separable):
    """It has the ImageNet weights, and those of the first blocks are not trained."""
    network = find_architecture(name).build(separable)
    parts = network.pretrained()
    pieces = torch.nn.Sequential(*(piece for part in parts for piece in part))
    for name, value in imagenet_weights().items():
        assert torch.equal(pieces.state_dict()[name], value), name
    trained = [any(weight.requires_grad for weight in part.parameters()) for part in parts]
    assert trained == [False] * FROZEN_BLOCKS + [True] * (12 - FROZEN_BLOCKS)


@pytest.mark.parametrize(
    ("single", "whole"), [("single12", "plain12"), ("single_lite12", "plain_lite12")]
)
def test_a_single_exit_begins_as_it_does_among_others(single, whole, separable):
    """With the same weights from the same seed; only the other branches are missing."""
    networks = []
    for name in (single, whole):
        torch.manual_seed(3)
        networks.append(find_architecture(name).build(separable))
    state, known = (network.state_dict() for network in networks)
    assert all(torch.equal(value, known[name]) for name, value in state.items())
    assert known.keys() - state.keys() == {
        name for name in known if ".branch." in name and not name.startswith("blocks.11.")
    }


def test_what_cannot_be_mapped_is_not_trained_by_mapping():
    """No training of a network other than xpi12 moves importance."""
    others = ARCHITECTURES.keys() - {"xpi12"}
    assert all(RECIPES[ARCHITECTURES[name].training].manipulation is None for name in others)


def test_an_unknown_architecture_lists_those_there_are():
    """A misspelt name is answered with all names."""
    with pytest.raises(TrainingError, match="'xpi13'; expected one of xpi12, lite12, plain12"):
        find_architecture("xpi13")


def test_a_narrow_network_has_a_share_of_the_channels(splits):
    """Half as wide, B-AlexNet has about a quarter of the weights, and exits as before."""
    wide, narrow = (find_architecture("b_alexnet", width).build(splits) for width in (1, 0.5))
    assert narrow.exits == wide.exits
    sizes = [sum(p.numel() for p in network.graph.parameters()) for network in (wide, narrow)]
    assert 0.15 < sizes[1] / sizes[0] < 0.5


@pytest.mark.parametrize(("name", "width"), [("xpi12", 0.5), ("vgg16", 0), ("vgg16", 2)])
def test_a_width_that_is_none_is_refused(name, width):
    """Only EINet's networks come narrower, and none wider."""
    with pytest.raises(TrainingError, match="expected a width above 0"):
        find_architecture(name, width)


def test_weights_of_a_run_are_taken_over(spec, make_network, fresh_network, tmp_path):
    """All of them; a folder without a checkpoint and another network's are refused."""
    trained = make_network(spec, seed=3).state_dict()
    torch.save({"network": trained, "config": {}, "epoch": 1}, tmp_path / CHECKPOINT)
    load_weights(fresh_network, tmp_path)
    for name, value in fresh_network.state_dict().items():
        assert torch.equal(value, trained[name])
    other = XpiNetwork(spec.model_copy(update={"num_classes": 6}))
    with pytest.raises(TrainingError, match="holds another network than this one"):
        load_weights(other, tmp_path)
    with pytest.raises(DataError, match="expected the folder of a run"):
        load_weights(fresh_network, tmp_path / "nowhere")


def test_colours_are_measured_on_their_own():
    """Mean and deviation are per colour and in 0..1."""
    images = torch.zeros(10, 3, 4, 4, dtype=torch.uint8)
    images[:, 1] = 255
    images[:5, 2] = 255
    mean, std = colour_statistics(images)
    assert mean == pytest.approx((0, 1, 0.5))
    assert std == pytest.approx((0, 0, 0.5), abs=0.01)
