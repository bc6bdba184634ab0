import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from xpi_ray.networks.block import BlockSpec
from xpi_ray.networks.xpi import XpiNetwork, XpiSpec

COLOURS = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}


@st.composite
def specs(draw):
    """Any small network, of one block or several."""
    number = draw(st.integers(1, 5))
    blocks = []
    for block in range(1, number + 1):
        kept = draw(st.integers(1, 3))
        carried = draw(st.integers(0 if block == number else 1, 4))
        blocks.append(
            BlockSpec(
                channels=kept + carried,
                branch_channels=kept,
                stride=draw(st.integers(1, 2)),
                stem_channels=draw(st.integers(0, 2)),
                branch_widths=tuple(draw(st.lists(st.integers(1, 3), max_size=2))),
            )
        )
    size = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    classes = draw(st.integers(2, 4))
    return XpiSpec(num_classes=classes, image_size=size, blocks=tuple(blocks), **COLOURS)


@settings(max_examples=40)
@given(spec=specs())
def test_any_number_of_blocks_keeps_the_contract(spec):
    """Carries have the shape foretold, exits a logit for each class, and both ways agree."""
    torch.manual_seed(0)
    network = XpiNetwork(spec).prepare()
    images = torch.randint(0, 256, (2, 3, *spec.image_size), dtype=torch.uint8)
    assert network.num_blocks == len(spec.blocks)
    assert network.carry_shape(0) == (3, *spec.image_size)
    state = network.start(images)
    exits = network(images)
    for block in range(1, network.num_blocks + 1):
        state = network.advance(state, block)
        assert state.carry.shape == (2, *network.carry_shape(block))
        assert state.logits.shape == (2, spec.num_classes)
        assert torch.equal(state.logits, exits[block - 1])


def test_serving_form_agrees_with_the_trained_one(spec, make_network, images):
    """Folding norms and turning memory around moves no logit by more than rounding."""
    trained, prepared = make_network(spec), make_network(spec).prepare()
    for expected, found in zip(trained(images), prepared(images), strict=True):
        assert torch.allclose(found, expected, atol=1e-5)


def test_the_serving_form_is_frozen(network):
    """A prepared network needs no gradients, keeps no norms and is in eval mode."""
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_rows_do_not_touch_each_other(network, images):
    """A sample's answer is its own, whoever shares its batch."""
    others = images.clone()
    others[1:] = 255 - others[1:]
    for together, changed, alone in zip(
        network(images), network(others), network(images[:1]), strict=True
    ):
        assert torch.equal(together[0], changed[0])
        assert not torch.allclose(together[1], changed[1])
        assert torch.allclose(together[0], alone[0], atol=1e-5)


def test_a_skipped_exit_is_forgotten_once_another_ran(network, images):
    """The weight of the last exit falls with each one skipped, and is whole again after."""
    with torch.inference_mode():
        first = network.advance(network.start(images), 1)
        skipped = network.skip_exit(network.skip_exit(first, 2), 3)
        alphas = [float(network.block(block).alpha) for block in (2, 3)]
        assert skipped.weight == pytest.approx(alphas[0] * alphas[1])
        assert torch.equal(skipped.logits, first.logits)
        assert network.advance(skipped, 4).weight == first.weight == 1.0


def test_pixels_are_normalised_by_colour(spec, network):
    """An image of the mean colour is zero to the network's first layer, whatever its bias."""
    seen = []
    layer = network.block(1).extractor.stem[0]
    hook = layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        pixels = torch.full((1, 3, *spec.image_size), 255.0) * torch.tensor(spec.mean).view(3, 1, 1)
        network.features(pixels, 1)
        network.features(pixels + 255 * torch.tensor(spec.std).view(3, 1, 1), 1)
    finally:
        hook.remove()
    assert torch.allclose(seen[0], torch.zeros(1), atol=1e-5)
    assert torch.allclose(seen[1], torch.ones(1), atol=1e-5)


@pytest.mark.parametrize("weight", [1e6, -1e6])
def test_extreme_fusions_reach_the_network(spec, make_network, images, weight):
    """With α = 1 every exit is exit 1; with α = 0 each is its own branch."""
    network = make_network(spec)
    for number in range(1, network.num_blocks + 1):
        network.block(number).fusion_weight.fill_(weight)
    exits = network(images)
    state = network.start(images)
    for number, exit_ in enumerate(exits, start=1):
        block = network.block(number)
        branch = block.branch(block.split(network.features(state.carry, number))[0])
        assert torch.equal(exit_, exits[0] if weight > 0 else branch)
        state = network.advance(state, number)


def test_every_weight_is_trained(spec, images):
    """The last exit's loss reaches every parameter but the first fusion weight, which has none."""
    torch.manual_seed(0)
    network = XpiNetwork(spec)
    torch.stack([exit_.square().sum() for exit_ in network(images)]).sum().backward()
    missed = {name for name, value in network.named_parameters() if value.grad is None}
    assert missed == {"blocks.0.fusion_weight"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": 1}, "greater than or equal to 2"),
        ({"blocks": ()}, "at least 1 item"),
        ({"blocks": [{"channels": 2, "branch_channels": 2}] * 2}, "block 1 hands no channels"),
        ({"mean": (0.5, 0.5)}, "mean"),
        ({"depth": 3}, "Extra inputs"),
    ],
)
def test_impossible_networks_are_refused(spec, change, message):
    """A spec that describes no network says what is wrong with it."""
    with pytest.raises(ValidationError, match=message):
        XpiSpec.model_validate({**spec.model_dump(), **change})
