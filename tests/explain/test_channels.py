import hypothesis.extra.numpy as npst
import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from xpi_ray.explain.channels import ChannelRanking

# Few distinct values, so that channels often tie; zero among them.
SHARES = npst.arrays(
    np.float32,
    npst.array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.sampled_from([0.0, 0.125, 0.25, 0.5]),
)


def rank(k, *batches):
    """Feed a ranking with batches."""
    ranking = ChannelRanking(k)
    for batch in batches:
        ranking.add(torch.as_tensor(batch))
    return ranking


def loop(shares, k):
    """Algorithm 1 in plain Python: likelihood and order."""
    channels = range(len(shares[0]))
    likelihood = [0.0 for _ in channels]
    for row in shares:
        for c in sorted(channels, key=lambda c: -row[c])[:k]:
            likelihood[c] += (row[c] > 0) / len(shares)
    chosen = sorted(channels, key=lambda c: -round(likelihood[c], 9))[:k]
    return likelihood, chosen + [c for c in channels if c not in chosen]


def test_a_case_by_hand():
    """Channel 3 is always among the top two, 1 twice, 0 once: 3 and 1 go first, 0 and 2 follow."""
    ranking = rank(2, [[0.1, 0.3, 0.2, 0.4], [0.0, 0.4, 0.1, 0.5], [0.3, 0.1, 0.2, 0.4]])
    assert torch.allclose(ranking.likelihood, torch.tensor([1, 2, 0, 3]).double() / 3)
    assert ranking.order().tolist() == [3, 1, 0, 2]


@given(st.data(), SHARES)
def test_it_is_algorithm_1(data, shares):
    """Likelihood and order are those of the algorithm, line by line; ties go to the earlier."""
    k = data.draw(st.integers(1, shares.shape[1]))
    likelihood, order = loop(shares.tolist(), k)
    ranking = rank(k, shares)
    assert np.allclose(ranking.likelihood, likelihood)
    assert ranking.order().tolist() == order


@given(st.data(), SHARES)
def test_every_channel_stays(data, shares):
    """The order is a permutation, and the channels that were not chosen keep theirs."""
    k = data.draw(st.integers(1, shares.shape[1]))
    order = rank(k, shares).order()
    assert order.dtype == torch.int64
    assert order.sort().values.tolist() == list(range(shares.shape[1]))
    assert order[k:].tolist() == sorted(order[k:].tolist())


@given(st.data(), SHARES)
def test_batches_do_not_matter(data, shares):
    """Samples in two batches count as in one."""
    k = data.draw(st.integers(1, shares.shape[1]))
    cut = data.draw(st.integers(0, len(shares)))
    whole, parts = rank(k, shares), rank(k, shares[:cut], shares[cut:])
    assert torch.equal(whole.likelihood, parts.likelihood)
    assert torch.equal(whole.order(), parts.order())


def test_channels_in_order_stay_where_they_are():
    """Where the first k lead every sample alike, nothing moves."""
    assert rank(2, [[0.4, 0.4, 0.1, 0.1]] * 3).order().tolist() == [0, 1, 2, 3]


def test_what_counts_for_nothing_wins_nothing():
    """A sample of which nothing counts is no vote for the channels that stand first."""
    ranking = rank(1, [[0.0, 0.0, 0.0], [0.2, 0.3, 0.5]])
    assert ranking.likelihood.tolist() == [0, 0, 0.5]
    assert ranking.order().tolist() == [2, 0, 1]
