import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from xpi_ray.networks.architectures import plain_lite12
from xpi_ray.networks.efficientnet import lite0_body
from xpi_ray.networks.plain import (
    ExitSpec,
    PlainBlockSpec,
    PlainNetwork,
    PlainSpec,
    PlainTrunkNetwork,
    PlainTrunkSpec,
)
from xpi_ray.networks.progressive import State
from xpi_ray.networks.trunk import trunk_parts


@st.composite
def exits(draw):
    """An exit of any small shape."""
    widths = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    return ExitSpec(squeezed=draw(st.integers(0, 2)), widths=widths)


@st.composite
def specs(draw):
    """Any small network, of one block or several, each but the last with an exit or none."""
    number = draw(st.integers(1, 5))
    blocks = tuple(
        PlainBlockSpec(
            channels=draw(st.integers(1, 4)),
            stride=draw(st.integers(1, 2)),
            stem_channels=draw(st.integers(0, 2)),
            exit=draw(exits() if block == number else st.none() | exits()),
        )
        for block in range(1, number + 1)
    )
    size = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    return PlainSpec(
        num_classes=draw(st.integers(2, 4)),
        image_size=size,
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.25, 0.3),
        blocks=blocks,
    )


def noise(spec, count=2):
    """Images of noise for a network, uint8 (count, 3, H, W)."""
    generator = torch.Generator().manual_seed(3)
    size = (count, 3, *spec.image_size)
    return torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)


def states_of(network, images):
    """What each block returns, 1..N."""
    state, states = network.start(images), []
    for block in range(1, network.num_blocks + 1):
        state = network.advance(state, block)
        states.append(state)
    return states


@settings(max_examples=40)
@given(spec=specs())
def test_any_blocks_with_and_without_exits_keep_the_contract(spec):
    """All features are carried, logits are there where exits are, and both ways agree."""
    torch.manual_seed(0)
    network = PlainNetwork(spec).prepare()
    images = noise(spec)
    states = states_of(network, images)
    told = network(images)
    assert network.exits == spec.exits
    assert len(told) == len(spec.exits)
    assert spec.exits[-1] == network.num_blocks == len(spec.blocks)
    assert network.carry_shape(0) == (3, *spec.image_size)
    for block, state in enumerate(states, start=1):
        assert network.carry_shape(block)[0] == spec.blocks[block - 1].channels
        assert state.carry.shape == (2, *network.carry_shape(block))
        if block in spec.exits:
            assert torch.equal(state.logits, told[spec.exits.index(block)])
            assert state.logits.shape == (2, spec.num_classes)
        else:
            assert state.logits.shape == (2, 0)


@settings(max_examples=20)
@given(spec=specs(), data=st.data())
def test_keeping_exits_keeps_their_answers(spec, data):
    """Kept exits and all carries stay as they were to the last bit, served and not; others go."""
    torch.manual_seed(0)
    network = PlainNetwork(spec).eval().requires_grad_(False)
    if data.draw(st.booleans(), "prepared"):
        network.prepare()
    chosen = data.draw(st.sets(st.sampled_from(spec.exits)), "chosen")
    before = copy.deepcopy(network.state_dict())
    kept = network.keeping(chosen)
    assert kept.exits == tuple(sorted(chosen | {network.num_blocks}))
    for block, (expected, found) in enumerate(
        zip(states_of(network, noise(spec)), states_of(kept, noise(spec)), strict=True), start=1
    ):
        assert torch.equal(found.carry, expected.carry)
        wanted = expected.logits if block in kept.exits else expected.logits[:, :0]
        assert torch.equal(found.logits, wanted)
    assert network.exits == spec.exits
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    again = PlainNetwork(PlainSpec.model_validate_json(kept.spec.model_dump_json()))
    fresh = PlainNetwork(spec.keeping(chosen))
    assert fresh.state_dict().keys() == again.state_dict().keys()
    branches = {name.split(".")[1] for name in kept.state_dict() if ".branch." in name}
    assert branches == {str(number - 1) for number in kept.exits}


def test_only_exits_that_there_are_can_be_kept(plain_network):
    """A block without one is named."""
    with pytest.raises(ValueError, match=r"some of the exits \(2, 4\) to keep, got \[1, 9\] too"):
        plain_network.keeping({1, 2, 9})


def test_an_exit_knows_nothing_of_those_before(plain_network, images):
    """Whatever logits a state brings along, or none, the next block's are the same."""
    assert not plain_network.fuses
    state = plain_network.advance(plain_network.start(images), 1)
    states = [State(state.carry, logits) for logits in (state.logits, torch.randn(12, 5))]
    for block in (2, 3, 4):
        states = [plain_network.advance(state, block) for state in states]
        assert torch.equal(states[0].logits, states[1].logits)


def test_an_exit_reads_every_channel(plain_spec, make_network, images):
    """Changing any one channel of a block's features changes what its exit says."""
    network = make_network(plain_spec)
    for block, state in enumerate(states_of(network, images), start=1):
        branch = network.block(block).branch
        for channel in range(state.carry.shape[1]) if branch is not None else ():
            changed = state.carry.clone()
            changed[:, channel] += 1
            assert not torch.equal(branch(changed), state.logits)


def test_features_pass_by_where_sizes_allow(plain_spec, make_network, images):
    """A block whose convolution is all zero hands on what it got, all of it."""
    network = make_network(plain_spec)
    assert [extractor.residual for extractor in map(network.extractor, (1, 2, 3, 4))] == [
        False, False, True, False,
    ]  # fmt: skip
    conv, norm = network.extractor(3).conv
    conv.weight.zero_()
    for value in (norm.running_mean, norm.bias):
        value.zero_()
    states = states_of(network, images)
    assert torch.equal(states[2].carry, states[1].carry)


def test_serving_form_agrees_with_the_trained_one(plain_spec, make_network, plain_network, images):
    """Folding norms, those of squeezed branches too, moves no logit by more than rounding."""
    for expected, found in zip(
        make_network(plain_spec)(images), plain_network(images), strict=True
    ):
        assert torch.allclose(found, expected, atol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in plain_network.modules())
    assert not any(weight.requires_grad for weight in plain_network.parameters())


def test_every_weight_is_trained(plain_spec, images):
    """The loss of the exits that there are reaches every parameter."""
    torch.manual_seed(0)
    network = PlainNetwork(plain_spec)
    sum(exit_.square().sum() for exit_ in network(images)).backward()
    assert all(weight.grad is not None for weight in network.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks": ({"channels": 3, "exit": {}}, {"channels": 3})}, "block 2 is the last"),
        ({"blocks": ()}, "at least 1 item"),
        ({"blocks": ({"channels": 3, "branch_channels": 1, "exit": {}},)}, "Extra inputs"),
        ({"blocks": ({"channels": 3, "exit": {"squeezed": -1}},)}, "greater than or equal to 0"),
    ],
)
def test_impossible_networks_are_refused(plain_spec, change, message):
    """A spec that describes no network says what is wrong with it."""
    with pytest.raises(ValidationError, match=message):
        PlainSpec.model_validate({**plain_spec.model_dump(), **change})


@pytest.fixture
def on_trunk():
    """Twelve plain blocks on the trunk, three classes, images of 8x6, in training mode."""
    torch.manual_seed(1)
    return PlainTrunkNetwork(plain_lite12(3, (8, 6), trunk_size=32))


def test_the_carry_is_the_trunks_own(on_trunk):
    """All of it and nothing else, whatever the exits do, and folding changes no answer."""
    torch.manual_seed(4)
    body = lite0_body()
    on_trunk.load_trunk(body.state_dict())
    on_trunk.eval(), body.eval()
    photos = noise(on_trunk.spec)
    pixels = nn.functional.interpolate((photos.float() - 127) / 128, (32, 32), mode="bilinear")
    with torch.no_grad():
        for state, part in zip(
            states_of(on_trunk, photos), trunk_parts(on_trunk.spec.depths), strict=True
        ):
            pixels = body[part.pieces](pixels)
            assert torch.allclose(state.carry, pixels, atol=1e-4)
        expected = on_trunk(photos)
        for before, after in zip(expected, on_trunk.prepare()(photos), strict=True):
            assert torch.allclose(after, before, atol=1e-4)


def test_exits_of_a_frozen_trunk_learn(on_trunk):
    """They alone get gradients, and dropping most of them leaves the trunk frozen."""
    on_trunk.freeze_trunk(12)
    sum(exit_.square().sum() for exit_ in on_trunk(noise(on_trunk.spec))).backward()
    learnt = {name for name, weight in on_trunk.named_parameters() if weight.grad is not None}
    assert learnt == {name for name, _ in on_trunk.named_parameters() if ".branch." in name}
    single = on_trunk.keeping(())
    assert single.exits == (12,)
    assert not any(
        weight.requires_grad for part in single.pretrained() for weight in part.parameters()
    )
    assert not single.train().extractor(1).part.training


def test_blocks_that_do_not_fit_the_trunk_are_refused(on_trunk):
    """The message says what the block must have."""
    spec = on_trunk.spec.model_dump()
    wide = {**spec["blocks"][0], "channels": 17}
    with pytest.raises(ValidationError, match=r"block 1 must have .*: 16, .*: 2"):
        PlainTrunkSpec.model_validate({**spec, "blocks": (wide, *spec["blocks"][1:])})
    with pytest.raises(ValidationError, match="18 together"):
        PlainTrunkSpec.model_validate({**spec, "depths": (1,) * 12})
