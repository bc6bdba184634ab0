import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from xpi_ray.networks.builder import build
from xpi_ray.networks.msdnet import MsdNetwork, MsdSpec
from xpi_ray.networks.progressive import State

SPEC = MsdSpec(
    num_classes=3,
    image_size=(13, 9),
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.25, 0.3),
    blocks=4,
    base=3,
    step=2,
    channels=4,
    growth=2,
    scales=(1, 2, 3),
    bottlenecks=(1, 2, 1),
    reduction=0.5,
    exit_channels=5,
)


@st.composite
def specs(draw):
    """Any small network, of one scale or several, with more layers than scales or fewer."""
    scales = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    return MsdSpec(
        num_classes=draw(st.integers(2, 4)),
        image_size=draw(st.tuples(st.integers(1, 11), st.integers(1, 11))),
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.25, 0.3),
        blocks=draw(st.integers(1, 5)),
        base=draw(st.integers(1, 4)),
        step=draw(st.integers(1, 3)),
        channels=draw(st.integers(1, 4)),
        growth=draw(st.integers(2, 4)),
        scales=tuple(scales),
        bottlenecks=tuple(draw(st.integers(1, 2)) for _ in scales),
        reduction=draw(st.sampled_from([0.1, 0.5, 1.0])),
        exit_channels=draw(st.integers(1, 3)),
    )


def made(spec):
    """A network of random weights and statistics, in eval mode and not folded."""
    torch.manual_seed(0)
    network = MsdNetwork(spec).eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.1, 0.4)
            module.weight.uniform_(0.7, 1.5)
            module.bias.normal_(0, 0.3)
    return network


def noise(spec, count=2):
    """Images of noise for a network, uint8 (count, 3, H, W)."""
    generator = torch.Generator().manual_seed(3)
    size = (count, 3, *spec.image_size)
    return torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)


def close(found, expected):
    """Whether exits agree but for rounding."""
    return len(found) == len(expected) and all(
        torch.allclose(a, b, atol=1e-5, rtol=1e-4) for a, b in zip(found, expected, strict=True)
    )


def column_by_column(network, images):
    """Exits by the paper's figure: every scale of a layer before the next layer, nothing lazily.

    Features are kept apart by the layer that made them, and joined where they are read.
    """
    spec = network.spec
    count, depth = len(spec.scales), spec.base + spec.step * (spec.blocks - 1)
    group = math.ceil(depth / count)
    diagonals = [wave for block in network.blocks for wave in block.waves]
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (spec.mean, spec.std))
    features = (images / 255 - mean) / std
    columns = []  # by scale, the features of every layer so far
    for convolution in network.first:
        features = convolution(features).relu()
        columns.append([features])
    exits, live = [], range(count)
    for layer in range(1, depth + 1):
        before = [torch.cat(column, 1) if column else None for column in columns]
        finest, live = live[0], range((layer - 1) // group, count)
        for scale in live:
            diagonal = layer + count - 1 - scale
            if diagonal > depth:  # no exit reads it
                columns[scale] = None
                continue
            made_here = diagonals[diagonal - 1][str(scale)]
            read_finer = scale > 0 and scale - 1 >= finest
            assert (made_here.finer is not None) == read_finer
            if read_finer:
                columns[scale].append(made_here.finer(before[scale - 1]))
            columns[scale].append(made_here.own(before[scale]))
            if layer % group == 0 and layer < depth:
                joined = torch.cat(columns[scale], 1)
                columns[scale] = [made_here.narrow(joined).relu()]
            else:
                assert made_here.narrow is None
        if layer >= spec.base and (layer - spec.base) % spec.step == 0:
            branch = network.blocks[len(exits)].branch
            exits.append(branch(torch.cat(columns[-1], 1)))
    return exits


@settings(max_examples=40)
@given(spec=specs())
def test_every_layer_reads_all_earlier_ones(spec):
    """Exits are those of the paper's columns, though diagonals run and scales are dropped."""
    network = made(spec)
    images = noise(spec)
    with torch.no_grad():
        assert close(network(images), column_by_column(network, images))


@settings(max_examples=40)
@given(spec=specs())
def test_any_network_keeps_the_contract(spec):
    """Carries are as large as they are said to be, and blocks one by one make the same exits."""
    network = made(spec)
    images = noise(spec)
    assert network.exits == tuple(range(1, spec.blocks + 1))
    assert network.carry_shape(0) == (3, *spec.image_size)
    state, exits = network.start(images), []
    for block in range(1, spec.blocks + 1):
        state = network.advance(state, block)
        assert state.carry.shape == (2, *network.carry_shape(block))
        assert state.logits.shape == (2, spec.num_classes)
        exits.append(state.logits)
    assert state.carry.numel() == 0
    assert close(exits, network(images))


@settings(max_examples=20)
@given(spec=specs(), data=st.data())
def test_skipped_exits_are_not_missed(spec, data):
    """Whichever exits are left out, the others and all carries are the same to the last bit."""
    network = made(spec).prepare()
    skipped = data.draw(st.sets(st.integers(1, spec.blocks)), "skipped") - {spec.blocks}
    images = noise(spec)
    state = known = network.start(images)
    for block in range(1, spec.blocks + 1):
        known = network.advance(known, block)
        if block in skipped:
            state = network.skip_exit(state, block)
            assert state.logits.shape == (2, 0)
        else:
            state = network.advance(state, block)
            assert torch.equal(state.logits, known.logits)
        assert torch.equal(state.carry, known.carry)


@settings(max_examples=20)
@given(spec=specs())
def test_serving_form_agrees_with_the_trained_one(spec):
    """Folding moves no logit by more than rounding, and leaves no norm and nothing to train."""
    network = made(spec)
    images = noise(spec)
    expected = network(images)
    assert close(network.prepare()(images), expected)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert not any(weight.requires_grad for weight in network.parameters())


@settings(max_examples=20)
@given(spec=specs())
def test_a_spec_makes_its_network(spec):
    """Through JSON, and the weights of the first fit the second."""
    original = made(spec)
    built = build("msdnet", original.spec.model_dump(mode="json")).eval()
    built.load_state_dict(original.state_dict())
    with torch.no_grad():
        for expected, found in zip(original(noise(spec)), built(noise(spec)), strict=True):
            assert torch.equal(found, expected)


@settings(max_examples=20)
@given(spec=specs(), data=st.data())
def test_every_value_of_a_carry_is_read(spec, data):
    """With all weights above 0, each moves a later exit."""
    partition = data.draw(st.integers(1, spec.blocks), "partition")
    network = made(spec)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.abs_()
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.zero_()
            module.bias.abs_()
    carry = torch.rand(1, *network.carry_shape(partition)).requires_grad_()
    state, total = State(carry, torch.empty(1, 0)), torch.zeros(())
    for block in range(partition + 1, spec.blocks + 1):
        state = network.advance(state, block)
        total = total + state.logits.sum()
    if partition < spec.blocks:
        total.backward()
        assert (carry.grad > 0).all()


@settings(max_examples=40)
@given(spec=specs())
def test_weights_are_counted_before_they_are_made(spec):
    """The spec knows how many there are in convolutions and linear layers."""
    there = sum(weight.numel() for weight in MsdNetwork(spec).parameters() if weight.ndim > 1)
    assert spec.weights == there


def test_a_block_is_a_diagonal():
    """The first block runs the coarsest scale to its end, each finer one a layer less far."""
    waves = [wave for block in MsdNetwork(SPEC).blocks for wave in block.waves]
    assert [list(wave) for wave in waves] == [
        ["2"],
        ["1", "2"],
        ["0", "1", "2"],
        ["0", "1", "2"],
        ["0", "1", "2"],  # layer 3 of the finest scale, which is then dropped
        ["1", "2"],
        ["1", "2"],
        ["2"],
        ["2"],
    ]
    assert [len(block.waves) for block in MsdNetwork(SPEC).blocks] == [3, 2, 2, 2]


def test_scales_that_are_read_no_more_are_not_carried():
    """A carry holds three scales, then two, then one; channels are those of all layers so far."""
    network = MsdNetwork(SPEC)
    finest, middle, coarsest = 13 * 9, 7 * 5, 4 * 3
    # Half of the channels are kept after layers 3 and 6, as far as a scale gets there.
    assert network.carry_shape(1)[0] == (4 + 2) * finest + (8 + 2 * 4) * middle + 15 * coarsest
    assert network.carry_shape(2)[0] == (10 + 4) * middle + (15 + 2 * 6) * coarsest
    assert network.carry_shape(3)[0] == (16 + 6) * coarsest
    assert network.carry_shape(4) == (0, 1, 1)


def test_an_exit_knows_nothing_of_those_before():
    """Whatever logits a state brings along, the next block's are the same."""
    network = made(SPEC)
    assert not network.fuses
    state = network.advance(network.start(noise(SPEC)), 1)
    other = State(state.carry, torch.randn(2, 7))
    assert torch.equal(network.advance(state, 2).logits, network.advance(other, 2).logits)


def test_every_weight_is_trained():
    """The loss of all exits reaches every parameter."""
    torch.manual_seed(0)
    network = MsdNetwork(SPEC)
    sum(exit_.square().sum() for exit_ in network(noise(SPEC, 4))).backward()
    assert all(weight.grad is not None for weight in network.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks": 0}, "greater than or equal to 1"),
        ({"blocks": 65}, "less than or equal to 64"),
        ({"scales": ()}, "at least 1 item"),
        ({"scales": (1, 2)}, "bottlenecks must be 2, one for each scale, got 3"),
        ({"growth": 1, "scales": (1, 1, 3)}, "2 channels or more at every scale but the finest"),
        ({"reduction": 0}, "greater than 0"),
        ({"std": (0, 1, 1)}, "greater than 0"),
        ({"image_size": (1025, 9)}, "less than or equal to 1024"),
        ({"image_size": (1024, 1024)}, "a carry may have 4194304 values"),
        ({"channels": 512, "growth": 512, "base": 64, "step": 16}, "may have 67108864 weights"),
        ({"width": 2}, "Extra inputs"),
    ],
)
def test_impossible_networks_are_refused(change, message):
    """A spec that describes no network, or one too large, says what is wrong with it."""
    with pytest.raises(ValidationError, match=message):
        MsdSpec.model_validate({**SPEC.model_dump(), **change})
    with pytest.raises(ValueError, match=message):
        build("msdnet", {**SPEC.model_dump(mode="json"), **change})
