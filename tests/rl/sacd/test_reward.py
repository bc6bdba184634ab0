import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl.sacd.costs import ACTIONS, Action
from rl.sacd.reward import LEAST_BPS, MOST_BPS, ON_DEVICE, Device, Model
from xpi_ray.errors import PlanError

bandwidths = st.floats(LEAST_BPS, MOST_BPS)


def test_one_choice_by_hand(model):
    """Exit 2, partition 3, 8 bits at 2 MB/s: equations 1 to 3 and 12 to 14 written out."""
    outcome = model.outcomes(16e6).of(ACTIONS.index(Action(2, 3, 8)))
    payload_bytes, accuracy = 6000 / 4, 0.829
    device_ms, sending_ms, server_ms = 8 * (0.3 + 0.02), payload_bytes / 2e6 * 1000, 0.9 + 0.02
    assert outcome.latency_ms == pytest.approx(device_ms + sending_ms + server_ms)
    compute_j = (6.4 - 2.7) * device_ms / 1000  # what a Pi draws more when all cores are busy
    sending_j = 0.1 * payload_bytes / (2e6 * math.log2(1 + 0.1 * 10))
    assert outcome.energy_j == pytest.approx(compute_j + sending_j)
    a = 0.98 * math.log(1 + 2 / 10) / math.log(1 + 10 / 10)
    least_ms = 8 * (0.1 + 0.02) + 1500 / 2e6 * 1000 + 0.8 + 0.02  # exit 1, partition 1, 4 bits
    expected = a * accuracy / 0.87 + (1 - a) * least_ms / outcome.latency_ms
    assert outcome.reward == pytest.approx(expected)


@given(bandwidths, bandwidths)
def test_more_bandwidth_never_takes_longer(model, one, other):
    """Nor more energy."""
    slow, fast = (model.outcomes(bps) for bps in sorted((one, other)))
    assert (fast.latency_ms <= slow.latency_ms).all()
    assert (fast.energy_j <= slow.energy_j).all()


@given(bandwidths)
def test_latency_and_accuracy_are_of_one_scale(model, bandwidth_bps):
    """At every bandwidth: what is quickest earns all that latency is worth, on a slow link too."""
    outcomes, a = model.outcomes(bandwidth_bps), model.emphasis(bandwidth_bps)
    quickest = outcomes.of(int(outcomes.latency_ms.argmin()))
    assert quickest.reward == pytest.approx(1 - a + a * quickest.accuracy / 0.87)
    assert outcomes.reward.max() > 0.9


@given(bandwidths)
def test_too_much_energy_earns_nothing(model, bandwidth_bps):
    """And what is within the limit earns something up to 1 + 1's mean."""
    outcomes = model.outcomes(bandwidth_bps)
    over = outcomes.energy_j > model.most_energy_j
    assert (outcomes.reward[over] == 0).all()
    assert ((outcomes.reward[~over] > 0) & (outcomes.reward[~over] <= 1 + 1e-12)).all()


def test_a_slow_link_makes_sending_cost_too_much_energy(model):
    """At 0.01 MB/s some choice is over the limit; the whole network on the device never is."""
    outcomes = model.outcomes(LEAST_BPS)
    assert (outcomes.reward == 0).any()
    assert outcomes.reward[ON_DEVICE] > 0


def test_the_emphasis_moves_from_latency_to_accuracy(model):
    """From about 0 to nearly 1 over the bandwidths, ever more."""
    weights = [model.emphasis(bps) for bps in np.linspace(LEAST_BPS, MOST_BPS, 50)]
    assert weights[0] < 0.01
    assert weights[-1] == pytest.approx(0.98)
    assert weights == sorted(weights)


def test_a_slower_device_sends_earlier(costs):
    """The best choice at 1 MB/s leaves the device at least as few layers."""
    few, many = (
        ACTIONS[int(Model(costs, Device(slowdown=s)).outcomes(8e6).reward.argmax())].partition
        for s in (50.0, 1.0)
    )
    assert few <= many


@pytest.mark.parametrize("bandwidth_bps", [0.0, -1.0, float("nan"), 2 * MOST_BPS])
def test_a_bandwidth_out_of_range_is_named(model, bandwidth_bps):
    """With the range."""
    with pytest.raises(PlanError, match="bit/s"):
        model.outcomes(bandwidth_bps)
