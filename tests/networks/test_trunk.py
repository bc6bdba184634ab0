from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from xpi_ray.networks.architectures import lite12
from xpi_ray.networks.block import BlockSpec
from xpi_ray.networks.efficientnet import PIECES, lite0_body
from xpi_ray.networks.trunk import TrunkNetwork, TrunkSpec, trunk_parts


@st.composite
def specs(draw):
    """Any network on the trunk, whose blocks halve the resolution once or not at all."""
    halvings = [number for number, (_, stride) in enumerate(PIECES) if stride == 2]
    must = {draw(st.integers(a + 1, b)) for a, b in pairwise(halvings)}
    cuts = sorted(must | draw(st.sets(st.integers(1, len(PIECES) - 1), max_size=3)))
    depths = tuple(b - a for a, b in zip([0, *cuts], [*cuts, len(PIECES)], strict=True))
    *parts, last = trunk_parts(depths)
    blocks = [BlockSpec(channels=last.channels, branch_channels=last.channels)]
    for part in reversed(parts):
        k = draw(st.integers(1, 4))
        widths = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
        channels = k + part.channels
        block = BlockSpec(
            channels=channels, branch_channels=k, stride=part.stride, branch_widths=widths
        )
        blocks.insert(0, block)
    blocks[-1] = blocks[-1].model_copy(update={"stride": last.stride})
    return TrunkSpec(
        num_classes=draw(st.integers(2, 4)),
        image_size=draw(st.tuples(st.integers(1, 40), st.integers(1, 40))),
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.25, 0.3),
        blocks=tuple(blocks),
        trunk_size=draw(st.integers(32, 50)),
        depths=depths,
    )


@pytest.fixture(scope="module")
def weights():
    """A trunk's weights, every statistic of which matters."""
    torch.manual_seed(0)
    body = lite0_body()
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.1, 0.4)
            nn.init.normal_(module.bias, 0, 0.3)
    return body.state_dict()


@pytest.fixture
def network(weights):
    """Twelve blocks, three classes, images of 8x6, in training mode."""
    torch.manual_seed(1)
    network = TrunkNetwork(lite12(3, (8, 6), trunk_size=32))
    network.load_trunk(weights)
    return network


@pytest.fixture
def photos():
    """Four images of noise, uint8 (4, 3, 8, 6)."""
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (4, 3, 8, 6), generator=generator, dtype=torch.uint8)


@settings(max_examples=8)
@given(spec=specs())
def test_any_cut_of_the_trunk_keeps_the_contract(spec):
    """Carries have the shape foretold, exits a logit for each class, and both ways agree."""
    network = TrunkNetwork(spec).prepare()
    images = torch.randint(0, 256, (2, 3, *spec.image_size), dtype=torch.uint8)
    assert network.num_blocks == len(spec.depths)
    assert network.carry_shape(0) == (3, *spec.image_size)
    state, exits = network.start(images), network(images)
    for block in range(1, network.num_blocks + 1):
        features = network.features(state.carry, block)
        assert features.shape[1] == spec.blocks[block - 1].channels
        state = network.advance(state, block)
        assert state.carry.shape == (2, *network.carry_shape(block))
        assert torch.equal(state.logits, exits[block - 1])


def test_the_carry_is_the_trunks_own(network, weights, photos):
    """However it is cut and whatever its exits do, the trunk makes what it makes in one piece."""
    network.eval()
    body = lite0_body().eval()
    body.load_state_dict(weights)
    pixels = nn.functional.interpolate((photos.float() - 127) / 128, (32, 32), mode="bilinear")
    with torch.no_grad():
        state = network.start(photos)
        for block, part in enumerate(trunk_parts(network.spec.depths), start=1):
            features = network.features(state.carry, block)
            pixels = body[part.pieces](pixels)
            assert torch.allclose(features[:, -part.channels :], pixels, atol=1e-4)
            state = network.advance(state, block)


def test_serving_form_agrees_with_the_trained_one(network, photos):
    """Folding all norms moves no logit by more than rounding, and leaves none."""
    with torch.no_grad():
        expected = network.eval()(photos)
        for before, after in zip(expected, network.prepare()(photos), strict=True):
            assert torch.allclose(after, before, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def state_of(modules):
    """A copy of every weight and statistic."""
    return [value.clone() for module in modules for value in module.state_dict().values()]


def test_a_frozen_trunk_stays_as_it_is(network, photos):
    """Over training steps neither its weights nor its norms' statistics move; all else learns."""
    network.freeze_trunk(12)
    network.train()
    parts = [block.extractor.part for block in network.blocks]
    others = {id(weight) for weight in network.parameters()}
    others -= {id(weight) for part in parts for weight in part.parameters()}
    before = state_of(parts)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        loss = sum(exit_.square().sum() for exit_ in network(photos))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, state_of(parts), strict=True))
    learnt = {id(weight) for weight in network.parameters() if weight.grad is not None}
    assert others - learnt == {id(network.block(1).fusion_weight)}
    assert not learnt - others
    assert network.block(2).extractor.fresh.training


def test_the_later_blocks_of_a_half_frozen_trunk_learn(network):
    """Blocks 1 to 8 stay frozen when all is thawed; from 9 on the trunk can be trained."""
    network.freeze_trunk(8)
    network.thaw()
    trainable = [
        {weight.requires_grad for weight in block.extractor.part.parameters()}
        for block in network.blocks
    ]
    assert trainable == [{False}] * 8 + [{True}] * 4
    assert network.block(1).branch.classifier.weight.requires_grad


def test_gradients_do_not_go_where_nothing_learns(network, photos):
    """Carries of a frozen trunk have none; of those behind it, and of exits, they are the same."""
    network.freeze_trunk(8)
    state, needed = network.start(photos), []
    for number in range(1, 13):
        state = network.advance(state, number)
        needed.append(state.carry.requires_grad)
        assert state.logits.requires_grad
    assert needed == [False] * 8 + [True] * 4


def test_a_trunk_that_is_not_frozen_learns(network, photos):
    """Every weight of it gets a gradient, and its norms follow the batches."""
    before = state_of([network])
    sum(exit_.square().sum() for exit_ in network(photos)).backward()
    parts = [block.extractor.part for block in network.blocks]
    assert all(weight.grad is not None for part in parts for weight in part.parameters())
    means = [name for name in network.state_dict() if name.endswith("running_mean")]
    changed = dict(zip(network.state_dict(), before, strict=True))
    assert not any(torch.equal(changed[name], network.state_dict()[name]) for name in means)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trunk_size": 31}, "greater than or equal to 32"),
        ({"trunk_size": 1025}, "less than or equal to 1024"),
        ({"depths": (2, 1, 1, 2, 2, 2, 1, 1, 1, 1, 2, 1)}, "18 together"),
        ({"depths": (2, 1, 1, 2, 2, 2, 1, 1, 1, 1, 4)}, "12 numbers"),
        ({"depths": (2, 1, 1, 2, 2, 2, 1, 1, 1, 0, 3, 2)}, "of 1 or more"),
        ({"depths": (2, 1, 1, 2, 2, 2, 1, 1, 1, 2, 1, 2), "blocks": None}, "at least 1"),
        ({"depths": (1, 2, 1, 2, 2, 2, 1, 1, 1, 1, 2, 2)}, "block 1 must have {'channels': 36"),
        ({"last": {"stride": 2}}, "block 12 must have .*'stride': 1"),
        ({"last": {"branch_channels": 1279}}, "block 12 must have .*'branch_channels': 1280"),
        ({"last": {"stem_channels": 3}}, "block 12 must have .*'stem_channels': 0"),
    ],
)
def test_impossible_trunks_are_refused(change, message):
    """A spec that does not fit the trunk says what would."""
    spec = lite12(3, (8, 6)).model_dump()
    last = {**spec["blocks"][-1], **change.pop("last", {})}
    blocks = change.pop("blocks", (*spec["blocks"][:-1], last)) or ()
    with pytest.raises(ValidationError, match=message):
        TrunkSpec.model_validate({**spec, "blocks": blocks, **change})
