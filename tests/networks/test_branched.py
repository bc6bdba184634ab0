import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from xpi_ray.bundle import Bundle
from xpi_ray.errors import BundleError
from xpi_ray.networks.attach import attach_exits
from xpi_ray.networks.branched import (
    BranchedNetwork,
    BranchedSpec,
    FineBlockSpec,
    FineBranch,
    FineBranchSpec,
)
from xpi_ray.networks.builder import build
from xpi_ray.networks.progressive import State
from xpi_ray.training.packing import pack


def parts():
    """A small CNN with norms, a skip connection and dropout."""

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)
            self.norm = nn.BatchNorm2d(4)

        def forward(self, x):
            return torch.relu(self.norm(self.conv(x)) + x)

    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
        *(Residual(), nn.MaxPool2d(2), nn.Dropout(0.5)),
        *(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)),
    )


@pytest.fixture(scope="module")
def network():
    """Four blocks of it, five classes, images of 10x6, in eval mode; not to be changed."""
    torch.manual_seed(0)
    found = attach_exits(
        parts(), num_classes=5, image_size=(10, 6), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3)
    )
    for module in found.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.1, 0.4)
    return found.eval().requires_grad_(False)


def test_a_block_ends_at_its_cut(network, images):
    """Carries are as said, the logits those of all at once; only the last block carries nothing."""
    told = network(images)
    state = network.start(images)
    assert (network.num_blocks, network.exits) == (4, (1, 2, 3, 4))
    shapes = [(3, 10, 6), (4, 10, 6), (4, 5, 3), (6, 5, 3), (0, 1, 1)]
    for block, expected in enumerate(told, start=1):
        state = network.advance(state, block)
        assert network.carry_shape(block) == shapes[block]
        assert state.carry.shape == (12, *shapes[block])
        assert torch.equal(state.logits, expected)
    assert network.carry_shape(0) == shapes[0]
    assert torch.equal(network.finish(network.start(images), 0), told[-1])


def test_a_skipped_branch_does_not_run(network, images):
    """The carry is the same, there are no logits, and earlier ones are nothing to a block."""
    quiet = copy.deepcopy(network)
    for branch in quiet.branches.values():
        branch.forward = None
    state = skipping = network.start(images)
    for block in (1, 2, 3):
        state = network.advance(state, block)
        skipping = quiet.skip_exit(skipping, block)
        assert torch.equal(skipping.carry, state.carry)
        assert skipping.logits.shape == (12, 0)
    last = quiet.advance(State(skipping.carry, torch.randn(12, 5)), 4)
    assert torch.equal(last.logits, network.advance(state, 4).logits)


@settings(max_examples=10)
@given(chosen=st.sets(st.integers(1, 4)), prepared=st.booleans())
def test_keeping_exits_keeps_their_answers(network, chosen, prepared):
    """Other branches are gone, with their weights; the network itself stays as it is."""
    images = torch.randint(0, 256, (2, 3, 10, 6), dtype=torch.uint8)
    whole = copy.deepcopy(network)
    if prepared:
        whole.prepare()
    kept = whole.keeping(chosen)
    assert kept.exits == tuple(sorted(chosen | {4}))
    told = dict(zip(whole.exits, whole(images), strict=True))
    for exit_, found in zip(kept.exits, kept(images), strict=True):
        assert torch.equal(found, told[exit_])
    assert set(kept.branches) == {str(number) for number in kept.exits if number < 4}
    again = BranchedNetwork(BranchedSpec.model_validate_json(kept.spec.model_dump_json()))
    if not prepared:
        again.load_state_dict(kept.state_dict())
    assert again.exits == kept.exits
    assert whole.exits == (1, 2, 3, 4)


def test_only_exits_that_there_are_can_be_kept(network):
    """A block without one is named."""
    with pytest.raises(ValueError, match=r"some of the exits \(2, 4\) to keep, got \[1, 9\] too"):
        network.keeping({2}).keeping({1, 2, 9})


def test_a_branch_is_one_convolution_and_two_linear_layers():
    """Whatever the size of what it reads, it costs no more than at its own."""
    spec = FineBranchSpec(read=6, width=3, left=2, hidden=7)
    for size in ((1, 1), (2, 9), (5, 6), (31, 17)):
        branch = FineBranch(4, size, spec, 5).eval()
        kinds = [type(module) for module in branch.modules()]
        assert (kinds.count(nn.Conv2d), kinds.count(nn.Linear)) == (1, 2)
        assert branch.hidden.in_features == 3 * min(size[0], 2) * min(size[1], 2)
        seen = []
        branch.conv.register_forward_hook(lambda _, args, out, seen=seen: seen.append(out.shape))
        assert branch(torch.randn(2, 4, *size)).shape == (2, 5)
        assert seen == [(2, 3, min(size[0], 6), min(size[1], 6))]


def test_serving_form_agrees_with_the_trained_one(network, images):
    """Folding norms, the graph's and the branches', moves no logit by more than rounding."""
    prepared = copy.deepcopy(network).prepare()
    for expected, found in zip(network(images), prepared(images), strict=True):
        assert torch.allclose(found, expected, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in prepared.modules())
    assert not any(weight.requires_grad for weight in prepared.parameters())


def test_a_frozen_graph_stays_as_it_is(network, images):
    """Its dropout is silent, its norms keep their statistics; branches alone get gradients."""
    learning = copy.deepcopy(network).requires_grad_(True)
    learning.train()
    learning.freeze()
    learning.thaw()
    learning.train()
    before = copy.deepcopy(learning.graph.state_dict())
    assert torch.equal(learning(images)[-1], network(images)[-1])
    sum(exit_.square().sum() for exit_ in learning(images)).backward()
    learnt = {name for name, weight in learning.named_parameters() if weight.grad is not None}
    assert learnt == {n for n, _ in learning.named_parameters() if n.startswith("branches.")}
    after = learning.graph.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in after.items())


def test_all_learns_where_nothing_is_frozen(network, images):
    """Every weight gets a gradient, and dropout is at work."""
    learning = copy.deepcopy(network).requires_grad_(True).train()
    assert not torch.equal(learning(images)[-1], learning(images)[-1])
    sum(exit_.square().sum() for exit_ in learning(images)).backward()
    assert all(weight.grad is not None for weight in learning.parameters())
    assert learning.pretrained() == []
    learning.trained = True
    assert learning.pretrained() == [learning.graph]


def test_a_bundle_holds_it(network, splits, tmp_path):
    """Packed, saved and loaded it answers alike, with all exits and with few."""
    for chosen in ((), (1, 3)):
        kept = network.keeping(chosen)
        packed = pack(kept, splits, "1")
        assert packed.manifest.network.kind == "branched"
        packed.save(tmp_path)
        loaded = Bundle.load(tmp_path)
        images = splits.validation.images
        assert loaded.network.exits == kept.exits
        for expected, found in zip(kept(images), loaded.network.eval()(images), strict=True):
            assert torch.equal(found, expected)


def test_a_bundle_of_an_impossible_network_is_refused(network, splits, tmp_path, monkeypatch):
    """What it declares is looked at before it is built."""
    pack(network, splits, "1").save(tmp_path)
    manifest = tmp_path / "manifest.json"
    text = manifest.read_text()
    assert text.count('"out_channels": 6') == 1
    manifest.write_text(text.replace('"out_channels": 6', '"out_channels": 60000'))
    monkeypatch.setattr("xpi_ray.bundle._read_checked", unchecked)
    with pytest.raises(BundleError, match=r"does not hold together: there cannot be node \d+"):
        Bundle.load(tmp_path)


def unchecked(folder):
    """Read a bundle's files whose hashes are wrong."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}, b""


def changed(spec, **changes):
    """The spec as data, with some of it changed."""
    return {**spec.model_dump(mode="json"), **changes}


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([{"cut": 4}], r"must end at some of the cuts \["),  # inside the residual block
        ([{"cut": 99}], "must end at some of the cuts"),
        ([{"cut": 7}, {"cut": 3}], r"ascending; got \[7, 3\]"),
        ([{"cut": 3}, {"cut": 3}], "ascending"),
        ([{"cut": 0}], "greater than or equal to 1"),
        ([{"cut": 3, "branch": {"hidden": 10**6}}], "less than or equal to 1024"),
        ([{"cut": 3, "branch": {"widths": 3}}], "Extra inputs"),
    ],
)
def test_blocks_that_cannot_be_are_refused(network, blocks, message):
    """The message says where blocks may end."""
    with pytest.raises(ValidationError, match=message):
        BranchedSpec.model_validate(changed(network.spec, blocks=blocks))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 6}, r"must make logits \(1, 6\) of an image, not \(1, 5\)"),
        ({"image_size": [1, 1]}, "there cannot be node"),
        ({"image_size": [2**20, 2**20]}, "more than 268435456 values"),
    ],
)
def test_a_network_that_cannot_be_is_refused(network, changes, message):
    """Before memory is taken for it."""
    with pytest.raises(ValueError, match=message):
        build("branched", changed(network.spec, **changes))


def test_a_block_must_hand_on_an_image_like_tensor(network):
    """One after which all is flat is refused, and so are branches beyond all measure."""
    nodes = network.spec.graph.nodes
    flat = next(number for number, node in enumerate(nodes, 1) if node.operation == "Flatten")
    spec = network.spec.model_copy(update={"blocks": (FineBlockSpec(cut=flat),)})
    with pytest.raises(ValueError, match=r"blocks \[1\] do not"):
        BranchedNetwork(spec)


def test_too_many_weights_in_branches_are_refused(network, monkeypatch):
    """They are counted before they are made."""
    monkeypatch.setattr("xpi_ray.networks.branched.MOST_WEIGHTS", 1_000)
    with pytest.raises(ValueError, match="branches may have 1000 weights, not"):
        BranchedNetwork(network.spec)
