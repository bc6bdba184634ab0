import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from xpi_ray.networks.block import FUSION_TEMPERATURE, BlockSpec, ConvNorm, Extractor, XpiBlock


@pytest.fixture
def block():
    """A block of three classes that keeps two of its five channels."""
    torch.manual_seed(0)
    spec = BlockSpec(channels=5, branch_channels=2)
    return XpiBlock(Extractor(3, spec), spec, 3).eval()


@given(weight=st.floats(-1e4, 1e4))
def test_alpha_is_a_share(weight):
    """α = sigmoid(w / T) lies in 0..1 for any weight, and rises with it."""
    block = XpiBlock(nn.Identity(), BlockSpec(channels=2, branch_channels=1), 2)
    with torch.no_grad():
        block.fusion_weight.fill_(weight)
        expected = torch.sigmoid(torch.tensor(weight) / FUSION_TEMPERATURE)
        assert 0 <= float(block.alpha) <= 1
        assert float(block.alpha) == pytest.approx(float(expected), abs=1e-6)


def test_a_fresh_block_gives_both_the_same_say(block):
    """A weight of 0 means α = ½: the exit is the mean of branch and earlier exit."""
    earlier, branch = torch.tensor([[0.0, 2.0, -4.0]]), torch.tensor([[2.0, 2.0, 0.0]])
    assert torch.equal(block.fuse(earlier, branch), torch.tensor([[1.0, 2.0, -2.0]]))


@pytest.mark.parametrize(("weight", "winner"), [(1e6, "earlier"), (-1e6, "branch")])
def test_fusion_at_its_ends_is_one_of_the_two(block, weight, winner):
    """With w → ∞ the earlier exit stays as it is; w → -∞ takes the branch alone."""
    given_ = {"earlier": torch.randn(4, 3), "branch": torch.randn(4, 3)}
    with torch.no_grad():
        block.fusion_weight.fill_(weight)
        assert torch.equal(block.fuse(given_["earlier"], given_["branch"]), given_[winner])


def test_the_first_exit_is_its_branch(block):
    """Without an earlier exit, nothing is fused."""
    branch = torch.randn(4, 3)
    assert block.fuse(torch.empty(4, 0), branch) is branch


@given(weights=st.tuples(st.floats(-20, 20), st.floats(-20, 20)))
def test_what_was_skipped_changes_no_proportion(weights):
    """Fused as if the branch between had said nothing, up to a factor that makes the shares 1."""
    between, block = (
        XpiBlock(nn.Identity(), BlockSpec(channels=2, branch_channels=1), 2) for _ in weights
    )
    earlier, branch = torch.eye(2).split(1)
    with torch.no_grad():
        for each, weight in zip((between, block), weights, strict=True):
            each.fusion_weight.fill_(weight)
        silent = block.fuse(between.fuse(earlier, torch.zeros(1, 2)), branch)
        skipped = block.fuse(earlier, branch, float(between.alpha))
    assert torch.allclose(skipped, silent / silent.sum(), atol=1e-5)


def test_no_channel_is_lost_or_read_twice(block):
    """What the branch reads and what is carried are the features, in order."""
    features = torch.randn(2, 5, 4, 3)
    kept, carry = block.split(features)
    assert kept.shape[1] == 2
    assert torch.equal(torch.cat([kept, carry], dim=1), features)


def test_folding_changes_nothing_but_the_layers():
    """A folded pair is one convolution with the same output."""
    torch.manual_seed(0)
    pair = ConvNorm(3, 4, stride=2).eval()
    pair[1].running_mean.normal_()
    pair[1].running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, 7, 5)
    with torch.no_grad():
        before = pair(x)
        pair.fold()
        assert torch.allclose(pair(x), before, atol=1e-5)
        assert isinstance(pair[1], nn.Identity)
        folded = pair(x)
        pair.fold()
        assert torch.equal(pair(x), folded)


def test_a_carry_passes_by_where_sizes_allow():
    """A block whose convolution is all zero hands its carry on, and keeps nothing of it."""
    extractor = Extractor(3, BlockSpec(channels=5, branch_channels=2)).eval()
    assert extractor.residual
    carry = torch.rand(2, 3, 4, 4)
    with torch.no_grad():
        extractor.conv[0].weight.zero_()
        features = extractor(carry)
    assert torch.equal(features[:, 2:], carry)
    assert not features[:, :2].any()


@pytest.mark.parametrize(
    "change", [{"stride": 2}, {"stem_channels": 3}, {"channels": 6}], ids=lambda c: next(iter(c))
)
def test_no_carry_passes_by_where_sizes_differ(change):
    """A stride, a stem, or another number of carried channels rules the identity path out."""
    values = {"channels": 5, "branch_channels": 2, **change}
    assert not Extractor(3, BlockSpec(**values)).residual


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"channels": 4, "branch_channels": 5}, "must not exceed"),
        ({"channels": 0, "branch_channels": 0}, "greater than or equal to 1"),
        ({"channels": 4, "branch_channels": 0}, "greater than or equal to 1"),
        ({"channels": 4, "branch_channels": 2, "stride": 3}, "less than or equal to 2"),
        ({"channels": 4, "branch_channels": 2, "stem_channels": -1}, "greater than or equal to 0"),
        ({"channels": 4, "branch_channels": 2, "width": 3}, "Extra inputs"),
    ],
)
def test_impossible_blocks_are_refused(values, message):
    """A spec that describes no block says which value is wrong."""
    with pytest.raises(ValidationError, match=message):
        BlockSpec(**values)
